"""Proxies at the desk: a unix socket on which they say what waits, and are told what became of it.

What lives here: connections, messages, their bounds. What must not: what is decided (desk.py), persons.

Only processes of the enforcer's own user can connect: the socket's mode sees to that. One connection for each action that
waits. When a proxy says `leave`, its client left; when it just ends, it died, and its client may come again.
"""

from __future__ import annotations

import os
import selectors
import socket
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import msgpack

from capd.enforcer.accepting import Accepting
from capd.enforcer.approvals.desk import Desk, Waiter
from capd.enforcer.approvals.hold import LENGTH_BYTES, MESSAGE_BYTES_MAX, Answer, answer_message, packed, read_hold
from capd.recording.errors import on_disk

CONNECTIONS_MAX: Final = 512
"""Above what can wait (limits.PENDING_MAX): those that are being answered come on top."""
BACKLOG: Final = 512
MODE: Final = 0o600
_CHUNK_BYTES: Final = 256 * 1024


@dataclass(kw_only=True, eq=False)
class _Connection:
    socket: socket.socket
    received: bytearray = field(default_factory=bytearray)
    waiter: Waiter | None = None


class HoldServer:
    """Listens, and acts within a caller's event loop: the selector's data is what to call."""

    def __init__(self, path: Path, desk: Desk, selector: selectors.BaseSelector, tell: Callable[[str], None]) -> None:
        """Listen at `path`; what a dead one left there is replaced.

        Args:
            path: of the socket.
            desk: decides.
            selector: of the event loop.
            tell: is told of defects.

        Raises:
            StateDirectoryError: nothing can be bound there.
        """
        self._desk, self._selector, self._tell = desk, selector, tell
        self._connections: set[_Connection] = set()
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
        with on_disk("listen at", path):
            path.unlink(missing_ok=True)
            before = os.umask(0o777 & ~MODE)
            try:
                listener.bind(str(path))
            finally:
                os.umask(before)
        listener.listen(BACKLOG)
        self._accepting = Accepting(listener, selector, self._let_in)

    @property
    def failed(self) -> dict[str, int]:
        """How often nobody could be let in, by why."""
        return dict(self._accepting.failed)

    def attend(self) -> None:
        """Let in again after a pause; to be called in every turn of the loop."""
        self._accepting.attend()

    def close(self) -> None:
        """Hang up on all, which cancels nothing."""
        for connection in list(self._connections):
            self._hang_up(connection)
        self._accepting.close()

    def _let_in(self, accepted: socket.socket) -> None:
        if len(self._connections) >= CONNECTIONS_MAX:
            accepted.close()
            return
        connection = _Connection(socket=accepted)
        self._connections.add(connection)
        self._selector.register(accepted, selectors.EVENT_READ, lambda: self._read(connection))

    def _read(self, connection: _Connection) -> None:
        try:
            chunk = connection.socket.recv(_CHUNK_BYTES)
        except BlockingIOError:
            return
        except OSError:
            chunk = b""
        if not chunk:
            self._hang_up(connection)
            return
        connection.received += chunk
        try:
            while connection in self._connections and (message := _next(connection.received)) is not None:
                self._act(connection, message)
        except Exception as error:  # noqa: BLE001 - the boundary: whoever asked is hung up on, and denies
            self._tell(f"a hold was not understood: {type(error).__name__}: {error}")
            self._hang_up(connection)

    def _act(self, connection: _Connection, message: dict[str, Any]) -> None:
        verb = message.pop("verb")
        if verb == "hold" and connection.waiter is None:
            connection.waiter = self._desk.hold(read_hold(message), lambda answer: self._answer(connection, answer))
        elif verb == "leave":
            waiter, connection.waiter = connection.waiter, None
            if waiter is not None:
                self._desk.leave(waiter)
            self._hang_up(connection)
        elif verb == "policy":
            self._desk.change_policy(str(message["version"]))
        else:
            raise ValueError(f"there is no {verb!r}")

    def _answer(self, connection: _Connection, answer: Answer) -> None:
        """Send an answer; each is smaller than a socket's buffer, and there are few."""
        try:
            connection.socket.sendall(packed(answer_message(answer)))
        except OSError as error:
            self._tell(f"a proxy could not be told of {answer.id}: {error}")
            self._hang_up(connection)

    def _hang_up(self, connection: _Connection) -> None:
        if connection not in self._connections:
            return
        self._connections.discard(connection)
        self._selector.unregister(connection.socket)
        connection.socket.close()
        if connection.waiter is not None:
            self._desk.lose(connection.waiter)


def _next(received: bytearray) -> dict[str, Any] | None:
    """Take the next message from what was received; None: it is not whole yet.

    Raises:
        ValueError: it is none.
    """
    if len(received) < LENGTH_BYTES:
        return None
    length = int.from_bytes(received[:LENGTH_BYTES], "big")
    if length > MESSAGE_BYTES_MAX:
        raise ValueError(f"a message of {length} bytes")
    if len(received) < LENGTH_BYTES + length:
        return None
    message = msgpack.unpackb(bytes(received[LENGTH_BYTES : LENGTH_BYTES + length]))
    del received[: LENGTH_BYTES + length]
    if not isinstance(message, dict):
        raise ValueError("a message that is none")  # noqa: TRY004 - the sender's mistake, as the others here
    return message
