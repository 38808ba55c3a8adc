"""What stands between a client and a target in the bench of the enforcer: nothing, a relay, the enforcer, mitmproxy.

What lives here: the target and each of these, a process of its own. What must not: clients, figures.

The enforcer has its real worker: a policy of ten rules, its decision log on disk, its certificates; it is told whose
connections they are and where they go instead of asking the kernel, and the resolver has told the name. mitmproxy is a reverse
proxy for the same target; both speak HTTP/1.1 only.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial
from ipaddress import ip_address
from pathlib import Path
from typing import Final

import uvloop

from capd.daemon.enforcer_worker import Parts, Worker
from capd.enforcer.limits.shared import SharedTotals
from capd.enforcer.policy.action import Principal, Run
from capd.enforcer.policy.policy import read_policy
from capd.enforcer.policy.policy_set import PolicySet
from capd.enforcer.proxy.flow import Owner
from capd.enforcer.proxy.interim import Interim
from capd.enforcer.proxy.judge import Agent
from capd.enforcer.proxy.load import Load
from capd.enforcer.proxy.postgresql.known_functions import Stamps
from capd.enforcer.proxy.shell import work
from capd.enforcer.proxy.world import World
from capd.enforcer.resolver.binding import Binding
from capd.enforcer.resolver.telling import Teller, channel
from capd.enforcer.tls.authority import Authority, make_authority
from capd.enforcer.tls.contexts import Leaves, Upstreams

NAME: Final = "localhost"
TARGET: Final = "127.0.0.1"
RUN: Final = "r"
ANSWER_BYTES: Final = 1024
PIECE_BYTES: Final = 1 << 18
READY_SECONDS: Final = 20.0
RULES: Final = 10
WORKERS: Final = len(os.sched_getaffinity(0))
"""One for each core, as the enforcer has them where it is installed."""
DIRECT, RELAY, ENFORCER, MITMPROXY = "direct", "relay", "enforcer", "mitmproxy"
MITMDUMP: Final = Path(sys.prefix) / "mitmproxy" / "bin" / "mitmdump"
"""Where packaging/mitmproxy puts it; in an environment of its own, since its pins are others."""

Serve = Callable[[socket.socket], Awaitable[None]]
WorkerServes = Callable[[list[socket.socket], "Place"], Awaitable[None]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Middle:
    """Who is asked.

    Attributes:
        port: where.
        pids: of the processes whose processor time counts.
    """

    port: int
    pids: tuple[int, ...]


class Target(asyncio.Protocol):
    """Answers every request with a kilobyte, `/large/N` with so many bytes."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take the transport."""
        self._transport: asyncio.WriteTransport = transport  # type: ignore[assignment] # of a server it can write
        self._held = b""
        self._left = 0
        self._paused = False

    def data_received(self, data: bytes) -> None:
        """Answer."""
        self._held += data
        while (end := self._held.find(b"\r\n\r\n")) >= 0:
            head, self._held = self._held[:end].lower(), self._held[end + 4 :]
            if head.startswith(b"get /large/"):
                self._left = int(head[11:].split()[0])
                self._transport.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % self._left)
                self._go_on()
            elif b"\r\nconnection: close" in head:
                self._transport.write(_answer(b"connection: close\r\n"))
                self._transport.close()
            else:
                self._transport.write(ANSWER)

    def pause_writing(self) -> None:
        """Wait."""
        self._paused = True

    def resume_writing(self) -> None:
        """Go on."""
        self._paused = False
        self._go_on()

    def _go_on(self) -> None:
        while self._left and not self._paused:
            piece = PIECE[: self._left]
            self._left -= len(piece)
            self._transport.write(piece)


def _answer(more: bytes = b"") -> bytes:
    return b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\ncontent-type: text/plain\r\n%b\r\n%b" % (
        ANSWER_BYTES,
        more,
        bytes(ANSWER_BYTES),
    )


ANSWER: Final = _answer()
PIECE: Final = bytes(PIECE_BYTES)


