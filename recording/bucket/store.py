"""What every kind of bucket can do, in the words that `Bucket` uses.

What lives here: the interface of a store and the values that cross it. What must not: a store.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

from capd.recording.durable import open_regular

PART_BYTES: Final = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """An object, as a list shows it.

    Attributes:
        key: its name, without the bucket's prefix.
        size: its length in bytes.
        modified_ns: when the bucket got it, by the bucket's clock.
    """

    key: str
    size: int
    modified_ns: int


class Source:
    """What an object shall hold: bytes, or a file that nobody changes any more."""

    def __init__(self, content: bytes | Path) -> None:
        """Take it; a file is read when it is needed."""
        self._content = content

    @property
    def size(self) -> int:
        """Length in bytes."""
        return self._content.stat().st_size if isinstance(self._content, Path) else len(self._content)

    def parts(self) -> Iterator[bytes]:
        """Give the content in pieces."""
        if isinstance(self._content, bytes):
            yield self._content
            return
        with open(open_regular(self._content), "rb", buffering=0) as file:  # noqa: PTH123 - a descriptor
            while part := file.read(PART_BYTES):
                yield part

    def whole(self) -> bytes:
        """Give the content at once."""
        return self._content if isinstance(self._content, bytes) else b"".join(self.parts())

    def sha256(self) -> bytes:
        """Give the content's checksum."""
        digest = hashlib.sha256()
        for part in self.parts():
            digest.update(part)
        return digest.digest()


class Store(Protocol):
    """One kind of bucket. Every method raises BucketError and nothing else.

    A key is not checked here, `Bucket` does. A request is made at most once, but for those that only read.
    """

    def list(self, prefix: str) -> Iterator[Entry]:
        """Give the objects whose key starts with the prefix, in any order."""
        ...

    def folders(self, prefix: str) -> Iterator[str]:
        """Give the next parts, up to a slash, of the keys below `prefix`, which is "" or ends with a slash."""
        ...

    def size(self, key: str) -> int:
        """Give an object's length. Raises ObjectMissingError."""
        ...

    def read(self, key: str, offset: int, length: int) -> bytes:
        """Give a range, shorter where the object ends. Raises ObjectMissingError."""
        ...

    def create(self, key: str, source: Source) -> str | None:
        """Create an object whole and durably; None if there is one of that name, which is left alone.

        Returns:
            The id of the version that was made; "" where there are no versions.
        """
        ...

    def delete(self, key: str) -> None:
        """Remove an object; none of that name is fine."""
        ...
