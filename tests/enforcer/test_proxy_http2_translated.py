"""Agents with HTTP/2 before targets without: streams that become requests of HTTP/1.1, one after the other.

What lives here: what is written and what comes back. What must not: TLS and what is remembered (test_proxy_tls.py).
"""

from __future__ import annotations

import pytest

from capd.enforcer.proxy.connection import Connection
from capd.enforcer.proxy.events import Side, Timer
from capd.enforcer.proxy.http2 import Http2Layer
from capd.enforcer.proxy.http2.limits import TARGET_CONNECTION_BYTES
from capd.enforcer.proxy.layer import Surroundings
from capd.enforcer.proxy.question import Destination
from tests.enforcer.rehearsal import Rehearsal, allow
from tests.enforcer.streams import Fields, Streams, facts, head, streams

HERE = Destination(address="192.0.2.1", port=443)
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


def core() -> Connection:
    """Give the layer as it is inside of TLS."""
    around = Surroundings(destination=HERE, session="s", server_name="api.test", inspected=True)
    return Connection(Http2Layer(around, dialled=False))


def secure(method: str = "GET", path: str = "/x", *more: tuple[str, str]) -> Fields:
    """Give the fields of a request in TLS."""
    return [(name, "https" if name == ":scheme" else value) for name, value in head(method, path, *more)]


class Old(Streams):
    """A conversation with a target of HTTP/1.1: its bytes are not HTTP/2's."""

    def go(self) -> Streams:
        """Carry bytes between the client and the core."""
        before = -1
        while before < self.taken[Side.CLIENT]:
            before = self.taken[Side.CLIENT]
            if said := self.client.data_to_send():
                self.run.says(said)
            self.hear()
        return self

    def hear(self) -> None:
        """Have the client read."""
        new = bytes(self.run.sent[Side.CLIENT][self.taken[Side.CLIENT] :])
        self.taken[Side.CLIENT] += len(new)
        self._hear(Side.CLIENT, self.client, new)

    def says(self, answer: bytes) -> Old:
        """Have the target say something."""
        self.run.answers(answer)
        self.go()
        return self


def old(run: Rehearsal | None = None) -> Old:
    """Begin one."""
    made = streams(run or Rehearsal(core=core, chosen="http/1.1"))
    found = Old(made.run, made.client, made.target, seen=made.seen, taken=made.taken)
    found.go()
    return found


