"""What a decision asks for beside letting a message go on.

What lives here: the values, as a verdict carries them, and what was done. What must not: doing it, the proxy.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from capd.enforcer.policy.limit import Limit
from capd.enforcer.policy.rule import Injection, Mask


class CannotCarryOutError(Exception):
    """What a rule asks for cannot be done to this message, so it must not go on; its text has nothing of the content."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Obligations:
    """What rules ask for.

    Attributes:
        masks: what is hidden of the answer, by rule.
        injections: which credential is put in, by rule.
        limits: guard rails, by rule.
    """

    masks: tuple[tuple[str, Mask], ...] = ()
    injections: tuple[tuple[str, Injection], ...] = ()
    limits: tuple[tuple[str, Limit], ...] = ()

    def __bool__(self) -> bool:
        return bool(self.masks or self.injections or self.limits)

    def to_entry(self) -> dict[str, object]:
        """Give what the decision log tells of them: names."""
        return {
            "masks": [rule for rule, _ in self.masks],
            "credentials": [[rule, injection.credential] for rule, injection in self.injections],
            **({"limits": [rule for rule, _ in self.limits]} if self.limits else {}),
        }


NOTHING = Obligations()


@dataclass(frozen=True, slots=True, kw_only=True)
class CarriedOut:
    """What was done to an answer.

    Attributes:
        masked: places that were hidden, by rule.
        reflected: places in which a credential came back and was hidden, by its name.
    """

    masked: Mapping[str, int] = field(default_factory=dict)
    reflected: Mapping[str, int] = field(default_factory=dict)
