"""The drain and the spool: real journal files, a ring in memory of the kernel's own layout."""

from __future__ import annotations

import os
import struct
from collections.abc import Callable
from pathlib import Path

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from capd.daemon import drain as draining
from capd.daemon import drained, notes
from capd.daemon import losses as losing
from capd.daemon.configuration import MIB, JournalSection
from capd.daemon.drain import Drain, FileHint, Turn
from capd.daemon.drained import Drained
from capd.daemon.losses import LossBook
from capd.daemon.spool import Spool, Stoppage, read_position
from capd.probes import layouts
from capd.probes.capture import Loss
from capd.probes.layouts import EventKind
from capd.recording.journal import Block, JournalReader, Position, Source
from tests.daemon.conftest import in_namespace


class MemoryRing:
    """A ring whose producer is the test: the same calls and the same record layout as `capd.probes.ring.Ring`."""

    def __init__(self) -> None:
        self.pending = bytearray()
        self.count = 0
        self._drained = 0
        self.position = 0

    def put(self, *records: bytes) -> None:
        """Append records."""
        for record in records:
            padded = record + bytes(-len(record) % 8)
            self.pending += struct.pack("<II", len(record), 0) + padded

    def used(self) -> int:
        """Say how much waits."""
        return len(self.pending)

    def drain(self, limit_bytes: int) -> memoryview | None:
        """Give whole records, at least one, until the limit is passed."""
        offset = self.count = 0
        while offset < min(len(self.pending), limit_bytes):
            offset += 8 + (int.from_bytes(self.pending[offset : offset + 4], "little") + 7 & ~7)
            self.count += 1
        self._drained = offset
        return memoryview(bytes(self.pending[:offset])) if offset else None

    def release(self) -> None:
        """Forget what was drained."""
        del self.pending[: self._drained]
        self.position += self._drained
        self._drained = 0


class Kernel:
    """The kernel's counts of what was lost, made by the test."""

    def __init__(self) -> None:
        self.found: dict[tuple[int, int, int, int], tuple[int, int]] = {}
        self.records = self.skipped = 0

    def lose(self, stream: int, layer: int, amount: int, *, direction: int = 0, cause: int = 6, run: int = 2) -> None:
        """Count a loss as the probes do."""
        before = self.found.get((stream, layer, direction, cause), (0, run))[0]
        self.found[stream, layer, direction, cause] = before + amount, run
        self.records += 1

    def counters(self) -> dict[str, int]:
        """Give all counters."""
        return {"data_records": 5, "ring_full_records": self.records}

    def lost(self) -> tuple[int, ...]:
        """Give those that count losses."""
        return (self.records,)

    def programs_skipped(self) -> int:
        """Give how often a program did not run."""
        return self.skipped

    def losses(self) -> list[Loss]:
        """Give what each stream lost."""
        return [Loss(*key[:3], amount, key[3], run) for key, (amount, run) in self.found.items()]

    def forget_losses(self, told: Callable[[Loss], bool]) -> list[Loss]:
        """Forget all that was told."""
        gone = [loss for loss in self.losses() if told(loss)]
        for loss in gone:
            del self.found[loss.stream, loss.layer, loss.direction, loss.cause]
        return gone


def event(kind: EventKind, body: bytes = b"", pid: int = 7) -> bytes:
    """Give a ring record."""
    return layouts.HEADER.pack(1, 2, 3, pid, pid, kind, 0, len(body)) + body


def spool(directory: Path, **section: object) -> Spool:
    """Open a journal."""
    return Spool(
        directory / "journal",
        directory / "position",
        JournalSection.model_validate(section),
        group=None,
        disk=lambda: None,
    )


def clock() -> tuple[int, int]:
    """Give a boot and a wall time."""
    return 10, 20


def rig(directory: Path, kernel: Kernel | None = None, **section: object) -> tuple[Drain, MemoryRing, MemoryRing, Spool]:
    """Give a drain with two rings and a journal."""
    control, data, journal = MemoryRing(), MemoryRing(), spool(directory, **section)
    losses = LossBook(kernel or Kernel(), clock=clock)
    return Drain(control, data, journal, clock=clock, losses=losses), control, data, journal


