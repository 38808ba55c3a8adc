"""A socket that the service manager keeps between two daemons: the one that owns the table, which nobody can take away so.

What lives here: giving it (sd_notify(3), FDSTORE=1) and taking it (sd_listen_fds(3)). What must not: what it is used for.

Without a service manager nothing is kept, and nothing comes. What comes and is not a netfilter socket of our network namespace
is closed.
"""

from __future__ import annotations

import fcntl
import os
import socket
from collections.abc import MutableMapping
from contextlib import suppress
from typing import Final

from capd.daemon.notify import notify
from capd.enforcer.forcing.namespaces import own_namespace
from capd.enforcer.forcing.ruleset import NETLINK_NETFILTER

TABLE: Final = "capd-table"
"""Its name at the service manager."""
FIRST: Final = 3
"""SD_LISTEN_FDS_START."""
DESCRIPTORS_MAX: Final = 64
SIOCGSKNS: Final = 0x894C
"""linux/sockios.h: the network namespace of a socket (Linux 4.9)."""


def keep(owner: socket.socket) -> None:
    """Have the socket kept. Doing so again changes nothing."""
    # Not polled: an error that waits on it, such as a full buffer, is no reason to close it.
    notify(f"FDSTORE=1\nFDPOLL=0\nFDNAME={TABLE}", [owner.fileno()])


def take(environment: MutableMapping[str, str]) -> socket.socket | None:
    """Take the socket that was kept; None: there is none. What else came is closed, and children are not told.

    Args:
        environment: of this process; the variables of the protocol are removed from it.
    """
    pid, count, names = (environment.pop(name, "") for name in ("LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES"))
    if pid != str(os.getpid()) or not count.isdecimal():
        return None
    found: socket.socket | None = None
    for descriptor, name in zip(range(FIRST, FIRST + min(int(count), DESCRIPTORS_MAX)), names.split(":"), strict=False):
        made = _netfilter(descriptor) if name == TABLE and found is None else None
        if made is None:
            with suppress(OSError):
                os.close(descriptor)
        found = found or made
    return found


def _netfilter(descriptor: int) -> socket.socket | None:
    try:
        os.set_inheritable(descriptor, False)
        made = socket.socket(fileno=descriptor)
    except OSError:
        return None
    try:
        fits = (made.family, made.proto) == (socket.AF_NETLINK, NETLINK_NETFILTER) and _namespace(made) == own_namespace()
    except OSError:
        fits = False
    if not fits:
        made.detach()
        return None
    return made


def _namespace(made: socket.socket) -> int:
    namespace = fcntl.ioctl(made.fileno(), SIOCGSKNS)
    try:
        return os.fstat(namespace).st_ino
    finally:
        os.close(namespace)
