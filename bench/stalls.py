"""How long one connection of a worker waits while others of it send the tiniest pieces of their protocols without end.

What lives here: a worker of the proxy in a process, its target, floods and a victim. What must not: limits (enforcer/proxy).

A stall is processor time that the worker used from one turn of its event loop to the next, so that what else the machine does
is not in it; the victim's longest answer, by the clock, has that too.

Run: PYTHONPATH=src:. python -P bench/stalls.py [SECONDS]
"""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import socket
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from multiprocessing.connection import Connection as Pipe
from pathlib import Path
from typing import Final, NoReturn

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import uvloop

from capd.enforcer.policy.action import Run
from capd.enforcer.policy.host_name import normal_host
from capd.enforcer.proxy.connection import Connection, Means, open_connection
from capd.enforcer.proxy.flow import Owner
from capd.enforcer.proxy.judge import Agent
from capd.enforcer.proxy.layer import Opened
from capd.enforcer.proxy.question import Destination, Kind, Question, Verdict
from capd.enforcer.proxy.shell import Shell
from capd.enforcer.proxy.world import World

SECONDS: Final = 4.0
FLOODS: Final = (1, 16)
"""Connections that send."""
BLOCK_BYTES: Final = 1 << 20
HEART_SECONDS: Final = 0.001
PACE_SECONDS: Final = 0.005
"""From one request of the victim to the next."""
HOST: Final = b"Host: 127.0.0.1:PORTS\r\n"
"""With the target's port in the place of the last word, which has as many letters."""
OK: Final = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
SWITCH: Final = (
    b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n"
)
_PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\0\0\0\4\0\0\0\0\0"


@dataclass(frozen=True, slots=True, kw_only=True)
class Flood:
    """What is sent: once, and then again and again."""

    name: str
    begin: bytes
    piece: bytes


FLOOD_KINDS: Final = (
    Flood(name="nothing", begin=b"", piece=b""),
    Flood(
        name="HTTP/1 chunks of a byte",
        begin=b"POST /x HTTP/1.1\r\n" + HOST + b"Transfer-Encoding: chunked\r\n\r\n",
        piece=b"1\r\nx\r\n",
    ),
    Flood(name="HTTP/1 requests in a row", begin=b"", piece=b"GET /x HTTP/1.1\r\n" + HOST + b"\r\n"),
    Flood(
        name="HTTP/2 frames of a byte",
        begin=_PREFACE + b"\0\0\x14\1\4\0\0\0\1\x83\x86\x84\x41\x0f127.0.0.1:PORTS",
        piece=b"\0\0\1\0\0\0\0\0\1x",
    ),
    Flood(
        name="WebSocket frames of a byte",
        begin=b"GET /ws HTTP/1.1\r\n" + HOST + b"Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
        b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
        piece=b"\x82\x81\1\2\3\4y",
    ),
)


