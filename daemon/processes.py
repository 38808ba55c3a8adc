"""What /proc says of a process.

What lives here: reading one process, listing all. What must not: judging them. A process may end between any two reads; then
the answer is None. What a process chose itself (its arguments) is copied, never looked into.
"""

from __future__ import annotations

import contextlib
import os
import resource
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

PROC: Final = Path("/proc")
ARGUMENTS_BYTES_MAX: Final = 64 * 1024
"""As much as a note carries of one command line; the kernel allows 2 MiB."""
INITIAL_PID_NAMESPACE: Final = "pid:[4026531836]"
"""PROC_PID_INIT_INO of include/linux/proc_ns.h."""
STAT_STATE, STAT_PARENT, STAT_START = 0, 1, 19
"""Fields of /proc/PID/stat after the name in parentheses (proc_pid_stat(5): 3, 4, 22)."""


@dataclass(frozen=True, kw_only=True)
class Process:
    """One process.

    Attributes:
        pid: process id.
        start_ns: start on CLOCK_BOOTTIME, as exact as /proc tells it: a clock tick, 10 ms. The probes' value is exact to the
        ns.
        parent: pid of the parent.
        uid: real user id.
        exe: path of the executable, "" if it may not be read (kernel threads, other users).
        argv: arguments, cut at `ARGUMENTS_BYTES_MAX`.
    """

    pid: int
    start_ns: int
    parent: int
    uid: int
    exe: str
    argv: list[str]


def start_ns(pid: int) -> int | None:
    """Say when a process started, on CLOCK_BOOTTIME, as exact as a clock tick; None: it is gone, or not to be seen."""
    found = read(pid)
    return None if found is None else found.start_ns


def read(pid: int) -> Process | None:
    """Describe a process; None if it is gone or only its corpse is left."""
    try:
        text = (PROC / str(pid) / "stat").read_text(encoding="utf-8", errors="replace")
        uid = (PROC / str(pid)).stat().st_uid
        with (PROC / str(pid) / "cmdline").open("rb") as file:
            arguments = file.read(ARGUMENTS_BYTES_MAX)
    except OSError:
        return None
    fields = text[text.rindex(")") + 2 :].split()
    if fields[STAT_STATE] in "ZX":
        return None
    tick_ns = 1_000_000_000 // os.sysconf("SC_CLK_TCK")
    argv = [part.decode("utf-8", "surrogateescape") for part in arguments.split(b"\0")[:-1]]
    return Process(
        pid=pid,
        start_ns=int(fields[STAT_START]) * tick_ns,
        parent=int(fields[STAT_PARENT]),
        uid=_real_uid(pid, uid),
        exe=executable(pid),
        argv=argv,
    )


def exists(pid: int) -> bool:
    """Say whether there is such a process, dead but not yet waited for included."""
    return (PROC / str(pid)).exists()


def in_initial_pid_namespace() -> bool:
    """Say whether the pids that we see are those that the kernel's events have."""
    return str((PROC / "self/ns/pid").readlink()) == INITIAL_PID_NAMESPACE


def executable(pid: int) -> str:
    """Give the path of a process's executable as /proc has it, "" if it may not be read."""
    try:
        return str((PROC / str(pid) / "exe").readlink())
    except OSError:
        return ""


def working_directory(pid: int) -> str | None:
    """Give the working directory of a process, None if it may not be read."""
    try:
        return str((PROC / str(pid) / "cwd").readlink())
    except OSError:
        return None


def ancestors(pid: int) -> Iterator[int]:
    """Give the process itself, its parent, and so on up to the first process."""
    while pid > 0:
        yield pid
        process = read(pid)
        pid = process.parent if process else 0


def _real_uid(pid: int, effective: int) -> int:
    with contextlib.suppress(OSError):
        for line in (PROC / str(pid) / "status").read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("Uid:"):
                return int(line.split()[1])
    return effective


def rss_bytes() -> int:
    """Give the resident memory of this process."""
    pages = int((PROC / "self/statm").read_text(encoding="ascii").split()[1])
    return pages * resource.getpagesize()
