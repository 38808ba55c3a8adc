"""The attendant: the daemon's second thread, for everything that may take a while, so that the drain never waits for it.

What lives here: the loop over clients, cgroup changes and the clock; attaching to libraries; the answers to `status`, `explain`
and `reload`. What must not: the rings, the journal and what was lost, which belong to the drain thread. All other calls of
Capture are made here, by one thread.
"""

from __future__ import annotations

import contextlib
import os
import queue
import selectors
import threading
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Final

from capd.daemon import notes, processes
from capd.daemon.control import ControlServer, Peer, Verb
from capd.daemon.coverage import GAPS_PER_RUN_MAX, Coverage, Gap
from capd.daemon.disclosure import disclosed
from capd.daemon.drain import Drain, FileHint
from capd.daemon.errors import NotPermittedError, RequestRefusedError
from capd.daemon.holding import Holding
from capd.daemon.losses import LossBook, counted_as_lost
from capd.daemon.run_keeping import RunKeeper
from capd.daemon.storage import State
from capd.daemon.storage_keeping import StorageKeeper
from capd.probes.attachments import NotWatchedError
from capd.probes.budget import Claim

if TYPE_CHECKING:  # pragma: no cover
    from capd.daemon.enforcement import Enforcement
    from capd.daemon.reloading import Reloading
    from capd.daemon.runs import Run
    from capd.probes.attachments import Attachment
    from capd.probes.capture import Capture

TICK_SECONDS: Final = 1.0
"""How often runs whose end nobody told are looked after."""
SILENT_SECONDS_MAX: Final = 30.0
"""A round is a few files to look at and an answer of systemd, 5 s at most; a busy machine takes longer."""
SWEEP_SECONDS: Final = 10.0
"""How often what gone processes left in the kernel's maps is looked for; the maps have room for minutes of it."""
STATUS_SECONDS: Final = 0.5
"""How old the status may be that anybody but root is given: asking without end must not keep this thread from its work."""
HINTS_MAX: Final = 10_000
"""Files waiting to be looked at; above this the oldest questions are answered by the capture's own cache anyway."""
SEEN_FILES_MAX: Final = 50_000
"""Files remembered as looked at, some 10 MB; then the memory starts anew."""


