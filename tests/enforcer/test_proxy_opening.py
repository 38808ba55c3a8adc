"""The begin of a conversation: who speaks first, what is not decoded, and what silence means.

What lives here: conversations as bytes. What must not: HTTP and TLS in themselves.
"""

from __future__ import annotations

import pytest

from capd.enforcer.proxy.commands import Close
from capd.enforcer.proxy.events import Data, Dialled, Side, Timer
from capd.enforcer.proxy.opening import HELD_BYTES_MAX
from capd.enforcer.proxy.question import Destination, Kind, Question, Verdict
from tests.decoders import mysql_bytes as my
from tests.enforcer.rehearsal import Rehearsal, allow, deny


def only_requests(question: Question) -> Verdict:
    """Let nothing pass that is not decoded."""
    return Verdict(number=question.number, allowed=question.kind is Kind.REQUEST)


@pytest.mark.parametrize(
    ("said", "protocol"),
    [
        (b"SSH-2.0-client\r\n", "ssh"),
        (b"\x2c\1\0\0\1\0\0\0\0\0\0\0\xdd\7\0\0", "mongodb"),
        (b"\xff\xfe\xfd", "unknown"),
    ],
)
@pytest.mark.parametrize("step", [0, 1])
def test_what_is_not_decoded_is_asked_about(said: bytes, protocol: str, step: int) -> None:
    """A protocol without a proxy is one question, by its name; denied by default, else relayed under that decision.

    The question does not wait for a name once it can be nothing that is decoded.
    """
    protocol = protocol if step == 0 or protocol == "ssh" else "unknown"
    denied = Rehearsal(judge=only_requests).says(said, step=step)
    assert [(Kind.OPAQUE, protocol)] == [(question.kind, question.protocol) for question in denied.questions]
    assert denied.closed is not None
    assert denied.closed.abort
    assert (b"", []) == (denied.upstream, denied.dials)
    allowed = Rehearsal().says(said, step=step)
    assert (said, {1}) == (allowed.upstream, set(allowed.decisions))


@pytest.mark.parametrize(("port", "kind"), [(6379, Kind.SESSION), (11211, Kind.OPAQUE)])
@pytest.mark.parametrize("said", [b"GET k\r\n", b"PING\r\n"])
def test_a_line_is_of_redis_where_its_port_says_so(said: bytes, port: int, kind: Kind) -> None:
    """A line that many protocols could begin with is taken for Redis only at its port, and waits for nothing elsewhere."""
    run = Rehearsal(judge=None, destination=Destination(address="192.0.2.1", port=port)).says(said)
    assert [kind] == [question.kind for question in run.asked]


@pytest.mark.parametrize(
    ("said", "port"),
    [
        (b"*0\r\n*1\r\n$8\r\nFLUSHALL\r\n", 6380),
        (b"*-9\r\n*1\r\n$8\r\nFLUSHALL\r\n", 6380),
        (b"*1\rX$8\r\nFLUSHALL\r\n", 6380),
        (b"\xff\r\nFLUSHALL\r\n", 6379),
        (b"SSH-2.0-x\r\nFLUSHALL\r\n", 6379),
        (b"\r\nFLUSHALL\r\n", 6379),
    ],
)
@pytest.mark.parametrize("step", [0, 1])
def test_what_redis_would_take_is_not_relayed_unread(said: bytes, port: int, step: int) -> None:
    """What no client of Redis says, and Redis passes over, opens no way around what is judged, though all else may pass."""
    destination = Destination(address="192.0.2.1", port=port)
    run = Rehearsal(judge=only_opaque, destination=destination).says(said, step=step)
    assert Kind.OPAQUE not in [question.kind for question in run.questions]
    assert (b"", True) == (run.upstream, run.closed is not None)


def test_a_server_may_speak_first() -> None:
    """A client that waits is dialled for after a short silence, if what is not decoded may pass; then each side is relayed."""
    run = Rehearsal()
    assert [] == run.dials
    run.silent().answers(b"220 ready\r\n")
    assert (b"220 ready\r\n", [1]) == (run.client, run.dials)
    run.says(b"EHLO x\r\n").ends(Side.CLIENT).answers(b"250 bye\r\n")
    assert (b"EHLO x\r\n", {Side.UPSTREAM}) == (run.upstream, run.finished)
    assert run.client.endswith(b"250 bye\r\n")
    run.ends(Side.UPSTREAM)
    assert run.closed is not None
    assert not run.closed.abort


def test_a_slow_client_is_not_taken_for_a_silent_one() -> None:
    """Where what is not decoded may not pass, a client that takes its time is still told by its bytes."""
    run = Rehearsal(judge=only_requests).silent()
    assert (None, []) == (run.closed, run.dials)
    run.says(b"GET / HTTP/1.1\r\nHost: api.test\r\n\r\n")
    assert run.upstream.startswith(b"GET / HTTP/1.1")
    assert {3} == set(run.decisions)


def test_silence_opens_no_way_around_a_protocol() -> None:
    """A client that waited until it was dialled for and then speaks HTTP is judged like any other."""
    run = Rehearsal().silent()
    assert [1] == run.dials
    run.judge = deny
    run.says(b"GET / HTTP/1.1\r\nHost: api.test\r\n\r\n")
    assert [Kind.SESSION, Kind.REQUEST] == [question.kind for question in run.questions]
    assert b"" == run.upstream
    assert run.client.startswith(b"HTTP/1.1 403")


