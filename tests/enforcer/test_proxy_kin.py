"""What is kept of a verdict for questions that are kin is what a judge without memory says.

What lives here: any policies and statements that come again with other values. What must not: what policies mean, requests
(test_proxy_remembered.py).
"""

from __future__ import annotations

from dataclasses import fields, replace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from capd.enforcer.approvals.hold import Hold
from capd.enforcer.policy.action import Principal, Run
from capd.enforcer.policy.policy import Policy
from capd.enforcer.policy.rule import Rule
from capd.enforcer.proxy.held import in_short
from capd.enforcer.proxy.judge import Agent, judge
from capd.enforcer.proxy.question import Destination, Kin, Kind, Login, Question, Statement, Verdict
from capd.enforcer.proxy.remembered import decided_again, keep_decided
from tests.enforcer.policies import policy, rules
from tests.enforcer.test_proxy_remembered import a_policy

AGENTS = (Agent(run=Run(id="r"), principal=None), Agent(run=Run(id="r"), principal=Principal(name="ann")))
HERE = Destination(address="192.0.2.1", port=5432)
TEXTS = ("select a from t where b = 1", "select a from t where b = 2", "select a from t where b = 'secret'", None)


def asked(number: int, text: str | None, kin: Kin, *, effects: frozenset[str] = frozenset({"select"})) -> Question:
    """Give a question about a statement; its kin differ in number, text and content alone."""
    statement = Statement(
        operation="SELECT",
        content=(text or "").encode(),
        text=text,
        effects=effects,
        resources=(("public.t", "read"),),
        shape="select a from t where b = ?",
    )
    return Question(
        number=number,
        kind=Kind.STATEMENT,
        destination=HERE,
        protocol="postgresql",
        login=Login(user="agent", database="shop"),
        statement=statement,
        carries_out=True,
        kin=kin,
    )


def judged(policy_: Policy, agent: Agent, question: Question) -> Verdict:
    """Judge as the worker does."""
    again = decided_again(policy_, agent, question)
    if again is not None:
        assert in_short(question, again[0]) == again[1]
        return again[0]
    verdict = judge(policy_, agent, question, proven=True)
    keep_decided(policy_, agent, question, verdict)
    return verdict


Asked = tuple[int, str | None, bool, int, int]
ASKED: st.SearchStrategy[Asked] = st.tuples(
    st.integers(1, 9), st.sampled_from(TEXTS), st.booleans(), st.sampled_from([0, 1]), st.sampled_from([0, 1])
)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(rules(), max_size=5), st.lists(rules(), max_size=5), st.lists(ASKED, min_size=2, max_size=12))
def test_what_is_kept_is_what_would_be_decided(first: list[Rule], second: list[Rule], said: list[Asked]) -> None:
    """Whoever asks, with whatever values, whichever policy is in force: the verdict is that of a judge without memory."""
    policies, kin = (a_policy(first), a_policy(second)), (Kin(), Kin())
    for number, text, writes, which, who in said:
        question = asked(number, text, kin[writes], effects=frozenset({"delete"} if writes else {"select"}))
        anew = judge(policies[which], AGENTS[who], question, proven=True)
        assert replace(anew) == judged(policies[which], AGENTS[who], question)


BY_TEXT = policy(
    """
rules:
  - {id: all, match: {protocols: [postgresql]}, then: allow}
  - {id: secret, match: {protocols: [postgresql], text_regex: secret}, then: deny}
"""
)
ALL = policy("rules:\n  - {id: all, match: {protocols: [postgresql]}, then: allow}\n")
NONE = policy("rules:\n  - {id: none, match: {protocols: [postgresql]}, then: deny}\n")


def test_a_rule_about_text() -> None:
    """Where a rule looks at what is said nothing is kept: a value that it denies is denied behind one that it does not."""
    kin = Kin()
    assert [True, False, True] == [judged(BY_TEXT, AGENTS[0], asked(1, text, kin)).allowed for text in (*TEXTS[1:3], TEXTS[0])]
    assert kin.judged is None


def test_another_policy_or_agent() -> None:
    """A policy in force for a moment decides for that moment, and no agent has the verdict of another."""
    kin = Kin()
    assert [True, False, True] == [judged(one, AGENTS[0], asked(1, TEXTS[0], kin)).allowed for one in (ALL, NONE, ALL)]
    assert decided_again(ALL, AGENTS[0], asked(2, TEXTS[1], kin)) is not None
    assert decided_again(NONE, AGENTS[0], asked(2, TEXTS[1], kin)) is None
    assert decided_again(None, AGENTS[0], asked(2, TEXTS[1], kin)) is None
    assert decided_again(ALL, replace(AGENTS[0]), asked(2, TEXTS[1], kin)) is None


@pytest.mark.parametrize(
    "changes", [{"held": Hold.__new__(Hold)}, {"body_bytes": 1}, {"approval": {"id": "a"}}, {"facts": {"a": "b"}}]
)
def test_what_is_not_kept(changes: dict[str, object]) -> None:
    """What a person has to decide, or did, and what more has to be known for, is decided each time."""
    kin = Kin()
    question = asked(1, TEXTS[0], kin)
    keep_decided(ALL, AGENTS[0], question, replace(judge(ALL, AGENTS[0], question, proven=True), **changes))  # type: ignore[arg-type]
    assert decided_again(ALL, AGENTS[0], question) is None


def _odd(made: object) -> dict[str, object]:
    """Give another value for each of its attributes than it has by itself."""
    return {one.name: object() for one in fields(made)}  # type: ignore[arg-type]


def test_again_is_the_same() -> None:
    """What is made anew for a statement that comes again differs from the former in what is given alone."""
    plain = asked(1, TEXTS[0], Kin())
    assert plain.statement is not None
    statement = replace(plain.statement, **_odd(plain.statement))  # type: ignore[arg-type]
    again = statement.again(b"other", "text")
    assert replace(statement, content=b"other", text="text") == again
    question = replace(plain, **_odd(plain))  # type: ignore[arg-type]
    assert replace(question, number=7, statement=again) == question.again(7, again)
    assert question.kin is question.again(7, again).kin
    verdict = Verdict(**_odd(Verdict(number=1, allowed=True)))  # type: ignore[arg-type]
    assert replace(verdict, number=7) == verdict.again(7)
