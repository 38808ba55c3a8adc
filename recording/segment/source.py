"""Where the bytes of a segment come from: a file, or an object of a bucket.

What lives here: reading ranges. What must not: what the bytes mean.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Final, Protocol

from capd.recording.durable import open_regular
from capd.recording.errors import on_disk

WHOLE_BYTES_MAX: Final = 128 << 10
"""An object up to this size is fetched at once: further requests would cost more than the bytes."""
TAIL_BYTES: Final = 64 << 10
"""What is fetched of the end of a larger one: trailer and nearly every footer."""


class Source(Protocol):
    """The bytes of one segment.

    Attributes:
        path: what it is called in messages, with the suffix that says whether it is sealed.
    """

    path: Path

    def size(self) -> int:
        """Give its size now."""
        ...

    def read(self, offset: int, length: int) -> bytes:
        """Give a range, or less where it ends."""
        ...

    def close(self) -> None:
        """Let go of it. May be called again."""
        ...


class FileSource:
    """A file, which may grow."""

    def __init__(self, path: Path) -> None:
        """Open it.

        Raises:
            StateDirectoryError: it cannot be opened; `errno` says why.
        """
        self.path = path
        with on_disk("read", path):
            self._fd = open_regular(path)

    def size(self) -> int:
        """Give its size now."""
        with on_disk("read", self.path):
            return os.fstat(self._fd).st_size

    def read(self, offset: int, length: int) -> bytes:
        """Give a range, or less where it ends."""
        with on_disk("read", self.path):
            return os.pread(self._fd, length, offset)

    def close(self) -> None:
        """Close it."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


class ObjectSource:
    """An object of a bucket, which never changes: of a large one its end is fetched once, and then only what is asked for."""

    def __init__(self, path: Path, size: int, read: Callable[[int, int], bytes]) -> None:
        """Take the object.

        Args:
            path: its key.
            size: its length in bytes.
            read: gives a range of it: offset, length.
        """
        self.path = path
        self._size = size
        self._read = read
        self._kept_from = 0 if size <= WHOLE_BYTES_MAX else size - TAIL_BYTES
        self._kept: bytes | None = None

    def size(self) -> int:
        """Give its size."""
        return self._size

    def read(self, offset: int, length: int) -> bytes:
        """Give a range, or less where it ends."""
        length = min(length, self._size - offset)
        if length <= 0:
            return b""
        if offset < self._kept_from:
            return self._read(offset, length)
        if self._kept is None:
            self._kept = self._read(self._kept_from, self._size - self._kept_from)
        start = offset - self._kept_from
        return self._kept[start : start + length]

    def close(self) -> None:
        """Forget what was fetched."""
        self._kept = None
