"""HTTP/2 in the middle: what a target gets to see, what a client is told, and what stands between them.

What lives here: streams in order, and what ends early. What must not: what is refused (test_proxy_http2_refused.py), TLS.
"""

from __future__ import annotations

from collections.abc import Callable

import h2.settings
import pytest

from capd.enforcer.proxy.commands import Close
from capd.enforcer.proxy.events import Blocked, DialFailed, Dialled, Revoked, Side, Timer
from capd.enforcer.proxy.http1.limits import LINGER_BYTES_MAX
from capd.enforcer.proxy.http2.limits import (
    CLIENT_STREAM_BYTES,
    COLLECTED_BYTES_MAX,
    TARGET_CONNECTION_BYTES,
    TARGET_STREAM_BYTES,
)
from capd.enforcer.proxy.question import Body, Question, Verdict
from tests.enforcer.rehearsal import Rehearsal, allow, deny
from tests.enforcer.streams import facts, goaway, head, streams

GRPC = ("content-type", "application/grpc")
TE = ("te", "trailers")


def wants_body(limit: int = 1 << 20) -> Callable[[Question], Verdict]:
    """Give a judge that looks at bodies, and allows what has no `bad` in it and was read in full."""

    def judge(question: Question) -> Verdict:
        if question.body is None:
            return Verdict(number=question.number, allowed=False, body_bytes=limit)
        fine = question.body.complete and b"bad" not in question.body.content
        return Verdict(number=question.number, allowed=fine, reason="" if fine else "denied_by_policy", rule="looks")

    return judge


# -- requests and answers ------------------------------------------------------------------------------------------------------


def test_a_request_is_judged_and_written_anew() -> None:
    """The target is dialled after the decision and gets the request in our words, its body, and nothing of one connection."""
    run = Rehearsal(judge=None)
    told = streams(run)
    fields = head("POST", "/a/../b?q=%20", ("x-a", "1"), ("cookie", "a=1"), ("cookie", "b=2"), TE, ("content-length", "3"))
    number = told.asks(fields, b"abc")
    assert ([], b"") == (run.dials, run.upstream)
    question = run.asked[0]
    assert question.request is not None
    assert ("http2", number, "POST", "/b", "q=%20") == (
        question.protocol,
        question.exchange,
        question.request.method,
        question.request.path,
        question.request.query,
    )
    assert (("x-a", "1"), ("cookie", "a=1; b=2")) == question.request.fields
    told.decide(number)
    expected = [
        *head("POST", "/b?q=%20", ("x-a", "1"), ("content-length", "3"), TE, ("cookie", "a=1; b=2")),
    ]
    assert (expected, b"abc", True) == (told.at_target(1).fields[0], bytes(told.at_target(1).body), told.at_target(1).ended)
    told.answers(1, "201", b"made", ("alt-svc", 'h3=":1"'), ("x-capd-rule", "forged"), ("x-b", "2"))
    seen = told.at_client(number)
    assert ([(":status", "201"), ("x-b", "2")], b"made", True) == (seen.fields[0], bytes(seen.body), seen.ended)
    assert ([1], {1}) == (run.over, set(run.decisions))


def test_streams_are_judged_side_by_side() -> None:
    """One that is held stops no other, and is forwarded when its verdict comes, with the body that came meanwhile."""
    run = Rehearsal(judge=None)
    told = streams(run)
    held = told.asks(head("POST", "/held"), b"x" * 1_000, ends=False)
    other = told.asks(head(path="/other"))
    told.decide(other).answers(1)
    assert b"ok" == bytes(told.at_client(other).body)
    told.client.send_data(held, b"y", end_stream=True)
    told.go()
    assert [1] == told.asked
    told.decide(held)
    assert (b"x" * 1_000 + b"y", True) == (bytes(told.at_target(3).body), told.at_target(3).ended)


def test_each_byte_goes_under_the_decision_of_its_stream() -> None:
    """What a target is sent of a stream belongs to that stream's decision, and to no other."""
    run = Rehearsal()
    told = streams(run)
    for path in ("/a", "/b", "/c"):
        told.asks(head("POST", path), b"body")
    assert [1, 2, 3] == sorted(set(run.decisions))


