"""The control socket: who may ask the daemon what, within limits that no client can stretch.

What lives here: connections, requests, permissions, answers. What must not: what a verb does; the drain, which runs in another
thread and never waits for a client. control_client.py describes the protocol.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import select
import selectors
import socket
import stat
import struct
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from capd.daemon.errors import NotPermittedError, RequestRefusedError
from capd.recording.errors import CapdError, on_disk

REQUEST_BYTES_MAX: Final = 128 * 1024
"""A run with a long command line and many labels has half of that."""
REQUEST_SECONDS_MAX: Final = 5.0
"""From connecting to the last byte of the request, and again for taking the answer."""
CONNECTIONS_PER_USER_MAX: Final = 32
CONNECTIONS_MAX: Final = 256
"""Of all users but root, which is always let in: the operator must be able to ask what goes on."""
WAITING_MAX: Final = 1024
"""Clients that wait to be let in; those above wait in `connect`."""
DESCRIPTORS_MAX: Final = 1
SO_PEERPIDFD: Final = 77
"""asm-generic/socket.h; since Linux 6.5."""
_CREDENTIALS: Final = struct.Struct("=iII")
_CHUNK_BYTES: Final = 64 * 1024


@dataclass(frozen=True, kw_only=True)
class Peer:
    """Who asks, as the kernel says: the client cannot choose it.

    Attributes:
        pid: process that connected, 0 if this pid namespace cannot see it.
        uid: its user.
        pidfd: refers to that very process, or -1; valid while the request is handled.
    """

    pid: int
    uid: int
    pidfd: int

    def alive(self) -> bool:
        """Say whether the process that connected still lives, so that its pid is not another's by now."""
        if self.pidfd < 0:
            return False
        poll = select.poll()
        poll.register(self.pidfd, select.POLLIN)
        return not poll.poll(0)


@dataclass(frozen=True, kw_only=True)
class Verb:
    """What can be asked.

    Attributes:
        act: does it; raises CapdError to refuse.
        root_only: nobody else may ask.
        through_pipe: asked only with a pipe for the answer.
    """

    act: Callable[[Peer, Mapping[str, object]], dict[str, object]]
    root_only: bool = False
    through_pipe: bool = False


@dataclass(kw_only=True)
class _Connection:
    socket: socket.socket
    peer: Peer
    deadline: float
    received: bytearray = field(default_factory=bytearray)
    answer: memoryview | None = None
    pipe: int = -1


