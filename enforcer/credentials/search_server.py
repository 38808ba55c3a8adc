"""The keeper's other socket: the recorder asks whether a credential is in what agents say and hear.

What lives here: the socket and its messages. What must not: looking (search.py).

The recorder reads what agents wrote, so it holds no credential and no hash of one: it brings the text, and gets back places and
names. Who has the recorder in hand can ask for what he guesses, as often as he likes; every right guess is told here too, in a
log that is not the recorder's.
"""

from __future__ import annotations

import contextlib
import os
import select
import socket
import struct
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

import msgpack

from capd.enforcer.credentials.given import Given
from capd.enforcer.credentials.search import Search

LENGTH: Final = struct.Struct("!I")
QUESTION_BYTES_MAX: Final = 4 << 20
"""Of one question; who has more asks more often."""
ANSWER_BYTES_MAX: Final = 16 << 20
HITS_MAX: Final = 100_000
"""In one answer; a text that is full of a value is hidden whole then."""
CONNECTIONS_MAX: Final = 4
BACKLOG: Final = 16
ANSWER_SECONDS_MAX: Final = 10.0
REFRESH_SECONDS: Final = 10.0
"""How often files are read, so that a value is known before it is used first."""
TELL_SECONDS: Final = 60.0
"""Between two lines about one credential."""
_PEER: Final = struct.Struct("3i")


def bind_for_all(path: Path) -> socket.socket:
    """Give the socket. Everybody may connect to it, and only who is known is answered.

    Raises:
        OSError: it cannot be made.
    """
    with contextlib.suppress(FileNotFoundError):
        path.unlink()
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    former = os.umask(0o111)  # not chmod: the directory's owner could have put a link under the name meanwhile
    try:
        listener.bind(str(path))
    finally:
        os.umask(former)
    listener.listen(BACKLOG)
    return listener


class SearchServer:
    """Answers at one socket."""

    def __init__(
        self,
        listener: socket.socket,
        given: Given,
        uid: int,
        *,
        refresh: Callable[[], None],
        say: Callable[[str], None],
    ) -> None:
        """Prepare.

        Args:
            listener: the socket.
            given: what is looked for.
            uid: the recorder's, who alone beside root is answered.
            refresh: brings the values of files up to date.
            say: is told that a credential was found.
        """
        self._listener, self._given, self._users = listener, given, frozenset({0, uid})
        self._refresh, self._say = refresh, say
        self._free = threading.Semaphore(CONNECTIONS_MAX)
        self._lock = threading.Lock()
        self._search = Search([])
        self._version = -1
        self._refreshed_at = -REFRESH_SECONDS
        self._told: dict[str, float] = {}
        self._open: set[socket.socket] = set()

    def run(self, wake: int) -> None:
        """Answer until a descriptor can be read; then nobody is answered any more."""
        while True:
            ready, _, _ = select.select([self._listener.fileno(), wake], [], [])
            if wake in ready:
                self._end()
                return
            try:
                connection, _ = self._listener.accept()
            except ConnectionAbortedError:  # who asked is gone again
                continue
            if not self._free.acquire(blocking=False):
                connection.close()
                continue
            self._open.add(connection)
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _end(self) -> None:
        for connection in list(self._open):
            with contextlib.suppress(OSError):  # whoever asked is gone
                connection.shutdown(socket.SHUT_RDWR)

    def _serve(self, connection: socket.socket) -> None:
        try:
            with connection, contextlib.suppress(OSError, EOFError, ValueError, TypeError, KeyError, msgpack.UnpackException):
                _, uid, _ = _PEER.unpack(connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _PEER.size))
                if uid not in self._users:
                    return
                while True:
                    pieces = _question(connection)
                    connection.settimeout(ANSWER_SECONDS_MAX)
                    connection.sendall(framed(self._answer(pieces)))
                    connection.settimeout(None)
        finally:
            self._open.discard(connection)
            self._free.release()

    def _answer(self, pieces: Sequence[bytes]) -> dict[str, object]:
        search = self._current()
        found: list[tuple[int, int, int, str]] = []
        begun: list[tuple[int, int]] = []
        for number, piece in enumerate(pieces):
            found += ((number, *hit) for hit in search.find(piece))
            if len(found) > HITS_MAX:
                found = [*found[:HITS_MAX], (number, 0, len(piece), found[-1][3])]
            at = search.begun(piece)
            if at < len(piece):
                begun.append((number, at))
        self._tell({name for _, _, _, name in found})
        return {"found": found, "begun": begun, "kept": search.kept_bytes}

    def _current(self) -> Search:
        """Give what looks for all values that are known now."""
        with self._lock:
            now = time.monotonic()
            if now - self._refreshed_at >= REFRESH_SECONDS:
                self._refreshed_at = now
                self._refresh()
            version = self._given.version
            if version != self._version:
                self._search, self._version = Search(self._given.values()), version
            return self._search

    def _tell(self, names: set[str]) -> None:
        now = time.monotonic()
        for name in sorted(names):
            if now - self._told.get(name, -TELL_SECONDS) >= TELL_SECONDS:
                self._told[name] = now
                self._say(f"capd enforcer: the credential {name} was found in what an agent said or heard: replace it")


def framed(message: dict[str, object]) -> bytes:
    """Give a message as it goes over the socket: its length, big-endian, then msgpack."""
    body: bytes = msgpack.packb(message)
    return LENGTH.pack(len(body)) + body


def receive(connection: socket.socket, bytes_max: int) -> Any:  # noqa: ANN401 - what msgpack gives
    """Give the next message.

    Raises:
        EOFError: there is none.
        ValueError, msgpack.UnpackException: it is none.
        OSError: the connection failed.
    """
    (length,) = LENGTH.unpack(_exactly(connection, LENGTH.size))
    if length > bytes_max:
        raise ValueError(length)
    return msgpack.unpackb(_exactly(connection, length))


def _question(connection: socket.socket) -> list[bytes]:
    found = receive(connection, QUESTION_BYTES_MAX + 65_536)["pieces"]
    return [bytes(piece) for piece in found]


def _exactly(connection: socket.socket, length: int) -> bytes:
    buffer = bytearray(length)
    view = memoryview(buffer)
    at = 0
    while at < length:
        count = connection.recv_into(view[at:])
        if not count:
            raise EOFError
        at += count
    return bytes(buffer)
