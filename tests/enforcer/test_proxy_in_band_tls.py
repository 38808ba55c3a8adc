"""TLS that a protocol asks for after some bytes in clear: a protocol of two words around the wrapper that all such share.

What lives here: handshakes, names, what is dialled and when. What must not: PostgreSQL, MySQL.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime

import pytest

from capd.enforcer.policy.host_name import normal_host
from capd.enforcer.proxy.commands import Ask, Close, Command, Dial, Refused, Secure, Send
from capd.enforcer.proxy.connection import Connection, UndecidedError
from capd.enforcer.proxy.events import Data, Decided, DialFailed, Dialled, Ended, Event, Secured, Side
from capd.enforcer.proxy.in_band_tls import InBandTls
from capd.enforcer.proxy.layer import Layer, Surroundings
from capd.enforcer.proxy.question import Destination, Kind, Question
from capd.enforcer.tls.authority import Authority, make_authority
from capd.enforcer.tls.contexts import Leaves, TlsContexts, Upstreams
from capd.enforcer.tls.endpoint import Endpoint
from capd.enforcer.tls.errors import TlsFailure
from tests.enforcer.rehearsal import Rehearsal, deny

HERE = Destination(address="192.0.2.1", port=5432)
NOW = datetime.now(UTC)
ASK, YES = b"tls?", b"yes!"


class Shy(Layer):
    """Asks for TLS on the target's side when the agent did; then relays."""

    def __init__(self, around: Surroundings) -> None:
        self.around, self.number = around, 0
        self.events: list[Event] = []
        self.name: str | None = None
        self.secured: set[Side] = set()

    def handle(self, event: Event) -> list[Command]:  # noqa: PLR0911 - a table of what follows from what
        """Take an event."""
        self.events.append(event)
        match event:
            case Data(side=Side.CLIENT) if Side.CLIENT not in self.secured and event.data.startswith(ASK):
                return [Send(Side.CLIENT, YES), Secure(Side.CLIENT, data=event.data[len(ASK) :])]
            case Data(side=Side.UPSTREAM, data=b"yes!") if Side.UPSTREAM not in self.secured:
                return [Secure(Side.UPSTREAM, self.number, self.name)]
            case Secured():
                return self._secured(event)
            case Decided():
                return [Dial(self.number)] if event.verdict.allowed else [Send(Side.CLIENT, b"denied"), Close()]
            case Dialled():
                return [Send(Side.UPSTREAM, ASK, self.number)]
            case Data():
                return [Send(event.side.other, event.data, self.number)]
            case DialFailed():
                return [Send(Side.CLIENT, b"unverified" if event.refused else b"failed"), Close()]
            case Ended():
                return [Refused(0, "it ended" if event.clean else "it was cut", ""), Close()]
        return []

    def _secured(self, event: Secured) -> list[Command]:
        self.secured.add(event.side)
        if event.side is Side.UPSTREAM:
            return [Send(Side.CLIENT, b"ready")]
        self.name, self.number = event.server_name, next(self.around.numbers)
        question = Question(number=self.number, kind=Kind.OPAQUE, destination=HERE, protocol="shy", server_name=self.name)
        return [Ask(question)]


@dataclass
class Talk:
    """An agent and a target of the protocol, with real TLS.

    Attributes:
        granted: what the target answers to the request for TLS.
    """

    run: Rehearsal
    client: Endpoint
    target: Endpoint
    inside: Shy
    granted: bytes = YES
    taken: dict[Side, int] = field(default_factory=lambda: dict.fromkeys(Side, 0))
    heard: dict[Side, bytearray] = field(default_factory=lambda: {side: bytearray() for side in Side})
    clear: set[Side] = field(default_factory=lambda: set(Side))

    def go(self) -> Talk:
        """Carry bytes until nobody has anything to say."""
        moved = True
        while moved:
            moved = False
            for side, endpoint in ((Side.CLIENT, self.client), (Side.UPSTREAM, self.target)):
                if side not in self.clear and self.run.closed is None and (said := endpoint.take()):
                    self.run.tell(Data(side, said))
                    moved = True
                if new := bytes(self.run.sent[side][self.taken[side] :]):
                    self.taken[side] += len(new)
                    moved = True
                    self._hear(side, endpoint, new)
        return self

    def _hear(self, side: Side, endpoint: Endpoint, new: bytes) -> None:
        if side in self.clear:
            self.clear.discard(side)
            expected = YES if side is Side.CLIENT else ASK
            assert new.startswith(expected)
            new = new[len(expected) :]
            if side is Side.UPSTREAM:
                self.run.tell(Data(side, self.granted))
        try:
            self.heard[side] += endpoint.receive(new) if new else b""
        except TlsFailure:
            assert self.run.closed is not None or side is Side.UPSTREAM


