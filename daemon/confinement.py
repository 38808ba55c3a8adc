"""Giving up, for ever, what a role does not need: root, capabilities, new privileges, sockets, other processes.

What lives here: the steps, the syscall filter and its assembly. What must not: which user (recorder_user.py), what a role does,
which files it may write (landlock.py).

The filter is classic BPF, assembled here because it is forty lines and a library for it would have to be trusted as much. It
names what is forbidden. What decodes hostile bytes is Python, whose libraries may call anything harmless; a list of what is
allowed would break with the next release of any of them, a list of what is forbidden only has to know how to reach out of the
process.
"""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import resource
import socket
import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from capd.daemon.errors import RoleIsRootError, SandboxError

PR_SET_PDEATHSIG: Final = 1
PR_GET_PDEATHSIG: Final = 2
PR_SET_DUMPABLE: Final = 4
PR_SET_KEEPCAPS: Final = 8
PR_CAPBSET_DROP: Final = 24
PR_SET_NO_NEW_PRIVS: Final = 38
PR_CAP_AMBIENT: Final = 47
PR_CAP_AMBIENT_CLEAR_ALL: Final = 4
SECCOMP_SET_MODE_FILTER: Final = 1
SECCOMP_FILTER_FLAG_TSYNC: Final = 1
"""All threads, also those that an import has started."""

CAPABILITY_VERSION_3: Final = 0x20080522

RET_KILL_PROCESS: Final = 0x80000000
RET_ERRNO: Final = 0x00050000
RET_ALLOW: Final = 0x7FFF0000

LOAD: Final = 0x20  # BPF_LD | BPF_W | BPF_ABS
JUMP_EQUAL: Final = 0x15  # BPF_JMP | BPF_JEQ | BPF_K
JUMP_AT_LEAST: Final = 0x35  # BPF_JMP | BPF_JGE | BPF_K
JUMP_ANY_BIT: Final = 0x45  # BPF_JMP | BPF_JSET | BPF_K
RETURN: Final = 0x06  # BPF_RET | BPF_K

DATA_NUMBER: Final = 0
DATA_ARCHITECTURE: Final = 4
DATA_ARGUMENT_0: Final = 16
DATA_ARGUMENT_1: Final = 24
"""Offsets in struct seccomp_data; the low half of an argument comes first on the little-endian machines below."""

TERMINAL_INPUT: Final = (0x5412, 0x541C)
"""TIOCSTI and TIOCLINUX, asm-generic/ioctls.h: they type into the terminal that `capd up` was started from, which is root's."""
LOCAL_ONLY: Final = (socket.AF_UNIX,)
INTERNET: Final = (socket.AF_UNIX, socket.AF_INET, socket.AF_INET6, socket.AF_NETLINK)
"""The last is how the resolver sees which addresses this host has."""
NAMESPACE_FLAGS: Final = 0x7E020080
"""CLONE_NEWTIME, NEWNS, NEWCGROUP, NEWUTS, NEWIPC, NEWUSER, NEWPID, NEWNET: a user namespace would give capabilities back."""


@dataclass(frozen=True, kw_only=True)
class Machine:
    """What the filter must know of a processor architecture.

    Attributes:
        audit: AUDIT_ARCH_* of linux/audit.h.
        foreign_from: numbers from here on are another calling convention (x32); None where there is none.
        ioctl, socket, clone, clone3: numbers of the calls whose arguments are looked at.
        forbidden: numbers of the calls that always fail with EPERM, by name.
    """

    audit: int
    foreign_from: int | None
    ioctl: int
    socket: int
    clone: int
    clone3: int
    forbidden: dict[str, int]


# Numbers on x86_64 (asm/unistd_64.h), then on aarch64 (asm-generic/unistd.h).
_FORBIDDEN: Final = {
    "execve": (59, 221),
    "execveat": (322, 281),
    "ptrace": (101, 117),
    "process_vm_readv": (310, 270),
    "process_vm_writev": (311, 271),
    "kcmp": (312, 272),
    "pidfd_getfd": (438, 438),
    "bpf": (321, 280),
    "perf_event_open": (298, 241),
    "userfaultfd": (323, 282),
    "io_uring_setup": (425, 425),  # would open sockets without the socket call
    "io_uring_enter": (426, 426),
    "io_uring_register": (427, 427),
    "unshare": (272, 97),
    "setns": (308, 268),
    "mount": (165, 40),
    "umount2": (166, 39),
    "move_mount": (429, 429),
    "open_tree": (428, 428),
    "fsopen": (430, 430),
    "fsmount": (432, 432),
    "pivot_root": (155, 41),
    "chroot": (161, 51),
    "init_module": (175, 105),
    "finit_module": (313, 273),
    "delete_module": (176, 106),
    "kexec_load": (246, 104),
    "kexec_file_load": (320, 294),
    "open_by_handle_at": (304, 265),
    "add_key": (248, 217),
    "request_key": (249, 218),
    "keyctl": (250, 219),
    "personality": (135, 92),
    "reboot": (169, 142),
    "swapon": (167, 224),
    "swapoff": (168, 225),
    "acct": (163, 89),
    "quotactl": (179, 60),
    "setuid": (105, 146),
    "setgid": (106, 144),
    "setreuid": (113, 145),
    "setregid": (114, 143),
    "setresuid": (117, 147),
    "setresgid": (119, 149),
    "setgroups": (116, 159),
    "capset": (126, 91),
    "fanotify_init": (300, 262),
    "syslog": (103, 116),
}

