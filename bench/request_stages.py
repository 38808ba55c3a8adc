"""Where the enforcer's processor time goes for one request of HTTP/1.1: the same exchange through more and more of a worker.

What lives here: the exchange, and what is timed. What must not: clients and targets in earnest (enforcer.py).

A round is short and the least of many is told, in processor time, so that a machine which is busy elsewhere gives nearly the
same figures. The worker is the real one: its judge, a policy of ten rules, its log on disk (middles.py). What is served comes
over sockets, on several connections that take turns; of it, what is not counted in the lines above is the kernel and uvloop.

Run: PYTHONPATH=src:. python -P bench/request_stages.py [ROUNDS]
"""

from __future__ import annotations

import socket
import ssl
import sys
import tempfile
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from itertools import count, product
from pathlib import Path
from typing import Final

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from bench.middles import ANSWER, NAME, RUN, TARGET, process, serve_enforcer, worker_world
from bench.stages import AGENT, SESSIONS, Prepared, Turn, conversing, cpu_seconds, least, logging, verdict

from capd.decoders.http1 import Http1Decoder
from capd.decoders.message import NEED_DATA, Direction
from capd.enforcer.proxy.commands import Ask, Dial, Send
from capd.enforcer.proxy.connection import Connection
from capd.enforcer.proxy.events import Data, Decided, Dialled, Event, Side, Started
from capd.enforcer.proxy.layer import Opened
from capd.enforcer.proxy.question import Destination, Question
from capd.enforcer.proxy.world import World
from capd.enforcer.tls.authority import Authority, make_authority
from capd.enforcer.tls.contexts import Leaves, Upstreams
from capd.enforcer.tls.endpoint import Endpoint

EXCHANGES: Final = 512
"""Of a round: some 50 ms, of which a busy machine leaves some undisturbed."""
ROUNDS: Final = 30
PORT: Final = 8080
HTTP1: Final = "http/1.1"


def request(port: int, place: int = 0) -> bytes:
    """Give what the agent says; of a place that is not 0 it is another each time, in its path and in a field."""
    more = b"X-Request-Id: %032x\r\n" % place if place else b""
    return (
        b"GET /v1/things/%d?page=3 HTTP/1.1\r\nHost: %b:%d\r\nUser-Agent: bench/1\r\nAccept: */*\r\n%b"
        b"Authorization: Bearer 0123456789abcdef\r\n\r\n" % (17 + place, NAME.encode(), port, more)
    )


def answer(place: int = 0) -> bytes:
    """Give what the target says, likewise."""
    return ANSWER.replace(b"\r\n", b"\r\nX-Request-Id: %032x\r\n" % place, 1) if place else ANSWER


_PLACES: Final = count(1)


@dataclass(frozen=True, kw_only=True)
class Setting:
    """What a measurement needs.

    Attributes:
        folder: has the trust of both sides.
        ours: signs for both.
        tls: whether both sides speak it.
        varied: whether each request and each answer differ from those before.
    """

    folder: Path
    ours: Authority
    tls: bool
    varied: bool

    def place(self) -> int:
        """Give what makes the next request another one, or 0."""
        return next(_PLACES) if self.varied else 0

    def shown(self) -> ssl.SSLContext:
        """Give what the target shows."""
        return Leaves(self.ours, lambda: datetime.now(UTC)).context(NAME, HTTP1)

    def trusted(self) -> ssl.SSLContext:
        """Give what the agent trusts."""
        return Upstreams(ca_file=self.folder / "ca.pem").context([HTTP1], None)


