"""How much may be asked in a time: a bucket that fills evenly.

What lives here: that. What must not: clocks.
"""

from __future__ import annotations


class Pace:
    """Not thread-safe."""

    def __init__(self, per_second: float, burst: int, now: float) -> None:
        """Begin with a full bucket.

        Args:
            per_second: how fast it fills.
            burst: how much it holds.
            now: monotonic time.
        """
        self._per_second, self._burst = per_second, burst
        self._left, self._at = float(burst), now

    def take(self, now: float) -> bool:
        """Take one; False: there is none."""
        self._left = min(self._left + (now - self._at) * self._per_second, self._burst)
        self._at = now
        if self._left < 1:
            return False
        self._left -= 1
        return True
