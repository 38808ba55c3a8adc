"""One capd to a set of directories.

What lives here: taking the locks and saying who holds them. What must not: anything that works under the lock.
"""

from __future__ import annotations

import errno
import fcntl
import os
import signal
import stat
import time
from pathlib import Path
from typing import Final, Self

from capd.daemon.errors import AnotherCapdError
from capd.recording.durable import read_regular
from capd.recording.errors import on_disk

PID_DIGITS_MAX: Final = 20
LOCK_MODE: Final = 0o600
ENDING_SECONDS_MAX: Final = 10.0
"""A daemon that was killed gives its rings and probes back before its locks, which takes a second on a busy machine."""
ENDING_POLL_SECONDS: Final = 0.05
FLAGS_FIELD: Final = 6
"""Of /proc/PID/stat, counted behind the name (proc_pid_stat(5))."""
PF_EXITING: Final = 0x4
"""include/linux/sched.h."""


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
        deadline = time.monotonic() + ENDING_SECONDS_MAX
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                pid = holder(self._lock_file)
                if pid is None or not is_ending(pid) or time.monotonic() > deadline:
                    raise AnotherCapdError(place, pid) from error
                time.sleep(ENDING_POLL_SECONDS)
            else:
                return


def holder(lock_file: Path) -> int | None:
    """Say which process wrote its pid into the lock file last; it may be gone."""
    try:
        text = read_regular(lock_file, PID_DIGITS_MAX).strip()
    except OSError:
        return None
    return int(text) if text.isdigit() else None


def is_ending(pid: int) -> bool:
    """Say whether a process was killed and is not gone yet."""
    directory = Path("/proc") / str(pid)
    try:
        return ending((directory / "stat").read_text(encoding="utf-8"), (directory / "status").read_text(encoding="utf-8"))
    except OSError:
        return True  # gone: so is its lock


def ending(facts: str, status: str) -> bool:
    """Read that from what /proc/PID/stat and /proc/PID/status say: it is at its end, or SIGKILL waits for it."""
    flags = int(facts.rpartition(")")[2].split()[FLAGS_FIELD])
    pending = {line.partition(":")[0]: line.partition(":")[2] for line in status.splitlines()}
    masks = (int(pending.get(name, "0"), 16) for name in ("SigPnd", "ShdPnd"))
    return bool(flags & PF_EXITING) or any(mask >> (signal.SIGKILL - 1) & 1 for mask in masks)
