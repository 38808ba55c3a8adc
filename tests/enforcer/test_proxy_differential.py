"""Whatever agents do, in whatever order: what a target reads is what was judged and allowed, and each of it once.

What lives here: random stories of a client, a judge and a target; h2 and h11 read as servers do. What must not: single cases.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import count
from typing import Final

import h2.connection
import h2.events
import h11
import hpack
from hypothesis import given, settings
from hypothesis import strategies as st

from capd.enforcer.proxy.commands import Command, Dial
from capd.enforcer.proxy.connection import Connection
from capd.enforcer.proxy.events import Decided, DialFailed, Dialled, Event, Revoked, Side, Timer
from capd.enforcer.proxy.http1.layer import Http1Layer
from capd.enforcer.proxy.http2 import Http2Layer
from capd.enforcer.proxy.layer import Surroundings
from capd.enforcer.proxy.question import Destination, Question, Verdict
from tests.enforcer.rehearsal import Rehearsal, allow, deny
from tests.enforcer.streams import connection, goaway

HERE: Final = Destination(address="192.0.2.1", port=443)
MARK: Final = "x-stream"
"""A field by which a request is known again, whatever became of the rest."""
OWN: Final = {"host", "content-length", "transfer-encoding", "te", "expect"}
"""Fields that capd writes by itself."""
ANSWERS: Final = (
    b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
    b"HTTP/1.1 204 No Content\r\n\r\n",
    b"HTTP/1.1 100 Continue\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
    b"HTTP/1.1 404 No\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
    b"HTTP/1.1 200 OK\r\n\r\nuntil the end",
    b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nfirst",
    b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: upgrade\r\n\r\n",
)


def frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    """Write a frame."""
    return len(payload).to_bytes(3, "big") + bytes([kind, flags]) + stream.to_bytes(4, "big") + payload


@dataclass
class Sent:
    """What a client said in one stream."""

    body: bytes = b""
    ended: bool = False
    gone: bool = False


@dataclass
class Keeping(Rehearsal):
    """Keeps apart what each connection to a target was sent; `cuts`: where each begins."""

    cuts: list[int] = field(default_factory=list)

    def _done(self, command: Command) -> list[Event]:
        if isinstance(command, Dial):
            self.cuts.append(len(self.sent[Side.UPSTREAM]))
        return super()._done(command)

    @property
    def connections(self) -> list[bytes]:
        """Give what each was sent."""
        assert self.cuts or not self.upstream
        return [self.upstream[begin:end] for begin, end in zip(self.cuts, [*self.cuts[1:], None], strict=False)]


AROUND: Final = Surroundings(destination=HERE, session="s", server_name="api.test", inspected=True)


def core() -> Connection:
    """Give the layer as it is inside of TLS, for HTTP/2."""
    return Connection(Http2Layer(replace(AROUND, numbers=count(1)), dialled=False))


def old_core() -> Connection:
    """The same for HTTP/1.1."""
    return Connection(Http1Layer(replace(AROUND, numbers=count(1)), dialled=False))


@dataclass
class Story:
    """One connection."""

    chosen: str
    run: Keeping = field(init=False)
    packer: hpack.Encoder = field(default_factory=hpack.Encoder)
    sent: dict[int, Sent] = field(default_factory=dict)
    allowed: dict[int, Question] = field(default_factory=dict)
    target: h2.connection.H2Connection | None = None
    heard: int = 0
    asked: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.run = Keeping(judge=None, reachable=None, core=core, chosen=self.chosen)
        self.run.says(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + frame(4, 0, 0, b""))

    # -- the client ------------------------------------------------------------------------------------------------------------

    def head(self, method: str, target: str, more: tuple[tuple[str, str], ...], body: bytes | None, length: int | None) -> None:
        """Open a stream; `body`: its begin, None: it ends with its head."""
        number = 2 * len(self.sent) + 1
        fields = [(":method", method), (":scheme", "https"), (":authority", "api.test"), (":path", target)]
        fields += [(MARK, str(number)), *more]
        if length is not None:
            fields.append(("content-length", str(length)))
        self.sent[number] = Sent(ended=body is None)
        block = self.packer.encode(fields)
        self._say(frame(1, 4 | (body is None), number, block))
        if body is not None:
            self.data(number // 2, body, ends=False)

    @property
    def open(self) -> list[int]:
        """Give the streams in which more can be said."""
        return [number for number, one in self.sent.items() if not one.ended and not one.gone and self.run.closed is None]

    def data(self, which: int, content: bytes, *, ends: bool) -> None:
        """Say more of a stream that is open."""
        numbers = self.open
        if numbers:
            number = numbers[which % len(numbers)]
            self.sent[number].body += content
            self.sent[number].ended = ends
            self._say(frame(0, int(ends), number, content))

    def trailers(self, which: int) -> None:
        """End a stream with trailers."""
        numbers = self.open
        if numbers:
            number = numbers[which % len(numbers)]
            self.sent[number].ended = True
            self._say(frame(1, 5, number, self.packer.encode([("x-late", "1"), (MARK, "9")])))

    def reset(self, which: int) -> None:
        """Give a stream up."""
        numbers = [number for number, one in self.sent.items() if not one.gone]
        if numbers:
            number = numbers[which % len(numbers)]
            self.sent[number].gone = True
            self._say(frame(3, 0, number, bytes([0, 0, 0, 8])))

    def _say(self, data: bytes) -> None:
        if self.run.closed is None:
            self.run.says(data)

    # -- the judge -------------------------------------------------------------------------------------------------------------

    def decide(self, which: int, how: str) -> None:
        """Answer one of the questions that wait."""
        if not self.run.asked:
            return
        question = self.run.asked[which % len(self.run.asked)]
        self.run.asked.remove(question)
        if how == "body" and question.body is None:
            self.run.tell(Decided(Verdict(number=question.number, allowed=False, body_bytes=6)))
            return
        if how == "deny":
            self.run.tell(Decided(deny(question)))
            return
        assert question.request is not None
        number = int(dict(question.request.fields)[MARK])
        assert number not in self.allowed
        self.allowed[number] = question
        self.run.tell(Decided(allow(question)))

    def revoke(self, which: int) -> None:
        """Have the policy change."""
        if self.allowed:
            self.run.tell(Revoked(list(self.allowed.values())[which % len(self.allowed)].number))

    # -- the target ------------------------------------------------------------------------------------------------------------

    def dialled(self, reached: bool) -> None:
        """Answer to a dial."""
        if len(self.run.dials) > self.heard:
            self.heard = len(self.run.dials)
            self.target = connection(client=False) if self.chosen == "h2" else None
            self.asked = []
            self.run.tell(Dialled(self.chosen) if reached else DialFailed("no"))
            if self.target is not None and reached:
                self.target.initiate_connection()
                self.run.answers(self.target.data_to_send())

    def answer(self, which: int) -> None:
        """Have the target say something of HTTP/1.1, or do something in HTTP/2."""
        if not self.heard:
            return
        if self.target is None:
            self.run.answers(ANSWERS[which % len(ANSWERS)])
            return
        raw = frame(3, 0, 2 * (which // 4) + 1, bytes([0, 0, 0, 7])) if which % 4 == 1 else goaway(which // 4)
        if which % 4 in (1, 2):
            self.run.answers(raw)
        else:
            self.run.answers(frame(1, 4 | (which % 4 == 0), 2 * (which // 4) + 1, hpack.Encoder().encode([(":status", "200")])))

    def ends(self, clean: bool) -> None:
        """Have the target end."""
        if self.heard:
            self.run.ends(Side.UPSTREAM, clean=clean)

    def finish(self) -> None:
        """Allow and answer all that still waits, so that most stories come to something."""
        for _ in range(2 * len(self.sent)):
            self._unless_closed(self.decide, 0, "allow")
            self._unless_closed(self.dialled, True)
            self._unless_closed(partial(self.data, 0, b"", ends=True))
            self._unless_closed(self.answer, 0)

    def _unless_closed(self, do: Callable[..., None], *given: object) -> None:
        if self.run.closed is None:
            do(*given)

    def waited(self) -> None:
        """Let what waits for its turn wait too long."""
        if Timer.TURN in self.run.armed:
            self.run.silent(Timer.TURN)


@dataclass
class OldStory(Story):
    """The same with a client of HTTP/1.1, which goes on before it is answered."""

    left: int | None = None
    """Of the body, what is to come; None: it is in chunks."""

    def __post_init__(self) -> None:
        self.run = Keeping(judge=None, reachable=None, core=old_core, chosen=self.chosen)

    def head(self, method: str, target: str, more: tuple[tuple[str, str], ...], body: bytes | None, length: int | None) -> None:
        """Ask the next, if what was asked before is said."""
        if self.open:
            return
        number = 2 * len(self.sent) + 1
        self.left = length if length is not None else None if body is not None else 0
        framing = f"Content-Length: {self.left}\r\n" if length else ""
        if self.left is None:
            framing = "Transfer-Encoding: chunked\r\n"
        self.sent[number] = Sent(ended=self.left == 0)
        fields = "".join(f"{name}: {value}\r\n" for name, value in ((MARK, str(number)), *more))
        line = f"{method} {target.replace(' ', '%20')} HTTP/1.1\r\nHost: api.test\r\n"
        self._say((line + fields + framing + "\r\n").encode("latin-1"))
        if body:
            self.data(0, body, ends=False)

    def data(self, which: int, content: bytes, *, ends: bool) -> None:
        """Say more of the body."""
        numbers = self.open
        if not numbers:
            return
        sent = self.sent[numbers[which % 1]]
        if self.left is not None:
            content = content[: self.left]
            self.left -= len(content)
        sent.body += content
        sent.ended = ends if self.left is None else not self.left
        framed = b"%x\r\n%b\r\n" % (len(content), content) if content else b""
        self._say(content if self.left is not None else framed + (b"0\r\n\r\n" if ends else b""))

    def trailers(self, which: int) -> None:  # noqa: ARG002 - there is one
        """End chunks with trailers."""
        if self.open and self.left is None:
            self.sent[self.open[0]].ended = True
            self._say(b"0\r\nx-late: 1\r\nx-stream: 9\r\n\r\n")

    def reset(self, which: int) -> None:
        """Nothing is given up here."""

    def revoke(self, which: int) -> None:
        """What is revoked is cut."""


@dataclass
class Read:
    """A request as a server reads it."""

    method: str
    target: str
    fields: list[tuple[str, str]]
    body: bytes = b""
    whole: bool = False

    def named(self, name: str) -> str:
        """Give the one value of a field."""
        (value,) = (value for one, value in self.fields if one == name)
        return value


def by_h11(data: bytes) -> Iterator[Read]:
    """Read as h11 does; raises for what is no HTTP/1.1."""
    server = h11.Connection(h11.SERVER, max_incomplete_event_size=1 << 20)
    if data:  # nothing would be its end
        server.receive_data(data)
    while True:
        event = server.next_event()
        if isinstance(event, h11.Request):
            fields = [(str(name, "latin-1"), str(value, "latin-1")) for name, value in event.headers]
            found = Read(event.method.decode(), event.target.decode("latin-1"), fields)
        elif isinstance(event, h11.Data):
            found.body += bytes(event.data)
        elif isinstance(event, h11.EndOfMessage):
            found.whole = True
            yield found
            server.send(h11.Response(status_code=204, headers=[]))
            server.send(h11.EndOfMessage())
            assert server.our_state is not h11.MUST_CLOSE
            server.start_next_cycle()
        else:
            assert event in (h11.NEED_DATA, h11.PAUSED)
            if server.their_state is h11.SEND_BODY:
                yield found
            return


def by_h2(data: bytes) -> Iterator[Read]:
    """Read as h2 does, which raises for what is malformed."""
    server = connection(client=False)
    found: dict[int, Read] = {}
    for event in server.receive_data(data):
        match event:
            case h2.events.RequestReceived():
                fields = [(str(name), str(value)) for name, value in event.headers]
                pseudo = {name: value for name, value in fields if name.startswith(":")}
                assert ("https", "api.test") == (pseudo[":scheme"], pseudo[":authority"])
                rest = [pair for pair in fields if pair[0] not in pseudo]
                found[event.stream_id] = Read(pseudo[":method"], pseudo[":path"], [("host", "api.test"), *rest])
            case h2.events.DataReceived():
                found[event.stream_id].body += event.data
            case h2.events.StreamEnded():
                found[event.stream_id].whole = True
            case h2.events.TrailersReceived():
                raise AssertionError(event)
    yield from found.values()


def check(story: Story) -> None:
    """Hold what targets read against what was judged."""
    read = by_h2 if story.chosen == "h2" else by_h11
    found = [one for data in story.run.connections for one in read(data)]
    twice = [mark for mark, count in Counter(one.named(MARK) for one in found).items() if count > 1]
    assert [] == twice
    for one in found:
        number = int(one.named(MARK))
        question, sent = story.allowed[number], story.sent[number]
        request = question.request
        assert request is not None
        target = request.path if request.query is None else f"{request.path}?{request.query}"
        assert (request.method, target, request.host) == (one.method, one.target, one.named("host"))
        assert sorted(request.fields) == sorted(pair for pair in one.fields if pair[0] not in OWN)
        assert sent.body.startswith(one.body)
        if one.whole:
            assert sent.body == one.body
            assert sent.ended or ("content-length", str(len(sent.body))) in one.fields
        if question.body is not None and question.body.complete:
            assert (question.body.content, one.whole) == (one.body, True)


few = st.integers(0, 11)
content = st.binary(max_size=4)
fields = st.lists(
    st.sampled_from([("cookie", "a=1"), ("cookie", "b=2"), ("te", "trailers"), ("expect", "100-continue"), ("x-a", "b c")]),
    max_size=3,
    unique=True,
).map(tuple)
targets = st.sampled_from(["/", "/a/../b?c=d", "/%7Eq?x y", "/\xe4", "/a?b\xffc", "/" + "a" * 300])
methods = st.sampled_from(["GET", "POST", "PUT", "HEAD", "1F", "OPTIONS"])
Step = Callable[[Story], None]


def head(method: str, target: str, more: tuple[tuple[str, str], ...], body: bytes | None, length: int | None) -> Step:
    """Give a step that asks something, whoever the client is."""
    return lambda told: told.head(method, target, more, body, length)


heads = st.builds(
    head, methods, targets, fields, st.one_of(st.none(), content), st.one_of(st.none(), st.none(), st.integers(0, 6))
)
steps = st.one_of(
    heads,
    st.builds(lambda which, said, ends: lambda told: told.data(which, said, ends=ends), few, content, st.booleans()),
    st.builds(lambda which: lambda told: told.trailers(which), few),
    st.builds(lambda which: lambda told: told.reset(which), few),
    st.builds(lambda which, how: lambda told: told.decide(which, how), few, st.sampled_from(["allow"] * 4 + ["deny", "body"])),
    st.builds(lambda which: lambda told: told.revoke(which), few),
    st.builds(lambda reached: lambda told: told.dialled(reached), st.sampled_from([True] * 5 + [False])),
    st.builds(lambda which: lambda told: told.answer(which), few),
    st.builds(lambda clean: lambda told: told.ends(clean), st.booleans()),
    st.just(Story.waited),
)


STORIES: Final = (partial(Story, "h2"), partial(Story, "http/1.1"), partial(OldStory, "http/1.1"))


beginnings = st.lists(heads, min_size=1, max_size=3)
stories = st.builds(lambda first, rest: first + rest, beginnings, st.lists(steps, max_size=30))
STORIES_MIN: Final = 500
"""Most stories are about other things than the last mistake that was found: a hundred missed it."""


@settings(max_examples=max(STORIES_MIN, settings().max_examples))
@given(st.sampled_from(STORIES), stories)
def test_targets_read_what_was_judged(made: Callable[[], Story], story: list[Step]) -> None:
    """Each request that a target reads was allowed, is the one that was judged, has the body that was sent, and comes once."""
    told = made()
    for step in story:
        if told.run.closed is not None:
            break
        step(told)
    told.finish()
    check(told)
