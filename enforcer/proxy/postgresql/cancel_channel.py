"""Between workers: a client gave up what a session waits for that may be another worker's.

What lives here: the message, and the sockets. What must not: what follows. A message for which there is no room is not told:
then the session goes on waiting, as if its client had not asked.
"""

from __future__ import annotations

import socket
from collections.abc import Sequence
from typing import Final

from capd.enforcer.proxy.postgresql.cancelling import Cancels

MESSAGE_BYTES_MAX: Final = 1_024
"""A run's id, an address, a key of 256 bytes."""
TAKEN_MAX: Final = 64
"""At once; what else waits has its turn later."""
_PROCESS_BYTES: Final = 4


class CancelChannel:
    """One worker's part."""

    def __init__(self, hears: socket.socket, tells: Sequence[socket.socket]) -> None:
        """Take its own end, and the ends by which all workers are told."""
        self._hears, self._tells = hears, tuple(tells)
        self.untold = 0

    def fileno(self) -> int:
        """Give what an event loop watches."""
        return self._hears.fileno()

    def tell(self, place: str, process: bytes, key: bytes) -> None:
        """Tell every worker; never waits."""
        message = process + place.encode() + b"\0" + key
        for worker in self._tells:
            try:
                worker.send(message)
            except OSError:
                self.untold += 1

    def take(self, cancels: Cancels) -> None:
        """Take what waits, and interrupt sessions of this worker."""
        for _ in range(TAKEN_MAX):
            try:
                message = self._hears.recv(MESSAGE_BYTES_MAX)
            except BlockingIOError:
                return
            if not message:
                return
            place, _, key = message[_PROCESS_BYTES:].partition(b"\0")
            cancels.interrupt(place.decode(), message[:_PROCESS_BYTES], key)
