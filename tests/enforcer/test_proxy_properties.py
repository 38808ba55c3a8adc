"""What holds of the proxy's core whatever anybody says: no byte without a decision, and what is judged is what is understood.

What lives here: properties and fuzzing. What must not: single cases (test_proxy_http1.py).
"""

from __future__ import annotations

import h11
import httptools
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from capd.enforcer.proxy.commands import Ask, Dial, Over, Send, Withdraw
from capd.enforcer.proxy.connection import ALLOWED_MAX, Gate, UndecidedError
from capd.enforcer.proxy.events import Blocked, Decided, DialFailed, Dialled, Held, Side, Timer
from capd.enforcer.proxy.question import Kind, Question, Verdict
from capd.enforcer.proxy.websocket.relay import frame
from tests.enforcer.rehearsal import HERE, Rehearsal, allow, deny
from tests.enforcer.sockets import HANDSHAKE, SWITCHED
from tests.odd_bytes import odd

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
PIECES = (
    b"GET / HTTP/1.1\r\nHost: api.test\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: api.test\r\nUser-Agent: curl/8.0\r\n\r\n",
    b"POST /p?q=1 HTTP/1.1\r\nHost: api.test\r\nContent-Length: 3\r\n\r\nabc",
    b"POST / HTTP/1.1\r\nHost: api.test\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
    HANDSHAKE,
    frame(1, b"hi", final=True, key=b"1234"),
    b"HEAD /a/../b HTTP/1.1\r\nHost: api.test\r\nExpect: 100-continue\r\nContent-Length: 1\r\n\r\nx",
    b"CONNECT x:1 HTTP/1.1\r\nHost: x:1\r\n\r\n",
    b"GET / HT",
    b"\x16\x03\x01\x00\x05\x01",
    b"SSH-2.0-x\r\n",
    b"\0\0\0\x08\x04\xd2\x16\x2f",
    b"\r\n",
)
ANSWERS = (
    OK,
    b"HTTP/1.1 100 Continue\r\n\r\n",
    SWITCHED + frame(1, b"hi", final=True),
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
    b"HTTP/1.1 200 OK\r\n\r\nuntil the end",
    b"220 hello\r\n",
)
said = st.one_of(st.sampled_from(PIECES), st.binary(min_size=1, max_size=40), odd())
heard = st.one_of(st.sampled_from(ANSWERS), st.binary(min_size=1, max_size=40), odd())
steps = st.lists(
    st.one_of(
        st.tuples(st.just("says"), said),
        st.tuples(st.just("answers"), heard),
        st.tuples(st.sampled_from(["decide", "held", "dialled", "failed", "silence", "deadline", "still"]), st.booleans()),
        st.tuples(st.sampled_from(["client ends", "target ends"]), st.booleans()),
        st.tuples(st.just("forged"), st.integers(0, 9)),
    ),
    max_size=14,
)


@given(steps)
def test_every_byte_for_a_target_has_a_decision(story: list[tuple[str, object]]) -> None:
    """Whatever happens in whatever order, what a target is sent belongs to a decision that was asked for and allowed."""
    run = Rehearsal(judge=None, reachable=None)
    allowed: set[int] = set()
    for what, value in story:
        if run.closed is not None:
            break
        _step(run, what, value, allowed)
        assert set(run.decisions) | set(run.dials) <= allowed
    assert not run.sent[Side.UPSTREAM] or allowed


def _step(run: Rehearsal, what: str, value: object, allowed: set[int]) -> None:
    match what, value:
        case "says", bytes():
            run.says(value)
        case "answers", bytes():
            run.answers(value)
        case "decide", bool() if run.asked:
            question = run.asked.popleft()
            verdict = (allow if value else deny)(question)
            if verdict.allowed:
                allowed.add(question.number)
            run.tell(Decided(verdict))
        case "held", _ if run.asked:
            run.tell(Held(run.asked[0].number, "k3m9q"))
        case "dialled", _:
            run.tell(Dialled())
        case "failed", _:
            run.tell(DialFailed("no"))
        case "silence" | "deadline" | "still", _ if (timer := Timer(what)) in run.armed:
            run.silent(timer)
        case (("client ends" | "target ends"), bool()):
            run.ends(Side.CLIENT if what.startswith("client") else Side.UPSTREAM, clean=value)
        case "forged", int() if value not in {question.number for question in run.asked}:
            run.tell(Decided(Verdict(number=value, allowed=True)))


