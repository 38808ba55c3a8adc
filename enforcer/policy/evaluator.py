"""The one evaluator: an action in, a decision out, for every protocol.

What lives here: finding the rules that could match, asking them in the order of their effects, putting answers together. What
must not: what a rule means (matcher.py), state: the same action always gets the same decision.

Order: deny, approve, mask, inject and limit, allow, default. The place of a rule in its file, and of its file, changes
nothing. A rule is found by protocol and host, so that a thousand rules for a thousand hosts cost an action no more than one.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

from capd.enforcer.policy.action import UNREADABLE_HOST, Action, Tri
from capd.enforcer.policy.condition import Bindings, compile_condition
from capd.enforcer.policy.decision import Decision, Judgement, Outcome
from capd.enforcer.policy.host_pattern import ANY
from capd.enforcer.policy.looks import looks_at
from capd.enforcer.policy.matcher import Matcher, compile_match
from capd.enforcer.policy.opening import Opening
from capd.enforcer.policy.protocol import PROTOCOLS
from capd.enforcer.policy.redis_targets import WORDS, RedisTargets, is_withheld
from capd.enforcer.policy.rule import CAREFUL, Effect, Rule, by_id
from capd.enforcer.policy.scope import Mode, Recording, Scope, mode_of, recording_of
from capd.enforcer.policy.undecoded import WORDS as UNDECODED
from capd.enforcer.policy.undecoded import Undecoded, is_unnamed
from capd.enforcer.policy.variables import names_in

NO_RULE: Final = "no rule allows this"
_UNSCOPED: Final = (mode_of(()), recording_of(()))


@dataclass(frozen=True, slots=True)
class Ready:
    """A rule that is ready to be asked."""

    rule: Rule
    matches: Matcher
    careful: bool
    opening: Opening

    def counts(self, action: Action, bindings: Bindings) -> bool:
        """Say whether the rule's effect comes into it, as `counts` does; a thousand rules are asked this."""
        answer = self.matches(action, bindings)
        if self.careful:
            return answer is not False
        return answer is True and _permits(self.rule, action)


def counts(rule: Rule, answer: Tri, action: Action) -> bool:
    """Say whether a rule with such an answer counts: what stops, hides or logs does unless it certainly does not match."""
    if rule.then in CAREFUL:
        return answer is not False
    return answer is True and _permits(rule, action)


def _permits(rule: Rule, action: Action) -> bool:
    """Say whether a rule that matches may permit or put in something, as far as the action could be read."""
    return action.complete or rule.accept_incomplete or _accepts_path(rule, action) or _of_session(rule, action)


def _accepts_path(rule: Rule, action: Action) -> bool:
    """Say whether all that is not certain is how a path is read, and the rule, which matches every reading, accepts that."""
    return action.path_alone and set(action.oddities) <= set(rule.accept_paths)


def _of_session(rule: Rule, action: Action) -> bool:
    """Say whether a rule is about the session whatever is said in it: which credential that was opened with."""
    return rule.then is Effect.INJECT and PROTOCOLS[action.protocol].opens


FOUND_BY: Final = frozenset({"protocols"})
"""What the index has asked already."""


def ready(rule: Rule) -> Ready:
    """Compile a rule for the index."""
    protocols = rule.match.of_protocols
    condition = None if rule.when is None else compile_condition(rule.when, protocols)
    matches = compile_match(rule.match, condition, known=FOUND_BY)
    return Ready(rule, matches, rule.then in CAREFUL, Opening(rule, condition))


MERGED_MAX: Final = 64
"""Sets of buckets that are kept as one, of each protocol: agents speak to a handful of hosts, and a set may have all rules."""


@dataclass(frozen=True, slots=True)
class _Candidates:
    """Rules that could match, each once, by id: by effect those that are in force, and those that are observed.

    Attributes:
        looks: what any of them looks at (looks.py).
    """

    enforced: Mapping[Effect, Sequence[Ready]]
    observed: Sequence[Ready]
    looks: frozenset[str]


class _Index:
    """The rules of one protocol, by host."""

    def __init__(self) -> None:
        self._anywhere: list[Ready] = []
        self._exact: dict[str, list[Ready]] = {}
        self._below: dict[str, list[Ready]] = {}
        self._merged: OrderedDict[tuple[int, ...], _Candidates] = OrderedDict()

    def add(self, one: Ready) -> None:
        """Take a rule, before any is asked for."""
        patterns = one.rule.match.hosts
        if not patterns or any(pattern.text == ANY or not (pattern.exact or pattern.suffix) for pattern in patterns):
            self._anywhere.append(one)
            return
        for pattern in patterns:
            if pattern.exact:
                self._exact.setdefault(pattern.text, []).append(one)
            else:
                self._below.setdefault(pattern.suffix or "", []).append(one)

    def candidates(self, names: Iterable[str]) -> _Candidates:
        """Give the rules that could match hosts."""
        buckets = self._buckets(names)
        key = tuple(map(id, buckets))
        found = self._merged.get(key)
        if found is None:
            found = self._merged[key] = _merged(buckets)
            if len(self._merged) > MERGED_MAX:
                self._merged.popitem(last=False)
        return found

    def _buckets(self, names: Iterable[str]) -> list[list[Ready]]:
        """Give those that have them; a rule may be in more than one."""
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


