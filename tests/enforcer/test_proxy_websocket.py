"""WebSocket in the middle: frames that cross, handshakes that are none, what breaks the protocol, real clients and servers.

What lives here: tables of frames, wsproto and `websockets` on both ends. What must not: other HTTP (test_proxy_http1.py).
"""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from wsproto import ConnectionType, WSConnection
from wsproto.connection import Connection
from wsproto.events import BytesMessage, Event, Ping, TextMessage

from capd.decoders.websocket.frames import KEY_BYTES, head_at, unmasked
from capd.enforcer.proxy.commands import Close
from capd.enforcer.proxy.events import Side, Timer
from capd.enforcer.proxy.question import Kind, Question, Verdict
from capd.enforcer.proxy.websocket.handshake import accept
from capd.enforcer.proxy.websocket.relay import HELD_BYTES_MAX, Relay, frame
from tests.e2e.certificates import make
from tests.enforcer.proxied import ADDRESS, by_path, proxied
from tests.enforcer.rehearsal import Rehearsal
from tests.enforcer.sockets import HANDSHAKE, KEY, SWITCHED
from tests.requirements import require

SCRIPT = Path(__file__).parent / "websocket_talk.py"
MASK = b"\x01\x02\x03\x04"


def opened() -> Rehearsal:
    """Give a connection that has become a WebSocket, and forget what was said before."""
    run = Rehearsal().says(HANDSHAKE).answers(SWITCHED)
    assert run.client.startswith(b"HTTP/1.1 101 Switching Protocols\r\n")
    for side in Side:
        run.sent[side].clear()
    return run


def read(data: bytes) -> list[tuple[int, bool, bool, bytes]]:
    """Give the frames in bytes: opcode, whether it is the last of its message, whether it is masked, payload."""
    found, at = [], 0
    while at < len(data):
        head = head_at(data, at)
        assert head is not None
        begin, at = at + head.size, at + head.size + head.length
        found.append((head.opcode, head.final, bool(head.key), unmasked(data[begin:at], head.key, 0)))
    return found


def test_the_handshake_is_judged_and_written_anew() -> None:
    """The request is one question; extensions are not offered; the answer and what comes right behind it cross."""
    run = Rehearsal().says(HANDSHAKE + frame(1, b"early", final=True, key=MASK))
    assert ["websocket"] == [question.request.upgrade for question in run.questions if question.request is not None]
    assert b"xtensions" not in run.upstream
    assert run.upstream.endswith(b"connection: upgrade\r\nupgrade: websocket\r\n\r\n")
    before = len(run.upstream)
    run.answers(SWITCHED + frame(2, b"hello", final=True))
    assert [(1, True, True, b"early")] == read(run.upstream[before:])
    assert run.client.endswith(frame(2, b"hello", final=True))
    assert {1} == set(run.decisions)


@pytest.mark.parametrize(
    "said",
    [
        HANDSHAKE.replace(b"GET", b"POST"),
        HANDSHAKE.replace(b"Version: 13", b"Version: 8"),
        HANDSHAKE.replace(KEY.encode(), b"short"),
        HANDSHAKE.replace(b"\r\n\r\n", b"\r\nSec-WebSocket-Key: " + KEY.encode() + b"\r\n\r\n"),
        HANDSHAKE.replace(b"\r\n\r\n", b"\r\nContent-Length: 1\r\n\r\nx"),
    ],
    ids=["POST", "version", "short key", "two keys", "body"],
)
def test_handshakes_that_are_none(said: bytes) -> None:
    """What is no handshake of WebSocket is refused before any policy."""
    run = Rehearsal().says(said)
    assert (True, [], []) == (run.client.startswith(b"HTTP/1.1 400"), run.questions, run.dials)


@pytest.mark.parametrize(
    "answer",
    [
        SWITCHED.replace(accept(KEY).encode(), accept("x" * 22 + "==").encode()),
        SWITCHED.replace(b"Upgrade: websocket", b"Upgrade: other"),
        SWITCHED.replace(b"\r\n\r\n", b"\r\nSec-WebSocket-Extensions: permessage-deflate\r\n\r\n"),
    ],
    ids=["another proof", "another protocol", "an extension"],
)
def test_answers_that_are_none(answer: bytes) -> None:
    """A target that did not understand what it was asked is no WebSocket: nothing more goes to it."""
    run = Rehearsal().says(HANDSHAKE).answers(answer)
    assert run.client.startswith(b"HTTP/1.1 502")
    before = run.upstream
    run.says(frame(1, b"x", final=True, key=MASK))
    assert before == run.upstream