@dataclass
class Talk:
    """Both peers of a connection whose core is here, without sockets.

    Attributes:
        asked: the latest question.
    """

    setting: Setting
    world: World
    connection: Connection
    asked: Question | None = None
    _events: deque[Event] = field(default_factory=deque)
    _peers: dict[Side, Endpoint] = field(default_factory=dict)

    def open(self) -> None:
        """Bring the connection to where an exchange is done."""
        self._events.append(Started())
        if self.setting.tls:
            self._peers[Side.CLIENT] = Endpoint(self.setting.trusted(), server_side=False, server_name=NAME)
            self._peers[Side.UPSTREAM] = Endpoint(self.setting.shown(), server_side=True)
            self._events.append(Data(Side.CLIENT, self._peers[Side.CLIENT].take()))
            self._go()
        self._events.append(Data(Side.CLIENT, self.says(Side.CLIENT)))
        self._go()
        self._events.append(Data(Side.UPSTREAM, self.says(Side.UPSTREAM)))
        self._go()

    def says(self, side: Side) -> bytes:
        """Give what a peer says next, as it is on its socket."""
        place = self.setting.place()
        said = request(PORT, place) if side is Side.CLIENT else answer(place)
        if not self._peers:
            return said
        self._peers[side].send(said)
        return self._peers[side].take()

    def _go(self) -> None:
        while self._events:
            for command in self.connection.handle(self._events.popleft()):
                if isinstance(command, Ask):
                    self.asked = command.question
                    self._events.append(Decided(verdict(self.world, command.question)))
                elif isinstance(command, Dial):
                    self._events.append(Dialled())
                elif isinstance(command, Send) and self._peers:
                    peer = self._peers[command.side]
                    peer.receive(command.data)
                    if due := peer.take():
                        self._events.append(Data(command.side, due))


def opened(setting: Setting, world: World) -> Talk:
    """Give a connection that is in use."""
    talk = Talk(setting, world, world.connection(Destination(address=TARGET, port=PORT), Opened(session="s", run=RUN)))
    talk.open()
    return talk


def decoding(setting: Setting) -> Callable[[], object]:
    """Only decode both directions."""
    decoder = Http1Decoder()
    places = [setting.place() for _ in range(EXCHANGES)]
    words = [(request(PORT, place), answer(place)) for place in places]

    def work() -> None:
        for pair in words:
            for direction in Direction:
                decoder.receive(direction, pair[direction])
                while decoder.next_event() is not NEED_DATA:
                    pass

    return work


def handling(setting: Setting, world: World) -> Callable[[], object]:
    """The core alone: what is decoded, asked and sent, with a verdict that is there."""
    talk = opened(setting, world)
    assert talk.asked is not None
    allowed = verdict(world, talk.asked)
    asks, answers = said(talk)
    verdicts = [replace(allowed, number=allowed.number + 1 + place) for place in range(EXCHANGES)]

    def work() -> None:
        handle = talk.connection.handle
        for place in range(EXCHANGES):
            handle(Data(Side.CLIENT, asks[place]))
            handle(Decided(verdicts[place]))
            handle(Data(Side.UPSTREAM, answers[place]))

    return work


def said(talk: Talk, exchanges: int = EXCHANGES) -> tuple[list[bytes], list[bytes]]:
    """Give what both peers say in so many exchanges."""
    return [talk.says(Side.CLIENT) for _ in range(exchanges)], [talk.says(Side.UPSTREAM) for _ in range(exchanges)]


def judging(setting: Setting, world: World) -> Callable[[], object]:
    """The judge alone."""
    question = opened(setting, world).asked
    assert question is not None
    assert question.request is not None
    requests = [replace(question.request, path=f"/v1/things/{setting.place()}") for _ in range(EXCHANGES)]
    questions = [replace(question, request=one) for one in requests]

    def work() -> None:
        for one in questions:
            world.judge(AGENT, one)

    return work


