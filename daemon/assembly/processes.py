"""Processes and runs: who is behind a session.

What lives here: the table of processes that events told of, and the table of runs. What must not: sessions, records.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final
from uuid import UUID

from capd.daemon.assembly.facts import Facts
from capd.probes.layouts import ExecEvent

PROCESSES_MAX: Final = 65_536
"""Facts of live processes held at once; about 40 MB at worst. At the limit the oldest facts go, and are counted."""
RUNS_MAX: Final = 4_096
"""Runs held at once, ended ones included while late events may name them."""
LINGER_NS: Final = 10_000_000_000
"""How long, in event time, the facts of an ended process are kept for events that come late."""

ProcessKey = tuple[int, int]
"""pid and start time (boot clock, ns): names a process for ever within one boot."""


@dataclass(slots=True, kw_only=True)
class Process:
    """What is known of one process.

    Attributes:
        pid, start_ns: its key.
        run: key of its run.
        exe: path of its program as execve got it; None when unknown.
        argv: arguments; empty when unknown.
        uid: real user id; None when unknown.
        comm: the kernel's name of it.
        parent: key of its parent, when the fork was seen.
        children: keys of its living children.
        ended: whether its exit was seen.
        uring: whether it uses io_uring, which the classic tier does not see.
    """

    pid: int
    start_ns: int
    run: int
    exe: str | None = None
    argv: list[str] = field(default_factory=list)
    uid: int | None = None
    comm: str | None = None
    parent: ProcessKey | None = None
    children: set[ProcessKey] = field(default_factory=set)
    ended: bool = False
    uring: bool = False

    @property
    def key(self) -> ProcessKey:
        """Its name within this boot."""
        return self.pid, self.start_ns


def arguments(raw: bytes) -> list[str]:
    """Split NUL-ended arguments."""
    return [part.decode("utf-8", "backslashreplace") for part in raw.removesuffix(b"\0").split(b"\0")] if raw else []


class ProcessTable:
    """All processes that are alive, or were a moment ago."""

    def __init__(self) -> None:
        self._processes: dict[ProcessKey, Process] = {}
        self._ended: dict[ProcessKey, int] = {}
        """When those ended that are known to have, the first one first."""
        self.forgotten = 0

    def __len__(self) -> int:
        return len(self._processes)

    def get(self, key: ProcessKey) -> Process | None:
        """Give a process, if anything was told of it."""
        return self._processes.get(key)

    def holders(self, key: ProcessKey) -> tuple[set[ProcessKey], int | None]:
        """Give who may hold what a process had: itself; or when it ended (boot clock), and its living children."""
        process = self._processes.get(key)
        if process is None or not process.ended:
            return {key}, None
        return set(process.children), self._ended.get(key)

    def seen(self, key: ProcessKey, run: int) -> Process:
        """Give a process, knowing no more than its key if this is the first time."""
        process = self._processes.get(key)
        if process is None:
            process = self._processes[key] = Process(pid=key[0], start_ns=key[1], run=run)
            if len(self._processes) > PROCESSES_MAX:
                del self._processes[next(iter(self._processes))]
                self.forgotten += 1
        return process

    def fork(self, parent_key: ProcessKey, child_key: ProcessKey, run: int) -> Process:
        """Note a child: until it executes a program it is what its parent is."""
        parent = self.seen(parent_key, run)
        child = self.seen(child_key, run)
        child.parent = parent_key
        if child.exe is None:
            child.exe, child.argv, child.uid, child.comm = parent.exe, parent.argv, parent.uid, parent.comm
        if not child.ended:
            parent.children.add(child_key)
        return child

    def exec(self, key: ProcessKey, run: int, event: ExecEvent) -> Process:
        """Note a new program."""
        process = self.seen(key, run)
        process.exe = event.filename.decode("utf-8", "backslashreplace")
        process.argv = arguments(event.argv)
        process.uid = event.uid
        process.comm = event.comm.decode("utf-8", "backslashreplace")
        return process

    def exit(self, key: ProcessKey, run: int, time_ns: int) -> set[ProcessKey]:
        """Note an end.

        Returns:
            Keys of its living children, who may hold descriptors that they inherited.
        """
        process = self.seen(key, run)
        process.ended = True
        self._ended[key] = time_ns
        if process.parent is not None and (parent := self._processes.get(process.parent)) is not None:
            parent.children.discard(key)
            if parent.ended:
                parent.children |= process.children
        return process.children

    def forget(self, now_ns: int) -> None:
        """Drop those who ended long enough ago."""
        while self._ended:
            key, ended_ns = next(iter(self._ended.items()))
            if ended_ns + LINGER_NS >= now_ns:
                break
            del self._ended[key]
            self._processes.pop(key, None)

    def clear(self) -> None:
        """Drop all: the host was started anew."""
        self._processes.clear()
        self._ended.clear()

    def all(self) -> list[Process]:
        """Give them all, for a snapshot."""
        return list(self._processes.values())

    def restore(self, processes: list[Process], now_ns: int) -> None:
        """Take what a snapshot kept; those who had ended are taken to have ended at `now_ns` (boot clock)."""
        for process in processes:
            self._processes[process.key] = process
            if process.ended:
                self._ended[process.key] = now_ns


@dataclass(slots=True, kw_only=True)
class Run:
    """One agent execution.

    Attributes:
        key: what events call it.
        id: its UUIDv7.
        name, labels, principal: as the daemon noted them.
        facts: the whole note.
        started_ns, ended_ns: wall time; None while unknown.
        placeholder: events named the key before any note did, so `id` was made up here.
    """

    key: int
    id: UUID
    name: str | None = None
    labels: Facts = field(default_factory=dict)
    principal: Facts = field(default_factory=dict)
    facts: Facts = field(default_factory=dict)
    started_ns: int | None = None
    ended_ns: int | None = None
    placeholder: bool = False


class RunTable:
    """Runs by the key that events use."""

    def __init__(self) -> None:
        self._runs: dict[int, Run] = {}

    def get(self, key: int) -> Run | None:
        """Give the run of a key, if it is known."""
        return self._runs.get(key)

    def of(self, key: int) -> Run:
        """Give the run of a key that was put here."""
        return self._runs[key]

    def put(self, run: Run) -> None:
        """Note a run; at the limit the oldest ended one goes, or else the oldest."""
        self._runs[run.key] = run
        if len(self._runs) > RUNS_MAX:
            ended = (key for key, other in self._runs.items() if other.ended_ns is not None)
            del self._runs[next(ended, next(iter(self._runs)))]

    def all(self) -> list[Run]:
        """Give them all, oldest first."""
        return list(self._runs.values())
