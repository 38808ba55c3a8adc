"""Examples beside rules: what must be allowed, and what must not.

What lives here: the value, and whether it comes out. What must not: reading (example_reading.py).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from capd.enforcer.policy.action import Action
from capd.enforcer.policy.decision import Decision, Outcome
from capd.enforcer.policy.problem import Place


@dataclass(frozen=True, slots=True, kw_only=True)
class Example:
    """One.

    Attributes:
        expected: what must come out.
        written: the action as it was written.
        action: the same.
        by: the rule that must decide it; None: any.
        place: where it stands.
    """

    expected: Outcome
    written: str
    action: Action
    by: str | None
    place: Place


@dataclass(frozen=True, slots=True, kw_only=True)
class Tried:
    """An example, and what came out: judged as if everything were in force, whatever a scope or a stage only observes."""

    example: Example
    decision: Decision

    @property
    def passed(self) -> bool:
        """Whether it is as it must be."""
        judged = self.decision.judged
        return judged.outcome is self.example.expected and (self.example.by is None or self.example.by in judged.rules)

    def to_json(self) -> dict[str, object]:
        """Give the public form."""
        place = self.example.place
        return {
            "file": place.file,
            "line": place.line,
            "action": self.example.written,
            "expected": self.example.expected.value,
            "by": self.example.by,
            "outcome": self.decision.judged.outcome.value,
            "rules": list(self.decision.judged.rules),
            "reason": self.decision.judged.reason,
            "passed": self.passed,
        }


def tried(example: Example, decide: Callable[[Action], Decision]) -> Tried:
    """Try one."""
    return Tried(example=example, decision=decide(example.action))
