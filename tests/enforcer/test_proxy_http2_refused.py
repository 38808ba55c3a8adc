"""HTTP/2 in the middle: what is refused, what breaks the protocol or floods it, and what holds whatever anybody says.

What lives here: tables of heads and frames, properties. What must not: streams that are in order (test_proxy_http2.py).
"""

from __future__ import annotations

from contextlib import nullcontext

import pytest
from hpack import Encoder
from hypothesis import given, settings
from hypothesis import strategies as st

from capd.decoders.http2.frames import PREFACE
from capd.enforcer.proxy.commands import Close
from capd.enforcer.proxy.events import DialFailed, Dialled, Revoked, Side, Timer
from capd.enforcer.proxy.http2.fields import Counted, FieldsError
from capd.enforcer.proxy.http2.limits import BLOCK_FRAMES_MAX, CONTROL_FRAMES_MAX, RESETS_MAX, STREAMS_MAX, TABLE_BYTES_MAX
from capd.enforcer.proxy.http2.peer import Peer
from tests.enforcer.rehearsal import Rehearsal, allow, deny
from tests.enforcer.streams import Fields, facts, goaway, head, streams

# -- what is refused -----------------------------------------------------------------------------------------------------------

REFUSED: list[tuple[str, Fields, str]] = [
    ("no method", head()[1:], "400"),
    ("a method with a blank", head("GE T"), "400"),
    ("no scheme", [pair for pair in head() if pair[0] != ":scheme"], "400"),
    ("another scheme", [(name, "https" if name == ":scheme" else value) for name, value in head()], "421"),
    ("no path", [pair for pair in head() if pair[0] != ":path"], "400"),
    ("an empty path", head(path=""), "400"),
    ("a path that is a URL", head(path="http://api.test/x"), "400"),
    ("a path without a slash", head(path="x"), "400"),
    ("a star for GET", head(path="*"), "400"),
    ("an encoded NUL", head(path="/a%00b"), "400"),
    ("encoded twice", head(path="/a%252e%252e/b"), "400"),
    ("a backslash", head(path="/a\\b"), "400"),
    ("a fragment", head(path="/a#b"), "400"),
    ("no authority", [pair for pair in head() if pair[0] != ":authority"], "400"),
    ("a user in the authority", head(host="me@api.test"), "400"),
    ("another port", head(host="api.test:8080"), "421"),
    ("another address", head(host="192.0.2.9"), "421"),
    ("Host and authority", [*head(), ("host", "other.test")], "421"),
    ("two Hosts", [*head(), ("host", "api.test"), ("host", "api.test")], "400"),
    ("a pseudo field twice", [(":method", "GET"), *head()], "400"),
    ("a pseudo field late", [*head()[:-1], ("x-a", "1"), head()[-1]], "400"),
    ("an unknown pseudo field", [(":x", "1"), *head()], "400"),
    ("an answer's pseudo field", [*head()[:3], (":status", "200"), head()[3]], "400"),
    ("a name in capitals", [*head(), ("X-A", "1")], "400"),
    ("a name with a blank", [*head(), ("x a", "1")], "400"),
    ("a name with a colon", [*head(), ("x:a", "1")], "400"),
    ("no name", [*head(), ("", "1")], "400"),
    ("a line end in a value", [*head(), ("x-a", "1\r\nx-b: 2")], "400"),
    ("a NUL in a value", [*head(), ("x-a", "1\0")], "400"),
    ("another control character", [*head(), ("x-a", "1\x0b2")], "400"),
    ("a value in blanks", [*head(), ("x-a", " 1")], "400"),
    ("Connection", [*head(), ("connection", "close")], "400"),
    ("Upgrade", [*head(), ("upgrade", "websocket")], "400"),
    ("Keep-Alive", [*head(), ("keep-alive", "1")], "400"),
    ("Proxy-Connection", [*head(), ("proxy-connection", "close")], "400"),
    ("Transfer-Encoding", [*head(), ("transfer-encoding", "chunked")], "400"),
    ("a field that CGI takes for it", [*head(), ("transfer_encoding", "chunked")], "400"),
    ("TE of HTTP/1.1", [*head(), ("te", "gzip")], "400"),
    ("two lengths", [*head("POST"), ("content-length", "1"), ("content-length", "1")], "400"),
    ("a list of lengths", [*head("POST"), ("content-length", "1,1")], "400"),
    ("a length that is none", [*head("POST"), ("content-length", "+1")], "400"),
    ("a length and no body", [*head("POST"), ("content-length", "1")], "400"),
    ("another expectation", [*head("POST"), ("expect", "magic")], "417"),
    ("CONNECT", [(":method", "CONNECT"), (":authority", "api.test:80")], "403"),
    ("extended CONNECT", [*head("CONNECT"), (":protocol", "websocket")], "403"),
    ("a protocol", [*head(), (":protocol", "websocket")], "403"),
]