class Relay(asyncio.Protocol):
    """Passes bytes to the target and back, and nothing else: the least that anything in the middle costs."""

    def __init__(self, port: int) -> None:
        self._port = port
        self.other: asyncio.Transport | None = None
        self._held = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Dial."""
        self.transport: asyncio.Transport = transport  # type: ignore[assignment] # of TCP it can read and write
        self._dialling = asyncio.get_running_loop().create_task(self._dial(), name="dial")

    async def _dial(self) -> None:
        loop = asyncio.get_running_loop()
        self.other, _ = await loop.create_connection(lambda: Back(self), "127.0.0.1", self._port)
        if self._held:
            self.other.write(self._held)

    def data_received(self, data: bytes) -> None:
        """Pass on."""
        if self.other is None:
            self._held += data
        else:
            self.other.write(data)

    def pause_writing(self) -> None:
        """Leave the target to wait."""
        if self.other is not None:
            self.other.pause_reading()

    def resume_writing(self) -> None:
        """Read on."""
        if self.other is not None:
            self.other.resume_reading()

    def connection_lost(self, exc: Exception | None) -> None:
        """Close the other side."""
        del exc
        if self.other is not None:
            self.other.close()


class Back(asyncio.Protocol):
    """The relay's other side."""

    def __init__(self, front: Relay) -> None:
        self._front = front

    def data_received(self, data: bytes) -> None:
        """Pass back."""
        if not self._front.transport.is_closing():
            self._front.transport.write(data)

    def connection_lost(self, exc: Exception | None) -> None:
        """Close the other side."""
        del exc
        self._front.transport.close()


async def serve_target(listener: socket.socket, context: ssl.SSLContext | None) -> None:
    """Serve."""
    server = await asyncio.get_running_loop().create_server(Target, sock=listener, ssl=context)
    await server.serve_forever()


async def serve_relay(listener: socket.socket, port: int) -> None:
    """Relay to a port."""
    server = await asyncio.get_running_loop().create_server(lambda: Relay(port), sock=listener)
    await server.serve_forever()


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Which one a worker is.

    Attributes:
        number: from 0.
        load: what all of them have.
    """

    number: int
    load: Load


def alone() -> Place:
    """Give the place of the only worker."""
    return Place(number=0, load=Load(1))


def worker_world(folder: Path, port: int, ours: Authority, rules: Sequence[str] = (), place: Place | None = None) -> World:
    """Give the world of a real worker, but for whose connections they are and where they go: to a port of loopback.

    Args:
        folder: for its log; `ca.pem` there is trusted.
        port: of the target; its name is one that the resolver told the run.
        ours: what signs for the agent's side.
        rules: of the policy; none: nine, and one that allows GET.
        place: among workers; None: it is alone.
    """
    place = place or alone()
    api = f"  - {{id: api, match: {{protocols: [http], hosts: [{NAME}], methods: [GET]}}, then: allow}}"
    others = [f"  - {{id: other-{number}, match: {{hosts: [other{number}.test]}}, then: allow}}" for number in range(RULES - 1)]
    rules = rules or [*others, api]
    policies = PolicySet(lambda: read_policy({"bench.yaml": ("rules:\n" + "\n".join(rules)).encode()}))
    policies.reload()
    tells, hears = channel()
    nowhere = folder / "nowhere"
    worker = Worker(
        Parts(
            number=place.number,
            listeners=[],
            load=place.load,
            names=hears,
            authority=ours,
            upstreams=Upstreams(ca_file=folder / "ca.pem"),
            policies=policies,
            decisions=folder,
            done=nowhere,
            runs=nowhere,
            hierarchy=nowhere,
            status=nowhere,
            stamp=lambda: None,
            loaded=None,
            holds=nowhere,
            namespaces=nowhere,
            observe=False,
            credentials={},
            keeper=nowhere,
            cancelled=channel()[1],
            cancels=(),
            cancel_secret=bytes(32),
            mask_key=bytes(32),
            stamps=Stamps(),
            said_key=bytes(32),
            totals=SharedTotals(),
            interim=Interim.NEVER,
        )
    )
    Teller([tells]).tell(Binding(run=RUN, name=NAME, addresses=(ip_address(TARGET),), seconds=3600))
    agent = Agent(run=Run(name="bench", id=RUN), principal=Principal(name="bench"))
    owner = Owner(uid=1, cookie=2, cgroup=3)
    return replace(worker.world(), owner=lambda *_: owner, agent=lambda _: agent, destination=lambda _: (TARGET, port))


async def serve_enforcer(listeners: list[socket.socket], world: World) -> None:
    """Be a worker of an enforcer."""
    await work(world, listeners, asyncio.Event(), lambda _: None)


@contextmanager
def process(serve: Serve) -> Iterator[Middle]:
    """Run a server in a process of its own."""
    with socket.create_server(("127.0.0.1", 0), backlog=1024) as listener, _child(lambda: serve(listener)) as pid:
        yield Middle(port=listener.getsockname()[1], pids=(pid,))


@contextmanager
def workers(serve: WorkerServes) -> Iterator[Middle]:
    """Run the enforcer's workers, which accept from the listeners of all at one port."""
    with ExitStack() as stack:
        port, listeners, load = 0, [], Load(WORKERS)
        for _ in range(WORKERS):
            listeners.append(stack.enter_context(socket.create_server(("127.0.0.1", port), backlog=1024, reuse_port=True)))
            port = listeners[0].getsockname()[1]
        places = [Place(number=number, load=load) for number in range(WORKERS)]
        pids = [stack.enter_context(_child(partial(serve, listeners, place))) for place in places]
        yield Middle(port=port, pids=tuple(pids))


