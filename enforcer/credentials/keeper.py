"""The keeper: the process that reads credentials, and gives them to the enforcer's own processes alone.

What lives here: its socket. What must not: reading values (store.py), where they may go, which the proxy knows.

It is made before the enforcer gives up its rights, since it reads what only root can, and starts programs, which the proxy
cannot. One question to a connection: a name, and back its value or why there is none.
"""

from __future__ import annotations

import contextlib
import math
import os
import select
import socket
import struct
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import msgpack

from capd.enforcer.accepting import PAUSE_SECONDS, ShortageError, take
from capd.enforcer.credentials.errors import CredentialError, UnknownCredentialError
from capd.enforcer.credentials.guarded_file import CONTENT_BYTES_MAX
from capd.enforcer.credentials.secret import Secret
from capd.enforcer.credentials.store import Store
from capd.enforcer.peer_credentials import peer_credentials

QUESTION_BYTES_MAX: Final = 256
"""A name has 128 characters."""
ANSWER_BYTES_MAX: Final = CONTENT_BYTES_MAX + 1_024
LENGTH: Final = struct.Struct("!I")
BACKLOG: Final = 1_024
"""All that the workers of a large host ask at once."""
AT_ONCE_MAX: Final = 32
"""Questions that are being answered; others wait. Each may wait for a program."""
QUESTION_SECONDS_MAX: Final = 5.0
SHORT_SECONDS: Final = 60.0
"""A want of descriptors or threads that is that long ago was another one, and is said again."""


def bind(path: Path, uid: int) -> socket.socket:
    """Give the socket, which only a user can connect to.

    Raises:
        OSError: it cannot be made.
    """
    with contextlib.suppress(FileNotFoundError):
        path.unlink()
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    former = os.umask(0o177)
    try:
        listener.bind(str(path))
    finally:
        os.umask(former)
    if os.geteuid() == 0:
        os.lchown(path, uid, -1)
    listener.listen(BACKLOG)
    return listener


class Keeper:
    """Answers at one socket."""

    def __init__(
        self,
        listener: socket.socket,
        store: Store,
        uid: int,
        say: Callable[[str], None],
        *,
        given: Callable[[str, Secret], None] = lambda _name, _value: None,
    ) -> None:
        """Prepare.

        Args:
            listener: the socket.
            store: what it gives out.
            uid: the only user beside root who is answered.
            say: is told why a credential is not to be had, when that changes: agents are not told where secrets lie.
            given: is told each value that is given out, before it is.
        """
        self._given = given
        self._listener, self._store, self._users, self._say = listener, store, frozenset({0, uid}), say
        self._told: dict[str, str] = {}
        self._free = threading.Semaphore(AT_ONCE_MAX)
        self._short_at = -math.inf

    def run(self, wake: int) -> None:
        """Answer until a descriptor can be read."""
        self._listener.setblocking(False)
        listening, pause = True, None
        while True:
            ready, _, _ = select.select([wake, *([self._listener.fileno()] if listening else [])], [], [], pause)
            if wake in ready:
                return
            try:
                self._take()
                listening, pause = True, None
            except ShortageError as error:
                self._short(error.words)
                listening, pause = False, PAUSE_SECONDS

    def _take(self) -> None:
        """Take who waits, if somebody does. Raises ShortageError."""
        taken = take(self._listener)
        if taken is None:
            return
        self._free.acquire()
        try:
            threading.Thread(target=self._serve, args=(taken[0],), daemon=True).start()
        except RuntimeError as error:
            taken[0].close()
            self._free.release()
            raise ShortageError(str(error)) from error

    def _short(self, words: str) -> None:
        """Nobody can be taken: said once for each run of it, since who asks waits and is denied in the end."""
        now = time.monotonic()
        if now - self._short_at > SHORT_SECONDS:
            self._say(f"capd enforcer: the keeper of credentials takes nobody: {words}")
        self._short_at = now

    def _serve(self, connection: socket.socket) -> None:
        try:
            with connection, contextlib.suppress(OSError, ValueError, TypeError, KeyError, msgpack.UnpackException):
                connection.settimeout(QUESTION_SECONDS_MAX)
                if peer_credentials(connection).uid in self._users:
                    connection.sendall(framed(self._answer(_question(connection))))
        finally:
            self._free.release()

    def _answer(self, name: str) -> dict[str, str]:
        try:
            value = self._store.value(name)
        except UnknownCredentialError as error:
            return {"problem": str(error), "reason": error.reason}
        except CredentialError as error:
            if self._told.get(name) != str(error):
                self._told[name] = str(error)
                self._say(f"capd enforcer: {error}")
            return {"problem": f"the credential {name} is not to be had; the enforcer's log says why", "reason": error.reason}
        self._told.pop(name, None)
        self._given(name, value)
        return {"value": value.reveal()}


def framed(message: dict[str, str]) -> bytes:
    """Give a message as it goes over the socket: its length, big-endian, then msgpack."""
    body: bytes = msgpack.packb(message)
    return LENGTH.pack(len(body)) + body


def _question(connection: socket.socket) -> str:
    with connection.makefile("rb") as stream:
        (length,) = LENGTH.unpack(_exactly(stream, LENGTH.size))
        if length > QUESTION_BYTES_MAX:
            raise ValueError(length)
        found = msgpack.unpackb(_exactly(stream, length))
    return str(found["name"])


def _exactly(stream: Any, length: int) -> bytes:  # noqa: ANN401 - a reader of a socket has no type of its own
    found: bytes = stream.read(length)
    if len(found) != length:
        raise ValueError(length)
    return found
