"""Counting an answer as it comes, and telling at once of what was reached.

What lives here: the two put together, as layers need them. What must not: what counts as a row, protocols.
"""

from __future__ import annotations

from collections.abc import Callable

from capd.enforcer.limits.meter import Exceeded, Limits, Meter


class Counting:
    """Of one statement, over all its answers."""

    def __init__(self, meter: Meter, now: Callable[[], float], exceeded: Callable[[Exceeded], None]) -> None:
        """Begin.

        Args:
            meter: counts.
            now: gives the time.
            exceeded: is told of each limit that is reached.
        """
        self._meter, self._now, self._exceeded = meter, now, exceeded

    @property
    def limits(self) -> Limits:
        """What it is counted against."""
        return self._meter.limits

    @property
    def seconds(self) -> int | None:
        """How long the statement may take."""
        return self._meter.seconds

    def count(self, rows: int, size: int) -> Exceeded | None:
        """Count more; give the limit that it is beyond, which was told of."""
        more = self._meter.count(rows=rows, size=size, now=self._now())
        while self._meter.alarms:
            self._exceeded(self._meter.alarms.pop())
        if more is not None:
            self._exceeded(more)
        return more