def prepared(setting: Setting, world: World) -> Prepared:
    """Give connections, and what is said on them in a round."""
    talks = [opened(setting, world) for _ in range(SESSIONS)]
    asks, answers = zip(*(said(talk, EXCHANGES // SESSIONS) for talk in talks), strict=True)
    turns = zip(zip(*asks, strict=True), zip(*answers, strict=True), strict=True)
    return [talk.connection for talk in talks], [Turn(asks=ask, decided=SESSIONS, answers=answer) for ask, answer in turns]


def served(setting: Setting, rounds: int) -> float:
    """Over sockets, in a process of its own; processor time of that, with what the kernel does for it."""
    found = []
    with ExitStack() as stack:
        target = stack.enter_context(socket.create_server((TARGET, 0)))
        port = target.getsockname()[1]
        middle = stack.enter_context(
            process(lambda one: serve_enforcer([one], worker_world(setting.folder, port, setting.ours)))
        )
        pairs = [_connected(setting, stack, middle.port, target) for _ in range(SESSIONS)]
        for _ in range(rounds):
            began = cpu_seconds(middle.pids[0])
            for _ in range(EXCHANGES // SESSIONS):
                _exchange(pairs, port, [setting.place() for _ in pairs])
            found.append(cpu_seconds(middle.pids[0]) - began)
    return min(found) / EXCHANGES * 1e6


Pair = tuple[socket.socket, socket.socket]


def _connected(setting: Setting, stack: ExitStack, port: int, target: socket.socket) -> Pair:
    client = stack.enter_context(socket.create_connection((TARGET, port)))
    client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    if setting.tls:
        client = stack.enter_context(setting.trusted().wrap_socket(client, server_hostname=NAME))
    client.sendall(request(target.getsockname()[1]))
    accepted = stack.enter_context(target.accept()[0])
    accepted.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    if setting.tls:
        accepted = stack.enter_context(setting.shown().wrap_socket(accepted, server_side=True))
    _answer(accepted, 0)
    _take(client, 0)
    return client, accepted


def _exchange(pairs: Sequence[Pair], port: int, places: Sequence[int]) -> None:
    for (client, _), place in zip(pairs, places, strict=True):
        client.sendall(request(port, place))
    for (_, accepted), place in zip(pairs, places, strict=True):
        _answer(accepted, place)
    for (client, _), place in zip(pairs, places, strict=True):
        _take(client, place)


def _answer(accepted: socket.socket, place: int) -> None:
    assert accepted.recv(65_536).endswith(b"\r\n\r\n")
    accepted.sendall(answer(place))


def _take(client: socket.socket, place: int) -> None:
    wanted = len(answer(place))
    while wanted > 0:
        wanted -= len(client.recv(65_536))


def main() -> None:
    """Print µs of processor time of a request, by stage."""
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else ROUNDS
    print(f"µs of processor time of a request, the least of {rounds} rounds of {EXCHANGES}")
    print("                                            clear, each another, TLS, each another")
    found: dict[str, list[float]] = {}
    for tls, varied in product((False, True), repeat=2):
        with tempfile.TemporaryDirectory(prefix="capd-bench-") as name:
            setting = Setting(folder=Path(name), ours=make_authority("bench", datetime.now(UTC)), tls=tls, varied=varied)
            (setting.folder / "ca.pem").write_bytes(setting.ours.certificate_pem)
            for stage, cost in stages(setting, rounds):
                found.setdefault(stage, []).append(cost)
    for stage, costs in found.items():
        print(f"  {stage:40}", *(f"{cost:8.1f}" for cost in costs), flush=True)


def stages(setting: Setting, rounds: int) -> Iterator[tuple[str, float]]:
    """Measure one kind."""
    world = worker_world(setting.folder, PORT, setting.ours)
    asked = opened(setting, world).asked
    assert asked is not None
    yield "decoding alone", least(rounds, lambda: decoding(setting)) / EXCHANGES
    yield "core, with decoding", least(rounds, lambda: handling(setting, world)) / EXCHANGES
    yield "judge", least(rounds, lambda: judging(setting, world)) / EXCHANGES
    yield "log", least(rounds, lambda: logging(world, asked, EXCHANGES)) / EXCHANGES
    without = conversing(world, PORT, rounds, lambda: prepared(setting, world))
    yield "worker without sockets, with all above", without / EXCHANGES
    yield "served over sockets, with all above", served(setting, rounds)


if __name__ == "__main__":
    main()
