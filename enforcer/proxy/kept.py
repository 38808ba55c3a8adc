"""What was read from one side of a connection and is still to be looked at: in slices, as long as its content allows.

What lives here: how much is looked at in one go. What must not: whose turn it is (turns.py), reading.

What a slice costs hangs on what is in it: 16 KiB are a part of a file, or three thousand chunks of one byte. So slices grow as
long as they are quick and shrink when one was not. What the core says is plain, such as the rest of a body whose length it
knows, costs little however much it is, and is one slice.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

SLICE_SECONDS: Final = 0.002
"""What a slice should take at most: less than anybody notices who waits for another connection."""
FIRST_BYTES: Final = 2_048
"""Of a connection of which nothing is known: most requests are no longer."""
LEAST_BYTES: Final = 256
"""Some forty of the tiniest chunks: 1 to 2 ms."""
MOST_BYTES: Final = 16_384
"""A record of TLS, of which less cannot be looked at anyway (RFC 8446 5.1)."""
PLAIN_BYTES_MAX: Final = 262_144
"""Of what is plain: no more is read at once (end.py)."""


class Kept:
    """Of one side.

    Attributes:
        size: how many bytes are kept.
    """

    __slots__ = ("_at", "_data", "_most", "size")

    def __init__(self) -> None:
        self._data, self._at, self.size, self._most = b"", 0, 0, FIRST_BYTES

    def __len__(self) -> int:
        return self.size

    def passes(self, data: bytes, plain: Callable[[], int]) -> bool:
        """Say whether bytes would be a slice of their own: nothing is kept before them, and they are no more than one.

        Args:
            data: that came.
            plain: says how many of the next bytes cost little; asked where that matters.
        """
        return not self.size and (len(data) <= self._most or len(data) <= plain())

    def put(self, data: bytes) -> None:
        """Keep bytes behind those that are there."""
        self._data = self._data[self._at :] + data if self.size else data
        self._at, self.size = 0, len(self._data)

    def take(self, plain: int = 0) -> bytes:
        """Give the next slice; `plain`: so many of the next bytes cost little."""
        begin, end = self._at, self._at + max(self._most, min(plain, PLAIN_BYTES_MAX))
        if end >= len(self._data):
            taken = self._data[begin:] if begin else self._data
            self.clear()
            return taken
        self._at, self.size = end, len(self._data) - end
        return self._data[begin:end]

    def took(self, size: int, seconds: float) -> None:
        """Learn from how long a slice took; one that was plain says nothing of others."""
        if size > self._most:
            return
        if seconds > SLICE_SECONDS:
            self._most = max(LEAST_BYTES, int(self._most * SLICE_SECONDS / seconds))
        elif seconds < SLICE_SECONDS / 4 and self._most < MOST_BYTES:
            self._most = min(self._most * 2, MOST_BYTES)

    def clear(self) -> None:
        """Forget what is there."""
        self._data, self._at, self.size = b"", 0, 0