ANSWERS = [
    ("a length", OK, "200", b"ok", None),
    ("chunks", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n", "200", b"ok", None),
    (
        "trailers",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\nX-Sum: 7\r\n\r\n",
        "200",
        b"ok",
        [("x-sum", "7")],
    ),
    ("nothing", b"HTTP/1.1 204 No Content\r\n\r\n", "204", b"", None),
    ("an interim one before", b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n" + OK, "200", b"ok", None),
]


@pytest.mark.parametrize(
    ("answer", "status", "body", "trailers"), [case[1:] for case in ANSWERS], ids=[case[0] for case in ANSWERS]
)
@pytest.mark.parametrize("step", [0, 1])
def test_answers_come_back(answer: bytes, status: str, body: bytes, trailers: Fields | None, step: int) -> None:
    """Whatever its framing, an answer of HTTP/1.1 is one of HTTP/2, whole, and its connection fields stay behind."""
    told = old()
    number = told.asks(secure())
    for at in range(0, len(answer), step or len(answer)):
        told.says(answer[at : at + (step or len(answer))])
    seen = told.at_client(number)
    assert (status, body, True, trailers) == (seen[":status"], bytes(seen.body), seen.ended, seen.trailers)
    assert seen["transfer-encoding"] is None
    told.asks(secure(path="/next"))
    assert (set(), 1, {}) == (told.run.finished, len(told.run.dials), told.goaway)
    assert told.run.upstream.endswith(b"GET /next HTTP/1.1\r\nhost: api.test\r\n\r\n")


def test_a_body_until_the_end_of_the_connection() -> None:
    """An answer that ends with its connection is whole when that ends in order, and never when it was cut."""
    for clean, ended, reset in ((True, True, None), (False, False, 2)):
        told = old()
        number = told.asks(secure())
        told.says(b"HTTP/1.1 200 OK\r\n\r\nuntil the end")
        told.run.ends(Side.UPSTREAM, clean=clean)
        told.hear()
        seen = told.at_client(number)
        assert (b"until the end", ended, reset) == (bytes(seen.body), seen.ended, seen.reset)


@pytest.mark.parametrize(
    "answer",
    [
        b"SSH-2.0-x\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nConnection: date\r\n\r\n",
    ],
    ids=["no HTTP", "another protocol", "a field that is nominated"],
)
def test_answers_that_are_none(answer: bytes) -> None:
    """What is no answer is 502."""
    told = old()
    number = told.asks(secure())
    told.says(answer)
    assert ("502", "target_failed") == (told.at_client(number)[":status"], facts(told.at_client(number))["error"])


def kept(told: Old, count: int) -> list[int]:
    """Ask so many that are held, and then allowed one after the other, with a target that was found to be old."""
    numbers = [told.asks(secure(path=f"/{turn}")) for turn in range(count)]
    for number in numbers:
        told.decide(number)
    return numbers


@pytest.mark.parametrize(("answer", "dials"), [(OK, 1), (OK.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"), 3)])
def test_what_was_asked_is_answered_in_turn(answer: bytes, dials: int) -> None:
    """Streams that were judged when the target turned out to be old follow each other, over new connections if need be."""
    run = Rehearsal(judge=None, core=core, chosen="http/1.1")
    told = old(run)
    numbers = kept(told, 3)
    for number in numbers:
        told.says(answer)
        assert b"ok" == bytes(told.at_client(number).body)
    assert (dials, 3) == (len(run.dials), run.upstream.count(b"GET /"))
    assert {} == told.goaway


def test_whoever_waits_too_long_is_sent_elsewhere() -> None:
    """Behind an answer that does not end others wait for a while, and are then given back; that one goes on."""
    run = Rehearsal(core=core, chosen="http/1.1")
    told = old(run)
    first = told.asks(secure())
    told.says(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n")
    told.asks(secure(path="/other"))
    assert Timer.TURN in run.armed
    run.silent(Timer.TURN)
    told.go()
    assert ({Side.CLIENT: (first, 0)}, 1) == (told.goaway, run.upstream.count(b"GET "))
    late = told.asks(secure(path="/late"))
    assert 7 == told.at_client(late).reset
    told.says(b"0\r\n\r\n")
    assert (True, {Side.CLIENT}) == (told.at_client(first).ended, run.finished)


def test_what_is_given_up_in_the_middle_costs_its_connection() -> None:
    """A client that gives up the answer that is under way has the next one asked over a new connection."""
    run = Rehearsal(judge=None, core=core, chosen="http/1.1")
    told = old(run)
    first, second = kept(told, 2)
    told.says(OK[:-1])
    told.client.reset_stream(first, 8)
    told.go()
    assert 2 == len(run.dials)
    told.says(OK)
    assert (b"ok", b"GET /1") == (
        bytes(told.at_client(second).body),
        run.upstream[-len(b"GET /1 HTTP/1.1\r\nhost: api.test\r\n\r\n") :][:6],
    )


def test_an_upload_is_written_as_it_comes() -> None:
    """A body without a length goes in chunks, one with a length as it is; 100 crosses; the answer may be faster."""
    told = old(Rehearsal(core=core, chosen="http/1.1", judge=allow))
    number = told.asks(secure("POST", "/up", ("content-length", "4"), ("expect", "100-continue")), ends=False)
    assert b"content-length: 4\r\nexpect: 100-continue\r\n\r\n" in told.run.upstream
    told.says(b"HTTP/1.1 100 Continue\r\n\r\n")
    told.client.send_data(number, b"ab")
    told.go()
    assert told.run.upstream.endswith(b"\r\n\r\nab")
    told.says(OK)
    assert (b"ok", [[(":status", "100")]]) == (bytes(told.at_client(number).body), told.at_client(number).fields[:1])
    told.client.send_data(number, b"cd", end_stream=True)
    told.go()
    assert told.run.upstream.endswith(b"abcd")


def test_a_body_that_turns_out_to_be_empty_has_an_end() -> None:
    """A body that was announced and is empty is written with its end, so that what is asked next is no part of it."""
    run = Rehearsal(judge=None, core=core, chosen="http/1.1")
    told = old(run)
    first, second = told.asks(secure("POST", "/up"), b""), told.asks(secure("1F", "/next"))
    told.decide(first)
    told.decide(second)
    told.says(OK)
    asked = b"POST /up HTTP/1.1\r\nhost: api.test\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n"
    assert asked + b"1F /next HTTP/1.1\r\nhost: api.test\r\n\r\n" == run.upstream


def test_a_head_that_becomes_too_long_is_answered() -> None:
    """A head that is longer in HTTP/1.1 than one may be is not sent, and told; what comes next has a target again."""
    told = old()
    number = told.asks(secure("GET", "/x?" + " a" * 18_000 + "b"))
    seen = told.at_client(number)
    assert ("502", "target_failed", b"") == (seen[":status"], facts(seen)["error"], told.run.upstream)
    after = told.asks(secure("GET", "/next"))
    told.says(OK)
    assert (b"ok", 2) == (bytes(told.at_client(after).body), len(told.run.dials))


def test_answers_of_one_target_after_the_other_are_bounded_together() -> None:
    """A client that takes nothing keeps no more of answers waiting because each came over a connection of its own."""
    told = old()
    told.taking = set()
    body = bytes(500_000)
    answer = b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: %d\r\n\r\n" % len(body) + body
    while told.run.reading[Side.UPSTREAM]:
        told.asks(secure())
        told.says(answer)
    assert len(told.run.dials) <= TARGET_CONNECTION_BYTES // len(body) + 1
    told.taking = {Side.CLIENT}
    for number, seen in told.seen[Side.CLIENT].items():
        told.client.acknowledge_received_data(len(seen.body), number)
    told.go()
    assert told.run.reading[Side.UPSTREAM]
    assert {len(body)} == {len(seen.body) for seen in told.seen[Side.CLIENT].values()}


def test_a_download_waits_for_its_client() -> None:
    """A target of HTTP/1.1 has no windows: it is not read while its client takes nothing."""
    told = old()
    told.taking = set()
    number = told.asks(secure())
    told.says(b"HTTP/1.1 200 OK\r\nContent-Length: 2000000\r\n\r\n" + bytes(1_000_000))
    assert not told.run.reading[Side.UPSTREAM]
    told.taking = {Side.CLIENT}
    while told.run.reading[Side.UPSTREAM] is False:
        told.client.acknowledge_received_data(min(65_535, len(told.at_client(number).body)), number)
        told.go()
    told.says(bytes(1_000_000))
    assert (2_000_000, True) == (len(told.at_client(number).body), told.at_client(number).ended)
