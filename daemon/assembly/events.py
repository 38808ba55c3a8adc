"""From the spans in journal blocks to events in their order.

What lives here: the loop over a data span, which is where the recorder spends its time, and putting control and data in order.
What must not: sessions.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from capd.daemon.assembly.streams import Chunk
from capd.probes.layouts import (
    DATA,
    HEADER,
    PEER,
    RING_BUSY,
    RING_DISCARD,
    RING_HEADER_BYTES,
    WIRE,
    Absence,
    Body,
    EventKind,
    MalformedEventError,
    Tie,
    events,
)
from capd.recording.journal import Block

_WORD = struct.Struct("<I")
_FIXED = HEADER.size + DATA.size
_LENGTH = ~(RING_BUSY | RING_DISCARD)
_BESIDE = (0, PEER.size)
_Moment = tuple[int, int, int, int, int]


@dataclass(frozen=True, slots=True)
class ControlEvent:
    """An event of the control ring.

    Attributes:
        time_ns: boot clock.
        wall_ns: nanoseconds since 1970, UTC.
        run, process_start_ns, pid: from its header.
        body: what it tells.
    """

    time_ns: int
    wall_ns: int
    run: int
    process_start_ns: int
    pid: int
    body: Body


def control_events(block: Block) -> Iterator[ControlEvent]:
    """Give the events of a control block.

    Raises:
        MalformedEventError: from there on the block cannot be read.
    """
    offset = block.realtime_ns - block.boottime_ns
    for header, body in events(block.payload):
        yield ControlEvent(header.time_ns, header.time_ns + offset, header.run, header.process_start_ns, header.pid, body)


def chunks(block: Block) -> Iterator[Chunk]:
    """Give the events of a data block, without copying a payload.

    Raises:
        MalformedEventError: from there on the block cannot be read.
    """
    span = block.payload
    offset_ns = block.realtime_ns - block.boottime_ns
    at, end = 0, len(span)
    word_of, header_of, data_of = _WORD.unpack_from, HEADER.unpack_from, DATA.unpack_from
    socket_data, tls_data = int(EventKind.SOCKET_DATA), int(EventKind.TLS_DATA)
    while at + RING_HEADER_BYTES <= end:
        (word,) = word_of(span, at)
        start = at + RING_HEADER_BYTES
        size = word & _LENGTH
        at = start + (size + 7 & ~7)
        if word & RING_DISCARD:
            continue
        if size < _FIXED or start + size > end:
            raise MalformedEventError(f"data event at {start} is cut")
        time_ns, run, process_start_ns, pid, _tid, kind, _flags, _size = header_of(span, start)
        if kind not in (socket_data, tls_data):
            raise MalformedEventError(f"event of kind {kind} in the data ring")
        stream, position, socket, length, captured, direction, tie, absence, library, peer_bytes = data_of(
            span, start + HEADER.size
        )
        first = start + _FIXED + peer_bytes
        if first + captured > start + size or direction > 1 or peer_bytes not in _BESIDE:
            raise MalformedEventError(f"data event at {start} announces more than it has")
        peer = None
        if peer_bytes and kind == tls_data:
            moment = (time_ns, time_ns + offset_ns, run, process_start_ns, pid)
            yield from _ciphertext(moment, socket, direction, *WIRE.unpack_from(span, start + _FIXED))
        elif peer_bytes:
            peer = _peer(span, start + _FIXED)
        yield Chunk(
            time_ns,
            time_ns + offset_ns,
            run,
            process_start_ns,
            pid,
            kind == tls_data,
            stream,
            position,
            socket,
            length,
            captured,
            direction,
            tie,
            absence,
            library,
            peer,
            span[first : first + captured],
        )


def _ciphertext(moment: _Moment, socket: int, direction: int, position: int, size: int) -> Iterator[Chunk]:
    """Give what a TLS call sent on its socket, where its plaintext's event tells that too."""
    if size:
        tie, absence = int(Tie.NESTED), int(Absence.CIPHERTEXT)
        yield Chunk(*moment, False, socket, position, socket, size, 0, direction, tie, absence, 0, None, b"")


def _peer(span: memoryview, at: int) -> tuple[int, int, bytes] | None:
    """Read a datagram's peer. The classic tier's slots have room for one in every event; family 0 says that there is none."""
    family, port, address = PEER.unpack_from(span, at)
    return (family, port, address) if family else None


def in_order(control: list[ControlEvent], data: Iterable[Chunk]) -> Iterator[ControlEvent | Chunk]:
    """Put the events of one drain cycle in order of time; the data ring's own order is kept."""
    control.sort(key=lambda event: event.time_ns)
    index, count = 0, len(control)
    for chunk in data:
        while index < count and control[index].time_ns <= chunk.time_ns:
            yield control[index]
            index += 1
        yield chunk
    yield from control[index:]
