"""One capd to a set of directories.

What lives here: taking the locks and saying who holds them. What must not: anything that works under the lock.
"""

from __future__ import annotations

import errno
import fcntl
import os
import stat
from pathlib import Path
from typing import Self

from capd.daemon.errors import AnotherCapdError
from capd.recording.durable import read_regular
from capd.recording.errors import on_disk

PID_DIGITS_MAX = 20
LOCK_MODE = 0o600


class InstanceLock:
    """Locks a file for its pid, and others, for as long as the process lives or until `release`.

    The kernel frees the locks when the process dies, however it dies, so there is no stale lock to remove. The state directory
    has a lock of its own because two configurations may share a state directory without sharing a runtime directory.

    Whoever may read a file may lock it, and so keep capd from starting: nobody but the owner may read what is locked.
    """

    def __init__(self, lock_file: Path, *others: Path) -> None:
        self._lock_file = lock_file
        self._others = others
        self._held: list[int] = []

    def acquire(self) -> Self:
        """Take all locks or none.

        Raises:
            AnotherCapdError: another process has one of them.
            StateDirectoryError: one of the places cannot be opened.
        """
        try:
            for place in (self._lock_file, *self._others):
                self._take(place)
        except BaseException:
            self.release()
            raise
        with on_disk("write", self._lock_file):
            os.ftruncate(self._held[0], 0)
            os.pwrite(self._held[0], f"{os.getpid()}\n".encode(), 0)
        return self

    def release(self) -> None:
        """Give the locks back. The file stays: removing it would let a third process lock another file of the same name."""
        while self._held:
            os.close(self._held.pop())

    def _take(self, place: Path) -> None:
        with on_disk("open", place):
            descriptor = os.open(place, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, LOCK_MODE)
            self._held.append(descriptor)
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise OSError(errno.EINVAL, "it is no regular file")
            os.fchmod(descriptor, LOCK_MODE)  # an earlier capd made it readable
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise AnotherCapdError(place, holder(self._lock_file)) from error


def holder(lock_file: Path) -> int | None:
    """Say which process wrote its pid into the lock file last; it may be gone."""
    try:
        text = read_regular(lock_file, PID_DIGITS_MAX).strip()
    except OSError:
        return None
    return int(text) if text.isdigit() else None
