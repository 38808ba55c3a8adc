"""Telling the service manager, and `capd up`, that a role is ready: sd_notify(3).

What lives here: one datagram. What must not: a dependency for it.
"""

from __future__ import annotations

import contextlib
import os
import socket


def notify(message: str) -> None:
    """Send a message such as READY=1 or STATUS=... to NOTIFY_SOCKET, if there is one. A manager that is gone is no error."""
    address = os.environ.get("NOTIFY_SOCKET")
    if not address:
        return
    if address.startswith("@"):
        address = f"\0{address[1:]}"
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as connection:
        connection.connect(address)
        connection.send(message.encode())
