"""Actions that wait, persons who decide: what becomes of both, over restarts, crashes and clocks that jump.

What lives here: the desk with its real store. What must not: sockets, the proxy.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from capd.enforcer.approvals import limits
from capd.enforcer.approvals.eligibility import check_reader, check_yes
from capd.enforcer.approvals.errors import (
    AlreadyDecidedError,
    AmbiguousRequestError,
    NotAnApproverError,
    ScopeTooWideError,
    SelfApprovalError,
    UnknownRequestError,
)
from capd.enforcer.approvals.listing import to_json
from capd.enforcer.approvals.moment import NS_PER_SECOND, Deadline
from capd.enforcer.approvals.request import Demand, Person
from capd.enforcer.approvals.state import OPEN, TRANSITIONS, Change, State, after
from capd.enforcer.policy.rule import ApprovalScope
from tests.enforcer.asking import AGENT, ANN, BEN, Client, Clock, Scene, hold

ONCE, SHAPE, RUN = ApprovalScope.ONCE, ApprovalScope.SHAPE, ApprovalScope.RUN
ROOT = Person(uid=0, name="root")


@pytest.fixture
def scene(tmp_path: Path) -> Scene:
    """Give an empty directory."""
    return Scene(tmp_path)


def test_approved_goes_once_and_the_same_asks_again(scene: Scene) -> None:
    """An approval lets what waits go, once; the same again waits again."""
    desk = scene.desk()
    first = Client(desk, hold())
    assert ["waiting"] == first.outcomes
    desk.approve(first.last.id, ANN, ONCE)
    assert ["waiting", "approved"] == first.outcomes
    assert "ann" == first.last.by
    second = Client(desk, hold())
    assert ["waiting"] == second.outcomes
    assert first.answers[0].id != second.last.id


def test_of_two_that_wait_for_the_same_one_goes(scene: Scene) -> None:
    """One yes is good for one of two identical actions; the other one asks anew."""
    desk = scene.desk()
    first, second = Client(desk, hold()), Client(desk, hold())
    assert first.last.id == second.last.id
    desk.approve(first.last.id, ANN, ONCE)
    assert ["waiting", "approved"] == first.outcomes
    assert ["waiting", "waiting"] == second.outcomes
    assert second.answers[0].id != second.answers[1].id


def test_denied_by_a_person_with_a_reason(scene: Scene) -> None:
    """A no reaches the client with the person's reason, and the same action gets the same no until it may be asked again."""
    desk = scene.desk()
    client = Client(desk, hold())
    desk.deny(client.last.id, BEN, "not on a Friday")
    assert ("denied", "ben", "not on a Friday") == (client.last.outcome.value, client.last.by, client.last.reason)
    again = Client(scene.desk(), hold())
    assert ["denied"] == again.outcomes
    scene.clock.pass_seconds(901)
    assert ["waiting"] == Client(desk, hold()).outcomes


def test_hand_off_and_the_retry_that_uses_the_approval(scene: Scene) -> None:
    """After its hold a client is told to come again; approved meanwhile, the identical action goes at once, and once."""
    desk = scene.desk()
    client = Client(desk, hold())
    assert 55 == desk.tick()
    scene.clock.pass_seconds(55)
    desk.tick()
    assert ["waiting", "pending"] == client.outcomes
    desk.approve(client.last.id, ANN, ONCE)
    assert ["waiting"] == Client(desk, hold(b'{"amount": 6, "to": "bob"}')).outcomes
    assert ["approved"] == Client(desk, hold()).outcomes
    assert ["waiting"] == Client(desk, hold()).outcomes


def test_expired_says_so(scene: Scene) -> None:
    """What nobody decided in time is expired, for the client, in the list, and for whoever comes too late."""
    desk = scene.desk()
    client = Client(desk, replace(hold(), hold_seconds=10, ttl_seconds=10))
    scene.clock.pass_seconds(10)
    with pytest.raises(AlreadyDecidedError, match="is expired already"):
        desk.approve(client.last.id, ANN, ONCE)
    desk.tick()
    assert "expired" == client.last.outcome.value
    assert "nobody decided within 10 seconds" == client.last.reason
    assert [State.EXPIRED] == [request.state for request in desk.requests()]


