"""The enforcer: the role that stands between agents and their targets.

What lives here: its process and its workers: listening, confinement, restarts, the status of all together. What must not: a
worker's work (enforcer_worker.py).

Everything that needs files beyond its own is read before rights are given up, but the policy, which changes. A worker that dies
is started anew; what it held is reset, and connections that wait on its sockets are taken by the next: closed, never open.
"""

from __future__ import annotations

import json
import math
import os
import resource
import select
import signal
import socket
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Final, NoReturn

from capd.daemon import cgroups, enforcer_user, trust
from capd.daemon.approvals_desk import DeskParts, run_desk
from capd.daemon.confinement import INTERNET, confine, parent_death_signal
from capd.daemon.credentials import credentials_of
from capd.daemon.enforcement_names import names_of
from capd.daemon.enforcer_keeper import KeeperProcess, start_keeper
from capd.daemon.enforcer_resolver import ResolverParts, run_resolver
from capd.daemon.enforcer_worker import Parts, run_worker
from capd.daemon.errors import CgroupError, KeeperError, PortTakenError, SandboxError
from capd.daemon.landlock import KEEP_FILES, Right, restrict
from capd.daemon.locations import APPROVALS_SOCKET, CALLBACKS_RUNTIME, HOLDS_SOCKET, KEEPER_SOCKET, NAMESPACES_SOCKET
from capd.daemon.lock import InstanceLock
from capd.daemon.notify import notify
from capd.enforcer.callbacks.own_rules import own_rules
from capd.enforcer.policy.directory import load_policy
from capd.enforcer.policy.policy_set import PolicySet
from capd.enforcer.policy.policy_stamp import stamp
from capd.enforcer.proxy.shell import BACKLOG, CONNECTIONS_MAX
from capd.enforcer.resolver.telling import channel
from capd.enforcer.tls.contexts import ClientCertificate, Upstreams
from capd.recording.durable import read_regular, replace_content

if TYPE_CHECKING:  # its library is to stay out of a role (settled.py)
    from capd.daemon.callback_parts import CallbackParts
    from capd.daemon.configuration import Configuration
    from capd.daemon.enforcement_section import EnforcementSection

