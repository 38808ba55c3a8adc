"""The effect `limit` in policies, and what the judge makes of it."""

from __future__ import annotations

import pytest

from capd.enforcer.policy.action import Run
from capd.enforcer.policy.limit import Limit
from capd.enforcer.policy.policy import Policy, read_policy
from capd.enforcer.proxy.judge import Agent, judge
from capd.enforcer.proxy.question import Destination, Kind, Login, Question, Statement

AGENT = Agent(run=Run(id="r"), principal=None)
RULES = """
rules:
  - {id: all, match: {protocols: [redis, postgresql]}, then: allow}
  - {id: code, match: {protocols: redis, effects: code}, then: allow, accept_incomplete: false}
  - id: rows
    match: {protocols: redis, effects: select}
    then: limit
    limit: {rows: 100, run_bytes: 5000}
  - {id: quiet, match: {protocols: postgresql, users: reader}, then: limit, limit: {read_only: true, per_minute: 60}}
  - {id: watched, match: {protocols: redis, users: other}, then: limit, stage: observe, limit: {rows: 1}}
"""


def policy() -> Policy:
    """Read it."""
    return read_policy({"test.yaml": RULES.encode()})


def said(protocol: str, effects: set[str] | None, *, user: str = "app", problems: tuple[str, ...] = ()) -> Question:
    """Ask about a statement."""
    known = None if effects is None else frozenset(effects)
    statement = Statement(operation="X", content=b"x", text="x", effects=known, resources=(), problems=problems)
    here = Destination(address="192.0.2.1", port=1)
    login = Login(user=user, database="0")
    return Question(number=1, kind=Kind.STATEMENT, destination=here, protocol=protocol, login=login, statement=statement)


def test_a_limit_is_an_obligation() -> None:
    """What is allowed under a rule that limits is told with the limits; what the rule is not about has none."""
    found = judge(policy(), AGENT, said("redis", {"select"}), proven=True)
    assert found.allowed
    assert (("rows", Limit(rows=100, run_bytes=5000)),) == found.obligations.limits
    assert {"masks": [], "credentials": [], "limits": ["rows"]} == found.obligations.to_entry()
    assert not judge(policy(), AGENT, said("redis", {"update"}), proven=True).obligations


def test_what_may_be_limited_is() -> None:
    """Where it is not known whether a rule that limits matches, it does; one that is observed does nothing."""
    assert judge(policy(), AGENT, said("redis", {"select", "update"}), proven=True).obligations.limits
    assert not judge(policy(), AGENT, said("redis", {"update"}, user="other"), proven=True).obligations


@pytest.mark.parametrize(
    ("effects", "problems", "allowed"),
    [
        ({"select"}, (), True),
        ({"session"}, (), True),
        ({"select", "update"}, (), False),
        ({"select", "lock"}, (), False),
        ({"code"}, (), False),
    ],
)
def test_only_reading(effects: set[str], problems: tuple[str, ...], *, allowed: bool) -> None:
    """Nothing but what certainly only reads is said where a rule lets nothing else be said, and it is told why."""
    found = judge(policy(), AGENT, said("postgresql", effects, user="reader", problems=problems), proven=True)
    assert allowed is found.allowed
    if not allowed:
        assert ("read_only", "quiet") == (found.reason, found.rule)
    assert judge(policy(), AGENT, said("postgresql", effects), proven=True).allowed
