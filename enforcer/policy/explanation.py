"""Why an action is decided as it is: every rule, and what of it matched.

What lives here: asking each rule key by key. What must not: deciding: the decision is the evaluator's, and explanations are
held against it by a test.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from capd.enforcer.policy.action import Action, Tri
from capd.enforcer.policy.condition import Bindings, compile_condition
from capd.enforcer.policy.evaluator import counts, ready
from capd.enforcer.policy.matcher import CONTENT, compile_match, named_checks
from capd.enforcer.policy.policy import Policy
from capd.enforcer.policy.redis_targets import is_withheld
from capd.enforcer.policy.rule import Rule
from capd.enforcer.policy.undecoded import is_unnamed


@dataclass(frozen=True, slots=True, kw_only=True)
class Explained:
    """A rule and an action.

    Attributes:
        rule: which.
        answer: whether it matches; None: that is not known.
        counts: whether its effect comes into the decision.
        failed: keys, or `when`, that do not match.
        unknown: keys, or `when`, of which that is not known.
    """

    rule: Rule
    answer: Tri
    counts: bool
    failed: tuple[str, ...]
    unknown: tuple[str, ...]

    def to_json(self) -> dict[str, object]:
        """Give the public form."""
        return {
            "rule": self.rule.id,
            "then": self.rule.then.value,
            "stage": self.rule.stage.value,
            "place": str(self.rule.place),
            "matched": self.answer,
            "counts": self.counts,
            "failed": list(self.failed),
            "unknown": list(self.unknown),
        }


def explain(policy: Policy, action: Action) -> list[Explained]:
    """Explain every rule, in the order of ids."""
    bindings = Bindings(action)
    around = policy.evaluator.redis.around(action, bindings) is not None
    unread = policy.evaluator.undecoded.around(action, bindings) is not None

    def permits(rule: Rule) -> bool:
        return not (around and is_withheld(rule, action)) and not (unread and is_unnamed(rule))

    found = [_explained(rule, action) for rule in policy.rules]
    return [one if permits(one.rule) else replace(one, counts=False) for one in found]


def _explained(rule: Rule, action: Action) -> Explained:
    bindings = Bindings(action)
    answers = {key: check(action) for key, check in named_checks(rule.match)}
    condition = None if rule.when is None else compile_condition(rule.when, rule.match.of_protocols)
    if condition is not None:
        answers["when"] = condition(bindings)
    if action.opening:  # nothing is said yet
        answers = {key: None if key in CONTENT and key != "facts" else found for key, found in answers.items()}
        answer = False if False in answers.values() else None if None in answers.values() else True
    else:
        answer = compile_match(rule.match, condition)(action, bindings)
    return Explained(
        rule=rule,
        answer=answer,
        counts=ready(rule).opening.counts(action, bindings) if action.opening else counts(rule, answer, action),
        failed=tuple(key for key, found in answers.items() if found is False),
        unknown=tuple(key for key, found in answers.items() if found is None),
    )
