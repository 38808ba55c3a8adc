"""Keeping forcing in place in network namespaces other than the host's: found by the processes of runs, opened, tried, closed.

What lives here: when which namespace is opened and let go, by a thread of its own, so that a container does not wait for the
attendant. What must not: rules (enforcer/forcing), the sockets' way to the enforcer (namespace_server.py).

Until a namespace is open, the programs on cgroups let nothing out of it: a connection that is begun before waits for its first
packet to be sent again, a second later. Nothing of capd keeps a namespace alive for longer than LINGER_SECONDS after the last
process of a run is seen in it.
"""

from __future__ import annotations

import os
import resource
import selectors
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, cast

from capd.daemon import canary as canaries
from capd.daemon.canary import Canary, Findings
from capd.daemon.cgroups import Hierarchy
from capd.daemon.namespace_server import NamespaceServer
from capd.enforcer.forcing.namespaces import PROC, Opened, namespaces_of, open_namespace, own_namespace
from capd.enforcer.forcing.table import Table
from capd.recording.errors import CapdError

NAMESPACES_MAX: Final = 64
"""Each costs every worker three descriptors, the resolver six."""
DESCRIPTORS_EACH: Final = 8
"""Of this process: the namespace, its table's owner, two listeners of the proxy, four sockets of the resolver."""
NAMESPACES_PER_RUN_MAX: Final = 8
"""So that no run takes those of others; one that is above reaches nothing from there."""
OPENED_AT_ONCE_MAX: Final = 8
"""In one look: each takes some milliseconds, and a run may make namespaces without end."""
LOOK_SECONDS_MIN: Final = 0.2
"""Below the second after which TCP sends its first packet again."""
LOOK_SHARE: Final = 0.02
"""Of one processor: with many processes it is looked less often."""
RETRY_SECONDS: Final = 1.0
"""After a namespace could not be opened."""
LINGER_SECONDS: Final = 5.0
"""A container that starts anew has its namespace empty for a moment."""
CHECK_SECONDS: Final = 30.0
"""From one comparison, and one canary, to the next in each namespace."""
CANARY_SECONDS_MAX: Final = 10.0
FAILURES: Final = (CapdError, OSError)


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """What should stand.

    Attributes:
        table: in every namespace.
        runs: paths of the live runs' cgroups.
        canaries: cgroup in which canaries live.
        enforced: whether what is not redirected is to be refused.
    """

    table: Table
    runs: tuple[str, ...]
    canaries: Path
    enforced: bool


@dataclass(kw_only=True)
class _Kept:
    """A namespace that is open; `run` is the one for which it was opened."""

    opened: Opened
    table: Table
    run: str
    seen: float
    due: float
    problem: str | None = None
    findings: Findings | None = None


@dataclass(kw_only=True)
class _Trial:
    """A canary at work."""

    number: int
    canary: Canary
    until: float


@dataclass(kw_only=True)
class _State:
    """What the thread alone changes; others read what it tells."""

    kept: dict[int, _Kept] = field(default_factory=dict)
    refused: dict[int, tuple[str, float]] = field(default_factory=dict)
    trial: _Trial | None = None


