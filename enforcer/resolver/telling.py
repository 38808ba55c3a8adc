"""From the resolver to the proxy's workers: which name gave which run which addresses.

What lives here: the two ends of a pair of sockets. What must not: DNS, deciding.

A binding is sent before its answer is, so it waits in the worker's socket when the connection comes: whoever judges takes what
waits first. Where a worker is too busy to have room, it is not told, which is counted: it then asks the host's resolver itself.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Sequence
from typing import Final

from capd.enforcer.resolver.binding import BYTES_MAX, Address, Binding
from capd.enforcer.resolver.bindings import Bindings

ROOM_BYTES: Final = 1 << 20
"""Wanted for what waits; the kernel gives at most net.core.wmem_max, which holds a hundred answers and more."""
TAKEN_MAX: Final = 4096
"""At once: more than can wait, so that only a sender without end is left for the next turn."""


def channel() -> tuple[socket.socket, socket.socket]:
    """Give the resolver's end and the worker's."""
    tells, hears = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_NONBLOCK)
    tells.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, ROOM_BYTES)
    return tells, hears


class Teller:
    """The resolver's side."""

    def __init__(self, workers: Sequence[socket.socket]) -> None:
        self._workers = tuple(workers)
        self.untold = 0
        """Bindings that some worker had no room for."""

    def tell(self, binding: Binding) -> None:
        """Tell every worker; never waits."""
        message = binding.encode()
        for worker in self._workers:
            try:
                worker.send(message)
            except OSError:
                self.untold += 1


class Told:
    """A worker's side."""

    def __init__(self, resolver: socket.socket, clock: Callable[[], float] = time.monotonic) -> None:
        self._resolver, self._clock = resolver, clock
        self._bindings = Bindings()

    def fileno(self) -> int:
        """Give what an event loop watches."""
        return self._resolver.fileno()

    def take(self) -> None:
        """Take what waits."""
        for _ in range(TAKEN_MAX):
            try:
                message = self._resolver.recv(BYTES_MAX)
            except BlockingIOError:
                return
            if not message:
                return
            self._bindings.bind(Binding.decode(message), self._clock())

    def gave(self, run: str, name: str, address: Address | None) -> bool:
        """Say whether the resolver gave this run that address for the name, and it still counts."""
        if address is None:
            return False
        if self._bindings.counts(run, address, name, self._clock()):
            return True
        self.take()
        return self._bindings.counts(run, address, name, self._clock())