@pytest.mark.parametrize(("fields", "status"), [case[1:] for case in REFUSED], ids=[case[0] for case in REFUSED])
def test_what_is_refused_before_any_policy(fields: Fields, status: str) -> None:
    """What two readers could take for different things is answered, never asked about, and no target hears of it."""
    told = streams(strict=False)
    number = told.asks(fields)
    seen = told.at_client(number)
    assert ([], []) == (told.run.questions, told.run.dials)
    assert 1 == len(told.run.refused)
    if told.goaway:
        assert 1 == told.goaway[Side.CLIENT][1]
    else:
        assert (status, "malformed_request") == (seen[":status"], facts(seen)["reason"])
        assert None is told.run.closed


def test_a_connection_in_clear_is_for_one_name() -> None:
    """Without TLS the first request says what a connection is for: another name is misdirected."""
    told = streams()
    told.asks(head())
    number = told.asks(head(host="other.test"))
    assert ("421", [1], 1) == (told.at_client(number)[":status"], told.asked, len(told.run.questions))


@pytest.mark.parametrize(
    ("said", "body", "ends"),
    [("3", b"ab", True), ("3", b"abcd", False), ("0", b"a", True), ("5", b"", True)],
)
def test_a_body_is_what_its_head_said(said: str, body: bytes, ends: bool) -> None:
    """Another length than was said is an error, and the target is told that what it got is not all."""
    told = streams(strict=False)
    number = told.asks(head("POST", "/x", ("content-length", said)), body, ends=ends)
    broken = told.goaway.get(Side.CLIENT, (0, told.at_client(number).reset))[1]
    assert 1 == broken
    if told.asked:
        assert (False, 8) == (told.at_target(1).ended, told.at_target(1).reset)


def test_trailers_do_not_make_up_for_a_short_body() -> None:
    """Trailers end a body like anything else: what is missing then is missing. They are not sent on themselves."""
    told = streams(strict=False)
    short = told.asks(head("POST", "/x", ("content-length", "3")), b"ab", ends=False)
    told.client.send_headers(short, [("x-a", "1")], end_stream=True)
    assert 1 == told.go().at_client(short).reset
    whole = told.asks(head("POST", "/y"), b"ab", ends=False)
    told.client.send_headers(whole, [("x-a", "1")], end_stream=True)
    told.go()
    assert (b"ab", True, None) == (bytes(told.at_target(3).body), told.at_target(3).ended, told.at_target(3).trailers)


ANSWERS: list[tuple[str, Fields]] = [
    ("no status", [("x-a", "1")]),
    ("a status that is none", [(":status", "2000")]),
    ("a request's field", [(":status", "200"), (":path", "/")]),
    ("Connection", [(":status", "200"), ("connection", "close")]),
    ("Transfer-Encoding", [(":status", "200"), ("transfer-encoding", "chunked")]),
    ("a line end", [(":status", "200"), ("x-a", "1\n2")]),
    ("capitals", [(":status", "200"), ("X-A", "1")]),
]


@pytest.mark.parametrize("fields", [case[1] for case in ANSWERS], ids=[case[0] for case in ANSWERS])
def test_answers_that_are_none(fields: Fields) -> None:
    """A malformed answer is 502 for its stream, and an error of that stream for the target; the others go on."""
    told = streams(strict=False)
    number, other = told.asks(head(path="/1")), told.asks(head(path="/2"))
    told.target.send_headers(1, fields)
    told.go()
    assert ("502", 1) == (told.at_client(number)[":status"], told.at_target(1).reset)
    told.answers(3)
    assert b"ok" == bytes(told.at_client(other).body)


# -- what breaks the protocol --------------------------------------------------------------------------------------------------


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    """Write one."""
    return len(payload).to_bytes(3, "big") + bytes([kind, flags]) + stream.to_bytes(4, "big") + payload


BLOCK = Encoder().encode(head())
SETTINGS = frame(4, 0, 0)
BEGUN = PREFACE + SETTINGS
ASKED = frame(1, 5, 1, BLOCK)

