"""The recent bytes of a stream, so that a message that names a span of it can be shown with what it held.

What lives here: a bounded store of bytes by position. What must not: records.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice


class Window:
    """Keeps the first bytes after the last message's end; a message begins there, and only its beginning is ever previewed."""

    def __init__(self, bytes_max: int) -> None:
        self._bytes_max = bytes_max
        self._chunks: list[tuple[int, bytes]] = []
        self._kept = 0
        self._end = 0

    def put(self, position: int | None, payload: bytes) -> None:
        """Take bytes that stand at a position of the stream; None: right after the last ones."""
        start = self._end if position is None else position
        self._end = start + len(payload)
        kept = payload[: max(self._bytes_max - self._kept, 0)]
        if kept:
            self._chunks.append((start, kept))
            self._kept += len(kept)

    def take(self, start: int, end: int, pieces: Sequence[tuple[int, int]] | None = None) -> bytes:
        """Give the kept bytes of a span, or of pieces of it in order (position, length); forget the span and all before."""
        taken: list[tuple[int, bytes]] = []
        left: list[tuple[int, bytes]] = []
        for position, chunk in self._chunks:
            part = chunk[max(start - position, 0) : max(end - position, 0)]
            if part:
                taken.append((max(start, position), part))
            if position + len(chunk) > end:
                cut = max(end - position, 0)
                left.append((position + cut, chunk[cut:]))
        self._chunks = left
        self._kept = sum(len(chunk) for _, chunk in left)
        return b"".join(part for _, part in taken) if pieces is None else b"".join(_cut(taken, pieces))


def _cut(chunks: list[tuple[int, bytes]], pieces: Sequence[tuple[int, int]]) -> Iterator[bytes]:
    """Give what is there of pieces; both in order of their positions."""
    number = 0
    for at, length in pieces:
        while number < len(chunks) and chunks[number][0] + len(chunks[number][1]) <= at:
            number += 1
        for position, chunk in islice(chunks, number, None):
            if position >= at + length:
                break
            yield chunk[max(at - position, 0) : at + length - position]
