"""The one evaluator: an action in, a decision out, for every protocol.

What lives here: finding the rules that could match, asking them in the order of their effects, putting answers together. What
must not: what a rule means (matcher.py), state: the same action always gets the same decision.

Order: deny, approve, mask and inject, allow, default. The place of a rule in its file, and of its file, changes nothing. A rule
is found by protocol and host, so that a thousand rules for a thousand hosts cost an action no more than one.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final

from capd.enforcer.policy.action import UNREADABLE_HOST, Action, Tri
from capd.enforcer.policy.condition import Bindings, compile_condition
from capd.enforcer.policy.decision import Decision, Judgement, Outcome
from capd.enforcer.policy.host_pattern import ANY
from capd.enforcer.policy.matcher import Matcher, compile_match
from capd.enforcer.policy.protocol import PROTOCOLS
from capd.enforcer.policy.rule import CAREFUL, Effect, Rule, by_id
from capd.enforcer.policy.scope import Mode, Recording, Scope, mode_of, recording_of
from capd.enforcer.policy.variables import names_in

NO_RULE: Final = "no rule allows this"


@dataclass(frozen=True, slots=True)
class Ready:
    """A rule that is ready to be asked."""

    rule: Rule
    matches: Matcher

    def counts(self, action: Action, bindings: Bindings) -> bool:
        """Say whether the rule's effect comes into it."""
        return counts(self.rule, self.matches(action, bindings), action)


def counts(rule: Rule, answer: Tri, action: Action) -> bool:
    """Say whether a rule with such an answer counts: what stops, hides or logs does unless it certainly does not match."""
    if rule.then in CAREFUL:
        return answer is not False
    return answer is True and (action.complete or rule.accept_incomplete or _accepts_path(rule, action))


def _accepts_path(rule: Rule, action: Action) -> bool:
    """Say whether all that is not certain is how a path is read, and the rule, which matches every reading, accepts that."""
    return action.path_alone and set(action.oddities) <= set(rule.accept_paths)


FOUND_BY: Final = frozenset({"protocols"})
"""What the index has asked already."""


def ready(rule: Rule) -> Ready:
    """Compile a rule for the index."""
    protocols = rule.match.of_protocols
    condition = None if rule.when is None else compile_condition(rule.when, protocols)
    return Ready(rule, compile_match(rule.match, condition, known=FOUND_BY))


@dataclass(slots=True)
class _Bucket:
    """Rules by effect, of those that are in force, and those that are observed."""

    enforced: dict[Effect, list[Ready]] = field(default_factory=lambda: {effect: [] for effect in Effect})
    observed: list[Ready] = field(default_factory=list)

    def add(self, one: Ready) -> None:
        (self.enforced[one.rule.then] if one.rule.enforced else self.observed).append(one)


class _Index:
    """The rules of one protocol, by host."""

    def __init__(self) -> None:
        self._anywhere = _Bucket()
        self._exact: dict[str, _Bucket] = {}
        self._below: dict[str, _Bucket] = {}

    def add(self, one: Ready) -> None:
        patterns = one.rule.match.hosts
        if not patterns or any(pattern.text == ANY or not (pattern.exact or pattern.suffix) for pattern in patterns):
            self._anywhere.add(one)
            return
        for pattern in patterns:
            if pattern.exact:
                self._exact.setdefault(pattern.text, _Bucket()).add(one)
            else:
                self._below.setdefault(pattern.suffix or "", _Bucket()).add(one)

    def buckets(self, names: Iterable[str]) -> list[_Bucket]:
        """Give the buckets of the rules that could match hosts; a rule may be in more than one."""
        found = [self._anywhere]
        for name in names:
            if name == UNREADABLE_HOST:
                return [self._anywhere, *self._exact.values(), *self._below.values()]
            if (bucket := self._exact.get(name)) is not None:
                found.append(bucket)
            rest = name.partition(".")[2] if self._below else ""
            while rest:
                if (bucket := self._below.get(rest)) is not None:
                    found.append(bucket)
                rest = rest.partition(".")[2]
        return found


