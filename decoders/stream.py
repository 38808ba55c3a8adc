"""One direction's bytes on their way through a decoder.

What lives here: the buffer and its offsets. What must not: any protocol.

`data[start:]` is what no event has reported yet, `data[cursor:]` what no parser has looked at yet. New bytes are joined
with what is left so that every byte is copied a bounded number of times however the stream is cut: a long arrival is joined
with a short rest (cost: at most twice the arrival), a short arrival is appended to a long rest (amortised by bytearray).
"""

from __future__ import annotations

from typing import Final

COMPACT_BYTES: Final = 65_536
"""A bytearray whose reported front grows beyond this is cut, which CPython does without moving the rest."""


class Stream:
    """Bytes that wait, with their place in the whole direction.

    Attributes:
        data: the bytes held.
        start: index in `data` of the first byte that no event has reported.
        cursor: index in `data` of the first byte not parsed; never before `start`.
        base: offset in the direction of `data[0]`.
    """

    __slots__ = ("base", "cursor", "data", "start")

    def __init__(self) -> None:
        self.data: bytes | bytearray = b""
        self.start = 0
        self.cursor = 0
        self.base = 0

    @property
    def position(self) -> int:
        """Offset in the direction of the first byte that no event has reported."""
        return self.base + self.start

    @property
    def end(self) -> int:
        """Offset in the direction after the last byte received."""
        return self.base + len(self.data)

    @property
    def waiting(self) -> int:
        """How many bytes no event has reported."""
        return len(self.data) - self.start

    def append(self, new: bytes) -> None:
        """Take the bytes that follow in the stream."""
        start = self.start
        left = len(self.data) - start
        if left <= len(new):
            self.data = b"".join((memoryview(self.data)[start:], new)) if left else new
            self._moved(start)
        elif isinstance(self.data, bytearray):
            if start > COMPACT_BYTES:
                del self.data[:start]
                self._moved(start)
            self.data += new
        else:
            joined = bytearray(memoryview(self.data)[start:])
            joined += new
            self.data = joined
            self._moved(start)

    def _moved(self, dropped: int) -> None:
        self.base += dropped
        self.cursor -= dropped
        self.start = 0

    def take(self, begin: int, end: int) -> bytes:
        """Copy `data[begin:end]`, without copying when that is all there is."""
        data = self.data
        if isinstance(data, bytes):
            return data[begin:end]
        return bytes(memoryview(data)[begin:end])

    def report(self, end: int) -> None:
        """Say that everything before index `end` of `data` has been reported and parsed."""
        self.start = self.cursor = end

    def drop(self) -> None:
        """Forget everything that waits; the position moves to the end of what was received."""
        self.pass_over(0)

    def pass_over(self, length: int) -> None:
        """Forget everything that waits, and count `length` bytes that were never held."""
        self.base = self.end + length
        self.data = b""
        self.start = self.cursor = 0
