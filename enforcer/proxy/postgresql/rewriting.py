"""What becomes of the answers to one statement on their way: the place for it.

What lives here: the calls. What must not: what is changed, and why.
"""

from __future__ import annotations

from typing import Protocol

from capd.enforcer.obligations.obligation import CarriedOut


class Rewriting(Protocol):
    """What is made of the answers to one statement."""

    def message(self, code: int, frame: bytes) -> bytes:
        """Give what goes on in a message's place; empty: nothing. Raises CannotCarryOutError: no more of it goes on."""

    @property
    def hides(self) -> bool:
        """Whether errors and notices, too, have been looked at."""

    @property
    def carried_out(self) -> CarriedOut | None:
        """What was hidden; None: nothing."""
