"""Who speaks at the socket of approvals, or by a link, as the operating system knows.

What lives here: user, groups, login, and whether the process is an agent. What must not: who may decide (enforcer/approvals).

Everything is found out while the process that connected still lives; a pid that is another's by then proves nothing, and the
person is refused.
"""

from __future__ import annotations

import grp
import json
import os
import pwd
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final

from capd.daemon.control import Peer
from capd.daemon.runs import FILE_BYTES_MAX, Run, from_json
from capd.enforcer.approvals.eligibility import ROOT
from capd.enforcer.approvals.errors import NotAnApproverError
from capd.enforcer.approvals.limits import GROUPS_MAX
from capd.enforcer.approvals.request import Person
from capd.recording.durable import read_regular

NOBODY_LOGGED_IN: Final = 0xFFFFFFFF
"""AUDIT_UID_UNSET: of processes that no login began (linux/audit.h)."""


def person_of(peer: Peer, runs_dir: Path, hierarchy: Path) -> Person:
    """Give the person behind a connection.

    Args:
        peer: who connected.
        runs_dir: of the files of live runs.
        hierarchy: where cgroup2 is mounted.

    Raises:
        NotAnApproverError: the process has gone, or cannot be looked at.
    """
    runs = live_runs(runs_dir)
    try:
        cgroup = cgroup_of(peer.pid)
        login = _login(peer.pid)
    except OSError as error:
        raise NotAnApproverError(f"capd cannot see process {peer.pid}, which asked: {error.strerror}") from error
    if not peer.alive():
        raise NotAnApproverError("the process that asked has ended")
    name, groups = _user(peer.uid)
    return Person(
        uid=peer.uid,
        name=name,
        groups=groups,
        login_uid=login,
        in_run=is_of(cgroup, runs),
        has_runs=_has_runs(runs, hierarchy, peer.uid),
    )


def person_named(name: str, runs_dir: Path, hierarchy: Path) -> Person:
    """Give the person for whom a link or a chat tool's user speaks: no process of his is there to be looked at.

    Args:
        name: of the user.
        runs_dir: of the files of live runs.
        hierarchy: where cgroup2 is mounted.

    Raises:
        NotAnApproverError: there is no such user, or it is root, for whom nothing but root's own processes speaks.
    """
    try:
        uid = pwd.getpwnam(name).pw_uid
    except KeyError:
        raise NotAnApproverError(f"there is no user {name!r} on this host any more") from None
    if uid == ROOT:
        raise NotAnApproverError(f"{name} is root, who decides on this host alone")
    _, groups = _user(uid)
    return Person(uid=uid, name=name, groups=groups, has_runs=_has_runs(live_runs(runs_dir), hierarchy, uid))


def is_of(cgroup: str, runs: Sequence[Run]) -> bool:
    """Say whether a cgroup is that of a run, or below it."""
    return any(cgroup == path or cgroup.startswith(f"{path}/") for path in (run.cgroup.path for run in runs))


def _has_runs(runs: Sequence[Run], hierarchy: Path, uid: int) -> bool:
    return any(run.uid == uid or _has_process(hierarchy, run, uid) for run in runs)


def _user(uid: int) -> tuple[str, tuple[str, ...]]:
    """Give name and groups; a user without an entry has neither."""
    try:
        entry = pwd.getpwuid(uid)
    except KeyError:
        return str(uid), ()
    groups: list[str] = []
    for gid in os.getgrouplist(entry.pw_name, entry.pw_gid)[:GROUPS_MAX]:
        with suppress(KeyError):
            groups.append(grp.getgrgid(gid).gr_name)
    return entry.pw_name, tuple(sorted(groups))


def cgroup_of(pid: int) -> str:
    """Give a process's path in the cgroup2 hierarchy (cgroups(7): the line with number 0).

    Raises:
        OSError: it has gone.
    """
    for line in Path(f"/proc/{pid}/cgroup").read_text(encoding="utf-8", errors="surrogateescape").splitlines():
        if line.startswith("0::"):
            return line[3:]
    return "/"


def _has_process(hierarchy: Path, run: Run, uid: int) -> bool:
    """Say whether a process of a run is a user's; a directory in /proc is its process's user's (proc_pid(5))."""
    for directory, _names, _files in os.walk(hierarchy / run.cgroup.path.lstrip("/")):
        with suppress(OSError):
            for pid in Path(directory, "cgroup.procs").read_text(encoding="ascii").split():
                with suppress(FileNotFoundError):
                    if Path("/proc", pid).stat().st_uid == uid:
                        return True
    return False


def _login(pid: int) -> int | None:
    """Give who logged in; None: nobody, or the kernel does not keep it."""
    path = Path(f"/proc/{pid}/loginuid")
    if not path.exists():
        return None
    uid = int(path.read_text(encoding="ascii"))
    return None if uid == NOBODY_LOGGED_IN else uid


def live_runs(directory: Path) -> list[Run]:
    """Give the runs whose files are in a directory."""
    found = []
    for path in directory.glob("*.json"):
        with suppress(OSError, ValueError, KeyError, TypeError):  # it ended meanwhile
            found.append(from_json(json.loads(read_regular(path, FILE_BYTES_MAX))))
    return found
