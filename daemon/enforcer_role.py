"""The enforcer: the role that stands between agents and their targets.

What lives here: what there is before its processes are, and what each gets: listeners, rights, policy, keys. What must not:
keeping processes alive (enforcer_processes.py), a worker's work (enforcer_worker.py).

Everything that needs files beyond its own is read before rights are given up, but the policy, which changes. A worker that dies
is started anew; what it held is reset, and connections that wait on its sockets are taken by the next: closed, never open.
"""

from __future__ import annotations

import hmac
import os
import resource
import socket
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from secrets import token_bytes
from typing import TYPE_CHECKING, Final

from capd.daemon import cgroups, enforcer_user, said_key, trust
from capd.daemon.approvals_desk import DeskParts, run_desk
from capd.daemon.certificate_expiry import expiries
from capd.daemon.confinement import INTERNET, confine
from capd.daemon.credentials import credentials_of
from capd.daemon.enforcement_names import names_of
from capd.daemon.enforcer_keeper import start_keeper
from capd.daemon.enforcer_listeners import Listeners
from capd.daemon.enforcer_processes import CALLBACKS, DESK, RESOLVER, Child, Enforcer, worker_status
from capd.daemon.enforcer_resolver import ResolverParts, run_resolver
from capd.daemon.enforcer_worker import Parts, run_worker
from capd.daemon.errors import CgroupError, SandboxError
from capd.daemon.landlock import KEEP_FILES, Right, restrict
from capd.daemon.locations import APPROVALS_SOCKET, HOLDS_SOCKET, KEEPER_SOCKET, NAMESPACES_SOCKET
from capd.daemon.lock import InstanceLock
from capd.enforcer.callbacks.own_rules import own_rules
from capd.enforcer.limits.shared import SharedTotals
from capd.enforcer.policy.directory import load_policy
from capd.enforcer.policy.policy_set import PolicySet
from capd.enforcer.policy.policy_stamp import stamp
from capd.enforcer.proxy.interim import Interim
from capd.enforcer.proxy.load import Load
from capd.enforcer.proxy.postgresql.cancelling import SECRET_BYTES
from capd.enforcer.proxy.postgresql.known_functions import Stamps
from capd.enforcer.proxy.room import CONNECTIONS_MAX, DESCRIPTORS_EACH, RESERVED_DESCRIPTORS
from capd.enforcer.resolver.telling import channel
from capd.enforcer.tls.authority import Authority
from capd.enforcer.tls.contexts import ClientCertificate, Upstreams

if TYPE_CHECKING:  # its library is to stay out of a role (settled.py)
    from capd.daemon.callback_parts import CallbackParts
    from capd.daemon.configuration import Configuration
    from capd.daemon.enforcement_section import EnforcementSection

POLICY_OWNERS: Final = frozenset({0})
"""Who may write the policy in force."""
DESCRIPTORS_MAX: Final = DESCRIPTORS_EACH * CONNECTIONS_MAX + 2 * RESERVED_DESCRIPTORS
"""Of a worker: a connection has two. With fewer, one run's connections could leave none for the others and for the log."""
Say = Callable[[str], None]


def _load(configuration: Configuration, say: Say) -> tuple[PolicySet, object]:
    """Load the policy, and say what came of it; without one everything is denied. With it goes its stamp, if it is in force."""
    before = stamp(configuration.policy_dir)
    own = own_rules(configuration.approvals.base_url, configuration.approvals.listen)
    policies = PolicySet(lambda: load_policy(configuration.policy_dir, owners=POLICY_OWNERS, own=own))
    loaded = policies.reload()
    say(f"capd enforcer: {loaded.words()}")
    if loaded.refused is not None:
        say(str(loaded.refused))
    return policies, before if loaded.refused is None else None


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
    upstreams, certificates = _upstreams(section), expiries(configuration)
    hierarchy = cgroups.find_root()
    keeper = start_keeper(configuration, uid, gid, say)
    callbacks = _callback_parts(configuration)
    children, listeners = _children(configuration, callbacks)
    totals, stamps, load = SharedTotals(), Stamps(), Load(len(children))  # before workers are, which share them
    told = {"confinement": _confine(configuration, uid, gid), "certificates": certificates}
    lock = InstanceLock(configuration.enforcer_dir / "lock").acquire()
    authority, (policies, loaded) = trust.load(configuration, datetime.now(UTC)), _load(configuration, say)
    credentials = credentials_of(configuration.credentials)
    cancel_secret, digests = token_bytes(SECRET_BYTES), said_key.make(configuration.decisions_dir, token_bytes)

    def parts(child: Child) -> Parts:
        return Parts(
            number=child.number,
            listeners=child.listeners,
            load=load,
            names=child.channels[0],
            authority=authority,
            upstreams=upstreams,
            policies=policies,
            decisions=configuration.decisions_dir,
            done=configuration.decisions_done_file,
            runs=configuration.runs_dir,
            hierarchy=hierarchy,
            status=worker_status(configuration.enforcer_runtime_dir, child.number),
            stamp=lambda: stamp(configuration.policy_dir),
            loaded=loaded,
            holds=configuration.enforcer_runtime_dir / HOLDS_SOCKET,
            namespaces=configuration.runtime_dir / NAMESPACES_SOCKET,
            observe=section.mode == "observe",
            credentials=credentials,
            keeper=configuration.enforcer_runtime_dir / KEEPER_SOCKET,
            cancelled=child.channels[1],
            cancels=child.tells,
            cancel_secret=cancel_secret,
            mask_key=_mask_key(authority),
            said_key=digests,
            totals=totals,
            stamps=stamps,
            interim=Interim(section.interim_answers),
            beat=child.beat,
        )

    def work(child: Child) -> None:
        if child.number == RESOLVER:
            run_resolver(_resolver_parts(configuration, child, policies, loaded, hierarchy))
        elif child.number == DESK:
            run_desk(replace(_desk_parts(configuration, hierarchy, callbacks, say), beat=child.beat))
        elif child.number == CALLBACKS:
            _run_callbacks(callbacks, hierarchy)
        else:
            run_worker(parts(child))

    listeners.keep(say)
    Enforcer(configuration, children, work, say, keeper=keeper, told=told).run()
    lock.release()


