"""What a person is shown of a run beside the one message: its messages before, and its processes.

What lives here: keeping the former, bounded, and asking the kernel for the latter. What must not: what is asked.

Of a process only what everybody may read and what holds no secret: number, parent, user, name. No arguments.
"""

from __future__ import annotations

import os
import time
from collections import OrderedDict, deque
from contextlib import suppress
from pathlib import Path
from typing import Final

from capd.enforcer.proxy.judge import Agent

PREVIOUS_MAX: Final = 8
"""Messages of a run that are shown; older ones are in the recording."""
RUNS_MAX: Final = 1_024
"""Whose messages are kept, the latest."""
PROCESSES_MAX: Final = 16
_FILE_BYTES_MAX: Final = 4_096


class RunContext:
    """Of one worker: it knows the messages that it judged itself."""

    def __init__(self, hierarchy: Path) -> None:
        """Look for cgroups in the hierarchy at `hierarchy`."""
        self._hierarchy = hierarchy
        self._previous: OrderedDict[str | None, deque[tuple[int, str, str]]] = OrderedDict()

    def notice(self, agent: Agent, said: str, outcome: str) -> None:
        """Keep a message of a run."""
        run = agent.run.id
        messages = self._previous.get(run)
        if messages is None:
            messages = self._previous[run] = deque(maxlen=PREVIOUS_MAX)
            if len(self._previous) > RUNS_MAX:
                self._previous.popitem(last=False)
        messages.append((time.time_ns(), said, outcome))
        self._previous.move_to_end(run)

    def shown(self, agent: Agent) -> dict[str, object]:
        """Give what a person is shown: `previous`, the latest last, and `processes`, None where they are not known."""
        previous = self._previous.get(agent.run.id, ())
        return {
            "previous": [{"at_ns": at, "said": said, "outcome": outcome} for at, said, outcome in previous],
            "processes": None if agent.cgroup is None else processes(self._hierarchy / agent.cgroup.lstrip("/")),
        }


def processes(cgroup: Path) -> list[dict[str, object]] | None:
    """Give the processes of a cgroup and of those below it; None: it is not there."""
    found: list[dict[str, object]] = []
    if not cgroup.is_dir():
        return None
    for directory, _names, _files in os.walk(cgroup):
        with suppress(OSError):
            text = Path(directory, "cgroup.procs").read_text(encoding="ascii")
            for pid in text.split()[: PROCESSES_MAX - len(found)]:
                with suppress(OSError, ValueError, KeyError):
                    found.append(_process(int(pid)))
        if len(found) >= PROCESSES_MAX:
            break
    return found


def _process(pid: int) -> dict[str, object]:
    text = Path(f"/proc/{pid}/status").read_bytes()[:_FILE_BYTES_MAX].decode("utf-8", "backslashreplace")
    said = dict(line.split(":\t", 1) for line in text.splitlines() if ":\t" in line)
    return {"pid": pid, "parent": int(said["PPid"]), "uid": int(said["Uid"].split()[0]), "name": said["Name"]}
