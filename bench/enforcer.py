"""What the enforcer costs: HTTP keep-alive through it and through a bare relay, in clear and in TLS, in one run.

What lives here: a target, a relay, an enforcer without redirect, and clients, each a process of its own. What must not: the
kernel's part: what nftables adds is a fraction of a packet's way.

The enforcer has its real policy of ten rules, its decision log on disk, its certificates; it is told where connections go
instead of asking. Each client waits for an answer before it asks again, so the median is what an agent feels.

Run: PYTHONPATH=src:. python -P bench/enforcer.py
"""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import socket
import ssl
import statistics
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import uvloop

from capd.enforcer.decision_log import DecisionLog
from capd.enforcer.policy.action import Principal, Run
from capd.enforcer.policy.host_name import normal_host
from capd.enforcer.policy.policy import read_policy
from capd.enforcer.proxy.connection import open_connection
from capd.enforcer.proxy.flow import Owner
from capd.enforcer.proxy.judge import Agent, judge
from capd.enforcer.proxy.shell import work
from capd.enforcer.proxy.world import World
from capd.enforcer.tls.authority import Authority, make_authority
from capd.enforcer.tls.contexts import Leaves, TlsContexts, Upstreams

BODY: Final = bytes(1024)
ANSWER: Final = b"HTTP/1.1 200 OK\r\ncontent-length: 1024\r\ncontent-type: text/plain\r\n\r\n" + BODY
NAME: Final = "localhost"
CONNECTIONS: Final = (1, 16)
SECONDS: Final = 3.0
HEADER_FIELDS: Final = "user-agent: bench/1\r\naccept: */*\r\nauthorization: Bearer 0123456789abcdef\r\n"