def blocks(directory: Path) -> list[Block]:
    """Read the journal."""
    reader = JournalReader(directory / "journal", None)
    return [block for block in iter(reader.read, None) if isinstance(block, Block)]


def names(directory: Path) -> list[str]:
    """Give each block's source, or its note's name."""
    return [
        msgpack.unpackb(block.payload)["note"] if block.source is Source.NOTE else block.source.name.lower()
        for block in blocks(directory)
    ]


def test_spans_go_whole_into_blocks(tmp_path: Path) -> None:
    """What is in the rings is in the journal byte for byte, with both clocks and the count of records."""
    drain, control, data, _spool = rig(tmp_path)
    control.put(event(EventKind.PROCESS_EXIT, bytes(8)))
    data.put(b"a" * 3000, b"b", b"")
    expected = [(Source.CONTROL, bytes(control.pending), 1, 10, 20), (Source.DATA, bytes(data.pending), 3, 10, 20)]
    expected.append((Source.NOTE, notes.pack(notes.drained(10)), 1, 10, 20))
    turn = drain.turn()
    found = [
        (block.source, bytes(block.payload), block.count, block.boottime_ns, block.realtime_ns) for block in blocks(tmp_path)
    ]
    assert expected == found
    assert (0, 0, True) == (control.used(), data.used(), turn.exits)


def test_notes_stand_before_or_after_the_events_of_their_time(tmp_path: Path) -> None:
    """A note comes before what is in the rings, one that asks for it after all that is there, however many turns that takes."""
    drain, control, data, _spool = rig(tmp_path, compression="none")
    control.put(event(EventKind.PROCESS_EXIT, bytes(8)))
    for _record in range(6):
        data.put(bytes(draining.BLOCK_BYTES))
    late = drain.post(notes.run_ended(1, 0), after_events=True)
    early = drain.post(notes.stop(0))
    drain.turn()
    assert (True, False) == (early.wait(0), late.wait(0))
    drain.finish(60)
    assert late.wait(0)
    assert ["stop", "control", *["data"] * 6, "run_ended", "drained"] == names(tmp_path)


def losses(directory: Path) -> list[dict[str, object]]:
    """Give the notes of losses."""
    found = (msgpack.unpackb(block.payload) for block in blocks(directory) if block.source is Source.NOTE)
    return [note for note in found if note["note"] == "losses"]


def test_what_was_lost_before_an_event_is_noted_before_it(tmp_path: Path) -> None:
    """The note stands before the control block of the same turn, and before an end of a run; it tells what is new, once."""
    kernel = Kernel()
    drain, control, data, _spool = rig(tmp_path, kernel)
    control.put(event(EventKind.SOCKET_OPEN))
    data.put(b"d")
    drain.turn()
    kernel.lose(9, 1, 30)
    control.put(event(EventKind.SOCKET_CLOSE))
    data.put(b"d")
    drain.turn()
    control.put(event(EventKind.PROCESS_FORK))
    drain.turn()
    drain.post(notes.run_ended(1, 0), after_events=True)
    kernel.lose(9, 1, 5)
    drain.turn()
    told = ["control", "data", "losses", "control", "data", "drained", "control", "losses", "run_ended"]
    assert told == names(tmp_path)
    assert [[[9, 1, 0, 6, 30, 2]], [[9, 1, 0, 6, 5, 2]]] == [note["grown"] for note in losses(tmp_path)]
    assert {"data_records": 5, "ring_full_records": 2, "programs_skipped": 0} == losses(tmp_path)[-1]["counters"]


