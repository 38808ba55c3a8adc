"""TLS in the middle, without sockets: two real endpoints of OpenSSL around the proxy's core.

What lives here: an agent's and a target's side, and what each sees. What must not: certificates in themselves.
"""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from contextlib import nullcontext, suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from capd.enforcer.proxy.events import Data, Dialled, Ended, Side, Timer
from capd.enforcer.proxy.question import Destination, Kind, Question, Verdict
from capd.enforcer.tls.authority import Authority, make_authority
from capd.enforcer.tls.contexts import Leaves, TlsContexts, Upstreams
from capd.enforcer.tls.endpoint import Endpoint
from capd.enforcer.tls.errors import TlsFailure, TrustStoreError
from capd.enforcer.tls.target_protocols import TargetProtocols
from tests.decoders.test_tls import hello, record, with_extension
from tests.enforcer.rehearsal import Rehearsal, allow, deny
from tests.enforcer.streams import Seen, Streams, connection, head

HERE = Destination(address="192.0.2.1", port=443)
GET = b"GET /x HTTP/1.1\r\nHost: api.test\r\n\r\n"
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
NOW = datetime.now(UTC)


@dataclass
class World:
    """An authority for the proxy, another for targets."""

    ours: Authority
    theirs: Authority
    contexts: TlsContexts
    targets: Leaves

    def client(self, *, alpn: list[str] | None = None, trusts: Authority | None = None) -> ssl.SSLContext:
        """Give an agent's context."""
        context = ssl.create_default_context(cadata=(trusts or self.ours).certificate_pem.decode())
        if alpn:
            context.set_alpn_protocols(alpn)
        return context


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    """Make one."""
    ours, theirs = make_authority("ours", NOW), make_authority("theirs", NOW)
    file = tmp_path_factory.mktemp("tls") / "theirs.pem"
    file.write_bytes(theirs.certificate_pem)
    contexts = TlsContexts(leaves=Leaves(ours, lambda: NOW), upstreams=Upstreams(ca_file=file))
    return World(ours=ours, theirs=theirs, contexts=contexts, targets=Leaves(theirs, lambda: NOW))


@dataclass
class Talk:
    """A conversation: what agent and target heard of each other, in clear."""

    world: World
    client: Endpoint
    run: Rehearsal
    target: Endpoint | None = None
    heard: dict[Side, bytearray] = field(default_factory=lambda: {side: bytearray() for side in Side})
    taken: dict[Side, int] = field(default_factory=lambda: dict.fromkeys(Side, 0))

    def go(self) -> Talk:
        """Carry bytes until nobody has anything to say."""
        moved = True
        while moved:
            moved = False
            for side, endpoint in ((Side.CLIENT, self.client), (Side.UPSTREAM, self.target)):
                if endpoint is None:
                    continue
                if (said := endpoint.take()) and self.run.closed is None:
                    self.run.tell(Data(side, said))
                    moved = True
                if new := bytes(self.run.sent[side][self.taken[side] :]):
                    self.taken[side] += len(new)
                    with nullcontext() if side is Side.CLIENT else suppress(TlsFailure):
                        self.heard[side] += endpoint.receive(new)
                    moved = True
        return self

    def says(self, data: bytes) -> Talk:
        """Have the agent say something."""
        self.client.send(data)
        return self.go()

    def answers(self, data: bytes) -> Talk:
        """Have the target say something."""
        assert self.target is not None
        self.target.send(data)
        return self.go()


def talk(
    world: World,
    run: Rehearsal | None = None,
    *,
    alpn: list[str] | None = None,
    name: str = "api.test",
    shown: str | None = None,
    target_alpn: str | None = None,
    trusts: Authority | None = None,
) -> Talk:
    """Begin one."""
    client = Endpoint(world.client(alpn=alpn, trusts=trusts), server_side=False, server_name=name)
    run = run or Rehearsal(contexts=world.contexts, destination=HERE)
    target = Endpoint(world.targets.context(shown or name, target_alpn), server_side=True)
    return Talk(world, client, run, target).go()


