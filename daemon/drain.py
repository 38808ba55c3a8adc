"""The drain: ring spans go whole into journal blocks.

What lives here: the order of control, data and notes, batching, and what little of the control ring the daemon must know
itself. What must not: anything per data event. A span of the data ring is never looked into.

The order is a promise to who reads the journal (docs/formats/journal.md): what was lost before an event of the control ring is
noted before it, and after an end there is a note that all data before it has been written. So nobody has to guess whether
something more will come.
"""

from __future__ import annotations

import struct
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Final, Protocol

from capd.daemon import notes
from capd.daemon.drain_mark import DrainMark
from capd.daemon.drained import Drained
from capd.daemon.losses import LossBook
from capd.daemon.spool import Spool
from capd.daemon.units import MIB
from capd.probes import layouts
from capd.probes.layouts import EventKind
from capd.recording.journal import Source

BLOCK_BYTES: Final = 8 * MIB
"""As much of a ring as one block takes: bounds the recorder's memory, and how long the control ring waits for the data ring."""
BLOCKS_A_TURN: Final = 2
"""Of one ring, so that neither ring keeps the other waiting when agents are faster than the disk."""
ENDS: Final = frozenset({EventKind.SOCKET_CLOSE, EventKind.TLS_CLOSE, EventKind.PROCESS_EXIT})
_KIND_OFFSET: Final = layouts.RING_HEADER_BYTES + 32
_PID_OFFSET: Final = layouts.RING_HEADER_BYTES + 24
_BODY_OFFSET: Final = layouts.RING_HEADER_BYTES + layouts.HEADER.size
_FILE: Final = struct.Struct("<QQ")
"""device and inode: how the bodies of PROCESS_EXEC and FILE_MAPPED begin."""
_HINT_BYTES_MIN: Final = _BODY_OFFSET + _FILE.size

Clock = Callable[[], tuple[int, int]]
"""Gives CLOCK_BOOTTIME and wall time of one moment, in ns."""


