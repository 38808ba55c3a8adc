"""Whether this host can force agents' traffic through the enforcer, before that is configured and after.

What lives here: looking, and trying where that harms nobody. What must not: the screen (cli/doctor.py), mending.

With `enforcement.mode = "off"` what forcing lacks is a note; a policy counts even then, for recording levels.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

from capd.daemon import cgroups, enforcement_standing, enforcer_user, processes, recorder_user
from capd.daemon.enforcement_names import BPFFS, names_of
from capd.daemon.finding import Finding, Mark
from capd.enforcer.forcing.ruleset import ForcingError
from capd.enforcer.forcing.trial import try_rules
from capd.enforcer.policy.directory import load_policy
from capd.enforcer.policy.policy_stamp import is_there, of_a_policy
from capd.enforcer.policy.problem import PolicyError
from capd.enforcer.resolver.upstream import RESOLV_CONF, servers
from capd.probes.barrier import Listener
from capd.probes.barrier_pins import Barrier
from capd.recording.durable import read_regular
from capd.recording.errors import CapdError

if TYPE_CHECKING:  # its library takes time that only who needs it should spend
    from capd.daemon.configuration import Configuration

RESOLV_CONF_BYTES_MAX: Final = 65_536
LOOPBACK: Final = ((socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1"))
READ_OTHERS, READ_GROUP, READ_OWNER = 0o4, 0o40, 0o400
PASS_OTHERS, PASS_GROUP, PASS_OWNER = 0o1, 0o10, 0o100
ROOT: Final = frozenset({0})
NEEDED: Final = "before `enforcement.mode` is set: "


def check_enforcement(settings: Configuration) -> list[Finding]:
    """Look at all that forcing needs."""
    forcing = [*_kernel(settings), *_ports(settings), *_names(settings), *_users(settings)]
    policy, stands = list(_policy(settings)), list(_stands(settings))
    if settings.enforcement.mode == "off":
        forcing = [_noted(finding) for finding in forcing]
        policy = policy if is_there(settings.policy_dir) else [_noted(finding) for finding in policy]
    return [*forcing, *policy, *stands]


def _noted(finding: Finding) -> Finding:
    """Make a note of what would be wrong."""
    if finding.mark is not Mark.BAD:
        return finding
    return replace(finding, mark=Mark.NOTE, next_step=f"{NEEDED}{finding.next_step}")


def _kernel(settings: Configuration) -> Iterator[Finding]:
    if os.geteuid() != 0:
        yield Finding(subject="forcing", mark=Mark.NOTE, found="not tried: only root can", next_step="`sudo capd doctor`")
        return
    section = settings.enforcement
    yield _tried("nftables", lambda: _rules(section.proxy_port, section.resolver_port))
    yield _tried("cgroup BPF", lambda: _programs(section.proxy_port, section.resolver_port))


def _rules(proxy_port: int, resolver_port: int) -> Finding:
    owned = try_rules(proxy_port=proxy_port, resolver_port=resolver_port)
    words = "socket cgroupv2, redirect, reject and conntrack are there"
    if owned:
        return Finding(subject="nftables", mark=Mark.GOOD, found=words)
    found = f"{words}; other programs of root can take the rules away: the kernel has no owned tables that persist (6.9)"
    return Finding(subject="nftables", mark=Mark.NOTE, found=found, next_step="keep other managers of nftables off this host")


def _programs(proxy_port: int, resolver_port: int) -> Finding:
    """Load the programs, with a pin, on no cgroup."""
    if not BPFFS.is_mount():
        step = f"`mount -t bpf bpf {BPFFS}`; the daemon does it when it starts, if it can"
        return _bad("cgroup BPF", f"no bpffs at {BPFFS}: programs could not outlive the daemon", step)
    barrier = Barrier(BPFFS / f"capd_doctor_{os.getpid()}")
    try:
        barrier.load(Listener(proxy_port=proxy_port, resolver_port=resolver_port), metadata=True)
    finally:
        barrier.remove()
    return Finding(subject="cgroup BPF", mark=Mark.GOOD, found=f"programs load, and can be pinned in {BPFFS}")


def _tried(subject: str, attempt: Callable[[], Finding]) -> Finding:
    try:
        return attempt()
    except ForcingError as error:
        return _bad(subject, str(error), error.hint)
    except OSError as error:
        step = "the kernel needs CONFIG_CGROUP_BPF and CONFIG_BPF_SYSCALL; in a container, root needs CAP_BPF and CAP_NET_ADMIN"
        return _bad(subject, f"the kernel refuses: {error.strerror or error}", step)


def _ports(settings: Configuration) -> Iterator[Finding]:
    section = settings.enforcement
    listens = _enforcer_lives(settings)
    wanted = {
        "proxy_port": (section.proxy_port, socket.SOCK_STREAM),
        "resolver_port": (section.resolver_port, socket.SOCK_DGRAM),
    }
    for key, (port, kind) in wanted.items():
        problem = _cannot_bind(port, kind)
        if problem is None:
            yield Finding(subject="ports", mark=Mark.GOOD, found=f"{port} is free ({key})")
        elif listens:
            yield Finding(subject="ports", mark=Mark.GOOD, found=f"the enforcer listens at {port} ({key})")
        else:
            step = f"`ss -lnpt sport = :{port}` says who has it; end that, or set `enforcement.{key}` to another port"
            yield _bad("ports", f"{port} ({key}) cannot be used: {problem}", step)


def _enforcer_lives(settings: Configuration) -> bool:
    from capd.daemon.lock import holder  # noqa: PLC0415 - as its neighbours here: only who looks needs it

    pid = holder(settings.enforcer_dir / "lock")
    return pid is not None and processes.exists(pid)


def _cannot_bind(port: int, kind: socket.SocketKind) -> str | None:
    for family, address in LOOPBACK:
        try:
            with socket.socket(family, kind) as tried:
                tried.bind((address, port))
        except OSError as error:
            if family == socket.AF_INET or Path("/proc/net/if_inet6").exists():
                return f"{address}: {error.strerror}"
    return None


def _names(settings: Configuration) -> Iterator[Finding]:
    try:
        text = read_regular(RESOLV_CONF, RESOLV_CONF_BYTES_MAX).decode("utf-8", "replace")
    except OSError as error:
        step = f"write the addresses of name servers into {RESOLV_CONF}: runs find no name without"
        yield _bad("resolver", f"{RESOLV_CONF}: {error.strerror}", step)
        return
    found = servers(text)
    listed = ", ".join(server.host for server in found)
    if not any(line.split()[:1] == ["nameserver"] for line in text.splitlines()):
        step = f"write `nameserver ADDRESS` into {RESOLV_CONF}, unless one runs on this host"
        yield _bad("resolver", f"{RESOLV_CONF} names no name server; {listed} would be asked", step)
    elif settings.enforcement.resolver_port == found[0].port and found[0].host in {"127.0.0.1", "::1"}:
        step = "set `enforcement.resolver_port` to another port, or name other servers"
        yield _bad("resolver", f"{listed}, port {found[0].port}, is capd's own resolver", step)
    else:
        yield Finding(subject="resolver", mark=Mark.GOOD, found=f"{listed}, from {RESOLV_CONF}")


def _users(settings: Configuration) -> Iterator[Finding]:
    try:
        number = enforcer_user.choose(settings.enforcement.user)
    except CapdError as error:
        yield _bad("enforcer", str(error), "make it (`useradd --system NAME`), or set `enforcement.user` to another one")
        return
    try:
        enforcer_user.forced(settings.enforcement.users, number)
    except CapdError as error:
        yield _bad(
            "users",
            str(error),
            "take it out of `enforcement.users`, or make it (`useradd NAME`); the daemon does not start before",
        )
    if enforcer_user.is_named(number):
        yield Finding(subject="enforcer", mark=Mark.GOOD, found=f"user {number}")
        return
    step = f"none needed; `systemd-sysusers` of the package makes {enforcer_user.PACKAGE_USER}"
    yield Finding(
        subject="enforcer", mark=Mark.NOTE, found=f"there is no user of its own: the free number {number}", next_step=step
    )


def _policy(settings: Configuration) -> Iterator[Finding]:
    directory = settings.policy_dir
    try:
        policy = load_policy(directory, owners=ROOT)
    except PolicyError as error:
        first = str(error).splitlines()[0]
        refused = "`capd policy check` lists all of it; until then no words of runs are recorded, and none are let through"
        none = f"write one, {directory}/NAME.yaml: docs/policy.md has an example; without one nothing is let through"
        yield _bad("policy", first, refused if is_there(directory) else none)
        return
    found = f"{directory}: {policy.own_rules} rules, version {policy.version[:12]}"
    blind = list(_blind(settings))
    if blind:
        step = f"`chmod o+r` its files, and `chmod o+x` the directories above ({directory})"
        yield _bad("policy", f"{found}; it cannot be read by {' and '.join(blind)}", step)
    else:
        yield Finding(subject="policy", mark=Mark.GOOD, found=found)


def _blind(settings: Configuration) -> Iterator[str]:
    """Name the roles whose user cannot read the policy."""
    directory = settings.policy_dir
    files = [path for path in directory.iterdir() if of_a_policy(path)] if directory.is_dir() else [directory]
    recorder = recorder_user.choose(settings.recorder.user, settings.segments_dir)
    roles = {"the recorder": (recorder.uid, recorder.gid)}
    with suppress(CapdError):  # told of besides
        roles["the enforcer"] = enforcer_user.identity(settings.enforcement.user)
    for name, (uid, gid) in roles.items():
        if uid != os.geteuid() and not all(_reads(path, uid, gid) for path in files):
            yield f"{name} (user {uid})"


def _reads(path: Path, uid: int, gid: int) -> bool:
    """Say whether a user can open a file, by the modes of it and of the directories above."""
    real = path.resolve()
    read = _may(real, uid, gid, (READ_OWNER, READ_GROUP, READ_OTHERS))
    return read and all(_may(above, uid, gid, (PASS_OWNER, PASS_GROUP, PASS_OTHERS)) for above in real.parents)


def _may(path: Path, uid: int, gid: int, bits: tuple[int, int, int]) -> bool:
    found = path.stat()
    owner, group, others = bits
    bit = owner if found.st_uid == uid else group if found.st_gid == gid else others
    return bool(found.st_mode & bit)


def _stands(settings: Configuration) -> Iterator[Finding]:
    """Say what of an earlier configuration stands in the kernel."""
    if os.geteuid() != 0:
        return
    section = settings.enforcement
    names = names_of(settings.runtime_dir, systemd=cgroups.has_systemd(), enforcer=section.cgroup)
    standing = enforcement_standing.standing(names)
    if standing and section.mode == "off":
        step = "`capd enforcement off` takes it away; what it selects reaches nothing meanwhile"
        yield _bad("forcing", f"{' and '.join(standing)} stand, and nothing is configured", step)
    elif standing:
        yield Finding(subject="forcing", mark=Mark.GOOD, found=f"{' and '.join(standing)} stand")
    elif section.mode != "off":
        yield Finding(subject="forcing", mark=Mark.NOTE, found="nothing stands yet: the daemon puts it there when it starts")


def _bad(subject: str, found: str, next_step: str) -> Finding:
    return Finding(subject=subject, mark=Mark.BAD, found=found, next_step=next_step)
