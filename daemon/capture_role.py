"""The daemon role: from a bare host to a journal that grows, and back.

What lives here: the order of the start and of the end, and the drain thread's loop. What must not: what is drained, what
clients ask.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Final

from capd.daemon import (
    clock,
    descriptor_store,
    enforcement_standing,
    first_start,
    mounts,
    notes,
    processes,
    state_directory,
    version,
)
from capd.daemon import drain as draining
from capd.daemon.attendant import Attendant
from capd.daemon.cgroups import Hierarchy, has_systemd, shape
from capd.daemon.control import ControlServer
from capd.daemon.drain import Drain, PendingNote
from capd.daemon.drained import tell as tell_drained
from capd.daemon.enforcement_names import names_of
from capd.daemon.errors import CgroupError, ConfigurationError, NotRootError
from capd.daemon.heartbeat import Heartbeat
from capd.daemon.holding import Holding
from capd.daemon.locations import NAMESPACES_SOCKET
from capd.daemon.lock import InstanceLock
from capd.daemon.losses import LossBook
from capd.daemon.notify import notify
from capd.daemon.reloading import Reloading
from capd.daemon.run_keeping import RunKeeper
from capd.daemon.runs import Registry
from capd.daemon.spool import Spool
from capd.daemon.storage import State, Threshold, Thresholds
from capd.daemon.storage_keeping import Change, StorageKeeper
from capd.daemon.succession import Succession
from capd.probes.capture import Capture, CaptureSettings
from capd.recording.durable import replace_content
from capd.recording.errors import CapdError
from capd.recording.journal import Source
from capd.recording.journal.cipher import renew

if TYPE_CHECKING:  # its library is to stay out of a role (settled.py)
    from capd.daemon.configuration import Configuration
    from capd.daemon.enforcement import Enforcement

BATCH_SECONDS: Final = 0.005
"""How long data may gather in the ring before the next block, so that a trickle does not become a block for each event."""
BATCH_RING_SHARE: Final = 8
"""With more than this part of the data ring in use there is no waiting."""
REFRESH_SECONDS: Final = 1.0
OUT_INODES: Final = 64
"""Files that can still be made, below which storage is out: for what the recorder closes, and the journal's next."""
STOPPED_POLL_SECONDS: Final = 0.1
"""While the journal is full the rings stay readable; looking again is of no use before the recorder has freed something."""
FINISH_SECONDS_MAX: Final = 5.0
"""For what is left at the end; service managers kill after 90 s, people sooner."""

PID_NAMESPACE: Final = (
    "capd runs in a pid namespace: events carry the host's process numbers, processes that already run are recorded from "
    "their next fork or exec on, and TLS libraries that appear later are not found"
)

Say = Callable[[str], None]


def run(configuration: Configuration, say: Say, *, given: str | None = None) -> None:
    """Be the daemon until SIGTERM or SIGINT.

    Args:
        configuration: of this instance.
        say: tells the operator one line.
        given: the file that it was read from, if one was named; SIGHUP has it read anew.

    Raises:
        CapdError, ProbeError: it cannot start; nothing is left behind but directories.
    """
    if os.geteuid() != 0:
        raise NotRootError("the daemon loads programs into the kernel, which only root may")
    with ExitStack() as stack:
        daemon = Daemon(configuration, say, stack, given=given)
        daemon.loop()
        daemon.finish()


