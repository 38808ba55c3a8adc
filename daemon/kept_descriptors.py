"""A socket that the service manager keeps between two daemons: the one that owns the table, which nobody can take away so.

What lives here: giving it and taking it. What must not: what it is used for, how descriptors are kept (descriptor_store.py).

Without a service manager nothing is kept, and nothing comes. What comes and is not a netfilter socket of our network namespace
is closed.
"""

from __future__ import annotations

import fcntl
import os
import socket
from collections.abc import MutableMapping
from typing import Final

from capd.daemon import descriptor_store
from capd.daemon.descriptor_store import TABLE
from capd.enforcer.forcing.namespaces import own_namespace
from capd.enforcer.forcing.ruleset import NETLINK_NETFILTER

SIOCGSKNS: Final = 0x894C
"""linux/sockios.h: the network namespace of a socket (Linux 4.9)."""


def keep(owner: socket.socket) -> None:
    """Have the socket kept. Doing so again changes nothing."""
    descriptor_store.keep(TABLE, [owner.fileno()])


def take(received: MutableMapping[str, list[int]]) -> socket.socket | None:
    """Take the socket that was kept; None: there is none. Others of its name are closed.

    Args:
        received: what came, by name; the socket is removed from it.
    """
    found: socket.socket | None = None
    for descriptor in received.pop(TABLE, []):
        made = _netfilter(descriptor) if found is None else None
        if made is None:
            descriptor_store.close_all([descriptor])
        found = found or made
    return found


def _netfilter(descriptor: int) -> socket.socket | None:
    try:
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
