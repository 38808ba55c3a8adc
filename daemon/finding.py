"""A finding of the doctor: one thing that was looked at.

What lives here: the value. What must not: looking.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from enum import Enum


class Mark(Enum):
    """How a finding weighs."""

    GOOD = "good"
    NOTE = "note"
    """Nothing to do, or capd does it."""
    BAD = "bad"


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One thing that was looked at.

    Attributes:
        subject: what, in a word or two.
        mark: how it weighs.
        found: what was found.
        next_step: what to do; "" when there is nothing to do.
    """

    subject: str
    mark: Mark
    found: str
    next_step: str = ""

    def to_json(self) -> dict[str, object]:
        """Give the object that `--json` prints."""
        return {**asdict(self), "mark": self.mark.value}
