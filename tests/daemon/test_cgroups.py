"""Cgroups of runs, on every shape of hierarchy, with real processes."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from capd.daemon import cgroups
from capd.daemon.cgroups import Hierarchy
from capd.daemon.errors import CgroupError, NoCgroup2Error
from capd.daemon.watch import IN_MODIFY, Watch
from tests.daemon.conftest import in_namespace, wait_until
from tests.requirements import require_root

NO_CGROUP2 = "grep -o ' /[^ ]* cgroup2 ' /proc/self/mounts | while read -r at _; do umount -l $at; done"
ROUND_TRIP = """
import json, os, subprocess
from pathlib import Path
from capd.daemon import cgroups
hierarchy = cgroups.Hierarchy()
child = subprocess.Popen(["sleep", "60"])
made = hierarchy.create("test-round-trip", child.pid, lambda: True)
found = {
    "root": str(hierarchy.root), "shape": cgroups.shape(hierarchy.root), "path": made.path, "unit": made.unit,
    "same id": made.id == os.stat(hierarchy.directory(made.path)).st_ino == hierarchy.id_of(made.path),
    "member": list(hierarchy.members(made.path)) == [child.pid], "populated": hierarchy.is_populated(made.path),
    "path of": hierarchy.path_of(child.pid),
}
hierarchy.remove(made)
found["kept while populated"] = hierarchy.is_populated(made.path)
child.kill(); child.wait()
found["empty"] = hierarchy.is_populated(made.path)
hierarchy.remove(made)
found["gone"] = hierarchy.id_of(made.path)
print(json.dumps(found))
"""


@pytest.mark.parametrize(
    ("shape", "at", "prepare"),
    [
        ("hybrid", "/sys/fs/cgroup/unified", "mount -t tmpfs none /sys/fs/cgroup; mkdir /sys/fs/cgroup/unified"),
        ("unified", "/sys/fs/cgroup", ":"),
        ("elsewhere", "/mnt/cgroup", "mount -t tmpfs none /mnt; mkdir /mnt/cgroup"),
    ],
)
def test_run_cgroup_on_each_shape_of_host(shape: str, at: str, prepare: str) -> None:
    """Wherever cgroup2 is mounted it is found; a process enters a cgroup of its own, which is removed when it is empty."""
    done = in_namespace(ROUND_TRIP, prepare=f"{NO_CGROUP2}\n{prepare}\nmount -t cgroup2 none {at}")
    assert "" == done.stderr
    expected = {
        "root": at,
        "shape": shape,
        "path": "/capd/test-round-trip",
        "unit": None,
        "same id": True,
        "member": True,
        "populated": True,
        "path of": "/capd/test-round-trip",
        "kept while populated": True,
        "empty": False,
        "gone": None,
    }
    assert expected == json.loads(done.stdout)


def test_no_hierarchy_is_a_clear_error() -> None:
    """Without cgroup2 the error has exit status 4 and the command that mounts it."""
    script = "from capd.daemon import cgroups\ntry: cgroups.find_root()\nexcept Exception as e: print(e.exit_status, e, e.hint)"
    done = in_namespace(script, prepare=NO_CGROUP2)
    assert done.stdout.startswith("4 no cgroup2 hierarchy is mounted")
    assert "mount -t cgroup2" in done.stdout
    assert NoCgroup2Error.exit_status == 4


@pytest.fixture
def hierarchy() -> Hierarchy:
    """Give this machine's own."""
    require_root()
    return Hierarchy(systemd=False)


@pytest.fixture
def sleeper() -> Iterator[subprocess.Popen[bytes]]:
    """Give a process that does nothing."""
    with subprocess.Popen(["sleep", "60"]) as process:
        yield process
        process.kill()


