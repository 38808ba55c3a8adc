"""Runs that an earlier daemon left, taken up by one that cannot write."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any
from uuid import uuid4

from capd.daemon.cgroups import RunCgroup
from capd.daemon.configuration import SelectionSection
from capd.daemon.run_keeping import NOTE_SECONDS_MAX, RunKeeper
from capd.daemon.runs import Registry, Run, unit_principal

RUNS = 3


def taken_up(directory: Path, stoppage: str | None) -> tuple[int, list[float]]:
    """Take up runs; give how many were, and how long each could have been waited for."""
    waited: list[float] = []

    class Note:
        def wait(self, seconds: float) -> bool:
            waited.append(seconds)
            return False

    nothing: Any = SimpleNamespace(
        selected=dict, select_cgroup=lambda *_: None, unselect_cgroup=lambda *_: None, start_of=lambda _: None
    )
    hierarchy: Any = SimpleNamespace(
        id_of=lambda _: 7, is_populated=lambda _: True, members=lambda _: (), directory=lambda _: directory
    )
    left = Registry(directory)
    for _ in range(RUNS):
        cgroup = RunCgroup(path=f"/{uuid4()}", id=7, unit=None)
        left.add(Run(id=uuid4(), name=None, principal=unit_principal("x"), cgroup=cgroup, adopted=True, started_ns=1))
    keeper = RunKeeper(
        capture=nothing,
        hierarchy=hierarchy,
        registry=Registry(directory),
        post=lambda *_, **__: Note(),  # type: ignore[arg-type] # takes its place
        stoppage=lambda: stoppage,
        closed=lambda: None,
        enforced=False,
        selection=SelectionSection(),
    )
    try:
        return keeper.resume(), waited
    finally:
        keeper.watch.close()


def test_runs_are_taken_up_at_once_while_nothing_is_written(tmp_path: Path) -> None:
    """Where the journal is full none of them is waited for, so that the daemon is ready however many there are."""
    assert (RUNS, [0] * RUNS) == taken_up(tmp_path, "journal full")
    assert (2 * RUNS, [NOTE_SECONDS_MAX] * 2 * RUNS) == taken_up(tmp_path, None)
