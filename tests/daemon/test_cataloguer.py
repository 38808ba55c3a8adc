"""The errand that keeps a bucket's catalogue: when it is wanted, when it is started, what the installed command does."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from itertools import pairwise
from pathlib import Path
from uuid import UUID

import pytest

from capd.daemon.catalogue_status import wanted
from capd.daemon.supervision import ERRAND_PAUSE_SECONDS_MAX, ERRAND_SECONDS_MAX, Errand
from capd.recording.bucket import Bucket
from capd.recording.bucket.layout import SegmentKey
from capd.recording.deletions import Deleted, Deletion
from capd.recording.index import Index
from capd.recording.segment import SegmentReader
from tests.cli.recorded import HOST, Recording, run_records
from tests.cli.spoken import over_http
from tests.requirements import require_root

CAPD = Path(sys.executable).parent / "capd"


@pytest.mark.parametrize(
    ("shipper", "catalogue", "expected"),
    [
        ({}, {}, False),
        ({"settled": 0}, {}, False),
        ({"settled": "many"}, {}, False),
        ({"settled": 3}, {}, True),
        ({"settled": 3}, {"settled": 2, "waiting": 0}, True),
        ({"settled": 3}, {"settled": 3, "waiting": 0}, False),
        ({"settled": 3}, {"settled": 3, "waiting": 1}, True),
        ({"settled": 3}, {"error": "no answer"}, True),
        ({"settled": 3, "retention": {"records": 2}}, {"settled": 3, "deletions": 2}, False),
        ({"settled": 3, "retention": {"records": 2}}, {"settled": 3, "deletions": 1}, True),
        ({"settled": 3, "retention": {"records": 2}}, {"settled": 3}, True),
        ({"settled": 3, "retention": {"records": 2}}, {"settled": 3, "deletions": 1, "expiry_time": 9_000.0}, False),
        ({"settled": 3, "retention": {"records": 2}}, {"settled": 3, "deletions": 1, "expiry_time": 6_000.0}, True),
    ],
)
def test_the_errand_is_wanted_when_something_was_shipped(
    shipper: dict[str, object], catalogue: dict[str, object], *, expected: bool
) -> None:
    """Only what is shipped and not catalogued starts it."""
    assert wanted(shipper, catalogue, 10_000.0) is expected


class Started:
    """Starts processes that end as they are told to."""

    def __init__(self, command: str) -> None:
        self.command = command
        self.count = 0

    def __call__(self, verb: str) -> subprocess.Popen[bytes]:
        """Start one."""
        assert verb == "catalogue"
        self.count += 1
        return subprocess.Popen(["sh", "-c", self.command])


def attended(errand: Errand, start: Started, now: float) -> None:
    """Look after an errand twice, its process having ended before the second time."""
    errand.attend(now, start, pytest.fail)
    if errand.process is not None:
        errand.process.wait()
    errand.attend(now, start, pytest.fail)


def test_an_errand_keeps_its_distance() -> None:
    """It is started when wanted, not more often than set, and not at all otherwise."""
    want = [True]
    errand = Errand(name="catalogue", wanted=lambda: want[0], every=60)
    start = Started("exit 0")
    for now in (100.0, 130.0, 159.0):
        attended(errand, start, now)
    assert start.count == 1
    attended(errand, start, 160.0)
    assert start.count == 2
    want[0] = False
    attended(errand, start, 1000.0)
    assert start.count == 2


def test_a_failing_errand_is_started_less_often() -> None:
    """Each failure doubles the wait, up to a limit; a success forgives."""
    errand = Errand(name="catalogue", wanted=lambda: True, every=60)
    failing = Started("exit 1")
    now, starts = 0.0, []
    while now < 8000:
        count = failing.count
        attended(errand, failing, now)
        starts += [now] if failing.count > count else []
        now += 10
    waits = [later - earlier for earlier, later in pairwise(starts)]
    assert waits[:4] == [120, 240, 480, ERRAND_PAUSE_SECONDS_MAX]
    working = Started("exit 0")
    attended(errand, working, now + 1000)
    attended(errand, working, now + 1060)
    assert working.count == 2


def test_an_errand_that_hangs_is_killed() -> None:
    """After its time it is killed, and said to be."""
    said: list[str] = []
    errand = Errand(name="catalogue", wanted=lambda: True, every=60)
    start = Started("exec sleep 1000")
    errand.attend(0.0, start, said.append)
    errand.attend(ERRAND_SECONDS_MAX, start, said.append)
    assert not said
    errand.attend(ERRAND_SECONDS_MAX + 61, start, said.append)
    assert errand.process is not None
    assert errand.process.wait(180) != 0
    assert "has not ended" in said[0]


def test_the_command_catalogues_what_was_shipped(instance_dir: Path) -> None:
    """It gives up root, fills the bucket's catalogue and says how far it came; called again it finds nothing to do."""
    require_root()
    pytest.importorskip("pyarrow", reason="the fleet extra is not installed")
    recording = Recording(instance_dir / "state")
    recording.write([*run_records(), *over_http().records])
    recording.close()
    (instance_dir / "state" / "host").write_text(f"{HOST}\n", encoding="ascii")
    (instance_dir / "bucket").mkdir(mode=0o777)
    (instance_dir / "bucket").chmod(0o777)
    config = instance_dir / "capd.toml"
    config.write_text(
        f'state_dir = "{instance_dir}/state"\nruntime_dir = "{instance_dir}/run"\nbucket_url = "{instance_dir}/bucket"\n'
        "[catalogue]\ndelay_seconds = 1\n",
        encoding="utf-8",
    )
    bucket = Bucket.open(str(instance_dir / "bucket"))
    for path in (instance_dir / "state" / "segments").glob("*.seg"):
        with SegmentReader(path) as reader:
            header = reader.header
        bucket.create(str(SegmentKey.of(UUID(str(header.host)), header.sequence, header.created_ns)), path)
        os.utime(instance_dir / "bucket" / str(SegmentKey.of(header.host, header.sequence, header.created_ns)), (1, 1))
    for entry in sorted((instance_dir / "bucket").rglob("*")):
        entry.chmod(0o777 if entry.is_dir() else 0o644)
    command = [str(CAPD), "catalogue", "--config", str(config)]
    for _ in range(2):
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
        assert done.returncode == 0, done.stderr
        assert "goes to segment 1; 0 wait" in done.stdout
    status = json.loads((instance_dir / "run" / "shipper" / "catalogue.status.json").read_bytes())
    assert (status["through"], status["waiting"], status.get("error")) == (1, 0, None)
    owners = {path.stat().st_uid for path in (instance_dir / "bucket" / "catalogue").rglob("*.parquet")}
    assert 0 not in owners
    asked = subprocess.run(
        [CAPD, "sessions", "--bucket", instance_dir / "bucket", "--json"],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert [session["protocol"] for session in json.loads(asked.stdout)] == ["http1"], asked.stderr
    expire(instance_dir / "state" / "index" / "capd.db")
    for segment in bucket.list(f"host={HOST}/"):
        bucket.delete(segment.key)
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    status = json.loads((instance_dir / "run" / "shipper" / "catalogue.status.json").read_bytes())
    assert (status["deletions"], status.get("locked"), status.get("error")) == (1, None, None)
    assert [] == bucket.list("catalogue/")


def expire(path: Path) -> None:
    """Let segment 1 go, and take its rows out of the index, as the recorder does."""
    with Index.open(path) as index:
        deleted = [Deleted(sequence=1, digest=bytes(32), policy="ci")]
        index.expiry.learn(Deletion(host=HOST, written_ns=1, segments=deleted))
        while index.expiry.step():
            pass