class Attendant:
    """Attends to clients, runs and libraries until it is told to stop."""

    def __init__(
        self,
        *,
        capture: Capture,
        drain: Drain,
        losses: LossBook,
        keeper: RunKeeper,
        holding: Holding,
        storage: StorageKeeper,
        enforcement: Enforcement | None,
        reloading: Reloading,
        facts: Callable[[], dict[str, object]],
        wake_drain: Callable[[], None],
    ) -> None:
        """Take what it works with.

        Args:
            capture: the kernel side.
            drain: takes notes.
            losses: has the totals.
            keeper: the runs.
            holding: holds runs back while there is no room to record them.
            storage: knows how much room there is.
            enforcement: keeps agents' traffic forced, if that is configured.
            reloading: takes a changed configuration over.
            facts: gives what else belongs into a status: the drain thread's numbers.
            wake_drain: makes the drain thread look at its notes now.
        """
        self._capture = capture
        self._drain = drain
        self._losses = losses
        self._keeper = keeper
        self._holding = holding
        self._storage = storage
        self._enforcement = enforcement
        self._reloading = reloading
        self._facts = facts
        self._wake_drain = wake_drain
        self._hints: queue.Queue[FileHint] = queue.Queue(HINTS_MAX)
        self._seen: set[tuple[int, int]] = set()
        self._coverage = Coverage()
        self._stopping = threading.Event()
        self._wake_fd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._selector = selectors.DefaultSelector()
        self._exits = False
        self._round_at = time.monotonic()
        self._reload_wanted = False
        self._status_at = 0.0
        self._status_known: dict[str, object] | None = None
        self._server: ControlServer | None = None
        self.error: BaseException | None = None

    def verbs(self) -> dict[str, Verb]:
        """Give what clients may ask."""
        return {
            "run": Verb(act=self._keeper.start, through_pipe=True),
            "status": Verb(act=self._status),
            "explain": Verb(act=self._explain),
            "reload": Verb(act=self._reload, root_only=True),
        }

    def start(self, server: Callable[[selectors.BaseSelector], ControlServer], ready: Callable[[int], None]) -> None:
        """Start the thread: it takes up live runs, opens the control socket, says that it is ready, and attends.

        Args:
            server: makes the control server in a selector.
            ready: is told how many live runs were taken up.
        """
        self._selector.register(self._wake_fd, selectors.EVENT_READ, self._woken)
        self._selector.register(self._keeper.watch, selectors.EVENT_READ, self._cgroups_changed)
        if self._enforcement is not None and self._enforcement.watch is not None:
            self._selector.register(self._enforcement.watch, selectors.EVENT_READ, self._enforcement.look_again)
        self._thread = threading.Thread(target=self._run, args=(server, ready), name="capd-attendant", daemon=True)
        self._thread.start()

    def hint(self, files: list[FileHint], *, exits: bool) -> None:
        """Hand over what the drain saw in the control ring. Called by the drain thread; never blocks."""
        new = [hint for hint in files if hint.first or (hint.device, hint.inode) not in self._seen]
        for hint in new:
            try:
                self._hints.put_nowait(hint)
            except queue.Full:
                break
        if new or exits:
            self._exits = self._exits or exits
            os.eventfd_write(self._wake_fd, 1)

    def ask_reload(self) -> None:
        """Have the configuration read anew, unless all is about to end. Called by a signal handler; never blocks."""
        if not self._stopping.is_set():
            self._reload_wanted = True
            os.eventfd_write(self._wake_fd, 1)

    def storage_changed(self) -> None:
        """Look at once at whether runs are to be held back. Called by the drain thread; never blocks."""
        os.eventfd_write(self._wake_fd, 1)

    def hangs(self, now: float) -> bool:
        """Say whether its thread has not gone round for too long. Called by the drain thread; `now`: monotonic time."""
        return now - self._round_at > SILENT_SECONDS_MAX

    def stop(self) -> int:
        """End the thread and hang up on its clients. To be called once, by the thread that called `start`.

        Returns:
            How many runs stay stopped.
        """
        self._stopping.set()
        os.eventfd_write(self._wake_fd, 1)
        self._thread.join()
        if self.error is None:
            self._keeper.end_empty()  # nobody else would for as long as no daemon runs
        if self._server is not None:
            self._server.close()
        if self._enforcement is not None:
            self._enforcement.close()
        self._reloading.close()
        self._selector.close()
        self._keeper.watch.close()
        os.close(self._wake_fd)
        return self._holding.close()

    def note_attachments(self) -> None:
        """Write down the libraries that are watched from the start; again, where an earlier daemon may not have come to it."""
        for attachment in self._capture.attachments:
            self._post(_attached(attachment))

    def _run(self, server: Callable[[selectors.BaseSelector], ControlServer], ready: Callable[[int], None]) -> None:
        try:
            resumed = self._keeper.resume()
            self._keeper.clean()
            self._keeper.select_configured()
            self._hold_back()
            self._force()
            self._prove()
            self._server = server(self._selector)
            self._look_again()
            ready(resumed)
            self._loop()
        except BaseException as error:  # noqa: BLE001 - without attendant it must not look healthy: the drain thread ends it
            self.error = error
            self._wake_drain()

    def _look_again(self) -> None:
        """Have the files looked at of which only the daemon before was told, and may not have come to it."""
        if not self._capture.continued or not processes.in_initial_pid_namespace():
            return
        with contextlib.suppress(queue.Full):
            for pid, device, inode in self._capture.unwatched():
                self._hints.put_nowait(FileHint(pid=pid, device=device, inode=inode, first=True))
        os.eventfd_write(self._wake_fd, 1)

    def _loop(self) -> None:
        due = time.monotonic() + TICK_SECONDS
        sweep_due = time.monotonic() + SWEEP_SECONDS
        while not self._stopping.is_set():
            self._round_at = time.monotonic()
            for key, _events in self._selector.select(max(0.0, due - time.monotonic())):
                key.data()
            assert self._server is not None
            self._server.attend()
            if time.monotonic() >= due:
                due = time.monotonic() + TICK_SECONDS
                self._keeper.end_empty()
                self._keeper.try_again()
                self._hold_back()
                self._force()
                self._coverage.keep(self._keeper.keys())
                self._reloading.attend()
            if time.monotonic() >= sweep_due:
                sweep_due = time.monotonic() + SWEEP_SECONDS
                self._capture.sweep()
                self._keeper.clean()

    def _woken(self) -> None:
        os.eventfd_read(self._wake_fd)
        self._hold_back()
        if self._reload_wanted:
            self._reload_wanted = False
            self._reloading.begin(self._selector)
        if self._exits:
            self._exits = False
            self._keeper.end_empty()
        # One file at a time, so that clients are served between two.
        with contextlib.suppress(queue.Empty):
            self._look_at(self._hints.get_nowait())
        if not self._hints.empty():
            os.eventfd_write(self._wake_fd, 1)

    def _hold_back(self) -> None:
        """Do to the runs, and to what could not become one, what is configured for as little room as there is, or undo it."""
        runs, held = self._keeper.cgroups(), self._keeper.to_hold_back()
        loose = self._enforcement is not None and self._enforcement.loose()
        self._holding.apply(held if self._storage.state >= State.CRITICAL else {}, stopped=runs if loose else {})

    def _cgroups_changed(self) -> None:
        self._keeper.changed()
        if self._enforcement is not None:
            self._enforcement.follow(self._keeper.cgroups())
        self._hold_back()

    def _force(self) -> None:
        """Keep what is selected forced, and have it tried."""
        if self._enforcement is not None:
            self._enforcement.follow(self._keeper.cgroups())
            self._enforcement.attend(time.monotonic(), self._keeper.escaped)

    def _prove(self) -> None:
        """Wait until the first canary has said whether traffic is forced: that is what readiness is to mean."""
        if self._enforcement is not None:
            self._enforcement.prove()

    def _look_at(self, hint: FileHint) -> None:
        """Attach to a file if it is a TLS library; whatever goes wrong with one file is noted and concerns only that file."""
        key = (hint.device, hint.inode)
        if key in self._seen and not hint.first:
            return
        run = self._keeper.run_of(self._capture.run_of(hint.pid))
        claim = None if run is None else Claim(run.key, run.owner)
        began = time.monotonic()
        if claim is not None and self._coverage.exhausted(claim.owner, began):
            self._capture.forget_file(hint.device, hint.inode)
            self._missed(hint, run, f"files of {claim.owner} took too long to look through in the last minute")
            return
        try:
            attachment = self._capture.on_file_mapped(hint.pid, hint.device, hint.inode, claim)
        except Exception as error:  # noqa: BLE001 - the file is an agent's: no content of it may end the daemon
            self._missed(hint, run, str(error) if isinstance(error, NotWatchedError) else repr(error))
            return
        finally:
            if claim is not None:
                self._coverage.looked(claim.owner, began, time.monotonic() - began)
        if attachment is not None:
            self._post(_attached(attachment))
        if processes.exists(hint.pid):
            # Else it may have ended before the file was found, and the next one to run it must be looked at.
            if len(self._seen) >= SEEN_FILES_MAX:
                self._seen.clear()
            self._seen.add(key)

    def _missed(self, hint: FileHint, run: Run | None, reason: str) -> None:
        """Say in the record and in the status that a run uses a file that is not watched."""
        path = self._capture.mapped_path(hint.pid, hint.device, hint.inode)
        key = 0 if run is None else run.key
        named = self._coverage.named(key) < GAPS_PER_RUN_MAX
        shown = f"{path or 'a file that is gone'}: {reason}" + (f" (run {run.id})" if run is not None else "")
        gap = Gap(uid=None if run is None else run.uid, text=shown)
        if self._coverage.add(key, (hint.device, hint.inode), gap):
            self._post(
                notes.attach_failed(
                    device=hint.device,
                    inode=hint.inode,
                    path=path if named else None,
                    reason=reason if named else "further files of this run are not watched",
                    run=key,
                    boottime_ns=_boottime_ns(),
                )
            )

    def _post(self, note: notes.Note, *, after_events: bool = False) -> None:
        self._drain.post(note, after_events=after_events)
        self._wake_drain()

    def _status(self, peer: Peer, _request: Mapping[str, object]) -> dict[str, object]:
        now = time.monotonic()
        if peer.uid == 0 or self._status_known is None or now - self._status_at > STATUS_SECONDS:
            self._status_at, self._status_known = now, self._status_now()
        return disclosed(self._status_known, peer.uid)

    def _status_now(self) -> dict[str, object]:
        """Give all there is; `disclosure` says what of it who may see."""
        totals = self._losses.totals
        return {
            **self._facts(),
            **self._reloading.facts(),
            "counters": totals.counters,
            "losses": {
                "counters": counted_as_lost(totals.counters),
                "bytes": totals.bytes,
                "streams": totals.streams,
                "changed_ns": totals.changed_ns,
            },
            "attachments": [self._attachment(attachment) for attachment in self._capture.attachments],
            "attach_failures": [
                *({"uid": None, "text": text} for text in self._capture.refused),
                *({"uid": gap.uid, "text": gap.text} for gap in self._coverage.gaps()),
            ],
            "storage": {
                **self._storage.facts(),
                "action": self._holding.action,
                "held": self._holding.held,
                "refused": self._holding.refused,
                "problems": list(self._holding.problems),
            },
            "enforcement": {"mode": "off"} if self._enforcement is None else self._enforcement.describe(),
            "runs": self._keeper.describe(),
            "not_taken": {} if self._server is None else self._server.failed,
            "unselected": [{"cgroup": path, "reason": reason} for path, reason in self._keeper.unselected.items()],
        }

    def _attachment(self, attachment: Attachment) -> dict[str, object]:
        run = None if attachment.claim is None else self._keeper.run_of(attachment.claim.run)
        return {
            "path": attachment.path,
            "library": attachment.library,
            "functions": list(attachment.functions),
            "late": attachment.late,
            "device": attachment.device,
            "inode": attachment.inode,
            # What a run brought along that is over is nobody's but root's business.
            "uid": None if attachment.claim is None else 0 if run is None else run.uid or 0,
        }

    def _reload(self, _peer: Peer, _request: Mapping[str, object]) -> dict[str, object]:
        """Begin to read the configuration anew: `configuration.reloads` of the status says when that is done."""
        return {"reload": self._reloading.begin(self._selector)}

    def _explain(self, peer: Peer, request: Mapping[str, object]) -> dict[str, object]:
        pid = request.get("pid")
        if not isinstance(pid, int) or isinstance(pid, bool):
            raise RequestRefusedError("explain wants a pid")
        process = processes.read(pid)
        if process is None:
            raise RequestRefusedError(f"there is no process {pid}")
        if peer.uid not in {0, process.uid}:
            raise NotPermittedError(f"process {pid} belongs to another user")
        explanation = self._capture.explain(pid)
        run = self._keeper.run_of(explanation["run"])
        return {"explanation": explanation, "run": None if run is None else str(run.id)}


def _attached(attachment: Attachment) -> notes.Note:
    return notes.attached(
        device=attachment.device,
        inode=attachment.inode,
        path=attachment.path,
        library=attachment.library,
        functions=attachment.functions,
        late=attachment.late,
        boottime_ns=attachment.since_ns,
    )


def _boottime_ns() -> int:
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME)
