"""What goes on in one piece, however much it is: bodies that nobody looks into, and what is relayed unread.

What lives here: what layers say of their next bytes, that it is true, and how large pieces get. What must not: turns and slices
in values (test_proxy_turns.py).
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

import pytest
import uvloop

from capd.decoders.http1.side import UNBOUNDED as TO_THE_END
from capd.enforcer.policy.host_name import normal_host
from capd.enforcer.proxy.commands import Command, Send
from capd.enforcer.proxy.connection import Connection, Means, open_connection
from capd.enforcer.proxy.end import READ_BYTES, End
from capd.enforcer.proxy.events import Data, Event, Side
from capd.enforcer.proxy.kept import MOST_BYTES, PLAIN_BYTES_MAX, Kept
from capd.enforcer.proxy.layer import UNBOUNDED, Opened
from capd.enforcer.proxy.question import Destination, Question, Verdict
from capd.enforcer.proxy.tls_sides import CIPHERTEXT_BYTES_MAX
from tests.enforcer.rehearsal import NoTls, Rehearsal, allow, deny
from tests.enforcer.sockets import HANDSHAKE
from tests.enforcer.test_obligations_proxy import obliged
from tests.enforcer.test_proxy_http1 import CHUNKED, GET
from tests.enforcer.test_proxy_shell import REQUEST, scene
from tests.enforcer.test_proxy_tls import HERE, World, pass_through, talk, world
from tests.enforcer.test_proxy_turns import SWITCH

__all__ = ["world"]

POST = b"POST /x HTTP/1.1\r\nHost: api.test\r\nContent-Length: 1000\r\n\r\n"
ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n"
ANSWER_CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
ANSWER_IN_JSON = ANSWER[:-2] + b"Content-Type: application/json\r\n\r\n"
ANSWER_TO_THE_END = b"HTTP/1.1 200 OK\r\n\r\n"


def sees_body(question: Question) -> Verdict:
    """Want to see the body."""
    return Verdict(number=question.number, allowed=True, body_bytes=4_096, rule="all", policy="1")


@dataclass(frozen=True, kw_only=True)
class Case:
    """A conversation so far, and what is plain of either side then."""

    name: str
    said: bytes
    heard: bytes = b""
    client: int = 0
    upstream: int = 0
    masked: bool = False


CASES = (
    Case(name="nothing yet", said=b""),
    Case(name="half a head", said=GET[:20]),
    Case(name="a head", said=GET),
    Case(name="a body's rest", said=POST + bytes(400), client=600),
    Case(name="a body's end", said=POST + bytes(1000)),
    Case(name="a chunk's size", said=CHUNKED + b"40"),
    Case(name="a chunk's rest", said=CHUNKED + b"40\r\nabc", client=61),
    Case(name="a chunk's line end", said=CHUNKED + b"3\r\nabc\r"),
    Case(name="between chunks", said=CHUNKED + b"3\r\nabc\r\n"),
    Case(name="trailers", said=CHUNKED + b"0\r\nX: y"),
    Case(name="a next request's body", said=GET + POST + bytes(1)),
    Case(name="an answer's head", said=GET, heard=ANSWER[:-2]),
    Case(name="an answer's rest", said=GET, heard=ANSWER + bytes(1), upstream=999),
    Case(name="an answer's chunk", said=GET, heard=ANSWER_CHUNKED + b"FF\r\n", upstream=255),
    Case(name="between an answer's chunks", said=GET, heard=ANSWER_CHUNKED + b"1\r\nx\r\n"),
    Case(name="an answer to the end", said=GET, heard=ANSWER_TO_THE_END, upstream=TO_THE_END),
    Case(name="both ways", said=POST, heard=ANSWER, client=1000, upstream=1000),
    Case(
        name="an answer that is masked",
        said=POST,
        heard=ANSWER_IN_JSON,
        client=1000,
        masked=True,
    ),
)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_only_bodies_that_nobody_looks_into_are_plain(case: Case) -> None:
    """What is said to be plain is the rest of a body or of a chunk, once its request is on its way, and nothing else."""
    run = Rehearsal(judge=obliged() if case.masked else allow).says(case.said)
    if case.heard:
        run.answers(case.heard)
    assert (case.client, case.upstream) == (run.plain(Side.CLIENT), run.plain(Side.UPSTREAM))


@pytest.mark.parametrize("judge", [None, deny, sees_body], ids=["not judged yet", "denied", "looked into"])
def test_a_body_that_does_not_go_on_is_not_plain(judge: object) -> None:
    """A body that waits for a verdict, is refused or is held to be looked into is looked at in slices as everything is."""
    run = Rehearsal(judge=judge).says(POST + bytes(10))  # type: ignore[arg-type] # one of those above
    assert 0 == run.plain(Side.CLIENT)


@dataclass
class Counting(Rehearsal):
    """Counts what is sent."""

    sends: int = 0

    def _done(self, command: Command) -> list[Event]:
        self.sends += isinstance(command, Send)
        return super()._done(command)


@pytest.mark.parametrize("case", [case for case in CASES if case.client or case.upstream], ids=lambda case: case.name)
def test_what_is_plain_is_one_piece(case: Case) -> None:
    """Whatever the plain bytes are, one piece of them is one thing to do, with the same bytes in it."""
    for side, plain in ((Side.CLIENT, case.client), (Side.UPSTREAM, case.upstream)):
        if plain:
            run = Counting(judge=obliged() if case.masked else allow).says(case.said)
            if case.heard:
                run.answers(case.heard)
            assert isinstance(run, Counting)
            piece = (b"GET / HTTP/1.1\r\n0\r\n\r\n" * PLAIN_BYTES_MAX)[: min(plain, PLAIN_BYTES_MAX)]
            before, had = run.sends, len(run.sent[side.other])
            run.tell(Data(side, piece))
            assert piece in bytes(run.sent[side.other][had:])
            assert (before + 1, None) == (run.sends, run.closed)


def test_large_pieces_end_where_tiny_ones_begin() -> None:
    """Behind each large chunk the tiniest ones come in slices as short as if there had been no large one."""
    large, tiny = b"%x\r\n%b\r\n" % (2 * PLAIN_BYTES_MAX, bytes(2 * PLAIN_BYTES_MAX)), b"1\r\nx\r\n"
    run, kept, sizes = Rehearsal().says(CHUNKED), Kept(), []
    kept.put((large + tiny * (MOST_BYTES // 2)) * 3)
    while kept:
        piece = kept.take(run.plain(Side.CLIENT))
        kept.took(len(piece), 0.0)
        run.says(piece)
        sizes.append(len(piece))
        assert piece.count(tiny) <= MOST_BYTES // len(tiny)
    assert PLAIN_BYTES_MAX == max(sizes)
    assert 3 * (MOST_BYTES // 2) == run.upstream.count(tiny)


def test_a_tunnel_is_not_plain() -> None:
    """A body that an upgrade leaves behind says nothing of the frames that come in its place."""
    asked = HANDSHAKE.replace(b"\r\n\r\n", b"\r\nContent-Length: 1000\r\n\r\n")
    run = Rehearsal().says(asked).answers(SWITCH)
    assert (0, 0) == (run.plain(Side.CLIENT), run.plain(Side.UPSTREAM))


def test_what_is_relayed_unread_is_plain() -> None:
    """What a client says at once, and what its server says when it was seen not to be one whose statements are judged."""
    run = Rehearsal().says(b"\x00\xff" * 100)
    assert (UNBOUNDED, 0) == (run.plain(Side.CLIENT), run.plain(Side.UPSTREAM))
    run.answers(b"\xff" * 100)
    assert UNBOUNDED == run.plain(Side.UPSTREAM)


def test_in_tls_no_more_is_plain_than_its_shortest_records_allow(world: World) -> None:
    """Of ciphertext as much as may be the body's, up to what is quick however it was cut into records."""
    found = talk(world).says(GET).answers(ANSWER + bytes(1))
    assert (0, 999) == (found.run.plain(Side.CLIENT), found.run.plain(Side.UPSTREAM))
    found = talk(world).says(GET).answers(ANSWER_TO_THE_END)
    assert CIPHERTEXT_BYTES_MAX == found.run.plain(Side.UPSTREAM)
    unread = talk(world, Rehearsal(judge=pass_through, contexts=world.contexts, destination=HERE), trusts=world.theirs)
    assert UNBOUNDED == unread.run.plain(Side.CLIENT)