class Daemon:
    """The role, once everything is in place."""

    def __init__(self, configuration: Configuration, say: Say, stack: ExitStack, *, given: str | None = None) -> None:
        self._configuration = configuration
        self._reloading = Reloading(configuration, given, say)
        self._reload: Callable[[], None] = lambda: None
        self._say = say
        self._started_ns = time.time_ns()
        self._stopping = False
        self._heart = Heartbeat(os.environ, os.getpid())
        user, untrusted = first_start.directories(configuration)
        lock = InstanceLock(configuration.lock_file, configuration.state_lock_file).acquire()
        stack.callback(lock.release)
        state_directory.check_room(configuration)
        self._host = first_start.identity(configuration, user)
        self._boot = state_directory.boot_id()
        self._warnings = [*mounts.mount_missing(), *_namespace_warning(), *_standing_warning(configuration)]
        for sentence in self._warnings:
            say(sentence)
        self._storage = StorageKeeper(
            configuration.state_dir, configuration.reserve_file, configuration.storage_file, _thresholds(configuration)
        )
        received = descriptor_store.received(os.environ)
        self._succession = Succession(configuration.runtime_dir, configuration.journal_dir, received)
        stack.callback(self._succession.close)
        self._enforcement, self._hierarchy = _forcing(configuration, say, received, untrusted)
        self._registry = Registry(configuration.runs_dir)
        self._refuse_to_record_ourselves()
        self._wake_fd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        stack.callback(os.close, self._wake_fd)
        self._catch_signals(stack)
        self._capture = stack.enter_context(self._captured())
        for warning in self._capture.warnings:
            say(warning)
        self._spool = Spool(
            configuration.journal_dir,
            configuration.position_file,
            configuration.journal,
            group=user.gid,
            disk=self._storage.shortage,
            key=renew(configuration.journal_key_file, configuration.journal_key_elsewhere, boot=self._boot, group=user.gid),
        )
        stack.callback(self._spool.close)
        if self._outgoing is not None:
            self._read_to_end(self._outgoing)
        self._succession.begin()
        log, noted, mark = self._succession.log, self._succession.noted, self._succession.mark
        self._losses = LossBook(self._capture, clock=draining.now, log=log, before=noted)
        rings = self._capture.control, self._capture.data
        self._drain = Drain(*rings, self._spool, clock=draining.now, losses=self._losses, mark=mark)
        self._begin(stack)

    def _captured(self) -> Capture:
        """Go on with the probes of the daemon before, or begin with new ones."""
        settings = _settings(self._configuration, self._hierarchy.root)
        capture = Capture.start(settings, self._succession.store, self._succession.left, goes_on=self._heart.start_goes_on)
        self._outgoing = None
        if capture.continued:
            self._succession.taken({Source.CONTROL: capture.control, Source.DATA: capture.data})
        else:
            self._outgoing = self._succession.outgoing(settings)
        return capture

    def _read_to_end(self, outgoing: Capture) -> None:
        """Write down what the probes of the daemon before, which are not gone on with, told until they were replaced."""
        losses = LossBook(outgoing, clock=draining.now, before=self._succession.outgoing_noted)
        drain = Drain(outgoing.control, outgoing.data, self._spool, clock=draining.now, losses=losses)
        drain.finish(FINISH_SECONDS_MAX)  # first what has gathered, so that the moment without any is short
        outgoing.deselect()
        drain.finish(FINISH_SECONDS_MAX)
        losses.refresh()
        drain.note_losses()
        drain.post(notes.drained(_boottime_ns()), after_events=True)
        drain.finish(FINISH_SECONDS_MAX)
        outgoing.close()
        self._succession.gone()

    def loop(self) -> None:
        """Drain until a signal comes."""
        control, data = self._capture.control.fileno(), self._capture.data.fileno()
        everything, urgent = _epoll(control, data, self._wake_fd), _epoll(control, self._wake_fd)
        refresh = time.monotonic() + REFRESH_SECONDS
        with everything, urgent:
            while not self._stopping and self._attendant.error is None:
                if not self._attendant.hangs(time.monotonic()):
                    self._heart.start_goes_on()
                    self._heart.beat()
                if self._spool.stoppage is None:
                    everything.poll(max(0.0, refresh - time.monotonic()))
                    self._unwake()
                    self._turn()
                    if self._capture.data.used() * BATCH_RING_SHARE < self._capture.data.size:
                        urgent.poll(BATCH_SECONDS)
                else:
                    time.sleep(STOPPED_POLL_SECONDS)
                if time.monotonic() >= refresh:
                    refresh = time.monotonic() + REFRESH_SECONDS
                    self._refresh()

    def finish(self) -> None:
        """Write what is left and a last note. Runs stay as they are, for the next daemon."""
        notify("STOPPING=1")
        if stopped := self._attendant.stop():
            short = self._storage.state >= State.CRITICAL
            why = f"storage is {self._storage.state.word}" if short else "nothing else keeps them from the network"
            self._say(f"{stopped} runs stay stopped because {why}; the next start looks again")
        self._drain.finish(FINISH_SECONDS_MAX)
        self._losses.refresh()
        self._drain.post(notes.stop(_boottime_ns()), after_events=True)
        self._drain.finish(FINISH_SECONDS_MAX)
        self._keeper.forget_ended()
        if self._attendant.error is not None:
            raise self._attendant.error

    def _begin(self, stack: ExitStack) -> None:
        """Write the first notes, take up live runs, open the control socket, say that capd is ready."""
        configuration = self._configuration
        self._drain.post(
            notes.start(
                epoch=self._succession.epoch,
                boot=self._boot,
                host=self._host,
                tier=self._capture.tier,
                version=version.VERSION,
                boottime_ns=_boottime_ns(),
                continued=self._capture.continued,
            )
        )
        if self._capture.continued:
            # The daemon before may have been killed before it could say so of what it had drained.
            self._drain.post(notes.drained(_boottime_ns()), after_events=True)
        self._drain.turn()
        keeper = RunKeeper(
            capture=self._capture,
            hierarchy=self._hierarchy,
            registry=self._registry,
            post=self._post,
            stoppage=lambda: None if self._spool.stoppage is None else self._spool.stoppage.detail,
            closed=self._closed,
            enforced=self._enforcement is not None and self._enforcement.enforced,
            trust=None if self._enforcement is None else configuration.trust_dir,
            selection=configuration.selection,
        )
        self._keeper = keeper
        self._holding = Holding(configuration.storage.action, self._hierarchy, configuration.frozen_file)
        self._reloading.take = self._take
        self._attendant = Attendant(
            capture=self._capture,
            drain=self._drain,
            losses=self._losses,
            keeper=keeper,
            holding=self._holding,
            storage=self._storage,
            enforcement=self._enforcement,
            reloading=self._reloading,
            facts=self._facts,
            wake_drain=self._wake,
        )
        self._reload = self._attendant.ask_reload
        if self._enforcement is not None:
            self._enforcement.keep_namespaces(configuration.runtime_dir / NAMESPACES_SOCKET)
        self._look_at_storage()
        self._attendant.note_attachments()
        self._attendant.start(
            lambda selector: ControlServer(configuration.control_socket, self._attendant.verbs(), selector), self._ready
        )
        stack.callback(configuration.pid_file.unlink, missing_ok=True)

    def _ready(self, resumed: int) -> None:
        replace_content(self._configuration.pid_file, f"{os.getpid()}\n".encode(), mode=0o644, sync=False)
        taken_up = f", took up {resumed} live runs" if resumed else ""
        went_on = ", went on with the probes of the daemon before" if self._capture.continued else ""
        journal = self._configuration.journal_dir
        self._say(f"capd daemon is ready: tier {self._capture.tier}, journal in {journal}{went_on}{taken_up}")
        forcing = "" if self._enforcement is None else f"; {self._enforcement.words()}"
        self._heart.ready(f"recording, tier {self._capture.tier}{forcing}")

    def _post(self, note: notes.Note, *, after_events: bool = False) -> PendingNote:
        pending = self._drain.post(note, after_events=after_events)
        self._wake()
        return pending

    def _turn(self) -> None:
        turn = self._drain.turn()
        if turn.files or turn.exits:
            self._attendant.hint(turn.files, exits=turn.exits)

    def _refresh(self) -> None:
        self._look_at_storage()
        before = self._spool.stoppage
        self._spool.refresh()
        self._losses.refresh()
        self._drain.note_losses()
        self._tell_drained()
        after = self._spool.stoppage
        if after is not None and before is None:
            self._say(f"capd daemon stopped draining, what does not fit into the rings is lost and counted: {after.detail}")
        elif before is not None and after is None:
            self._say("capd daemon drains again")

    def _tell_drained(self) -> None:
        """Say how far the rings were read, where somebody compares what the probes told with what the enforcer did."""
        drained = None if self._enforcement is None else self._drain.drained()
        if drained is not None:
            tell_drained(self._configuration.drained_file, drained)

    def _look_at_storage(self) -> None:
        """See how much room there is; a change is told while there still is room to write it down."""
        storage, action = self._storage, self._holding.action
        change = storage.look(now=time.monotonic(), wall_ns=time.time_ns(), refused=self._spool.refused)
        unrecorded = storage.state is State.CRITICAL and action == "continue"
        if change is None and unrecorded == self._drain.discarding:
            return
        # Another action, that a reload brought, is told as a change of state is.
        change = change or Change(before=storage.state, after=storage.state, room=storage.room)
        self._drain.discarding = unrecorded
        self._say(f"capd daemon: storage was {change.before.word}, is {change.after.word}: {storage.described()}")
        self._drain.post(
            notes.storage(
                before=change.before.word,
                state=change.after.word,
                recording=change.after is not State.OUT and not unrecorded,
                action=action,
                free_bytes=change.room.free_bytes,
                free_inodes=change.room.free_inodes,
                boottime_ns=_boottime_ns(),
            )
        )
        self._drain.control_turn()
        self._attendant.storage_changed()

    def _closed(self) -> str | None:
        """Say why no new run is let in although there is room to write, or None."""
        unforced = None if self._enforcement is None else self._enforcement.closed()
        if unforced is not None:
            return unforced
        held = self._storage.state >= State.CRITICAL and self._holding.action != "continue"
        return f"storage is {self._storage.state.word}: {self._storage.described()}" if held else None

    def _take(self, found: Configuration) -> None:
        """Go by another configuration, as far as that can be without a restart. Called by the attendant.

        Raises:
            ConfigurationError: that cannot be; all is as it was.
        """
        before = self._reloading.configuration
        try:
            if self._enforcement is not None:
                self._enforcement.select(found.enforcement.users, found.selection)
            self._keeper.follow(found.selection)
        except (CapdError, OSError, ValueError) as error:
            if self._enforcement is not None:
                self._enforcement.select(before.enforcement.users, before.selection)
            self._keeper.follow(before.selection)
            raise ConfigurationError(str(error)) from error
        self._storage.follow(_thresholds(found))
        self._spool.follow(found.journal)
        self._holding.action = found.storage.action

    def _wake(self) -> None:
        os.eventfd_write(self._wake_fd, 1)

    def _unwake(self) -> None:
        with contextlib.suppress(BlockingIOError):
            os.eventfd_read(self._wake_fd)

    def _catch_signals(self, stack: ExitStack) -> None:
        def stop(_number: int, _frame: object) -> None:
            self._stopping = True
            self._wake()

        def reload(_number: int, _frame: object) -> None:
            self._reload()

        for number, handler in ((signal.SIGTERM, stop), (signal.SIGINT, stop), (signal.SIGHUP, reload)):
            stack.callback(signal.signal, number, signal.signal(number, handler))

    def _refuse_to_record_ourselves(self) -> None:
        """A daemon inside a live run would record its own journal writes, which would make more of them, without end."""
        own = self._hierarchy.path_of(os.getpid()) or "/"
        for left in self._registry.load():
            if f"{own}/".startswith(f"{left.cgroup.path}/"):
                raise CgroupError(f"this daemon was started inside the run {left.id}, in the cgroup {own}")

    def _facts(self) -> dict[str, object]:
        """Give the part of a status that this thread knows. Called by the attendant: reads only, torn values do no harm."""
        capture, spool, stoppage = self._capture, self._spool, self._spool.stoppage
        return {
            "version": version.VERSION,
            "pid": os.getpid(),
            "started_ns": self._started_ns,
            "host": str(self._host),
            "boot": str(self._boot),
            "tier": capture.tier,
            "features": dict(capture.features),
            "clock": clock.facts(),
            "warnings": [*self._warnings, *capture.warnings],
            "standing": self._succession.facts(continued=capture.continued),
            "cgroup2": {
                "root": str(self._hierarchy.root),
                "shape": shape(self._hierarchy.root),
                "systemd": self._hierarchy.systemd,
            },
            "rings": {
                name: {"bytes": ring.size, "used": ring.used()}
                for name, ring in (("control", capture.control), ("data", capture.data))
            },
            "drained": {
                "bytes": self._drain.bytes,
                "records": self._drain.records,
                "discarded_bytes": self._drain.discarded_bytes,
            },
            "journal": {
                "blocks": spool.blocks,
                "backlog_bytes": spool.backlog_bytes,
                "bytes_max": spool.bytes_max,
                "position": spool.position.to_fields(),
                "sealed": None if spool.sealed is None else spool.sealed.to_fields(),
                "stopped": None if stoppage is None else {"cause": stoppage.cause, "detail": stoppage.detail},
            },
        }


