"""Options of TCP sockets: finding out about peers that are gone, and resets.

What lives here: what the kernel is told about a connection. What must not: what a connection is for.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import struct
from collections.abc import Iterator
from typing import Final

KEEPALIVE_SECONDS: Final = 30
"""Below conntrack's 60 s for a connection of which one side has ended: else a late end never arrives."""
TCP_CLOSE: Final = 7
"""linux/tcp_states.h; the state is the first byte of struct tcp_info (linux/tcp.h)."""
_RESET: Final = struct.pack("ii", 1, 0)
"""struct linger: on, at once (socket(7))."""


def keep_alive(connection: socket.socket) -> None:
    """Have the kernel find out about peers that are gone."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, KEEPALIVE_SECONDS)


def keep_urgent(listener: socket.socket) -> None:
    """Have what is sent out of band read where it stands in the stream, of all that a listener accepts.

    Else the kernel leaves it out of what is read: something else is judged and sent on than the agent said, and is recorded.
    """
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_OOBINLINE, 1)


def is_over(connection: socket.socket) -> bool:
    """Say whether a connection was reset, so that another may have its ends now."""
    return connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0] == TCP_CLOSE


def reset(connection: socket.socket) -> None:
    """Close a connection so that its peer sees a reset, not an end."""
    with contextlib.suppress(OSError):
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
    connection.close()


def reset_transport(transport: asyncio.Transport) -> None:
    """Do the same with a transport, and drop what waits."""
    with contextlib.suppress(OSError), borrowed_socket(transport) as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
    transport.abort()


@contextlib.contextmanager
def borrowed_socket(transport: asyncio.BaseTransport) -> Iterator[socket.socket]:
    """Give a transport's socket for setting options: what uvloop gives out cannot.

    Raises:
        OSError: it is closed.
    """
    with socket.socket(fileno=os.dup(transport.get_extra_info("socket").fileno())) as connection:
        yield connection
