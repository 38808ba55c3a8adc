"""How soon a start that failed may be tried again: not at once, where what kept it from starting takes a while to pass.

What lives here: the pause. What must not: what went wrong, who starts it anew.

systemd starts a unit anew without end (its limit of five starts in ten seconds would leave it down for good, also when there is
room again, or the port is free). So whoever fails for such a reason ends later: one start in five seconds costs little.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Final

from capd.recording.errors import ExitStatus

SECONDS: Final = 5.0
PASSING: Final = frozenset({ExitStatus.STATE, ExitStatus.CORRUPT, ExitStatus.ALREADY_RUNNING})
"""Of errors that somebody mends, or that pass, while the unit is tried again."""


def pause(error: Exception, environment: Mapping[str, str], sleep: Callable[[float], None] = time.sleep) -> None:
    """Wait before a process of a service manager ends by an error, if trying again at once is of no use.

    Args:
        error: that keeps it from starting.
        environment: of this process, which says whether there is such a manager.
        sleep: waits for so many seconds.
    """
    if environment.get("NOTIFY_SOCKET") and getattr(error, "exit_status", None) in PASSING:
        sleep(SECONDS)
