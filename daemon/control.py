"""The control socket: who may ask the daemon what, within limits that no client can stretch.

What lives here: connections, requests, permissions, answers. What must not: what a verb does; the drain, which runs in another
thread and never waits for a client. control_client.py describes the protocol.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import select
import selectors
import socket
import stat
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from capd.daemon.errors import NotPermittedError, RequestRefusedError
from capd.enforcer.accepting import Accepting
from capd.enforcer.peer_credentials import peer_credentials
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
REFUSED_MAX: Final = 256
"""Clients that were refused and are still being hung up on; above this nobody is let in before one of them is gone."""
LEAST_SECONDS: Final = 0.001
"""Of a timeout: 0 would mean not to wait, and to fail in another way."""
DESCRIPTORS_MAX: Final = 1
SO_PEERPIDFD: Final = 77
"""asm-generic/socket.h; since Linux 6.5."""
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


@dataclass(kw_only=True, eq=False)
class _Connection:
    socket: socket.socket
    peer: Peer
    received: bytearray = field(default_factory=bytearray)
    pipe: int = -1
    answered: threading.Event = field(default_factory=threading.Event)
    answer: bytes = b""


class ControlServer:
    """Listens, and acts within a caller's event loop: the selector's data is what to call.

    Each client has a thread that takes its request, gives it its answer and hangs up. Descriptors that a client passes are
    closed by whoever reads or closes the unix socket, wanted or not, and that can block for as long as their owner likes: a TCP
    socket that lingers, a file of a FUSE file system. It must hold up nobody else; meanwhile the client counts as connected.
    """

    def __init__(self, path: Path, verbs: Mapping[str, Verb], selector: selectors.BaseSelector, *, mode: int = 0o666) -> None:
        """Listen at `path`, which gets a mode. What a dead daemon left there is replaced; a lock has shown that it is dead.

        Raises:
            StateDirectoryError: nothing can be bound there.
        """
        self._verbs = verbs
        self._selector = selector
        self._lock = threading.Lock()
        self._connections: set[_Connection] = set()
        self._refused = 0
        self._asked: deque[_Connection] = deque()
        self._closed = False
        self._path = path
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        with on_disk("listen at", path):
            path.unlink(missing_ok=True)
            listener.bind(str(path))
            path.chmod(mode)
        listener.listen(WAITING_MAX)
        self._wake_fd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        selector.register(self._wake_fd, selectors.EVENT_READ, self._woken)
        self._accepting = Accepting(listener, selector, self._let_in)

    @property
    def failed(self) -> dict[str, int]:
        """How often nobody could be let in, by why."""
        return dict(self._accepting.failed)

    def attend(self) -> None:
        """Let in again after a pause; to be called in every turn of the loop."""
        self._accepting.attend()

    def close(self) -> None:
        """Hang up on everybody and remove the socket. Who cannot be hung up on is left to the end of the process."""
        with self._lock:
            self._closed = True
            left = list(self._connections)
            self._selector.unregister(self._wake_fd)
            os.close(self._wake_fd)
        for connection in left:
            with contextlib.suppress(OSError):
                connection.socket.shutdown(socket.SHUT_RDWR)
            connection.answered.set()
        self._accepting.close()
        self._path.unlink(missing_ok=True)

    def _woken(self) -> None:
        os.eventfd_read(self._wake_fd)
        self._listen()
        while self._asked:
            connection = self._asked.popleft()
            connection.answer = _packed(self._act(connection))
            connection.answered.set()

    def _wake(self) -> None:
        with self._lock:
            if not self._closed:
                os.eventfd_write(self._wake_fd, 1)

    def _let_in(self, accepted: socket.socket) -> None:
        connection = _Connection(socket=accepted, peer=_peer(accepted))
        with self._lock:
            crowded = self._crowded(connection.peer.uid)
            if crowded:
                self._refused += 1
            else:
                self._connections.add(connection)
        self._listen()
        work = self._refuse if crowded else self._serve
        try:
            threading.Thread(target=work, args=(connection,), name="capd-client", daemon=True).start()
        except RuntimeError as error:  # the kernel has no thread for it
            self._left(connection, crowded=crowded)
            raise OSError(errno.EAGAIN, str(error)) from error

    def _listen(self) -> None:
        """Leave new clients in their queue while too many that were refused cannot be hung up on."""
        self._accepting.want(self._refused < REFUSED_MAX)

    def _left(self, connection: _Connection, *, crowded: bool) -> None:
        _hang_up(connection)
        with self._lock:
            self._connections.discard(connection)
            self._refused -= crowded

    def _crowded(self, uid: int) -> bool:
        users = Counter(connection.peer.uid for connection in self._connections)
        others = users.total() - users[0]
        return uid != 0 and (users[uid] >= CONNECTIONS_PER_USER_MAX or others >= CONNECTIONS_MAX)

    # In the thread of a client

    def _refuse(self, connection: _Connection) -> None:
        self._left(connection, crowded=True)
        self._wake()

    def _serve(self, connection: _Connection) -> None:
        try:
            deadline = time.monotonic() + REQUEST_SECONDS_MAX
            if self._receive(connection, deadline):
                self._asked.append(connection)
                self._wake()
                connection.answered.wait()
                _give(connection)
        except OSError:
            pass  # the client is gone; its run, if there is one, ends with its cgroup
        finally:
            self._left(connection, crowded=False)

    def _receive(self, connection: _Connection, deadline: float) -> bool:
        """Take the request; False when none came in time."""
        while len(connection.received) <= REQUEST_BYTES_MAX:
            connection.socket.settimeout(max(deadline - time.monotonic(), LEAST_SECONDS))
            chunk, descriptors, _flags, _address = socket.recv_fds(connection.socket, _CHUNK_BYTES, DESCRIPTORS_MAX)
            for descriptor in descriptors:
                _take_pipe(connection, descriptor)
            connection.received += chunk
            if connection.received.endswith(b"\n") and (connection.pipe < 0 or not chunk):
                return True
            if not chunk or time.monotonic() >= deadline:
                return False
        return True

    # In the caller's event loop

    def _act(self, connection: _Connection) -> dict[str, object]:
        try:
            request = _parsed(connection.received)
            verb = self._verbs.get(str(request.pop("verb", "")))
            if verb is None:
                raise RequestRefusedError(f"the daemon knows {', '.join(sorted(self._verbs))}, and not what was asked")
            if verb.root_only and connection.peer.uid not in {0, os.geteuid()}:
                raise NotPermittedError("only root may ask this")
            if verb.through_pipe and connection.pipe < 0:
                raise RequestRefusedError("this verb wants a pipe for its answer")
            return {"ok": True, **verb.act(connection.peer, request)}
        except Exception as error:  # noqa: BLE001 - the boundary: the client gets the error, the daemon goes on
            return _refusal(error)


def _parsed(content: bytearray) -> dict[str, object]:
    if len(content) > REQUEST_BYTES_MAX:
        raise RequestRefusedError(f"a request is at most {REQUEST_BYTES_MAX} bytes long")
    try:
        request = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise RequestRefusedError("the request is not JSON") from error
    if not isinstance(request, dict):
        raise RequestRefusedError("a request is a JSON object")
    return request


def _take_pipe(connection: _Connection, descriptor: int) -> None:
    """Keep a pipe for the answer; anything else could block, or make the daemon write where the client may not."""
    os.set_inheritable(descriptor, False)
    writable = fcntl.fcntl(descriptor, fcntl.F_GETFL) & os.O_ACCMODE == os.O_WRONLY
    if connection.pipe >= 0 or not writable or not stat.S_ISFIFO(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        return
    os.set_blocking(descriptor, False)
    connection.pipe = descriptor


def _give(connection: _Connection) -> None:
    """Give the answer: as much of it as fits into a pipe at once, all of it over the socket if it is taken in time."""
    if connection.pipe >= 0:
        os.write(connection.pipe, connection.answer)
        return
    connection.socket.settimeout(REQUEST_SECONDS_MAX)
    connection.socket.sendall(connection.answer)


def _hang_up(connection: _Connection) -> None:
    connection.socket.close()
    for descriptor in (connection.pipe, connection.peer.pidfd):
        if descriptor >= 0:
            os.close(descriptor)


def _packed(answer: dict[str, object]) -> bytes:
    return json.dumps(answer, ensure_ascii=True).encode("ascii") + b"\n"


def _peer(connection: socket.socket) -> Peer:
    peer = peer_credentials(connection)
    return Peer(pid=peer.pid, uid=peer.uid, pidfd=_pidfd(connection, peer.pid))


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
