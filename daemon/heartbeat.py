"""Telling the service manager that a role's loop goes round: WATCHDOG=1 of sd_notify(3), as often as it wants to hear it.

And that a start goes on, so that one which is only slow is not ended.

What lives here: how often. What must not: the datagram (notify.py), what a round is: a role calls this from the loop that does
its work, so that one which hangs is ended and started anew.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from typing import Final

from capd.daemon.notify import notify

SHARE: Final = 4
"""Of the interval after which the manager ends a role, how much of it lies between two messages: a busy machine delays some."""
START_SECONDS: Final = 60
"""What a start that goes on is given each time that it says so: as much as the daemon's unit gives it at first."""
MICROSECONDS_PER_SECOND: Final = 1_000_000


class Heartbeat:
    """One role's. Where no manager wants to hear it, nothing is sent."""

    def __init__(
        self,
        environment: Mapping[str, str],
        pid: int,
        *,
        clock: Callable[[], float] = time.monotonic,
        send: Callable[[str], None] = notify,
    ) -> None:
        """See how often it is wanted: WATCHDOG_USEC and WATCHDOG_PID of sd_watchdog_enabled(3).

        Args:
            environment: of this process.
            pid: of this process.
            clock: monotonic time.
            send: tells the manager.
        """
        wanted, whose = environment.get("WATCHDOG_USEC", ""), environment.get("WATCHDOG_PID", str(pid))
        mine = wanted.isdecimal() and whose == str(pid)
        self._every = int(wanted) / MICROSECONDS_PER_SECOND / SHARE if mine else None
        self._clock, self._send = clock, send
        self._due = 0.0
        self._start_due: float | None = -math.inf
        """When to say again that the start goes on; None: it is done."""

    def start_goes_on(self) -> None:
        """Say that the start got on since this was last called (EXTEND_TIMEOUT_USEC), unless it is done, or just was said.

        Not to be said by a clock: a start that hangs is ended by the manager, and tried anew.
        """
        if self._start_due is not None and (now := self._clock()) >= self._start_due:
            self._start_due = now + START_SECONDS / SHARE
            self._send(f"EXTEND_TIMEOUT_USEC={START_SECONDS * MICROSECONDS_PER_SECOND}")

    def ready(self, status: str) -> None:
        """Say that the role does what it is for, and what that is. From here on the manager counts."""
        self._start_due = None
        self._send(f"READY=1\nSTATUS={status}")

    def beat(self) -> None:
        """Say that the loop has gone round, unless that was said a moment ago."""
        if self._every is not None and (now := self._clock()) >= self._due:
            self._due = now + self._every
            self._send("WATCHDOG=1")

    @property
    def seconds(self) -> float | None:
        """How long a loop may wait in one round so that it is heard in time; None: as long as it likes."""
        return self._every
