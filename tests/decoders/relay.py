"""A TCP relay that keeps what went through it, in order.

What lives here: the relay, and free ports. What must not: any protocol.
"""

from __future__ import annotations

import selectors
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from tests.decoders.feeding import REQUEST, RESPONSE, Arrival

RECEIVE_BYTES = 65_536
TICK_SECONDS = 0.05
"""How soon the relay notices that it shall stop."""


class Relay:
    """Connections of clients, each relayed to the server; `conversations` holds one list of arrivals for each."""

    def __init__(self, port: int) -> None:
        self._target = ("127.0.0.1", port)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._stop = threading.Event()
        self._threads: list[threading.Thread] = []
        self._acceptor = threading.Thread(target=self._accept, name="relay")
        self.port: int = self._listener.getsockname()[1]
        self.conversations: list[list[Arrival]] = []

    def start(self) -> None:
        """Accept connections until `close` is called."""
        self._acceptor.start()

    def _accept(self) -> None:
        self._listener.settimeout(TICK_SECONDS)
        while not self._stop.is_set():
            try:
                client, _ = self._listener.accept()
            except TimeoutError:
                continue
            arrivals: list[Arrival] = []
            self.conversations.append(arrivals)
            thread = threading.Thread(target=self._relay, args=(client, arrivals), name="relayed connection")
            thread.start()
            self._threads.append(thread)

    def close(self) -> None:
        """Stop accepting, and wait for the connections to end."""
        self._stop.set()
        self._acceptor.join()
        for thread in self._threads:
            thread.join()
        self._listener.close()

    def _relay(self, client: socket.socket, arrivals: list[Arrival]) -> None:
        with client, socket.create_connection(self._target) as server, selectors.DefaultSelector() as selector:
            selector.register(client, selectors.EVENT_READ, (server, REQUEST))
            selector.register(server, selectors.EVENT_READ, (client, RESPONSE))
            while selector.get_map():
                for key, _ in selector.select():
                    source = key.fileobj
                    assert isinstance(source, socket.socket)
                    peer, direction = key.data
                    data = _receive(source)
                    arrivals.append((direction, data))
                    _pass_on(peer, data)
                    if not data:
                        selector.unregister(source)


def _receive(source: socket.socket) -> bytes:
    try:
        return source.recv(RECEIVE_BYTES)
    except ConnectionResetError:
        return b""


def _pass_on(peer: socket.socket, data: bytes) -> None:
    try:
        if data:
            peer.sendall(data)
        else:
            peer.shutdown(socket.SHUT_WR)
    except OSError:
        # The other end is gone already; what it missed was said nevertheless.
        return


@contextmanager
def relay_to(port: int) -> Iterator[Relay]:
    """Run a relay before a server on this machine; its conversations are whole when this ends."""
    relay = Relay(port)
    relay.start()
    try:
        yield relay
    finally:
        relay.close()


def free_port() -> int:
    """A port on which nobody listens now."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port: int = probe.getsockname()[1]
        return port
