"""Streams of HTTP/2 that a target did not look at, that nobody waits for any more, and how many that are over are remembered.

What lives here: the core with a person's approval in values. What must not: sockets (test_proxy_http2_shell.py).
"""

from __future__ import annotations

from dataclasses import replace

import pytest

from capd.enforcer.proxy.events import Decided, Held, Side, Timer
from capd.enforcer.proxy.http2.limits import CLIENT_CONNECTION_BYTES, CLIENT_STREAM_BYTES, CLOSED_STREAMS_MAX, TRIES_MAX
from capd.enforcer.proxy.http2.peer import Broken, Peer
from capd.enforcer.proxy.question import Question, Verdict
from tests.enforcer.rehearsal import Rehearsal, allow
from tests.enforcer.streams import Streams, connection, goaway, head, streams
from tests.enforcer.test_proxy_http2_refused import frame

BODY = b"what a person read"


def _approve(question: Question) -> Verdict:
    """Look at the body, as a person must, then approve."""
    found = allow(question)
    if question.body is None:
        return replace(found, allowed=False, body_bytes=1_000)
    return replace(found, approval={"id": "a1", "outcome": "approved", "by": "user:ann"})


def _another_target(told: Streams) -> None:
    """Put a new target in the place of the one that was dialled before; what that was still sent is of no interest."""
    told.taken[Side.UPSTREAM] = told.run.sent[Side.UPSTREAM].rindex(b"PRI * HTTP/2.0")
    told.target = connection(client=False)
    told.target.initiate_connection()
    told.seen[Side.UPSTREAM] = {}
    told.go()


def _refusing(number: int) -> bytes:
    return frame(3, 0, number, (7).to_bytes(4, "big"))


def test_an_approval_outlives_a_target_that_leaves() -> None:
    """A request that a person approved, and that the target never looked at, goes to the next one, whole, unasked about."""
    run = Rehearsal(judge=_approve)
    told = streams(run)
    number = told.asks(head("POST"), BODY)
    assert BODY == bytes(told.at_target(1).body)
    asked = len(run.questions)
    run.answers(goaway(0))
    _another_target(told)
    assert (2, asked, BODY) == (len(run.dials), len(run.questions), bytes(told.at_target(1).body))
    told.answers(1)
    assert (b"ok", None) == (bytes(told.at_client(number).body), told.at_client(number).reset)
    assert [] == run.unsent


def test_an_approval_waits_for_the_target_to_finish() -> None:
    """While the target that leaves still works on another stream, what was approved waits; then the next is dialled."""
    run = Rehearsal(
        judge=lambda question: _approve(question) if question.body is None or question.body.content else allow(question)
    )
    told = streams(run)
    works = told.asks(head(path="/works"))
    number = told.asks(head("POST"), BODY)
    run.answers(goaway(1))
    told.go()
    assert (1, None) == (len(run.dials), told.at_client(number).reset)
    told.target.send_headers(1, [(":status", "204")], end_stream=True)
    run.answers(told.target.data_to_send())
    _another_target(told)
    assert "204" == told.at_client(works)[":status"]
    assert (2, BODY) == (len(run.dials), bytes(told.at_target(1).body))
    told.answers(1)
    assert b"ok" == bytes(told.at_client(number).body)


def test_an_approval_outlives_a_refused_stream() -> None:
    """REFUSED_STREAM of a target is asked again in its connection, so often, and told to the client then."""
    run = Rehearsal(judge=_approve)
    told = streams(run)
    number = told.asks(head("POST"), BODY)
    for tries in range(1, TRIES_MAX + 1):
        assert (None, BODY) == (told.at_client(number).reset, bytes(told.at_target(2 * tries - 1).body))
        run.answers(told.target.data_to_send() + _refusing(2 * tries - 1))
        told.go()
    assert (7, 1) == (told.at_client(number).reset, len(run.dials))


def test_what_nobody_approved_is_given_back() -> None:
    """Without an approval a stream that was not looked at is the client's to repeat, as ever."""
    run = Rehearsal()
    told = streams(run)
    number = told.asks(head("POST"), BODY)
    run.answers(told.target.data_to_send() + _refusing(1))
    told.go()
    assert (7, 1) == (told.at_client(number).reset, len(run.dials))


@pytest.mark.parametrize("sent", [True, False])
def test_what_was_not_sent_is_said(sent: bool) -> None:
    """A stream that is given up after it was allowed is told of as unsent, unless something of it was sent."""
    run = Rehearsal(reachable=True if sent else None)
    told = streams(run)
    number = told.asks(head("POST"), b"", ends=False)
    told.client.reset_stream(number)
    told.go()
    assert ([1], [] if sent else [1]) == (run.over, run.unsent)


@pytest.mark.parametrize("sent", [True, False])
def test_what_was_not_sent_is_said_of_all_that_ends_with_a_connection(sent: bool) -> None:
    """So it is of every stream of a client that leaves."""
    run = Rehearsal(reachable=True if sent else None)
    told = streams(run)
    for _each in range(3):
        told.asks(head("POST"), b"", ends=False)
    run.ends(Side.CLIENT)
    assert run.closed is not None
    assert ([] if sent else [1, 2, 3]) == run.unsent


def test_few_streams_that_are_over_are_remembered() -> None:
    """However many a connection had, a thousand that are over are kept; what comes late for one of these ends nothing."""
    peer = Peer(serves=True, stream_bytes=CLIENT_STREAM_BYTES, connection_bytes=CLIENT_CONNECTION_BYTES)
    client = connection(client=True)
    client.initiate_connection()
    count = 3 * CLOSED_STREAMS_MAX
    for _each in range(count):
        number = client.get_next_available_stream_id()
        client.send_headers(number, head(), end_stream=False)
        heard = peer.receive(client.data_to_send())
        assert not any(isinstance(one, Broken) for one in heard)
        peer.reset(number, 8)
        client.receive_data(peer.take())
    assert len(peer._h2._closed_streams) <= CLOSED_STREAMS_MAX
    assert not [
        one for one in peer.receive(frame(0, 0, 2 * (count - CLOSED_STREAMS_MAX // 2) - 1, b"late")) if isinstance(one, Broken)
    ]


def _pings(said: bytearray) -> int:
    return said.count(b"\0\0\x08\x06\0\0\0\0\0")


def test_a_client_hears_something_while_a_person_is_asked() -> None:
    """PING says that the connection lives, as long as a stream is held and no longer; others are not asked for one."""
    run = Rehearsal(judge=None)
    told = streams(run)
    number = told.asks(head())
    assert Timer.STILL not in run.armed
    run.tell(Held(1, "a1"))
    for _each in range(3):
        before = _pings(run.sent[Side.CLIENT])
        run.silent(Timer.STILL)
        told.go()
        assert (before + 1, True) == (_pings(run.sent[Side.CLIENT]), Timer.STILL in run.armed)
    run.tell(Decided(allow(run.asked.popleft())))
    told.go().answers(1)
    assert (b"ok", False) == (bytes(told.at_client(number).body), Timer.STILL in run.armed)


def test_no_sign_is_given_for_a_stream_that_was_given_up() -> None:
    """When the client does not wait any more, nor does the timer."""
    run = Rehearsal(judge=None)
    told = streams(run)
    number = told.asks(head())
    run.tell(Held(1, "a1"))
    told.client.reset_stream(number)
    told.go()
    assert Timer.STILL not in run.armed
