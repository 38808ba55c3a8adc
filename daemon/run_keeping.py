"""The life of runs: made for a client or of what a selector finds, taken up after a restart, ended when empty.

What lives here: the order of steps that keeps a run's record whole: note, then selection, then answer; last event, then end.
What must not: the control socket, the drain. One thread (the attendant's) calls all of it.
"""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Final, Protocol

from capd.daemon import inherited_sockets, notes, processes, runs
from capd.daemon.cgroups import CANARY, Hierarchy, RunCgroup, slice_path
from capd.daemon.control import Peer
from capd.daemon.drain import PendingNote
from capd.daemon.errors import InheritedSocketError, NotRecordingError, RequestRefusedError
from capd.daemon.runs import Registry, Run
from capd.daemon.watch import IN_CREATE, IN_MODIFY, IN_ONLYDIR, Watch
from capd.recording.errors import CapdError
from capd.recording.identity import uuid7_from

if TYPE_CHECKING:  # pragma: no cover
    from capd.daemon.configuration import SelectionSection
    from capd.probes.capture import Capture

NOTE_SECONDS_MAX: Final = 2.0
"""For a note to reach the journal; the drain comes round every few milliseconds."""
MEMBER_ROUNDS_MAX: Final = 8
"""Times that the members of a cgroup are listed until no new one is found; what is selected passes that on to its children."""
EMPTY_NS_MAX: Final = 5_000_000_000
"""How long a cgroup that was just made may stay empty before its run counts as ended."""
SEED_BYTES: Final = 16
UNSELECTED_MAX: Final = 100
"""Cgroups remembered that could not be made runs; each time that a selector's watch tells something, all are looked at."""
EVENTS_FILE: Final = "cgroup.events"
"""The kernel marks it as modified when the cgroup becomes populated or empty (Documentation/admin-guide/cgroup-v2.rst)."""


class Post(Protocol):
    """Queues a note for the journal."""

    def __call__(self, note: notes.Note, *, after_events: bool = False) -> PendingNote:
        """Queue it; `Drain.post` says what the argument means."""


