"""Network sockets that a process brings into a run: the kernel knows a socket by the cgroup in which it was made.

What lives here: finding them. What must not: what follows. A socket from outside is not forced, wherever its process goes.
"""

from __future__ import annotations

import ctypes
import os
import socket
from typing import Final

from capd.daemon import processes

SOCKET_PREFIX: Final = "socket:["
LOCAL: Final = {socket.AF_UNIX, socket.AF_NETLINK}
"""Families that carry nothing to another host."""
SYS_PIDFD_GETFD: Final = 438
"""Linux 5.6."""
SO_DOMAIN: Final = 39
_LIBC: Final = ctypes.CDLL(None, use_errno=True)


def inherited(pid: int) -> list[int]:
    """Give the descriptors of a process that are sockets of a family that leaves this host.

    Raises:
        OSError: the process is gone, or cannot be looked at.
    """
    entries = (processes.PROC / str(pid) / "fd").iterdir()
    numbers = [int(entry.name) for entry in entries if str(entry.readlink()).startswith(SOCKET_PREFIX)]
    process = os.pidfd_open(pid)
    try:
        return sorted(number for number in numbers if _family(process, number) not in LOCAL)
    finally:
        os.close(process)


def _family(process: int, number: int) -> int:
    """Ask a socket of another process what it is, by a descriptor of our own to it."""
    descriptor = _LIBC.syscall(SYS_PIDFD_GETFD, process, number, 0)
    if descriptor < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM, 0, fileno=descriptor) as found:
        return found.getsockopt(socket.SOL_SOCKET, SO_DOMAIN)
