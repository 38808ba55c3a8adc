"""Proxies and the desk over their socket, and what a proxy makes of answers.

What lives here: real sockets, a desk in a thread; the shell while a client waits; the judge. What must not: the role.
"""

from __future__ import annotations

import asyncio
import selectors
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from capd.enforcer.approvals.hold import Answer, Outcome, answer_message, hold_message, packed, read_answer, read_hold
from capd.enforcer.approvals.hold_client import Holds
from capd.enforcer.approvals.hold_server import CONNECTIONS_MAX, HoldServer
from capd.enforcer.approvals.limits import BODY_BYTES_MAX
from capd.enforcer.approvals.state import State
from capd.enforcer.policy.rule import ApprovalScope
from capd.enforcer.proxy.held import in_short, too_long, verdict_of
from capd.enforcer.proxy.judge import judge, observed
from capd.enforcer.proxy.question import Body, Question, Verdict
from tests.daemon.conftest import READY_SECONDS
from tests.enforcer.asking import ANN, Scene, hold
from tests.enforcer.rehearsal import Rehearsal, allow
from tests.enforcer.test_proxy_judge import AGENT, API, policy, request
from tests.enforcer.test_proxy_shell import REQUEST, run, scene

ONCE = ApprovalScope.ONCE
PUT = replace(AGENT, uid=2000)


@pytest.fixture
def place(tmp_path: Path) -> Scene:
    """Give an empty directory."""
    return Scene(tmp_path)


class Served:
    """A desk whose event loop runs in a thread; what is called from outside is done there."""

    def __init__(self, place: Scene) -> None:
        self.desk = place.desk()
        self.told: list[str] = []
        self.path = place.directory / "holds.sock"
        self._selector = selectors.DefaultSelector()
        self._server = HoldServer(self.path, self.desk, self._selector, self.told.append)
        self._lock, self._over = threading.Lock(), False
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def _serve(self) -> None:
        while not self._over:
            events = self._selector.select(0.01)
            with self._lock:
                for key, _ in events:
                    key.data()
                self.desk.tick()

    def does(self, what: Callable[[], Any]) -> Any:  # noqa: ANN401 - whatever it gives
        """Do something between two turns of the loop."""
        with self._lock:
            return what()

    def close(self) -> None:
        """End it, as a kill would."""
        if not self._over:
            self._over = True
            self._thread.join()
            self._server.close()
            self._selector.close()

    def state(self) -> State | None:
        """Give the state of the only request."""
        requests = self.does(self.desk.requests)
        return requests[0].state if requests else None


@contextmanager
def served(place: Scene) -> Iterator[Served]:
    """Serve a desk."""
    made = Served(place)
    try:
        yield made
    finally:
        made.close()


async def until(holds: Callable[[], bool]) -> None:
    """Wait for something."""
    async with asyncio.timeout(READY_SECONDS):
        while not holds():  # noqa: ASYNC110 - the other side is a thread, or a log
            await asyncio.sleep(0.005)


def test_messages_survive_their_way() -> None:
    """What is sent is what is received."""
    wanted = hold(trailers=(("a", "b"),), aliases=("x",), principal=None)
    assert wanted == read_hold({key: value for key, value in hold_message(wanted).items() if key != "verb"})
    answer = Answer(outcome=Outcome.DENIED, id="a", by="b", reason="c")
    assert answer == read_answer(answer_message(answer))


def test_a_person_decides_while_a_proxy_waits(place: Scene) -> None:
    """A hold is told that it waits, then what became of it."""

    async def story() -> None:
        with served(place) as desk:
            ids: list[str] = []
            waiting = asyncio.ensure_future(Holds(desk.path).hold(hold(), ids.append))
            await until(lambda: bool(ids))
            desk.does(lambda: desk.desk.approve(ids[0], ANN, ONCE))
            assert Answer(outcome=Outcome.APPROVED, id=ids[0], by="ann") == await waiting

    run(story)


