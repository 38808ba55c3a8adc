"""A worker's doors in other network namespaces: the sockets that it was handed, at which its shell accepts.

What lives here: opening and shutting them. What must not: the way on which they come (namespace_client.py), who is let in.
"""

from __future__ import annotations

import socket
from pathlib import Path

from capd.daemon.namespace_client import NamespaceClient
from capd.daemon.namespace_message import WORKER
from capd.enforcer.proxy.door import Door
from capd.enforcer.proxy.flow import SocketOwners
from capd.enforcer.proxy.shell import Shell
from capd.enforcer.proxy.world import Place


class NamespaceDoors:
    """All of one worker."""

    def __init__(self, path: Path, shell: Shell) -> None:
        """Take the path of the daemon's socket, and who accepts."""
        self._shell = shell
        self._open: dict[int, tuple[list[tuple[Door, socket.socket]], SocketOwners]] = {}
        self._client = NamespaceClient(path, WORKER, self._take, self._drop)

    def __len__(self) -> int:
        return len(self._open)

    def attend(self) -> None:
        """Ask for what there is, if nobody is there to tell. Called every second."""
        self._client.attend()

    def _take(self, number: int, listeners: list[socket.socket], asking: list[socket.socket]) -> None:
        owners = SocketOwners(asking[0])
        place = Place(number=number, owner=owners.find)
        self._open[number] = [(self._shell.open(listener, place), listener) for listener in listeners], owners

    def _drop(self, number: int) -> None:
        """Take who waits already, then shut."""
        doors, owners = self._open.pop(number)
        for door, listener in doors:
            door.take()
            self._shell.shut(door)
            listener.close()
        owners.close()
