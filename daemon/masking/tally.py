"""What was masked and left out of a session, for its records and its end.

What lives here: counting, MASKED bodies, the words of a CLOSE. What must not: masking.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final

from capd.daemon.masking.levels import Level
from capd.enforcer.masking.place import Place
from capd.recording.record import Record, Value

WORDS: Final = {
    Level.METADATA: "payload not recorded: recording level metadata",
    Level.OFF: "not recorded: recording level off",
}
FAILED: Final = "payload not recorded: masking failed, a defect of capd"
PLACES_MAX: Final = 4_096
"""Places in one record; a result of many thousands of masked values becomes several."""


@dataclass(slots=True)
class Tally:
    """Counts of one session.

    Attributes:
        masked: places and bytes by kind.
        levels: levels that were in force, except the usual one.
        failed: whether masking failed, so that nothing that was said was stored from then on.
    """

    masked: dict[str, list[int]] = field(default_factory=dict)
    levels: list[Level] = field(default_factory=list)
    failed: bool = False

    def level(self, level: Level) -> None:
        """Note the level that is in force now."""
        if level in WORDS and level not in self.levels:
            self.levels.append(level)

    def told(self, places: Sequence[Place], layer: str) -> Iterator[dict[str, Value]]:
        """Count places, and give what records say of them: those of one rule together."""
        by_rule: dict[tuple[str, str], list[Value]] = {}
        for place in places:
            by_rule.setdefault((place.kind, place.rule), []).append([place.start, place.end - place.start])
            counted = self.masked.setdefault(place.kind, [0, 0])
            counted[0] += 1
            counted[1] += place.end - place.start
        for (kind, rule), spans in by_rule.items():
            for at in range(0, len(spans), PLACES_MAX):
                yield {"layer": layer, "kind": kind, "rule": rule, "places": spans[at : at + PLACES_MAX]}

    @property
    def words(self) -> list[str]:
        """What policy kept out of the record, in words."""
        found = [WORDS[level] for level in self.levels]
        if self.masked:
            found.append(f"masked: {', '.join(_counted(kind, *count) for kind, count in sorted(self.masked.items()))}")
        return found

    def closed(self, record: Record) -> Record:
        """Give a CLOSE that says so: what policy kept out is no loss and changes no verdict, a defect does."""
        words = self.words
        completeness = record.body.get("completeness")
        if not (words or self.failed) or not isinstance(completeness, dict):
            return record
        told: dict[str, Value] = {**completeness, **({"policy": words} if words else {})}
        if self.failed:
            told |= {"verdict": "partial", "reasons": [*completeness.get("reasons", ()), FAILED]}
        body = {**record.body, "completeness": told}
        return Record(record.kind, record.session, record.time_ns, record.direction, body)


def _counted(kind: str, places: int, size: int) -> str:
    return f"{kind} ({places} place{'' if places == 1 else 's'}, {size} byte{'' if size == 1 else 's'})"
