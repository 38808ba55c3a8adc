"""Targets that rules say are Redis: what may go there otherwise than as Redis.

What lives here: finding them, and what rules permit nothing there. What must not: what a rule does otherwise.

Redis takes any line for a command, answers with an error, and goes on. So whatever a client says, in whatever protocol, may be
commands to it, which no rule for Redis would see.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from capd.enforcer.policy.action import Action
from capd.enforcer.policy.condition import Bindings
from capd.enforcer.policy.host_pattern import ANY
from capd.enforcer.policy.match import Match
from capd.enforcer.policy.matcher import Matcher, compile_match
from capd.enforcer.policy.protocol import REDIS, TCP, TLS, WEBSOCKET
from capd.enforcer.policy.rule import Effect, Rule, by_id

PORT: Final = 6_379
WORDS: Final = "is about Redis here, which takes any line for a command: only what is certainly Redis goes there"
_NOT_ASKED: Final = frozenset({REDIS, TLS, WEBSOCKET})
"""Is judged as Redis; nobody sees what is said, and a rule says so; was asked as a request before."""
_PERMITS: Final = frozenset({Effect.ALLOW, Effect.APPROVE})


@dataclass(frozen=True, slots=True)
class _About:
    """A rule, and where it is about.

    Attributes:
        rule: which.
        matches: asks whether a target is one.
        ports, hosts: whether it names ports; hosts or addresses.
    """

    rule: Rule
    matches: Matcher
    ports: bool
    hosts: bool


class RedisTargets:
    """Of one set of rules."""

    def __init__(self, rules: Sequence[Rule]) -> None:
        self._said: list[_About] = []
        self._opened: list[_About] = []
        for rule in by_id(rules):
            if REDIS in rule.match.protocols:
                self._said.append(_about(rule))
            if TCP in rule.match.protocols and rule.then in _PERMITS and rule.enforced:
                self._opened.append(_about(rule))

    def around(self, action: Action, bindings: Bindings) -> Rule | None:
        """Give the rule for Redis that an action would go round, as it may be commands that nobody can judge; None: none is.

        Where a rule for Redis names the port, or at 6379, nothing goes but Redis, and what is decoded of protocols that the
        same rule names. Where it names hosts alone, what is not decoded goes if a rule for `tcp` names the port; where it names
        neither, if one names `tcp`.
        """
        if not self._said or action.protocol in _NOT_ASKED:
            return None
        for one in self._said:
            if one.matches(action, bindings) is False:
                continue
            named = one.ports or action.target.port == PORT
            if action.protocol != TCP:
                found = named and action.protocol not in one.rule.match.protocols
            else:
                found = named or not self._is_opened(action, bindings, port=one.hosts)
            if found:
                return one.rule
        return None

    def _is_opened(self, action: Action, bindings: Bindings, *, port: bool) -> bool:
        return any((one.ports or not port) and one.matches(action, bindings) is True for one in self._opened)


def _about(rule: Rule) -> _About:
    match = rule.match
    where = Match(hosts=match.hosts, ports=match.ports, addresses=match.addresses)
    hosts = bool(match.addresses) or any(pattern.text != ANY for pattern in match.hosts)
    return _About(rule, compile_match(where), bool(match.ports), hosts)


def is_withheld(rule: Rule, action: Action) -> bool:
    """Say whether a rule permits nothing that goes round one for Redis; an opening, which is never held, by none."""
    return rule.then is Effect.ALLOW or (rule.then is Effect.APPROVE and action.opening)
