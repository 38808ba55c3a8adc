"""A bucket as DuckDB reads it: only the ranges it asks for.

What lives here: the fsspec file system over a bucket's listed objects. What must not: what is in them.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import Any, Final

from fsspec import AbstractFileSystem

SCHEME: Final = "capd"
WHOLE_BYTES_MAX: Final = 128 << 10
"""An object up to this size is fetched at once: two requests for its end and its middle would cost more than the bytes."""
WHOLE_TOTAL_BYTES_MAX: Final = 512 << 20
"""Whole objects that are kept in memory for one question."""
FETCHES_AT_ONCE: Final = 32
"""A bucket answers in some 10 ms whatever it is asked: so many at once make thousands of small objects a matter of seconds."""
_LONG_AGO: Final = datetime(1970, 1, 1, tzinfo=UTC)

ReadRange = Callable[[str, int, int], bytes]
"""Gives bytes of an object: key, offset, length."""


class BucketFilesystem(AbstractFileSystem):  # type: ignore[misc] # fsspec has no types
    """Objects of a bucket whose sizes are known; nothing is asked of the bucket but byte ranges.

    Objects of a catalogue never change, so nothing here looks whether they did.
    """

    protocol = SCHEME
    cachable = False

    def __init__(self, read: ReadRange, sizes: Mapping[str, int]) -> None:
        super().__init__()
        self._read = read
        self._sizes = sizes
        self._whole: dict[str, bytes] = {}
        self._whole_bytes = 0

    def prefetch(self, keys: Iterable[str]) -> None:
        """Fetch the small ones of these objects, many at once; what does not fit into memory is read when it is asked for."""
        wanted = []
        for key in keys:
            size = self._sizes[key]
            if key in self._whole or size > WHOLE_BYTES_MAX or self._whole_bytes + size > WHOLE_TOTAL_BYTES_MAX:
                continue
            self._whole_bytes += size
            wanted.append(key)
        with ThreadPoolExecutor(FETCHES_AT_ONCE) as pool:
            self._whole.update(zip(wanted, pool.map(lambda key: self._read(key, 0, self._sizes[key]), wanted), strict=True))

    def info(self, path: str, **_: Any) -> dict[str, Any]:  # noqa: ANN401 - fsspec's signature
        """Give what fsspec calls the details of an object."""
        key = self._strip_protocol(path)
        return {"name": path, "size": self._sizes[key], "type": "file"}

    def glob(self, path: str, **_: Any) -> list[str]:  # noqa: ANN401 - fsspec's signature
        """Give the path itself: files are named one by one."""
        return [path]

    def exists(self, path: str, **_: Any) -> bool:  # noqa: ANN401 - fsspec's signature
        """Say whether an object was listed."""
        return self._strip_protocol(path) in self._sizes

    def modified(self, _: str) -> datetime:
        """Give one time for all: they are never changed."""
        return _LONG_AGO

    def _open(self, path: str, mode: str = "rb", **_: Any) -> io.RawIOBase | io.BytesIO:  # noqa: ANN401 - fsspec's signature
        if mode != "rb":
            raise io.UnsupportedOperation(f"a catalogue is only read, not opened for {mode!r}")
        key = self._strip_protocol(path)
        whole = self._whole.get(key)
        if whole is not None:
            return io.BytesIO(whole)
        return _ObjectFile(key, self._sizes[key], self._read)


class _ObjectFile(io.RawIOBase):
    """One object, read at any place."""

    def __init__(self, key: str, size: int, read: ReadRange) -> None:
        super().__init__()
        self.size = size
        self._key = key
        self._read_range = read
        self._at = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self.size}[whence]
        self._at = max(0, base + offset)
        return self._at

    def tell(self) -> int:
        return self._at

    def read(self, size: int = -1) -> bytes:
        end = self.size if size < 0 else min(self.size, self._at + size)
        if self._at >= end:
            return b""
        data = self._read_range(self._key, self._at, end - self._at)
        self._at += len(data)
        return data