def test_requests_cross_and_are_judged(world: World) -> None:
    """The agent sees our leaf, the target is dialled after the decision, verified, and gets the request written anew."""
    run = Rehearsal(judge=None, contexts=world.contexts, destination=HERE)
    found = talk(world, run, alpn=["http/1.1"], target_alpn="http/1.1")
    assert (Kind.PASSTHROUGH, "api.test", False) == (run.asked[0].kind, run.asked[0].server_name, run.asked[0].inspected)
    run.decide(allow)
    found.go()
    assert ("http/1.1", "TLSv1.3") == (found.client.application_protocol, found.client.version)
    found.says(GET)
    assert ([], b"") == (run.dials, run.upstream)
    question = run.asked[0]
    assert (Kind.REQUEST, "api.test", True) == (question.kind, question.server_name, question.inspected)
    run.decide(allow)
    found.go()
    assert bytes(found.heard[Side.UPSTREAM]) == b"GET /x HTTP/1.1\r\nhost: api.test\r\n\r\n"
    assert "http/1.1" == found.target.application_protocol if found.target else False
    found.answers(OK)
    assert found.heard[Side.CLIENT].endswith(b"ok")
    assert {2} == set(run.decisions)


def test_denials_are_told_in_the_agents_protocol(world: World) -> None:
    """A denied request gets its 403 inside TLS; the target was never dialled."""
    found = talk(world, Rehearsal(judge=deny, contexts=world.contexts, destination=HERE)).says(GET)
    assert found.heard[Side.CLIENT].startswith(b"HTTP/1.1 403 Forbidden")
    assert ([], b"") == (found.run.dials, found.run.upstream)


@pytest.mark.parametrize("shown", ["other.test", "*.example"])
def test_targets_that_prove_another_name_are_refused(world: World, shown: str) -> None:
    """A target without a certificate for the name gets no byte of the request, and the agent the reason."""
    found = talk(world, shown=shown).says(GET)
    assert found.heard[Side.CLIENT].startswith(b"HTTP/1.1 502 Bad Gateway")
    assert b"target_not_verified" in found.heard[Side.CLIENT]
    assert b"ostname mismatch" in found.heard[Side.CLIENT]
    assert b"" == bytes(found.heard[Side.UPSTREAM])


def test_targets_of_unknown_authorities_are_refused(world: World) -> None:
    """A certificate that nobody vouches for is as good as none."""
    other = World(world.ours, world.ours, world.contexts, world.contexts.leaves)
    found = talk(other).says(GET)
    assert b"target_not_verified" in found.heard[Side.CLIENT]
    assert b"unable to get local issuer certificate" in found.heard[Side.CLIENT]


@pytest.mark.parametrize("host", [b"other.test", b"api.test:8443", b"192.0.2.1"])
def test_fronting_is_misdirected(world: World, host: bytes) -> None:
    """A request for another host, or port, than TLS was opened for is 421."""
    found = talk(world).says(GET.replace(b"api.test", host))
    assert found.heard[Side.CLIENT].startswith(b"HTTP/1.1 421 ")
    assert [] == found.run.dials


def test_agents_without_our_authority_are_told_of(world: World) -> None:
    """A client that does not trust us ends the handshake, which is written down; nothing was dialled."""
    found: Talk | None = None
    client = Endpoint(world.client(trusts=world.theirs), server_side=False, server_name="api.test")
    found = Talk(world, client, Rehearsal(contexts=world.contexts, destination=HERE))
    with pytest.raises(TlsFailure):
        found.go()
    found.go()
    assert ["trust"] == [word for refused in found.run.refused for word in refused.reason.split() if word == "trust"]
    assert [] == found.run.dials


def test_what_cannot_be_judged_is_not_agreed_on(world: World) -> None:
    """A client that speaks HTTP/3 alone gets an alert that says so."""
    with pytest.raises(TlsFailure, match="no application protocol"):
        talk(world, alpn=["h3"])


class Http2Client:
    """A client of HTTP/2 in a talk."""

    def __init__(self, found: Talk) -> None:
        self.found, self.read = found, 0
        self.h2, self.seen = connection(client=True), Streams(found.run, connection(client=True), connection(client=False))
        self.h2.initiate_connection()

    def asks(self, path: str, body: bytes = b"", *more: tuple[str, str]) -> int:
        """Ask something; give the stream's number."""
        number = self.h2.get_next_available_stream_id()
        fields = [(name, "https" if name == ":scheme" else value) for name, value in head("POST", path, *more)]
        self.h2.send_headers(number, fields, end_stream=not body)
        if body:
            self.h2.send_data(number, body, end_stream=True)
        self.hears()
        return number

    def hears(self) -> None:
        """Carry what both say."""
        while True:
            self.found.says(said) if (said := self.h2.data_to_send()) else self.found.go()
            new = bytes(self.found.heard[Side.CLIENT][self.read :])
            if not new:
                return
            self.read += len(new)
            self.seen._hear(Side.CLIENT, self.h2, new)

    def answer(self, number: int) -> Seen:
        """Give what came of a stream."""
        self.hears()
        return self.seen.at_client(number)


