"""Times that a clock which is set forwards or back cannot stretch.

What lives here: a moment as two clocks see it, and deadlines. What must not: asking what time it is.

Within one boot CLOCK_BOOTTIME decides, which nobody can set and which goes on while the host sleeps (time_namespaces(7)). From
one boot to the next there is only the wall clock: a deadline is over there also when that clock shows a time before it was set,
because then the clock was set back, nobody knows how far.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

NS_PER_SECOND: Final = 1_000_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Moment:
    """A point in time.

    Attributes:
        wall_ns: since 1970, UTC.
        boot_ns: since the boot (CLOCK_BOOTTIME).
        boot: the kernel's id of that boot.
    """

    wall_ns: int
    boot_ns: int
    boot: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Deadline:
    """So long after a moment.

    Attributes:
        since: when it was set.
        seconds: how long after.
    """

    since: Moment
    seconds: int

    @property
    def wall_ns(self) -> int:
        """Give the time to show to people."""
        return self.since.wall_ns + self.seconds * NS_PER_SECOND

    def left_ns(self, now: Moment) -> int:
        """Give how much is left, 0 when it is over."""
        same = now.boot == self.since.boot
        gone = now.boot_ns - self.since.boot_ns if same else now.wall_ns - self.since.wall_ns
        return 0 if gone < 0 else max(self.seconds * NS_PER_SECOND - gone, 0)

    def over(self, now: Moment) -> bool:
        """Say whether it has passed."""
        return self.left_ns(now) == 0
