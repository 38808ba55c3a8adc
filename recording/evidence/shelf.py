"""Where evidence is read from: a directory, or whatever lists and reads like one.

What lives here: the small interface, the directory, what the names mean. What must not: what is in the files.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol
from uuid import UUID

from capd.recording.deletions import is_deletion
from capd.recording.durable import open_regular
from capd.recording.errors import on_disk
from capd.recording.heads import number_of as head_number
from capd.recording.keys import PUBLIC_SUFFIX
from capd.recording.segment.layout import SEALED_SUFFIX, sequence_of

DEPTH_MAX: Final = 4
"""Folders below the top: `host=.../date=.../` and one more for a state directory's own."""
NOT_EVIDENCE: Final = frozenset({"quarantine", "journal", "index", "recorder"})
"""Folders of a state directory that hold no sealed segment."""
KEYS: Final = "keys/"
_HOST: Final = re.compile(r"(?:^|/)host=([0-9a-f-]{36})/")
_KEY: Final = re.compile(r"[0-9a-f]{32}" + re.escape(PUBLIC_SUFFIX))


class Item(Protocol):
    """One object."""

    @property
    def key(self) -> str:
        """Its name, folders included."""

    @property
    def size(self) -> int:
        """Its length in bytes."""


class Shelf(Protocol):
    """Lists and reads objects; a Bucket does."""

    def list(self, prefix: str = "") -> Sequence[Item]:
        """Give the objects whose key starts with the prefix."""

    def read(self, key: str, offset: int = 0, length: int | None = None) -> bytes:
        """Give a range of an object; fewer bytes where it ends."""


@dataclass(frozen=True, slots=True, kw_only=True)
class File:
    """One file of a directory."""

    key: str
    size: int


class DirectoryShelf:
    """A directory: of segments, a state directory or a copy of one, or a bucket's content."""

    def __init__(self, directory: Path, *, only: frozenset[str] | None = None, keys: Path | None = None) -> None:
        """Take the directory.

        Args:
            directory: where segments are.
            only: names of the segments that are asked for; None: all.
            keys: another directory, with public keys.
        """
        self.directory = directory
        self._only = only
        self._keys = keys

    @property
    def partial(self) -> bool:
        """Whether only some segments of it are asked for, so that others may be missing."""
        return self._only is not None

    def list(self, prefix: str = "") -> Sequence[File]:
        """Give its files by name, those of its folders included.

        Raises:
            StateDirectoryError: it cannot be read.
        """
        with on_disk("read", self.directory):
            files = [file for file in self._walk("", 0) if self._asked(file.key)]
            if self._keys is not None:
                files += [
                    File(key=f"{KEYS}{path.name}", size=path.stat().st_size)
                    for path in self._keys.iterdir()
                    if is_key(path.name)
                ]
        return sorted((file for file in files if file.key.startswith(prefix)), key=lambda file: file.key)

    def read(self, key: str, offset: int = 0, length: int | None = None) -> bytes:
        """Give a range of a file.

        Raises:
            StateDirectoryError: it cannot be read.
        """
        path = self.directory / key
        if self._keys is not None and key.startswith(KEYS):
            path = self._keys / key.removeprefix(KEYS)
        with on_disk("read", path):
            descriptor = open_regular(path)
            try:
                wanted = os.fstat(descriptor).st_size - offset if length is None else length
                return os.pread(descriptor, max(0, wanted), offset)
            finally:
                os.close(descriptor)

    def _asked(self, key: str) -> bool:
        return self._only is None or key in self._only or is_key(name_of(key))

    def _walk(self, folder: str, depth: int) -> Iterator[File]:
        for entry in os.scandir(self.directory / folder):
            if entry.is_dir(follow_symlinks=False):
                if depth < DEPTH_MAX and entry.name not in NOT_EVIDENCE:
                    yield from self._walk(f"{folder}{entry.name}/", depth + 1)
            elif evidence(entry.name):
                with suppress(FileNotFoundError):  # it went meanwhile
                    yield File(key=f"{folder}{entry.name}", size=entry.stat().st_size)


def evidence(name: str) -> bool:
    """Tell whether a file of this name is a segment, a head, a public key or a record of deletion."""
    return sequence_of(Path(name)) is not None or head_number(name) is not None or is_key(name) or is_deletion(name)


def is_key(name: str) -> bool:
    """Tell whether a file of this name is a public key."""
    return _KEY.fullmatch(name) is not None


def is_sealed(name: str) -> bool:
    """Tell whether a segment of this name is sealed."""
    return name.endswith(SEALED_SUFFIX)


def host_of(key: str) -> UUID | None:
    """Give the host whose folder an object is in; None outside of any."""
    match = _HOST.search(key)
    try:
        return UUID(match[1]) if match else None
    except ValueError:
        return None


def folder_of(key: str) -> str:
    """Give the folder of the host that an object is in, with its slash; outside of any the top."""
    match = _HOST.search(key)
    return key[: match.end()] if match else ""


def name_of(key: str) -> str:
    """Give an object's name without its folders."""
    return key.rpartition("/")[2]