@pytest.mark.parametrize("way", ["download", "upload"])
def test_large_bodies_cross_in_large_pieces(way: str) -> None:
    """Behind the first reads of a large body more is read at once, and what arrives is what was sent."""
    size = 16 << 20
    body = bytes(range(251)) * (size // 251 + 1)
    large = body[:size]
    came: list[int] = []

    def answers(data: bytes) -> bytes:
        if way == "upload":
            return b""
        return b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size + large if data.startswith(b"GET") else b""

    def watched(destination: Destination, opened: Opened) -> Connection:
        core = open_connection(destination, opened, Means(contexts=NoTls(), normalise=normal_host))
        handle = core.handle

        def watch(event: Event) -> list[Command]:
            if isinstance(event, Data):
                came.append(len(event.data))
            return handle(event)

        core.handle = watch  # type: ignore[method-assign] # to see what it is told
        return core

    async def story() -> None:
        async with scene(answers=answers, connection=watched) as made:
            reader, writer = await made.connect()
            if way == "download":
                writer.write(REQUEST % made.target_port)
                await reader.readuntil(b"\r\n\r\n")
                assert large == await asyncio.wait_for(reader.readexactly(size), 60)
            else:
                writer.write(b"POST /x HTTP/1.1\r\nHost: 127.0.0.1:%d\r\nContent-Length: %d\r\n\r\n" % (made.target_port, size))
                writer.write(large)
                async with asyncio.timeout(60):
                    while not made.target.endswith(large[-4096:]) or len(made.target) < size:  # noqa: ASYNC110 - bytes
                        await asyncio.sleep(0.01)
                assert bytes(made.target).endswith(large)
            writer.close()

    uvloop.run(story())
    assert MOST_BYTES < max(came) <= PLAIN_BYTES_MAX


def test_as_much_is_read_as_goes_on() -> None:
    """Behind a read that filled its room, and only there, more is read at once if it goes on in one piece."""
    told: list[int] = []

    class Listening:
        """What an end tells."""

        goes = 0

        def current(self, _end: End) -> bool:
            """It counts."""
            return True

        def goes_on(self, _side: Side) -> int:
            """As the test says."""
            return self.goes

        def received(self, _side: Side, data: bytes) -> None:
            """Keep how much."""
            told.append(len(data))

    session = Listening()
    end = End(session, Side.UPSTREAM)  # type: ignore[arg-type] # all that it needs here
    sizes = []
    for goes, came in ((UNBOUNDED, 10), (UNBOUNDED, READ_BYTES), (UNBOUNDED, READ_BYTES), (0, READ_BYTES), (READ_BYTES + 9, 1)):
        session.goes = goes
        sizes.append(len(end.get_buffer(-1)))
        end.buffer_updated(came)
    assert [READ_BYTES, READ_BYTES, PLAIN_BYTES_MAX, READ_BYTES, READ_BYTES + 9] == sizes
    assert [10, READ_BYTES, READ_BYTES, READ_BYTES, 1] == told
