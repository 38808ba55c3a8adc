"""Which run a socket belongs to, by the cgroup that it was created in.

What lives here: the files of live runs as the enforcer reads them, and the search for a cgroup below theirs. What must not:
making runs (runs.py), asking the kernel about sockets (enforcer/proxy/flow.py).
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from capd.daemon.runs import FILE_BYTES_MAX, Run, from_json
from capd.enforcer.policy.action import Principal
from capd.enforcer.policy.action import Run as PolicyRun
from capd.enforcer.proxy.flow import Owner
from capd.enforcer.proxy.judge import Agent
from capd.recording.durable import read_regular

UNKNOWN_SECONDS: Final = 0.2
"""A cgroup that is of no run is not looked for again so soon: the search walks directories."""
CGROUPS_MAX: Final = 65_536
"""Remembered; above it all are forgotten, and looked for again."""


class EnforcedRuns:
    """Finds the run of a socket. A run that has ended has no file any more, and its sockets belong to nobody."""

    def __init__(self, directory: Path, hierarchy: Path, clock: Callable[[], float] = time.monotonic) -> None:
        """Prepare.

        Args:
            directory: of the files of live runs.
            hierarchy: where cgroup2 is mounted.
            clock: monotonic time.
        """
        self._directory, self._hierarchy, self._clock = directory, hierarchy, clock
        self._changed_ns = 0
        self._runs: list[Run] = []
        self._agents: dict[int, Agent] = {}
        self._unknown: dict[int, float] = {}

    def __len__(self) -> int:
        return len(self._runs)

    def agent(self, owner: Owner) -> Agent | None:
        """Give whose socket it is; None: of no run that lives."""
        self._read_changes()
        found = self._agents.get(owner.cgroup)
        if found is not None:
            return found
        if self._clock() < self._unknown.get(owner.cgroup, 0.0):
            return None
        self._read()  # two changes within one tick of the clock look like one
        run = self._search(owner.cgroup)
        if len(self._agents) + len(self._unknown) > CGROUPS_MAX:
            self._agents.clear()
            self._unknown.clear()
        if run is None:
            self._unknown[owner.cgroup] = self._clock() + UNKNOWN_SECONDS
            return None
        return self._agents.setdefault(owner.cgroup, _agent(run))

    def named(self, run: str) -> Agent | None:
        """Give a run by its id; None: it lives no more."""
        self._read_changes()
        return next((_agent(one) for one in self._runs if str(one.id) == run), None)

    def _read_changes(self) -> None:
        try:
            changed_ns = self._directory.stat().st_mtime_ns
        except OSError:
            changed_ns = -1
        if changed_ns != self._changed_ns:
            self._agents.clear()
            self._unknown.clear()
            self._changed_ns = changed_ns
            self._read()

    def _read(self) -> None:
        self._runs = [run for path in self._directory.glob("*.json") if (run := _read(path)) is not None]

    def _search(self, cgroup: int) -> Run | None:
        """Look for a cgroup at and below those of runs; the innermost run has it."""
        inner_first = sorted(self._runs, key=lambda run: len(run.cgroup.path), reverse=True)
        return next((run for run in inner_first if cgroup == run.cgroup.id or self._below(run, cgroup)), None)

    def _below(self, run: Run, cgroup: int) -> bool:
        top = self._hierarchy / run.cgroup.path.lstrip("/")
        for directory, names, _files in os.walk(top):
            for name in names:
                try:
                    number = os.stat(os.path.join(directory, name)).st_ino  # noqa: PTH116, PTH118 - thousands of times
                except OSError:
                    continue
                if number == cgroup:
                    return True
        return False


def _read(path: Path) -> Run | None:
    try:
        return from_json(json.loads(read_regular(path, FILE_BYTES_MAX)))
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _agent(run: Run) -> Agent:
    said = run.principal
    principal = Principal(name=str(said.get("name")), kind=str(said.get("kind")), verified=said.get("verified") is True)
    return Agent(
        run=PolicyRun(name=run.name, id=str(run.id), labels=dict(run.labels)), principal=principal, cgroup=run.cgroup.path
    )
