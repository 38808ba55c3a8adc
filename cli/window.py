"""The recent bytes of a stream, so that a message that names a span of it can be shown with what it held.

What lives here: a bounded store of bytes by position. What must not: records.
"""

from __future__ import annotations


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

    def take(self, start: int, end: int) -> bytes:
        """Give the kept bytes of a span, and forget them and all before."""
        taken: list[bytes] = []
        left: list[tuple[int, bytes]] = []
        for position, chunk in self._chunks:
            taken.append(chunk[max(start - position, 0) : max(end - position, 0)])
            if position + len(chunk) > end:
                cut = max(end - position, 0)
                left.append((position + cut, chunk[cut:]))
        self._chunks = left
        self._kept = sum(len(chunk) for _, chunk in left)
        return b"".join(taken)