BROKEN: list[tuple[str, bytes, int]] = [
    ("no SETTINGS", PREFACE + ASKED, 1),
    ("an acknowledgement first", PREFACE + frame(4, 1, 0), 1),
    ("SETTINGS on a stream", BEGUN + frame(4, 0, 1), 1),
    ("SETTINGS of five bytes", BEGUN + frame(4, 0, 0, bytes(5)), 6),
    ("ENABLE_PUSH 2", BEGUN + frame(4, 0, 0, b"\0\2\0\0\0\2"), 1),
    ("a window of 2^31", BEGUN + frame(4, 0, 0, b"\0\4\x80\0\0\0"), 3),
    ("frames of 100 bytes", BEGUN + frame(4, 0, 0, b"\0\5\0\0\0\x64"), 1),
    ("a frame that is too long", BEGUN + frame(0, 0, 1, bytes(16_385)), 6),
    ("DATA on no stream", BEGUN + frame(0, 0, 0, b"x"), 1),
    ("DATA on a stream that is not open", BEGUN + frame(0, 0, 1, b"x"), 1),
    ("DATA padded beyond its end", BEGUN + frame(1, 4, 1, BLOCK) + frame(0, 8, 1, b"\x09x"), 1),
    ("HEADERS on no stream", BEGUN + frame(1, 5, 0, BLOCK), 1),
    ("HEADERS on an even stream", BEGUN + frame(1, 5, 2, BLOCK), 1),
    ("HEADERS of an earlier stream", BEGUN + frame(1, 5, 5, BLOCK) + frame(1, 5, 3, BLOCK), 1),
    ("HEADERS that do not unpack", BEGUN + frame(1, 5, 1, b"\xff\xff\xff\xff"), 1),
    ("HEADERS that depend on themselves", BEGUN + frame(1, 0x25, 1, b"\0\0\0\1\0" + BLOCK), 1),
    ("another frame within a head", BEGUN + frame(1, 1, 1, BLOCK) + frame(6, 0, 0, bytes(8)), 1),
    ("a CONTINUATION of another", BEGUN + frame(1, 1, 1, BLOCK) + frame(9, 4, 3, b""), 1),
    ("a CONTINUATION of nothing", BEGUN + frame(9, 4, 1, BLOCK), 1),
    ("GOAWAY within a head", BEGUN + frame(1, 1, 1, BLOCK) + goaway(0), 1),
    ("an unknown frame within a head", BEGUN + frame(1, 1, 1, BLOCK) + frame(99, 0, 0), 1),
    ("RST_STREAM of three bytes", BEGUN + ASKED + frame(3, 0, 1, bytes(3)), 6),
    ("RST_STREAM on no stream", BEGUN + frame(3, 0, 0, bytes(4)), 1),
    ("RST_STREAM of what never was", BEGUN + frame(3, 0, 1, bytes(4)), 1),
    ("PING of seven bytes", BEGUN + frame(6, 0, 0, bytes(7)), 6),
    ("PING on a stream", BEGUN + frame(6, 0, 1, bytes(8)), 1),
    ("GOAWAY on a stream", BEGUN + frame(7, 0, 1, bytes(8)), 1),
    ("GOAWAY of four bytes", BEGUN + frame(7, 0, 0, bytes(4)), 6),
    ("WINDOW_UPDATE of nothing", BEGUN + frame(8, 0, 0, bytes(4)), 1),
    ("WINDOW_UPDATE beyond all bounds", BEGUN + frame(8, 0, 0, b"\x7f\xff\xff\xff"), 3),
    ("WINDOW_UPDATE of three bytes", BEGUN + frame(8, 0, 0, bytes(3)), 6),
    ("WINDOW_UPDATE of what never was", BEGUN + frame(8, 0, 1, b"\0\0\0\1"), 1),
    ("PUSH_PROMISE of a client", BEGUN + ASKED + frame(5, 4, 1, b"\0\0\0\2" + BLOCK), 1),
    ("PRIORITY of four bytes", BEGUN + frame(2, 0, 1, bytes(4)), 6),
]


def closing(data: bytes) -> tuple[int, int] | None:
    """Give last stream and code of the GOAWAY in what a client was sent."""
    at = 0
    while at < len(data):
        length, kind = int.from_bytes(data[at : at + 3], "big"), data[at + 3]
        if kind == 7:
            return int.from_bytes(data[at + 9 : at + 13], "big"), int.from_bytes(data[at + 13 : at + 17], "big")
        at += 9 + length
    return None


