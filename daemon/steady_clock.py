"""Whether the wall clock may be believed where something is deleted by it.

What lives here: the rule, over two clocks that are handed in. What must not: asking clocks, deleting.

A clock that jumps a year ahead, by a wrong time server or a mistyped date, makes everything over at once, and what was deleted
does not come back when it is set right. The clock since boot does not jump: who compares both sees that the other one did.
"""

from __future__ import annotations

from typing import Final

JUMP_NS: Final = 3_600_000_000_000
"""What a clock may gain at once: more than it drifts while a host sleeps, and less than any time that something is kept."""
STEADY_NS: Final = 24 * 3_600_000_000_000
"""How long a clock that jumped has to go on without a jump until it is believed: time for somebody to see it."""
JUMPED: Final = (
    "this host's clock went forward by more than an hour: nothing is let go before it has been steady for a day; "
    "restart the shipper if it is right"
)


class SteadyClock:
    """Remembers by how much the wall clock is ahead of the clock since boot."""

    def __init__(self) -> None:
        self._ahead_ns: int | None = None
        self._before_ns = 0
        self._jumped_ns: int | None = None

    def steady(self, wall_ns: int, boot_ns: int) -> bool:
        """Say whether the wall clock may be believed.

        Args:
            wall_ns: CLOCK_REALTIME.
            boot_ns: CLOCK_BOOTTIME, at the same moment.
        """
        ahead_ns = wall_ns - boot_ns
        if self._ahead_ns is None:
            self._ahead_ns = ahead_ns
        elif ahead_ns > self._ahead_ns + JUMP_NS:
            if self._jumped_ns is None:
                self._before_ns = self._ahead_ns
            self._jumped_ns = boot_ns
            self._ahead_ns = ahead_ns
        elif ahead_ns < self._ahead_ns - JUMP_NS:
            self._ahead_ns = ahead_ns
        if self._jumped_ns is not None:
            back = self._ahead_ns <= self._before_ns + JUMP_NS
            if back or boot_ns - self._jumped_ns >= STEADY_NS:
                self._jumped_ns = None
        return self._jumped_ns is None
