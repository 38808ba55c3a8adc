"""Answers to one statement, counted against the limits of its decision, before what is hidden of them is.

What lives here: what counts as a row. What must not: limits themselves (enforcer/limits).
"""

from __future__ import annotations

from typing import Final

from capd.enforcer.limits.counting import Counting
from capd.enforcer.limits.meter import Exceeded, Limits
from capd.enforcer.obligations.obligation import CarriedOut
from capd.enforcer.proxy.postgresql.rewriting import Rewriting

_ROWS: Final = frozenset(b"Dd")
"""A server sends each row of a COPY in a message of its own."""
_COUNTED: Final = _ROWS | frozenset(b"EN")
"""Errors and notices can say what is in rows."""


class BeyondError(Exception):
    """A limit was reached, and rows have gone on: nothing more does."""

    def __init__(self, exceeded: Exceeded) -> None:
        super().__init__(exceeded.words)


class Metered:
    """One statement's, or portal's.

    Attributes:
        inner: what its answers go through besides; None: nothing.
    """

    def __init__(self, counting: Counting, inner: Rewriting | None) -> None:
        self._counting, self.inner = counting, inner

    @property
    def limits(self) -> Limits:
        """What it is counted against."""
        return self._counting.limits

    @property
    def seconds(self) -> int | None:
        """How long the statement may take."""
        return self._counting.seconds

    @property
    def hides(self) -> bool:
        """Whether errors and notices, too, have been looked at."""
        return self.inner is not None

    @property
    def carried_out(self) -> CarriedOut | None:
        """What was hidden; None: nothing."""
        return None if self.inner is None else self.inner.carried_out

    def again(self, other: Metered | None) -> Metered | None:
        """Give what counts once the portal was judged anew: this one, with what it has counted, if its limits are the same."""
        same = other is not None and other.limits == self.limits
        return self if same else other

    def message(self, code: int, frame: bytes) -> bytes:
        """Give what goes on in a message's place.

        Raises:
            BeyondError: it is beyond a limit.
            CannotCarryOutError: what is hidden cannot be.
        """
        if code in _COUNTED:
            exceeded = self._counting.count(int(code in _ROWS), len(frame))
            if exceeded is not None:
                raise BeyondError(exceeded)
        return frame if self.inner is None else self.inner.message(code, frame)
