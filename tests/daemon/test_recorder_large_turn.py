"""A turn of the daemon that holds a ring's worth of small messages: what of it is in memory at once, and what stays."""

from __future__ import annotations

import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from capd.daemon import freed_memory, recorder_index
from capd.daemon.assembly import assembler
from capd.daemon.configuration import Configuration
from capd.daemon.freed_memory import FreedMemory
from capd.daemon.recorder import Recorder
from capd.recording import index_segments
from capd.recording.index import Index
from capd.recording.journal import JournalWriter
from capd.recording.projection import Projection
from capd.recording.record import Record
from tests.assembly.test_snapshot import http_events
from tests.assembly.world import HOST, MS, Daemon, closed, opened

CONNECTIONS = 30
ROWS_MAX = 16


@pytest.fixture
def settings(tmp_path: Path) -> Configuration:
    """Give an instance with a journal that one turn filled: many short conversations."""
    made = Configuration(state_dir=tmp_path / "state", runtime_dir=tmp_path / "run")
    for place in (made.recorder_dir, made.segments_dir, made.index_dir, made.recorder_runtime_dir):
        place.mkdir(parents=True)
    daemon, control, data = Daemon(), [], list[bytes]()
    for number in range(CONNECTIONS):
        events, ends = http_events((10 + number) * MS, 1_000 + number)
        control += [opened((9 + number) * MS, 1_000 + number), closed((10 + number) * MS + MS - 1, 1_000 + number, *ends, ends)]
        data += events
    with JournalWriter(made.journal_dir) as writer:
        for blocks in (daemon.started(), daemon.run_started(), daemon.cycle(90 * MS, control=control, data=data)):
            for block in blocks:
                stamps = {"boottime_ns": block.boottime_ns, "realtime_ns": time.time_ns()}
                writer.append(block.source, block.payload, count=block.count, **stamps)
    return made


@pytest.fixture
def waited(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Make batches and what may wait small; give how many rows of messages waited after each batch."""
    monkeypatch.setattr(assembler, "BATCH_RECORDS", ROWS_MAX)
    monkeypatch.setattr(recorder_index, "MESSAGES_MAX", ROWS_MAX)
    found: list[int] = []
    receive = Projection.receive

    def counted(projection: Projection, records: Iterable[Record]) -> None:
        receive(projection, records)
        found.append(projection.messages_waiting)

    monkeypatch.setattr(Projection, "receive", counted)
    return found


def rows(path: Path) -> list[Any]:
    """Give what an index knows of sessions, and what it finds."""
    with Index.open(path, readonly=True) as index:
        found = sorted(index.sessions(limit=None), key=lambda row: row.session)
        return [*found, sorted(index.search("hello", limit=1_000), key=lambda hit: (hit.session, hit.ordinal))]


def test_rows_of_a_turn_wait_for_its_end_in_the_index(settings: Configuration, waited: list[int], tmp_path: Path) -> None:
    """Of all messages of a turn few wait in memory, and the index is the one that its segments give."""
    made = Recorder(settings, host=HOST, user="test")
    made.stop()
    made.run()
    assert made.counts["messages"] > 10 * ROWS_MAX
    assert max(waited) < 4 * ROWS_MAX
    index_segments.rebuild(tmp_path / "again.db", settings.segments_dir)
    assert rows(tmp_path / "again.db") == rows(settings.index_file)
    assert len(rows(settings.index_file)[-1]) == 3 * CONNECTIONS


def test_who_dies_before_the_turn_is_stored_leaves_no_row_of_it(
    settings: Configuration, waited: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the index was told of a turn is not seen before the segment has it, nor after a death."""

    class KilledError(BaseException):
        pass

    made = Recorder(settings, host=HOST, user="test")

    def die(_sequence: int) -> None:
        raise KilledError

    monkeypatch.setattr(made._index, "write", die)  # right before its commit
    made.stop()
    with pytest.raises(KilledError):
        made.run()
    assert max(waited) >= ROWS_MAX
    made._index.index._connection.rollback()  # as SQLite does for whoever opens what a dead process left
    with Index.open(settings.index_file, readonly=True) as index:
        assert [] == index.search("hello")
    made._index.index._connection.close()
    following = Recorder(settings, host=HOST, user="test")
    following.stop()
    following.run()
    assert len(rows(settings.index_file)[-1]) == 3 * CONNECTIONS


def test_what_was_read_last_is_let_go(settings: Configuration) -> None:
    """Of the last block of a turn its place is remembered, not its payload."""
    made = Recorder(settings, host=HOST, user="test")
    made.stop()
    made.run()
    assert made._last_block is not None
    assert (b"", b"") == (bytes(made._last_block.payload), bytes(made._cycles._part.payload if made._cycles._part else b"x"))


def test_memory_is_given_back_after_work(monkeypatch: pytest.MonkeyPatch) -> None:
    """The allocator is asked once after much was done, and not again for nothing."""
    monkeypatch.setattr(freed_memory, "WORK_MIN", 10)
    freed = FreedMemory()
    assert [False, True, False, False, True] == [freed.give_back(done) for done in (9, 10, 10, 19, 20)]
