"""Who speaks at the socket of approvals, as the operating system knows.

What lives here: user, groups, login, and whether the process is an agent. What must not: who may decide (enforcer/approvals).

Everything is found out while the process that connected still lives; a pid that is another's by then proves nothing, and the
person is refused.
"""

from __future__ import annotations

import grp
import json
import os
import pwd
from contextlib import suppress
from pathlib import Path
from typing import Final

from capd.daemon.control import Peer
from capd.daemon.runs import FILE_BYTES_MAX, Run, from_json
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
    runs = _runs(runs_dir)
    try:
        cgroup = _cgroup(peer.pid)
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
        in_run=any(cgroup == path or cgroup.startswith(f"{path}/") for path in (run.cgroup.path for run in runs)),
        has_runs=any(run.uid == peer.uid or _has_process(hierarchy, run, peer.uid) for run in runs),
    )


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


def _cgroup(pid: int) -> str:
    """Give the path in the cgroup2 hierarchy (cgroups(7): the line with number 0)."""
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


def _runs(directory: Path) -> list[Run]:
    found = []
    for path in directory.glob("*.json"):
        with suppress(OSError, ValueError, KeyError, TypeError):  # it ended meanwhile
            found.append(from_json(json.loads(read_regular(path, FILE_BYTES_MAX))))
    return found