def test_an_unused_approval_expires(scene: Scene) -> None:
    """What was approved and not used in time is asked again."""
    desk = scene.desk()
    client = Client(desk, hold())
    desk.lose(client.waiter)
    desk.approve("req0000000", ANN, ONCE)
    scene.clock.pass_seconds(900)
    assert ["waiting"] == Client(desk, hold()).outcomes


def test_leaving_cancels_unless_it_was_told_to_come_again(scene: Scene) -> None:
    """The last client that leaves takes its request along; one that was told to come again, or whose proxy died, does not."""
    desk = scene.desk()
    first, second = Client(desk, hold()), Client(desk, hold())
    desk.leave(first.waiter)
    assert State.PENDING is desk.requests()[0].state
    desk.leave(second.waiter)
    assert State.CANCELLED is desk.requests()[0].state
    with pytest.raises(AlreadyDecidedError, match="cancelled already"):
        desk.approve("req0000000", ANN, ONCE)
    third = Client(desk, hold())
    scene.clock.pass_seconds(60)
    desk.tick()
    desk.leave(Client(desk, hold()).waiter)
    assert State.PENDING is desk.named(third.last.id)[0].state


@pytest.mark.parametrize("decided", ["pending", "approved", "denied"])
def test_all_survives_a_restart(scene: Scene, decided: str) -> None:
    """After a kill what waited waits, with its body; what was approved goes once, what was denied stays so."""
    desk = scene.desk()
    client = Client(desk, hold())
    request = client.last.id
    desk.lose(client.waiter)
    if decided == "approved":
        desk.approve(request, ANN, ONCE)
    elif decided == "denied":
        desk.deny(request, ANN, "no")
    before = desk.named(request)[0]
    desk = scene.desk()
    assert before == desk.named(request)[0]
    assert (hold().body if decided == "pending" else None) == desk.named(request)[1]
    expected = {"pending": ["waiting"], "approved": ["approved"], "denied": ["denied"]}[decided]
    again = Client(desk, hold())
    assert (expected, request) == (again.outcomes, again.last.id)
    if decided == "pending":
        desk.approve(request, ANN, ONCE)
        assert "approved" == again.last.outcome.value
    if decided != "denied":
        assert ["waiting"] == Client(scene.desk(), hold()).outcomes


def test_what_is_masked_is_shown_while_it_waits(scene: Scene) -> None:
    """What a person needs to see as it is stands beside the body, over a restart, and goes with it; the store never has it."""
    desk = scene.desk()
    exact = {"url": "https://h/?token=s3cret"}
    client = Client(desk, replace(hold(), shown={"url": "https://h/?token=******"}, exact=exact))
    desk.lose(client.waiter)
    desk = scene.desk()
    request = desk.named(client.last.id)[0]
    now = scene.clock()
    assert exact["url"] == to_json(request, now, exact=desk.exact(request))["url"]
    (path,) = scene.directory.glob("exact-*")
    assert 0o600 == path.stat().st_mode & 0o777
    desk.approve(request.id, ANN, ONCE)
    request = desk.named(request.id)[0]
    assert "https://h/?token=******" == to_json(request, now, exact=desk.exact(request))["url"]
    assert [] == [path for path in scene.directory.iterdir() if b"s3cret" in path.read_bytes()]


def test_what_was_said_is_gone_when_it_is_decided(scene: Scene) -> None:
    """A body is on disk, for its owner alone, only while somebody has to look at it."""
    desk = scene.desk()
    client = Client(desk, hold())
    (path,) = scene.directory.glob("body-*")
    assert (hold().body, 0o600) == (path.read_bytes(), path.stat().st_mode & 0o777)
    desk.deny(client.last.id, ANN, "no")
    assert [] == list(scene.directory.glob("body-*"))
    assert not any(hold().body in path.read_bytes() for path in scene.directory.iterdir())


