"""A small TCP proxy that loses, cuts and slows what goes through it.

What lives here: the proxy, whose behaviour a test changes while it runs. What must not: protocols, cases.
"""

from __future__ import annotations

import random
import socket
import struct
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass

PART_BYTES = 16 << 10
NEVER = 1 << 62
RESET = struct.pack("ii", 1, 0)
"""SO_LINGER of no time: close sends a reset."""


@dataclass(slots=True)
class Behaviour:
    """What the proxy does to connections from now on.

    Attributes:
        refuse: accept a connection and reset it at once.
        swallow: accept what is sent and give no answer: a server that hangs, or a way that leads only there.
        bytes_per_second: speed in each direction.
        cut_after: reset a connection after so many bytes of both directions.
        answer: what a client gets, instead of the server's words, once it has sent something.
    """

    refuse: bool = False
    swallow: bool = False
    bytes_per_second: int = NEVER
    cut_after: int = NEVER
    answer: bytes = b""


class Lossy:
    """A proxy before one port of 127.0.0.1."""

    def __init__(self, target: int) -> None:
        self.behaviour = Behaviour()
        self.connections = 0
        self._target = target
        self._open: set[socket.socket] = set()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def become(self, **changes: bool | int | bytes) -> None:
        """Behave otherwise; connections that are open are reset, so that none goes on as before."""
        self.behaviour = Behaviour(**changes)  # type: ignore[arg-type] # a table of its fields
        for item in list(self._open):
            _reset(item)

    def shake(self, chance: random.Random) -> None:
        """Behave in some way that is drawn by chance, often well."""
        ways: list[dict[str, bool | int | bytes]] = [
            {},
            {},
            {"refuse": True},
            {"cut_after": chance.randrange(1, 40_000)},
            {"cut_after": chance.randrange(1, 4000)},
            {"bytes_per_second": 200_000},
        ]
        self.become(**chance.choice(ways))

    def close(self) -> None:
        """End it."""
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.become(refuse=True)

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            self.connections += 1
            threading.Thread(target=self._serve, args=(client, self.behaviour), daemon=True).start()

    def _serve(self, client: socket.socket, behaviour: Behaviour) -> None:
        if behaviour.refuse:
            _reset(client)
            return
        self._open.add(client)
        if behaviour.swallow or behaviour.answer:
            self._pretend(client, behaviour)
            return
        try:
            server = socket.create_connection(("127.0.0.1", self._target), timeout=10)
        except OSError:
            _reset(client)
            return
        server.settimeout(None)
        self._open.add(server)
        left = [behaviour.cut_after]
        ways = [(client, server), (server, client)]
        threads = [threading.Thread(target=_copy, args=(*way, behaviour, left), daemon=True) for way in ways]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        for item in (client, server):
            self._open.discard(item)
            item.close()

    def _pretend(self, client: socket.socket, behaviour: Behaviour) -> None:
        with suppress(OSError):
            while client.recv(PART_BYTES):
                if behaviour.answer:
                    client.sendall(behaviour.answer)
                    break
        self._open.discard(client)
        client.close()


def _copy(source: socket.socket, sink: socket.socket, behaviour: Behaviour, left: list[int]) -> None:
    size = min(PART_BYTES, max(1, behaviour.bytes_per_second // 10))
    with suppress(OSError):
        while part := source.recv(size):
            left[0] -= len(part)
            if left[0] < 0:
                _reset(source)
                _reset(sink)
                return
            sink.sendall(part)
            if behaviour.bytes_per_second != NEVER:
                time.sleep(len(part) / behaviour.bytes_per_second)
        sink.shutdown(socket.SHUT_WR)


def _reset(item: socket.socket) -> None:
    with suppress(OSError):
        item.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
    with suppress(OSError):
        item.shutdown(socket.SHUT_RDWR)  # wakes who waits in recv
    with suppress(OSError):
        item.close()


@contextmanager
def lossy(target: int) -> Iterator[Lossy]:
    """Give a proxy before a port; end it at the end."""
    made = Lossy(target)
    try:
        yield made
    finally:
        made.close()
