"""What a client says, cut into messages; of data for COPY it gives pieces as they come.

What lives here: lengths and limits. What must not: what messages mean.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from capd.decoders.postgresql.frontend import KINDS
from capd.decoders.postgresql.wire import CONTROL_BYTES_MAX, HEADER, HEADER_BYTES, MESSAGE_BYTES_LIMIT

COPY_DATA: Final = ord("d")
_LIMITS: Final[Mapping[int, tuple[int, int]]] = {
    code: (kind.shortest, MESSAGE_BYTES_LIMIT if code == COPY_DATA else min(kind.longest, kind.held))
    for code, kind in KINDS.items()
}
"""Shortest and longest length of what a client may say; what is longer cannot be judged."""
assert CONTROL_BYTES_MAX < MESSAGE_BYTES_LIMIT


def shortest(code: int) -> int:
    """Give the least length that a message of a client can say of itself."""
    return _LIMITS[code][0]


class UnreadableError(Exception):
    """What a side says cannot be followed, and nothing behind it can."""


class ClientFrames:
    """A client's messages."""

    def __init__(self) -> None:
        self._data: bytes | bytearray = b""
        self._at = 0
        self._streaming = 0
        """Of a CopyData that has begun, what is still to come."""

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

    def next(self) -> tuple[int, bytes] | None:
        """Give a message, type and all of it with its header; None: it is not whole.

        Raises:
            UnreadableError: it is no message of a client, or longer than can be judged.
        """
        data, at = self._data, self._at
        left = len(data) - at
        if left < HEADER_BYTES:
            if left and data[at] not in _LIMITS:
                raise UnreadableError(f"{data[at]:#x} begins no message of a client")
            return None
        code, length = HEADER.unpack_from(data, at)
        limits = _LIMITS.get(code)
        if limits is None:
            raise UnreadableError(f"{code:#x} begins no message of a client")
        if not limits[0] <= length <= limits[1]:
            raise UnreadableError(f"a message {chr(code)} of {length} bytes cannot be judged")
        if left <= length:
            return None
        self._at = end = at + length + 1
        if at == 0 and end == len(data) and isinstance(data, bytes):
            return code, data
        return code, bytes(memoryview(data)[at:end])

    def peek(self) -> int | None:
        """Give the type of the next message; None: nothing waits."""
        return self._data[self._at] if self._at < len(self._data) else None

    def back(self, frame: bytes) -> None:
        """Put the message that was given last back."""
        self._at -= len(frame)

    def copied(self) -> bytes:
        """Give what there is of CopyData, whole messages or not; empty: something else comes, or nothing.

        Raises:
            UnreadableError: its length is impossible.
        """
        data, start = self._data, self._at
        at, end = start, len(data)
        while True:
            if self._streaming:
                step = min(self._streaming, end - at)
                at, self._streaming = at + step, self._streaming - step
            if end - at < HEADER_BYTES or data[at] != COPY_DATA:
                break
            _, length = HEADER.unpack_from(data, at)
            if not _LIMITS[COPY_DATA][0] <= length <= MESSAGE_BYTES_LIMIT:
                raise UnreadableError(f"a message d of {length} bytes is impossible")
            self._streaming = length + 1
        self._at = at
        return bytes(memoryview(data)[start:at])

    @property
    def busy(self) -> bool:
        """Whether anything waits, or a CopyData has begun."""
        return self._streaming > 0 or self._at < len(self._data)

    @property
    def midway(self) -> bool:
        """Whether a CopyData has begun of which more is to come."""
        return self._streaming > 0
