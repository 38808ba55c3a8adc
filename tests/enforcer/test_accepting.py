"""Listeners while there are no descriptors: none spins, each counts it, and each goes on when there are some again.

What lives here: the process's own limit lowered to what is open. What must not: what the listeners say (their own tests).
"""

from __future__ import annotations

import asyncio
import errno
import os
import resource
import selectors
import socket
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
import uvloop

from capd.daemon.callback_listener import Listener
from capd.daemon.control import ControlServer
from capd.daemon.metrics_endpoint import Endpoint
from capd.daemon.namespace_server import NamespaceServer
from capd.enforcer.accepting import PAUSE_SECONDS, Accepting, ShortageError, take
from capd.enforcer.approvals.hold_server import HoldServer
from capd.enforcer.credentials.keeper import Keeper, bind, framed
from capd.enforcer.credentials.store import Store
from capd.enforcer.peer_credentials import peer_credentials
from capd.enforcer.resolver.service import Resolver, Rules
from tests.enforcer.asking import Scene
from tests.enforcer.test_proxy_shell import scene

WORDS = "accept: Too many open files"
SECONDS_MAX = 120.0
WATCHED_SECONDS = 4 * PAUSE_SECONDS
"""In which a loop that spins turns many thousand times."""
TRIES_MAX = 12
"""Within that, of one that pauses: five, and as many again on a busy machine."""

TRIES_OF_ASYNCIO_MAX = 300
"""asyncio's own server tries a hundred times at once, then pauses for a second."""