def test_http2_is_spoken_where_both_speak_it(world: World) -> None:
    """A client that offers HTTP/2 gets it at once; the target is offered both after the first decision, and chooses it."""
    run = Rehearsal(judge=None, contexts=world.contexts, destination=HERE)
    found = talk(world, run, alpn=["h2", "http/1.1"], target_alpn="h2")
    run.decide(allow)
    found.go()
    client = Http2Client(found)
    number = client.asks("/x", b"body")
    assert ("h2", []) == (found.client.application_protocol, run.dials)
    assert (True, "api.test") == (run.asked[0].inspected, run.asked[0].server_name)
    run.decide(allow)
    client.hears()
    target = connection(client=False)
    target.initiate_connection()
    server = Streams(run, connection(client=True), target)
    server._hear(Side.UPSTREAM, target, bytes(found.heard[Side.UPSTREAM]))
    assert ((":scheme", "https"), b"body") == (server.at_target(1).fields[0][1], bytes(server.at_target(1).body))
    target.send_headers(1, [(":status", "204")], end_stream=True)
    found.answers(target.data_to_send())
    assert "204" == client.answer(number)[":status"]
    assert {2} == set(run.decisions)


@pytest.mark.parametrize("target_alpn", ["http/1.1", None])
def test_a_target_without_http2_is_translated_and_remembered(world: World, target_alpn: str | None) -> None:
    """What is asked is translated, one after the other; the next connection to the target is given HTTP/1.1."""
    contexts = replace(world.contexts, protocols=TargetProtocols())
    run = Rehearsal(judge=None, contexts=contexts, destination=HERE)
    found = talk(world, run, alpn=["h2", "http/1.1"], target_alpn=target_alpn)
    run.decide(allow)
    found.go()
    client = Http2Client(found)
    first, second = client.asks("/1", b"one", ("cookie", "a=1")), client.asks("/2")
    run.judge = allow
    run.decide(allow)
    run.decide(allow)
    client.hears()
    written = b"POST /1 HTTP/1.1\r\nhost: api.test\r\ncookie: a=1\r\ntransfer-encoding: chunked\r\n\r\n3\r\none\r\n0\r\n\r\n"
    assert written == bytes(found.heard[Side.UPSTREAM])
    assert {} == client.seen.goaway, "there are clients that give up what they wait for"
    found.answers(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nX-A: 1\r\nConnection: x-b\r\nX-B: 2\r\n\r\nok")
    seen = client.answer(first)
    assert ([(":status", "200"), ("x-a", "1"), ("content-length", "2")], b"ok", True) == (
        seen.fields[0],
        bytes(seen.body),
        seen.ended,
    )
    assert bytes(found.heard[Side.UPSTREAM]).endswith(b"POST /2 HTTP/1.1\r\nhost: api.test\r\n\r\n")
    found.answers(OK)
    assert b"ok" == bytes(client.answer(second).body)
    assert ({}, set()) == (client.seen.goaway, run.finished)
    again = talk(world, Rehearsal(contexts=contexts, destination=HERE), alpn=["h2", "http/1.1"], target_alpn=target_alpn)
    assert "http/1.1" == again.client.application_protocol
    only = talk(world, Rehearsal(contexts=contexts, destination=HERE), alpn=["h2"], target_alpn=target_alpn)
    assert "h2" == only.client.application_protocol


def test_what_a_person_was_asked_about_is_not_repeated(world: World) -> None:
    """A stream that a person was asked about is kept when others are sent elsewhere, and goes when its turn comes."""
    contexts = replace(world.contexts, protocols=TargetProtocols())
    run = Rehearsal(judge=None, contexts=contexts, destination=HERE)
    found = talk(world, run, alpn=["h2"], target_alpn="http/1.1")
    run.decide(allow)
    found.go()
    client = Http2Client(found)
    quick, held, other = client.asks("/quick"), client.asks("/held"), client.asks("/other")
    run.decide(allow)
    client.hears()
    run.decide(lambda question: replace(allow(question), approval={"id": "1"}))
    run.decide(allow)
    run.silent(Timer.TURN)
    client.hears()
    assert ((held, 0), None) == (client.seen.goaway[Side.CLIENT], client.answer(other)[":status"])
    assert 1 == bytes(found.heard[Side.UPSTREAM]).count(b"POST ")
    found.answers(OK).answers(OK)
    assert (b"ok", b"ok") == (bytes(client.answer(quick).body), bytes(client.answer(held).body))
    assert bytes(found.heard[Side.UPSTREAM]).endswith(b"POST /held HTTP/1.1\r\nhost: api.test\r\n\r\n")


def test_grpc_needs_http2(world: World) -> None:
    """A call of gRPC to a target without HTTP/2 is answered in its own words, and not sent."""
    contexts = replace(world.contexts, protocols=TargetProtocols())
    found = talk(world, Rehearsal(contexts=contexts, destination=HERE), alpn=["h2"], target_alpn="http/1.1")
    client = Http2Client(found)
    seen = client.answer(client.asks("/s/m", b"x", ("content-type", "application/grpc")))
    assert ("14", b"") == (seen["grpc-status"], bytes(found.heard[Side.UPSTREAM]))


def test_what_was_agreed_on_is_spoken(world: World) -> None:
    """A client that agreed on HTTP/2 and says something else is cut, and nothing is asked about it."""
    found = talk(world, alpn=["h2"], target_alpn="h2").says(GET)
    assert ({Side.CLIENT}, []) == (found.run.finished, found.run.dials)
    assert ["HTTP/2"] == [word for refused in found.run.refused for word in refused.reason.split() if word == "HTTP/2"][:1]


@pytest.mark.parametrize("fields", [[("host", "other.test")], [(":authority", "other.test")]])
def test_a_connection_is_for_the_name_that_it_was_opened_for(world: World, fields: list[tuple[str, str]]) -> None:
    """A request for another name than TLS asked for is misdirected, whatever the connection could be used for elsewhere."""
    found = talk(world, alpn=["h2"], target_alpn="h2")
    client = Http2Client(found)
    number = client.h2.get_next_available_stream_id()
    named = fields[0][0] == ":authority"
    base = [(":method", "GET"), (":scheme", "https"), (":path", "/")]
    client.h2.config.validate_outbound_headers = False
    client.h2.send_headers(number, [*base, *(fields if named else [(":authority", "api.test"), *fields])], end_stream=True)
    assert ("421", []) == (client.answer(number)[":status"], found.run.dials)


def test_other_protocols_must_be_the_targets_too(world: World) -> None:
    """What was agreed on with the agent is offered to the target, and if that does not agree nothing is sent to it."""
    found = talk(world, alpn=["odd/1"], target_alpn="odd/1").says(b"odd words\n" * 500)
    assert bytes(found.heard[Side.UPSTREAM]) == b"odd words\n" * 500
    assert (Kind.OPAQUE, True) == (found.run.questions[-1].kind, found.run.questions[-1].inspected)
    refusing = talk(world, alpn=["odd/1"]).says(b"odd words\n" * 500)
    assert b"" == bytes(refusing.heard[Side.UPSTREAM])


def pass_through(question: Question) -> Verdict:
    """Let TLS pass unread."""
    return Verdict(number=question.number, allowed=question.kind is Kind.PASSTHROUGH)


def test_passthrough_is_the_targets_own_tls(world: World) -> None:
    """Where a rule says so, the agent speaks with the target's certificate, and nothing is judged in it."""
    run = Rehearsal(judge=pass_through, contexts=world.contexts, destination=HERE)
    found = talk(world, run, trusts=world.theirs).says(GET)
    assert GET == bytes(found.heard[Side.UPSTREAM])
    assert 1 == len(run.questions)


def test_encrypted_hellos_are_never_passed_through(world: World) -> None:
    """A ClientHello that may mean another name is not asked about: it is opened, and rejected in its own protocol's way."""
    run = Rehearsal(judge=pass_through, contexts=world.contexts, destination=HERE)
    run.says(with_extension(hello("public.test"), 0xFE0D, b"\0\1\2\3"))
    assert [] == run.questions
    assert b"" == run.upstream


def test_half_closed_tls(world: World) -> None:
    """An agent may end its direction inside TLS and still hear the answer, and so may a target; a cut is no end."""
    found = talk(world, alpn=["odd/1"], target_alpn="odd/1").says(b"odd\n" * 2000)
    assert found.target is not None
    found.client.close()
    found.go()
    assert (True, False) == (found.target.ended, found.client.ended)
    found.answers(b"late")
    assert found.heard[Side.CLIENT].endswith(b"late")
    found.target.close()
    found.go()
    assert found.client.ended
    assert found.run.closed is not None
    assert not found.run.closed.abort
    cut = talk(world, alpn=["odd/1"], target_alpn="odd/1").says(b"odd\n" * 2000)
    cut.run.ends(Side.UPSTREAM)
    assert cut.run.closed is not None
    assert cut.run.closed.abort


def test_no_answer_is_taken_for_whole_after_a_cut(world: World) -> None:
    """A body that ends with its connection is cut for the agent when the target's TLS was cut."""
    found = talk(world).says(GET).answers(b"HTTP/1.1 200 OK\r\n\r\npart")
    assert found.heard[Side.CLIENT].endswith(b"part")
    found.run.tell(Ended(Side.UPSTREAM))
    assert found.run.closed is not None
    assert found.run.closed.abort
    found.go()
    assert not found.client.ended


@pytest.mark.parametrize(
    "data",
    [
        b"\x16\x03\x01\x00\x06\x01\x00\x00\x02\x03\x03",
        hello("api.test").replace(b"api.test", b"api test"),
        hello("x127.1").replace(b"x127.1", b"0127.1"),
    ],
)
def test_hellos_that_are_none_get_an_alert(world: World, data: bytes) -> None:
    """What begins like TLS and is none, or asks for no name, ends with an alert; nothing is asked, nothing dialled."""
    run = Rehearsal(contexts=world.contexts, destination=HERE).says(data).ends(Side.CLIENT)
    assert (b"", []) == (run.upstream, run.questions)
    assert run.closed is not None


def test_a_hello_in_crumbs_is_bounded(world: World) -> None:
    """A ClientHello that is cut into thousands of records is refused."""
    crumbs = b"".join(record(bytes([byte])) for byte in b"\x01\x00\xff\x00" + bytes(2_000))
    run = Rehearsal(contexts=world.contexts, destination=HERE).says(crumbs)
    assert (b"", []) == (run.upstream, run.questions)
    assert run.closed is not None
    assert "records" in run.refused[0].reason


def test_sessions_do_not_outlive_their_decision(world: World) -> None:
    """No ticket is given out, so that no later connection begins in the middle."""
    found = talk(world)
    assert not found.client._tls.session or not found.client._tls.session.has_ticket


def test_early_dialling_in_silence_is_opaque_only(world: World) -> None:
    """A client that waits inside TLS for its server is dialled for under the question for what is not decoded."""
    run = Rehearsal(contexts=world.contexts, destination=HERE, reachable=None)
    found = talk(world, run)
    run.silent()
    assert [Kind.PASSTHROUGH, Kind.OPAQUE] == [question.kind for question in run.questions]
    run.tell(Dialled())
    found.go().answers(b"220 hello\r\n")
    assert found.heard[Side.CLIENT] == b"220 hello\r\n"


def test_a_host_that_trusts_nobody_is_told_of(tmp_path: Path) -> None:
    """A file that cannot be used says so when the enforcer starts, not when an agent connects."""
    (tmp_path / "none.pem").write_bytes(b"")
    with pytest.raises(TrustStoreError):
        Upstreams(ca_file=tmp_path / "none.pem")
    with pytest.raises(TrustStoreError):
        Upstreams(ca_file=tmp_path / "missing.pem")


def test_every_prefix_of_a_handshake_is_bounded(world: World) -> None:
    """However the bytes of a handshake are cut, the result is the same."""
    run = Rehearsal(contexts=world.contexts, destination=HERE)
    client = Endpoint(world.client(), server_side=False, server_name="api.test")
    for byte in _bytes(client.take()):
        run.says(byte)
    client.receive(run.client)
    assert client.established


def _bytes(data: bytes) -> Iterator[bytes]:
    return (data[at : at + 1] for at in range(len(data)))
