"""What stands between a client and a target in the bench of the enforcer: nothing, a relay, the enforcer, mitmproxy.

What lives here: the target and each of these, a process of its own. What must not: clients, figures.

The enforcer has its real policy of ten rules, its decision log on disk, its certificates; it is told where connections go
instead of asking the kernel. mitmproxy is a reverse proxy for the same target; both speak HTTP/1.1 only.
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
from collections.abc import Awaitable, Callable, Iterator
from contextlib import ExitStack, contextmanager
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

NAME: Final = "localhost"
ANSWER_BYTES: Final = 1024
PIECE_BYTES: Final = 1 << 18
READY_SECONDS: Final = 20.0
RULES: Final = 10
DIRECT, RELAY, ENFORCER, MITMPROXY = "direct", "relay", "enforcer", "mitmproxy"
MITMDUMP: Final = Path(sys.prefix) / "mitmproxy" / "bin" / "mitmdump"
"""Where packaging/mitmproxy puts it; in an environment of its own, since its pins are others."""

Serve = Callable[[socket.socket], Awaitable[None]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Middle:
    """A process to ask.

    Attributes:
        port: where.
        pid: whose processor time counts.
    """

    port: int
    pid: int


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


async def serve_enforcer(listener: socket.socket, port: int, folder: Path, ours: Authority) -> None:
    """Be an enforcer of one process."""
    rules = [f"  - {{id: other-{number}, match: {{hosts: [other{number}.test]}}, then: allow}}" for number in range(RULES - 1)]
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
def process(serve: Serve) -> Iterator[Middle]:
    """Run a server in a process of its own."""
    with socket.create_server(("127.0.0.1", 0), backlog=1024) as listener:
        port: int = listener.getsockname()[1]
        child = multiprocessing.get_context("fork").Process(target=lambda: uvloop.run(serve(listener)))  # type: ignore[arg-type]
        child.start()
        try:
            assert child.pid is not None
            yield Middle(port=port, pid=child.pid)
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
            yield Middle(port=own, pid=child.pid)
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
            ENFORCER: stack.enter_context(process(lambda listener: serve_enforcer(listener, target.port, folder, ours))),
        }
        if beside:
            found[MITMPROXY] = stack.enter_context(mitmproxy(target.port, folder, "https" if tls else "http"))
        yield found


def processor_seconds(pid: int) -> float:
    """Give the processor time that a process has taken."""
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