def test_a_control_block_does_not_overtake_the_note_of_losses(tmp_path: Path) -> None:
    """Where the journal does not take the note, the events stay in the ring; later both come, the note first and once."""
    kernel = Kernel()
    drain, control, _data, journal = rig(tmp_path, kernel)
    kernel.lose(9, 1, 30)
    control.put(event(EventKind.SOCKET_CLOSE))
    journal.stoppage = Stoppage(cause="disk low", detail="")
    drain.turn()
    assert ([], False) == (names(tmp_path), control.used() == 0)
    journal.refresh()
    drain.turn()
    assert ["losses", "control", "drained"] == names(tmp_path)


def test_an_end_is_followed_by_the_word_that_all_before_it_is_drained(tmp_path: Path) -> None:
    """That takes as many turns as the data ring that was there; what comes later does not delay it."""
    drain, control, data, _spool = rig(tmp_path, compression="none")
    control.put(event(EventKind.TLS_CLOSE))
    for _record in range(3):
        data.put(bytes(draining.BLOCK_BYTES))
    drain.turn()
    assert "drained" not in names(tmp_path)
    for _record in range(3):
        data.put(bytes(draining.BLOCK_BYTES))
    drain.turn()
    assert ["control", *["data"] * 4, "drained"] == names(tmp_path)


def test_a_run_ends_after_a_control_ring_of_any_size(tmp_path: Path) -> None:
    """The last note of a run comes after all its control events too."""
    drain, control, _data, _spool = rig(tmp_path, compression="none")
    for _record in range(draining.BLOCKS_A_TURN + 1):
        control.put(event(EventKind.SOCKET_OPEN, bytes(draining.BLOCK_BYTES)))
    drain.post(notes.run_ended(1, 0), after_events=True)
    drain.turn()
    drain.turn()
    assert ["control"] * (draining.BLOCKS_A_TURN + 1) + ["run_ended"] == names(tmp_path)