def test_the_gate_holds() -> None:
    """A layer that forgets to ask is stopped before a byte leaves, and a forged verdict is none."""
    gate = Gate()
    for command in (Send(Side.UPSTREAM, b"x", 0), Send(Side.UPSTREAM, b"x", 1), Dial(1)):
        with pytest.raises(UndecidedError):
            gate.check(command)
    gate.learn(Decided(Verdict(number=1, allowed=True)))
    with pytest.raises(UndecidedError):
        gate.check(Dial(1))
    gate.check(Send(Side.CLIENT, b"x"))


def test_the_gate_forgets_what_is_over() -> None:
    """Decisions side by side hold until they are over; what was sent under them, and nothing else, may have a rest after."""
    gate = Gate()
    for number in range(1, 2 * ALLOWED_MAX):
        question = Question(number=number, kind=Kind.REQUEST, destination=HERE, protocol="http2", exchange=2 * number - 1)
        gate.check(Ask(question))
        gate.learn(Decided(Verdict(number=number, allowed=True)))
    gate.check(Send(Side.UPSTREAM, b"x", 1))
    for number in range(1, 2 * ALLOWED_MAX):
        gate.check(Over(number))
    gate.check(Send(Side.UPSTREAM, b"rest", 1))
    with pytest.raises(UndecidedError):
        gate.check(Send(Side.UPSTREAM, b"x", 2))
    gate.check(Ask(Question(number=999, kind=Kind.REQUEST, destination=HERE, protocol="http2", exchange=1)))
    gate.check(Withdraw(999))
    gate.learn(Decided(Verdict(number=999, allowed=True)))
    with pytest.raises(UndecidedError):
        gate.check(Send(Side.UPSTREAM, b"x", 999))


LISTED = {b"GET", b"POST", b"PUT", b"DELETE", b"PATCH", b"OPTIONS", b"HEAD", b"M-SEARCH"}
"""llhttp knows methods by a list; the standard has tokens."""
methods = st.sampled_from([b"GET", b"POST", b"PUT", b"DELETE", b"PATCH", b"OPTIONS", b"HEAD", b"get", b"M-SEARCH"])
targets = st.one_of(
    st.sampled_from([b"/", b"/a/b?c=d", b"/%7Ea/../b", b"/a%2Bb", b"/\xc3\xa4", b"http://api.test/x", b"*", b"/?x=\xff"]),
    st.binary(min_size=1, max_size=12).map(lambda raw: b"/" + raw),
)
names = st.sampled_from(
    [
        b"Host",
        b"Content-Length",
        b"Transfer-Encoding",
        b"Connection",
        b"X-A",
        b"Expect",
        b"Upgrade",
        b"TE",
        b"Trailer",
        b"Content-Length ",
    ]
)
values = st.one_of(
    st.sampled_from(
        [
            b"api.test",
            b"3",
            b"0",
            b"+3",
            b"3,3",
            b"0x3",
            b"chunked",
            b"identity",
            b"gzip, chunked",
            b"close",
            b"x-a",
            b"\tchunked",
        ]
    ),
    st.binary(max_size=8),
)
ends = st.sampled_from([b"\r\n"] * 12 + [b"\n", b"\r", b"\r\n ", b"\r\r\n"])