def _confine(configuration: Configuration, uid: int, gid: int) -> str:
    """Give up rights; say which."""
    _raise_descriptors()
    confine(uid, gid, families=INTERNET, who="enforcer")
    os.umask(0o027)
    return f"user {uid}, system calls, {_restrict_files(configuration)}"


def _mask_key(authority: Authority) -> bytes:
    """Give the key of hashes, this host's as long as its authority is: equal values have equal ones, elsewhere others."""
    return hmac.digest(authority.key_pem, b"capd: hashes of what is hidden in answers", "sha256")


def _resolver_parts(
    configuration: Configuration, child: Child, policies: PolicySet, loaded: object, hierarchy: Path
) -> ResolverParts:
    return ResolverParts(
        sockets=child.listeners,
        workers=child.channels,
        policies=policies,
        stamp=lambda: stamp(configuration.policy_dir),
        loaded=loaded,
        runs=configuration.runs_dir,
        hierarchy=hierarchy,
        status=worker_status(configuration.enforcer_runtime_dir, RESOLVER),
        namespaces=configuration.runtime_dir / NAMESPACES_SOCKET,
        observe=configuration.enforcement.mode == "observe",
        beat=child.beat,
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


def _children(configuration: Configuration, callbacks: CallbackParts | None) -> tuple[list[Child], Listeners]:
    section, bound = configuration.enforcement, Listeners(os.environ)
    names = [channel() for _ in range(section.workers or len(os.sched_getaffinity(0)))]
    cancels = [channel() for _ in names]
    tells = [tells for tells, _hears in cancels]
    asked = [*bound.bind(section.resolver_port, socket.SOCK_DGRAM), *bound.bind(section.resolver_port, socket.SOCK_STREAM)]
    served = [one for _ in names for one in bound.bind(section.proxy_port, socket.SOCK_STREAM)]
    listening = () if callbacks is None or callbacks.listening is None else (callbacks.listening,)
    children = [  # in the order in which agents wait for them
        *(
            Child(number=number, listeners=served, channels=[hears, cancels[number][1]], tells=tells)
            for number, (_tells, hears) in enumerate(names)
        ),
        Child(number=RESOLVER, listeners=asked, channels=[tells for tells, _hears in names]),
        Child(number=DESK, listeners=()),
        *([] if callbacks is None else [Child(number=CALLBACKS, listeners=listening)]),
    ]
    return children, bound


def _desk_parts(configuration: Configuration, hierarchy: Path, callbacks: CallbackParts | None, say: Say) -> DeskParts:
    runtime = configuration.enforcer_runtime_dir
    return DeskParts(
        directory=configuration.approvals_dir,
        holds=runtime / HOLDS_SOCKET,
        persons=runtime / APPROVALS_SOCKET,
        approvers=configuration.enforcement.approvers,
        runs=configuration.runs_dir,
        hierarchy=hierarchy,
        status=worker_status(runtime, DESK),
        say=say,
        links=None if callbacks is None else callbacks.links,
    )


def _upstreams(section: EnforcementSection) -> Upstreams:
    shown = {one.host: ClientCertificate(certificate=one.certificate, key=one.key) for one in section.client_certificates}
    return Upstreams(ca_file=section.ca_file, certificates=shown)


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


def _restrict_files(configuration: Configuration) -> str:
    """Give up writing but in its own directories; say what was given up."""
    places = dict.fromkeys([configuration.enforcer_dir, configuration.decisions_dir], KEEP_FILES)
    try:
        restrict({**places, configuration.enforcer_runtime_dir: KEEP_FILES | Right.MAKE_SOCK})
    except SandboxError as error:
        return f"not files ({error})"
    return "files"
