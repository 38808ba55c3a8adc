"""Hearing at once that somebody changed a table, instead of finding it with the next comparison.

What lives here: the netlink socket that is told of changes (group NFNLGRP_NFTABLES). What must not: what is done then.

Where a table is owned nobody else can change it, and this is silent; it is for kernels without ownership (ruleset.py).
"""

from __future__ import annotations

import errno
import socket
from typing import Final

from capd.enforcer.forcing import messages
from capd.enforcer.forcing.attributes import by_kind
from capd.enforcer.forcing.ruleset import NETLINK_NETFILTER, RECEIVE_BUFFER_BYTES, RECEIVE_BYTES, SO_RCVBUFFORCE, SOL_NETLINK

ADD_MEMBERSHIP: Final = 1
GROUP: Final = 7
"""NFNLGRP_NFTABLES of include/uapi/linux/netfilter/nfnetlink.h."""
NAME: Final = 1
"""NFTA_TABLE_NAME; NFTA_CHAIN_TABLE, NFTA_RULE_TABLE, NFTA_SET_TABLE and the others' have the same number."""
READ_MAX: Final = 256
"""Datagrams at once; more are left for the next time."""


class RulesetWatch:
    """Listens in the network namespace in which this object was made."""

    def __init__(self) -> None:
        """Begin to listen.

        Raises:
            OSError: the kernel has no nf_tables, or this process may not use it.
        """
        kind = socket.SOCK_RAW | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK
        self._socket = socket.socket(socket.AF_NETLINK, kind, NETLINK_NETFILTER)
        try:
            self._socket.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, RECEIVE_BUFFER_BYTES)
            self._socket.bind((0, 0))
            self._socket.setsockopt(SOL_NETLINK, ADD_MEMBERSHIP, GROUP)
        except OSError:
            self._socket.close()
            raise

    def fileno(self) -> int:
        """Give what becomes readable with a change of any table."""
        return self._socket.fileno()

    def close(self) -> None:
        """Listen no more."""
        self._socket.close()

    def changed(self, table: str) -> bool:
        """Say whether a table has changed since the last call, or may have: also what this process itself changes counts."""
        found = False
        for _ in range(READ_MAX):
            try:
                data = self._socket.recv(RECEIVE_BYTES)
            except BlockingIOError:
                return found
            except OSError as error:
                if error.errno != errno.ENOBUFS:
                    raise
                found = True  # more than there was room for
                continue
            found = found or table in _tables(data)
        return found


def _tables(data: bytes) -> set[str]:
    """Name the tables that a datagram tells of."""
    found, position = set(), 0
    while position + messages.HEADER.size <= len(data):
        length = messages.HEADER.unpack_from(data, position)[0]
        if length < messages.HEADER.size:
            break
        body = data[position + messages.HEADER.size + 4 : position + length]
        found.add(by_kind(body).get(NAME, b"").rstrip(b"\0").decode("ascii", "replace"))
        position += length + -length % 4
    return found
