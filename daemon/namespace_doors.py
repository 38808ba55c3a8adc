"""A worker's doors in other network namespaces: the sockets that it was handed, at which its shell accepts.

What lives here: opening and shutting them. What must not: the way on which they come (namespace_client.py), who is let in.
"""

from __future__ import annotations

import socket
from pathlib import Path

from capd.daemon.namespace_client import NamespaceClient
from capd.daemon.namespace_message import WORKER
from capd.enforcer.proxy.flow import SocketOwners
from capd.enforcer.proxy.shell import Shell
from capd.enforcer.proxy.world import Place


class NamespaceDoors:
    """All of one worker."""

    def __init__(self, path: Path, shell: Shell) -> None:
        """Take the path of the daemon's socket, and who accepts."""
        self._shell = shell
        self._open: dict[int, tuple[list[socket.socket], SocketOwners, Place]] = {}
        self._client = NamespaceClient(path, WORKER, self._take, self._drop)

    def __len__(self) -> int:
        return len(self._open)

    def attend(self) -> None:
        """Ask for what there is, if nobody is there to tell. Called every second."""
        self._client.attend()

    def _take(self, number: int, listeners: list[socket.socket], asking: list[socket.socket]) -> None:
        owners = SocketOwners(asking[0])
        place = Place(number=number, owner=owners.find)
        self._open[number] = listeners, owners, place
        for listener in listeners:
            listener.setblocking(False)
            self._shell.loop.add_reader(listener.fileno(), self._shell.accept, listener, place)

    def _drop(self, number: int) -> None:
        """Take who waits already, then shut."""
        listeners, owners, place = self._open.pop(number)
        for listener in listeners:
            self._shell.accept(listener, place)
            self._shell.loop.remove_reader(listener.fileno())
            listener.close()
        owners.close()