# -- what an approval is good for ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("scope", "other", "goes"),
    [
        (ONCE, {}, False),
        (SHAPE, {}, True),
        (SHAPE, {"body": b'{"amount": 9, "to": "bob"}'}, True),
        (SHAPE, {"body": b'{"amount": 5, "to": "eve"}'}, False),
        (SHAPE, {"path": "/pay/2"}, False),
        (RUN, {"body": b"x", "path": "/elsewhere", "operation": "PUT"}, True),
        (RUN, {"run": "run-2"}, False),
        (RUN, {"uid": 2001}, False),
        (RUN, {"principal": ("unit", "other.slice", "unverified")}, False),
        (RUN, {"policy": "p2"}, False),
        (RUN, {"groups": ("finance",)}, False),
    ],
)
def test_scopes(scene: Scene, scope: ApprovalScope, other: dict[str, object], goes: bool) -> None:
    """After one yes: the same again, its shape, or what the same rules want of the run, and nothing beyond."""
    desk = scene.desk()
    client = Client(desk, hold(scope=RUN))
    desk.approve(client.last.id, ANN, scope)
    desk = scene.desk()
    changed = hold(**{"scope": RUN, **other})  # type: ignore[arg-type] # a table of all of them
    assert (["approved"] if goes else ["waiting"]) == Client(desk, changed).outcomes
    scene.clock.pass_seconds(900)
    assert ["waiting"] == Client(desk, changed).outcomes


def test_taking_a_yes_back(scene: Scene) -> None:
    """A no to what was approved for longer ends that at once."""
    desk = scene.desk()
    client = Client(desk, hold(scope=RUN))
    desk.approve(client.last.id, ANN, RUN)
    assert ["approved"] == Client(desk, hold(scope=RUN)).outcomes
    desk.deny("req0000000", BEN, "enough")
    assert ["denied"] == Client(desk, hold(scope=RUN)).outcomes


def test_another_policy_ends_what_the_former_asked(scene: Scene) -> None:
    """What waits is told that the policy changed; what was approved under the former is good for nothing."""
    desk = scene.desk()
    waits, used = Client(desk, hold()), Client(desk, hold(scope=RUN, path="/x"))
    desk.approve(used.last.id, ANN, RUN)
    desk.change_policy("p2")
    assert "policy_changed" == waits.last.outcome.value
    assert [State.POLICY_CHANGED] * 2 == [request.state for request in desk.requests()]
    assert ["waiting"] == Client(desk, hold(scope=RUN, path="/x")).outcomes


# -- persons -------------------------------------------------------------------------------------------------------------------


def test_quorum(scene: Scene) -> None:
    """Two persons are two persons: one who says it twice, and root beside, are not more than they are; a no ends it."""
    desk = scene.desk()
    client = Client(desk, hold(quorum=2, scope=RUN))
    desk.approve(client.last.id, ANN, RUN)
    with pytest.raises(AlreadyDecidedError, match="ann has approved it"):
        desk.approve(client.last.id, ANN, RUN)
    assert ["waiting"] == client.outcomes
    desk = scene.desk()
    client = Client(desk, hold(quorum=2, scope=RUN))
    request = desk.approve(client.last.id, BEN, ONCE)
    assert ("approved", "ann, ben") == (client.last.outcome.value, client.last.by)
    assert ONCE is request.scope, "the most careful of both decides what it is good for"