def _merged(buckets: Iterable[Iterable[Ready]]) -> _Candidates:
    unique = {one.rule.id: one for bucket in buckets for one in bucket}
    in_order = [unique[name] for name in sorted(unique)]
    enforced = {effect: [one for one in in_order if one.rule.enforced and one.rule.then is effect] for effect in Effect}
    looks = frozenset[str]().union(*(looks_at(one.rule.match, one.rule.when) for one in in_order))
    return _Candidates(enforced, [one for one in in_order if not one.rule.enforced], looks)


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
        self._looks_of_scopes = frozenset[str]().union(*(looks_at(scope.match) for scope in scopes))
        self._index = {name: _Index() for name in PROTOCOLS}
        self.redis, self.undecoded = RedisTargets(rules), Undecoded(rules)
        self._variables = frozenset[str]().union(*(names_in(rule.when) for rule in rules if rule.when is not None))
        for rule in by_id(rules):
            one = ready(rule)
            for name in rule.match.of_protocols:
                self._index[name].add(one)

    def decide(self, action: Action) -> Decision:
        """Decide about a message.

        Raises:
            KeyError: the action's protocol is none of protocol.PROTOCOLS: a defect of capd.
        """
        bindings = Bindings(action, self._variables)
        candidates = self._index[action.protocol].candidates(action.target.names)
        unread = self.undecoded.around(action, bindings)
        matched = _matched(candidates, action, bindings, unread=unread is not None)
        observed = [one.rule for one in candidates.observed if one.counts(action, bindings)]
        if unread is not None:
            observed = [rule for rule in observed if not is_unnamed(rule)]
        return self._decision(action, bindings, matched, observed, opening=False, unread=unread)

    def looks_at(self, action: Action) -> frozenset[str]:
        """Give what decides about a message beside the rest: of looks.PATH and looks.QUERY those that are not in vain.

        The same for every action that has the same target and protocol.
        """
        return self._looks_of_scopes | self._index[action.protocol].candidates(action.target.names).looks

    def open(self, action: Action) -> Decision:
        """Decide about the opening of a session in which messages are judged one by one.

        Raises:
            KeyError: as `decide`.
        """
        bindings = Bindings(action, self._variables)
        candidates = self._index[action.protocol].candidates(action.target.names)
        enforced = [one for ready in candidates.enforced.values() for one in ready]
        matched, observed = (
            [one.rule for one in ready if one.opening.counts(action, bindings)] for ready in (enforced, candidates.observed)
        )
        return self._decision(action, bindings, matched, observed, opening=True)

    def _decision(
        self,
        action: Action,
        bindings: Bindings,
        matched: Sequence[Rule],
        observed: Sequence[Rule],
        *,
        opening: bool,
        unread: Rule | None = None,
    ) -> Decision:
        """Give what follows from rules that count, and from those that are only observed."""
        mode, recording = self._scoped(action, bindings)
        around = self.redis.around(action, bindings)
        carried_out = _judged(matched, action, around, unread, opening=opening)
        judged = _judged([*matched, *observed], action, around, unread, opening=opening) if observed else carried_out
        if mode is Mode.OBSERVE:
            carried_out = Judgement(outcome=Outcome.ALLOW, rules=(), reason="only observed")
        forwarded = mode is Mode.ENFORCE and carried_out.outcome is not Outcome.DENY
        held = mode is Mode.ENFORCE and carried_out.outcome is Outcome.APPROVE
        decision = Decision(
            carried_out=carried_out,
            judged=judged,
            mode=mode,
            recording=recording,
            problems=action.problems,
            policy=self._version,
        )
        more = [rule for rule in matched if rule.then is not Effect.ALLOW]
        if not more:
            return decision
        if not opening and PROTOCOLS[action.protocol].opens:
            more = [rule for rule in more if rule.then is not Effect.INJECT]  # its session was opened with it
        return _obliged(decision, more, held=held, forwarded=forwarded)

    def _scoped(self, action: Action, bindings: Bindings) -> tuple[Mode, Recording | None]:
        """Give mode and level. A scope of which it is not known whether it matches can make it stricter, never laxer."""
        if not self._scopes:
            return _UNSCOPED
        certain: list[Scope] = []
        possible: list[Scope] = []
        for scope, matches in self._scopes:
            answer = matches(action, bindings)
            if answer is True:
                certain.append(scope)
            elif answer is None and scope.mode is Mode.ENFORCE:
                possible.append(scope)
        return mode_of([*certain, *possible]), recording_of(certain)