class ControlServer:
    """Listens, and answers within a caller's event loop: the selector's data is what to call; call `expire` now and then."""

    def __init__(self, path: Path, verbs: Mapping[str, Verb], selector: selectors.BaseSelector) -> None:
        """Listen at `path`. What a dead daemon left there is replaced; the instance lock has shown that it is dead.

        Raises:
            StateDirectoryError: nothing can be bound there.
        """
        self._verbs = verbs
        self._selector = selector
        self._connections: dict[int, _Connection] = {}
        self._path = path
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        with on_disk("listen at", path):
            path.unlink(missing_ok=True)
            self._listener.bind(str(path))
            path.chmod(0o666)
        self._listener.listen(WAITING_MAX)
        selector.register(self._listener, selectors.EVENT_READ, self._accept)

    def close(self) -> None:
        """Hang up on everybody and remove the socket."""
        for connection in list(self._connections.values()):
            self._drop(connection)
        self._selector.unregister(self._listener)
        self._listener.close()
        self._path.unlink(missing_ok=True)

    def expire(self) -> None:
        """Hang up on clients that take too long."""
        now = time.monotonic()
        for connection in [found for found in self._connections.values() if found.deadline < now]:
            self._drop(connection)

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            accepted, _address = self._listener.accept()
            accepted.setblocking(False)
            peer = _peer(accepted)
            connection = _Connection(socket=accepted, peer=peer, deadline=time.monotonic() + REQUEST_SECONDS_MAX)
            self._connections[accepted.fileno()] = connection
            if self._crowded(peer.uid):
                self._drop(connection)
                return
            self._selector.register(accepted, selectors.EVENT_READ, lambda: self._receive(connection))

    def _crowded(self, uid: int) -> bool:
        users = Counter(connection.peer.uid for connection in self._connections.values())
        others = users.total() - users[0]
        return uid != 0 and (users[uid] > CONNECTIONS_PER_USER_MAX or others > CONNECTIONS_MAX)

    def _receive(self, connection: _Connection) -> None:
        try:
            chunk, descriptors, _flags, _address = socket.recv_fds(connection.socket, _CHUNK_BYTES, DESCRIPTORS_MAX)
        except BlockingIOError:
            return
        except OSError:
            self._drop(connection)
            return
        for descriptor in descriptors:
            self._take_pipe(connection, descriptor)
        connection.received += chunk
        whole = connection.received.endswith(b"\n")
        if len(connection.received) > REQUEST_BYTES_MAX:
            self._answer(connection, _refusal(RequestRefusedError(f"a request is at most {REQUEST_BYTES_MAX} bytes long")))
        elif whole and (connection.pipe < 0 or not chunk):
            self._answer(connection, self._act(connection))
        elif not chunk:
            self._drop(connection)

    def _take_pipe(self, connection: _Connection, descriptor: int) -> None:
        """Keep a pipe for the answer; anything else could block the daemon, or make it write where the client may not."""
        os.set_inheritable(descriptor, False)
        writable = fcntl.fcntl(descriptor, fcntl.F_GETFL) & os.O_ACCMODE == os.O_WRONLY
        if connection.pipe >= 0 or not writable or not stat.S_ISFIFO(os.fstat(descriptor).st_mode):
            os.close(descriptor)
            return
        os.set_blocking(descriptor, False)
        connection.pipe = descriptor

    def _act(self, connection: _Connection) -> dict[str, object]:
        try:
            request = json.loads(connection.received)
            if not isinstance(request, dict):
                raise RequestRefusedError("a request is a JSON object")
            verb = self._verbs.get(str(request.pop("verb", "")))
            if verb is None:
                raise RequestRefusedError(f"the daemon knows {', '.join(sorted(self._verbs))}, and not what was asked")
            if verb.root_only and connection.peer.uid not in {0, os.geteuid()}:
                raise NotPermittedError("only root may ask this")
            if verb.through_pipe and connection.pipe < 0:
                raise RequestRefusedError("this verb wants a pipe for its answer")
            return {"ok": True, **verb.act(connection.peer, request)}
        except (ValueError, RecursionError):
            return _refusal(RequestRefusedError("the request is not JSON"))
        except Exception as error:  # noqa: BLE001 - the boundary: the client gets the error, the daemon goes on
            return _refusal(error)

    def _answer(self, connection: _Connection, answer: dict[str, object]) -> None:
        content = json.dumps(answer, ensure_ascii=True).encode("ascii") + b"\n"
        if connection.pipe >= 0:
            with contextlib.suppress(OSError):  # the client is gone; its run, if there is one, ends with its cgroup
                os.write(connection.pipe, content)
            self._drop(connection)
            return
        connection.answer = memoryview(content)
        connection.deadline = time.monotonic() + REQUEST_SECONDS_MAX
        self._selector.modify(connection.socket, selectors.EVENT_WRITE, lambda: self._send(connection))
        self._send(connection)

    def _send(self, connection: _Connection) -> None:
        try:
            while connection.answer:
                connection.answer = connection.answer[connection.socket.send(connection.answer) :]
        except BlockingIOError:
            return
        except OSError:
            pass
        self._drop(connection)

    def _drop(self, connection: _Connection) -> None:
        if self._connections.pop(connection.socket.fileno(), None) is None:
            return
        with contextlib.suppress(KeyError):
            self._selector.unregister(connection.socket)
        connection.socket.close()
        for descriptor in (connection.pipe, connection.peer.pidfd):
            if descriptor >= 0:
                os.close(descriptor)


def _peer(connection: socket.socket) -> Peer:
    content = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    pid, uid, _gid = _CREDENTIALS.unpack(content)
    return Peer(pid=pid, uid=uid, pidfd=_pidfd(connection, pid))


def _pidfd(connection: socket.socket, pid: int) -> int:
    with contextlib.suppress(OSError):
        return connection.getsockopt(socket.SOL_SOCKET, SO_PEERPIDFD)
    with contextlib.suppress(OSError):
        return os.pidfd_open(pid)
    return -1


def _refusal(error: Exception) -> dict[str, object]:
    known = isinstance(error, CapdError) or hasattr(error, "exit_status")
    return {
        "ok": False,
        "error": {
            "message": str(error) if known else f"the daemon failed: {type(error).__name__}: {error}",
            "hint": getattr(error, "hint", "this is a defect of capd; its own log has more"),
            "exit_status": int(getattr(error, "exit_status", 2)),
        },
    }