def test_denials_leave_the_others_alone() -> None:
    """A denied stream gets its 403 with rule and reason, and may end its upload in peace; the next is forwarded."""
    run = Rehearsal(judge=deny)
    told = streams(run)
    number = told.asks(head("POST", "/no"), b"x", ends=False)
    seen = told.at_client(number)
    assert ("403", "none", "denied_by_policy", None) == (
        seen[":status"],
        seen["x-capd-rule"],
        facts(seen)["reason"],
        seen.reset,
    )
    told.client.send_data(number, b"y", end_stream=True)
    assert None is told.go().at_client(number).reset
    assert "s/1" == facts(seen)["decision"]
    run.judge = allow
    told.asks(head(path="/yes"))
    assert [1] == told.asked


@pytest.mark.parametrize(("reachable", "status", "message"), [(None, 7, "denied_by_policy"), (False, 14, "nobody there")])
def test_grpc_is_told_in_its_own_words(reachable: bool | None, status: int, message: str) -> None:
    """A refused call of gRPC gets HTTP 200 with a status and a message and nothing behind it."""
    run = Rehearsal(judge=deny if reachable is None else allow, reachable=reachable)
    told = streams(run)
    seen = told.at_client(told.asks(head("POST", "/pkg.Service/Call", GRPC, TE), b"\0\0\0\0\0"))
    assert ("200", str(status), True, b"") == (seen[":status"], seen["grpc-status"], seen.ended, bytes(seen.body))
    assert message in (seen["grpc-message"] or "")


def test_grpc_streams_both_ways_with_trailers() -> None:
    """Messages go across as they come, each way, before either side has ended; trailers with the status arrive."""
    told = streams()
    number = told.asks(head("POST", "/pkg.Service/Chat", GRPC, TE), b"one", ends=False)
    assert b"one" == bytes(told.at_target(1).body)
    told.target.send_headers(1, [(":status", "200"), GRPC])
    told.target.send_data(1, b"first")
    told.go()
    assert (b"first", False) == (bytes(told.at_client(number).body), told.at_client(number).ended)
    told.client.send_data(number, b"two")
    told.go()
    assert b"onetwo" == bytes(told.at_target(1).body)
    told.target.send_headers(1, [("grpc-status", "0"), ("grpc-message", "fine"), ("content-length", "9")], end_stream=True)
    told.go()
    assert [("grpc-status", "0"), ("grpc-message", "fine")] == told.at_client(number).trailers
    told.client.end_stream(number)
    told.go()
    assert ([1], True) == (told.run.over, told.at_target(1).ended)


def test_a_head_that_is_all_there_is_stays_one() -> None:
    """An answer without a body ends with its head: what gRPC calls trailers only must not become something else."""
    told = streams()
    number = told.asks(head("POST", "/s/m", GRPC, TE))
    told.answers(1, "200", b"", GRPC, ("grpc-status", "5"))
    assert (1, True, None) == (
        len(told.at_client(number).fields),
        told.at_client(number).ended,
        told.at_client(number).trailers,
    )


def test_interim_answers_cross() -> None:
    """100 and 103 reach the client before the answer, which they do not end."""
    told = streams()
    number = told.asks(head("POST", "/x", ("expect", "100-continue"), ("content-length", "2")), ends=False)
    assert ("expect", "100-continue") in told.at_target(1).fields[0]
    told.target.send_headers(1, [(":status", "100")])
    told.go()
    told.client.send_data(number, b"hi", end_stream=True)
    told.go()
    told.answers(1)
    assert [[(":status", "100")], [(":status", "200")]] == told.at_client(number).fields


def test_bodies_go_under_the_decision_of_their_stream() -> None:
    """What comes of a body when another stream was forwarded meanwhile still belongs to its own decision."""
    run = Rehearsal()
    told = streams(run)
    first = told.asks(head("POST", "/a"), b"x", ends=False)
    told.asks(head("POST", "/b"), b"y")
    run.decisions.clear()
    told.client.send_data(first, b"z", end_stream=True)
    told.go()
    assert [1] == run.decisions


