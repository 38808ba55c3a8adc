"""How much of a session is recorded: levels, and which of them holds for whom.

What lives here: matching of scopes. What must not: configuration files, records.

The first scope that matches decides, those of the policy before those of the configuration. While the protocol of a session, or
the name of its peer, is not known, a scope that asks for it may still match; then nothing is stored until it is known, and what
has to be stored nevertheless is stored as the strictest of them would have it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from fnmatch import fnmatchcase
from typing import Final

from capd.daemon.masking.policy_levels import Policy, session_facts
from capd.recording.record import Value

NAMING: Final = frozenset({"http1", "http2", "websocket", "postgresql", "mysql"})
"""Protocols in which the agent says a name of its peer; of others a name is known from the start, or never."""


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
    """The levels that are in force.

    Attributes:
        default: where no scope matches.
        scopes: of the configuration, in order.
        policy: whose scopes come first.
    """

    default: Level = Level.MASKED
    scopes: Sequence[Scope] = ()
    policy: Policy = field(default_factory=Policy)

    @property
    def uniform(self) -> bool:
        """Whether all sessions have one level."""
        return not self.scopes and self.policy.known and not self.policy.scopes

    def of(self, facts: Mapping[str, Value], protocol: str | None) -> tuple[Level, bool]:
        """Give the level of a session, and whether it can still be another when more of it is known.

        Args:
            facts: `principal`, `run_name`, `labels`, `target`, as in an OPEN record, and what session.py adds.
            protocol: None while it is not known.
        """
        possible: list[Level] = []
        for recording, answer in self.policy.scopes.of_session(session_facts(facts, protocol)):
            possible.append(Level[recording.name])
            if answer is True:
                break
        else:
            possible += self._configured(facts, protocol)
        found = [max(self._floor, one) for one in possible]
        return max(found), len(set(found)) == 1 or not self._more_comes(facts, protocol)

    def of_run(self, facts: Mapping[str, Value]) -> Level:
        """Give the level of what is told of a run, of which `facts` are those of its marker."""
        known = session_facts(facts, None)
        possible: list[Level] = []
        for recording, answer in self.policy.scopes.of_run(known.principal, known.run):
            possible.append(Level[recording.name])
            if answer is True:
                break
        else:
            possible += self._configured(facts, "")
        return max(self._floor, *possible)

    @property
    def _floor(self) -> Level:
        """The least that is left out. While nobody can say what the policy says, that is every word that was said."""
        return Level.FULL if self.policy.known else Level.METADATA

    def _configured(self, facts: Mapping[str, Value], protocol: str | None) -> list[Level]:
        """Give the levels that a session may have by the configuration."""
        possible: list[Level] = []
        for scope in self.scopes:
            answer = _meets(scope, facts, protocol)
            if answer is True:
                return [*possible, scope.level]
            if answer is None:
                possible.append(scope.level)
        return [*possible, self.default]

    @staticmethod
    def _more_comes(facts: Mapping[str, Value], protocol: str | None) -> bool:
        """Say whether what decides may still be told in the session."""
        return protocol is None or _may_be_named(facts, protocol)


def _may_be_named(facts: Mapping[str, Value], protocol: str | None) -> bool:
    """Say whether a name of the peer may still be told."""
    return (protocol is None or protocol in NAMING) and not _mapping(facts.get("target")).get("name")


def _meets(scope: Scope, facts: Mapping[str, Value], protocol: str | None) -> bool | None:
    """Say whether a session meets a scope; None: that hangs on what may still be told."""
    principal, target, labels = (_mapping(facts.get(name)) for name in ("principal", "target", "labels"))
    known = (
        _matches(scope.principal, principal.get("name"))
        and _matches(scope.run, facts.get("run_name"))
        and (scope.port is None or scope.port == target.get("port"))
        and all(_matches(pattern, labels.get(name)) for name, pattern in scope.labels.items())
    )
    spoken = scope.protocol is None or scope.protocol == protocol or (None if protocol is None else False)
    named = _matches(scope.host, target.get("host"), target.get("name")) or (
        None if _may_be_named(facts, scope.protocol or protocol) else False
    )
    if not known or spoken is False or named is False:
        return False
    return True if spoken and named else None


def _mapping(value: Value) -> Mapping[str, Value]:
    return value if isinstance(value, Mapping) else {}
