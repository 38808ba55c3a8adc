"""The recorder's confinement, proved by trying to break out of it."""

from __future__ import annotations

import json
import os
import platform
import resource
import subprocess
import sys
from pathlib import Path

import pytest

from capd.daemon import confinement
from capd.daemon.errors import RoleIsRootError
from tests.requirements import require, require_root

UID = 61184
DIES = """
import os, resource, signal, sys
from capd.daemon.confinement import leave_no_dump
hard = resource.getrlimit(resource.RLIMIT_CORE)[1]
resource.setrlimit(resource.RLIMIT_CORE, (hard, hard))
resource.setrlimit = lambda *_: None  # as for a program in core_pattern, which no limit holds
{step}
os.kill(os.getpid(), signal.SIGSEGV)
"""
LOOKS = """
import os, sys
from capd.daemon.confinement import confine
confine(61184, 61184)
child = os.fork()
if child == 0:
    sys.stdin.read()
    os._exit(0)
try:
    os.readlink(f"/proc/{child}/cwd")
    print("looked")
except PermissionError:
    print("refused")
"""
REPOSITORY = Path(__file__).parents[2]

TRIES = """
import ctypes, json, os, signal, socket, sqlite3, subprocess, sys, threading
from capd.daemon.confinement import confine, PR_GET_PDEATHSIG, PR_SET_PDEATHSIG
libc = ctypes.CDLL(None, use_errno=True)
libc.prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
confine(61184, 61184)
found = {}
def attempt(name, action):
    try:
        action()
        found[name] = "allowed"
    except OSError as error:
        found[name] = os.strerror(error.errno)
def call(number, *arguments):
    if libc.syscall(number, *arguments) < 0:
        raise OSError(ctypes.get_errno(), "")
attempt("socket inet", lambda: socket.socket(socket.AF_INET))
attempt("socket inet6", lambda: socket.socket(socket.AF_INET6, socket.SOCK_DGRAM))
attempt("socket netlink", lambda: socket.socket(socket.AF_NETLINK, socket.SOCK_RAW))
attempt("socket packet", lambda: socket.socket(socket.AF_PACKET, socket.SOCK_RAW))
attempt("socket unix", lambda: socket.socket(socket.AF_UNIX).close())
attempt("execve", lambda: os.execv("/bin/true", ["true"]))
attempt("subprocess", lambda: subprocess.run(["/bin/true"], check=True))
attempt("ptrace", lambda: call(101, 0, 0, 0, 0))
attempt("bpf", lambda: call(321, 0, 0, 0))
attempt("perf_event_open", lambda: call(298, 0, 0, 0, 0, 0))
attempt("io_uring_setup", lambda: call(425, 1, 0))
import fcntl, pty, termios
terminal = pty.openpty()[1]
attempt("ioctl tiocsti", lambda: fcntl.ioctl(terminal, termios.TIOCSTI, b"x"))
attempt("ioctl tioclinux", lambda: fcntl.ioctl(terminal, 0x541C, b"x"))
attempt("ioctl window size", lambda: fcntl.ioctl(terminal, termios.TIOCGWINSZ, bytes(8)))
attempt("unshare user", lambda: call(272, 0x10000000))
attempt("clone user", lambda: call(56, 0x10000000 | signal.SIGCHLD, 0, 0, 0, 0))
attempt("setuid root", lambda: os.setuid(0))
attempt("read shadow", lambda: open("/etc/shadow"))
attempt("kill parent", lambda: os.kill(os.getppid(), 0))
attempt("x32 socket", lambda: call(0x40000000 + 41, 2, 1, 0))
def fork():
    child = os.fork()
    if child == 0:
        os._exit(0)
    os.waitpid(child, 0)
attempt("fork", fork)
thread = threading.Thread(target=lambda: found.update(thread="ran"))
thread.start(); thread.join()
found["sqlite"] = sqlite3.connect(":memory:").execute("select 1").fetchone()[0]
signal_number = ctypes.c_int(0)
libc.prctl(PR_GET_PDEATHSIG, ctypes.byref(signal_number))
found["parent-death signal"] = signal_number.value
status = dict(line.split(":\\t", 1) for line in open("/proc/self/status").read().splitlines() if ":\\t" in line)
found["status"] = {key: status[key].split() for key in
    ("Uid", "Gid", "Groups", "CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb", "NoNewPrivs", "Seccomp")}
print(json.dumps(found))
"""

NOTHING = ["0" * 16]
REFUSED = "Operation not permitted"