MACHINES: Final = {
    "x86_64": Machine(
        audit=0xC000003E,
        foreign_from=0x40000000,
        ioctl=16,
        socket=41,
        clone=56,
        clone3=435,
        forbidden={name: numbers[0] for name, numbers in _FORBIDDEN.items()},
    ),
    "aarch64": Machine(
        audit=0xC00000B7,
        foreign_from=None,
        ioctl=29,
        socket=198,
        clone=220,
        clone3=435,
        forbidden={name: numbers[1] for name, numbers in _FORBIDDEN.items()},
    ),
}
SECCOMP_CALL: Final = {"x86_64": 317, "aarch64": 277}
CAPSET_CALL: Final = {"x86_64": 126, "aarch64": 91}

Instruction = tuple[int, int, int, int]
"""code, jump if true, jump if false, operand: struct sock_filter."""


def assemble(machine: Machine, families: Sequence[int] = LOCAL_ONLY) -> list[Instruction]:
    """Give the syscall filter for an architecture and the families of sockets that it lets be opened.

    A process of another architecture is killed. The forbidden calls, `socket` for anything but those families, `clone` into a
    new namespace and `ioctl` that types into a terminal fail with EPERM. `clone3`, whose flags a filter cannot see, fails with
    ENOSYS: libc then uses `clone`.
    """
    refuse = (RETURN, 0, 0, RET_ERRNO | errno.EPERM)
    program: list[Instruction] = [
        (LOAD, 0, 0, DATA_ARCHITECTURE),
        (JUMP_EQUAL, 1, 0, machine.audit),
        (RETURN, 0, 0, RET_KILL_PROCESS),
        (LOAD, 0, 0, DATA_NUMBER),
    ]
    if machine.foreign_from is not None:
        program += [(JUMP_AT_LEAST, 0, 1, machine.foreign_from), refuse]
    for number in machine.forbidden.values():
        program += [(JUMP_EQUAL, 0, 1, number), refuse]
    program += [
        (JUMP_EQUAL, 0, 1, machine.clone3),
        (RETURN, 0, 0, RET_ERRNO | errno.ENOSYS),
        (JUMP_EQUAL, 0, 2 + 2 * len(TERMINAL_INPUT), machine.ioctl),
        (LOAD, 0, 0, DATA_ARGUMENT_1),
    ]
    for request in TERMINAL_INPUT:
        program += [(JUMP_EQUAL, 0, 1, request), refuse]
    program += [
        (RETURN, 0, 0, RET_ALLOW),
        (JUMP_EQUAL, 0, 2 + 2 * len(families), machine.socket),
        (LOAD, 0, 0, DATA_ARGUMENT_0),
    ]
    for family in families:
        program += [(JUMP_EQUAL, 0, 1, family), (RETURN, 0, 0, RET_ALLOW)]
    program += [
        refuse,
        (JUMP_EQUAL, 0, 3, machine.clone),
        (LOAD, 0, 0, DATA_ARGUMENT_0),
        (JUMP_ANY_BIT, 0, 1, NAMESPACE_FLAGS),
        refuse,
        (RETURN, 0, 0, RET_ALLOW),
    ]
    return program


