"""Taking connections from a listener when there may be no descriptors for them.

What lives here: what an error of accept(2) means, and one listener in a loop of `selectors`. What must not: who may come, what
is said.

Without descriptors a listener stays readable: to look again at once would only burn the processor. Who waits is left in the
kernel's queue for a moment, and it is counted by the error's words, for the status of whoever listens.
"""

from __future__ import annotations

import errno
import os
import selectors
import socket
import time
from collections import Counter
from collections.abc import Callable
from typing import Final

PAUSE_SECONDS: Final = 0.1
"""Until it is tried again: as long as nobody notices, and ten tries a second cost nothing."""
_NOTHING: Final = frozenset({errno.EAGAIN, errno.EINTR})
_OF_THE_CLIENT: Final = frozenset(
    {
        errno.ECONNABORTED,
        errno.EPROTO,
        errno.EPERM,
        errno.ENETDOWN,
        errno.ENOPROTOOPT,
        errno.EHOSTDOWN,
        errno.ENONET,
        errno.EHOSTUNREACH,
        errno.EOPNOTSUPP,
        errno.ENETUNREACH,
    }
)
"""It left, or its network did: the next may be taken (accept(2), "Error handling")."""


class ShortageError(Exception):
    """Nobody can be taken for now.

    Attributes:
        words: why, to count by.
        number: the kernel's (errno(3)).
    """

    def __init__(self, words: str, number: int = 0) -> None:
        super().__init__(words)
        self.words = words
        self.number = number


def take(listener: socket.socket) -> tuple[socket.socket, tuple[str, int]] | None:
    """Accept from a listener that does not block; None: nobody waits.

    Raises:
        ShortageError: nobody can be taken for now, which asking again at once does not change.
    """
    while True:
        try:
            connection, address = listener.accept()
        except OSError as error:
            if error.errno in _NOTHING:
                return None
            if error.errno in _OF_THE_CLIENT:
                continue
            raise ShortageError(words_of(error), error.errno or 0) from error
        return connection, address[:2]


def words_of(error: OSError) -> str:
    """Name an error of accept(2), to count it by."""
    return f"accept: {error.strerror or os.strerror(error.errno or errno.EIO)}"


class Accepting:
    """One listener in a caller's event loop: the selector's data is what to call, and `attend` is called in every turn.

    Attributes:
        failed: how often nobody could be taken, by why.
    """

    def __init__(
        self,
        listener: socket.socket,
        selector: selectors.BaseSelector,
        let_in: Callable[[socket.socket], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Begin.

        Args:
            listener: bound, listening, and not blocking. It is closed with this.
            selector: of the event loop.
            let_in: takes a connection, which does not block; an OSError of it is the client's.
            clock: seconds, which never go back.
        """
        self.failed: Counter[str] = Counter()
        self._listener, self._selector, self._let_in, self._clock = listener, selector, let_in, clock
        self._wanted, self._registered, self._due = True, False, 0.0
        self.attend()

    def want(self, wanted: bool) -> None:
        """Say whether anybody is to be taken."""
        self._wanted = wanted
        self.attend()

    def attend(self) -> None:
        """Listen again after a pause. To be called in every turn, and these may be a second apart."""
        wanted = self._wanted and self._clock() >= self._due
        if wanted and not self._registered:
            self._selector.register(self._listener, selectors.EVENT_READ, self._accept)
        elif self._registered and not wanted:
            self._selector.unregister(self._listener)
        self._registered = wanted

    def close(self) -> None:
        """Listen no more."""
        if self._registered:
            self._selector.unregister(self._listener)
        self._registered = self._wanted = False
        self._listener.close()

    def _accept(self) -> None:
        try:
            taken = take(self._listener)
        except ShortageError as error:
            self._pause(error.words)
            return
        if taken is None:
            return
        connection = taken[0]
        try:
            connection.setblocking(False)
            self._let_in(connection)
        except OSError as error:
            connection.close()
            self.failed[words_of(error)] += 1

    def _pause(self, words: str) -> None:
        self.failed[words] += 1
        self._due = self._clock() + PAUSE_SECONDS
        self.attend()
