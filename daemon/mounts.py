"""The kernel's own file systems that the probes need: mounted if they are missing.

What lives here: bpffs and tracefs. What must not: cgroup2, which is looked for but never mounted (cgroups.py): where it
belongs is the init system's decision.
"""

from __future__ import annotations

import ctypes
import os
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


def _mount(kind: str, point: Path) -> str:
    libc = ctypes.CDLL(None, use_errno=True)
    flags = ctypes.c_ulong(MS_NOSUID | MS_NODEV | MS_NOEXEC)
    if libc.mount(kind.encode(), os.fsencode(point), kind.encode(), flags, b"mode=700"):
        reason = os.strerror(ctypes.get_errno())
        words = f"{kind} is not mounted at {point} and cannot be: {reason} (`mount -t {kind} {kind} {point}`)"
        if kind == NEEDED:
            raise MountError(words)
        return f"{words}; capd works without it"
    return f"{kind} was not mounted: mounted it at {point}"