@contextmanager
def no_descriptors() -> Iterator[None]:
    """Let nothing more be opened by this process."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    free = os.dup(0)
    os.close(free)
    resource.setrlimit(resource.RLIMIT_NOFILE, (free, hard))
    try:
        with pytest.raises(OSError, match="Too many open files"):
            os.dup(0)
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


Server = NamespaceServer | HoldServer | ControlServer


def _namespaces(place: Path, selector: selectors.BaseSelector) -> Server:
    return NamespaceServer(place / "s", os.getuid(), selector, list)


def _holds(place: Path, selector: selectors.BaseSelector) -> Server:
    return HoldServer(place / "s", Scene(place).desk(), selector, lambda _: None)


def _control(place: Path, selector: selectors.BaseSelector) -> Server:
    return ControlServer(place / "s", {}, selector)


@pytest.mark.parametrize(
    ("make", "kind"),
    [(_namespaces, socket.SOCK_SEQPACKET), (_holds, socket.SOCK_STREAM), (_control, socket.SOCK_STREAM)],
)
def test_servers_of_the_daemon_pause(
    tmp_path: Path, make: Callable[[Path, selectors.BaseSelector], Server], kind: socket.SocketKind
) -> None:
    """Without descriptors a server tries now and then, counts each try, and lets in who waited once there are some."""
    with selectors.DefaultSelector() as selector, socket.socket(socket.AF_UNIX, kind) as client:
        server = make(tmp_path, selector)
        until = time.monotonic() + WATCHED_SECONDS
        turns = 0
        with no_descriptors():
            client.connect(str(tmp_path / "s"))
            while time.monotonic() < until:
                turns += bool(_turn(server, selector))
        tried = server.failed[WORDS]
        assert turns == tried
        assert 1 <= tried <= TRIES_MAX
        deadline = time.monotonic() + SECONDS_MAX
        while not _turn(server, selector):
            assert time.monotonic() < deadline
        assert {WORDS: tried} == server.failed
        server.close()


def _turn(server: Server, selector: selectors.BaseSelector) -> int:
    found = selector.select(PAUSE_SECONDS / 10)
    for key, _events in found:
        key.data()
    server.attend()
    return len(found)


@dataclass
class Failing:
    """A listener whose accept fails in turn with given errors, then finds nobody."""

    errors: list[int]

    def accept(self) -> tuple[socket.socket, object]:
        """Fail."""
        number = self.errors.pop(0) if self.errors else errno.EAGAIN
        raise OSError(number, os.strerror(number))


@pytest.mark.parametrize(
    ("errors", "short"),
    [
        ([], None),
        ([errno.ECONNABORTED, errno.EPROTO, errno.EHOSTUNREACH], None),
        ([errno.ECONNABORTED, errno.ENFILE], "accept: Too many open files in system"),
        ([errno.ENOBUFS], "accept: No buffer space available"),
        ([errno.ENOMEM], "accept: Cannot allocate memory"),
        ([errno.EINVAL], "accept: Invalid argument"),
    ],
)
def test_errors_of_accept(errors: list[int], short: str | None) -> None:
    """An error of one client passes over to the next; any other is told by its name, and never as if nobody waited."""
    listener = Failing(errors)
    if short is None:
        assert take(listener) is None  # type: ignore[arg-type] # only accept is called
        return
    with pytest.raises(ShortageError) as caught:
        take(listener)  # type: ignore[arg-type] # as above
    assert short == caught.value.words


def test_what_cannot_be_let_in_is_counted() -> None:
    """A connection of which the kernel does not say what is asked is closed and counted, and the loop goes on."""

    def fails(_: socket.socket) -> None:
        raise OSError(errno.ENOTCONN, os.strerror(errno.ENOTCONN))

    with selectors.DefaultSelector() as selector, socket.create_server(("127.0.0.1", 0)) as listener:
        listener.setblocking(False)
        accepting = Accepting(listener, selector, fails)
        with socket.create_connection(listener.getsockname()) as client:
            for key, _events in selector.select(SECONDS_MAX):
                key.data()
            assert b"" == client.recv(1)
        assert {"accept: Transport endpoint is not connected": 1} == dict(accepting.failed)
        accepting.close()


def test_the_kernel_says_who_connects() -> None:
    """Both ends of a pair are this process."""
    here, there = socket.socketpair()
    with here, there:
        assert (os.getpid(), os.getuid(), os.getgid()) == peer_credentials(here)


@asynccontextmanager
async def _client(port: int, kept: socket.socket) -> AsyncIterator[None]:
    kept.setblocking(False)
    with no_descriptors():
        await asyncio.get_running_loop().sock_connect(kept, ("127.0.0.1", port))
        yield


def test_the_proxy_pauses() -> None:
    """Without descriptors a worker leaves connections in their queue, counts its tries, and takes them later."""

    async def story() -> None:
        async with scene() as made:
            with socket.socket() as kept:
                async with _client(made.port, kept):
                    began = time.monotonic()
                    await asyncio.sleep(WATCHED_SECONDS)
                    tried = made.shell.counters.turned_away[WORDS]
                    assert 1 <= tried <= _tries_max(began)
                    assert 0 == made.shell.counters.accepted
                await _until(lambda: made.shell.counters.accepted == 1)
            assert (await made.ask()).endswith(b"ok")

    uvloop.run(story())


def test_the_resolver_pauses() -> None:
    """As the proxy does."""

    async def story() -> None:
        async def nobody(_connection: socket.socket, _peer: tuple[str, int]) -> str | None:
            return None

        resolver = Resolver(Rules(could_allow=lambda _run, _name: True), (), lambda _: None)
        with socket.create_server(("127.0.0.1", 0)) as listening, socket.socket() as kept:
            async with asyncio.TaskGroup() as tasks:
                serving = tasks.create_task(resolver.serve([], [listening], nobody), name="resolver")
                await asyncio.sleep(0)
                async with _client(listening.getsockname()[1], kept):
                    began = time.monotonic()
                    await asyncio.sleep(WATCHED_SECONDS)
                    assert 1 <= resolver.counters[WORDS] <= _tries_max(began)
                await _until(lambda: resolver.counters["no_run"] == 1)
                serving.cancel()

    asyncio.run(story())


def test_the_listener_of_links_pauses() -> None:
    """As the proxy does."""

    async def story() -> None:
        listening = socket.create_server(("127.0.0.1", 0))
        turned: list[str] = []

        def refusal(_: socket.socket) -> str:
            turned.append("agent")
            return "it is an agent"

        listener = Listener(listening, None, None, refusal)  # type: ignore[arg-type] # nobody is answered
        async with asyncio.TaskGroup() as tasks:
            serving = tasks.create_task(listener.serve(), name="listener")
            with socket.socket() as kept:
                await asyncio.sleep(0)
                async with _client(listening.getsockname()[1], kept):
                    began = time.monotonic()
                    await _until(lambda: listener.counts[WORDS])
                    await asyncio.sleep(WATCHED_SECONDS)
                    assert listener.counts[WORDS] <= TRIES_OF_ASYNCIO_MAX * _tries_max(began) / TRIES_MAX
                await _until(lambda: bool(turned))
            serving.cancel()

    asyncio.run(story())


def _tries_max(began: float) -> float:
    """Give how many tries there may have been since: a machine that is busy sleeps for longer than it is told."""
    return TRIES_MAX * max(1.0, (time.monotonic() - began) / WATCHED_SECONDS)


async def _until(holds: Callable[[], object]) -> None:
    async with asyncio.timeout(SECONDS_MAX):
        while not holds():  # noqa: ASYNC110 - counters are no events
            await asyncio.sleep(0.01)


def test_the_keeper_lives_on(tmp_path: Path) -> None:
    """Without descriptors the keeper of credentials says so once, and answers who waited once there are some."""
    said: list[str] = []
    path = tmp_path / "s"
    listener = bind(path, os.getuid())
    keeper = Keeper(listener, Store({}, time.monotonic), os.getuid(), said.append)
    gone, alive = os.pipe()
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(SECONDS_MAX)
        thread = threading.Thread(target=keeper.run, args=(gone,), daemon=True)
        with no_descriptors():
            thread.start()
            client.connect(str(path))
            deadline = time.monotonic() + SECONDS_MAX
            while not said and time.monotonic() < deadline:
                time.sleep(0.01)
            time.sleep(WATCHED_SECONDS)
        assert [f"capd enforcer: the keeper of credentials takes nobody: {WORDS}"] == said
        client.sendall(framed({"name": "x"}))
        assert b"no credential x" in client.recv(4096)
    os.close(alive)
    thread.join(SECONDS_MAX)
    os.close(gone)
    listener.close()
    assert not thread.is_alive()


def test_the_endpoint_of_metrics_counts() -> None:
    """Without descriptors the endpoint of metrics counts its tries, and serves who waited once there are some."""
    endpoint = Endpoint(socket.create_server(("127.0.0.1", 0)), lambda: b"x 1\n")
    with socket.socket() as client:
        client.settimeout(SECONDS_MAX)
        with no_descriptors():
            endpoint.start()
            client.connect(endpoint._listener.getsockname())
            deadline = time.monotonic() + SECONDS_MAX
            while not endpoint.not_taken and time.monotonic() < deadline:
                time.sleep(0.01)
        client.sendall(b"GET /metrics HTTP/1.0\r\n\r\n")
        assert client.recv(4096).startswith(b"HTTP/1.1 200")
    endpoint.stop()
    counted: Mapping[str, int] = endpoint.not_taken
    assert {WORDS} == counted.keys()
