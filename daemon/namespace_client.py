"""The end of the way on which an enforcer's process gets sockets of network namespaces from the daemon.

What lives here: connecting, receiving. What must not: what is done with the sockets.

While the daemon is down, what was handed over goes on being served. The next daemon is to find the ports of each namespace
free, so all of it is given up before the process says who it is.
"""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Callable
from pathlib import Path

from capd.daemon.namespace_message import BYTES_MAX, DESCRIPTORS_MAX, DIAGNOSES, Told

Take = Callable[[int, list[socket.socket], list[socket.socket]], None]
"""Is told of a namespace: its number, the listeners, the sockets that ask."""


class NamespaceClient:
    """One process's. Used in its event loop."""

    def __init__(self, path: Path, who: str, take: Take, drop: Callable[[int], None]) -> None:
        """Prepare.

        Args:
            path: of the daemon's socket.
            who: this process is, as namespace_message.py has it.
            take: is given what opens, to keep and close.
            drop: is told what is over.
        """
        self._path, self._who, self._take, self._drop = path, who, take, drop
        self._socket: socket.socket | None = None
        self._taken: set[int] = set()

    def __len__(self) -> int:
        return len(self._taken)

    def attend(self) -> None:
        """Connect if there is no connection. Called every second."""
        if self._socket is not None:
            return
        made = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
        try:
            made.connect(str(self._path))
            self._give_up()
            made.send(self._who.encode("ascii"))
        except OSError:  # there is no daemon now
            made.close()
            return
        self._socket = made
        asyncio.get_running_loop().add_reader(made.fileno(), self._read, made)

    def close(self) -> None:
        """Give up everything."""
        self._hang_up()
        self._give_up()

    def _give_up(self) -> None:
        for number in list(self._taken):
            self._over(number)

    def _over(self, number: int) -> None:
        if number in self._taken:
            self._taken.discard(number)
            self._drop(number)

    def _read(self, connection: socket.socket) -> None:
        try:
            data, descriptors, flags, _address = socket.recv_fds(connection, BYTES_MAX, DESCRIPTORS_MAX)
        except BlockingIOError:
            return
        except OSError:
            data, descriptors, flags = b"", [], 0
        sockets = [_socket(descriptor) for descriptor in descriptors]
        try:
            if not data or flags & socket.MSG_CTRUNC:  # it is gone; or there were no descriptors left for all
                raise ValueError("nothing whole came")
            self._act(Told.decode(data), sockets)
        except ValueError:
            for made in sockets:
                made.close()
            self._hang_up()

    def _act(self, told: Told, sockets: list[socket.socket]) -> None:
        self._over(told.namespace)
        if told.what == "open":
            asking = DIAGNOSES[self._who]
            self._taken.add(told.namespace)
            self._take(told.namespace, sockets[:-asking], sockets[-asking:])

    def _hang_up(self) -> None:
        if self._socket is not None:
            asyncio.get_running_loop().remove_reader(self._socket.fileno())
            self._socket.close()
            self._socket = None


def _socket(descriptor: int) -> socket.socket:
    os.set_inheritable(descriptor, False)
    return socket.socket(fileno=descriptor)
