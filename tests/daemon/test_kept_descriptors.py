"""What a service manager gives to a process that it starts: only a netfilter socket of our own network namespace is taken."""

from __future__ import annotations

import socket
import subprocess
import sys

import pytest

from capd.enforcer.forcing.ruleset import NETLINK_NETFILTER
from tests.daemon.conftest import ENVIRONMENT

TAKES = """
import os, sys
from capd.daemon.descriptor_store import close_all, received
from capd.daemon.kept_descriptors import take
source, count, names, pid = sys.argv[1:]
kept = os.dup(int(source))  # its number may be one of those below
os.dup2(kept, 99)
os.closerange(3, 99)
for number in range(3, 3 + int(count)): os.dup2(99, number)
os.environ.update(LISTEN_FDS=count, LISTEN_FDNAMES=names, LISTEN_PID=str(os.getpid()) if pid == "own" else pid)
came = received(os.environ)
found = take(came)
for others in came.values(): close_all(others)
def is_open(number):
    try: os.fstat(number)
    except OSError: return False
    return True
left = [number for number in range(3, 3 + int(count)) if is_open(number)]
print(None if found is None else found.fileno(), left, [name for name in os.environ if name.startswith("LISTEN_")])
"""
NETFILTER = (socket.AF_NETLINK, socket.SOCK_RAW, NETLINK_NETFILTER)
CASES = [
    pytest.param(NETFILTER, 1, "capd-table", "own", "3 [3] []", id="ours"),
    pytest.param(NETFILTER, 2, "other:capd-table", "own", "4 [4] []", id="another's comes first"),
    pytest.param(NETFILTER, 2, "capd-table:capd-table", "own", "3 [3] []", id="twice"),
    pytest.param(NETFILTER, 1, "other", "own", "None [] []", id="another's"),
    pytest.param(NETFILTER, 1, "capd-table", "1", "None [3] []", id="for another process"),
    pytest.param((socket.AF_NETLINK, socket.SOCK_RAW, 0), 1, "capd-table", "own", "None [] []", id="another protocol"),
    pytest.param((socket.AF_UNIX, socket.SOCK_STREAM, 0), 1, "capd-table", "own", "None [] []", id="another family"),
]


@pytest.mark.parametrize(("kind", "count", "names", "pid", "expected"), CASES)
def test_only_our_own_is_taken(kind: tuple[int, int, int], count: int, names: str, pid: str, expected: str) -> None:
    """What does not fit is closed, what is for another process is left alone, and children hear of none of it."""
    with socket.socket(*kind) as source:
        words = [str(source.fileno()), str(count), names, pid]
        done = subprocess.run(
            [sys.executable, "-P", "-c", TAKES, *words],
            pass_fds=[source.fileno()],
            env=ENVIRONMENT,
            capture_output=True,
            text=True,
            check=False,
        )
    assert (expected, "") == (done.stdout.strip(), done.stderr)
