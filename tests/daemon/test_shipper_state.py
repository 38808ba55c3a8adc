"""What the shipper says of itself while it works."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from capd.daemon.configuration import Configuration
from capd.daemon.shipper import Shipper
from capd.recording.bucket import Bucket
from tests.daemon.recorded_segments import HOST


def test_who_reads_of_a_failure_reads_that_it_is_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """While it is looked what waits, which takes its time, the status has the error and the next try, and not one of them."""
    settings = Configuration(state_dir=tmp_path / "state", runtime_dir=tmp_path / "run")
    for place in (settings.segments_dir, settings.shipper_dir, settings.shipper_status_file.parent, tmp_path / "bucket"):
        place.mkdir(parents=True)
    shipper = Shipper(settings, Bucket.open(str(tmp_path / "bucket")), host=HOST, confinement="none")
    told: list[tuple[object, bool, bool]] = []

    def fails() -> None:
        raise OSError("no")

    def looks() -> None:
        shipper._write_status()
        found = json.loads(settings.shipper_status_file.read_bytes())
        told.append((found["state"], found["last_error"] is not None, found["retry_seconds"] is not None))
        shipper.stop()

    monkeypatch.setattr(shipper._shipping, "turn", fails)
    monkeypatch.setattr(shipper._shipping, "survey", looks)
    shipper._work()
    assert [("retrying", True, True)] == told