def test_frames_cross_and_are_scrambled_anew() -> None:
    """Messages in parts with a PING between them cross as they are, with keys of our own."""
    run = opened()
    said = (
        frame(1, b"he", final=False, key=MASK) + frame(9, b"?", final=True, key=MASK) + frame(0, b"llo", final=True, key=MASK)
    )
    run.says(said)
    assert [(1, False, True, b"he"), (9, True, True, b"?"), (0, True, True, b"llo")] == read(run.upstream)
    assert MASK not in run.upstream
    run.answers(frame(10, b"?", final=True) + frame(8, b"\x03\xe8bye", final=True))
    assert [(10, True, False, b"?"), (8, True, False, b"\x03\xe8bye")] == read(run.client)


def test_large_frames_go_on_in_fragments() -> None:
    """A frame that is longer than what is held goes on in parts of it, and is the same message."""
    run = opened()
    payload = bytes(range(256)) * 1_000
    run.says(frame(2, payload, final=True, key=MASK), step=10_000)
    found = read(run.upstream)
    assert payload == b"".join(part for *_, part in found)
    assert [2, *[0] * (len(found) - 1)] == [opcode for opcode, *_ in found]
    assert [False] * (len(found) - 1) + [True] == [final for _, final, *_ in found]
    assert max(len(part) for *_, part in found) == HELD_BYTES_MAX


BAD = "ä".encode()[:1]
BROKEN: list[tuple[str, Side, bytes, int]] = [
    ("not masked", Side.CLIENT, frame(1, b"x", final=True), 1002),
    ("masked by a server", Side.UPSTREAM, frame(1, b"x", final=True, key=MASK), 1002),
    ("an unknown opcode", Side.CLIENT, frame(3, b"x", final=True, key=MASK), 1002),
    ("an unknown control opcode", Side.CLIENT, frame(11, b"", final=True, key=MASK), 1002),
    ("a reserved bit", Side.CLIENT, bytes([0xA1]) + frame(1, b"x", final=True, key=MASK)[1:], 1002),
    ("packed", Side.UPSTREAM, bytes([0xC1]) + frame(1, b"x", final=True)[1:], 1002),
    ("a continuation of nothing", Side.CLIENT, frame(0, b"x", final=True, key=MASK), 1002),
    ("a message in a message", Side.CLIENT, frame(1, b"x", final=False, key=MASK) * 2, 1002),
    ("a PING in parts", Side.CLIENT, frame(9, b"x", final=False, key=MASK), 1002),
    ("a PING too long", Side.UPSTREAM, frame(9, bytes(126), final=True), 1002),
    ("a length of 64 bits", Side.UPSTREAM, b"\x82\x7f\xff" + bytes(7), 1002),
    ("a Close of one byte", Side.CLIENT, frame(8, b"x", final=True, key=MASK), 1002),
    ("a Close that is none", Side.CLIENT, frame(8, (1005).to_bytes(2, "big"), final=True, key=MASK), 1002),
    ("a Close far out", Side.CLIENT, frame(8, (5000).to_bytes(2, "big"), final=True, key=MASK), 1002),
    ("no UTF-8", Side.CLIENT, frame(1, b"\xff", final=True, key=MASK), 1007),
    ("half of a character", Side.UPSTREAM, frame(1, BAD, final=True), 1007),
    ("a reason that is no text", Side.CLIENT, frame(8, b"\x03\xe8\xff", final=True, key=MASK), 1007),
]


@pytest.mark.parametrize(("side", "said", "code"), [case[1:] for case in BROKEN], ids=[case[0] for case in BROKEN])
@pytest.mark.parametrize("step", [0, 1])
def test_what_breaks_the_protocol_closes_it(side: Side, said: bytes, code: int, step: int) -> None:
    """Both sides get a Close with the code, and nothing behind it, whatever comes; what was right before it has gone on."""
    run = opened()
    good = frame(2, b"good", final=True, key=MASK if side is Side.CLIENT else b"")
    (run.says if side is Side.CLIENT else run.answers)(good + said + good, step=step)
    assert [(8, True, side is Side.UPSTREAM, code.to_bytes(2, "big"))] == read(bytes(run.sent[side]))
    across = read(bytes(run.sent[side.other]))
    assert (2, b"good") == across[0][::3]
    assert (8, code.to_bytes(2, "big")) == across[-1][::3]
    assert 1 == len(run.refused)
    assert Close() == run.silent(Timer.DEADLINE).closed


def test_characters_may_be_cut() -> None:
    """A character in two fragments is one."""
    run = opened()
    run.answers(frame(1, BAD, final=False) + frame(0, "ä".encode()[1:], final=True))
    assert "ä".encode() == b"".join(part for *_, part in read(run.client))


