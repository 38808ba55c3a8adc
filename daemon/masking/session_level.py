"""How much of one session is recorded: what is known of it, the level that follows, and what was told of that.

What lives here: that, over everything that is learned of the session and over other policies. What must not: which level is
whose (levels.py), what a level does to a record.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from capd.daemon.masking.levels import Level, Levels
from capd.daemon.masking.policy_levels import ENCRYPTED, NAMES
from capd.recording.record import Value

NAMES_MAX: Final = 64
"""Of a session's peer; a proxy's client may ask it for any number, and the first ones are those that decide."""
LEARNED: Final = ("principal", "run_name", "labels", "target")
"""Of an OPEN record."""


class SessionLevel:
    """The level of a session.

    Attributes:
        facts: what is known of it.
        now: the level; while it is not certain, the strictest that it may be.
        certain: whether nothing that may yet be told changes it.
        floor: what an earlier policy left out, or masking can no more look at, a later one does not bring in.
        told: the level that was told last.
    """

    def __init__(self, levels: Levels) -> None:
        self._levels = levels
        self._fixed = False
        self.facts: dict[str, Value] = {}
        self.floor = Level.FULL
        self.now, self.certain = levels.of({}, None)
        self.told: Level | None = None

    def learn(self, body: Mapping[str, Value], protocol: str | None) -> None:
        """Take what an OPEN record says; `protocol`: of the session, None while it is not known."""
        self.facts.update({name: body.get(name) for name in LEARNED})
        target, names = body.get("target"), self.facts.get(NAMES)
        name = target.get("name") if isinstance(target, Mapping) else None
        known = list(names) if isinstance(names, list | tuple) else []
        if isinstance(name, str) and name not in known and len(known) < NAMES_MAX:
            self.facts[NAMES] = [*known, name]
        self.choose(protocol)

    def opened_tls(self, protocol: str | None) -> None:
        """Note that what is said in it is said in TLS that can be read."""
        if not self.facts.get(ENCRYPTED):
            self.facts[ENCRYPTED] = True
            self.choose(protocol)

    def choose(self, protocol: str | None) -> None:
        """Find the level by what is known now."""
        if self._fixed:
            return
        level, certain = self._levels.of(self.facts, protocol)
        self.now, self.certain = max(self.floor, level), certain or level <= self.floor

    def judge_by(self, levels: Levels, protocol: str | None) -> None:
        """Take other levels, in the middle: the session gets no laxer, and what masking did not see begin it cannot mask."""
        self._levels = levels
        before, settled = self.now, self.certain
        if settled:
            self.floor = max(self.floor, before)
        self.choose(protocol)
        if settled and before is Level.FULL and self.now is not Level.FULL:
            self.floor = Level.METADATA
            self.choose(protocol)

    def fix(self, level: Level) -> None:
        """Let it have a level whatever is learned of it."""
        self._fixed = self.certain = True
        self.now = self.told = level

    def untold(self) -> bool:
        """Say whether the level is another than was told, or than everybody expects; it is taken for told then."""
        before, self.told = self.told, self.now
        return self.now is not before and (before is not None or self.now is not Level.MASKED)