def test_speaking_while_it_is_dialled_opens_none_either() -> None:
    """A client that speaks HTTP between the question and the target's answer is judged like any other, too."""
    run = Rehearsal(reachable=None).silent()
    run.judge = deny
    run.says(b"GET / HTTP/1.1\r\nHost: api.test\r\n\r\n")
    run.tell(Dialled())
    assert [Kind.SESSION, Kind.REQUEST] == [question.kind for question in run.questions]
    assert b"" == run.upstream
    assert run.client.startswith(b"HTTP/1.1 403")


def test_a_client_that_only_listens_is_asked_about() -> None:
    """A client that ends its direction at once may still want to hear what the server says."""
    run = Rehearsal().ends(Side.CLIENT)
    assert ({Side.UPSTREAM}, [1]) == (run.finished, run.dials)
    run.answers(b"Sat Nov 28\r\n")
    assert b"Sat Nov 28\r\n" == run.client
    denied = Rehearsal(judge=deny).ends(Side.CLIENT)
    assert denied.closed is not None


def test_bytes_that_wait_are_bounded() -> None:
    """While a question is open, or a target dialled, a client is held up, and nothing is sent."""
    run = Rehearsal(judge=None, reachable=None).says(b"\xff" * HELD_BYTES_MAX)
    assert run.reading == {Side.CLIENT: False, Side.UPSTREAM: True}
    run.decide(lambda asked: Verdict(number=asked.number, allowed=True))
    assert (b"", [1]) == (run.upstream, run.dials)
    run.tell(Dialled())
    assert (HELD_BYTES_MAX, True) == (len(run.upstream), run.reading[Side.CLIENT])


def test_a_cut_is_passed_on_as_one() -> None:
    """What is relayed unread ends for one side as it ended for the other: cleanly, or as a reset."""
    for side in Side:
        run = Rehearsal().says(b"\xff\xff\xff").ends(side, clean=False)
        assert run.closed is not None
        assert run.closed.abort


def test_nobody_waits_for_ever() -> None:
    """A client that never says what it is, is cut off after its time; it was dialled for nowhere."""
    run = Rehearsal(judge=only_requests).silent().says(b"GE").silent(Timer.DEADLINE)
    assert run.closed is not None
    assert 1 == len(run.refused)
    assert [] == run.dials


def test_what_a_target_says_unasked_goes_nowhere() -> None:
    """Bytes of a target before any decision are a defect of ours at worst, and never reach the agent."""
    run = Rehearsal(judge=None)
    run.tell(Data(Side.UPSTREAM, b"x"))
    assert b"" == run.client


@pytest.mark.parametrize("blank", [b"\r\n\r\n", b"\n", b" ", b"\t"])
@pytest.mark.parametrize("late", [False, True])
def test_a_request_behind_blanks_is_not_relayed_unread(blank: bytes, late: bool) -> None:
    """Where what is not decoded may pass, an empty line before a request does not make it that."""
    run = Rehearsal()
    if late:
        run.silent()
    run.says(blank + b"DELETE /x HTTP/1.1\r\nHost: api.test\r\n\r\n")
    assert (b"", True) == (run.upstream, run.closed is not None)


def test_a_client_of_mysql_is_told_why() -> None:
    """Where no session may be opened, whoever waits for a greeting at its port reads what a server would say, at once."""
    run = Rehearsal(judge=deny, destination=Destination(address="192.0.2.1", port=3306)).silent()
    assert ([], Close()) == (run.dials, run.closed)
    assert b"\xff\x6a\x04capd: no session may be opened here: no" == run.client[4:]
    assert [Kind.SESSION, Kind.OPAQUE] == [question.kind for question in run.questions]


def test_a_server_that_is_not_mysql_is_asked_about_again() -> None:
    """A target that was dialled for MySQL and speaks something else passes only where that may pass undecoded."""
    for judge, passes in ((allow, True), (only_sessions, False)):
        run = Rehearsal(judge=judge).silent().answers(b"220 mail.test ESMTP\r\n")
        assert [Kind.SESSION, Kind.OPAQUE] == [question.kind for question in run.questions]
        assert (b"220 mail.test ESMTP\r\n" if passes else b"") == run.client
        assert passes == (run.closed is None)


def test_a_server_of_mysql_is_greeted_for() -> None:
    """Its greeting becomes capd's, in pieces of any size; the server hears nothing."""
    for step in (0, 1):
        run = Rehearsal(judge=only_sessions).silent().answers(my.greeting(), step=step)
        assert (4 + run.client[0], b"") == (len(run.client), run.upstream)


def only_sessions(question: Question) -> Verdict:
    """Allow sessions of databases, and nothing else."""
    return allow(question) if question.kind is Kind.SESSION else deny(question)


def only_opaque(question: Question) -> Verdict:
    """Let everything pass that is not decoded, and no session of a database."""
    return Verdict(number=question.number, allowed=question.kind is Kind.OPAQUE)


@pytest.mark.parametrize("step", [0, 1])
@pytest.mark.parametrize("said", [b"", b"\xff\xfe\xfd"])
def test_no_session_of_mysql_is_relayed_unjudged(said: bytes, step: int) -> None:
    """Where only what is not decoded may pass, a server that greets as MySQL ends it, whatever the client said before."""
    run = Rehearsal(judge=only_opaque)
    run = run.says(said) if said else run.silent()
    assert 1 == len(run.dials)
    run.answers(my.greeting(), step=step)
    assert "MySQL" in run.refused[0].reason
    assert run.closed is not None
    assert len(run.client) < len(my.greeting())


def test_speaking_before_mysql_greets_opens_no_way_around_it() -> None:
    """A client that says something before the server has greeted gets no session: that ends with the greeting."""
    run = Rehearsal().silent().says(b"\xff\xfe\xfd").answers(my.greeting())
    assert ("MySQL" in run.refused[0].reason, b"") == (True, run.client)
    assert run.closed is not None
