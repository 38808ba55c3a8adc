"""What a daemon that starts forces before it has taken anything up."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from capd.daemon import capture_role, enforcement
from capd.daemon.cgroups import Hierarchy, RunCgroup
from capd.daemon.configuration import parse
from capd.daemon.runs import Registry, Run, unit_principal


class Followed:
    """Takes the place of what forces."""

    runs: tuple[dict[int, str], ...] = ()

    def __init__(self, *_: object, **__: object) -> None:
        pass

    def follow(self, runs: dict[int, str]) -> None:
        """Keep what it is told."""
        Followed.runs = (*Followed.runs, dict(runs))


def test_runs_that_no_parent_covers_stay_forced(instance_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the daemon before left is followed from the start on, but for a path that is another cgroup by now."""
    values: dict[str, Any] = {"state_dir": f"{instance_dir}/state", "runtime_dir": f"{instance_dir}/run"}
    configuration = parse({**values, "enforcement": {"mode": "enforce"}}, "test")
    configuration.runs_dir.mkdir(parents=True)
    number = Hierarchy().id_of("/")
    assert number is not None
    left = Registry(configuration.runs_dir)
    for path, its in (("/", number), ("/", number + 1), ("/gone", 7)):
        cgroup = RunCgroup(path=path, id=its, unit=None)
        left.add(Run(id=uuid4(), name=None, principal=unit_principal("x"), cgroup=cgroup, adopted=True, started_ns=1))
    monkeypatch.setattr(enforcement, "Enforcement", Followed)
    capture_role._forcing(configuration, print, {}, None)
    assert ({number: "/"},) == Followed.runs
