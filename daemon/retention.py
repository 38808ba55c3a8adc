"""How long recordings are kept: rules, and what follows from them for a segment.

What lives here: the judgement over facts. What must not: clocks, finding the facts, deleting (expiry.py).

A session is kept as the first rule says that fits it, and for ever if none does. A segment holds the records of many sessions
and is one object: it is kept as long as the session of it that is kept longest.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Final

DAY_NS: Final = 86_400 * 1_000_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """One retention class.

    Attributes:
        name: what records of deletion call it.
        principal, target, label: shell patterns that have to fit; None: anything does. A label is `KEY=VALUE`.
        hot_ns: how long the local copy stays after it was recorded; None: as `[local]` says.
        keep_ns: how long it is kept at all; None: for ever.
    """

    name: str
    principal: str | None = None
    target: str | None = None
    label: str | None = None
    hot_ns: int | None = None
    keep_ns: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """What rules are asked about: a session, or a run.

    Attributes:
        principals: names of whom it acted for: the name, and the number of the user.
        targets: names and addresses of the peer, `HOST` and `HOST:PORT`; of a run none.
        labels: of the run.
        known: whether that is all there is to know of it; else it may be anything.
    """

    principals: Sequence[str]
    targets: Sequence[str]
    labels: Mapping[str, object]
    known: bool = True


UNKNOWN: Final = Subject(principals=(), targets=(), labels={}, known=False)
"""A session or run whose record that says whose it was is not here, as in an index made anew of what the host still has."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Lifetime:
    """How long a segment is kept.

    Attributes:
        policy: the class that decided; "" when none did.
        hot_ns: local copy; None: as `[local]` says.
        keep_ns: at all; None: for ever.
    """

    policy: str
    hot_ns: int | None
    keep_ns: int | None


FOR_EVER: Final = Lifetime(policy="", hot_ns=None, keep_ns=None)


def rule_for(subject: Subject, rules: Iterable[Rule]) -> Rule | None:
    """Give the first rule that fits."""
    return next((rule for rule in rules if _fits(rule, subject)), None)


def _may_decide(subject: Subject, rules: Sequence[Rule]) -> list[Rule | None]:
    """Give the rule for a subject; of one that is not known each rule that may be it."""
    if subject.known:
        return [rule_for(subject, rules)]
    everything = next((number for number, rule in enumerate(rules) if _fits(rule, subject)), None)
    return [*rules, None] if everything is None else list(rules[: everything + 1])


def lifetime(subjects: Sequence[Subject], rules: Sequence[Rule]) -> Lifetime:
    """Give how long a segment with these sessions and runs is kept: as long as any of them needs.

    One that no rule fits is kept for ever, and so is a segment of which nothing is known.
    """
    found = [rule for subject in subjects for rule in _may_decide(subject, rules)]
    if not found:
        return FOR_EVER
    longest: Rule | None = None
    hots: list[int] = []
    for rule in found:
        if rule is None or rule.keep_ns is None:
            return Lifetime(policy=rule.name if rule else "", hot_ns=None, keep_ns=None)
        if rule.hot_ns is not None:
            hots.append(rule.hot_ns)
        if longest is None or longest.keep_ns is None or rule.keep_ns > longest.keep_ns:
            longest = rule
    assert longest is not None
    hot = max(hots) if len(hots) == len(found) else None
    return Lifetime(policy=longest.name, hot_ns=hot, keep_ns=longest.keep_ns)


def _fits(rule: Rule, subject: Subject) -> bool:
    labels = [f"{key}={value}" for key, value in subject.labels.items()]
    asked = ((rule.principal, subject.principals), (rule.target, subject.targets), (rule.label, labels))
    return all(pattern is None or any(fnmatchcase(value, pattern) for value in values) for pattern, values in asked)
