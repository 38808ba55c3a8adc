"""A bucket that is a directory.

What lives here: its operations, durable and create-only. What must not: other kinds of buckets.

An object appears under its name whole and synced, or not at all, and a name is never taken twice: it is written without a
name (O_TMPFILE) and linked. Where a file system cannot do that, it is written under a name that starts with a dot, which
readers pass over.
"""

from __future__ import annotations

import errno
import glob
import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Final

from capd.recording.bucket.errors import BucketDirectoryError, BucketError, BucketMissingError, ObjectMissingError
from capd.recording.bucket.store import Entry, Source
from capd.recording.durable import DIRECTORY_MODE, FILE_MODE, open_regular, sync_directory

_NO_UNNAMED: Final = frozenset({errno.EOPNOTSUPP, errno.EISDIR, errno.ENOENT, errno.EINVAL, errno.ENOSYS})
"""What open(2) says where O_TMPFILE is not known."""
_PART: Final = ".part"
"""How the name of an unfinished object ends there."""


class LocalStore:
    """Objects as files below one directory."""

    def __init__(self, directory: Path) -> None:
        """Take the directory, which must exist when it is used."""
        self._directory = directory

    def list(self, prefix: str) -> Iterator[Entry]:
        """Give the objects whose key starts with the prefix, in no order."""
        self._check()
        folder, _, _ = prefix.rpartition("/")
        with self._translated("list", prefix):
            for found, folders, names in os.walk(self._directory / folder, onerror=_not_missing):
                folders[:] = [name for name in folders if not name.startswith(".")]
                for name in names:
                    path = Path(found, name)
                    key = path.relative_to(self._directory).as_posix()
                    if key.startswith(prefix) and not name.startswith("."):
                        with suppress(FileNotFoundError):  # deleted meanwhile
                            facts = path.stat()
                            yield Entry(key=key, size=facts.st_size, modified_ns=facts.st_mtime_ns)

    def folders(self, prefix: str) -> Iterator[str]:
        """Give the next parts of the keys below a folder."""
        self._check()
        folder = self._directory / prefix
        if not folder.is_dir():
            return
        with self._translated("list", prefix), os.scandir(folder) as entries:
            yield from (entry.name for entry in entries if entry.is_dir() and not entry.name.startswith("."))

    def size(self, key: str) -> int:
        """Give an object's length."""
        with self._translated("look at", key):
            return self._path(key).stat().st_size

    def read(self, key: str, offset: int, length: int) -> bytes:
        """Give a range of an object; shorter where the object ends."""
        with self._translated("read", key):
            fd = open_regular(self._path(key))
            try:
                parts = []
                while length > 0 and (part := os.pread(fd, length, offset)):
                    parts.append(part)
                    offset += len(part)
                    length -= len(part)
                return b"".join(parts)
            finally:
                os.close(fd)

    def create(self, key: str, source: Source) -> str | None:
        """Create an object; None: there is one of that name."""
        self._check()
        target = self._path(key)
        with self._translated("create", key):
            if target.exists():
                return None
            _make_directories(target.parent, self._directory)
            return "" if _create(target, source) else None

    def delete(self, key: str) -> None:
        """Remove an object, if it is there."""
        target = self._path(key)
        with self._translated("delete", key), suppress(FileNotFoundError):
            for unfinished in target.parent.glob(f".{glob.escape(target.name)}.*{_PART}"):
                unfinished.unlink(missing_ok=True)  # of one who was killed while it was made: it holds the same
            target.unlink()
            sync_directory(target.parent)

    def _path(self, key: str) -> Path:
        return self._directory / key

    def _check(self) -> None:
        if not self._directory.is_dir():
            raise BucketMissingError(f"there is no directory {self._directory}")

    def _translated(self, what: str, key: str) -> _Translated:
        return _Translated(f"{self._directory}: cannot {what} {key}")


class _Translated:
    """Turns OSErrors into errors of a bucket."""

    def __init__(self, what: str) -> None:
        self._what = what

    def __enter__(self) -> None:
        """Begin."""

    def __exit__(self, _kind: object, error: BaseException | None, _trace: object) -> None:
        """Translate."""
        match error:
            case FileNotFoundError() | NotADirectoryError():
                raise ObjectMissingError(f"{self._what}: there is no such object") from error
            case PermissionError() | OSError(errno=errno.EROFS):
                raise BucketDirectoryError(f"{self._what}: {error.strerror}") from error
            case OSError():
                raise BucketError(f"{self._what}: {error.strerror or error}") from error


def _not_missing(error: OSError) -> None:
    if not isinstance(error, FileNotFoundError | NotADirectoryError):
        raise error


def _make_directories(directory: Path, top: Path) -> None:
    """Make a directory below the bucket's, so that it survives a power cut."""
    missing = []
    while directory != top and not directory.is_dir():
        missing.append(directory)
        directory = directory.parent
    for path in reversed(missing):
        with suppress(FileExistsError):  # another shipper was faster
            path.mkdir(mode=DIRECTORY_MODE)
        sync_directory(path.parent)


def _create(target: Path, source: Source) -> bool:
    flags = os.O_WRONLY | os.O_CLOEXEC
    temporary: Path | None = None
    try:
        fd = os.open(target.parent, flags | os.O_TMPFILE, FILE_MODE)
    except OSError as error:
        if error.errno not in _NO_UNNAMED:
            raise
        temporary = target.with_name(f".{target.name}.{os.getpid()}{_PART}")
        fd = os.open(temporary, flags | os.O_CREAT | os.O_TRUNC, FILE_MODE)
    try:
        for part in source.parts():
            view = memoryview(part)
            while view:
                view = view[os.write(fd, view) :]
        os.fsync(fd)
        return _link(fd, temporary, target)
    finally:
        os.close(fd)
        if temporary is not None:
            temporary.unlink(missing_ok=True)


def _link(fd: int, temporary: Path | None, target: Path) -> bool:
    """Give the written file its name, unless that is taken."""
    try:
        if temporary is None:
            folder = os.open(target.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:  # a directory's descriptor makes it linkat(2), which alone follows this link
                os.link(f"/proc/self/fd/{fd}", target.name, src_dir_fd=folder, dst_dir_fd=folder, follow_symlinks=True)
            finally:
                os.close(folder)
        else:
            os.link(temporary, target)
    except FileExistsError:
        return False
    sync_directory(target.parent)
    return True