@st.composite
def requests(draw: st.DrawFn) -> bytes:
    """A request that is right or nearly so, and something behind it."""
    lines = [
        draw(methods) + b" " + draw(targets) + draw(st.sampled_from([b" HTTP/1.1"] * 6 + [b" HTTP/1.0", b" HTTP/2.0", b""]))
    ]
    if draw(st.integers(0, 5)):
        lines.append(b"Host: api.test")
    lines += [draw(names) + b":" + draw(st.sampled_from([b"", b" "])) + draw(values) for _ in range(draw(st.integers(0, 3)))]
    head = b"".join(line + draw(ends) for line in lines) + draw(ends)
    return head + draw(
        st.sampled_from(
            [b"", b"abc", b"3\r\nabc\r\n0\r\n\r\n", b"0\r\n\r\n", b"abcGET /smuggled HTTP/1.1\r\nHost: api.test\r\n\r\n"]
        )
    )


def by_h11(data: bytes) -> list[tuple[bytes, bytes, bytes]]:
    """Read as h11 does."""
    found: list[tuple[bytes, bytes, bytes]] = []
    connection = h11.Connection(h11.SERVER)
    connection.receive_data(data)
    while True:
        event = connection.next_event()
        if isinstance(event, h11.Request):
            found.append((event.method, event.target, b""))
        elif isinstance(event, h11.Data):
            found[-1] = (*found[-1][:2], found[-1][2] + bytes(event.data))
        elif isinstance(event, h11.EndOfMessage):
            connection.send(h11.Response(status_code=200, headers=[("content-length", "0")]))
            connection.send(h11.EndOfMessage())
            if connection.our_state is h11.MUST_CLOSE:
                return found
            connection.start_next_cycle()
        else:
            return found


class ByHttptools:
    """Read as llhttp does."""

    def __init__(self, data: bytes) -> None:
        self.found: list[tuple[bytes, bytes, bytes]] = []
        self._url, self._body = b"", b""
        self._parser = httptools.HttpRequestParser(self)
        self._parser.feed_data(data)

    def on_message_begin(self) -> None:
        """Begin."""
        self._url, self._body = b"", b""

    def on_url(self, url: bytes) -> None:
        """Take a target."""
        self._url += url

    def on_body(self, body: bytes) -> None:
        """Take a part of a body."""
        self._body += body

    def on_message_complete(self) -> None:
        """End."""
        self.found.append((self._parser.get_method(), self._url, self._body))


@given(requests(), st.sampled_from([0, 1, 5]))
@example(
    b"POST / HTTP/1.1\r\nHost: api.test\r\nContent-Length: 3\r\n\r\nabcGET /smuggled HTTP/1.1\r\nHost: api.test\r\n\r\n", 0
)
def test_others_read_what_was_judged(data: bytes, step: int) -> None:
    """What is forwarded is, to two other parsers, exactly the requests that were judged: as many, and the same."""
    run = Rehearsal(judge=allow).says(data, step=step)
    for _ in range(3):
        if run.closed is None and run.upstream and Side.CLIENT not in run.finished:
            run.answers(OK if b"HEAD " not in data else b"HTTP/1.1 204 No Content\r\n\r\n")
    judged = [(q.request.method.encode(), _target(q)) for q in run.questions if q.request is not None]
    if any(q.kind is Kind.OPAQUE for q in run.questions):
        return
    read = by_h11(run.upstream)
    assert len(read) <= len(judged)
    assert judged[: len(read)] == [(method, target) for method, target, _ in read]
    assert b"smuggled" not in b"".join(body for _, _, body in read)
    if {method for method, _ in judged} <= LISTED:
        whole = ByHttptools(run.upstream).found
        assert read[: len(whole)] == whole


def _target(question: Question) -> bytes:
    assert question.request is not None
    path, query = question.request.path, question.request.query
    return (path if query is None else f"{path}?{query}").encode("latin-1")


@given(st.lists(heard, max_size=4), st.booleans())
def test_no_answer_breaks_the_core(answers: list[bytes], blocked: bool) -> None:
    """A target may say what it likes: it is forwarded, answered for, or cut, and never an error of ours."""
    run = Rehearsal().says(PIECES[0])
    run.tell(Blocked(Side.CLIENT, blocked))
    for answer in answers:
        if run.closed is None:
            run.answers(answer)
