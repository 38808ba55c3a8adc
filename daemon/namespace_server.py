"""The daemon's end of the way on which it hands sockets of network namespaces to the enforcer's processes.

What lives here: listening, who may come, sending. What must not: which namespaces there are (namespace_keeping.py).

Only the enforcer's user is let in. Who does not take what is sent is hung up on; it comes again and is told everything anew.
"""

from __future__ import annotations

import os
import selectors
import socket
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from capd.daemon.namespace_message import BYTES_MAX, DIAGNOSES, WORKER, Told
from capd.daemon.pulse import WORKERS_MAX
from capd.enforcer.accepting import Accepting
from capd.enforcer.forcing.namespaces import Opened
from capd.enforcer.peer_credentials import peer_credentials
from capd.recording.errors import on_disk

CLIENTS_MAX: Final = 2 * (WORKERS_MAX + 1)
"""Workers and the resolver, and as many again that have just died."""
MODE: Final = 0o600


@dataclass(kw_only=True, eq=False)
class _Client:
    socket: socket.socket
    who: str = ""


class NamespaceServer:
    """Listens, and acts within a caller's event loop: the selector's data is what to call. One thread calls it."""

    def __init__(self, path: Path, user: int, selector: selectors.BaseSelector, opened: Callable[[], Iterable[Opened]]) -> None:
        """Listen at `path`; what a dead daemon left there is replaced.

        Args:
            path: of the socket.
            user: number of the enforcer's.
            selector: of the event loop.
            opened: gives what is open.

        Raises:
            StateDirectoryError: nothing can be bound there.
        """
        self._user, self._selector, self._opened = user, selector, opened
        self._clients: set[_Client] = set()
        self._path = path
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
        with on_disk("listen at", path):
            path.unlink(missing_ok=True)
            listener.bind(str(path))
            path.chmod(MODE)
            os.chown(path, user, -1)
        listener.listen(CLIENTS_MAX)
        self._accepting = Accepting(listener, selector, self._let_in)

    def __len__(self) -> int:
        return sum(bool(client.who) for client in self._clients)

    @property
    def failed(self) -> dict[str, int]:
        """How often nobody could be let in, by why. May be called by another thread."""
        return dict(self._accepting.failed)

    def attend(self) -> None:
        """Let in again after a pause; to be called in every turn of the loop."""
        self._accepting.attend()

    def close(self) -> None:
        """Hang up on all, who keep what they were handed."""
        for client in list(self._clients):
            self._hang_up(client)
        self._accepting.close()
        self._path.unlink(missing_ok=True)

    def announce(self, opened: Opened) -> None:
        """Hand a namespace to everybody."""
        for client in list(self._clients):
            if client.who:
                self._hand(client, opened)

    def take_back(self, number: int) -> None:
        """Tell everybody that a namespace is over."""
        for client in list(self._clients):
            if client.who:
                self._send(client, Told(what="over", namespace=number), [])

    def _let_in(self, accepted: socket.socket) -> None:
        if peer_credentials(accepted).uid != self._user or len(self._clients) >= CLIENTS_MAX:
            accepted.close()
            return
        client = _Client(socket=accepted)
        self._clients.add(client)
        self._selector.register(accepted, selectors.EVENT_READ, lambda: self._read(client))

    def _read(self, client: _Client) -> None:
        """Hear who it is, or that it is gone: no more is ever said."""
        try:
            who = client.socket.recv(BYTES_MAX).decode("ascii", "replace")
        except BlockingIOError:
            return
        except OSError:
            who = ""
        if client.who or who not in DIAGNOSES:
            self._hang_up(client)
            return
        client.who = who
        for opened in self._opened():
            self._hand(client, opened)

    def _hand(self, client: _Client, opened: Opened) -> None:
        listeners = opened.proxy if client.who == WORKER else opened.resolver
        asking: list[socket.socket] = []
        try:
            asking += [opened.diagnosis() for _ in range(DIAGNOSES[client.who])]
            self._send(client, Told(what="open", namespace=opened.number), [*listeners, *asking])
        except OSError:
            self._hang_up(client)
        finally:
            for made in asking:
                made.close()

    def _send(self, client: _Client, told: Told, sockets: list[socket.socket]) -> None:
        if client not in self._clients:
            return
        try:
            socket.send_fds(client.socket, [told.encode()], [one.fileno() for one in sockets])
        except OSError:  # it is gone, or takes nothing
            self._hang_up(client)

    def _hang_up(self, client: _Client) -> None:
        if client in self._clients:
            self._clients.discard(client)
            self._selector.unregister(client.socket)
            client.socket.close()
