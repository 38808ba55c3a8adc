"""A judge of proxies in tests: everything is allowed, with masks.

What lives here: that. What must not: masks.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from capd.enforcer.obligations.obligation import Obligations
from capd.enforcer.proxy.question import Kind, Question, Verdict


@dataclass
class Hides:
    """Allows everything, with masks."""

    masks: Obligations = field(default_factory=Obligations)

    def __call__(self, question: Question) -> Verdict:
        """Answer."""
        allowed = question.kind in {Kind.SESSION, Kind.STATEMENT}
        masks = self.masks if question.kind is Kind.STATEMENT else Obligations()
        return Verdict(number=question.number, allowed=allowed, rule="r", policy="1", obligations=masks)