class Evaluator:
    """Decides by a set of rules.

    Args:
        rules: in any order; all are in the language (rule_reading.py).
        scopes: in their order.
        version: of the policy.
    """

    def __init__(self, rules: Sequence[Rule], scopes: Sequence[Scope], version: str) -> None:
        self._version = version
        self._scopes = [(scope, compile_match(scope.match)) for scope in scopes]
        self._index = {name: _Index() for name in PROTOCOLS}
        self._variables = frozenset[str]().union(*(names_in(rule.when) for rule in rules if rule.when is not None))
        for rule in by_id(rules):
            one = ready(rule)
            for name in rule.match.of_protocols:
                self._index[name].add(one)

    def decide(self, action: Action) -> Decision:
        """Decide.

        Raises:
            KeyError: the action's protocol is none of protocol.PROTOCOLS: a defect of capd.
        """
        bindings = Bindings(action, self._variables)
        buckets = self._index[action.protocol].buckets(action.target.names)
        matched = _matched(buckets, action, bindings)
        observed = [one.rule for bucket in buckets for one in bucket.observed if one.counts(action, bindings)]
        mode, recording = self._scoped(action, bindings)
        carried_out = judge(matched, action)
        judged = judge([*matched, *observed], action) if observed else carried_out
        if mode is Mode.OBSERVE:
            carried_out = Judgement(outcome=Outcome.ALLOW, rules=(), reason="only observed")
        forwarded = mode is Mode.ENFORCE and carried_out.outcome is not Outcome.DENY
        held = mode is Mode.ENFORCE and carried_out.outcome is Outcome.APPROVE
        return Decision(
            carried_out=carried_out,
            judged=judged,
            mode=mode,
            approvals=tuple((rule.id, rule.approval) for rule in matched if rule.approval is not None) if held else (),
            masks=tuple((rule.id, rule.mask) for rule in matched if rule.mask is not None) if forwarded else (),
            injections=tuple((rule.id, rule.injection) for rule in matched if rule.injection is not None) if forwarded else (),
            logs=tuple(rule.id for rule in matched if rule.then is Effect.LOG),
            recording=recording,
            problems=action.problems,
            policy=self._version,
        )

    def _scoped(self, action: Action, bindings: Bindings) -> tuple[Mode, Recording | None]:
        """Give mode and level. A scope of which it is not known whether it matches can make it stricter, never laxer."""
        certain: list[Scope] = []
        possible: list[Scope] = []
        for scope, matches in self._scopes:
            answer = matches(action, bindings)
            if answer is True:
                certain.append(scope)
            elif answer is None and scope.mode is Mode.ENFORCE:
                possible.append(scope)
        return mode_of([*certain, *possible]), recording_of(certain)


def _matched(buckets: Sequence[_Bucket], action: Action, bindings: Bindings) -> list[Rule]:
    """Give the rules that count, each once, by effect and id. Those that a stronger one leaves nothing to do are not asked."""
    found: dict[str, Rule] = {}

    def ask(effect: Effect) -> Iterator[Rule]:
        for bucket in buckets:
            for one in bucket.enforced[effect]:
                if one.rule.id not in found and one.counts(action, bindings):
                    found[one.rule.id] = one.rule
                    yield one.rule

    logs = by_id(list(ask(Effect.LOG)))
    if denies := by_id(list(ask(Effect.DENY))):
        return [*denies, *logs]
    approves = by_id(list(ask(Effect.APPROVE)))
    obligations = by_id([*ask(Effect.MASK), *ask(Effect.INJECT)])
    # One rule that allows is as good as ten, and where it is held first, none is needed.
    allows = [] if approves else [rule for rule in [next(ask(Effect.ALLOW), None)] if rule is not None]
    return [*approves, *obligations, *allows, *logs]


def judge(matched: Sequence[Rule], action: Action) -> Judgement:
    """Say what rules that count make of an action."""
    denies, approves, allows = (
        by_id([rule for rule in matched if rule.then is effect]) for effect in (Effect.DENY, Effect.APPROVE, Effect.ALLOW)
    )
    if denies:
        return Judgement(outcome=Outcome.DENY, rules=_ids(denies), reason=_with_problems(_words(denies, "denies it"), action))
    clash = _contradicting(matched)
    if clash:
        words = f"rules {' and '.join(clash)} inject different credentials into the same place"
        return Judgement(outcome=Outcome.DENY, rules=clash, reason=words)
    if approves:
        words = _with_problems(_words(approves, "wants it approved"), action)
        return Judgement(outcome=Outcome.APPROVE, rules=_ids(approves), reason=words)
    if allows:
        return Judgement(outcome=Outcome.ALLOW, rules=_ids(allows), reason=f"rule {allows[0].id} allows it")
    return Judgement(outcome=Outcome.DENY, rules=(), reason=_with_problems(NO_RULE, action))


def _words(rules: Sequence[Rule], does: str) -> str:
    return next((rule.reason for rule in rules if rule.reason), f"rule {rules[0].id} {does}")


def _ids(rules: Sequence[Rule]) -> tuple[str, ...]:
    return tuple(rule.id for rule in rules)


def _contradicting(matched: Sequence[Rule]) -> tuple[str, ...]:
    """Give rules that put different credentials into one place."""
    places: dict[str | None, Rule] = {}
    for rule in matched:
        if rule.injection is None:
            continue
        other = places.setdefault(rule.injection.header, rule)
        if other.injection != rule.injection:
            return (other.id, rule.id)
    return ()


def _with_problems(words: str, action: Action) -> str:
    return f"{words} (capd could not read all of it: {'; '.join(action.problems)})" if action.problems else words