def test_losses_that_are_over_are_forgotten(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel's table has room for new ones, the totals stay, and a stream that loses again is told anew."""
    monkeypatch.setattr(losing, "FORGET_ABOVE", 2)
    kernel = Kernel()
    book = LossBook(kernel, clock=clock)
    for stream in range(3):
        kernel.lose(stream, 0, 10)
    assert book.news() is not None
    book.noted()
    kernel.lose(7, 0, 1)
    book.refresh()
    assert [7] == [loss.stream for loss in kernel.losses()]
    kernel.lose(0, 0, 4)
    note = book.news()
    assert note is not None
    book.noted()
    assert [[7, 0, 0, 6, 1, 2], [0, 0, 0, 6, 4, 2]] == note["grown"]
    assert 35 == book.totals.bytes
    assert book.news() is None


def test_files_and_exits_are_picked_out_of_the_control_ring(tmp_path: Path) -> None:
    """EXEC and FILE_MAPPED give their process and file, EXIT that something ended; other kinds give nothing."""
    drain, control, data, _spool = rig(tmp_path)
    executed = layouts.EXEC.pack(5, 6, 0, 0, 0, 0, 0, 0, b"comm")
    control.put(
        event(EventKind.SOCKET_OPEN, bytes(layouts.SOCKET_OPEN.size)),
        event(EventKind.PROCESS_EXEC, executed, pid=11),
        event(EventKind.FILE_MAPPED, layouts.FILE_MAPPED.pack(8, 9), pid=12),
        event(EventKind.FILE_MAPPED, b"short"),
    )
    data.put(event(EventKind.FILE_MAPPED, layouts.FILE_MAPPED.pack(1, 1)))
    expected = [FileHint(pid=11, device=5, inode=6, first=False), FileHint(pid=12, device=8, inode=9, first=True)]
    turn = drain.turn()
    assert (expected, False) == (turn.files, turn.exits)


@given(st.binary(max_size=400))
def test_no_span_breaks_the_walk(span: bytes) -> None:
    """Any bytes in a control span end the walk or give offsets inside of it, never an exception or an endless loop."""
    view = memoryview(span)
    assert all(0 <= offset < len(span) for offset, _kind in draining.kinds(view))
    draining._look(view, Turn())


def test_full_journal_stops_the_drain_until_the_recorder_has_sealed(tmp_path: Path) -> None:
    """At bytes_max nothing more leaves the rings and nothing is lost on our side; it goes on when the position has moved."""
    drain, _control, data, journal = rig(tmp_path, bytes_max=MIB, compression="none")
    kept = bytearray()
    while journal.stoppage is None:
        record = os.urandom(100_000)
        data.put(record)
        drain.turn()
        kept += record
    assert "journal full" == journal.stoppage.cause
    data.put(b"waits")
    drain.post(notes.stop(0))
    drain.turn()
    assert data.used() > 0
    journal.refresh()
    assert journal.stoppage is not None
    (tmp_path / "position").write_bytes(msgpack.packb(journal.position.to_fields()))
    journal.refresh()
    assert 0 == journal.backlog_bytes
    drain.turn()
    assert ["stop", "data"] == names(tmp_path)[-2:]
    assert data.used() == 0


def test_other_bounds_count_at_once(tmp_path: Path) -> None:
    """After a reload a journal that is full by the new bound stops, and one that is not any more goes on."""
    journal = spool(tmp_path, bytes_max=1 << 30)
    for _ in range(3):
        assert journal.append(Source.DATA, os.urandom(1 << 20), count=1, boottime_ns=0, realtime_ns=0)
    for bound, cause in ((1 << 20, "journal full"), (1 << 30, None)):
        journal.follow(JournalSection(bytes_max=bound))
        journal.refresh()
        assert (cause, bound) == (None if journal.stoppage is None else journal.stoppage.cause, journal.bytes_max)


def test_low_disk_stops_the_drain_and_room_lets_it_go_on(tmp_path: Path) -> None:
    """Without room nothing is written; with room again it is, by itself."""
    shortage: list[str | None] = ["100 MiB free, out is below 200 MiB"]
    journal = Spool(
        tmp_path / "journal",
        tmp_path / "position",
        JournalSection(),
        group=None,
        disk=lambda: shortage[0],
    )
    assert journal.stoppage is not None
    assert ("disk low", shortage[0]) == (journal.stoppage.cause, journal.stoppage.detail)
    assert not journal.append(Source.DATA, b"x", count=1, boottime_ns=0, realtime_ns=0)
    shortage[0] = None
    journal.refresh()
    assert journal.append(Source.DATA, b"x", count=1, boottime_ns=0, realtime_ns=0)


FULL_DISK = """
import os
from pathlib import Path
from capd.daemon.configuration import JournalSection
from capd.daemon.losses import LossBook
from capd.daemon.spool import Spool
from capd.recording.journal import JournalReader, Source
spool = Spool(Path("/mnt/journal"), Path("/mnt/position"), JournalSection(free_bytes_min=0, compression="none"),
    group=None, disk=lambda: None)
written = 0
while spool.append(Source.DATA, os.urandom(10_000), count=1, boottime_ns=0, realtime_ns=0):
    written += 1
print(spool.stoppage.cause, spool.refused)
os.unlink("/mnt/fill")
spool.refresh()
print(spool.append(Source.DATA, b"after", count=1, boottime_ns=0, realtime_ns=0))
reader = JournalReader(Path("/mnt/journal"), None)
read = [bytes(block.payload) for block in iter(reader.read, None)]
print(len(read) == written + 1, read[-1])
"""


def test_disk_that_fills_up_under_the_journal_damages_nothing() -> None:
    """On a really full file system the block is refused whole; after room is made the journal reads without a gap."""
    prepare = "mount -t tmpfs -o size=1m none /mnt; head -c 600000 /dev/zero >/mnt/fill"
    done = in_namespace(FULL_DISK, prepare=prepare)
    assert ("", "disk low True\nTrue\nTrue b'after'\n") == (done.stderr, done.stdout)


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (msgpack.packb([3, 4096]), Position(3, 4096)),
        (msgpack.packb([3]), None),
        (msgpack.packb([-1, 0]), None),
        (msgpack.packb("x"), None),
        (b"", None),
        (b"\xc1", None),
        (b"\xdd\xff\xff\xff\xff", None),
    ],
)
def test_position_file_of_an_untrusted_recorder(tmp_path: Path, content: bytes, expected: Position | None) -> None:
    """Only two numbers are a position; anything else is none."""
    (tmp_path / "position").write_bytes(content)
    assert expected == read_position(tmp_path / "position")


