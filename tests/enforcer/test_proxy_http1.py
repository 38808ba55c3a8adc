"""HTTP/1.1 through the proxy's core: what is asked, what the target gets, what the agent gets.

What lives here: conversations as bytes. What must not: sockets.
"""

from __future__ import annotations

import json

import pytest

from capd.enforcer.proxy.events import Blocked, Side, Timer
from capd.enforcer.proxy.http1.limits import DRAIN_BYTES_MAX, LINGER_BYTES_MAX
from capd.enforcer.proxy.http1.response import PHRASE_CHARACTERS_MAX
from capd.enforcer.proxy.http1.waiting import WAITING_BYTES_MAX
from capd.enforcer.proxy.question import Body, Destination, Kind, Question, Verdict
from tests.enforcer.rehearsal import Rehearsal, allow, deny
from tests.enforcer.sockets import HANDSHAKE

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
GET = b"GET /x HTTP/1.1\r\nHost: api.test\r\n\r\n"

CHUNKED = b"POST / HTTP/1.1\r\nhost: api.test\r\ntransfer-encoding: chunked\r\n\r\n"

REWRITTEN = {
    "plain": (GET, b"GET /x HTTP/1.1\r\nhost: api.test\r\n\r\n"),
    "host in capitals, dot, own port": (
        b"GET / HTTP/1.1\r\nHOST: API.Test.:80\r\n\r\n",
        b"GET / HTTP/1.1\r\nhost: api.test\r\n\r\n",
    ),
    "absolute form": (
        b"GET http://api.test/x?q HTTP/1.1\r\nHost: api.test\r\n\r\n",
        b"GET /x?q HTTP/1.1\r\nhost: api.test\r\n\r\n",
    ),
    "dot segments, escapes": (
        b"GET /a/./b/../%7Ec/%c3%a4?%2e%2e HTTP/1.1\r\nHost: api.test\r\n\r\n",
        b"GET /a/~c/%C3%A4?%2e%2e HTTP/1.1\r\nhost: api.test\r\n\r\n",
    ),
    "reserved characters stay as they were": (
        b"GET /a%2Bb+c%3D HTTP/1.1\r\nHost: api.test\r\n\r\n",
        b"GET /a%2Bb+c%3D HTTP/1.1\r\nhost: api.test\r\n\r\n",
    ),
    "raw bytes": (
        "GET /ä HTTP/1.1\r\nHost: api.test\r\n\r\n".encode(),
        b"GET /%C3%A4 HTTP/1.1\r\nhost: api.test\r\n\r\n",
    ),
    "of one connection": (
        GET[:-2] + b"Connection: keep-alive, X-Hop\r\nX-Hop: 1\r\nKeep-Alive: 5\r\nTE: trailers\r\nAccept: */*\r\n\r\n",
        b"GET /x HTTP/1.1\r\nhost: api.test\r\nAccept: */*\r\n\r\n",
    ),
    "an upgrade that cannot be judged": (
        b"GET / HTTP/1.1\r\nHost: api.test\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n\r\n",
        b"GET / HTTP/1.1\r\nhost: api.test\r\n\r\n",
    ),
    "length": (
        b"POST / HTTP/1.1\r\nHost: api.test\r\nContent-Length: 3\r\n\r\nabc",
        b"POST / HTTP/1.1\r\nhost: api.test\r\ncontent-length: 3\r\n\r\nabc",
    ),
    "chunks; extensions and trailers stay behind": (
        CHUNKED.replace(b"host", b"Host").replace(b"chunked", b"Chunked")
        + b"3;x=y\r\nabc\r\n1\r\nd\r\n0\r\nX-HTTP-Method-Override: DELETE\r\nHost: evil\r\n\r\n",
        CHUNKED + b"3\r\nabc\r\n1\r\nd\r\n0\r\n\r\n",
    ),
    "HTTP/1.0 without a host": (
        b"GET / HTTP/1.0\r\n\r\n",
        b"GET / HTTP/1.1\r\nhost: 192.0.2.1\r\nconnection: close\r\n\r\n",
    ),
}