# -- bodies that decide --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("body", "status"), [(b"good", "200"), (b"bad", "403"), (b"x" * 300_000, "200")])
def test_bodies_can_decide(body: bytes, status: str) -> None:
    """A verdict that needs the body gets it, far beyond what a window holds, and nothing leaves before."""
    run = Rehearsal(judge=wants_body())
    told = streams(run)
    number = told.asks(head("POST", "/x"), ends=False)
    left = memoryview(body)
    while left:
        room = min(told.client.local_flow_control_window(number), 16_384, len(left))
        assert room > 0
        assert [] == run.dials
        told.client.send_data(number, bytes(left[:room]))
        left = left[room:]
        told.go()
    told.client.end_stream(number)
    told.go()
    if status == "200":
        assert body == bytes(told.at_target(1).body)
        told.answers(1)
    assert status == told.at_client(number)[":status"]


def test_all_held_bodies_together_are_bounded() -> None:
    """More than the limit of a connection counts as not read in full; each is judged, and none waits for another."""
    run = Rehearsal(judge=wants_body())
    told = streams(run)
    piece = bytes(16_384)
    numbers = [told.asks(head("POST", "/x"), ends=False) for _ in range(8)]
    for _ in range(62):
        for number in numbers:
            if told.at_client(number).reset is None and not told.at_client(number).ended:
                told.client.send_data(number, piece)
                told.go()
    whole = [question.body for question in run.questions if question.body is not None]
    assert whole
    assert all(not body.complete for body in whole)
    assert len(whole[0].content) * len(numbers) <= COLLECTED_BYTES_MAX + len(numbers) * len(piece)
    assert [] == run.dials


# -- flow control --------------------------------------------------------------------------------------------------------------


def test_a_client_may_send_what_the_target_takes() -> None:
    """A target that takes nothing holds its uploader at one window, and no other stream."""
    told = streams()
    told.taking = {Side.CLIENT}
    number = told.asks(head("POST", "/up"), ends=False)
    sent = 0
    while (room := min(told.client.local_flow_control_window(number), 16_384)) > 0:
        told.client.send_data(number, bytes(room))
        sent += room
        told.go()
    assert sent <= 65_535 + CLIENT_STREAM_BYTES + 16_384
    other = told.asks(head(path="/other"))
    told.answers(3)
    assert b"ok" == bytes(told.at_client(other).body)
    told.target.acknowledge_received_data(65_535, 1)
    told.go()
    assert told.client.local_flow_control_window(number) > 0


def test_a_target_may_send_what_the_client_takes() -> None:
    """A client that takes nothing holds a download at what its window and ours allow; taking more brings more, to the end."""
    told = streams()
    told.taking = set()
    number = told.asks(head(path="/down"))
    told.target.send_headers(1, [(":status", "200")])
    sent, size = 0, 3 << 20
    while (room := min(told.target.local_flow_control_window(1), 16_384)) > 0:
        told.target.send_data(1, b"z" * room)
        sent += room
        told.go()
    assert sent <= 65_535 + TARGET_STREAM_BYTES + 16_384
    told.taking = {Side.CLIENT}
    told.client.acknowledge_received_data(65_535, number)
    while sent < size:
        told.go()
        room = min(told.target.local_flow_control_window(1), 16_384, size - sent)
        assert room > 0
        told.target.send_data(1, b"z" * room)
        sent += room
    told.target.end_stream(1)
    told.go()
    assert (size, True) == (len(told.at_client(number).body), told.at_client(number).ended)


