"""Where the enforcer's processor time goes for one statement of PostgreSQL: an exchange through more and more of a worker.

What lives here: the exchange, and what is timed. What must not: clients and servers in earnest (databases.py).

What is said is what `pgbench -S` says, each time with another key: as a simple Query, as Bind, Describe, Execute and Sync of a
prepared statement, and ten of these up to one Sync. As in request_stages.py the least of many short rounds is told, in
processor time, and the worker is the real one. A statement of a pipeline counts as one.

Run: PYTHONPATH=src:. python -P bench/statement_stages.py [ROUNDS]
"""

from __future__ import annotations

import asyncio
import gc
import random
import socket
import struct
import sys
import tempfile
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from bench.databases import ALLOW
from bench.middles import TARGET, process, worker_world
from bench.stages import AGENT, SESSIONS, Prepared, Turn, conversing, cpu_seconds, least, logging, verdict

from capd.decoders.message import NEED_DATA, Direction
from capd.decoders.registry import decoder_for
from capd.enforcer.proxy.commands import Ask, Command, Dial, Send
from capd.enforcer.proxy.connection import Connection
from capd.enforcer.proxy.events import Data, Decided, Dialled, Event, Side, Started
from capd.enforcer.proxy.layer import Opened
from capd.enforcer.proxy.question import Destination, Question
from capd.enforcer.proxy.shell import work
from capd.enforcer.proxy.world import World
from capd.enforcer.tls.authority import Authority, make_authority
from tests.enforcer.postgresql_model import (
    COLUMN,
    STARTUP,
    SYNC,
    Server,
    bind,
    describe,
    execute,
    message,
    parse,
    query,
    startup,
)

EXCHANGES: Final = 128
"""Of a round: few milliseconds, of which a busy machine leaves some undisturbed."""
ROUNDS: Final = 120
PORT: Final = 5432
PIPELINE: Final = 10
NAME: Final = "P_0"
SQL: Final = "SELECT abalance FROM pgbench_accounts WHERE aid = %s;"
ROW: Final = message("D", b"\0\1" + struct.pack(">I", 5) + b"12345") + message("C", b"SELECT 1\0")
READY: Final = message("Z", b"I")
ANSWER: Final = message("T", COLUMN) + ROW
BOUND: Final = message("2") + ANSWER
KINDS: Final = ("simple", "prepared", "pipelined")
ANSWERS: Final = {"simple": ANSWER + READY, "prepared": BOUND + READY, "pipelined": BOUND * PIPELINE + READY}
STATEMENTS: Final = {"simple": 1, "prepared": 1, "pipelined": PIPELINE}


def said(kind: str) -> bytes:
    """Give what a client says, with other keys each time."""
    if kind == "simple":
        return query(SQL % random.randrange(1, 500_000))
    words = (bind(NAME, value=str(random.randrange(1, 500_000))) for _ in range(STATEMENTS[kind]))
    return b"".join(word + describe() + execute() for word in words) + SYNC


@dataclass
class Talk:
    """Both peers of a session whose core is here, without sockets.

    Attributes:
        asked: the latest question.
    """

    world: World
    connection: Connection
    asked: Question | None = None
    server: Server = field(default_factory=Server)
    _events: deque[Event] = field(default_factory=lambda: deque([Started()]))

    def say(self, data: bytes) -> None:
        """Say something as the client, and have it answered."""
        self._events.append(Data(Side.CLIENT, data))
        while self._events:
            for command in self.connection.handle(self._events.popleft()):
                self._do(command)

    def _do(self, command: Command) -> None:
        if isinstance(command, Ask):
            self.asked = command.question
            self._events.append(Decided(verdict(self.world, command.question)))
        elif isinstance(command, Dial):
            self._events.append(Dialled())
        elif isinstance(command, Send) and command.side is Side.UPSTREAM and (answer := self.server.hears(command.data)):
            self._events.append(Data(Side.UPSTREAM, answer))


def opened(world: World) -> Talk:
    """Give a session in which a statement is prepared."""
    talk = Talk(world, world.connection(Destination(address=TARGET, port=PORT), Opened(session="s", run=AGENT.run.id or "")))
    talk.say(startup(STARTUP))
    talk.say(parse(SQL % "$1", NAME) + SYNC)
    for kind in KINDS:
        talk.say(said(kind))
    return talk


def decoding(kind: str) -> Callable[[], object]:
    """Only decode both directions, as the recorder does."""
    decoder = decoder_for("postgresql")
    assert decoder is not None
    asks, answer = [said(kind) for _ in range(EXCHANGES)], ANSWERS[kind]
    decoder.receive(Direction.REQUEST, startup(STARTUP))
    decoder.receive(Direction.RESPONSE, message("R", bytes(4)) + READY)

    def exchange() -> None:
        for one in asks:
            for direction, data in ((Direction.REQUEST, one), (Direction.RESPONSE, answer)):
                decoder.receive(direction, data)
                while decoder.next_event() is not NEED_DATA:
                    pass

    return exchange


def handling(kind: str, world: World) -> Callable[[], object]:
    """The core alone: what is said, asked and sent, with a verdict that is there."""
    talk = opened(world)
    assert talk.asked is not None
    allowed = verdict(world, talk.asked)
    asks, answer = [said(kind) for _ in range(EXCHANGES)], ANSWERS[kind]
    count = EXCHANGES * STATEMENTS[kind]
    verdicts = iter([Decided(replace(allowed, number=allowed.number + 1 + place)) for place in range(count)])

    def exchange() -> None:
        handle = talk.connection.handle
        for one in asks:
            commands = handle(Data(Side.CLIENT, one))
            while asks_now := sum(type(command) is Ask for command in commands):
                commands = [command for _ in range(asks_now) for command in handle(next(verdicts))]
            handle(Data(Side.UPSTREAM, answer))

    return exchange