class _Target(asyncio.Protocol):
    """Answers each read that has a request with one answer for each, and swallows the rest."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        if b"GET /ws" in data:
            self._transport.write(SWITCH)  # type: ignore[attr-defined] # a transport of a stream
        else:
            self._transport.write(OK * data.count(b"GET /"))  # type: ignore[attr-defined] # as above


class _Quiet:
    """A log that keeps nothing."""

    full = False

    def append(self, entry: object) -> None:
        """Pass over."""

    def leave_out(self) -> None:
        """Pass over."""

    def flush(self) -> None:
        """Pass over."""


def _judge(_agent: Agent, question: Question) -> Verdict:
    allowed = question.kind is Kind.REQUEST and question.protocol != "http2"
    return Verdict(number=question.number, allowed=allowed, rule="all", policy="1", upgrade=True, reason="denied_by_policy")


def _connection(destination: Destination, opened: Opened) -> Connection:
    means = Means(contexts=None, normalise=normal_host)  # type: ignore[arg-type] # nobody speaks TLS here
    return open_connection(destination, opened, means)


async def _target(pipe: Pipe) -> None:
    server = await asyncio.get_running_loop().create_server(_Target, "127.0.0.1", 0)
    pipe.send(server.sockets[0].getsockname()[1])
    await server.serve_forever()


async def _worker(pipe: Pipe, target: int) -> None:
    loop = asyncio.get_running_loop()
    runs = iter(range(1 << 30))
    world = World(
        judge=_judge,
        log=_Quiet(),
        owner=lambda peer, _: Owner(uid=1, cookie=next(runs), cgroup=peer[1]),
        agent=lambda owner: Agent(run=Run(id="victim" if owner.cookie == 0 else "flood"), principal=None),
        connection=_connection,
        session=lambda: "s",
        destination=lambda _: ("127.0.0.1", target),
    )
    longest, last = 0.0, time.thread_time()

    def beat() -> None:
        nonlocal longest, last
        now = time.thread_time()
        longest, last = max(longest, now - last), now
        loop.call_later(HEART_SECONDS, beat)

    def asked() -> None:
        nonlocal longest
        pipe.recv()
        pipe.send(longest)
        longest = 0.0

    with socket.create_server(("127.0.0.1", 0), backlog=256) as listener:
        async with asyncio.TaskGroup() as tasks:
            Shell(world, tasks).listen(listener)
            loop.add_reader(pipe.fileno(), asked)
            beat()
            pipe.send(listener.getsockname()[1])
            await asyncio.Event().wait()


def _apart(work: Callable[..., Awaitable[None]], *more: int) -> tuple[Pipe, int]:
    """Run in a process of its own; gives the way to it, and its port."""
    here, there = multiprocessing.Pipe()

    def be() -> None:
        uvloop.run(work(there, *more))  # type: ignore[arg-type] # an async function

    multiprocessing.get_context("fork").Process(target=be, daemon=True).start()
    return here, here.recv()


def _named(said: bytes, target: int) -> bytes:
    return said.replace(b"PORTS", b"%05d" % target)


def _send(port: int, flood: Flood, target: int) -> NoReturn:
    """Send without end."""
    piece, begin = _named(flood.piece, target), _named(flood.begin, target)
    block = piece * (BLOCK_BYTES // len(piece))
    while True:
        try:
            with socket.create_connection(("127.0.0.1", port)) as connection:
                connection.sendall(begin)
                if b"Upgrade" in begin:
                    connection.recv(4096)
                connection.setblocking(False)
                _send_all(connection, block)
        except OSError:
            time.sleep(0.01)


def _send_all(connection: socket.socket, block: bytes) -> None:
    while True:
        left = memoryview(block)
        while left:
            try:
                left = left[connection.send(left) :]
            except BlockingIOError:
                time.sleep(0.001)
            try:
                if not connection.recv(1 << 20):
                    return
            except BlockingIOError:
                pass


def _ask(victim: socket.socket, target: int, seconds: float) -> list[float]:
    took, until = [], time.monotonic() + seconds
    while time.monotonic() < until:
        began = time.monotonic()
        victim.sendall(_named(b"GET /x HTTP/1.1\r\n" + HOST + b"\r\n", target))
        said = b""
        while not said.endswith(b"\r\nok"):
            more = victim.recv(4096)
            if not more or b" 200 " not in said + more:
                raise SystemExit(f"the victim was told {said + more!r}")
            said += more
        took.append(time.monotonic() - began)
        time.sleep(PACE_SECONDS)
    return sorted(took)


def measure(seconds: float, kinds: tuple[Flood, ...] = FLOOD_KINDS, floods: tuple[int, ...] = FLOODS) -> Iterator[str]:
    """Give the lines for a person."""
    _, target = _apart(_target)
    for kind in kinds:
        for count in floods if kind.piece else (0,):
            worker, port = _apart(_worker, target)
            with socket.create_connection(("127.0.0.1", port)) as victim:
                _ask(victim, target, 0.2)
                senders = [
                    multiprocessing.get_context("fork").Process(target=_send, args=(port, kind, target), daemon=True)
                    for _ in range(count)
                ]
                for sender in senders:
                    sender.start()
                _ask(victim, target, 0.5)
                worker.send(0)
                worker.recv()
                took = _ask(victim, target, seconds)
                worker.send(0)
                stall = worker.recv()
                for sender in senders:
                    sender.kill()
            figures = (stall, took[-1], took[len(took) * 99 // 100], took[len(took) // 2])
            yield f"  {kind.name:28} {count:3}" + "".join(f"  {one * 1e3:9.1f}" for one in figures) + f"  {len(took)}"


def main() -> None:
    """Print a table."""
    print(f"load {os.getloadavg()[0]:.1f}")
    print("  flood                 connections  stall CPU ms  longest ms    99 % ms  median ms  answers")
    for line in measure(float(sys.argv[1]) if len(sys.argv) > 1 else SECONDS):
        print(line, flush=True)


if __name__ == "__main__":
    main()
