"""What masking hid because nobody could say what it is: kept as it came, for a decoder that is built anew.

What lives here: the bytes, how many of them, putting them back. What must not: where else they go: nowhere. They are in the
recorder's memory and in its snapshot, as what waits is, and end with their session.

A decided place is a value, and its filler has its length, so a decoder finds its way past it. An undecided one may be a
message's first line.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence
from typing import Final, cast

from capd.enforcer.masking.place import Place
from capd.recording.record import Kind, Record

UNDECIDED: Final = "undecided"
BYTES_MAX: Final = 8 * 1024
"""Of a session: the head of a message. Without the others its decoder finds its place again, and says so."""


class Undecided:
    """The bytes of one session, both directions of the application layer."""

    def __init__(self) -> None:
        self._parts: deque[tuple[int, int, bytes]] = deque()
        """Direction, position, bytes."""
        self._size = 0
        self._gone = [0, 0]
        """Position of each direction before which some were let go."""

    def keep(self, direction: int, position: int, payload: bytes, places: Iterable[Place]) -> None:
        """Keep what is hidden in a payload because it is undecided.

        Args:
            direction: of the stream.
            position: of the payload in it.
            payload: as it came.
            places: what is masked, as positions in the stream.
        """
        for place in places:
            if place.kind == UNDECIDED:
                raw = payload[place.start - position : place.end - position]
                self._parts.append((direction, place.start, raw))
                self._size += len(raw)
        while self._size > BYTES_MAX:
            side, begin, raw = self._parts.popleft()
            self._size -= len(raw)
            self._gone[side] = max(self._gone[side], begin + len(raw))

    def restored(self, record: Record) -> Record | None:
        """Give a stored record as it came, but for decided places; None where that cannot be known any more."""
        payload, position, side = record.body.get("payload"), record.body.get("position"), record.direction
        if record.kind is not Kind.DATA or side is None or not isinstance(payload, bytes) or not isinstance(position, int):
            return record
        if record.body.get("layer", "application") != "application":
            return record
        if position < self._gone[side]:
            return None
        content = bytearray(payload)
        for direction, begin, raw in self._parts:
            at = begin - position
            if direction == side and 0 <= at < len(content):
                content[at : at + len(raw)] = raw
        return Record(record.kind, record.session, record.time_ns, side, {**record.body, "payload": bytes(content)})

    def save(self) -> list[object]:
        """Give its state as plain values."""
        return [[list(part) for part in self._parts], list(self._gone)]

    def restore(self, saved: Sequence[object]) -> None:
        """Take the state of one that was saved."""
        parts, gone = cast("tuple[list[tuple[int, int, bytes]], list[int]]", tuple(saved))
        self._parts = deque((direction, position, bytes(raw)) for direction, position, raw in parts)
        self._size, self._gone = sum(len(raw) for _, _, raw in self._parts), list(gone)