@dataclass
class World:
    """An authority for the proxy, another for targets."""

    ours: Authority
    contexts: TlsContexts
    targets: Leaves


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    """Make one."""
    ours, theirs = make_authority("ours", NOW), make_authority("theirs", NOW)
    file = tmp_path_factory.mktemp("tls") / "theirs.pem"
    file.write_bytes(theirs.certificate_pem)
    contexts = TlsContexts(leaves=Leaves(ours, lambda: NOW), upstreams=Upstreams(ca_file=file))
    return World(ours, contexts, Leaves(theirs, lambda: NOW))


def begin(world: World, *, name: str = "db.test", shown: str | None = None, **more: object) -> Talk:
    """Have an agent that trusts us begin, in clear."""
    import ssl  # noqa: PLC0415 - for the one context below

    made: list[Shy] = []

    def inside(around: Surroundings) -> Shy:
        made.append(Shy(around))
        return made[0]

    def core() -> Connection:
        return Connection(InBandTls(Surroundings(destination=HERE), world.contexts, inside, normal_host))

    run = Rehearsal(core=core, destination=HERE, **more)  # type: ignore[arg-type] # of its own fields
    trust = ssl.create_default_context(cadata=world.ours.certificate_pem.decode())
    client = Endpoint(trust, server_side=False, server_name=name)
    return Talk(run, client, Endpoint(world.targets.context(shown or name, None), server_side=True), made[0])


def pieces(data: bytes) -> Iterator[bytes]:
    """Give single bytes."""
    return (data[at : at + 1] for at in range(len(data)))


@pytest.mark.parametrize("name", ["db.test", "192.0.2.1"])
@pytest.mark.parametrize("early", [True, False])
def test_both_sides_have_tls(world: World, name: str, early: bool) -> None:
    """The agent's name is what the target proves, and what both say crosses; a ClientHello may come with what asks for TLS."""
    talk = begin(world, name=name)
    talk.run.says(ASK + (talk.client.take() if early else b""))
    talk.go()
    assert b"ready" == bytes(talk.heard[Side.CLIENT])
    assert (None if name[0] == "1" else name) == talk.inside.name
    talk.client.send(b"hello")
    talk.go()
    talk.target.send(b"welcome")
    talk.go()
    assert (b"hello", b"readywelcome") == (bytes(talk.heard[Side.UPSTREAM]), bytes(talk.heard[Side.CLIENT]))
    assert {talk.inside.number} == set(talk.run.decisions)
    assert b"hello" not in talk.run.upstream


def test_a_hello_in_single_bytes(world: World) -> None:
    """However a ClientHello is cut, the handshake is the same."""
    talk = begin(world)
    talk.run.says(ASK)
    talk.clear.discard(Side.CLIENT)
    talk.taken[Side.CLIENT] = len(YES)
    for piece in pieces(talk.client.take()):
        talk.run.says(piece)
    assert b"ready" == bytes(talk.go().heard[Side.CLIENT])


def test_a_denied_agent_reads_why_in_tls(world: World) -> None:
    """The refusal is told in TLS; nothing was dialled."""
    talk = begin(world, judge=deny)
    talk.run.says(ASK)
    assert (b"denied", []) == (bytes(talk.go().heard[Side.CLIENT]), talk.run.dials)


def test_a_target_that_proves_another_name(world: World) -> None:
    """Its certificate is for another: the layer hears that it is not believed, and nothing in clear goes to it."""
    talk = begin(world, shown="other.test")
    talk.run.says(ASK)
    talk.go()
    assert (b"unverified", b"") == (bytes(talk.heard[Side.CLIENT]), bytes(talk.heard[Side.UPSTREAM]))


@pytest.mark.parametrize("said", [b"GET / HTTP/1.1\r\n\r\n", b"\x16\x03\x01\x00\x04\x02\x00\x00\x00"])
def test_no_client_hello(world: World, said: bytes) -> None:
    """What comes in the place of a ClientHello never reaches the layer inside."""
    talk = begin(world)
    talk.run.says(ASK).says(said)
    assert talk.run.closed is not None
    assert [Data(Side.CLIENT, ASK)] == [event for event in talk.inside.events if isinstance(event, Data)]
    assert [] == talk.run.dials


def test_a_client_that_leaves_in_its_handshake(world: World) -> None:
    """It is written down, and the connection is over."""
    talk = begin(world)
    talk.run.says(ASK).ends(Side.CLIENT)
    assert ["the client ended the TLS handshake: it was closed"] == [one.reason for one in talk.run.refused]
    assert Close() == talk.run.closed


def test_nobody_there_to_begin_tls(world: World) -> None:
    """A layer that wants TLS where nobody carries it out is cut: what it sends would go in clear."""
    core = Connection(Shy(Surroundings(destination=HERE)))
    with pytest.raises(UndecidedError):
        core.handle(Data(Side.CLIENT, ASK))
    assert world.ours is not None