STATUS_SECONDS: Final = 1.0
POLICY_OWNERS: Final = frozenset({0})
"""Who may write the policy in force."""
RESOLVER: Final = -1
DESK: Final = -2
CALLBACKS: Final = -3
"""In the place of a worker's number."""
STOP_SECONDS_MAX: Final = 5.0
RESTART_SECONDS: Final = 1.0
"""Between two starts of one worker: one that cannot live costs little. One that has lived for longer is started at once."""
STATUS_BYTES_MAX: Final = 1 << 16
DESCRIPTORS_MAX: Final = 2 * CONNECTIONS_MAX + 1_024
"""Of a worker: a connection has two. With fewer, one run's connections could leave none for the others and for the log."""
LOOPBACK: Final = ((socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1"))
"""Where a redirect on the output of this host leads (nft(8), `redirect`)."""

Say = Callable[[str], None]


@dataclass(kw_only=True)
class Child:
    """A worker, the resolver, the desk of approvals or the process of links, as its parent knows it.

    Attributes:
        number: of its own; RESOLVER, DESK and CALLBACKS of the others.
        listeners: its sockets, which outlive it.
        channels: what it has with others of the enforcer; these outlive it too.
        pid: 0 while there is none.
        due: monotonic time before which it is not started again.
    """

    number: int
    listeners: Sequence[socket.socket]
    channels: Sequence[socket.socket] = ()
    pid: int = 0
    due: float = 0.0


def _load(configuration: Configuration, say: Say) -> PolicySet:
    """Load the policy, and say what came of it; without one everything is denied."""
    own = own_rules(configuration.approvals.base_url, configuration.approvals.listen)
    policies = PolicySet(lambda: load_policy(configuration.policy_dir, owners=POLICY_OWNERS, own=own))
    loaded = policies.reload()
    say(f"capd enforcer: {loaded.words()}")
    if loaded.refused is not None:
        say(str(loaded.refused))
    return policies


def enter_cgroup(configuration: Configuration) -> None:
    """Enter the cgroup by which, with the user, the rules know the enforcer; a unit of systemd is in it already.

    Raises:
        CgroupError: it cannot be made or entered.
    """
    names = names_of(configuration.runtime_dir, systemd=cgroups.has_systemd(), enforcer=configuration.enforcement.cgroup)
    hierarchy = cgroups.Hierarchy()
    if hierarchy.path_of(os.getpid()) == names.enforcer:
        return
    directory = hierarchy.directory(hierarchy.ensure(names.enforcer))
    try:
        (directory / "cgroup.procs").write_text("0", encoding="ascii")
    except OSError as error:
        raise CgroupError(f"cannot enter the cgroup {directory}: {error.strerror}") from error


def run(configuration: Configuration, say: Say) -> None:
    """Be the enforcer until SIGTERM or SIGINT. The directories and the authority must have been prepared.

    Raises:
        CapdError: it cannot start; nothing listens.
    """
    section = configuration.enforcement
    uid, gid = enforcer_user.identity(section.user)
    upstreams = _upstreams(section)
    hierarchy = cgroups.find_root()
    keeper = start_keeper(configuration, uid, gid, say)
    callbacks = _callback_parts(configuration)
    children = _children(configuration, callbacks)
    _raise_descriptors()
    confine(uid, gid, families=INTERNET, who="enforcer")
    confinement = f"user {uid}, system calls, {_restrict_files(configuration)}"
    os.umask(0o027)
    lock = InstanceLock(configuration.enforcer_dir / "lock").acquire()
    authority = trust.load(configuration, datetime.now(UTC))
    policies = _load(configuration, say)
    credentials = credentials_of(configuration.credentials)

    def parts(child: Child) -> Parts:
        return Parts(
            number=child.number,
            listeners=child.listeners,
            names=child.channels[0],
            authority=authority,
            upstreams=upstreams,
            policies=policies,
            decisions=configuration.decisions_dir,
            done=configuration.decisions_done_file,
            runs=configuration.runs_dir,
            hierarchy=hierarchy,
            status=_worker_status(configuration.enforcer_runtime_dir, child.number),
            stamp=lambda: stamp(configuration.policy_dir),
            holds=configuration.enforcer_runtime_dir / HOLDS_SOCKET,
            namespaces=configuration.runtime_dir / NAMESPACES_SOCKET,
            observe=section.mode == "observe",
            credentials=credentials,
            keeper=configuration.enforcer_runtime_dir / KEEPER_SOCKET,
        )

    def work(child: Child) -> None:
        if child.number == RESOLVER:
            run_resolver(_resolver_parts(configuration, child, policies, hierarchy))
        elif child.number == DESK:
            run_desk(_desk_parts(configuration, hierarchy, callbacks, say))
        elif child.number == CALLBACKS:
            _run_callbacks(callbacks, hierarchy)
        else:
            run_worker(parts(child))

    Enforcer(configuration, children, work, say, keeper=keeper, confinement=confinement).run()
    lock.release()


def _resolver_parts(configuration: Configuration, child: Child, policies: PolicySet, hierarchy: Path) -> ResolverParts:
    return ResolverParts(
        sockets=child.listeners,
        workers=child.channels,
        policies=policies,
        stamp=lambda: stamp(configuration.policy_dir),
        runs=configuration.runs_dir,
        hierarchy=hierarchy,
        status=_worker_status(configuration.enforcer_runtime_dir, RESOLVER),
        namespaces=configuration.runtime_dir / NAMESPACES_SOCKET,
        observe=configuration.enforcement.mode == "observe",
    )


def _callback_parts(configuration: Configuration) -> CallbackParts | None:
    if not configuration.approvals.webhooks:
        return None
    from capd.daemon import callbacks_role  # noqa: F401, PLC0415 - what it imports is dear, and not to be read later
    from capd.daemon.callback_parts import callback_parts  # noqa: PLC0415 - as above

    return callback_parts(configuration)


def _run_callbacks(parts: CallbackParts | None, hierarchy: Path) -> None:
    from capd.daemon.callbacks_role import run_callbacks  # noqa: PLC0415 - as above

    assert parts is not None
    run_callbacks(parts, hierarchy)


def _children(configuration: Configuration, callbacks: CallbackParts | None) -> list[Child]:
    section = configuration.enforcement
    names = [channel() for _ in range(section.workers or len(os.sched_getaffinity(0)))]
    asked = [*_bind(section.resolver_port, socket.SOCK_DGRAM), *_bind(section.resolver_port, socket.SOCK_STREAM)]
    listening = () if callbacks is None or callbacks.listening is None else (callbacks.listening,)
    return [
        Child(number=RESOLVER, listeners=asked, channels=[tells for tells, _hears in names]),
        Child(number=DESK, listeners=()),
        *([] if callbacks is None else [Child(number=CALLBACKS, listeners=listening)]),
        *(
            Child(number=number, listeners=_bind(section.proxy_port, socket.SOCK_STREAM), channels=[hears])
            for number, (_tells, hears) in enumerate(names)
        ),
    ]


def _desk_parts(configuration: Configuration, hierarchy: Path, callbacks: CallbackParts | None, say: Say) -> DeskParts:
    runtime = configuration.enforcer_runtime_dir
    return DeskParts(
        directory=configuration.approvals_dir,
        holds=runtime / HOLDS_SOCKET,
        persons=runtime / APPROVALS_SOCKET,
        approvers=configuration.enforcement.approvers,
        runs=configuration.runs_dir,
        hierarchy=hierarchy,
        status=_worker_status(runtime, DESK),
        say=say,
        links=None if callbacks is None else callbacks.links,
    )


def _upstreams(section: EnforcementSection) -> Upstreams:
    shown = {one.host: ClientCertificate(certificate=one.certificate, key=one.key) for one in section.client_certificates}
    return Upstreams(ca_file=section.ca_file, certificates=shown)


class Enforcer:
    """The parent of the workers."""

    def __init__(
        self,
        configuration: Configuration,
        children: Sequence[Child],
        work: Callable[[Child], None],
        say: Say,
        *,
        keeper: KeeperProcess | None,
        confinement: str,
    ) -> None:
        self._configuration, self._children, self._work, self._say = configuration, children, work, say
        self._keeper, self._confinement = keeper, confinement
        self._stopping = False
        self._restarts = 0
        self._started = time.time()
        self._wake = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)

    def run(self) -> None:
        """Keep the workers alive until SIGTERM or SIGINT; SIGHUP has them read the policy anew.

        Raises:
            KeeperError: the keeper of credentials ended: only who starts the role anew can make another one.
        """
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._stop)
        signal.signal(signal.SIGCHLD, lambda _number, _frame: os.eventfd_write(self._wake, 1))
        signal.signal(signal.SIGHUP, self._pass_on)
        for child in self._children:
            self._start(child)
        notify("READY=1\nSTATUS=enforcing")
        lost = False
        while not self._stopping and not lost:
            self._attend()
            self._write_status("running")
            select.select([self._wake], [], [], self._pause())
            with suppress(BlockingIOError):
                os.eventfd_read(self._wake)
            lost = self._keeper is not None and self._keeper.ended()
        self._end()
        self._write_status("stopped")
        if lost:
            raise KeeperError("the keeper of credentials ended")

    def _stop(self, _number: int, _frame: object) -> None:
        self._stopping = True
        os.eventfd_write(self._wake, 1)

    def _pause(self) -> float:
        """Give how long nothing is to be done."""
        due = min((child.due for child in self._children if not child.pid), default=math.inf)
        return max(0.0, min(STATUS_SECONDS, due - time.monotonic()))

    def _pass_on(self, number: int, _frame: object) -> None:
        for child in self._children:
            if child.pid:
                os.kill(child.pid, number)

    def _start(self, child: Child) -> None:
        parent = os.getpid()
        pid = os.fork()
        if pid == 0:
            self._be(child, parent)
        child.pid, child.due = pid, time.monotonic() + RESTART_SECONDS

    def _be(self, child: Child, parent: int) -> NoReturn:
        """In the worker."""
        status = 1
        try:
            parent_death_signal(signal.SIGTERM)
            if self._keeper is not None:
                self._keeper.left()
            if os.getppid() == parent:
                for other in self._children:
                    if other is not child:
                        for mine in (*other.listeners, *other.channels):
                            os.close(mine.fileno())
                self._work(child)
                status = 0
        except BaseException as error:  # noqa: BLE001 - the last line of a process: its parent must hear of it
            self._say(f"capd enforcer: {_called(child.number)}: {error!r}")
        finally:
            os._exit(status)

    def _attend(self) -> None:
        """Start anew what has ended."""
        for child in self._children:
            if child.pid and os.waitpid(child.pid, os.WNOHANG)[0]:
                self._say(f"capd enforcer: {_called(child.number)} ended, starting it anew; what it held was reset")
                self._restarts += 1
                child.pid = 0
            if not child.pid and time.monotonic() >= child.due:
                self._start(child)

    def _end(self) -> None:
        deadline = time.monotonic() + STOP_SECONDS_MAX
        for child in self._children:
            if child.pid:
                os.kill(child.pid, signal.SIGTERM)
        for child in self._children:
            while child.pid and not os.waitpid(child.pid, os.WNOHANG)[0]:
                if time.monotonic() > deadline:
                    os.kill(child.pid, signal.SIGKILL)
                time.sleep(0.01)
            child.pid = 0

    def _write_status(self, state: str) -> None:
        directory = self._configuration.enforcer_runtime_dir
        told = {child.number: _read_status(_worker_status(directory, child.number)) for child in self._children}
        status = {
            "state": state,
            "pid": os.getpid(),
            "time": time.time(),
            "mode": self._configuration.enforcement.mode,
            "confinement": self._confinement,
            "proxy_port": self._configuration.enforcement.proxy_port,
            "restarts": self._restarts,
            "resolver": told.pop(RESOLVER, None),
            "approvals": self._desk_status(told.pop(DESK, None)),
            "callbacks": self._desk_status(told.pop(CALLBACKS)) if CALLBACKS in told else None,
            "workers": list(told.values()),
        }
        with suppress(OSError):  # the status is late then, and `capd status` says so
            content = json.dumps(status, indent=1).encode()
            replace_content(self._configuration.enforcer_status_file, content, mode=0o644, sync=False)

    def _desk_status(self, told: object) -> dict[str, object]:
        """Give what the desk tells; before it first does, since when nothing was heard of it."""
        if isinstance(told, dict) and told.get("time", 0) >= self._started:
            return told
        return {"time": self._started}