def test_position_file_may_be_a_trap(tmp_path: Path) -> None:
    """A link, a pipe or a directory in place of the position file neither misleads nor blocks root."""
    (tmp_path / "real").write_bytes(msgpack.packb([1, 1]))
    (tmp_path / "link").symlink_to(tmp_path / "real")
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "directory").mkdir()
    assert [None] * 4 == [read_position(tmp_path / name) for name in ("link", "pipe", "directory", "missing")]


def test_position_beyond_its_file_does_not_hide_the_backlog(tmp_path: Path) -> None:
    """However large an offset the recorder claims, no more counts as sealed than the file holds: the journal stays bounded."""
    journal = spool(tmp_path, compression="none")
    journal.append(Source.DATA, b"x", count=1, boottime_ns=0, realtime_ns=0)
    first = journal.position
    journal.close()
    journal = spool(tmp_path, compression="none")
    journal.append(Source.DATA, b"x", count=1, boottime_ns=0, realtime_ns=0)
    (tmp_path / "position").write_bytes(msgpack.packb([first.file, 1 << 62]))
    journal.refresh()
    assert first.offset == journal.backlog_bytes


def test_position_ahead_of_the_journal_frees_nothing(tmp_path: Path) -> None:
    """A position beyond what was ever written is not believed: no file of the journal is removed for it."""
    journal = spool(tmp_path, compression="none")
    journal.append(Source.DATA, b"x", count=1, boottime_ns=0, realtime_ns=0)
    (tmp_path / "position").write_bytes(msgpack.packb([99, 0]))
    journal.refresh()
    assert (None, 1) == (journal.sealed, len(blocks(tmp_path)))


def test_all_is_drained_up_to_when_the_rings_were_read_to_their_end(tmp_path: Path) -> None:
    """Of a moment it is said when all that was in both rings then is in the journal; what comes after it delays nothing."""
    drain, control, data, journal = rig(tmp_path, compression="none")
    said = drain.drained()
    assert said == Drained(realtime_ns=20, file=journal.position.file, offset=journal.position.offset)
    control.put(event(EventKind.SOCKET_OPEN))
    for _record in range(draining.BLOCKS_A_TURN + 1):
        data.put(bytes(draining.BLOCK_BYTES))
    assert drain.drained() is None
    drain.turn()
    assert drain.drained() is None
    data.put(bytes(draining.BLOCK_BYTES))
    drain.turn()
    said = drain.drained()
    assert said is not None
    assert (20, 0) == (said.read_ns(journal.position), said.read_ns(Position(said.file, said.offset - 1)))


def test_nothing_is_drained_while_the_journal_does_not_take_it(tmp_path: Path) -> None:
    """Events that wait for room in the journal, and losses that are not noted yet, are not said to have been told."""
    kernel = Kernel()
    drain, control, _data, journal = rig(tmp_path, kernel)
    control.put(event(EventKind.SOCKET_OPEN))
    kernel.lose(9, 1, 30)
    journal.stoppage = Stoppage(cause="disk low", detail="")
    drain.turn()
    assert drain.drained() is None
    journal.refresh()
    drain.turn()
    assert drain.drained() is not None
    assert ["losses", "control"] == names(tmp_path)


def test_the_word_of_a_daemon_outlives_it(tmp_path: Path) -> None:
    """What was told is read as it was, by a recorder that begins later too; what is no word says nothing."""
    said = Drained(realtime_ns=7, file=1, offset=2)
    assert drained.NEVER == drained.told(tmp_path / "drained")
    drained.tell(tmp_path / "drained", said)
    assert said == drained.told(tmp_path / "drained")
    (tmp_path / "drained").write_text('{"realtime_ns": 9}', encoding="ascii")
    assert drained.NEVER == drained.told(tmp_path / "drained")
