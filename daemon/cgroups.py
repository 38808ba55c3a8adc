"""The cgroup2 hierarchy: where it is, the cgroups of runs, who is in them, and when they are empty.

What lives here: all that touches cgroupfs, and the request to systemd for a scope. What must not: what a run is (runs.py).

Three shapes of host are normal: unified (cgroup2 at /sys/fs/cgroup), hybrid (at /sys/fs/cgroup/unified beside version 1) and
mounted elsewhere. With systemd as init, a cgroup must be asked of it, else it would move our processes back or remove what it
did not make.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import time
from collections.abc import Callable, Container, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from capd.daemon import mountinfo, processes
from capd.daemon.errors import CgroupError, NoCgroup2Error

OWN_PARENT: Final = "capd"
"""Under the root of the hierarchy, when there is no systemd to ask."""
AGENTS_SLICE: Final = "capd-agents.slice"
CANARY: Final = "capd-canary"
"""Below the parent of enforced runs: the cgroup of the process that tries whether forcing works. No run."""
OWNER_MARK: Final = "trusted.capd.owner"
"""On each of our own cgroups: which instance made it, since several may share the host."""
UNMARKED_SECONDS: Final = 60.0
"""A cgroup without the mark may be another instance's that is just being made; none takes so long."""
SYSTEMD_RUNS: Final = Path("/run/systemd/system")
"""Exists exactly when systemd is the init system: sd_booted(3)."""
SYSTEMD_SECONDS_MAX: Final = 5.0
"""A busy systemd answers in milliseconds; above this the person at the terminal wants to know."""
SCOPE_POLL_SECONDS: Final = 0.005


@dataclass(frozen=True, kw_only=True)
class RunCgroup:
    """The cgroup of a run.

    Attributes:
        path: below the root of the hierarchy, with a leading slash, as /proc/PID/cgroup has it.
        id: the kernel's number for it, as bpf_get_current_cgroup_id gives it.
        unit: systemd's scope, None when it is our own directory.
    """

    path: str
    id: int
    unit: str | None


def find_root() -> Path:
    """Find where the cgroup2 hierarchy is mounted, whole and writable first.

    Raises:
        NoCgroup2Error: nowhere.
    """
    found = mountinfo.mounted("cgroup2")
    if not found:
        raise NoCgroup2Error(
            "no cgroup2 hierarchy is mounted: not at /sys/fs/cgroup, not at /sys/fs/cgroup/unified, not elsewhere"
        )
    best = max(found, key=lambda mount: (mount.root == "/", mount.writable))
    return best.point


def shape(root: Path) -> str:
    """Name the kind of hierarchy for a person: unified, hybrid or elsewhere."""
    return {Path("/sys/fs/cgroup"): "unified", Path("/sys/fs/cgroup/unified"): "hybrid"}.get(root, "elsewhere")


def slice_path(name: str) -> str:
    """Give the cgroup path of a systemd slice by its name: a dash is a level, systemd.slice(5). A path stays as it is."""
    if "/" in name or not name.endswith(".slice"):
        return f"/{name.strip('/')}"
    parts = name.removesuffix(".slice").split("-")
    return "".join(f"/{'-'.join(parts[:count])}.slice" for count in range(1, len(parts) + 1))


def has_systemd() -> bool:
    """Say whether systemd is the init system."""
    return SYSTEMD_RUNS.is_dir()