def _bind(port: int, kind: socket.SocketKind) -> list[socket.socket]:
    """Bind on both loopback addresses; every worker has sockets of its own, among which the kernel divides connections.

    Raises:
        PortTakenError: somebody else listens there.
    """
    listeners = []
    for family, address in LOOPBACK:
        listener = socket.socket(family, kind)
        if kind is socket.SOCK_STREAM:
            # Of datagrams this would let others bind there too, and hear what is meant for us.
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        if family == socket.AF_INET6:
            listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        try:
            listener.bind((address, port))
            if kind is socket.SOCK_STREAM:
                listener.listen(BACKLOG)
        except OSError as error:
            listener.close()
            if family == socket.AF_INET6 and not _has_ipv6():
                continue  # a redirect there finds nobody, which refuses it
            raise PortTakenError(address, port, error) from error
        listeners.append(listener)
    return listeners


def _raise_descriptors() -> None:
    """Have room for as many descriptors as connections need; a unit's limit, which cannot be raised, is used to the full."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY or soft >= DESCRIPTORS_MAX:
        return
    enough = hard == resource.RLIM_INFINITY or hard >= DESCRIPTORS_MAX
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (DESCRIPTORS_MAX, hard if enough else DESCRIPTORS_MAX))
    except ValueError:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def _has_ipv6() -> bool:
    return Path("/proc/net/if_inet6").exists() and Path("/proc/net/if_inet6").read_text(encoding="ascii") != ""


def _restrict_files(configuration: Configuration) -> str:
    """Give up writing but in its own directories; say what was given up."""
    places = dict.fromkeys([configuration.enforcer_dir, configuration.decisions_dir], KEEP_FILES)
    try:
        restrict({**places, configuration.enforcer_runtime_dir: KEEP_FILES | Right.MAKE_SOCK})
    except SandboxError as error:
        return f"not files ({error})"
    return "files"


def _worker_status(directory: Path, number: int) -> Path:
    if number == CALLBACKS:
        return directory / CALLBACKS_RUNTIME / "status.json"
    return directory / f"{_called(number).replace(' ', '-')}.status.json"


def _called(number: int) -> str:
    return {RESOLVER: "resolver", DESK: "approvals", CALLBACKS: "callbacks"}.get(number, f"worker {number}")


def _read_status(path: Path) -> object:
    with suppress(OSError, ValueError):
        return json.loads(read_regular(path, STATUS_BYTES_MAX))
    return None
