"""Who is at the other end of a unix socket, as the kernel says: what SO_PEERCRED gives (unix(7)).

What lives here: that. What must not: who may come.
"""

from __future__ import annotations

import socket
import struct
from typing import Final, NamedTuple

_CREDENTIALS: Final = struct.Struct("=iII")
"""struct ucred: a process, signed; two numbers that are not."""


class PeerCredentials(NamedTuple):
    """Of the process that connected, when it did; `pid` is 0 if this pid namespace cannot see it."""

    pid: int
    uid: int
    gid: int


def peer_credentials(connection: socket.socket) -> PeerCredentials:
    """Ask the kernel.

    Raises:
        OSError: it does not say.
    """
    return PeerCredentials(
        *_CREDENTIALS.unpack(connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size))
    )
