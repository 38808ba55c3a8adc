"""Writing files so that a crash leaves the old content or the new, never a mixture; opening them so that nothing else is met.

What lives here: whole writes, sync of files and directories, atomic replacement, the check that a file is one. What must not:
formats.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Sequence
from pathlib import Path
from typing import Final

FILE_MODE: Final = 0o640
"""Recordings hold what agents said in clear: readable for the owner and one group, for nobody else."""
DIRECTORY_MODE: Final = 0o750
OTHERS_WRITE: Final = stat.S_IWGRP | stat.S_IWOTH
"""In a mode: others than the owner may write, so that what is there need not be what the owner put there."""
PARTS_MAX: Final = 1024
"""IOV_MAX of Linux: how many parts one call takes."""


def write_whole(fd: int, parts: Sequence[bytes | bytearray | memoryview], offset: int) -> int:
    """Write all parts one after the other at a file offset, in as few system calls as the kernel allows.

    Returns:
        Bytes written: the sum of the parts.

    Raises:
        OSError: not all could be written. What was written is cut off again, so that the file ends at `offset`.
    """
    views = [memoryview(part).cast("B") for part in parts if len(part)]
    start = offset
    try:
        while views:
            written = os.pwritev(fd, views[:PARTS_MAX], offset)
            offset += written
            views = _after(views, written)
    except OSError:
        os.ftruncate(fd, start)
        raise
    return offset - start


def _after(views: list[memoryview], written: int) -> list[memoryview]:
    """Give what is left of the views after so many of their bytes."""
    for index, view in enumerate(views):
        if written < len(view):
            return [view[written:], *views[index + 1 :]]
        written -= len(view)
    return []


def sync_directory(directory: Path) -> None:
    """Make names created, renamed or removed in a directory survive a power cut."""
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def rename(source: Path, target: Path) -> None:
    """Rename within one directory so that the new name survives a power cut. The content must have been synced before."""
    source.rename(target)
    sync_directory(target.parent)


def open_regular(path: Path) -> int:
    """Open a file for reading that somebody else may have put there: root reads what the recorder owns, people read evidence.

    A pipe in its place would keep the reader waiting for ever; opening some devices already does something.

    Raises:
        OSError: it cannot be opened, or is no regular file.
    """
    check_regular(path)
    fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    if not stat.S_ISREG(os.fstat(fd).st_mode):  # exchanged meanwhile
        os.close(fd)
        raise OSError(errno.EINVAL, "it is no regular file")
    return fd


def read_regular(path: Path, bytes_max: int) -> bytes:
    """Give the content of a small file, which must be one, as `open_regular` says.

    Raises:
        OSError: it cannot be read, is no regular file, or is larger than `bytes_max`.
    """
    with os.fdopen(open_regular(path), "rb") as file:
        content = file.read(bytes_max + 1)
    if len(content) > bytes_max:
        raise OSError(errno.EFBIG, f"it is larger than {bytes_max} bytes")
    return content


def check_regular(path: Path) -> None:
    """Check that a path leads to a regular file.

    Raises:
        OSError: it does not, or to nothing.
    """
    if not stat.S_ISREG(path.stat().st_mode):
        raise OSError(errno.EINVAL, "it is no regular file")


def replace_content(path: Path, content: bytes, *, mode: int = FILE_MODE, group: int | None = None, sync: bool = True) -> None:
    """Give a file new content in one step: a reader or a crash meets the old content or the new, whole.

    The directory may be a role's, and root the one who writes: a link or a pipe that the role put under the temporary name is
    neither followed nor waited for. Links to what is not its own the kernel refuses to it (`fs.protected_hardlinks`).

    Args:
        path: the file; it need not exist.
        content: what it shall hold.
        mode: permission bits of the file.
        group: group of the file; None: the caller's.
        sync: whether the content must survive a power cut; without, it only survives the death of the process.

    Raises:
        OSError: it could not be done; the old content is untouched.
    """
    temporary = path.with_name(f".{path.name}.new")
    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, mode)
    try:
        os.fchmod(fd, mode)
        if group is not None:
            os.fchown(fd, -1, group)
        write_whole(fd, [content], 0)
        if sync:
            os.fsync(fd)
    finally:
        os.close(fd)
    if sync:
        rename(temporary, path)
    else:
        temporary.rename(path)
