"""Whether one match has all that another has, so that a rule can stand in another's shadow.

What lives here: the comparison. What must not: what follows from it (shadows.py).

A yes is certain; a no may only mean that it is hard to tell.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final

from capd.enforcer.policy.glob import Glob
from capd.enforcer.policy.match import Match


def covers(wide: Match, narrow: Match) -> bool:
    """Say whether every action that `narrow` certainly matches is one that `wide` matches, or may match."""
    return Cover(wide).covers(narrow, narrow.of_protocols)


class Cover:
    """A match that is compared with many others."""

    __slots__ = ("_asked", "_protocols")

    def __init__(self, wide: Match) -> None:
        self._protocols = wide.of_protocols
        self._asked = [(key, compare, getattr(wide, key)) for key, compare in _COMPARED.items() if getattr(wide, key)]

    def covers(self, narrow: Match, protocols: frozenset[str]) -> bool:
        """Say whether it has all that another one has, whose protocols are given."""
        if not self._protocols >= protocols:
            return False
        for key, compare, wanted in self._asked:
            found = getattr(narrow, key)
            if not found or not compare(wanted, found):
                return False
        return True


def _patterns(wide: Sequence[Any], narrow: Sequence[Any]) -> bool:
    return all(any(one.covers(other) for one in wide) for other in narrow)


def _principals(wide: Sequence[Glob], narrow: Sequence[Glob]) -> bool:
    """Patterns for names, and patterns for kinds and names, are two sorts."""
    return all(any((":" in one.text) == (":" in other.text) and one.covers(other) for one in wide) for other in narrow)


def _words(wide: Sequence[object], narrow: Sequence[object]) -> bool:
    return set(wide) >= set(narrow)


def _labels(wide: Sequence[tuple[str, Sequence[Any]]], narrow: Sequence[tuple[str, Sequence[Any]]]) -> bool:
    others = dict(narrow)
    return all(name in others and _patterns(values, others[name]) for name, values in wide)


def _facts(wide: Sequence[object], narrow: Sequence[object]) -> bool:
    return set(wide) <= set(narrow)


def _same(wide: str, narrow: str) -> bool:
    return wide == narrow


_COMPARED: Final[dict[str, Callable[[Any, Any], bool]]] = {
    "hosts": _patterns,
    "principals": _principals,
    "runs": _patterns,
    "labels": _labels,
    "ports": _patterns,
    "addresses": _patterns,
    "tls": _words,
    "databases": _patterns,
    "users": _patterns,
    "methods": _words,
    "paths": _patterns,
    "path_regex": _same,
    "query_regex": _same,
    "commands": _words,
    "effects": _words,
    "resources": _patterns,
    "text_regex": _same,
    "facts": _facts,
}
