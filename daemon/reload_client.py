"""Asking the daemon to read its configuration anew, and waiting for what came of it.

What lives here: the client's side. What must not: reloading (reloading.py), words for the terminal.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, cast

from capd.daemon import control_client, locations, status
from capd.daemon.configuration_effect import UNITS
from capd.daemon.errors import DaemonUnreachableError

SECONDS_MAX: Final = 60.0
"""Twice what the daemon gives whoever judges."""
POLL_SECONDS: Final = 0.05


@dataclass(frozen=True, kw_only=True)
class Reloaded:
    """What came of it.

    Attributes:
        problem: why it was refused, a line each; None: it was taken over.
        waiting: keys that need a restart, each with the units of systemd.
    """

    problem: str | None
    waiting: tuple[tuple[str, tuple[str, ...]], ...]

    def to_json(self) -> dict[str, object]:
        """Give it as `capd config reload --json` prints it (docs/json.md)."""
        problems = [] if self.problem is None else self.problem.splitlines()
        return {
            "taken_over": self.problem is None,
            "problems": problems,
            "restart": [{"key": key, "units": list(units)} for key, units in self.waiting],
        }


def reload(runtime_dir: Path) -> Reloaded:
    """Have the configuration read anew.

    Args:
        runtime_dir: of the instance.

    Raises:
        DaemonUnreachableError: nobody answers, or it does not come to an end.
        RefusedError: the caller may not ask.
    """
    path = runtime_dir / locations.CONTROL_SOCKET
    number = cast("int", control_client.ask(path, "reload")["reload"])
    deadline = time.monotonic() + SECONDS_MAX
    while time.monotonic() < deadline:
        answer = control_client.ask(path, "status")
        if cast("Mapping[str, int]", answer["configuration"])["reloads"] >= number:
            # Which roles were started anew since, the daemon does not know.
            return _outcome(cast("Mapping[str, object]", status.completed(answer, runtime_dir)["configuration"]))
        time.sleep(POLL_SECONDS)
    raise DaemonUnreachableError(f"the capd daemon at {path} did not read its configuration in {SECONDS_MAX:.0f} s")


def _outcome(facts: Mapping[str, object]) -> Reloaded:
    pending = cast("list[Mapping[str, object]]", facts["pending"])
    waiting = tuple((str(one["key"]), tuple(UNITS[role] for role in cast("list[str]", one["roles"]))) for one in pending)
    return Reloaded(problem=cast("str | None", facts["problem"]), waiting=waiting)