@pytest.mark.parametrize(("stopping", "state"), [(False, State.CANCELLED), (True, State.PENDING)])
def test_leaving_and_ending_are_two_things(place: Scene, stopping: bool, state: State) -> None:
    """A client that leaves cancels; a proxy that ends does not."""

    async def story() -> None:
        with served(place) as desk:
            holds = Holds(desk.path)
            waiting = asyncio.ensure_future(holds.hold(hold(), lambda _: None))
            await until(lambda: desk.state() is State.PENDING)
            holds.stopping = stopping
            waiting.cancel()
            with suppress(asyncio.CancelledError):
                await waiting
            await until(lambda: not desk.does(lambda: desk.desk.clients(desk.desk.requests()[0])))
            await until(lambda: desk.state() is state)

    run(story)


def test_a_desk_that_is_started_anew(place: Scene) -> None:
    """A proxy that waits finds its request again at the next desk, and is told there."""

    async def story() -> None:
        ids: list[str] = []
        with served(place) as first:
            waiting = asyncio.ensure_future(Holds(first.path).hold(hold(), ids.append))
            await until(lambda: bool(ids))
        with served(place) as second:
            await until(lambda: len(ids) > 1)
            second.does(lambda: second.desk.deny(ids[0], ANN, "no"))
            assert (Outcome.DENIED, ids[0], [ids[0]] * 2) == ((answer := await waiting).outcome, answer.id, ids)

    run(story)