def confine(uid: int, gid: int, *, families: Sequence[int] = LOCAL_ONLY, who: str = "recorder") -> None:
    """Become `uid` and `gid` with nothing else, and close every way back. Cannot be undone.

    `families`: of the sockets that it may open; `who`: the role, for messages.

    Called as root it changes the user; called as `uid` (a systemd unit with `User=`) it takes the remaining steps. The
    parent-death signal, which the kernel forgets when the user changes, is kept.

    Raises:
        RoleIsRootError: that would be root.
        SandboxError: a step failed, or something was left afterwards. The caller must end.
    """
    machine = MACHINES.get(platform.machine())
    if machine is None:
        raise SandboxError(f"the {who}'s syscall filter knows {' and '.join(MACHINES)}, not {platform.machine()}")
    if uid == 0 or gid == 0:
        raise RoleIsRootError(f"the {who} must be neither root nor in root's group: it would be user {uid}, group {gid}")
    libc = ctypes.CDLL(None, use_errno=True)
    parent_death_signal = ctypes.c_int(0)
    _prctl(libc, PR_GET_PDEATHSIG, ctypes.addressof(parent_death_signal))
    try:
        if os.geteuid() == 0:
            _leave_root(libc, uid, gid)
    except OSError as error:
        raise SandboxError(f"cannot become user {uid}, group {gid}: {error.strerror}") from error
    _drop_capabilities(libc)
    _prctl(libc, PR_SET_PDEATHSIG, parent_death_signal.value)
    # Behind the change of the user, with which fs.suid_dumpable decides anew.
    leave_no_dump()
    _prctl(libc, PR_SET_NO_NEW_PRIVS, 1)
    _install(libc, assemble(machine, families))
    _check(uid, gid, who)


def leave_no_dump() -> None:
    """Keep what is in memory there: no core dump is made of this process, and nobody of its user can look into it.

    The limit is for what it starts, for which the other is forgotten; a `core_pattern` that is a program, as of
    systemd-coredump, is given dumps whatever the limit (core(5)).

    Raises:
        SandboxError: it cannot be done.
    """
    try:
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    except (OSError, ValueError) as error:
        raise SandboxError(f"cannot switch off core dumps: {error}") from error
    _prctl(ctypes.CDLL(None, use_errno=True), PR_SET_DUMPABLE, 0)


def parent_death_signal(number: int) -> None:
    """Have the kernel send this process a signal when its parent dies.

    Raises:
        SandboxError: it refused.
    """
    _prctl(ctypes.CDLL(None, use_errno=True), PR_SET_PDEATHSIG, number)


def _leave_root(libc: ctypes.CDLL, uid: int, gid: int) -> None:
    for capability in range(int(Path("/proc/sys/kernel/cap_last_cap").read_text(encoding="ascii")) + 1):
        _prctl(libc, PR_CAPBSET_DROP, capability)
    _prctl(libc, PR_SET_KEEPCAPS, 0)
    os.setgroups([])
    os.setresgid(gid, gid, gid)
    os.setresuid(uid, uid, uid)


def _drop_capabilities(libc: ctypes.CDLL) -> None:
    _prctl(libc, PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL)
    header = struct.pack("=Ii", CAPABILITY_VERSION_3, 0)
    nothing = bytes(24)
    if libc.syscall(CAPSET_CALL[platform.machine()], header, nothing):
        raise SandboxError(f"cannot drop capabilities: {os.strerror(ctypes.get_errno())}")


def _prctl(libc: ctypes.CDLL, option: int, argument: int) -> None:
    zero = ctypes.c_ulong(0)
    if libc.prctl(option, ctypes.c_ulong(argument), zero, zero, zero):
        raise SandboxError(f"prctl({option}, {argument}): {os.strerror(ctypes.get_errno())}")


def _install(libc: ctypes.CDLL, program: Iterable[Instruction]) -> None:
    code = b"".join(struct.pack("=HBBI", *instruction) for instruction in program)
    buffer = ctypes.create_string_buffer(code, len(code))
    description = struct.pack("=H6xQ", len(code) // 8, ctypes.addressof(buffer))
    call = SECCOMP_CALL[platform.machine()]
    if libc.syscall(call, SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_TSYNC, description):
        raise SandboxError(f"cannot install the syscall filter: {os.strerror(ctypes.get_errno())}")


def _check(uid: int, gid: int, who: str) -> None:
    """Believe the kernel, not our own steps."""
    status = dict(
        line.split(":\t", 1) for line in Path("/proc/self/status").read_text(encoding="utf-8").splitlines() if ":\t" in line
    )
    expected = {
        "Uid": "\t".join([str(uid)] * 4),
        "Gid": "\t".join([str(gid)] * 4),
        "CapInh": "0" * 16,
        "CapPrm": "0" * 16,
        "CapEff": "0" * 16,
        "CapAmb": "0" * 16,
        "NoNewPrivs": "1",
        "Seccomp": "2",
    }
    left = [f"{key} is {status.get(key)}" for key, value in expected.items() if status.get(key) != value]
    if left:
        raise SandboxError(f"the {who} is not confined: {', '.join(left)}")
