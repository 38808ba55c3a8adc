"""What one HTTP/2 connection waits for by the clock.

What lives here: which timers run. What must not: what follows when one runs out (layer.py).
"""

from __future__ import annotations

from typing import Final

from capd.enforcer.proxy.commands import Arm
from capd.enforcer.proxy.events import Timer
from capd.enforcer.proxy.http1.limits import HEAD_SECONDS
from capd.enforcer.proxy.http2.limits import CALM_SECONDS

TURN_SECONDS: Final = 1.0
"""How long streams wait for their turn at a target that answers one after the other, before they are sent elsewhere: most
answers are faster, and a client that is told to go in the middle of one may give that up too."""

STILL_SECONDS: Final = 2.0
"""Between two signs of life to a client of which a person is asked something: httpx gives up when it heard nothing for 5 s."""


class Timers:
    """Of one connection.

    Attributes:
        held: decisions for which persons are asked.
    """

    def __init__(self) -> None:
        self.held: set[int] = set()
        self._unfinished = 0
        self._running: set[Timer] = set()

    def expired(self, timer: Timer) -> None:
        """One has run out."""
        self._running.discard(timer)

    def set(self, *, unfinished: int, counting: bool, waits: bool) -> list[Arm]:
        """Start and stop timers.

        Args:
            unfinished: the stream whose head is not whole, or the beginning that is not; 0: neither.
            counting: whether anything was counted that is to be forgotten.
            waits: whether streams wait for their turn.
        """
        arms = []
        if unfinished != self._unfinished:
            self._unfinished = unfinished
            arms.append(Arm(Timer.DEADLINE, HEAD_SECONDS if unfinished else None))
        arms += self._once(Timer.CALM, CALM_SECONDS, wanted=counting)
        arms += self._while(Timer.TURN, TURN_SECONDS, wanted=waits)
        return arms + self._while(Timer.STILL, STILL_SECONDS, wanted=bool(self.held))

    def _once(self, timer: Timer, seconds: float, *, wanted: bool) -> list[Arm]:
        if not wanted or timer in self._running:
            return []
        self._running.add(timer)
        return [Arm(timer, seconds)]

    def _while(self, timer: Timer, seconds: float, *, wanted: bool) -> list[Arm]:
        if not wanted and timer in self._running:
            self._running.discard(timer)
            return [Arm(timer, None)]
        return self._once(timer, seconds, wanted=wanted)