class NamespaceKeeper:
    """Keeps the namespaces of one instance."""

    def __init__(self, path: Path, user: int, ports: tuple[int, int], hierarchy: Hierarchy, say: Callable[[str], None]) -> None:
        """Prepare.

        Args:
            path: of the socket at which the enforcer's processes ask for their sockets.
            user: number of the enforcer's.
            ports: the proxy's and the resolver's.
            hierarchy: has the cgroups.
            say: tells the operator one line.

        Raises:
            StateDirectoryError: nothing can be bound at the path.
        """
        self._ports, self._hierarchy, self._say = ports, hierarchy, say
        self._wanted: Wanted | None = None
        self._state = _State()
        self._own = own_namespace()
        self._stopping = False
        self._problem: str | None = None
        self._defect: str | None = None
        self._told: tuple[Mapping[str, object], ...] = ()
        self._selector = selectors.DefaultSelector()
        self._wake_fd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._selector.register(self._wake_fd, selectors.EVENT_READ, lambda: os.eventfd_read(self._wake_fd))
        self._server = NamespaceServer(path, user, self._selector, self._all_opened)
        _make_room()
        self._thread = threading.Thread(target=self._run, name="capd-namespaces", daemon=True)
        self._thread.start()

    def want(self, wanted: Wanted) -> None:
        """Say what should stand from now on. Called by another thread; never blocks."""
        if wanted != self._wanted:
            self._wanted = wanted
            os.eventfd_write(self._wake_fd, 1)

    @property
    def problem(self) -> str | None:
        """Say what keeps it from looking, or the enforcer from being told, or None. Called by another thread."""
        return self._problem or self._defect

    def describe(self) -> dict[str, object]:
        """Give the part of the status. Called by another thread."""
        known = [dict(one) for one in self._told]
        handed = {"handed_to": len(self._server), "not_taken": self._server.failed}
        return {"max": NAMESPACES_MAX, **handed, "problem": self.problem, "known": known}

    def open_ways(self) -> list[str]:
        """Name the ways around the enforcer that canaries found. Called by another thread."""
        told = [(one["namespace"], way) for one in self._told for way in cast("list[str]", one["open"])]
        return [f"in the network namespace {number}: {way}" for number, way in told]

    def close(self) -> None:
        """Let go of all of them: tables stay, and the enforcer goes on serving what it was handed."""
        self._stopping = True
        os.eventfd_write(self._wake_fd, 1)
        self._thread.join()
        if self._state.trial is not None:
            self._state.trial.canary.kill()
        self._server.close()
        for kept in self._state.kept.values():
            kept.opened.close()
        self._selector.close()
        os.close(self._wake_fd)

    def _all_opened(self) -> Iterable[Opened]:
        return [kept.opened for kept in self._state.kept.values()]

    def _run(self) -> None:
        due = 0.0
        while not self._stopping:
            self._serve_safely(max(0.0, due - time.monotonic()))
            now = time.monotonic()
            if now >= due:
                self._look_safely(now)
                due = now + max(LOOK_SECONDS_MIN, (time.monotonic() - now) / LOOK_SHARE)

    def _serve_safely(self, seconds: float) -> None:
        """Attend to the enforcer's processes, until something happens or so long; a defect of ours there stays told."""
        try:
            for key, _events in self._selector.select(seconds):
                key.data()
            self._server.attend()
        except Exception as error:  # noqa: BLE001 - the thread's boundary, as in _look_safely
            if self._defect is None:
                self._say(f"capd daemon: sockets of other network namespaces may not be handed to the enforcer: {error!r}")
            self._defect = repr(error)
            time.sleep(LOOK_SECONDS_MIN)

    def _look_safely(self, now: float) -> None:
        """Look; what goes wrong is told, and leaves namespaces that are not open closed."""
        try:
            if self._wanted is not None:
                self._look(self._wanted, now)
        except Exception as error:  # noqa: BLE001 - the thread's boundary: without it nobody would look any more
            if self._problem is None:
                self._say(f"capd daemon: other network namespaces cannot be looked at: {error!r}")
            self._problem = repr(error)
        else:
            self._problem = None

    def _look(self, wanted: Wanted, now: float) -> None:
        """Open what has come, tend what is there, let go of what is over."""
        found = self._find(wanted.runs)
        self._state.refused = {number: why for number, why in self._state.refused.items() if number in found}
        for number in found.keys() & self._state.kept.keys():
            self._state.kept[number].seen = now
        new = [
            number for number in found.keys() - self._state.kept.keys() if now >= self._state.refused.get(number, ("", 0.0))[1]
        ]
        for number in new[:OPENED_AT_ONCE_MAX]:
            self._open(number, *found[number], wanted, now)
        for number, kept in list(self._state.kept.items()):
            if now - kept.seen > LINGER_SECONDS:
                self._let_go(number)
            elif kept.table != wanted.table or now >= kept.due:
                self._tend(kept, wanted, now)
        self._attend_trial(wanted, now)
        self._told = (*map(_described, self._state.kept.values()), *self._described_refused(found))

    def _find(self, runs: Iterable[str]) -> dict[int, tuple[int, str]]:
        """Give the namespaces in which processes of runs live: by number one of the processes, and its run's cgroup."""
        found: dict[int, tuple[int, str]] = {}
        for run in runs:
            for number, pid in namespaces_of(self._hierarchy.members(run), self._own).items():
                found.setdefault(number, (pid, run))
        return found

    def _open(self, number: int, pid: int, run: str, wanted: Wanted, now: float) -> None:
        of_run = Counter(kept.run for kept in self._state.kept.values())
        try:
            if len(self._state.kept) >= NAMESPACES_MAX or of_run[run] >= NAMESPACES_PER_RUN_MAX:
                self._refuse(number, "there is room for no more", now)
                return
            proxy, resolver = self._ports
            made = open_namespace(PROC / str(pid) / "ns/net", wanted.table, proxy_port=proxy, resolver_port=resolver)
        except FAILURES as error:
            self._refuse(number, str(error), now)
            return
        if made.number == self._own or made.number in self._state.kept:  # the process was gone, and its number another's
            made.close()
            return
        self._state.refused.pop(number, None)
        self._state.kept[made.number] = _Kept(opened=made, table=wanted.table, run=run, seen=now, due=now)
        self._server.announce(made)

    def _refuse(self, number: int, why: str, now: float) -> None:
        if number not in self._state.refused:
            self._say(f"capd daemon: processes in the network namespace {number} reach nothing: {why}")
        self._state.refused[number] = why, now + RETRY_SECONDS

    def _let_go(self, number: int) -> None:
        """Leave nothing behind: no table, no socket."""
        kept = self._state.kept.pop(number)
        self._server.take_back(number)
        with suppress(*FAILURES):  # the namespace may be gone but for us
            kept.opened.ruleset.remove(kept.table.name)
        kept.opened.close()

    def _tend(self, kept: _Kept, wanted: Wanted, now: float) -> None:
        """Have the table there be what it should be; every CHECK_SECONDS, see whether it is, and have it tried."""
        ruleset = kept.opened.ruleset
        try:
            if kept.problem is None and kept.table != wanted.table:
                ruleset.change(kept.table, wanted.table)
            elif kept.problem is not None or ruleset.difference(wanted.table) is not None:
                ruleset.apply(wanted.table)
        except FAILURES as error:
            kept.problem, kept.due = str(error), now + RETRY_SECONDS
            return
        kept.table, kept.problem = wanted.table, None
        if now >= kept.due and self._state.trial is None:
            kept.due = now + CHECK_SECONDS
            self._try(kept, wanted, now)

    def _try(self, kept: _Kept, wanted: Wanted, now: float) -> None:
        try:
            canary = Canary(wanted.canaries, self._ports[0], kept.opened.descriptor)
        except OSError as error:
            kept.findings = Findings(unknown=f"it could not be started: {error.strerror}")
            return
        self._state.trial = _Trial(number=kept.opened.number, canary=canary, until=now + CANARY_SECONDS_MAX)

    def _attend_trial(self, wanted: Wanted, now: float) -> None:
        trial = self._state.trial
        if trial is None:
            return
        said = trial.canary.answer()
        if said is None and now < trial.until:
            return
        if said is None:
            trial.canary.kill()
        self._state.trial = None
        kept = self._state.kept.get(trial.number)
        if kept is None:
            return
        kept.findings = canaries.judge(said or {}, enforced=wanted.enforced, elsewhere=True)
        if (said or {}).get("redirected") == "ECONNREFUSED":  # root of the namespace shut our sockets
            self._let_go(trial.number)

    def _described_refused(self, found: Mapping[int, tuple[int, str]]) -> list[dict[str, object]]:
        return [
            {
                "namespace": number,
                "cgroup": found[number][1],
                "problem": why,
                "owned": False,
                "canary": None,
                "open": [],
                "closed": [],
            }
            for number, (why, _again) in list(self._state.refused.items())[:NAMESPACES_MAX]
        ]


def _make_room() -> None:
    """Have descriptors for all namespaces beside those that this process has room for now, as far as it may."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY:
        wanted = soft + NAMESPACES_MAX * DESCRIPTORS_EACH
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted if hard == resource.RLIM_INFINITY else min(wanted, hard), hard))


def _described(kept: _Kept) -> dict[str, object]:
    findings = kept.findings
    return {
        "namespace": kept.opened.number,
        "cgroup": kept.run,
        "problem": kept.problem,
        "owned": kept.opened.ruleset.owned,
        "canary": None if findings is None else findings.result,
        "open": [] if findings is None else list(findings.open),
        "closed": [] if findings is None else list(findings.closed),
    }