def test_every_rule_has_its_demand(scene: Scene) -> None:
    """Two rules with different groups want a yes from each; one person in both groups is enough for quorum one of each."""
    demands = (Demand(rule="a", groups=("finance",)), Demand(rule="b", groups=("legal",)))
    desk = scene.desk()
    client = Client(desk, replace(hold(), demands=demands))
    desk.approve(client.last.id, ANN, ONCE)
    assert ["waiting"] == client.outcomes
    with pytest.raises(NotAnApproverError, match="finance, legal"):
        desk.approve(client.last.id, BEN, ONCE)
    with pytest.raises(AlreadyDecidedError, match="needs nobody more of these groups"):
        desk.approve(client.last.id, replace(BEN, groups=("finance",)), ONCE)
    assert [("finance",)] == [vote.person.groups for vote in desk.requests()[0].votes]
    desk.approve(client.last.id, replace(BEN, groups=("legal",)), ONCE)
    assert "approved" == client.last.outcome.value


@pytest.mark.parametrize(
    ("person", "asks", "error"),
    [
        (ANN, {}, None),
        (ROOT, {}, None),
        (replace(ANN, uid=AGENT), {}, SelfApprovalError),
        (replace(ROOT, login_uid=AGENT), {}, SelfApprovalError),
        (replace(ANN, has_runs=True), {}, SelfApprovalError),
        (replace(ROOT, has_runs=True), {}, None),
        (ROOT, {"uid": 0}, SelfApprovalError),
        (ANN, {"uid": None}, SelfApprovalError),
        (ANN, {"principal": ("user", "ann")}, SelfApprovalError),
        (ANN, {"principal": ("oidc", "ann@example.com")}, SelfApprovalError),
        (ANN, {"principal": ("oidc", "annette@example.com")}, None),
        (ANN, {"demands": (Demand(rule="r", groups=("legal",)),)}, NotAnApproverError),
        (ROOT, {"demands": (Demand(rule="r", groups=("legal",)),)}, NotAnApproverError),
        (ANN, {"scope": ONCE}, ScopeTooWideError),
    ],
)
def test_who_may_say_yes(scene: Scene, person: Person, asks: dict[str, object], error: type[Exception] | None) -> None:
    """Nobody approves what is asked as him, for him, or by agents of his; root is no exception where the agent is root."""
    desk = scene.desk()
    Client(desk, hold(scope=SHAPE))
    asked = replace(desk.requests()[0].asked, **asks)  # type: ignore[arg-type] # a table of all of them
    if error is None:
        check_yes(person, asked, SHAPE)
    else:
        with pytest.raises(error):
            check_yes(person, asked, SHAPE)


@pytest.mark.parametrize(
    ("person", "approvers", "allowed"),
    [
        (ANN, ("approvers",), True),
        (ANN, ("others",), False),
        (ANN, (), False),
        (ROOT, (), True),
        (replace(ANN, in_run=True), ("approvers",), False),
        (replace(ROOT, in_run=True), (), False),
    ],
)
def test_who_may_look(person: Person, approvers: tuple[str, ...], allowed: bool) -> None:
    """What agents say is for approvers; a process of a run is none, whatever its user is."""
    if allowed:
        check_reader(person, approvers)
    else:
        with pytest.raises(NotAnApproverError):
            check_reader(person, approvers)


def test_ids_can_be_shortened(scene: Scene) -> None:
    """The beginning of an id is enough where it is one's alone."""
    desk = scene.desk()
    Client(desk, hold())
    Client(desk, hold(path="/2"))
    assert "req0000001" == desk.named("REQ0000001")[0].id
    with pytest.raises(AmbiguousRequestError):
        desk.named("req000")
    for text in ("re", "", "x" * 100):
        with pytest.raises(UnknownRequestError):
            desk.named(text)


# -- limits --------------------------------------------------------------------------------------------------------------------


