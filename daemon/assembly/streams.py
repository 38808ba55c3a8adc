"""One direction of one captured stream: in which order its bytes were, and which are missing.

What lives here: positions, jumps, events that overtook each other. What must not: sessions, records, protocols.

The probes number every byte (`position`), so a jump is a loss, unless the missing event comes a little later: two threads that
write to one socket on two processors may have their events in the ring in the other order. What jumped therefore waits for what
it jumped over, until the assembler settles (at the latest one drain cycle later).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

from capd.probes.layouts import Absence

EARLY_EVENTS_MAX: Final = 64
"""Events that may wait in one direction. Threads overtake each other by a call or two; more is a loss, not a race."""
EARLY_BYTES_MAX: Final = 4 * 1024 * 1024
"""Bytes that may wait in one direction, so that a loss before a flood of large calls does not hold a whole drain in memory."""

REASONS: Final = {
    Absence.NONE: "unknown",
    Absence.FAULT: "memory fault",
    Absence.KERNEL_COPY: "kernel copy",
    Absence.CIPHERTEXT: "ciphertext",
    Absence.TOO_LARGE: "call too large",
    Absence.URING: "io_uring",
    Absence.RING_FULL: "ring full",
    Absence.UNKNOWN_CALL: "unknown call",
    Absence.OTHER_STACK: "TLS call on another stack",
    Absence.PEEKED: "looked at and not taken",
}
"""Words of a GAP record for each cause that the probes know."""
LOST: Final = "ring full"
"""The only way in which a whole event disappears without a trace of its own is a full ring."""
UNRECORDED: Final = "not recorded"
"""There was no room to write, and agents went on."""
RESTARTED: Final = "capture restarted"
DAMAGED: Final = "journal damaged"
UNKNOWN: Final = "unknown"


def reason_of(absence: int) -> str:
    """Give the words for an `Absence`; numbers of later probes are "unknown"."""
    try:
        return REASONS[Absence(absence)]
    except ValueError:
        return UNKNOWN


@dataclass(slots=True)
class Chunk:
    """A data event on its way into a session, flat because there is one for every call that an agent makes.

    Attributes:
        time_ns: boot clock at the call's return.
        wall_ns: the same as nanoseconds since 1970, UTC.
        run, process_start_ns, pid: from the event's header.
        tls: whether this is plaintext from a TLS library (TLS_DATA).
        stream, position, socket, length, captured, direction, tie, absence, library, peer: as in `layouts.DataEvent`.
        payload: what was captured; a view into the journal block unless the chunk was `kept`.
    """

    time_ns: int
    wall_ns: int
    run: int
    process_start_ns: int
    pid: int
    tls: bool
    stream: int
    position: int
    socket: int
    length: int
    captured: int
    direction: int
    tie: int
    absence: int
    library: int
    peer: tuple[int, int, bytes] | None
    payload: bytes | memoryview

    def kept(self) -> Chunk:
        """Give the chunk with a payload of its own, to outlive its journal block."""
        self.payload = bytes(self.payload)
        return self

    @property
    def datagram(self) -> bool:
        """Whether the call moved a datagram, so that a length of 0 is not an end."""
        return self.peer is not None


@dataclass(frozen=True, slots=True)
class Hole:
    """Bytes of the stream that no event told.

    Attributes:
        length: how many.
        wall_ns: wall time of the first event after them.
    """

    length: int
    wall_ns: int


@dataclass(slots=True)
class Channel:
    """One direction of one stream.

    Attributes:
        expected: position of the next byte; None when any position is right (after the probes were restarted).
        early: what jumped and waits, in order of arrival.
    """

    expected: int | None = 0
    early: list[Chunk] = field(default_factory=list)

    def accept(self, chunk: Chunk) -> bool:
        """Take a chunk whose turn it may be.

        Returns:
            True: it is the next one, deliver it now (and then what `released` gives). False: it waits.
        """
        if self.expected is None:
            self.expected = chunk.position
        if chunk.position > self.expected:
            self.early.append(chunk.kept())
            return False
        self.expected = max(self.expected, chunk.position + chunk.length)
        return True

    def released(self) -> Iterator[Chunk]:
        """Give the waiting chunks whose turn has come, after a chunk was accepted."""
        while self.early and self.expected is not None:
            index = min(range(len(self.early)), key=lambda at: self.early[at].position)
            if self.early[index].position > self.expected:
                return
            chunk = self.early.pop(index)
            self.expected = max(self.expected, chunk.position + chunk.length)
            yield chunk

    def overdue(self) -> bool:
        """Say whether more waits than may."""
        return len(self.early) > EARLY_EVENTS_MAX or sum(chunk.captured for chunk in self.early) > EARLY_BYTES_MAX

    def settled(self) -> Iterator[Hole | Chunk]:
        """Give up waiting: give the holes and the chunks behind them, in order of position."""
        self.early.sort(key=lambda chunk: chunk.position)
        for chunk in self.early:
            missing = chunk.position - (self.expected or 0)
            if missing > 0:
                yield Hole(missing, chunk.wall_ns)
            self.expected = max(self.expected or 0, chunk.position + chunk.length)
            yield chunk
        self.early.clear()

    def tail(self, position: int) -> int:
        """Give how many bytes are missing at the end when the stream ended at `position`, and count them as told."""
        missing = max(0, position - self.expected) if self.expected is not None else 0
        self.expected = position
        return missing

    def restart(self) -> None:
        """Expect nothing: the probes that counted are gone."""
        self.expected = None