def _thresholds(configuration: Configuration) -> Thresholds:
    section = configuration.storage
    return Thresholds(
        low=Threshold(bytes=section.low_bytes, inodes=section.low_inodes),
        critical=Threshold(bytes=section.critical_bytes, inodes=section.critical_inodes),
        out=Threshold(bytes=configuration.journal.free_bytes_min, inodes=OUT_INODES),
        reserve_bytes=section.reserve_bytes,
    )


def _settings(configuration: Configuration, cgroup_root: Path) -> CaptureSettings:
    section = configuration.capture
    return CaptureSettings(
        tier=section.tier,
        data_ring_bytes=section.data_ring_bytes,
        control_ring_bytes=section.control_ring_bytes,
        cgroup_root=cgroup_root,
        cache=configuration.probes_dir,
    )


def _forcing(
    configuration: Configuration, say: Say, received: dict[str, list[int]], untrusted: CapdError | None
) -> tuple[Enforcement | None, Hierarchy]:
    """Give what forces traffic, if anything is to, and the hierarchy with the permanent parent of runs that it needs.

    Args:
        configuration: of this instance.
        say: tells the operator one line.
        received: descriptors that the service manager kept; what nobody wants is closed.
        untrusted: why there is nothing that agents could trust, or None.

    Raises:
        CapdError: there is no hierarchy, or a user of the configuration does not exist.
    """
    owner, section = str(configuration.runtime_dir), configuration.enforcement
    if section.mode == "off":
        # With the socket by which an earlier daemon owned its table: so that it can be removed.
        descriptor_store.let_go(descriptor_store.TABLE)
        descriptor_store.close_all([one for descriptors in received.values() for one in descriptors])
        return None, Hierarchy(owner=owner)
    names = names_of(configuration.runtime_dir, systemd=has_systemd(), enforcer=section.cgroup)
    hierarchy = Hierarchy(owner=owner, parent=names.parent)
    # Netlink and its rules take memory that a daemon without enforcement need not have.
    from capd.daemon import kept_descriptors  # noqa: PLC0415 - see above
    from capd.daemon.enforcement import Enforcement  # noqa: PLC0415 - see above

    kept = kept_descriptors.take(received)
    descriptor_store.close_all([one for descriptors in received.values() for one in descriptors])
    enforcement = Enforcement(section, configuration.selection, hierarchy, names, say, kept=kept, untrusted=untrusted)
    # Runs that no permanent parent covers stay forced until they are taken up, which comes after the probes.
    enforcement.follow(Registry(configuration.runs_dir).cgroups_left(hierarchy.id_of))
    return enforcement, hierarchy


def _standing_warning(configuration: Configuration) -> list[str]:
    if configuration.enforcement.mode != "off":
        return []
    found = enforcement_standing.standing(names_of(configuration.runtime_dir, systemd=has_systemd()))
    words = f"enforcement is off, but {' and '.join(found)} still stand and refuse: `capd enforcement off` removes them"
    return [words] if found else []


def _namespace_warning() -> list[str]:
    return [] if processes.in_initial_pid_namespace() else [PID_NAMESPACE]


def _epoll(*descriptors: int) -> select.epoll:
    poll = select.epoll()
    for descriptor in descriptors:
        poll.register(descriptor, select.EPOLLIN)
    return poll


def _boottime_ns() -> int:
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME)