def test_floods_are_denied_by_themselves(scene: Scene) -> None:
    """A run that asks too much is denied without a person, and takes no room from other runs."""
    desk = scene.desk()
    for number in range(limits.PENDING_PER_RUN_MAX):
        assert ["waiting"] == Client(desk, hold(path=f"/{number}")).outcomes
    flood = Client(desk, hold(path="/more"))
    assert (["too_many"], "") == (flood.outcomes, flood.last.id)
    assert ["waiting"] == Client(desk, hold(run="run-2")).outcomes
    for request in desk.requests():
        desk.deny(request.id, ANN, "no")
    for number in range(limits.ASKED_PER_RUN_MAX - limits.PENDING_PER_RUN_MAX):
        client = Client(desk, hold(path=f"/later/{number}"))
        desk.deny(client.last.id, ANN, "no")
    assert ["too_many"] == Client(desk, hold(path="/more")).outcomes
    scene.clock.pass_seconds(limits.ASKED_SECONDS)
    assert ["waiting"] == Client(desk, hold(path="/more")).outcomes


def test_a_user_with_many_runs(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever starts run after run takes no more room than a user has."""
    monkeypatch.setattr(limits, "PENDING_PER_USER_MAX", 3)
    desk = scene.desk()
    clients = [Client(desk, hold(run=f"run-{number}")) for number in range(4)]
    assert ["waiting"] * 3 + ["too_many"] == [client.last.outcome.value for client in clients]
    assert ["waiting"] == Client(desk, hold(uid=2001, run="other")).outcomes


def test_the_total_is_bounded(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    """All runs together have so many requests that wait, each so many clients, and the list so many that are over."""
    monkeypatch.setattr(limits, "PENDING_MAX", 3)
    monkeypatch.setattr(limits, "ENDED_MAX", 2)
    desk = scene.desk()
    clients = [Client(desk, hold(run=f"run-{number}")) for number in range(4)]
    assert ["waiting"] * 3 + ["too_many"] == [client.last.outcome.value for client in clients]
    same = [Client(desk, hold(run="run-0")) for _ in range(limits.WAITERS_PER_REQUEST_MAX)]
    assert ["waiting"] * (limits.WAITERS_PER_REQUEST_MAX - 1) + ["too_many"] == [one.last.outcome.value for one in same]
    for client in clients[:3]:
        desk.deny(client.last.id, ANN, "no")
    assert 2 == len(desk.requests())


def test_what_is_not_shown_whole_is_not_asked(scene: Scene) -> None:
    """A body that is too long, or is not the one that is bound, is for nobody to approve."""
    desk = scene.desk()
    long = Client(desk, hold(b"x" * (limits.BODY_BYTES_MAX + 1)))
    other = Client(desk, replace(hold(), body=b"another"))
    assert ["unavailable"] == long.outcomes == other.outcomes
    assert [] == desk.requests()


# -- states and clocks ---------------------------------------------------------------------------------------------------------


def test_the_table_of_states() -> None:
    """From no end leads a way, to `approved` only one from `pending`, and nothing else is told of a request."""
    assert OPEN == {State.PENDING, State.APPROVED}
    ways = [(state, change) for state in State for change in Change if after(state, change) is State.APPROVED]
    assert [(State.PENDING, Change.APPROVE)] == ways
    assert set(TRANSITIONS) == set(State)


@pytest.mark.parametrize(
    ("wall_seconds", "boot_seconds", "boot", "over"),
    [
        (59, 59, "first", False),
        (60, 60, "first", True),
        (-9_000, 59, "first", False),
        (-9_000, 60, "first", True),
        (9_000_000, 59, "first", False),
        (59, -900, "second", False),
        (60, -900, "second", True),
        (-1, -900, "second", True),
    ],
)
def test_clocks_that_jump(wall_seconds: int, boot_seconds: int, boot: str, over: bool) -> None:
    """Setting the clock changes nothing within a boot; after another boot a clock that was set back ends it."""
    clock = Clock()
    deadline = Deadline(since=clock(), seconds=60)
    clock.wall_ns += wall_seconds * NS_PER_SECOND
    clock.boot_ns += boot_seconds * NS_PER_SECOND
    clock.boot = boot
    assert over == deadline.over(clock())
