"""Decisions about requests and statements that a policy has made, for the same again: agents repeat themselves.

What lives here: everything that such a decision can depend on, and the bounded memory. What must not: deciding, and what is
said of a decision in a verdict (judge.py).

A policy decides without time and state (policy/evaluator.py), so the same run, connection and request get the same decision
from it. A path and a query decide nothing where no rule that could match looks at them. Not remembered is what a body decides,
what is long, and what needs to be read twice to be understood: odd paths and queries, CONNECT, fields that name another target.
Of fields nothing is kept but the names of those that a policy looks at; of a statement's text nothing where no rule looks at
it: then statements that differ in their literals are the same.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from typing import Final

from capd.enforcer.policy.action import Action, Principal, Run
from capd.enforcer.policy.decision import Decision
from capd.enforcer.policy.http_path import is_plain
from capd.enforcer.policy.http_request import (
    FORWARDED,
    NAMING,
    is_clean_query,
    overriding_parameters,
    telling_names,
)
from capd.enforcer.policy.looks import PATH, QUERY
from capd.enforcer.policy.policy import Policy
from capd.enforcer.proxy.held import in_short
from capd.enforcer.proxy.question import Question, Request, Statement, Verdict

DECISIONS_MAX: Final = 4_096
"""Of all runs; with the limit below some 8 MB at worst. When there are more, all are forgotten: an agent that asks for more and
more is decided about each time."""
TARGET_CHARACTERS_MAX: Final = 1_024
"""Of method, host, path and query that are kept; what is longer is decided anew."""
_NAMED_IN_VALUES: Final = frozenset(NAMING) | FORWARDED
"""Fields of which the value decides."""


@dataclass(slots=True)
class _Alike:
    """What was decided about requests that differ in path and query only.

    Attributes:
        run, principal: whose they are; kept, so that no other objects can take their places.
        by_path, by_query: whether a rule looks at it.
        decisions: by path and query, as far as a rule looks at them.
    """

    run: Run
    principal: Principal | None
    by_path: bool
    by_query: bool
    decisions: dict[tuple[str | None, str | None], Decision] = field(default_factory=dict)

    def key(self, request: Request) -> tuple[str | None, str | None]:
        """Give what tells a request from those that nothing tells from it."""
        return request.path if self.by_path else None, request.query if self.by_query else None


@dataclass(slots=True, frozen=True)
class _Judged:
    """What was decided about all questions that are kin, and what by.

    Attributes:
        policy, agent: known again by being the same objects.
        verdict: about one of them.
        short: as `in_short` says it.
    """

    policy: Policy
    agent: object
    verdict: Verdict
    short: tuple[str, str] | None


def decided_again(policy: Policy | None, agent: object, question: Question) -> tuple[Verdict, tuple[str, str] | None] | None:
    """Give the verdict about a question whose kin was decided by the same policy, and what is kept of it as context.

    None: it has to be judged.
    """
    kin = question.kin
    if kin is None:
        return None
    known = kin.judged
    if not isinstance(known, _Judged) or known.policy is not policy or known.agent is not agent:
        return None
    return known.verdict.again(question.number), known.short


def keep_decided(policy: Policy | None, agent: object, question: Question, verdict: Verdict) -> None:
    """Keep a verdict for what is kin, where it hangs on nothing else: no text, no person, no estimate.

    Whoever calls has seen to it that nothing but the policy, the agent and the question decided, not the time.
    """
    kin = question.kin
    if kin is None or policy is None or verdict.held is not None or verdict.body_bytes or verdict.approval or verdict.facts:
        return
    kin.judged = None if looks_at_text(policy) else _Judged(policy, agent, verdict, in_short(question, verdict))


class Remembered:
    """Of one worker. Forgets everything when the policy is another one."""

    def __init__(self) -> None:
        self._policy: Policy | None = None
        self._looks = True
        self._known: dict[Hashable, _Alike] = {}
        self._statements: dict[Hashable, tuple[Run, Principal | None, Decision]] = {}
        self._count = 0

    def decision(
        self,
        policy: Policy,
        asks: tuple[Run, Principal | None],
        question: Question,
        *,
        proven: bool,
        action: Callable[[], Action],
    ) -> Decision:
        """Give what the policy decides about a request or a statement: what it said before, or what it says now.

        Args:
            policy: in force.
            asks: who asks. Known again by being the same objects.
            question: what is asked.
            proven: as `judge` has it.
            action: gives just that as the policy is asked about it.
        """
        if policy is not self._policy:
            self._policy, self._looks = policy, looks_at_text(policy)
            self._forget()
        if question.statement is not None:
            return self._of_statement(policy, asks, question, question.statement, proven=proven, action=action)
        request = question.request
        general = None if request is None else _general(asks, question, request, proven=proven)
        if request is None or general is None:
            return policy.decide(action())
        alike = self._known.get(general)
        if alike is not None and (found := alike.decisions.get(alike.key(request))) is not None:
            return found
        asked = action()
        decision = policy.decide(asked)
        self._make_room()
        alike = self._known.get(general)
        if alike is None:
            looks = policy.looks_at(asked)
            alike = self._known[general] = _Alike(*asks, PATH in looks, QUERY in looks)
        alike.decisions[alike.key(request)] = decision
        return decision

    def _of_statement(
        self,
        policy: Policy,
        asks: tuple[Run, Principal | None],
        question: Question,
        statement: Statement,
        *,
        proven: bool,
        action: Callable[[], Action],
    ) -> Decision:
        key = _statement_key(asks, question, statement, proven=proven, looks=self._looks)
        found = None if key is None else self._statements.get(key)
        if found is not None:
            return found[2]
        decision = policy.decide(action())
        if key is not None:
            self._make_room()
            self._statements[key] = (*asks, decision)
        return decision

    def _make_room(self) -> None:
        """Count one more; where that is too many, forget all."""
        if self._count >= DECISIONS_MAX:
            self._forget()
        self._count += 1

    def _forget(self) -> None:
        self._known.clear()
        self._statements.clear()
        self._count = 0


def _general(asks: tuple[Run, Principal | None], question: Question, request: Request, *, proven: bool) -> Hashable | None:
    """Give what the decision depends on beside path and query; None: on more than is kept."""
    body, query, method = question.body, request.query, request.method
    if body is not None and body.content:
        return None
    if len(method) + len(request.host) + len(request.path) + (0 if query is None else len(query)) > TARGET_CHARACTERS_MAX:
        return None
    if method == "CONNECT" or not is_plain(request.path):
        return None
    if query is not None and (not is_clean_query(query) or overriding_parameters(query)):
        return None
    telling = telling_names(request.fields)
    if telling and not _NAMED_IN_VALUES.isdisjoint(telling):
        return None
    run, principal = asks
    destination = question.destination
    return (
        method,
        request.host,
        destination.address,
        destination.port,
        question.server_name,
        question.inspected,
        proven,
        None if body is None else body.complete,
        telling,
        id(run),
        id(principal),
    )


def looks_at_text(policy: Policy) -> bool:
    """Say whether any rule may look at what is said."""
    return any(rule.match.text_regex is not None or rule.when is not None for rule in policy.rules)


def _statement_key(
    asks: tuple[Run, Principal | None], question: Question, statement: Statement, *, proven: bool, looks: bool
) -> Hashable | None:
    text = statement.text if looks else None
    if text is not None and len(text) > TARGET_CHARACTERS_MAX:
        return None
    if sum(len(name) for name, _ in statement.resources or ()) > TARGET_CHARACTERS_MAX:
        return None
    run, principal = asks
    destination = question.destination
    return (
        question.protocol,
        destination.address,
        destination.port,
        question.server_name,
        question.inspected,
        question.carries_out,
        question.login,
        statement.operation,
        statement.effects,
        statement.resources,
        tuple(statement.facts.items()),
        statement.problems,
        text,
        proven,
        id(run),
        id(principal),
    )