@pytest.mark.parametrize(("said", "code"), [case[1:] for case in BROKEN], ids=[case[0] for case in BROKEN])
def test_what_breaks_the_protocol_ends_the_connection(said: bytes, code: int) -> None:
    """A client that breaks HTTP/2 is told so by GOAWAY, at whatever cut of its bytes, and is read no more."""
    for step in (0, 1):
        run = Rehearsal(judge=None)
        run.says(said, step=step)
        found = closing(run.client)
        assert found is not None
        assert found[1] in {code, 1, 6, 9}, found
        assert ({Side.CLIENT}, []) == (run.finished, run.dials)
        assert Close() == run.silent(Timer.DEADLINE).closed


FLOODS: list[tuple[str, bytes]] = [
    ("PING", frame(6, 0, 0, bytes(8)) * (CONTROL_FRAMES_MAX + 1)),
    ("SETTINGS", SETTINGS * (CONTROL_FRAMES_MAX + 1)),
    ("PRIORITY", frame(2, 0, 5, b"\0\0\0\3\1") * (CONTROL_FRAMES_MAX + 1)),
    ("unknown", frame(99, 0, 0) * (CONTROL_FRAMES_MAX + 1)),
    ("empty DATA", frame(1, 4, 1, BLOCK) + frame(0, 0, 1) * (CONTROL_FRAMES_MAX + 1)),
    ("WINDOW_UPDATE", frame(8, 0, 0, b"\0\0\0\1") * (CONTROL_FRAMES_MAX + 1)),
    ("CONTINUATION", frame(1, 1, 1, BLOCK) + frame(9, 0, 1) * BLOCK_FRAMES_MAX),
    ("a head too long", frame(1, 1, 1, BLOCK) + frame(9, 0, 1, bytes(16_000)) * 5),
    ("resets", b"".join(frame(1, 5, 2 * n + 1, BLOCK) + frame(3, 0, 2 * n + 1, b"\0\0\0\x08") for n in range(RESETS_MAX + 1))),
    ("a head that grows", frame(1, 5, 1, Encoder().encode([*head(), ("x-a", "y" * 4_000)]) + b"\xbe" * 40)),
]


@pytest.mark.parametrize("said", [case[1] for case in FLOODS], ids=[case[0] for case in FLOODS])
def test_floods_end_the_connection(said: bytes) -> None:
    """What costs work and carries nothing is counted, and ends the connection with ENHANCE_YOUR_CALM."""
    run = Rehearsal(judge=None)
    run.says(BEGUN + said)
    assert 11 == (closing(run.client) or (0, 0))[1]
    assert (0, {Side.CLIENT}) == (len(run.asked), run.finished)


def test_what_packing_remembers_is_bounded() -> None:
    """However much a peer allows us to remember of heads, it is what we choose."""
    for serves in (True, False):
        peer = Peer(serves=serves, stream_bytes=1_000, connection_bytes=1_000)
        peer.receive((PREFACE if serves else b"") + frame(4, 0, 0, b"\0\1\x40\0\0\0"))
        assert TABLE_BYTES_MAX == peer._h2.encoder.header_table_size
        assert TABLE_BYTES_MAX == peer._h2.decoder.max_allowed_table_size


@pytest.mark.parametrize(("length", "parts", "fits"), [(None, [3], True), (3, [1, 2], True), (3, [2], False), (3, [4], False)])
def test_lengths_are_counted(length: int | None, parts: list[int], fits: bool) -> None:
    """A body is as long as its content-length says, or it is malformed; the library counts most of them too."""
    counted = Counted(length)
    with nullcontext() if fits else pytest.raises(FieldsError):
        for part in parts:
            counted.take(part)
        counted.end()


def test_calm_is_a_matter_of_time() -> None:
    """What a client says now and then adds up to nothing."""
    run = Rehearsal()
    run.says(BEGUN)
    for _ in range(5):
        run.says(frame(6, 0, 0, bytes(8)) * (CONTROL_FRAMES_MAX - 1))
        run.silent(Timer.CALM)
    assert None is closing(run.client)


def test_more_streams_than_allowed_end_the_connection() -> None:
    """A client that opens more than it was told is cut, and nothing of what waits is asked any more."""
    run = Rehearsal(judge=None)
    run.says(BEGUN + b"".join(frame(1, 5, 2 * n + 1, BLOCK) for n in range(STREAMS_MAX + 1)))
    assert (0, STREAMS_MAX) == (len(run.asked), len(run.withdrawn))
    assert None is not closing(run.client)


