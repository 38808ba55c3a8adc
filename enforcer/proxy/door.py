"""A listener in asyncio's loop: connections are taken from it until it is shut.

What lives here: turns, and pauses where nobody can be taken or another worker is to take them. What must not: who is let in
(shell.py), which worker has more than others (load.py).
"""

from __future__ import annotations

import asyncio
import errno
import socket
from collections import Counter
from collections.abc import Callable
from typing import Final

from capd.enforcer.accepting import PAUSE_SECONDS, ShortageError, take

ACCEPTS_PER_TURN: Final = 64
"""So that a flood of connections leaves turns to those that are there."""

GIVE_WAY_SECONDS: Final = 0.005
"""Left to other workers. Those that are free come at once; if none does in a moment that nobody notices, they are too busy."""

Came = Callable[[socket.socket, tuple[str, int]], None]
"""Takes a connection and the address of its other end."""


class Door:
    """One."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        listener: socket.socket,
        came: Came,
        failed: Counter[str],
        gives_way: Callable[[], bool] = lambda: False,
    ) -> None:
        """Open it.

        Args:
            loop: in which it is used.
            listener: bound and listening; it is not closed with the door.
            came: takes who comes.
            failed: counts how often nobody could be taken, by why.
            gives_way: says whether another process takes from this listener that should take the next one.
        """
        listener.setblocking(False)
        self._loop, self._listener, self._came, self._failed = loop, listener, came, failed
        self._gives_way = gives_way
        self._pause: asyncio.TimerHandle | None = None
        self._loop.add_reader(listener.fileno(), self.take)

    def shut(self) -> None:
        """Take nobody any more."""
        if self._pause is not None:
            self._pause.cancel()
        self._pause = None
        if self._listener.fileno() >= 0:
            self._loop.remove_reader(self._listener.fileno())

    def take(self) -> None:
        """Take who waits, or leave them to another worker for a moment."""
        for _ in range(ACCEPTS_PER_TURN):
            if self._gives_way():
                self._leave(GIVE_WAY_SECONDS, self._insist)
                return
            if not self._take_one():
                return

    def _take_one(self) -> bool:
        """Take one; say whether another may be taken."""
        try:
            taken = take(self._listener)
        except ShortageError as error:
            self._failed[error.words] += 1
            # For ever, where root of that namespace shut the listener.
            self._leave(None if error.number == errno.EINVAL else PAUSE_SECONDS, self._go_on)
            return False
        if taken is not None:
            self._came(*taken)
        return taken is not None

    def _leave(self, seconds: float | None, then: Callable[[], None]) -> None:
        """Leave those that wait in their queue for a moment; None: for ever."""
        self._loop.remove_reader(self._listener.fileno())
        if seconds is not None:
            self._pause = self._loop.call_later(seconds, then)

    def _insist(self) -> None:
        """Nobody else may have come: take one all the same."""
        self._go_on()
        self._take_one()

    def _go_on(self) -> None:
        self._pause = None
        self._loop.add_reader(self._listener.fileno(), self.take)