@contextmanager
def _child(serve: Callable[[], Awaitable[None]]) -> Iterator[int]:
    child = multiprocessing.get_context("fork").Process(target=lambda: uvloop.run(serve()))  # type: ignore[arg-type]
    child.start()
    try:
        assert child.pid is not None
        yield child.pid
    finally:
        child.kill()
        child.join()


@contextmanager
def mitmproxy(port: int, folder: Path, scheme: str) -> Iterator[Middle]:
    """Run mitmproxy before a port; bodies that are large are streamed, as they are by the enforcer."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        own: int = free.getsockname()[1]
    options = {
        "listen_host": "127.0.0.1",
        "listen_port": str(own),
        "confdir": str(folder / "mitmproxy"),
        "ssl_verify_upstream_trusted_ca": str(folder / "ca.pem"),
        "http2": "false",
        "keep_host_header": "true",
        "stream_large_bodies": "1m",
    }
    words = [word for name, value in options.items() for word in ("--set", f"{name}={value}")]
    with subprocess.Popen([MITMDUMP, "-q", "--mode", f"reverse:{scheme}://{NAME}:{port}", *words]) as child:
        try:
            _wait(own, child)
            yield Middle(port=own, pids=(child.pid,))
        finally:
            child.kill()


def _wait(port: int, child: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + READY_SECONDS
    while time.monotonic() < deadline:
        if child.poll() is not None:
            break
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
        except OSError:
            time.sleep(0.05)
        else:
            return
    raise SystemExit("mitmproxy does not listen")


@contextmanager
def middles(folder: Path, *, tls: bool, beside: bool) -> Iterator[dict[str, Middle]]:
    """Run a target and everything that stands before it, by name.

    Args:
        folder: for files.
        tls: whether both sides speak TLS.
        beside: whether mitmproxy is among them.
    """
    ours = make_authority("bench", datetime.now(UTC))
    (folder / "ca.pem").write_bytes(ours.certificate_pem)
    shown = Leaves(ours, lambda: datetime.now(UTC)).context(NAME, None) if tls else None
    with ExitStack() as stack:
        target = stack.enter_context(process(lambda listener: serve_target(listener, shown)))
        found = {
            DIRECT: target,
            RELAY: stack.enter_context(process(lambda listener: serve_relay(listener, target.port))),
            ENFORCER: stack.enter_context(
                workers(lambda some, place: serve_enforcer(some, worker_world(folder, target.port, ours, place=place)))
            ),
        }
        if beside:
            found[MITMPROXY] = stack.enter_context(mitmproxy(target.port, folder, "https" if tls else "http"))
        yield found


def processor_seconds(pids: Sequence[int]) -> float:
    """Give the processor time that some processes have taken."""
    stats = (Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split() for pid in pids)
    return sum(int(fields[11]) + int(fields[12]) for fields in stats) / os.sysconf("SC_CLK_TCK")