def test_nothing_comes_behind_a_close() -> None:
    """What a peer says after its Close goes nowhere; the ends of both are the connection's."""
    run = opened()
    run.says(frame(8, b"", final=True, key=MASK) + frame(1, b"more", final=True, key=MASK)).says(b"anything")
    assert [8] == [opcode for opcode, *_ in read(run.upstream)]
    run.answers(frame(8, b"", final=True))
    run.ends(Side.UPSTREAM).ends(Side.CLIENT)
    assert ({Side.CLIENT}, Close()) == (run.finished, run.closed)


def test_a_cut_is_a_cut() -> None:
    """A side that is cut cuts the other."""
    assert Close(abort=True) == opened().ends(Side.UPSTREAM, clean=False).closed


# -- properties ----------------------------------------------------------------------------------------------------------------

messages = st.lists(
    st.one_of(
        st.builds(TextMessage, data=st.text(max_size=300), message_finished=st.booleans()),
        st.builds(BytesMessage, data=st.binary(max_size=300).map(bytes), message_finished=st.booleans()),
        st.builds(Ping, payload=st.binary(max_size=20)),
    ),
    max_size=8,
)


@given(messages, st.integers(0, 40))
def test_others_read_what_was_said(events: list[Event], step: int) -> None:
    """What wsproto's client says is what wsproto's server reads behind the proxy, however it is cut."""
    client, server = Connection(ConnectionType.CLIENT), Connection(ConnectionType.SERVER)
    run, inside, said = opened(), None, list[Event]()
    for event in events:
        if isinstance(event, TextMessage | BytesMessage):
            if inside not in (None, type(event)):
                continue
            inside = None if event.message_finished else type(event)
        said.append(event)
        run.says(client.send(event), step=step)
    server.receive_data(run.upstream)
    assert [told(event) for event in said] == [told(event) for event in server.events()]


def told(event: Event) -> tuple[object, ...]:
    """Give what an event says."""
    assert isinstance(event, TextMessage | BytesMessage | Ping)
    if isinstance(event, Ping):
        return "ping", bytes(event.payload)
    return type(event), event.data if isinstance(event.data, str) else bytes(event.data), event.message_finished


@given(st.lists(st.binary(min_size=1, max_size=30), max_size=6), st.booleans())
def test_a_relay_says_the_same_however_it_is_cut(parts: list[bytes], from_client: bool) -> None:
    """Of any bytes the same goes on, and the same is wrong, at whatever cut."""

    def zero(count: int) -> bytes:
        return bytes(count)

    def run(pieces: list[bytes]) -> tuple[bytes, int | None]:
        relay, out = Relay(from_client=from_client, random=zero), b""
        for piece in pieces:
            goes_on, error = relay.receive(piece)
            out += goes_on
            if error is not None:
                return out, error.code
        return out, None

    said = b"".join(parts)
    assert run([said]) == run(parts) == run([said[at : at + 1] for at in range(len(said))])
    assert KEY_BYTES == len(zero(KEY_BYTES))


# -- real ones -----------------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def server(*words: str | Path) -> Iterator[int]:
    """Run a server that says its port."""
    with subprocess.Popen([sys.executable, "-P", *map(str, words)], stdout=subprocess.PIPE, text=True) as running:
        try:
            assert running.stdout is not None
            yield int(running.stdout.readline().split()[1])
        finally:
            running.kill()


@pytest.mark.parametrize("upgrade", [True, False])
def test_websockets(tmp_path: Path, upgrade: bool) -> None:
    """The `websockets` library on both ends: messages of all sizes, pings, an orderly close; or 403 without a rule."""
    require(find_spec("websockets"), "needs websockets; `make env-test` brings it")
    certificates = make(tmp_path)

    def judge(question: Question) -> Verdict:
        verdict = by_path(question)
        return Verdict(number=verdict.number, allowed=question.kind is Kind.REQUEST, upgrade=upgrade)

    with (
        server(SCRIPT, "serve", certificates.certificate, certificates.key) as port,
        proxied(tmp_path, port, certificates, judge) as proxy,
    ):
        words = (sys.executable, "-P", SCRIPT, "talk", str(port), proxy.trust, ADDRESS)
        done = subprocess.run([*map(str, words)], capture_output=True, text=True, timeout=60, check=False)
        assert 0 == done.returncode, done
        told = json.loads(done.stdout)
        expected: dict[str, object] = (
            {"echoed": True, "pinged": True, "code": 1000, "extensions": []} if upgrade else {"status": 403}
        )
        assert expected == told
        assert ([], 0) == (proxy.mistakes, proxy.counters.defects)


def test_wsproto_agrees_about_handshakes() -> None:
    """The handshake that is used here is one to wsproto too."""
    found = WSConnection(ConnectionType.SERVER)
    found.receive_data(HANDSHAKE)
    assert ["Request"] == [type(event).__name__ for event in found.events()]
