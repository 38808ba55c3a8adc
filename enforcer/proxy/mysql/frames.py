"""What a side says, cut into packets.

What lives here: lengths and limits. What must not: what packets mean.
"""

from __future__ import annotations

from typing import Final

from capd.decoders.mysql.wire import HEADER_BYTES, PACKET_BYTES_MAX

STATEMENT_BYTES_MAX: Final = 16 << 20
"""As long as a packet can be: a longer message comes in several, and is not judged."""


class UnreadableError(Exception):
    """What a side says cannot be followed, and nothing behind it can."""


class TooLongError(UnreadableError):
    """A message of several packets."""


class Frames:
    """Packets of one side."""

    def __init__(self, bytes_max: int = STATEMENT_BYTES_MAX) -> None:
        self._bytes_max = bytes_max
        self._data: bytes | bytearray = b""
        self._at = 0

    def __len__(self) -> int:
        """How many bytes wait."""
        return len(self._data) - self._at

    def add(self, data: bytes) -> None:
        """Take bytes."""
        if self._at == len(self._data):
            self._data, self._at = data, 0
            return
        if self._at or not isinstance(self._data, bytearray):
            self._data, self._at = bytearray(memoryview(self._data)[self._at :]), 0
        self._data += data

    def take(self) -> bytes:
        """Give all that waits, as bytes."""
        rest, self._data, self._at = bytes(memoryview(self._data)[self._at :]), b"", 0
        return rest

    def next(self) -> tuple[int, bytes] | None:
        """Give a packet: its sequence and what it holds; None: it is not whole.

        Raises:
            UnreadableError: it is longer than can be judged.
        """
        data, at = self._data, self._at
        if len(data) - at < HEADER_BYTES:
            return None
        length = int.from_bytes(data[at : at + 3], "little")
        if length >= min(self._bytes_max, PACKET_BYTES_MAX):
            raise TooLongError(f"a message of {length:,} bytes or more is not judged")
        end = at + HEADER_BYTES + length
        if end > len(data):
            return None
        self._at = end
        body = data[at + HEADER_BYTES : end]
        return data[at + 3], body if isinstance(body, bytes) else bytes(body)