def test_downloads_that_are_given_up_cost_nothing() -> None:
    """What a client did not take of a stream that it gives up does not count against the others of its connection."""
    told = streams()
    told.taking = set()
    for turn in range(3 * TARGET_CONNECTION_BYTES // TARGET_STREAM_BYTES):
        number, theirs = told.asks(head()), 2 * turn + 1
        told.target.send_headers(theirs, [(":status", "200")])
        while (room := min(told.target.local_flow_control_window(theirs), 16_384)) > 0:
            told.target.send_data(theirs, bytes(room))
            told.go()
        told.client.reset_stream(number, 8)
        told.go()
    assert 2 * told.target.outbound_flow_control_window > TARGET_CONNECTION_BYTES


def test_a_client_that_takes_nothing_is_not_read() -> None:
    """While its own side is blocked a client of HTTP/2 is left to wait: each of its frames could make another for it."""
    run = streams().run
    run.tell(Blocked(Side.CLIENT, True))
    assert {Side.CLIENT: False, Side.UPSTREAM: False} == run.reading
    run.tell(Blocked(Side.CLIENT, False))
    assert {Side.CLIENT: True, Side.UPSTREAM: True} == run.reading


def test_a_target_takes_as_many_streams_as_it_says() -> None:
    """Allowed streams wait for their turn when the target has enough; none is lost."""
    run = Rehearsal()
    told = streams(run)
    told.target.update_settings({h2.settings.SettingCodes.MAX_CONCURRENT_STREAMS: 1})
    first = told.asks(head(path="/1"))
    second = told.asks(head(path="/2"))
    assert [1] == told.asked
    told.answers(1).answers(3)
    assert [b"ok", b"ok"] == [bytes(told.at_client(number).body) for number in (first, second)]


# -- what ends early -----------------------------------------------------------------------------------------------------------


def test_a_client_that_gives_up_is_forgotten() -> None:
    """RST_STREAM withdraws a question, drops what was allowed and not sent, and cancels what is under way."""
    run = Rehearsal(judge=None)
    told = streams(run)
    held, open_ = told.asks(head("POST", "/held"), b"x", ends=False), told.asks(head("POST", "/open"), b"x", ends=False)
    told.decide(open_)
    for number in (held, open_):
        told.client.reset_stream(number, 8)
    told.go()
    assert ([1], 8, None) == (run.withdrawn, told.at_target(1).reset, run.closed)
    assert {1, 2} == set(run.over)


@pytest.mark.parametrize(("headed", "status", "reset"), [(False, "502", None), (True, "200", 2)])
def test_a_target_that_leaves_is_told_of(headed: bool, status: str, reset: int | None) -> None:
    """A drop before the answer is 502, within it a reset: what came is never taken for all; the next stream dials anew."""
    run = Rehearsal()
    told = streams(run)
    number = told.asks(head(path="/x"))
    if headed:
        told.target.send_headers(1, [(":status", "200")])
        told.target.send_data(1, b"half")
        told.go()
    run.ends(Side.UPSTREAM)
    told.go()
    seen = told.at_client(number)
    assert (status, reset, headed) == (seen[":status"], seen.reset, not seen.ended)
    told.client.send_headers(told.client.get_next_available_stream_id(), head(path="/again"), end_stream=True)
    told.target = streams().target
    told.go()
    assert (2, None) == (len(run.dials), run.closed)


@pytest.mark.parametrize("code", [2, 7, 8, 11])
def test_resets_of_a_target_reach_the_client(code: int) -> None:
    """A target's RST_STREAM is the client's, with its code: REFUSED_STREAM can be repeated, others cannot."""
    told = streams()
    number = told.asks(head(path="/x"))
    told.target.reset_stream(1, code)
    assert code == told.go().at_client(number).reset


def test_a_target_that_answers_before_it_read_all() -> None:
    """An answer that is whole arrives whole; what is left of the upload does no harm."""
    told = streams()
    number = told.asks(head("POST", "/x"), b"x", ends=False)
    told.answers(1, "413", b"too much")
    told.target.reset_stream(1, 0)
    seen = told.go().at_client(number)
    assert ("413", b"too much", True, None) == (seen[":status"], bytes(seen.body), seen.ended, seen.reset)


def test_uploads_that_nobody_wants_end() -> None:
    """A client that goes on for long behind the answer is told that nothing more is wanted, which is no error."""
    run = Rehearsal(judge=deny)
    told = streams(run)
    number, sent = told.asks(head("POST", "/x"), ends=False), 0
    while told.at_client(number).reset is None:
        assert sent <= LINGER_BYTES_MAX + 16_384
        told.client.send_data(number, bytes(16_384))
        sent += 16_384
        told.go()
    assert (0, True) == (told.at_client(number).reset, sent > LINGER_BYTES_MAX)


def test_a_target_that_leaves_in_order() -> None:
    """GOAWAY: what the target never saw can be repeated, what it works on is finished, and the client is told to go as well."""
    run = Rehearsal()
    told = streams(run)
    seen, unseen = told.asks(head(path="/1")), told.asks(head(path="/2"))
    run.answers(told.target.data_to_send() + goaway(1))
    told.go()
    assert (7, {Side.CLIENT: (unseen, 0)}) == (told.at_client(unseen).reset, told.goaway)
    late = told.asks(head(path="/3"))
    assert (7, [1, 3]) == (told.at_client(late).reset, told.asked)
    told.answers(1)
    assert b"ok" == bytes(told.at_client(seen).body)
    assert {Side.CLIENT} == run.finished
    run.silent(Timer.DEADLINE)
    assert Close() == run.closed


def test_a_client_that_leaves_in_order() -> None:
    """GOAWAY of a client closes the connection when its streams are done, not before."""
    run = Rehearsal()
    told = streams(run)
    number = told.asks(head())
    run.says(goaway(0))
    assert set() == run.finished
    told.answers(1)
    assert (b"ok", {Side.CLIENT}) == (bytes(told.at_client(number).body), run.finished)


@pytest.mark.parametrize("clean", [True, False])
def test_a_client_that_is_gone_ends_everything(clean: bool) -> None:
    """The end of a client's connection, or a cut, is the target's."""
    run = Rehearsal()
    streams(run).asks(head())
    assert Close(abort=not clean) == run.ends(Side.CLIENT, clean=clean).closed


@pytest.mark.parametrize(("headed", "status", "reset"), [(False, "403", None), (True, "200", 8)])
def test_what_is_not_allowed_any_more_ends(headed: bool, status: str, reset: int | None) -> None:
    """When the policy changes a stream that it does not allow is cut on both sides; the others go on."""
    run = Rehearsal()
    told = streams(run)
    number, other = told.asks(head(path="/1")), told.asks(head(path="/2"))
    if headed:
        told.target.send_headers(1, [(":status", "200")])
        told.go()
    run.tell(Revoked(1))
    told.go()
    seen = told.at_client(number)
    assert (status, reset, 8) == (seen[":status"], seen.reset, told.at_target(1).reset)
    told.answers(3)
    assert b"ok" == bytes(told.at_client(other).body)


def test_a_target_that_cannot_be_reached() -> None:
    """Each stream that waits is answered with 502; the connection goes on, and the next one dials anew."""
    run = Rehearsal(reachable=None)
    told = streams(run)
    numbers = [told.asks(head(path="/1")), told.asks(head(path="/2"))]
    run.tell(DialFailed("no route"))
    told.go()
    assert ["502", "502"] == [told.at_client(number)[":status"] for number in numbers]
    told.asks(head(path="/3"))
    run.tell(Dialled())
    told.go()
    assert ([1, 3], [1], None) == (run.dials, told.asked, run.closed)


def test_a_target_may_speak_before_it_is_known_to_be_there() -> None:
    """What a target says at once, its SETTINGS above all, may come before the news that it was reached."""
    run = Rehearsal(reachable=None)
    told = streams(run)
    number = told.asks(head())
    told.go()
    run.tell(Dialled())
    told.go()
    told.answers(1)
    assert b"ok" == bytes(told.at_client(number).body)


def test_no_body_is_a_body() -> None:
    """That a request has no body is asked about at once, as such."""
    run = Rehearsal(judge=None)
    streams(run).asks(head())
    assert Body(content=b"", complete=True) == run.asked[0].body


def test_heads_of_streams_count_as_long_as_they_are_there() -> None:
    """Heads of requests that are not decided, or not answered, are counted among what waits; of one that is over nothing is."""
    run = Rehearsal(judge=None)
    told = streams(run)
    numbers = [told.asks(head("GET", "/x", *((f"x-{one}", "y" * 90) for one in range(100)))) for _ in range(20)]
    assert 20 * 100 * 94 < run.kept()
    for number in numbers:
        told.client.reset_stream(number)
    told.go()
    assert 0 == run.kept()
