"""The kernel's own file systems that the probes need: mounted if they are missing.

What lives here: bpffs and tracefs. What must not: cgroup2, which is looked for but never mounted (cgroups.py): where it
belongs is the init system's decision.
"""

from __future__ import annotations

import ctypes
import errno
import os
from contextlib import suppress
from pathlib import Path
from typing import Final

from capd.daemon import mountinfo
from capd.daemon.errors import MountError

MS_NOSUID: Final = 2
MS_NODEV: Final = 4
MS_NOEXEC: Final = 8

WANTED: Final = {"bpf": Path("/sys/fs/bpf"), "tracefs": Path("/sys/kernel/tracing")}
"""File system type and where it is by convention (file-hierarchy(7), Documentation/trace/ftrace.rst)."""
NEEDED: Final = "tracefs"
"""Without it no probe attaches. bpffs is for what others look at with bpftool; capd itself keeps everything by descriptor, and
some containers have no place to mount it at."""


def missing() -> dict[str, Path]:
    """Say which of the wanted file systems are not mounted where they belong."""
    return {kind: point for kind, point in WANTED.items() if all(mount.point != point for mount in mountinfo.mounted(kind))}


def mount_missing() -> list[str]:
    """Mount what is missing.

    Returns:
        One sentence for the operator for each that was mounted, or could not be and is not needed.

    Raises:
        MountError: the kernel refused one that is needed; the message has the command that does the same by hand.
    """
    return [_mount(kind, point) for kind, point in missing().items()]


def mount_bpffs() -> None:
    """Mount bpffs if it is missing; systemd does so itself, but not in a container. Without it nothing can be pinned."""
    if "bpf" in missing():
        _mount("bpf", WANTED["bpf"])


def _mount(kind: str, point: Path) -> str:
    libc = ctypes.CDLL(None, use_errno=True)
    with suppress(OSError):  # in sysfs it is there; a container that has something else in its place may lack it
        point.mkdir()
    flags = ctypes.c_ulong(MS_NOSUID | MS_NODEV | MS_NOEXEC)
    if libc.mount(kind.encode(), os.fsencode(point), kind.encode(), flags, b"mode=700"):
        number = ctypes.get_errno()
        if number == errno.EBUSY and kind not in missing():
            return f"{kind} was not mounted: another mounted it at {point} at the same time"
        reason = os.strerror(number)
        words = f"{kind} is not mounted at {point} and cannot be: {reason} (`mount -t {kind} {kind} {point}`)"
        if kind == NEEDED:
            raise MountError(words)
        return f"{words}; capd works without it"
    return f"{kind} was not mounted: mounted it at {point}"