def test_what_a_run_made_below_is_removed_with_it(hierarchy: Hierarchy, sleeper: subprocess.Popen[bytes]) -> None:
    """A process in a cgroup that the run made inside its own still counts, and all of it is removed in the end."""
    made = hierarchy.create("test-nested", sleeper.pid, lambda: True)
    below = hierarchy.directory(made.path) / "own" / "deeper"
    below.mkdir(parents=True)
    (below / "cgroup.procs").write_text(str(sleeper.pid))
    assert [sleeper.pid] == list(hierarchy.members(made.path))
    assert ["/capd/test-nested/own"] == hierarchy.children(made.path)
    sleeper.kill()
    sleeper.wait()
    wait_until(lambda: not hierarchy.is_populated(made.path), "empty")
    hierarchy.remove(made)
    assert not hierarchy.directory(made.path).exists()


def test_emptiness_is_told_by_the_kernel(hierarchy: Hierarchy, sleeper: subprocess.Popen[bytes]) -> None:
    """A watch on cgroup.events becomes readable when the last process ends, so nobody has to ask."""
    made = hierarchy.create("test-watch", sleeper.pid, lambda: True)
    watch = Watch()
    events = hierarchy.directory(made.path) / "cgroup.events"
    assert watch.add(events, IN_MODIFY)
    assert [] == watch.read()
    sleeper.kill()
    sleeper.wait()
    wait_until(lambda: events in [change.path for change in watch.read()], "told")
    watch.remove(events)
    watch.close()
    hierarchy.remove(made)


def test_a_process_that_only_has_the_number_is_put_back(hierarchy: Hierarchy, sleeper: subprocess.Popen[bytes]) -> None:
    """When the process that was meant is dead after the move, whoever was moved in its place is back, and nothing is left."""
    before = hierarchy.path_of(sleeper.pid)
    with pytest.raises(CgroupError, match=f"process {sleeper.pid} ended while it was moved"):
        hierarchy.create("test-reused", sleeper.pid, lambda: False)
    assert (before, None) == (hierarchy.path_of(sleeper.pid), hierarchy.id_of("/capd/test-reused"))


def test_dead_process_leaves_no_cgroup(hierarchy: Hierarchy) -> None:
    """Moving a process that is gone is an error that names it, and its cgroup is not left behind."""
    with subprocess.Popen(["true"]) as process:
        pass
    with pytest.raises(CgroupError, match=f"cannot move process {process.pid}"):
        hierarchy.create("test-dead", process.pid, lambda: True)
    assert not hierarchy.directory("/capd/test-dead").exists()


def test_systemd_that_is_not_there_is_a_clear_error() -> None:
    """Where busctl finds no systemd, the error says which unit could not be made, and why."""
    require_root()
    if cgroups.has_systemd():
        return
    with pytest.raises(CgroupError, match=r"systemd refused to make capd-run-test\.scope: .+|busctl is not installed"):
        Hierarchy(systemd=True).create("test", 1, lambda: True)


@pytest.mark.parametrize(
    ("name", "path"),
    [
        ("capd-agents.slice", "/capd.slice/capd-agents.slice"),
        ("ci.slice", "/ci.slice"),
        ("a-b-c.slice", "/a.slice/a-b.slice/a-b-c.slice"),
        ("user.slice/user-1000.slice", "/user.slice/user-1000.slice"),
        ("/lxc/agents/", "/lxc/agents"),
        ("agents", "/agents"),
    ],
)
def test_slices_are_found_by_name_or_path(name: str, path: str) -> None:
    """A systemd slice's name tells its place, as systemd.slice(5) says; anything else is a path already."""
    assert path == cgroups.slice_path(name)


def test_watch_tells_new_directories(tmp_path: Path) -> None:
    """A watched directory tells the names of what appears in it; a path that is not there cannot be watched."""
    watch = Watch()
    assert watch.add(tmp_path, 0x100)
    assert not watch.add(tmp_path / "missing", 0x100)
    (tmp_path / "new").mkdir()
    assert [(tmp_path, "new")] == [(change.path, change.name) for change in watch.read()]
    watch.close()