class Ring(Protocol):
    """What the drain needs of a ring; `capd.probes` has the real one."""

    @property
    def count(self) -> int:
        """Records in the span that was drained last."""

    @property
    def position(self) -> int:
        """Where the next span begins: bytes since the ring was made."""

    def used(self) -> int:
        """Say how many bytes wait in it."""

    def drain(self, limit_bytes: int) -> memoryview | None:
        """Give a span of whole records, the same again until it is released; None if there is none."""

    def release(self) -> None:
        """Give the span back to the kernel."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FileHint:
    """A process of a run mapped, or runs, a file: a TLS library may have to be watched.

    Attributes:
        pid: the process.
        device, inode: the file, in the kernel's form.
        first: the kernel tells it once for each file, so it must be looked at; else it is told with every exec.
    """

    pid: int
    device: int
    inode: int
    first: bool


@dataclass(kw_only=True)
class Turn:
    """What one turn of the drain moved.

    Attributes:
        bytes: payload of the blocks written.
        files: files that processes of runs mapped or executed.
        exits: whether a process of a run ended.
        ends: whether that or something else ended.
    """

    bytes: int = 0
    files: list[FileHint] = field(default_factory=list)
    exits: bool = False
    ends: bool = False


class PendingNote:
    """A note on its way into the journal, for whom it matters that it is there."""

    def __init__(self, note: notes.Note, *, after_events: bool) -> None:
        self.payload = notes.pack(note)
        self.after_events = after_events
        self.after_bytes = 0, 0
        """What has to be written before it, of the control and of the data ring."""
        self._written = threading.Event()

    def wait(self, seconds: float) -> bool:
        """Wait until the note is in the journal; False when it is not in time."""
        return self._written.wait(seconds)

    def written(self) -> None:
        """Say that it is in the journal."""
        self._written.set()


class Drain:
    """Moves what is in the rings, and the notes of other threads, into the journal. One thread calls it."""

    def __init__(
        self, control: Ring, data: Ring, spool: Spool, *, clock: Clock, losses: LossBook, mark: DrainMark | None = None
    ) -> None:
        """Take what it works with.

        Args:
            control: the ring of lifecycle events.
            data: the ring of payload.
            spool: the journal.
            clock: of notes and blocks.
            losses: what is lost and not noted yet.
            mark: where to say what is on its way, for the next daemon.
        """
        self._control = control
        self._data = data
        self._spool = spool
        self._clock = clock
        self._losses = losses
        self._mark = mark
        self._posted: deque[PendingNote] = deque()
        self._early: deque[PendingNote] = deque()
        self._late: deque[PendingNote] = deque()
        self._control_bytes = self._data_bytes = 0
        self._asked: tuple[int, tuple[int, int]] | None = None
        """Wall time at which what was in the rings was measured last, and what has to be written of each for it."""
        self.records = 0
        self.bytes = 0
        self.discarding = False
        """Whether payload is taken out of the ring and not written, because agents go on while it cannot be recorded."""
        self.discarded_bytes = 0

    def post(self, note: notes.Note, *, after_events: bool = False) -> PendingNote:
        """Queue a note from any thread. The drain has to be woken besides.

        Args:
            note: what to write.
            after_events: write it after all that is in the rings now, as the end of a run must be; else before.
        """
        pending = PendingNote(note, after_events=after_events)
        self._posted.append(pending)
        return pending

    def turn(self) -> Turn:
        """Write what there is: notes first, then the control ring, then the data ring, then the notes that are about those.

        What cannot be written stays where it is, in the ring: when that is full, the kernel counts what is lost.
        """
        done = self.control_turn()
        before = done.bytes
        self._move(self._data, Source.DATA, done)
        self._data_bytes += done.bytes - before
        while self._late and self._reached(self._late[0].after_bytes) and self.note_losses() and self._write(self._late):
            pass
        return done

    def control_turn(self) -> Turn:
        """Write notes and the control ring only: what others wait for."""
        done = Turn()
        while self._posted:
            pending = self._posted.popleft()
            if pending.after_events:
                self._after_events(pending)
            else:
                self._early.append(pending)
        while self._early and self._write(self._early):
            pass
        if not self._early:
            self._move(self._control, Source.CONTROL, done)
            self._control_bytes += done.bytes
        if done.ends:
            self._after_events(PendingNote(notes.drained(self._clock()[0]), after_events=True))
        return done

    def note_losses(self) -> bool:
        """Write down what was lost until now, if that is news. False: the journal does not take it."""
        note = self._losses.news()
        if note is None:
            return True
        if not self._append(Source.NOTE, notes.pack(note), 1):
            return False
        self._losses.noted()
        self._done()
        return True

    def _append(self, source: Source, payload: bytes | memoryview, count: int, start: int = 0) -> bool:
        """Write a block, with a mark that stands until `_done`; False: it was not written, and there is no mark."""
        boottime_ns, realtime_ns = self._clock()
        if self._mark is not None:
            self._mark.begin(source, start, start + len(payload), self._spool.position)
        written = self._spool.append(source, payload, count=count, boottime_ns=boottime_ns, realtime_ns=realtime_ns)
        if not written:
            self._done()
        return written

    def _done(self) -> None:
        if self._mark is not None:
            self._mark.done()

    def drained(self) -> Drained | None:
        """Say up to when all that was in the rings is in the journal; None: no later than was said before.

        To be called again and again: while the rings are not empty what they held at one call is there at a later one.
        """
        if self._asked is None:
            realtime_ns = self._clock()[1]
            self._asked = realtime_ns, self._after_bytes()
        realtime_ns, after_bytes = self._asked
        if self._early or not self._reached(after_bytes) or not self.note_losses():
            return None
        self._asked = None
        position = self._spool.position
        return Drained(realtime_ns=realtime_ns, file=position.file, offset=position.offset)

    def finish(self, seconds_max: float) -> None:
        """Write all that is left, before the end; no longer than `seconds_max`, because agents go on writing."""
        deadline = time.monotonic() + seconds_max
        while self.turn().bytes and time.monotonic() < deadline:
            pass

    def _after_events(self, pending: PendingNote) -> None:
        """Let a note wait until all that is in the rings now is written."""
        pending.after_bytes = self._after_bytes()
        self._late.append(pending)

    def _after_bytes(self) -> tuple[int, int]:
        """Give what will have been written of the control and of the data ring when all is that is in them now."""
        return self._control_bytes + self._control.used(), self._data_bytes + self._data.used()

    def _reached(self, after_bytes: tuple[int, int]) -> bool:
        control, data = after_bytes
        return control <= self._control_bytes and data <= self._data_bytes

    def _write(self, queue: deque[PendingNote]) -> bool:
        pending = queue[0]
        if not self._append(Source.NOTE, pending.payload, 1):
            return False
        self._done()
        queue.popleft()
        pending.written()
        return True

    def _move(self, ring: Ring, source: Source, done: Turn) -> None:
        for _block in range(BLOCKS_A_TURN):
            span = ring.drain(BLOCK_BYTES)
            if span is None:
                return
            if source is Source.CONTROL and not self.note_losses():
                return
            count, size = ring.count, len(span)
            if self.discarding and source is Source.DATA:
                self.discarded_bytes += size
            elif not self._append(source, span, count, ring.position):
                return
            if source is Source.CONTROL:
                _look(span, done)
            span.release()
            ring.release()
            self._done()
            done.bytes += size
            self.bytes += size
            self.records += count


def now() -> tuple[int, int]:
    """Give CLOCK_BOOTTIME and wall time of this moment, in ns."""
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME), time.time_ns()


def _look(span: memoryview, done: Turn) -> None:
    """Pick out of a control span the three kinds that the daemon acts on, by their fixed-size headers."""
    for offset, kind in kinds(span):
        if kind in {EventKind.FILE_MAPPED, EventKind.PROCESS_EXEC} and offset + _HINT_BYTES_MIN <= len(span):
            device, inode = _FILE.unpack_from(span, offset + _BODY_OFFSET)
            (pid,) = struct.unpack_from("<I", span, offset + _PID_OFFSET)
            done.files.append(FileHint(pid=pid, device=device, inode=inode, first=kind == EventKind.FILE_MAPPED))
        elif kind in ENDS:
            done.ends = True
            done.exits = done.exits or kind == EventKind.PROCESS_EXIT


def kinds(span: memoryview) -> Iterator[tuple[int, int]]:
    """Walk a span's ring records and give the offset and the kind of each event; stops where the span is not whole."""
    offset, end = 0, len(span)
    while offset + _BODY_OFFSET <= end:
        length = int.from_bytes(span[offset : offset + 4], "little")
        size = length & ~(layouts.RING_BUSY | layouts.RING_DISCARD)
        if not length & layouts.RING_DISCARD:
            yield offset, int.from_bytes(span[offset + _KIND_OFFSET : offset + _KIND_OFFSET + 2], "little")
        offset += layouts.RING_HEADER_BYTES + (size + 7 & ~7)