EXPECTED = {
    "socket inet": REFUSED,
    "socket inet6": REFUSED,
    "socket netlink": REFUSED,
    "socket packet": REFUSED,
    "socket unix": "allowed",
    "execve": REFUSED,
    "subprocess": REFUSED,
    "ptrace": REFUSED,
    "bpf": REFUSED,
    "perf_event_open": REFUSED,
    "io_uring_setup": REFUSED,
    "ioctl tiocsti": REFUSED,
    "ioctl tioclinux": REFUSED,
    "ioctl window size": "allowed",
    "unshare user": REFUSED,
    "clone user": REFUSED,
    "setuid root": REFUSED,
    "read shadow": "Permission denied",
    "kill parent": REFUSED,
    "x32 socket": REFUSED,
    "fork": "allowed",
    "thread": "ran",
    "sqlite": 1,
    "parent-death signal": 15,
    "status": {
        "Uid": [str(UID)] * 4,
        "Gid": [str(UID)] * 4,
        "Groups": [],
        "CapInh": NOTHING,
        "CapPrm": NOTHING,
        "CapEff": NOTHING,
        "CapBnd": NOTHING,
        "CapAmb": NOTHING,
        "NoNewPrivs": ["1"],
        "Seccomp": ["2"],
    },
}

machine_known = pytest.mark.skipif(platform.machine() != "x86_64", reason="the tries use the call numbers of x86_64")


@pytest.mark.usefixtures("root")
@machine_known
def test_confined_process_reaches_nothing_outside_and_still_works() -> None:
    """Once confined there is no root, no capability, no network, no exec, no other process; fork, threads and files stay."""
    done = subprocess.run([sys.executable, "-P", "-c", TRIES], capture_output=True, text=True, check=False, timeout=30)
    assert (0, "") == (done.returncode, done.stderr)
    assert EXPECTED == json.loads(done.stdout)


@pytest.mark.usefixtures("root")
@pytest.mark.parametrize(("uid", "gid"), [(0, 61184), (61184, 0), (0, 0)])
def test_root_is_no_recorder(uid: int, gid: int) -> None:
    """Neither user nor group root is accepted, before anything is given up."""
    with pytest.raises(RoleIsRootError, match="must be neither root nor in root's group"):
        confinement.confine(uid, gid)
    assert os.geteuid() == 0


@pytest.mark.parametrize("machine", confinement.MACHINES.values(), ids=confinement.MACHINES)
def test_filter_decides_as_documented(machine: confinement.Machine) -> None:
    """For both architectures the assembled program, run in a small interpreter, gives the documented answer."""
    allowed, refused = confinement.RET_ALLOW, confinement.RET_ERRNO | 1
    cases = [
        (machine.audit ^ 1, 0, 0, confinement.RET_KILL_PROCESS),
        (machine.audit, machine.socket, 1, allowed),
        (machine.audit, machine.socket, 2, refused),
        (machine.audit, machine.socket, 10, refused),
        (machine.audit, machine.clone, 0x11, allowed),
        (machine.audit, machine.clone, 0x10000011, refused),
        (machine.audit, machine.clone3, 0, confinement.RET_ERRNO | 38),
        (machine.audit, 0, 2, allowed),
        *((machine.audit, number, 0, refused) for number in machine.forbidden.values()),
    ]
    program = confinement.assemble(machine)
    assert [case[3] for case in cases] == [_run(program, *case[:3]) for case in cases]


def _run(program: list[confinement.Instruction], architecture: int, number: int, argument: int) -> int:
    """Interpret the five instructions that the filter uses."""
    values = {
        confinement.DATA_ARCHITECTURE: architecture,
        confinement.DATA_NUMBER: number,
        confinement.DATA_ARGUMENT_0: argument,
    }
    accumulator = position = 0
    while True:
        code, if_true, if_false, operand = program[position]
        position += 1
        if code == confinement.RETURN:
            return operand
        if code == confinement.LOAD:
            accumulator = values[operand]
            continue
        holds = {
            confinement.JUMP_EQUAL: accumulator == operand,
            confinement.JUMP_AT_LEAST: accumulator >= operand,
            confinement.JUMP_ANY_BIT: bool(accumulator & operand),
        }[code]
        position += if_true if holds else if_false


@pytest.mark.parametrize(("step", "dumped"), [("", True), ("leave_no_dump()", False)], ids=["as it is", "without dumps"])
def test_what_is_in_memory_stays_there(step: str, dumped: bool, tmp_path: Path) -> None:
    """A process that wants no dump leaves none, whatever its limit."""
    require(resource.getrlimit(resource.RLIMIT_CORE)[1] != 0, "needs core dumps")
    program = DIES.format(step=step)
    started = subprocess.Popen([sys.executable, "-P", "-c", program], cwd=tmp_path, stderr=subprocess.DEVNULL)
    _, status = os.waitpid(started.pid, 0)
    started.returncode = status
    assert os.WTERMSIG(status)
    assert dumped is os.WCOREDUMP(status)


def test_a_confined_process_is_closed_to_others_of_its_user() -> None:
    """One that was confined cannot be looked into by another of its user, also where systemd made it that user."""
    require_root()
    command = [sys.executable, "-P", "-c", LOOKS]
    who = {"user": UID, "group": UID, "extra_groups": ()}
    done = subprocess.run(command, input=b"", capture_output=True, check=True, **who)  # type: ignore[call-overload] # as named
    assert b"refused\n" == done.stdout