Serve = Callable[[socket.socket], Awaitable[None]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """One measurement.

    Attributes:
        requests: per second, of all connections together.
        median_ms, p99_ms: of one request.
        cpu_us: processor time of who is in the middle, for one request; what a busy machine changes least.
    """

    requests: float
    median_ms: float
    p99_ms: float
    cpu_us: float


class Target(asyncio.Protocol):
    """Answers every request with a kilobyte."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take the transport."""
        self._transport: asyncio.WriteTransport = transport  # type: ignore[assignment] # of a server it can write
        self._held = b""

    def data_received(self, data: bytes) -> None:
        """Answer."""
        self._held += data
        while (end := self._held.find(b"\r\n\r\n")) >= 0:
            self._held = self._held[end + 4 :]
            self._transport.write(ANSWER)


class Relay(asyncio.Protocol):
    """Passes bytes to the target and back, and nothing else: the least that anything in the middle costs."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._other: asyncio.WriteTransport | None = None
        self._held = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Dial."""
        self.transport: asyncio.WriteTransport = transport  # type: ignore[assignment] # as above
        self._dialling = asyncio.get_running_loop().create_task(self._dial(), name="dial")

    async def _dial(self) -> None:
        loop = asyncio.get_running_loop()
        self._other, _ = await loop.create_connection(lambda: Back(self), "127.0.0.1", self._port)
        if self._held:
            self._other.write(self._held)

    def data_received(self, data: bytes) -> None:
        """Pass on."""
        if self._other is None:
            self._held += data
        else:
            self._other.write(data)

    def connection_lost(self, exc: Exception | None) -> None:
        """Close the other side."""
        del exc
        if self._other is not None:
            self._other.close()


class Back(asyncio.Protocol):
    """The relay's other side."""

    def __init__(self, front: Relay) -> None:
        self._front = front

    def data_received(self, data: bytes) -> None:
        """Pass back."""
        self._front.transport.write(data)


def authority(folder: Path) -> Authority:
    """Make one, and have clients and enforcer find it."""
    made = make_authority("bench", datetime.now(UTC))
    (folder / "ca.pem").write_bytes(made.certificate_pem)
    return made


async def target(listener: socket.socket, context: ssl.SSLContext | None) -> None:
    """Serve."""
    server = await asyncio.get_running_loop().create_server(Target, sock=listener, ssl=context)
    await server.serve_forever()


async def relay(listener: socket.socket, port: int) -> None:
    """Relay to a port."""
    server = await asyncio.get_running_loop().create_server(lambda: Relay(port), sock=listener)
    await server.serve_forever()


async def enforce(listener: socket.socket, port: int, folder: Path, ours: Authority) -> None:
    """Be an enforcer of one process."""
    rules = [f"  - {{id: other-{number}, match: {{hosts: [other{number}.test]}}, then: allow}}" for number in range(9)]
    rules.append(f"  - {{id: api, match: {{protocols: [http], hosts: [{NAME}], methods: [GET]}}, then: allow}}")
    policy = read_policy({"bench.yaml": ("rules:\n" + "\n".join(rules)).encode()})
    agent = Agent(run=Run(name="bench", id="r"), principal=Principal(name="bench"))
    contexts = TlsContexts(leaves=Leaves(ours, lambda: datetime.now(UTC)), upstreams=Upstreams(ca_file=folder / "ca.pem"))
    world = World(
        judge=lambda who, question: judge(policy, who, question, proven=True),
        log=DecisionLog(folder, f"w{port}"),
        owner=lambda *_: Owner(uid=1, cookie=2, cgroup=3),
        agent=lambda _: agent,
        connection=lambda destination, session: open_connection(destination, session, contexts, normal_host),
        session=lambda: "s",
        destination=lambda _: ("127.0.0.1", port),
    )
    await work(world, [listener], asyncio.Event(), lambda _: None)


@contextmanager
def process(serve: Serve) -> Iterator[tuple[int, int]]:
    """Run a server in a process of its own; gives its port and its pid."""
    with socket.create_server(("127.0.0.1", 0), backlog=128) as listener:
        port: int = listener.getsockname()[1]
        child = multiprocessing.get_context("fork").Process(target=lambda: uvloop.run(serve(listener)))  # type: ignore[arg-type]
        child.start()
        try:
            assert child.pid is not None
            yield port, child.pid
        finally:
            child.kill()
            child.join()


async def ask(port: int, named: int, seconds: float, context: ssl.SSLContext | None, times: list[float]) -> None:
    """Ask on one connection for some seconds."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context, server_hostname=NAME if context else None)
    request = f"GET /v1/things/17?page=3 HTTP/1.1\r\nhost: {NAME}:{named}\r\n{HEADER_FIELDS}\r\n".encode()
    until = time.perf_counter() + seconds
    while (begin := time.perf_counter()) < until:
        writer.write(request)
        head = await reader.readuntil(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 200"), head
        await reader.readexactly(len(BODY))
        times.append(time.perf_counter() - begin)
    writer.close()
    with suppress(OSError):  # the other side may be the faster one
        await writer.wait_closed()


def processor_seconds(pid: int) -> float:
    """Give the processor time that a process has taken."""
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def measure(middle: tuple[int, int], named: int, connections: int, context: ssl.SSLContext | None, seconds: float) -> Result:
    """Ask on so many connections at once."""
    port, pid = middle
    taken = 0.0
    times: list[float] = []

    async def all_of_them() -> None:
        await asyncio.gather(*(ask(port, named, 0.2, context, []) for _ in range(connections)))
        nonlocal taken
        taken = processor_seconds(pid)
        await asyncio.gather(*(ask(port, named, seconds, context, times) for _ in range(connections)))
        taken = processor_seconds(pid) - taken

    uvloop.run(all_of_them())
    times.sort()
    return Result(
        requests=len(times) / seconds,
        median_ms=statistics.median(times) * 1e3,
        p99_ms=times[int(len(times) * 0.99)] * 1e3,
        cpu_us=taken / len(times) * 1e6,
    )


def compare(seconds: float = SECONDS) -> dict[str, Result]:
    """Measure everything; the keys say what."""
    found: dict[str, Result] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        ours = authority(folder)
        leaf = Leaves(ours, lambda: datetime.now(UTC)).context(NAME, None)
        trusting = ssl.create_default_context(cafile=str(folder / "ca.pem"))
        for kind, shown, context in (("clear", None, None), ("TLS", leaf, trusting)):
            with (
                process(lambda listener, shown=shown: target(listener, shown)) as (there, _),  # type: ignore[misc] # a default argument
                process(lambda listener: relay(listener, there)) as relayed,
                process(lambda listener: enforce(listener, there, folder, ours)) as enforced,
            ):
                for connections in CONNECTIONS:
                    for who, middle in (("relay", relayed), ("enforcer", enforced)):
                        found[f"{kind} {connections} {who}"] = measure(middle, there, connections, context, seconds)
    return found


def table(found: dict[str, Result]) -> Iterator[str]:
    """Give the lines for a person."""
    yield "  kind  middle   connections  requests/s  median ms  p99 ms  CPU us  added ms"
    for kind in ("clear", "TLS"):
        for connections in CONNECTIONS:
            bare = found[f"{kind} {connections} relay"]
            for who in ("relay", "enforcer"):
                one = found[f"{kind} {connections} {who}"]
                added = "" if who == "relay" else f"{one.median_ms - bare.median_ms:10.3f}"
                yield (
                    f"  {kind:5} {who:9}{connections:11d} {one.requests:11,.0f} {one.median_ms:10.3f}"
                    f" {one.p99_ms:7.2f} {one.cpu_us:7.0f}{added}"
                )


def main() -> None:
    """Print a table."""
    seconds = float(sys.argv[1]) if len(sys.argv) > 1 else SECONDS
    print(f"enforcer, HTTP/1.1 keep-alive, answers of 1 KiB, {seconds:g} s each (budget: 0.3 ms added at the median)")
    for line in table(compare(seconds)):
        print(line)


if __name__ == "__main__":
    main()
