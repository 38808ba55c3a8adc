"""The file by which the next daemon goes on with the probes of this one: when it is there, and what it says."""

from __future__ import annotations

from pathlib import Path
from uuid import uuid4

import pytest

from capd.daemon.probe_store import ProbeStore, remembered
from capd.recording.durable import replace_content
from capd.recording.journal.numbering import reserve

DESCRIPTION = {"tier": "modern"}


@pytest.fixture
def store(tmp_path: Path) -> ProbeStore:
    """Give the store of a daemon whose probes are described and whose journal has begun."""
    made = ProbeStore(tmp_path, tmp_path)
    made.describe(DESCRIPTION)
    assert remembered(tmp_path, tmp_path) is None, "nothing may be taken over before the journal has begun"
    made.begin(uuid4())
    return made


def test_another_daemon_in_between_is_noticed(store: ProbeStore, tmp_path: Path) -> None:
    """What was described is found again, until another daemon has begun a journal."""
    found = remembered(tmp_path, tmp_path)
    assert found is not None
    assert (None, DESCRIPTION) == (store.unkept, found.description)
    reserve(tmp_path, 0, group=None)
    assert remembered(tmp_path, tmp_path) is None


def test_what_is_spoilt_while_it_is_written_is_not_taken_over(
    store: ProbeStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The drain thread may find that nobody can go on while the other one writes that somebody can: nobody does."""

    def late(path: Path, content: bytes, *, mode: int, sync: bool) -> None:
        store.spoil("no room")
        replace_content(path, content, mode=mode, sync=sync)

    monkeypatch.setattr("capd.daemon.probe_store.replace_content", late)
    store.describe(DESCRIPTION)
    assert ("no room", None) == (store.unkept, remembered(tmp_path, tmp_path))
