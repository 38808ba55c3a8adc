"""Notes: what the daemon itself writes into the journal, between the spans of the rings.

What lives here: the form of every note (docs/formats/journal.md). What must not: when one is written, and the journal.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final, cast
from uuid import UUID

import msgpack

from capd.daemon.processes import Process
from capd.daemon.runs import Run

Note = dict[str, object]

FORM: Final = 2
"""Of all notes of a daemon: in form 1 losses were noted within a second, as totals, and nothing told what was drained."""


def pack(note: Note) -> bytes:
    """Give a note's bytes: a msgpack map."""
    return cast("bytes", msgpack.packb(note))


def start(*, epoch: UUID, boot: UUID, host: UUID, tier: str, version: str, boottime_ns: int, continued: bool = False) -> Note:
    """Say that a daemon started: the first note of each; what came before without a stop note was cut off.

    Args:
        epoch: of its probes.
        boot: of the host.
        host: its id.
        tier: of its probes.
        version: of capd.
        boottime_ns: now.
        continued: its probes are those of the start with the same epoch, which stood since: nothing is missing in between.
    """
    return {
        "note": "start",
        "epoch": epoch.bytes,
        "boot": boot.bytes,
        "host": host.bytes,
        "tier": tier,
        "version": version,
        "form": FORM,
        "continued": continued,
        "boottime_ns": boottime_ns,
    }


def stop(boottime_ns: int) -> Note:
    """Say that the daemon ended after it had drained what was left."""
    return {"note": "stop", "boottime_ns": boottime_ns}


def run_started(run: Run, *, boottime_ns: int, resumed: bool = False) -> Note:
    """Say what a run is, before the first event with its key.

    Args:
        run: the run.
        boottime_ns: now.
        resumed: an earlier daemon wrote this already; this one took the run up.
    """
    return {
        "note": "run_started",
        "key": run.key,
        "run": run.id.bytes,
        "name": None if run.name is None else text(run.name),
        "labels": {text(key): text(value) for key, value in run.labels.items()},
        "principal": dict(run.principal),
        "cgroup": text(run.cgroup.path),
        "cgroup_id": run.cgroup.id,
        "command": [text(word) for word in run.command],
        "cwd": None if run.cwd is None else text(run.cwd),
        "adopted": run.adopted,
        "resumed": resumed,
        "boottime_ns": boottime_ns,
    }


def run_ended(key: int, boottime_ns: int) -> Note:
    """Say that the last process of a run is gone."""
    return {"note": "run_ended", "key": key, "boottime_ns": boottime_ns}


def process(found: Process, *, run: int, boottime_ns: int) -> Note:
    """Describe a process that already ran when its run was selected; `start_ns` is as exact as /proc tells it, 10 ms."""
    return {
        "note": "process",
        "run": run,
        "pid": found.pid,
        "start_ns": found.start_ns,
        "exe": text(found.exe),
        "argv": [text(word) for word in found.argv],
        "uid": found.uid,
        "parent": found.parent,
        "boottime_ns": boottime_ns,
    }


def losses(counters: Mapping[str, int], grown: Iterable[tuple[int, int, int, int, int, int]], boottime_ns: int) -> Note:
    """Say what the kernel counted as lost.

    Args:
        counters: totals since the daemon started.
        grown: stream, layer, direction, cause, how much more than was noted before, run.
        boottime_ns: now.
    """
    return {
        "note": "losses",
        "counters": dict(counters),
        "grown": [list(stream) for stream in grown],
        "boottime_ns": boottime_ns,
    }


def drained(boottime_ns: int) -> Note:
    """Say that all that had been put into the rings before `boottime_ns` is in the journal before this note, or lost."""
    return {"note": "drained", "boottime_ns": boottime_ns}


def storage(
    *, before: str, state: str, recording: bool, action: str, free_bytes: int, free_inodes: int | None, boottime_ns: int
) -> Note:
    """Say that the state of storage changed.

    Args:
        before: the state until now.
        state: the state from now on.
        recording: whether what agents say is recorded from now on.
        action: what is configured to happen at critical.
        free_bytes: what there was.
        free_inodes: what there was, None where nobody counts.
        boottime_ns: now.
    """
    return {
        "note": "storage",
        "before": before,
        "state": state,
        "recording": recording,
        "action": action,
        "free_bytes": free_bytes,
        "free_inodes": free_inodes,
        "boottime_ns": boottime_ns,
    }


def attached(
    *, device: int, inode: int, path: str, library: str, functions: Iterable[str], late: bool, boottime_ns: int
) -> Note:
    """Say that a TLS library is watched from now on; `late`: a process had mapped it before."""
    return {
        "note": "attached",
        "device": device,
        "inode": inode,
        "path": text(path),
        "library": library,
        "functions": list(functions),
        "late": late,
        "boottime_ns": boottime_ns,
    }


def attach_failed(*, device: int, inode: int, path: str | None, reason: str, run: int, boottime_ns: int) -> Note:
    """Say that a file that a process of a run has mapped holds a TLS library, or may hold one, and cannot be watched."""
    return {
        "note": "attach_failed",
        "device": device,
        "inode": inode,
        "path": None if path is None else text(path),
        "reason": text(reason),
        "run": run,
        "boottime_ns": boottime_ns,
    }


def text(value: str) -> str:
    """Give text that is UTF-8 whatever bytes a process chose for its names, and whatever a client wrote as JSON escapes."""
    return value.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