REFUSED = {
    "two lengths": (400, b"GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\nContent-Length: 0\r\n\r\n"),
    "listed lengths": (400, b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1, 1\r\n\r\nx"),
    "length and chunks": (
        400,
        b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    ),
    "two codings": (400, b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n"),
    "folded line": (400, b"GET / HTTP/1.1\r\nHost: a\r\n b\r\n\r\n"),
    "bare LF": (400, b"GET / HTTP/1.1\nHost: a\n\n"),
    "bare CR": (400, b"GET / HTTP/1.1\r\nHost: a\r\nX: a\rb\r\n\r\n"),
    "space before the colon": (400, b"GET / HTTP/1.1\r\nHost : a\r\n\r\n"),
    "NUL": (400, b"GET / HTTP/1.1\r\nHost: a\r\nX: \0\r\n\r\n"),
    "no host": (400, b"GET / HTTP/1.1\r\n\r\n"),
    "two hosts": (400, b"GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n"),
    "empty host": (400, b"GET / HTTP/1.1\r\nHost:\r\n\r\n"),
    "user in host": (400, b"GET / HTTP/1.1\r\nHost: a@b\r\n\r\n"),
    "number for an address": (400, b"GET / HTTP/1.1\r\nHost: 2130706433\r\n\r\n"),
    "host and absolute form": (421, b"GET http://b/ HTTP/1.1\r\nHost: a\r\n\r\n"),
    "https in clear": (421, b"GET https://a/ HTTP/1.1\r\nHost: a\r\n\r\n"),
    "another port": (421, b"GET / HTTP/1.1\r\nHost: a:8080\r\n\r\n"),
    "another address": (421, b"GET / HTTP/1.1\r\nHost: 192.0.2.2\r\n\r\n"),
    "a coding in disguise": (400, b"POST / HTTP/1.1\r\nHost: a\r\nTransfer_Encoding: chunked\r\nContent-Length: 1\r\n\r\nx"),
    "a length in disguise": (400, b"POST / HTTP/1.1\r\nHost: a\r\nContent.Length: 1\r\n\r\n"),
    "a credential in disguise": (400, b"GET / HTTP/1.1\r\nHost: a\r\nProxy_Authorization: x\r\n\r\n"),
    "obs-text in host": (400, b"GET / HTTP/1.1\r\nHost: \xe0.test\r\n\r\n"),
    "a zone in host": (400, b"GET / HTTP/1.1\r\nHost: [fe80::1%25lo]\r\n\r\n"),
    "HTTP/1.0 with chunks": (400, b"POST / HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
    "a coding of another name": (400, b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: xchunked\r\n\r\n"),
    "CONNECT": (403, b"CONNECT a:80 HTTP/1.1\r\nHost: a:80\r\n\r\n"),
    "encoded slash beside dots": (400, b"GET /..%2fadmin HTTP/1.1\r\nHost: a\r\n\r\n"),
    "two slashes at the begin": (400, b"GET //evil/admin HTTP/1.1\r\nHost: a\r\n\r\n"),
    "encoded NUL": (400, b"GET /%00 HTTP/1.1\r\nHost: a\r\n\r\n"),
    "encoded twice": (400, b"GET /%252e%252e/ HTTP/1.1\r\nHost: a\r\n\r\n"),
    "parameters": (400, b"GET /..;/admin HTTP/1.1\r\nHost: a\r\n\r\n"),
    "backslash": (400, b"GET /..\\admin HTTP/1.1\r\nHost: a\r\n\r\n"),
    "fragment": (400, b"GET /#x HTTP/1.1\r\nHost: a\r\n\r\n"),
    "star of GET": (400, b"GET * HTTP/1.1\r\nHost: a\r\n\r\n"),
    "nominated host": (400, b"GET / HTTP/1.1\r\nHost: a\r\nConnection: host\r\n\r\n"),
    "unknown expectation": (417, b"GET / HTTP/1.1\r\nHost: a\r\nExpect: tea\r\n\r\n"),
}


@pytest.mark.parametrize("name", REWRITTEN)
@pytest.mark.parametrize("step", [0, 1, 7])
def test_requests_are_written_anew(name: str, step: int) -> None:
    """What the target gets is capd's own writing of what was judged, however the bytes came."""
    said, expected = REWRITTEN[name]
    run = Rehearsal().says(said, step=step)
    got = run.upstream
    if b"chunked" in expected and step:
        got = got.replace(b"1\r\na\r\n1\r\nb\r\n1\r\nc\r\n", b"3\r\nabc\r\n")
    assert expected == got
    assert [1] * len(run.decisions) == run.decisions


@pytest.mark.parametrize("name", REFUSED)
@pytest.mark.parametrize("step", [0, 1])
def test_what_has_two_meanings_is_refused(name: str, step: int) -> None:
    """A request that two readers could take for different ones is answered, never judged, never forwarded."""
    status, said = REFUSED[name]
    run = Rehearsal().says(said, step=step)
    assert f"HTTP/1.1 {status} ".encode() == run.client[:13]
    assert b"connection: close\r\n" in run.client
    assert (b"", [], []) == (run.upstream, run.questions, run.dials)
    assert 1 == len(run.refused)


@pytest.mark.parametrize("step", [0, 1])
def test_nothing_leaves_before_its_decision(step: int) -> None:
    """Pipelined requests wait for one another: each is judged after the answer before it, and none is dialled for early."""
    run = Rehearsal(judge=None).says(GET + GET.replace(b"/x", b"/y"), step=step)
    assert (b"", [], 1) == (run.upstream, run.dials, len(run.questions))
    run.decide(allow)
    assert (1, b"/x", False) == (len(run.questions), run.upstream[4:6], b"/y" in run.upstream)
    run.answers(OK)
    assert (2, False) == (len(run.questions), b"/y" in run.upstream)
    run.decide(deny)
    assert b"/y" not in run.upstream
    assert run.client.startswith(b"HTTP/1.1 200 OK")
    assert b"HTTP/1.1 403 Forbidden" in run.client


def worded(message: str) -> Verdict:
    """Deny in words."""
    return Verdict(number=1, allowed=False, reason="denied_by_policy", rule="r", message=message)


WORDS = {
    "no secrets": "Forbidden: no secrets",
    "zwei\r\nx-header: 1\x00 \u2028": "Forbidden: zwei??x-header: 1? ?",
    "": "Forbidden",
    "a" * 300: "Forbidden: " + "a" * (PHRASE_CHARACTERS_MAX - 11),
}


@pytest.mark.parametrize(("message", "phrase"), WORDS.items(), ids=["plain", "hostile", "none", "long"])
def test_the_status_line_says_why(message: str, phrase: str) -> None:
    """Clients that show no body show the status line: it says why, in printable characters, on one line, and not at length."""
    run = Rehearsal(judge=lambda _: worded(message)).says(GET)
    head, _, body = run.client.partition(b"\r\n\r\n")
    assert f"HTTP/1.1 403 {phrase}" == head.decode("ascii").split("\r\n")[0]
    assert b"x-header" not in head.split(b"\r\n", 1)[1]
    told = json.loads(body)
    assert (message, "Status", "v1", "Failure", 403) == tuple(
        told[key] for key in ("message", "kind", "apiVersion", "status", "code")
    )


def test_git_is_told_in_plain_text() -> None:
    """Git shows its user a refusal that is plain text, and no other."""
    asked = GET.replace(b"\r\n\r\n", b"\r\nUser-Agent: git/2.39.5\r\n\r\n")
    head, _, body = Rehearsal(judge=lambda _: worded("no secrets")).says(asked).client.partition(b"\r\n\r\n")
    assert b"content-type: text/plain; charset=utf-8" in head
    assert b"capd: no secrets (rule r, decision s/1)\n" == body


def test_denials_teach() -> None:
    """A denied request gets 403 with the rule, a reason for machines, the policy's version and the decision, and may go on."""
    run = Rehearsal(judge=deny).says(GET)
    head, _, body = run.client.partition(b"\r\n\r\n")
    assert head.split(b"\r\n")[0].startswith(b"HTTP/1.1 403 Forbidden")
    assert b"x-capd-rule: none" in head
    assert b"connection" not in head
    told = json.loads(body)
    assert ("denied", "denied_by_policy", "none", "1", "s/1") == tuple(
        told[key] for key in ("error", "reason", "rule", "policy", "decision")
    )
    run.judge = allow
    run.says(GET).answers(OK)
    assert run.client.endswith(b"ok")


@pytest.mark.parametrize(
    ("head", "body", "keeps"),
    [
        (b"Content-Length: 4", b"abcd", True),
        (b"Content-Length: %d" % (DRAIN_BYTES_MAX + 1), b"abcd", False),
        (b"Transfer-Encoding: chunked", b"4\r\nabcd\r\n", False),
        (b"Content-Length: 4\r\nExpect: 100-continue", b"", False),
    ],
)
def test_refused_bodies_are_passed_over(head: bytes, body: bytes, keeps: bool) -> None:
    """A denied request's body goes nowhere; the connection goes on only where the rest is short and certain."""
    run = Rehearsal(judge=deny).says(b"POST / HTTP/1.1\r\nHost: api.test\r\n" + head + b"\r\n\r\n").says(body)
    assert keeps is (b"connection: close" not in run.client)
    assert b"100 Continue" not in run.client
    assert b"" == run.upstream
    if keeps:
        run.judge = allow
        assert b"GET /x" in run.says(GET).upstream
    else:
        assert {Side.CLIENT} == run.finished
        run.says(bytes(LINGER_BYTES_MAX + 1))
        assert run.closed is not None


def test_bodies_are_streamed() -> None:
    """Bytes of a body go across when they come, both ways, each piece under the request's decision."""
    run = Rehearsal().says(b"POST / HTTP/1.1\r\nHost: api.test\r\nContent-Length: 6\r\n\r\nabc")
    assert run.upstream.endswith(b"abc")
    run.says(b"def").answers(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\ndata\r\n")
    assert run.client.endswith(b"4\r\ndata\r\n")
    run.answers(b"0\r\n\r\n")
    assert run.client.endswith(b"0\r\n\r\n")
    assert {1} == set(run.decisions)


def test_an_expectation_goes_to_the_target() -> None:
    """The target says whether it wants the body, once the request is allowed."""
    run = Rehearsal().says(b"POST / HTTP/1.1\r\nHost: api.test\r\nContent-Length: 2\r\nExpect: 100-continue\r\n\r\n")
    assert b"expect: 100-continue" in run.upstream
    run.answers(b"HTTP/1.1 100 Continue\r\n\r\n").says(b"ab").answers(OK)
    assert run.client.startswith(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK")
    assert run.upstream.endswith(b"ab")


ANSWERS = {
    "length": (GET, OK, b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok", False),
    "alternative service, rule of ours": (
        GET,
        b"HTTP/1.1 200 OK\r\nAlt-Svc: h3\r\nX-Capd-Rule: x\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n",
        False,
    ),
    "head": (
        GET.replace(b"GET", b"HEAD"),
        b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n",
        False,
    ),
    "no content": (GET, b"HTTP/1.1 204 No Content\r\n\r\n", b"HTTP/1.1 204 No Content\r\n\r\n", False),
    "not modified": (
        GET,
        b"HTTP/1.1 304 Not Modified\r\nContent-Length: 7\r\n\r\n",
        b"HTTP/1.1 304 Not Modified\r\ncontent-length: 7\r\n\r\n",
        False,
    ),
    "early hints": (
        GET,
        b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n" + OK,
        b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok",
        False,
    ),
    "the target closes": (
        GET,
        b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok",
        b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\nok",
        True,
    ),
    "chunks to HTTP/1.0": (
        b"GET / HTTP/1.0\r\nHost: api.test\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nconnection: close\r\n\r\nok",
        True,
    ),
}


@pytest.mark.parametrize("name", ANSWERS)
@pytest.mark.parametrize("step", [0, 1])
def test_answers_are_written_anew(name: str, step: int) -> None:
    """What the agent gets is capd's own writing of the target's answer."""
    asked, answer, expected, ends = ANSWERS[name]
    run = Rehearsal().says(asked).answers(answer, step=step)
    assert expected == run.client.replace(b"1\r\no\r\n1\r\nk\r\n", b"2\r\nok\r\n")
    assert ends is (Side.CLIENT in run.finished)


def test_an_answer_until_the_end_is_whole_only_with_an_end() -> None:
    """A body without framing ends cleanly with its connection, and with a reset where the target was cut off."""
    said = b"HTTP/1.1 200 OK\r\n\r\npart"
    whole = Rehearsal().says(GET).answers(said).ends(Side.UPSTREAM)
    assert Side.CLIENT in whole.finished
    cut = Rehearsal().says(GET).answers(said).ends(Side.UPSTREAM, clean=False)
    assert cut.closed is not None
    assert cut.closed.abort


@pytest.mark.parametrize(
    "answer",
    [b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\npart", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n9\r\npart"],
)
def test_a_cut_answer_is_cut(answer: bytes) -> None:
    """An answer that is shorter than it says is never ended as if it were whole."""
    run = Rehearsal().says(GET).answers(answer).ends(Side.UPSTREAM)
    assert run.closed is not None
    assert run.closed.abort


@pytest.mark.parametrize(
    "answer",
    [
        b"SSH-2.0-x\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nConnection: content-type\r\n\r\n",
    ],
)
def test_answers_that_are_none_become_502(answer: bytes) -> None:
    """A target that breaks the protocol, or changes it unasked, is told of as such; nothing of it goes across."""
    run = Rehearsal().says(GET).answers(answer)
    assert run.client.startswith(b"HTTP/1.1 502 Bad Gateway")


def test_answers_without_a_question_cut_the_connection() -> None:
    """What a target says unasked could be taken for the answer to the next request, so the connection ends."""
    run = Rehearsal().says(GET).answers(OK + b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil")
    assert run.closed is not None
    assert run.closed.abort
    assert b"evil" not in run.client


def test_unreachable_targets_are_told_of() -> None:
    """A target that cannot be reached is a 502 with the reason; the agent can go on."""
    run = Rehearsal(reachable=False).says(GET)
    assert run.client.startswith(b"HTTP/1.1 502 Bad Gateway")
    assert b"nobody there" in run.client
    run.reachable = True
    assert run.says(GET).upstream == REWRITTEN["plain"][1]


def test_a_target_that_left_while_a_request_is_held_is_dialled_again() -> None:
    """An approval may take longer than a target keeps an idle connection."""
    run = Rehearsal().says(GET).answers(OK)
    run.judge = None
    run.says(GET).ends(Side.UPSTREAM).decide(allow).answers(OK)
    assert [1, 2] == run.dials
    assert 2 == run.client.count(b"200 OK")


def looks_at_body(question: Question) -> Verdict:
    """Want a body of at most four bytes; deny what has `bad` in it, or is longer."""
    body = question.body
    if body is None:
        return Verdict(number=question.number, allowed=False, body_bytes=4)
    return Verdict(number=question.number, allowed=body.complete and b"bad" not in body.content, reason="body")


@pytest.mark.parametrize(("body", "allowed"), [(b"good", True), (b"bad!", False), (b"gooooood", False), (b"", True)])
@pytest.mark.parametrize("chunked", [False, True])
@pytest.mark.parametrize("step", [0, 1])
def test_bodies_that_rules_look_at_are_held(body: bytes, allowed: bool, chunked: bool, step: int) -> None:
    """Nothing of a request leaves before its body was judged; 100 is said in the target's place."""
    framing = b"Transfer-Encoding: chunked" if chunked else b"Content-Length: %d" % len(body)
    chunks = (b"%x\r\n%b\r\n" % (len(body), body) if body else b"") + b"0\r\n\r\n"
    run = Rehearsal(judge=looks_at_body)
    run.says(b"POST / HTTP/1.1\r\nHost: api.test\r\nExpect: 100-continue\r\n" + framing + b"\r\n\r\n")
    run.says(chunks if chunked else body, step=step)
    assert allowed is (b"POST" in run.upstream)
    assert b"expect" not in run.upstream
    if allowed:
        assert body in run.upstream
        assert Body(content=body, complete=True) == run.questions[-1].body
        assert {run.questions[-1].number} == set(run.decisions)


def test_upgrades_that_no_rule_allows_are_denied() -> None:
    """A request that is allowed may still not change the protocol."""
    run = Rehearsal(judge=lambda asked: Verdict(number=asked.number, allowed=True))
    run.says(HANDSHAKE)
    assert run.client.startswith(b"HTTP/1.1 403 Forbidden")
    assert b"upgrade_not_allowed" in run.client
    assert [] == run.dials


def test_clients_that_run_ahead_wait() -> None:
    """A client that says much more than was judged is not read from, nor is one whose target does not take it."""
    run = Rehearsal(judge=None).says(GET * (WAITING_BYTES_MAX // 256))
    assert run.reading == {Side.CLIENT: False, Side.UPSTREAM: True}
    slow = Rehearsal().says(GET)
    slow.tell(Blocked(Side.UPSTREAM, True))
    assert slow.reading == {Side.CLIENT: False, Side.UPSTREAM: True}
    slow.tell(Blocked(Side.UPSTREAM, False))
    assert slow.reading == {Side.CLIENT: True, Side.UPSTREAM: True}


@pytest.mark.parametrize("field", [b"x-%d: " + b"y" * 200 + b"\r\n", b"a%d:\r\n"])
def test_heads_that_wait_are_counted_as_what_they_take(field: bytes) -> None:
    """A client that sends one large head after the other, or heads of many fields, is left to wait once they take much."""
    run, sent = Rehearsal(judge=None), 0
    asked = GET.removesuffix(b"\r\n") + b"".join(field % number for number in range(250))
    for number in range(40):
        run.says(asked + b"b: %d\r\n\r\n" % number)
        sent += len(asked)
        if not run.reading[Side.CLIENT]:
            break
    assert not run.reading[Side.CLIENT]
    assert run.kept() >= max(sent - len(asked), WAITING_BYTES_MAX)


def test_a_client_that_takes_no_answers_is_asked_for_no_more() -> None:
    """Who asks on and on for what is refused, and does not read, is not read from; who sends a body that goes on is."""
    for said, reads in ((GET, False), (b"POST /x HTTP/1.1\r\nHost: api.test\r\nContent-Length: 9\r\n\r\nabc", True)):
        run = Rehearsal().says(said)
        if not reads:
            run.answers(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
        run.tell(Blocked(Side.CLIENT, True))
        assert reads is run.reading[Side.CLIENT]
        run.tell(Blocked(Side.CLIENT, False))
        assert run.reading[Side.CLIENT]


def test_tiny_chunks_cost_what_their_bytes_cost() -> None:
    """A body in ten thousand chunks of a byte is one write, joined once."""
    run = Rehearsal().says(CHUNKED)
    before = len(run.decisions)
    run.says(b"1\r\nx\r\n" * 10_000)
    assert (before + 1, 10_000) == (len(run.decisions), run.upstream.count(b"1\r\nx\r\n"))


def test_a_head_has_a_deadline() -> None:
    """A request's head that does not become whole ends the connection; one that is whole stops the clock."""
    run = Rehearsal().says(GET).answers(OK)
    assert Timer.DEADLINE not in run.armed
    run.says(b"GET / HT").silent(Timer.DEADLINE)
    assert run.closed is not None


def test_a_client_that_leaves_is_not_answered_for() -> None:
    """A body that ends early is cut on the target's side too, not ended."""
    run = Rehearsal().says(b"POST / HTTP/1.1\r\nHost: api.test\r\nContent-Length: 6\r\n\r\nabc").ends(Side.CLIENT)
    assert run.closed is not None
    assert run.closed.abort


def test_a_client_that_only_listens_gets_its_answer() -> None:
    """A client may end its direction after the request and still reads the answer."""
    run = Rehearsal().says(GET).ends(Side.CLIENT).answers(OK)
    assert run.client.endswith(b"ok")
    assert run.closed is not None
    assert not run.closed.abort


def test_ports_stand_in_the_host_field() -> None:
    """A host's port that is not the scheme's own is in the question's destination and in what is sent."""
    run = Rehearsal(destination=Destination(address="192.0.2.1", port=8080))
    run.says(b"GET / HTTP/1.1\r\nHost: api.test:8080\r\n\r\n")
    assert b"host: api.test:8080\r\n" in run.upstream
    question = run.questions[0]
    assert (Kind.REQUEST, "api.test", 8080) == (
        question.kind,
        question.request and question.request.host,
        question.destination.port,
    )
