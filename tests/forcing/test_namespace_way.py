"""The way of sockets from the daemon to the enforcer's processes, with a real namespace and real descriptors."""

from __future__ import annotations

import asyncio
import contextlib
import os
import selectors
import socket
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from capd.daemon.namespace_client import NamespaceClient
from capd.daemon.namespace_message import RESOLVER, WORKER, Told
from capd.daemon.namespace_server import NamespaceServer
from capd.enforcer.forcing.namespaces import Opened, open_namespace
from capd.enforcer.forcing.plan import plan
from capd.enforcer.proxy.flow import SocketOwners
from tests.daemon.conftest import READY_SECONDS
from tests.forcing.yard import PROXY_PORT, RESOLVER_PORT, TABLE, Yard


@pytest.fixture
def opened(ground: Yard) -> Iterator[Opened]:
    """Give the sink's namespace, opened."""
    made = open_namespace(ground.sink, plan(ground.facts()), proxy_port=PROXY_PORT, resolver_port=RESOLVER_PORT)
    yield made
    made.ruleset.remove(TABLE)
    made.close()


@dataclass
class Process:
    """A process of the enforcer: what it has been handed."""

    path: Path
    who: str
    has: dict[int, list[socket.socket]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Prepare the client."""
        self.client = NamespaceClient(self.path, self.who, self.take, self.drop)

    def take(self, number: int, listeners: list[socket.socket], asking: list[socket.socket]) -> None:
        """Keep what came."""
        self.has[number] = [*listeners, *asking]

    def drop(self, number: int) -> None:
        """Close what is over."""
        for one in self.has.pop(number):
            one.close()

    def kinds(self) -> list[tuple[int, int]]:
        """Give family and type of what it has."""
        return [(int(one.family), int(one.type)) for sockets in self.has.values() for one in sockets]


@dataclass
class Daemon:
    """The other end, in the test's event loop."""

    path: Path
    user: int
    open: list[Opened]

    def __post_init__(self) -> None:
        """Listen."""
        self.selector = selectors.DefaultSelector()
        self.server = NamespaceServer(self.path, self.user, self.selector, lambda: self.open)

    async def until(self, holds: object) -> None:
        """Turn until something holds."""
        assert callable(holds)
        async with asyncio.timeout(READY_SECONDS):
            while not holds():
                for key, _events in self.selector.select(0):
                    key.data()
                await asyncio.sleep(0.001)

    def close(self) -> None:
        """End."""
        self.server.close()
        self.selector.close()


TCP4, TCP6, UDP4, UDP6 = ((family, kind) for kind in (1, 2) for family in (socket.AF_INET, socket.AF_INET6))
ASKS = (socket.AF_NETLINK, socket.SOCK_DGRAM)
HANDED = {WORKER: [TCP4, TCP6, ASKS], RESOLVER: [TCP4, TCP6, UDP4, UDP6, ASKS, ASKS]}


@pytest.mark.parametrize("who", HANDED)
def test_sockets_come_and_go(tmp_path: Path, opened: Opened, who: str) -> None:
    """A process gets what is open when it comes, gives it up when it is over, and gets what opens later."""

    async def case() -> None:
        daemon, process = Daemon(tmp_path / "way", 0, [opened]), Process(tmp_path / "way", who)
        process.client.attend()
        await daemon.until(lambda: process.has)
        assert HANDED[who] == process.kinds()
        assert {opened.number} == process.has.keys()
        asking = SocketOwners(process.has[opened.number][-1])
        assert None is asking.find(("10.77.0.2", 1), ("10.77.0.1", 1))
        daemon.server.take_back(opened.number)
        await daemon.until(lambda: not process.has)
        daemon.server.announce(opened)
        await daemon.until(lambda: process.has)
        process.client.close()
        assert {} == process.has
        await daemon.until(lambda: not len(daemon.server))
        daemon.close()

    asyncio.run(case())


def test_the_next_daemon_finds_the_ports_free(tmp_path: Path, opened: Opened) -> None:
    """With the daemon away a process keeps what it has; it gives all of it up before it tells the next one who it is."""

    async def case() -> None:
        first, process = Daemon(tmp_path / "way", 0, [opened]), Process(tmp_path / "way", WORKER)
        process.client.attend()
        await first.until(lambda: process.has)
        first.close()
        for _ in range(3):
            await asyncio.sleep(0)
            process.client.attend()
        assert {opened.number} == process.has.keys()
        second = Daemon(tmp_path / "way", 0, [])

        def known() -> bool:
            process.client.attend()
            return bool(len(second.server))

        await second.until(known)
        assert {} == process.has
        process.client.close()
        second.close()

    asyncio.run(case())


def test_nobody_else_is_handed_anything(tmp_path: Path, opened: Opened) -> None:
    """Who is not the enforcer's user, or says what no process of it says, is hung up on."""

    async def case() -> None:
        for user, said in ((12_345, b"worker"), (0, b"agent"), (0, b"")):
            daemon = Daemon(tmp_path / "way", user, [opened])
            assert (user, 0o600) == ((tmp_path / "way").stat().st_uid, (tmp_path / "way").stat().st_mode & 0o777)
            with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as client:
                client.connect(str(tmp_path / "way"))
                with contextlib.suppress(BrokenPipeError):
                    client.send(said) if said else client.shutdown(socket.SHUT_WR)
                client.setblocking(False)
                over: list[bytes] = []

                def gone(client: socket.socket = client, over: list[bytes] = over) -> list[bytes]:
                    try:
                        data, descriptors, _flags, _address = socket.recv_fds(client, 100, 8)
                    except BlockingIOError:
                        return over
                    except ConnectionResetError:  # it had not read all
                        data, descriptors = b"", []
                    assert [] == descriptors
                    over.append(data)
                    return over

                await daemon.until(gone)
                assert [b""] == over
            daemon.close()

    asyncio.run(case())


def test_what_is_no_message_is_refused() -> None:
    """Only what tells of a namespace is read."""
    for data in (b"", b"[]", b"{}", b'{"what": "shut", "namespace": 1}', b'{"what": "open", "namespace": "1"}', os.urandom(9)):
        with pytest.raises(ValueError, match=r".*"):
            Told.decode(data)
    assert Told(what="over", namespace=7) == Told.decode(Told(what="over", namespace=7).encode())
