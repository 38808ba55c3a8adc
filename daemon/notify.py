"""Telling the service manager, and `capd up`, that a role is ready: sd_notify(3).

What lives here: one datagram. What must not: a dependency for it.
"""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Sequence


def notify(message: str, descriptors: Sequence[int] = ()) -> None:
    """Send a message such as READY=1 or STATUS=... to NOTIFY_SOCKET, if there is one, with descriptors for it to keep.

    A manager that is gone is no error.
    """
    address = os.environ.get("NOTIFY_SOCKET")
    if not address:
        return
    if address.startswith("@"):
        address = f"\0{address[1:]}"
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as connection:
        connection.connect(address)
        socket.send_fds(connection, [message.encode()], descriptors)
