"""Rules that can never do what they say because of other rules.

What lives here: finding them in a whole policy. What must not: what is wrong with one rule alone (rule_reading.py).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Final

from capd.enforcer.policy.coverage import Cover, covers
from capd.enforcer.policy.host_pattern import ANY, HostPattern
from capd.enforcer.policy.match import Match
from capd.enforcer.policy.problem import Problems
from capd.enforcer.policy.rule import Effect, Rule

_BEATEN_BY: Final = {
    Effect.DENY: frozenset({Effect.APPROVE, Effect.MASK, Effect.INJECT, Effect.LIMIT, Effect.ALLOW}),
    Effect.APPROVE: frozenset({Effect.ALLOW}),
}
"""Of an action that a rule matches, these effects of other rules do not come about."""


class _ByHost:
    """Rules that could cover another, found by a host of that other."""

    def __init__(self, rules: Iterable[Rule]) -> None:
        self._anywhere: list[tuple[Rule, Cover]] = []
        self._at: dict[str, list[tuple[Rule, Cover]]] = {}
        for rule in rules:
            one = (rule, Cover(rule.match))
            for key in _keys(rule.match):
                (self._anywhere if key is None else self._at.setdefault(key, [])).append(one)

    def candidates(self, match: Match) -> Iterator[tuple[Rule, Cover]]:
        """Give the rules of which one host pattern could cover the first one of a match."""
        yield from self._anywhere
        if not match.hosts:
            return
        rest = match.hosts[0].text
        while rest:
            yield from self._at.get(rest, ())
            rest = rest.partition(".")[2]


def _keys(match: Match) -> Sequence[str | None]:
    return [_key(pattern) for pattern in match.hosts] or [None]


def _key(pattern: HostPattern) -> str | None:
    if pattern.exact:
        return pattern.text
    return None if pattern.text == ANY or pattern.suffix is None else pattern.suffix


def check_shadows(rules: Sequence[Rule], problems: Problems) -> None:
    """Note every rule that another one always beats. A rule that is only observed beats none."""
    for stronger, beaten in _BEATEN_BY.items():
        index = _ByHost(rule for rule in rules if rule.then is stronger and rule.enforced and rule.when is None)
        for rule in rules:
            if rule.then not in beaten:
                continue
            match, protocols = rule.match, rule.match.of_protocols
            above = next((one for one, cover in index.candidates(match) if cover.covers(match, protocols)), None)
            if above is not None:
                message = (
                    f"{rule.id!r} never does what it says: {above.id!r} ({above.place}) is of {stronger}, and matches all of it"
                )
                problems.add(rule.place, message)


def check_passed_through(rules: Sequence[Rule], passed: Sequence[Match], problems: Problems) -> None:
    """Note every rule that asks for what messages say where TLS is passed through."""
    for rule in rules:
        if not (rule.match.content or rule.when is not None) or not rule.match.hosts:
            continue
        if set(rule.match.tls) in ({"none"}, {"inspected"}):
            continue
        if any(covers(one, rule.match) for one in passed):
            message = f"{rule.id!r} asks for what messages say, but TLS to its hosts is passed through, so that capd sees none"
            problems.add(rule.place, message)