class Hierarchy:
    """The cgroup2 tree of this host."""

    def __init__(
        self, root: Path | None = None, *, systemd: bool | None = None, owner: str = "", parent: str | None = None
    ) -> None:
        """Use the tree at `root`.

        Args:
            root: its mount point; None looks for it.
            systemd: whether to ask systemd for cgroups; None looks for it.
            owner: the instance that our own cgroups are marked with.
            parent: a permanent cgroup, by its path, below which all runs are made, or with systemd the name of a slice; None:
                none has to be.

        Raises:
            NoCgroup2Error: there is none.
        """
        self.root = find_root() if root is None else root
        self.systemd = has_systemd() if systemd is None else systemd
        self._owner = owner.encode("utf-8", "surrogateescape")
        self._parent = parent

    def directory(self, path: str) -> Path:
        """Give the directory of a cgroup path."""
        return self.root / path.lstrip("/")

    def id_of(self, path: str) -> int | None:
        """Give the kernel's number of a cgroup: the inode of its directory. None if it does not exist."""
        try:
            return self.directory(path).stat().st_ino
        except OSError:
            return None

    def ensure(self, name: str) -> str:
        """Make a cgroup be there that is to stay: a slice is asked of systemd, anything else is made. Gives its path.

        Raises:
            CgroupError: the kernel or systemd refused.
        """
        path = slice_path(name)
        if self.systemd and "/" not in name and path.endswith(".slice") and self.id_of(path) is None:
            _call_systemd("StartUnit", "ss", name, "replace", what=name)
        try:
            self.directory(path).mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise CgroupError(f"cannot make the cgroup {self.directory(path)}: {error.strerror}") from error
        return path

    def create(self, name: str, pid: int, alive: Callable[[], bool]) -> RunCgroup:
        """Make a cgroup for a run and move a process into it.

        The kernel and systemd take a number for the process, which may be another's by the time they look. So its identity is
        asked again after the move: a process that still lives has kept its number.

        Args:
            name: what makes it unique: letters, digits, dashes.
            pid: the process that enters it, with all its threads.
            alive: says whether the process that is meant still lives, as its pidfd does.

        Raises:
            CgroupError: the kernel or systemd refused, or the process ended. Nothing is left behind.
        """
        origin = self.path_of(pid)
        cgroup = self._create_scope(name, pid) if self.systemd else self._create_own(name, pid)
        if not alive():
            self.undo(cgroup, origin or "/", meant=False)
            raise CgroupError(f"process {pid} ended while it was moved into the cgroup of its run")
        return cgroup

    def undo(self, cgroup: RunCgroup, origin: str, *, meant: bool) -> None:
        """Take everybody out of a cgroup that `create` made, and remove it.

        Args:
            cgroup: what was made.
            origin: where the process was that was meant.
            meant: whether that is the one which was moved; a process that only has its number has begun just now, and belongs
                where its parent is.
        """
        for pid in list(self.members(cgroup.path)):
            process = processes.read(pid)
            above = None if process is None else self.path_of(process.parent)
            inside = above is None or f"{above}/".startswith(f"{cgroup.path}/")
            for place in (origin, "/") if meant or inside else (above, origin, "/"):
                with contextlib.suppress(OSError):
                    (self.directory(str(place)) / "cgroup.procs").write_text(str(pid), encoding="ascii")
                    break
        self.remove(cgroup)

    def remove(self, cgroup: RunCgroup) -> None:
        """Remove an empty run cgroup with what its processes made below it. systemd removes its scopes itself.

        A cgroup that is not empty after all, or already gone, is left alone.
        """
        if cgroup.unit is not None:
            return
        with contextlib.suppress(OSError):
            for below, _directories, _files in os.walk(self.directory(cgroup.path), topdown=False):
                Path(below).rmdir()
            if self._parent is None:
                self.directory(OWN_PARENT).rmdir()

    def freeze(self, path: str, *, frozen: bool) -> None:
        """Stop all that lives in a cgroup and below it, or let it go on (cgroup.freeze, Linux 5.2).

        Raises:
            OSError: the kernel refused, or the cgroup is gone.
        """
        (self.directory(path) / "cgroup.freeze").write_text(str(int(frozen)), encoding="ascii")

    def clean(self, live: Container[str], now: float) -> list[str]:
        """Remove empty cgroups that a daemon which was killed made for runs that never began.

        Args:
            live: paths of the live runs' cgroups.
            now: wall time in seconds.

        Returns:
            What was removed.
        """
        removed = []
        for path in (*self.children(OWN_PARENT), *(self.children(self._parent) if self._parent else ())):
            if path in live or self.is_populated(path) or path.endswith(f"/{CANARY}"):
                continue
            directory = self.directory(path)
            with contextlib.suppress(OSError):
                try:
                    left = os.getxattr(directory, OWNER_MARK) == self._owner
                except OSError:
                    left = directory.stat().st_ctime < now - UNMARKED_SECONDS
                if left:
                    self.remove(RunCgroup(path=path, id=0, unit=None))
                    removed.append(path)
        return removed

    def is_populated(self, path: str) -> bool:
        """Say whether any process lives in the cgroup or below it; False if it is gone."""
        try:
            text = (self.directory(path) / "cgroup.events").read_text(encoding="ascii")
        except OSError:
            return False
        return "populated 1" in text

    def members(self, path: str) -> Iterator[int]:
        """Give the pids that live in the cgroup or below it, except those that this pid namespace cannot see."""
        for below, _directories, _files in os.walk(self.directory(path)):
            try:
                text = (Path(below) / "cgroup.procs").read_text(encoding="ascii")
            except OSError:
                continue
            yield from (int(line) for line in text.split() if line != "0")

    def children(self, path: str) -> list[str]:
        """List the cgroups directly below one; none if it does not exist."""
        try:
            names = sorted(entry.name for entry in os.scandir(self.directory(path)) if entry.is_dir(follow_symlinks=False))
        except OSError:
            return []
        return [f"/{path.strip('/')}/{name}" for name in names]

    def path_of(self, pid: int) -> str | None:
        """Say in which cgroup a process lives; None if it is gone."""
        try:
            text = (processes.PROC / str(pid) / "cgroup").read_text(encoding="utf-8", errors="surrogateescape")
        except OSError:
            return None
        return next((line[3:] for line in text.splitlines() if line.startswith("0::")), None)

    def _create_own(self, name: str, pid: int) -> RunCgroup:
        path = f"/{(self._parent or OWN_PARENT).strip('/')}/{name}"
        directory = self.directory(path)
        try:
            directory.mkdir(parents=True)
            with contextlib.suppress(OSError):  # without the mark it is cleaned up a minute later
                os.setxattr(directory, OWNER_MARK, self._owner)
            (directory / "cgroup.procs").write_text(str(pid), encoding="ascii")
            return RunCgroup(path=path, id=directory.stat().st_ino, unit=None)
        except OSError as error:
            self.remove(RunCgroup(path=path, id=0, unit=None))
            raise CgroupError(f"cannot move process {pid} into the cgroup {directory}: {error.strerror}") from error

    def _create_scope(self, name: str, pid: int) -> RunCgroup:
        unit = f"capd-run-{name}.scope"
        properties = {
            # Everybody may read it, so it says neither the run's name nor its command.
            "Description": ("s", f"capd run {name}"),
            "Slice": ("s", self._parent or AGENTS_SLICE),
            "CollectMode": ("s", "inactive-or-failed"),
        }
        _start_transient_unit(unit, pid, properties)
        deadline = time.monotonic() + SYSTEMD_SECONDS_MAX
        while time.monotonic() < deadline:
            path = self.path_of(pid)
            if path is None:
                raise CgroupError(f"process {pid} ended while systemd made its scope")
            cgroup_id = self.id_of(path)
            if path.endswith(f"/{unit}") and cgroup_id is not None:
                return RunCgroup(path=path, id=cgroup_id, unit=unit)
            time.sleep(SCOPE_POLL_SECONDS)
        raise CgroupError(f"systemd accepted {unit} but did not move process {pid} into it in {SYSTEMD_SECONDS_MAX:.0f} s")