def test_a_head_must_be_whole_in_time() -> None:
    """A head without its end, and a connection without a first request, are cut when their time is over."""
    for said in (PREFACE, BEGUN, BEGUN + ASKED + frame(1, 1, 3, BLOCK)):
        run = Rehearsal()
        run.says(said)
        assert Close(abort=True) == run.silent(Timer.DEADLINE).closed


def test_a_target_that_breaks_the_protocol() -> None:
    """Its streams are answered with 502, and it is told why; the client's connection goes on."""
    run = Rehearsal()
    told = streams(run)
    number = told.asks(head())
    run.answers(frame(6, 0, 1, bytes(8)))
    told.go()
    assert ("502", None) == (told.at_client(number)[":status"], run.closed)
    assert Side.UPSTREAM in told.goaway


def test_nothing_is_pushed() -> None:
    """The target is told not to push, and one that does all the same breaks the protocol."""
    run = Rehearsal()
    told = streams(run)
    number = told.asks(head())
    assert 0 == told.target.remote_settings.enable_push
    run.answers(frame(5, 4, 1, b"\0\0\0\2" + BLOCK))
    assert "502" == told.go().at_client(number)[":status"]


# -- properties ----------------------------------------------------------------------------------------------------------------

STORIES = (
    BEGUN,
    frame(4, 1, 0),
    ASKED,
    frame(1, 4, 3, BLOCK),
    frame(0, 1, 3, b"body"),
    frame(0, 8, 3, b"\2xx\0\0"),
    frame(6, 0, 0, b"12345678"),
    frame(8, 0, 0, b"\0\0\1\0"),
    frame(3, 0, 1, b"\0\0\0\x08"),
    frame(1, 1, 5, BLOCK[:5]) + frame(9, 4, 5, BLOCK[5:]),
    frame(2, 0, 7, b"\0\0\0\3\1"),
    frame(99, 3, 1, b"?"),
)


@settings(max_examples=200)
@given(st.lists(st.sampled_from(STORIES), max_size=10), st.lists(st.integers(1, 30), min_size=1, max_size=8))
def test_cuts_change_nothing(story: list[bytes], steps: list[int]) -> None:
    """However a client's bytes are cut, the same is asked, said, refused and closed."""
    said = BEGUN + b"".join(story)
    whole, cut = Rehearsal(judge=None), Rehearsal(judge=None)
    whole.says(said)
    at = turn = 0
    while at < len(said) and cut.closed is None:
        step = steps[turn % len(steps)]
        cut.says(said[at : at + step])
        at, turn = at + step, turn + 1
    assert (whole.questions, whole.withdrawn, whole.refused) == (cut.questions, cut.withdrawn, cut.refused)
    assert (whole.client, whole.closed, whole.finished) == (cut.client, cut.closed, cut.finished)


@settings(max_examples=300)
@given(
    st.lists(
        st.one_of(
            st.tuples(st.just("says"), st.one_of(st.sampled_from(STORIES), st.binary(max_size=30))),
            st.tuples(st.just("answers"), st.one_of(st.sampled_from((SETTINGS, *STORIES[1:])), st.binary(max_size=30))),
            st.tuples(
                st.sampled_from(["decide", "dialled", "dialled1", "failed", "calm", "revoke", "target ends"]), st.booleans()
            ),
        ),
        max_size=20,
    )
)
def test_every_byte_for_a_target_has_a_decision(story: list[tuple[str, object]]) -> None:
    """Whatever happens in whatever order, what a target is sent belongs to a decision that was asked for and allowed."""
    run = Rehearsal(judge=None, reachable=None)
    run.says(BEGUN)
    allowed: set[int] = set()
    for what, value in story:
        if run.closed is not None:
            break
        if what in ("says", "answers") and isinstance(value, bytes) and value:
            (run.says if what == "says" else run.answers)(value)
        elif what == "decide" and run.asked:
            if value:
                allowed.add(run.asked[0].number)
            run.decide(allow if value else deny)
        elif what.startswith("dialled") and run.dials:
            run.tell(Dialled("h2" if what == "dialled" else "http/1.1"))
        elif what == "failed" and run.dials:
            run.tell(DialFailed("no"))
        elif what == "calm" and Timer.CALM in run.armed:
            run.silent(Timer.CALM)
        elif what == "revoke" and allowed:
            run.tell(Revoked(max(allowed)))
        elif what == "target ends" and run.dials:
            run.ends(Side.UPSTREAM, clean=bool(value))
        assert set(run.decisions) | set(run.dials) <= allowed