def judging(world: World) -> Callable[[], object]:
    """The judge alone."""
    question = opened(world).asked
    assert question is not None

    def exchange() -> None:
        for _ in range(EXCHANGES):
            world.judge(AGENT, question)

    return exchange


def prepared(kind: str, world: World) -> Prepared:
    """Give sessions, and what is said in them in a round."""
    talks, answers = [opened(world) for _ in range(SESSIONS)], [ANSWERS[kind]] * SESSIONS
    words = [[said(kind) for _ in talks] for _ in range(EXCHANGES // SESSIONS)]
    turns = [Turn(asks=asks, decided=SESSIONS * STATEMENTS[kind], answers=answers) for asks in words]
    return [talk.connection for talk in talks], turns


def served(kind: str, folder: Path, ours: Authority, rounds: int, sessions: int) -> float:
    """Over sockets, in a process of its own; processor time of that, with what the kernel does for it."""
    found = []

    async def serve(listener: socket.socket) -> None:
        await work(worker_world(folder, port, ours, RULES), [listener], asyncio.Event(), lambda _: None)

    with ExitStack() as stack:
        target = stack.enter_context(socket.create_server((TARGET, 0)))
        port = target.getsockname()[1]
        middle = stack.enter_context(process(serve))
        pairs = [_connected(stack, middle.port, target) for _ in range(sessions)]
        for _ in range(rounds):
            began = cpu_seconds(middle.pids[0])
            for _ in range(EXCHANGES // sessions):
                _exchange(pairs, kind)
            found.append(cpu_seconds(middle.pids[0]) - began)
    return min(found) / (EXCHANGES // sessions * sessions) / STATEMENTS[kind] * 1e6


Pair = tuple[socket.socket, socket.socket]


def _connected(stack: ExitStack, port: int, target: socket.socket) -> Pair:
    client = stack.enter_context(socket.create_connection((TARGET, port)))
    client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    client.sendall(startup(STARTUP))
    accepted = stack.enter_context(target.accept()[0])
    accepted.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    server = Server()
    while server.asked == 0:
        accepted.sendall(server.hears(accepted.recv(65_536)))
    client.setblocking(True)
    _take(client, READY)
    client.sendall(parse(SQL % "$1", NAME) + SYNC)
    accepted.sendall(server.hears(accepted.recv(65_536)))
    _take(client, READY)
    return client, accepted


def _take(one: socket.socket, end: bytes) -> None:
    found = b""
    while not found.endswith(end):
        more = one.recv(65_536)
        assert more, found
        found += more


def _exchange(pairs: list[Pair], kind: str) -> None:
    words = [said(kind) for _ in pairs]
    for (client, _), word in zip(pairs, words, strict=True):
        client.sendall(word)
    for (_, accepted), word in zip(pairs, words, strict=True):
        _take(accepted, word[-8:])
        accepted.sendall(ANSWERS[kind])
    for client, _ in pairs:
        _take(client, READY)


OTHERS: Final = tuple(f"  - {{id: other-{number}, match: {{hosts: [other{number}.test]}}, then: allow}}" for number in range(9))
RULES: Final = (*OTHERS, ALLOW)


def main() -> None:
    """Print µs of processor time of a statement, by stage."""
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else ROUNDS
    kinds = sys.argv[2:] or list(KINDS)
    print(f"µs of processor time of a statement, the least of {rounds} rounds of {EXCHANGES}")
    print(f"  {'':40}", *(f"{kind:>10}" for kind in kinds))
    found: dict[str, list[float]] = {}
    for kind in kinds:
        with tempfile.TemporaryDirectory(prefix="capd-bench-") as name:
            folder, ours = Path(name), make_authority("bench", datetime.now(UTC))
            (folder / "ca.pem").write_bytes(ours.certificate_pem)
            for stage, cost in stages(kind, folder, ours, rounds):
                found.setdefault(stage, []).append(cost)
    for stage, costs in found.items():
        print(f"  {stage:40}", *(f"{cost:10.1f}" for cost in costs), flush=True)


def stages(kind: str, folder: Path, ours: Authority, rounds: int) -> Iterator[tuple[str, float]]:
    """Measure one kind."""
    world, statements = worker_world(folder, PORT, ours, RULES), EXCHANGES * STATEMENTS[kind]
    asked = opened(world).asked
    assert asked is not None
    gc.collect()
    yield "decoding as the recorder does", least(rounds, lambda: decoding(kind)) / statements
    yield "core", least(rounds, lambda: handling(kind, world)) / statements
    yield "judge", least(rounds, lambda: judging(world)) / EXCHANGES
    yield "log", least(rounds, lambda: logging(world, asked, EXCHANGES)) / EXCHANGES
    without = conversing(world, PORT, rounds, lambda: prepared(kind, world))
    yield "worker without sockets, core, judge, log", without / statements
    for sessions in (1, SESSIONS):
        yield f"served over sockets, {sessions} at once", served(kind, folder, ours, rounds, sessions)


if __name__ == "__main__":
    main()