def _start_transient_unit(unit: str, pid: int, properties: dict[str, tuple[str, str]]) -> None:
    """Ask systemd for a scope (org.freedesktop.systemd1(5), StartTransientUnit)."""
    arguments = [word for key, (kind, value) in properties.items() for word in (key, kind, value)]
    rest = [unit, "fail", str(len(properties) + 1), *arguments, "PIDs", "au", "1", str(pid), "0"]
    _call_systemd("StartTransientUnit", "ssa(sv)a(sa(sv))", *rest, what=unit)


def _call_systemd(method: str, *arguments: str, what: str) -> None:
    """Call a method of systemd's manager, by busctl(1)."""
    command = [
        *("busctl", "--system", "--quiet", "call", "org.freedesktop.systemd1", "/org/freedesktop/systemd1"),
        *("org.freedesktop.systemd1.Manager", method, *arguments),
    ]
    try:
        subprocess.run(command, check=True, capture_output=True, timeout=SYSTEMD_SECONDS_MAX, stdin=subprocess.DEVNULL)
    except FileNotFoundError as error:
        raise CgroupError("systemd is the init system, but its busctl is not installed") from error
    except subprocess.TimeoutExpired as error:
        raise CgroupError(f"systemd did not answer in {SYSTEMD_SECONDS_MAX:.0f} s when asked for {what}") from error
    except subprocess.CalledProcessError as error:
        words = error.stderr.decode("utf-8", "replace").strip().replace("\n", " ")
        raise CgroupError(f"systemd refused to make {what}: {words}") from error
