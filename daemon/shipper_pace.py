"""How fast the shipper goes: waiting after failures, a limit on bytes, and how long the disk lasts.

What lives here: arithmetic over times that come in. What must not: clocks, sleeping, requests.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

RETRY_SECONDS_MIN: Final = 1.0
TREND_SECONDS: Final = 600.0
"""How far back the rate at which the disk fills is measured ..."""
TREND_SECONDS_MIN: Final = 30.0
"""... and how long it must have been watched before anything is said."""
SAMPLE_SECONDS: Final = 5.0
SAMPLES_MAX: Final = 256
"""Above what the window holds."""


@dataclass(slots=True)
class Backoff:
    """How long to wait after a failure: twice as long each time, up to a limit, and by chance up to half less.

    The chance keeps a thousand hosts from coming back to a bucket in the same second.

    Attributes:
        seconds_max: the limit.
        random: a number from 0 up to 1, such as `random.random`.
        failures: in a row.
    """

    seconds_max: float
    random: Callable[[], float]
    failures: int = 0

    def failed(self) -> float:
        """Count a failure; give the seconds to wait."""
        longest = min(self.seconds_max, RETRY_SECONDS_MIN * 2.0 ** min(self.failures, 32))
        self.failures += 1
        return longest * (1 - self.random() / 2)

    def succeeded(self) -> None:
        """Start again from the shortest wait."""
        self.failures = 0


@dataclass(slots=True)
class Throttle:
    """A limit on bytes over time: what was moved is paid for by waiting before the next move.

    One object goes at the speed of the line; over several the limit holds. An idle time is not saved up.

    Attributes:
        bytes_per_second: the limit; 0: none.
        free_at: when the next move may start.
    """

    bytes_per_second: int
    free_at: float = 0.0

    def moved(self, size: int, started: float) -> None:
        """Count a move that began at a time."""
        if self.bytes_per_second:
            self.free_at = max(self.free_at, started) + size / self.bytes_per_second

    def wait(self, now: float) -> float:
        """Give the seconds until the next move may start."""
        return max(0.0, self.free_at - now)


@dataclass(slots=True)
class DiskTrend:
    """When the disk will be full if it goes on like this.

    Attributes:
        watched_seconds_min: how long it must have been watched before anything is said.
    """

    watched_seconds_min: float = TREND_SECONDS_MIN
    _samples: deque[tuple[float, int]] = field(default_factory=lambda: deque(maxlen=SAMPLES_MAX))

    def sample(self, now: float, free_bytes: int) -> None:
        """Count what is free; samples that come faster than one in five seconds replace each other."""
        while self._samples and now - self._samples[0][0] > TREND_SECONDS:
            self._samples.popleft()
        if len(self._samples) > 1 and now - self._samples[-2][0] < SAMPLE_SECONDS:
            self._samples[-1] = (now, free_bytes)
        else:
            self._samples.append((now, free_bytes))

    def bytes_per_second(self) -> float | None:
        """Give how fast it fills; negative: it empties; None: it has not been watched long enough."""
        if len(self._samples) < 2:  # noqa: PLR2004 - a line has two ends
            return None
        (first, before), (last, after) = self._samples[0], self._samples[-1]
        return (before - after) / (last - first) if last - first >= self.watched_seconds_min else None

    def seconds_until(self, reserve_bytes: int) -> float | None:
        """Give the time until only the reserve is free; None: not known, or it does not fill."""
        rate = self.bytes_per_second()
        if rate is None or rate <= 0:
            return None
        return max(0.0, (self._samples[-1][1] - reserve_bytes) / rate)
