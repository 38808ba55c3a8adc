"""How much of a session is recorded: levels, and which of them holds for whom.

What lives here: matching of scopes. What must not: configuration files, records.

The first scope that matches decides. While the protocol of a session is not known, a scope that asks for one may still
match; then nothing is stored until it is known, and what has to be stored nevertheless is stored as the stricter of the
two would have it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from fnmatch import fnmatchcase

from capd.recording.record import Value


class Level(IntEnum):
    """How much is recorded, from all to nothing."""

    FULL = 0
    MASKED = 1
    METADATA = 2
    OFF = 3

    @property
    def word(self) -> str:
        """The level as the configuration and records call it."""
        return self.name.lower()


@dataclass(frozen=True, slots=True, kw_only=True)
class Scope:
    """Sessions that have a level of their own: those that meet every condition given.

    Attributes:
        level: theirs.
        principal, run, host: shell patterns, without regard to case: of the principal's name; of the run's name; of the
            target's address or name.
        labels: shell patterns for the values of labels.
        port: of the target.
        protocol: as its decoder calls it.
    """

    level: Level
    principal: str | None = None
    run: str | None = None
    labels: Mapping[str, str] = field(default_factory=dict)
    host: str | None = None
    port: int | None = None
    protocol: str | None = None


def _matches(pattern: str | None, *values: Value) -> bool:
    return pattern is None or any(isinstance(value, str) and fnmatchcase(value.lower(), pattern.lower()) for value in values)


@dataclass(frozen=True, slots=True, kw_only=True)
class Levels:
    """The levels of one configuration.

    Attributes:
        default: where no scope matches.
        scopes: in order.
    """

    default: Level = Level.MASKED
    scopes: Sequence[Scope] = ()

    def of(self, facts: Mapping[str, Value], protocol: str | None) -> tuple[Level, bool]:
        """Give the level of a session, or of a run, and whether it can still be another when its protocol is known.

        Args:
            facts: `principal`, `run_name`, `labels`, `target`, as in an OPEN record or the marker of a run.
            protocol: None while it is not known.
        """
        strictest: Level | None = None
        level = self.default
        for scope in self.scopes:
            if not _meets(scope, facts):
                continue
            if scope.protocol is None or scope.protocol == protocol:
                level = scope.level
                break
            if protocol is None:
                strictest = max(scope.level, strictest or scope.level)
        if strictest is None or strictest == level:
            return level, True
        return max(level, strictest), False


def _meets(scope: Scope, facts: Mapping[str, Value]) -> bool:
    principal, target, labels = (_mapping(facts.get(name)) for name in ("principal", "target", "labels"))
    return (
        _matches(scope.principal, principal.get("name"))
        and _matches(scope.run, facts.get("run_name"))
        and _matches(scope.host, target.get("host"), target.get("name"))
        and (scope.port is None or scope.port == target.get("port"))
        and all(_matches(pattern, labels.get(name)) for name, pattern in scope.labels.items())
    )


def _mapping(value: Value) -> Mapping[str, Value]:
    return value if isinstance(value, Mapping) else {}
