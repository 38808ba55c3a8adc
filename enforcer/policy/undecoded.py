"""Targets of which rules stop, hold or hide something that is said in a protocol that capd decodes: what else may go there.

What lives here: finding them, and which rules permit nothing there. What must not: what a rule does otherwise.

What capd does not decode the target may read after all: `DELETE / HTTP/1.2`, or a method in small letters, is a request to many
a server, and no rule about requests would see it. So a rule permits that only if it says that it means it, by naming `tcp`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from capd.enforcer.policy.action import Action
from capd.enforcer.policy.condition import Bindings
from capd.enforcer.policy.match import Match
from capd.enforcer.policy.matcher import Matcher, compile_match
from capd.enforcer.policy.protocol import HTTP, MYSQL, POSTGRESQL, TCP
from capd.enforcer.policy.rule import Effect, Rule, by_id

WORDS: Final = "looks at what is said to this target, and this is not decoded: only a rule that names `tcp` lets it go there"
_DECODED: Final = frozenset({HTTP, POSTGRESQL, MYSQL})
"""For Redis, which takes any line for a command, there is more (redis_targets.py)."""
_CAREFUL: Final = frozenset({Effect.DENY, Effect.APPROVE, Effect.MASK, Effect.LIMIT})


class Undecoded:
    """Of one set of rules."""

    def __init__(self, rules: Sequence[Rule]) -> None:
        self._looking: list[tuple[Rule, Matcher]] = [(rule, _where(rule)) for rule in by_id(rules) if _looks(rule)]

    def around(self, action: Action, bindings: Bindings) -> Rule | None:
        """Give a rule that an action which is not decoded may go round; None: none is."""
        if action.protocol != TCP:
            return None
        return next((rule for rule, matches in self._looking if matches(action, bindings) is not False), None)


def is_unnamed(rule: Rule) -> bool:
    """Say whether a rule permits nothing that goes round another one, as it does not say that it means what is not decoded."""
    return rule.then is Effect.ALLOW and TCP not in rule.match.protocols


def _looks(rule: Rule) -> bool:
    of = rule.match.of_protocols
    return rule.enforced and rule.then in _CAREFUL and TCP not in of and not of.isdisjoint(_DECODED)


def _where(rule: Rule) -> Matcher:
    """Ask for whose connection it is, and where it goes: the rest is said in it."""
    match = rule.match
    return compile_match(
        Match(
            principals=match.principals,
            runs=match.runs,
            labels=match.labels,
            hosts=match.hosts,
            ports=match.ports,
            addresses=match.addresses,
            tls=match.tls,
        )
    )
