"""Whom a policy is enforced for, and how much is recorded of whom.

What lives here: the values, and which of several counts. What must not: matching.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from capd.enforcer.policy.match import Match
from capd.enforcer.policy.problem import Place


class Mode(StrEnum):
    """Whether decisions are carried out, or only told of."""

    ENFORCE = "enforce"
    OBSERVE = "observe"


class Recording(StrEnum):
    """How much is recorded, as in `[recording]` of the configuration."""

    FULL = "full"
    MASKED = "masked"
    METADATA = "metadata"
    OFF = "off"


@dataclass(frozen=True, slots=True, kw_only=True)
class Scope:
    """Actions that have a mode or a recording level of their own.

    Attributes:
        id: unique in a policy.
        match: which; it asks for nothing of what a message says, so that a whole session is of one scope.
        mode, recording: theirs; None: not said here.
        place: where it stands.
    """

    id: str
    match: Match = field(default_factory=Match)
    mode: Mode | None = None
    recording: Recording | None = None
    place: Place = field(default=Place("-"), compare=False)


def mode_of(scopes: Sequence[Scope]) -> Mode:
    """Give the mode by the scopes that match: enforce if any says so, or none says anything."""
    said = {scope.mode for scope in scopes if scope.mode is not None}
    return Mode.OBSERVE if said == {Mode.OBSERVE} else Mode.ENFORCE


def recording_of(scopes: Sequence[Scope]) -> Recording | None:
    """Give the level by the scopes that match, in their order: the first that says one. None: the configuration decides."""
    return next((scope.recording for scope in scopes if scope.recording is not None), None)