def test_without_a_desk_nothing_goes(place: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where nobody answers the answer is no, in time."""
    monkeypatch.setattr("capd.enforcer.approvals.hold_client.CONNECT_SECONDS", 0.05)

    async def story() -> None:
        holds = Holds(place.directory / "none.sock")
        assert Outcome.UNAVAILABLE is (await holds.hold(hold(), lambda _: None)).outcome
        assert not await holds.change_policy("p2")

    run(story)


def test_a_changed_policy_is_told(place: Scene) -> None:
    """A proxy that has another policy ends what the former asked for."""

    async def story() -> None:
        with served(place) as desk:
            waiting = asyncio.ensure_future(Holds(desk.path).hold(hold(), lambda _: None))
            await until(lambda: desk.state() is State.PENDING)
            assert await Holds(desk.path).change_policy("p2")
            assert Outcome.POLICY_CHANGED is (await waiting).outcome

    run(story)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.binary(max_size=40) | st.dictionaries(st.sampled_from(["verb", "bound", "body"]), st.text()).map(packed))
def test_nonsense_is_hung_up_on(place: Scene, said: bytes) -> None:
    """Whatever is said at the socket, the desk lives, asks nobody, and hangs up at the end."""
    selector = selectors.DefaultSelector()
    server = HoldServer(place.directory / "holds.sock", place.desk(), selector, lambda _: None)
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(place.directory / "holds.sock"))
        client.sendall(said)
        client.shutdown(socket.SHUT_WR)
        for _ in range(4):
            for key, _events in selector.select(0):
                key.data()
        client.settimeout(1)
        with suppress(ConnectionResetError):
            assert b"" == client.recv(1)
    server.close()
    selector.close()


def test_the_socket_is_the_users_own(place: Scene) -> None:
    """Nobody else can connect, from the moment it is there; so many connections are taken."""
    with served(place) as desk:
        assert 0o600 == desk.path.stat().st_mode & 0o777
    assert CONNECTIONS_MAX > 256


# -- the shell -----------------------------------------------------------------------------------------------------------------


def held(question: Question) -> Verdict:
    """Give a verdict that has to wait for a person."""
    return Verdict(number=question.number, allowed=False, reason="approval_needed", held=hold())


@pytest.mark.parametrize("ends", ["write_eof", "close"])
def test_a_client_that_leaves_ends_the_wait(ends: str) -> None:
    """When the client ends its side the wait is cancelled, the target hears nothing, and the log says so."""
    waits, cancelled = asyncio.Event(), asyncio.Event()

    async def person(*given: Any) -> Verdict:  # noqa: ANN401 - as `Holding`
        given[3]("req1")
        waits.set()
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            cancelled.set()
            raise
        raise AssertionError

    async def story() -> None:
        async with scene(judge=lambda _, question: held(question), hold=person) as made:
            _reader, writer = await made.connect()
            writer.write(REQUEST % made.target_port)
            await asyncio.wait_for(waits.wait(), READY_SECONDS)
            getattr(writer, ends)()
            await asyncio.wait_for(cancelled.wait(), READY_SECONDS)
            await until(lambda: made.log.written[-1]["kind"] == "close")
            kinds = [entry["kind"] for entry in made.log.written]
            assert ["open", "held", "refused", "close"] == kinds
            assert b"" == bytes(made.target)
            writer.close()

    run(story)


def test_approved_goes_on_and_is_written_down() -> None:
    """What a person approved reaches the target after the log says who approved it."""

    async def person(_agent: object, question: Question, asked: Verdict, waits: Callable[[str], None]) -> Verdict:
        waits("req1")
        assert question.number == asked.number
        return verdict_of(asked, Answer(outcome=Outcome.APPROVED, id="req1", by="ann"))

    async def story() -> None:
        async with scene(judge=lambda _, question: held(question), hold=person) as made:
            assert b"200 OK" in await made.ask()
            assert 1 == bytes(made.target).count(b"GET")
            (decision,) = [entry for entry in made.log.written if entry["kind"] == "decision"]
            assert {"id": "req1", "outcome": "approved", "by": "ann"} == decision["approval"]
            assert [False] == made.early

    run(story)


def test_where_nobody_can_be_asked_nothing_goes() -> None:
    """A shell without persons denies what is held."""

    async def story() -> None:
        async with scene(judge=lambda _, question: held(question)) as made:
            assert b"approval_needed" in await made.ask()
            assert b"" == bytes(made.target)

    run(story)


# -- the judge -----------------------------------------------------------------------------------------------------------------


def test_what_is_held_has_its_body_first() -> None:
    """A person is asked only when the whole body is known, whether rules look at it or not."""
    only = policy("rules: [{id: ask, match: {protocols: [http]}, then: approve, approve: {groups: [b, a], quorum: 2}}]")
    verdict = judge(only, PUT, replace(request("PUT"), body=None), proven=True)
    assert (False, None, True) == (verdict.allowed, verdict.held, verdict.body_bytes > 0)
    whole = Body(content=b"x", complete=True)
    verdict = judge(only, PUT, request("PUT", body=whole), proven=True)
    assert verdict.held is not None
    assert (b"x", 2000) == (verdict.held.body, verdict.held.bound.uid)
    assert [("ask", 2, ("a", "b"))] == [(one.rule, one.quorum, one.groups) for one in verdict.held.demands]
    assert (True, None) == ((seen := observed(verdict)).allowed, seen.held)


@pytest.mark.parametrize(
    ("body", "more"),
    [
        (Body(content=b"x", complete=False), {}),
        (Body(content=b"x" * (BODY_BYTES_MAX + 1), complete=True), {}),
        (Body(content=b"", complete=True), {"query": "x" * 9_000}),
        (Body(content=b"", complete=True), {"fields": (("x", "y" * 40_000),)}),
    ],
)
def test_what_cannot_be_shown_is_denied(body: Body, more: dict[str, Any]) -> None:
    """What a person could not be shown in full is not asked about."""
    verdict = judge(API, PUT, request("PUT", body=body, **more), proven=True)
    assert (False, None, "cannot_be_approved") == (verdict.allowed, verdict.held, verdict.reason)
    assert too_long(request("PUT", **more), body)


def test_several_rules_are_all_met() -> None:
    """Of several rules the shortest time and the narrowest scope count, and each one's demand; a mask beside is refused."""
    text = """
rules:
  - {id: a, match: {protocols: [http]}, then: approve, approve: {hold_seconds: 50, scope: run, ttl_seconds: 60}}
  - {id: b, match: {protocols: [http]}, then: approve, approve: {hold_seconds: 5, scope: shape, ttl_seconds: 90, groups: [x]}}
"""
    asked = judge(policy(text), PUT, request("PUT"), proven=True).held
    assert asked is not None
    found = (asked.hold_seconds, asked.ttl_seconds, asked.scope, [one.rule for one in asked.demands])
    assert (5, 60, ApprovalScope.SHAPE, ["a", "b"]) == found
    mask = "  - {id: m, match: {protocols: [http]}, then: mask, mask: {headers: [x-key]}}\n"
    assert "cannot_be_approved" == judge(policy(text + mask), PUT, request("PUT"), proven=True).reason


@pytest.mark.parametrize(
    ("fields", "seconds"),
    [
        ((("Prefer", "wait=10"),), 10),
        ((("prefer", 'respond-async, Wait = "7"; x=y'),), 7),
        ((("Prefer", "return=minimal"), ("Prefer", "wait=20, wait=3")), 20),
        ((("Prefer", "wait=0"),), 1),
        ((("Prefer", "wait=600"),), 55),
        ((("Prefer", "wait=9999999"),), 55),
        ((("Prefer", "respond-async"),), 55),
        ((("Prefer", "wait=-1, await=2, wait"),), 55),
        ((("X-Prefer", "wait=3"),), 55),
    ],
)
def test_a_client_says_how_long_it_waits(fields: tuple[tuple[str, str], ...], seconds: int) -> None:
    """`Prefer: wait=N` makes a hold as long as that, and never longer than the rule lets it be; other preferences do not."""
    rule = policy("rules: [{id: ask, match: {protocols: [http]}, then: approve}]")
    found = judge(rule, PUT, request("PUT", fields=fields), proven=True).held
    assert found is not None
    assert (seconds, 900) == (found.hold_seconds, found.ttl_seconds)


def test_credentials_are_not_shown() -> None:
    """The person sees that there is a credential, and not which; the fingerprint has it."""
    fields = (
        ("Authorization", "Bearer s3cret"),
        ("Cookie", "sid=s3cret; a=s3cret"),
        ("X-Plain", "seen"),
        ("X-Long", "y" * 600),
    )
    asked = judge(API, PUT, request("PUT", fields=fields), proven=True).held
    assert asked is not None
    assert "s3cret" not in str(asked.shown)
    assert ["X-Plain", "seen"] in asked.shown["fields"]  # type: ignore[operator] # a list
    assert ["X-Long", "y" * 600] in asked.shown["fields"]  # type: ignore[operator] # as above
    assert fields == asked.bound.fields


def test_trailers_of_a_held_body_stay_behind() -> None:
    """What a person was not shown is not sent: a request goes on without its trailers."""

    def looks(question: Question) -> Verdict:
        return allow(question) if question.body else Verdict(number=question.number, allowed=False, body_bytes=99)

    rehearsal = Rehearsal(judge=looks)
    rehearsal.says(
        b"POST / HTTP/1.1\r\nHost: api.test\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\nX-Sum: 1\r\nHost: evil\r\n\r\n"
    )
    body = rehearsal.questions[-1].body
    assert body is not None
    assert b"a" == body.content
    assert b"X-Sum" not in rehearsal.upstream
    assert rehearsal.upstream.endswith(b"1\r\na\r\n0\r\n\r\n")


def test_context_of_later_messages() -> None:
    """What is decided is context for later ones: a denial by its reason; what waits is not yet."""
    question = request("PUT", path="/a")
    assert ("PUT api.test/a", "allowed") == in_short(question, allow(question))
    assert ("PUT api.test/a", "x") == in_short(question, Verdict(number=1, allowed=False, reason="x"))
    assert in_short(question, held(question)) is None