class RunKeeper:
    """Makes, adopts, resumes and ends runs."""

    def __init__(
        self,
        *,
        capture: Capture,
        hierarchy: Hierarchy,
        registry: Registry,
        post: Post,
        stoppage: Callable[[], str | None],
        closed: Callable[[], str | None],
        enforced: bool,
        trust: Path | None = None,
        selection: SelectionSection,
    ) -> None:
        """Take what it works with.

        Args:
            capture: selects in the kernel.
            hierarchy: makes and watches cgroups.
            registry: the live runs.
            post: puts a note into the journal, before or after the events that are in the rings.
            stoppage: why nothing is written at the moment, or None.
            closed: why no client's run is let in at the moment, or None.
            enforced: whether runs' traffic is forced, so that none may bring a connection along.
            trust: where runs find what they must trust so that their TLS can be opened; None: it is not.
            selection: what becomes a run by itself.
        """
        self._capture = capture
        self._hierarchy = hierarchy
        self._registry = registry
        self._post = post
        self._stoppage = stoppage
        self._closed = closed
        self._enforced = enforced
        self._trust = trust
        self._selection = selection
        # In a pid namespace our numbers are not the kernel's: there a process is found by its cgroup, at its next fork or exec.
        self._by_pid = processes.in_initial_pid_namespace()
        self._ending: list[tuple[Run, PendingNote]] = []
        """Runs of which the note of their end is not in the journal yet."""
        self.watch = Watch()
        self.unselected: dict[str, str] = {}
        """Cgroups that a selector names and that could not be made runs, with the reason."""

    def start(self, peer: Peer, request: Mapping[str, object]) -> dict[str, object]:
        """Make a run of the process that asks, which will then become the agent's command.

        Raises:
            RequestRefusedError: the request is not one, or the process cannot be seen.
            NotRecordingError: nothing is written at the moment.
            TooManyRunsError: its user has as many as there is room for.
            CgroupError: its cgroup cannot be made.
            InheritedSocketError: its traffic would be forced, and it brings a network socket along.
        """
        wishes = _Wishes(request)
        reason = self._stoppage() or self._closed()
        if reason is not None:
            raise NotRecordingError(f"capd cannot record at the moment: {reason}")
        if peer.pid == 0 or not peer.alive():
            raise RequestRefusedError("the daemon cannot see the process that asks: it is gone, or in another pid namespace")
        self._registry.check_room(peer.uid)
        self._refuse_sockets(peer)
        outer = self._registry.get(self._capture.selected().get(peer.pid, 0))
        now_ns = time.time_ns()
        identity = uuid7_from(now_ns // 1_000_000, os.urandom(SEED_BYTES))
        origin = self._hierarchy.path_of(peer.pid) or "/"
        cgroup = self._hierarchy.create(str(identity), peer.pid, peer.alive)
        run = Run(
            id=identity,
            name=wishes.name,
            labels=wishes.labels if outer is None else {**wishes.labels, runs.OUTER_RUN_LABEL: str(outer.id)},
            # An agent that starts a run acts for whom it acted before: a new name must not hide that.
            principal=runs.user_principal(peer.uid) if outer is None else outer.principal,
            cgroup=cgroup,
            command=wishes.command,
            cwd=processes.working_directory(peer.pid),
            started_ns=now_ns,
        )
        try:
            self._open(run, {peer.pid}, resumed=False)
            if not peer.alive():
                # By now its number may be another's, who is none of ours.
                self._capture.release_process(peer.pid, run.key)
                raise RequestRefusedError("the process that asked ended before its run began")
        except BaseException:
            self._close(run)
            self._hierarchy.undo(cgroup, origin, meant=peer.alive())
            raise
        trust = None if self._trust is None else str(self._trust)
        return {"run": str(run.id), "cgroup": cgroup.path, "unit": cgroup.unit, "trust": trust}

    def _refuse_sockets(self, peer: Peer) -> None:
        if not self._enforced:
            return
        try:
            found = inherited_sockets.inherited(peer.pid)
        except OSError as error:
            raise RequestRefusedError(f"the descriptors of process {peer.pid} cannot be seen: {error.strerror}") from error
        if found:
            raise InheritedSocketError(f"descriptors {', '.join(map(str, found))} are network sockets from outside of the run")

    def resume(self) -> int:
        """Take up the runs that an earlier daemon left and that still live; end the others.

        Returns:
            How many were taken up.
        """
        escaped = set(self._capture.selected().values())  # none, if the probes are new
        for run in self._registry.load():
            same = self._hierarchy.id_of(run.cgroup.path) == run.cgroup.id
            populated = same and self._hierarchy.is_populated(run.cgroup.path)
            if populated or run.key in escaped:
                self._open(run, set(self._hierarchy.members(run.cgroup.path)) if populated else set(), resumed=True)
                if populated:
                    self._describe(run)
            else:
                self._capture.unselect_cgroup(run.cgroup.id)
                self._tell_end(run)
                if same and not run.adopted:
                    self._hierarchy.remove(run.cgroup)
        return len(self._registry)

    def clean(self) -> None:
        """Remove what a daemon that was killed left of runs that never began."""
        self._hierarchy.clean({run.cgroup.path for run in self._registry}, time.time())

    def select_configured(self) -> None:
        """Make runs of what the selectors of the configuration find now, and watch for what comes."""
        for name in self._selection.slices:
            path = slice_path(name)
            for above in (path, *(str(parent) for parent in Path(path).parents)):
                self.watch.add(self._hierarchy.directory(above), IN_CREATE | IN_ONLYDIR)
            for child in self._hierarchy.children(path):
                self._adopt(child)
        for chosen in self._chosen():
            for parent in Path(chosen).parents:
                self.watch.add(self._hierarchy.directory(str(parent)), IN_CREATE | IN_ONLYDIR)
            self._adopt(chosen)

    def follow(self, selection: SelectionSection) -> None:
        """Go by other selectors from now on. What is a run already stays one until it ends."""
        self._selection = selection
        self.unselected.clear()
        self.select_configured()

    def changed(self) -> None:
        """Look at what the kernel said has changed: cgroups that appeared, run cgroups that became empty."""
        slices = {self._hierarchy.directory(slice_path(name)) for name in self._selection.slices}
        chosen = {self._hierarchy.directory(path): path for path in self._chosen()}
        for change in self.watch.read():
            made = None if change.path is None else chosen.get(change.path / change.name)
            if made is not None and change.name:
                self._adopt(made, just_made=True)
            elif change.path in slices and change.name:
                self._adopt(f"/{(change.path / change.name).relative_to(self._hierarchy.root)}", just_made=True)
            elif change.path is None or change.name:
                self.select_configured()
            elif change.path.name == EVENTS_FILE:
                self._populated(f"/{change.path.parent.relative_to(self._hierarchy.root)}")
        self.end_empty()

    def try_again(self) -> None:
        """Make runs of what a selector named and what could not become one, if that is possible by now."""
        for path in list(self.unselected) if self._stoppage() is None else ():
            del self.unselected[path]
            self._adopt(path)

    def end_empty(self) -> None:
        """End the runs of which no process is left, neither in the cgroup nor, having left it, in the kernel's lineage."""
        self.forget_ended()
        grace_ns = time.time_ns() - EMPTY_NS_MAX
        empty = [
            run
            for run in self._registry
            if self._is_replaced(run)
            or (not self._hierarchy.is_populated(run.cgroup.path) and not (run.adopted and run.started_ns > grace_ns))
        ]
        if not empty:
            return
        escaped = set(self._capture.selected().values())
        for run in empty:
            if run.key not in escaped:
                self._end(run)

    def keys(self) -> set[int]:
        """Give the keys of the live runs."""
        return {run.key for run in self._registry}

    def cgroups(self) -> dict[int, str]:
        """Give the cgroups of the live runs, by the kernel's number."""
        return {run.cgroup.id: run.cgroup.path for run in self._registry}

    def to_hold_back(self) -> dict[int, str]:
        """Give the cgroups that are to be held back where room is short: of the live runs, and what could not become one."""
        waiting = {number: path for path in self.unselected if (number := self._hierarchy.id_of(path)) is not None}
        return waiting | self.cgroups()

    def escaped(self) -> list[str]:
        """Name the processes that belong to a run and left its cgroup: one phrase for each."""
        found = []
        for pid, key in self._capture.selected().items():
            run = self._registry.get(key)
            path = self._hierarchy.path_of(pid) if run is not None and self._by_pid else None
            if run is not None and path is not None and not f"{path}/".startswith(f"{run.cgroup.path.rstrip('/')}/"):
                found.append(f"process {pid} of run {run.id} is in the cgroup {path}")
        return found

    def run_of(self, key: object) -> Run | None:
        """Give a live run by its key."""
        return self._registry.get(key) if isinstance(key, int) else None

    def describe(self) -> list[dict[str, object]]:
        """List the live runs for status; `uid` says whose each is."""
        selected = Counter(self._capture.selected().values())
        return [
            {
                "run": str(run.id),
                "uid": run.uid,
                "name": run.name,
                "labels": dict(run.labels),
                "principal": dict(run.principal),
                "cgroup": run.cgroup.path,
                "adopted": run.adopted,
                "started_ns": run.started_ns,
                "processes": selected[run.key],
            }
            for run in self._registry
        ]

    def _end_replaced(self, path: str) -> None:
        found = self._registry.by_cgroup(path)
        if found is not None and found.cgroup.path == path and self._is_replaced(found):
            self._end(found)

    def _chosen(self) -> list[str]:
        return [f"/{path.strip('/')}" for path in self._selection.cgroups]

    def _is_replaced(self, run: Run) -> bool:
        """Say whether its cgroup was removed and another one made in its place, which is none of it."""
        return self._hierarchy.id_of(run.cgroup.path) not in {None, run.cgroup.id}

    def _populated(self, path: str) -> None:
        """Make a run of a selected cgroup that was empty and has a process again."""
        self._end_replaced(path)
        if self._registry.by_cgroup(path) is None:
            self._adopt(path)

    def _adopt(self, path: str, *, just_made: bool = False) -> None:
        """Make a run of a cgroup, unless it belongs to a run already, is our own, or is empty.

        Args:
            path: the cgroup.
            just_made: it is empty because its maker is about to put the first process in; wait for that with the selection in
                place, so that the process is in the record from its first instruction.
        """
        if path.endswith(f"/{CANARY}"):
            return
        cgroup_id = self._hierarchy.id_of(path)
        own = self._hierarchy.path_of(os.getpid()) or "/"
        self._end_replaced(path)
        if cgroup_id is None or self._registry.by_cgroup(path) is not None or f"{own}/".startswith(f"{path}/"):
            return
        self._watch_events(path)
        if not just_made and not self._hierarchy.is_populated(path):
            return
        now_ns = time.time_ns()
        unit = Path(path).name
        run = Run(
            id=uuid7_from(now_ns // 1_000_000, os.urandom(SEED_BYTES)),
            name=unit,
            principal=runs.unit_principal(unit),
            cgroup=RunCgroup(path=path, id=cgroup_id, unit=unit),
            adopted=True,
            started_ns=now_ns,
        )
        try:
            self._registry.check_room(None)
            reason = self._stoppage()
            if reason is not None:  # known at once, so that it can be held back at once
                raise NotRecordingError(f"capd cannot record at the moment: {reason}")
            self._open(run, set(self._hierarchy.members(path)), resumed=False)
        except (CapdError, OSError) as error:
            # Nobody waits for an answer here; it is shown in the status, and tried again.
            if len(self.unselected) < UNSELECTED_MAX:
                self.unselected[path] = str(error)
            return
        self.unselected.pop(path, None)
        self._describe(run)

    def _is_member(self, pid: int, run: Run) -> bool:
        return f"{self._hierarchy.path_of(pid)}/".startswith(f"{run.cgroup.path.rstrip('/')}/")

    def _watch_events(self, path: str) -> None:
        self.watch.add(self._hierarchy.directory(path) / EVENTS_FILE, IN_MODIFY)

    def _open(self, run: Run, pids: set[int], *, resumed: bool) -> None:
        """Do the steps that make a run's record whole from its first event; undo them if one fails."""
        self._registry.add(run)
        try:
            note = self._post(notes.run_started(run, boottime_ns=_boottime_ns(), resumed=resumed))
            # A run that goes on is waited for only while something is written: hundreds would keep the daemon from starting.
            stopped = resumed and self._stoppage() is not None
            if not note.wait(0 if stopped else NOTE_SECONDS_MAX) and not resumed:
                raise NotRecordingError(f"the journal took no note in {NOTE_SECONDS_MAX:.0f} s")
            self._watch_events(run.cgroup.path)
            self._capture.select_cgroup(run.cgroup.id, run.key)
            for pid in pids if self._by_pid else ():
                self._capture.select_process(pid, run.key)
        except BaseException:
            # Its file would make the next daemon try the same, and fail the same way, at its start.
            self._close(run)
            self._registry.remove(run)
            raise

    def _close(self, run: Run) -> None:
        """Select nothing of a run any more, say so in the journal, and forget it."""
        self._capture.unselect_cgroup(run.cgroup.id)
        if self._registry.get(run.key) is not None:
            self._tell_end(run)
        if not run.adopted:
            self.watch.remove(self._hierarchy.directory(run.cgroup.path) / EVENTS_FILE)

    def _tell_end(self, run: Run) -> None:
        self._registry.forget(run)
        self._ending.append((run, self._post(notes.run_ended(run.key, _boottime_ns()), after_events=True)))

    def forget_ended(self) -> None:
        """Let go of runs whose end is in the journal by now. What is killed before leaves them to the next daemon."""
        ending, self._ending = self._ending, []
        for run, told in ending:
            if told.wait(0):
                self._registry.remove(run)
            else:
                self._ending.append((run, told))

    def _describe(self, run: Run) -> None:
        """Write down the processes that were there before the selection."""
        known: set[int] = set()
        for _round in range(MEMBER_ROUNDS_MAX):
            found = set(self._hierarchy.members(run.cgroup.path)) - known
            if not found:
                return
            for pid in found if self._by_pid else ():
                self._capture.select_process(pid, run.key)
                process = processes.read(pid)
                if not self._is_member(pid, run):
                    # It ended after it was listed, and its number is another's.
                    self._capture.release_process(pid, run.key)
                elif process is not None:
                    # As the events will name it.
                    exact = replace(process, start_ns=self._capture.start_of(pid) or process.start_ns)
                    self._post(notes.process(exact, run=run.key, boottime_ns=_boottime_ns()))
            known |= found

    def _end(self, run: Run) -> None:
        self._close(run)
        if not run.adopted:
            self._hierarchy.remove(run.cgroup)


def _boottime_ns() -> int:
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME)


class _Wishes:
    """What a client asks for: checked, because anybody may ask."""

    def __init__(self, request: Mapping[str, object]) -> None:
        """Read the request.

        Raises:
            RequestRefusedError: a field is missing, of the wrong type, or too long.
        """
        unknown = request.keys() - {"name", "labels", "command"}
        if unknown:
            raise RequestRefusedError(f"a run has no {', '.join(sorted(unknown))}")
        self.name = self._name(request.get("name"))
        self.labels = self._labels(request.get("labels", {}))
        self.command = self._command(request.get("command"))

    @staticmethod
    def _name(value: object) -> str | None:
        if value is not None and (not isinstance(value, str) or not 0 < len(value) <= runs.NAME_CHARACTERS_MAX):
            raise RequestRefusedError(f"a run's name is a text of at most {runs.NAME_CHARACTERS_MAX} characters")
        return value

    @staticmethod
    def _labels(value: object) -> dict[str, str]:
        if not isinstance(value, dict) or len(value) > runs.LABELS_MAX:
            raise RequestRefusedError(f"a run has at most {runs.LABELS_MAX} labels")
        if any(str(key).startswith(runs.OWN_LABELS) for key in value):
            raise RequestRefusedError(f"labels that begin with {runs.OWN_LABELS!r} are capd's own")
        for text in (*value.keys(), *value.values()):
            if not isinstance(text, str) or len(text) > runs.LABEL_CHARACTERS_MAX:
                raise RequestRefusedError(f"a label is a text of at most {runs.LABEL_CHARACTERS_MAX} characters")
        if sum(len(key) + len(text) for key, text in value.items()) > runs.ALL_LABELS_CHARACTERS_MAX:
            raise RequestRefusedError(f"a run's labels are at most {runs.ALL_LABELS_CHARACTERS_MAX} characters together")
        return value

    @staticmethod
    def _command(value: object) -> list[str]:
        if not isinstance(value, list) or not value or not all(isinstance(word, str) for word in value):
            raise RequestRefusedError("a run has a command: a list of texts")
        return value