def _judged(matched: Sequence[Rule], action: Action, around: Rule | None, unread: Rule | None, *, opening: bool) -> Judgement:
    """Say what rules make of an action; `around` a rule for Redis none permits it, and `unread` is one that it may go round."""
    judging = judge_opening if opening else judge
    if around is not None:
        matched = [rule for rule in matched if not is_withheld(rule, action)]
    found = judging(matched, action)
    if found.rules or found.outcome is not Outcome.DENY or (around is None and unread is None):
        return found
    words = f"rule {around.id} {WORDS}" if around is not None else f"rule {unread.id} {UNDECODED}" if unread else ""
    return Judgement(outcome=Outcome.DENY, rules=(), reason=words)


def _obliged(decision: Decision, rules: Sequence[Rule], *, held: bool, forwarded: bool) -> Decision:
    """Add what rules beside the one that allows ask for."""
    return replace(
        decision,
        approvals=tuple((rule.id, rule.approval) for rule in rules if rule.approval is not None) if held else (),
        masks=tuple((rule.id, rule.mask) for rule in rules if rule.mask is not None) if forwarded else (),
        injections=tuple((rule.id, rule.injection) for rule in rules if rule.injection is not None) if forwarded else (),
        limits=tuple((rule.id, rule.limit) for rule in rules if rule.limit is not None) if forwarded else (),
        logs=tuple(rule.id for rule in rules if rule.then is Effect.LOG),
    )


def _matched(candidates: _Candidates, action: Action, bindings: Bindings, *, unread: bool) -> list[Rule]:
    """Give the rules that count, by effect and id. Those that a stronger one leaves nothing to do are not asked.

    Where an action is `unread`, a rule that does not name what is not decoded allows nothing.
    """
    enforced = candidates.enforced

    def ask(effect: Effect) -> list[Rule]:
        found = enforced[effect]
        return [one.rule for one in found if one.counts(action, bindings)] if found else []

    logs = ask(Effect.LOG)
    if denies := ask(Effect.DENY):
        return [*denies, *logs]
    approves = ask(Effect.APPROVE)
    obligations = by_id([*ask(Effect.MASK), *ask(Effect.INJECT), *ask(Effect.LIMIT)])
    matched = [*approves, *obligations]
    if not approves:  # where it is held first, no rule that allows is needed, and one is as good as ten
        allows = [one for one in enforced[Effect.ALLOW] if not is_unnamed(one.rule)] if unread else enforced[Effect.ALLOW]
        allowed = next((one.rule for one in allows if one.counts(action, bindings)), None)
        matched += [] if allowed is None else [allowed]
    return [*matched, *logs]


def judge(matched: Sequence[Rule], action: Action) -> Judgement:
    """Say what rules that count make of an action."""
    denies = _of(Effect.DENY, matched)
    if denies:
        return Judgement(outcome=Outcome.DENY, rules=_ids(denies), reason=_with_problems(_words(denies, "denies it"), action))
    clash = _contradicting(matched)
    if clash:
        words = f"rules {' and '.join(clash)} inject different credentials into the same place"
        return Judgement(outcome=Outcome.DENY, rules=clash, reason=words)
    approves = _of(Effect.APPROVE, matched)
    if approves:
        words = _with_problems(_words(approves, "wants it approved"), action)
        return Judgement(outcome=Outcome.APPROVE, rules=_ids(approves), reason=words)
    allows = _of(Effect.ALLOW, matched)
    if allows:
        return Judgement(outcome=Outcome.ALLOW, rules=_ids(allows), reason=f"rule {allows[0].id} allows it")
    return Judgement(outcome=Outcome.DENY, rules=(), reason=_with_problems(NO_RULE, action))


def judge_opening(matched: Sequence[Rule], action: Action) -> Judgement:
    """Say what rules that count make of an opening: one that wants what is said approved lets it be said."""
    permitting = [rule for effect in (Effect.ALLOW, Effect.APPROVE) for rule in _of(effect, matched)]
    stopped = judge([rule for rule in matched if rule not in permitting], action)
    if stopped.rules or not permitting:
        return stopped
    return Judgement(outcome=Outcome.ALLOW, rules=(permitting[0].id,), reason=f"rule {permitting[0].id} may let something go")


def _of(effect: Effect, rules: Sequence[Rule]) -> list[Rule]:
    found = [rule for rule in rules if rule.then is effect]
    return by_id(found) if len(found) > 1 else found


def _words(rules: Sequence[Rule], does: str) -> str:
    return next((rule.reason for rule in rules if rule.reason), f"rule {rules[0].id} {does}")


def _ids(rules: Sequence[Rule]) -> tuple[str, ...]:
    return tuple(rule.id for rule in rules)


def _contradicting(matched: Sequence[Rule]) -> tuple[str, ...]:
    """Give rules that put different credentials into one place."""
    places: dict[tuple[str, str], Rule] = {}
    for rule in matched:
        if rule.injection is None:
            continue
        other = places.setdefault(rule.injection.place, rule)
        if other.injection != rule.injection:
            return (other.id, rule.id)
    return ()


def _with_problems(words: str, action: Action) -> str:
    return f"{words} (capd could not read all of it: {'; '.join(action.problems)})" if action.problems else words
