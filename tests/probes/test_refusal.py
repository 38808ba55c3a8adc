"""Refusing new connections: of one cgroup, by every way, with real sockets, and nothing left behind."""

from __future__ import annotations

import contextlib
import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from capd.probes.refusal import Refusal
from tests.probes.watching import PYTHON, cgroup_root
from tests.requirements import require, require_probes

TRY = """
import json, socket, sys
def attempt(call):
    try: call()
    except OSError as error: return error.strerror
    return "done"
hosts = {socket.AF_INET: "127.0.0.1", socket.AF_INET6: "::1"}
streams = {family: socket.create_server((host, 0), family=family) for family, host in hosts.items()}
before = socket.create_connection(streams[socket.AF_INET].getsockname())
peer, _ = streams[socket.AF_INET].accept()
print("ready", flush=True)
for line in sys.stdin:
    results = {}
    for family, server in streams.items():
        with socket.socket(family) as client:
            results[f"connect {family.name}"] = attempt(lambda: client.connect(server.getsockname()))
        with socket.socket(family, socket.SOCK_DGRAM) as sink, socket.socket(family, socket.SOCK_DGRAM) as client:
            sink.bind((server.getsockname()[0], 0))
            results[f"sendto {family.name}"] = attempt(lambda: client.sendto(b"x", sink.getsockname()))
    results["open connection"] = attempt(lambda: (before.send(b"x"), peer.recv(1)))
    print(json.dumps(results), flush=True)
"""


class Agent:
    """A process in a cgroup of its own that tries on demand."""

    def __init__(self, cgroup: Path) -> None:
        self.cgroup = cgroup
        self.process = subprocess.Popen([PYTHON, "-c", TRY], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        (cgroup / "cgroup.procs").write_text(str(self.process.pid))
        assert self.process.stdout is not None
        assert self.process.stdout.readline() == "ready\n"

    def attempt(self) -> dict[str, Any]:
        """Try everything; give what came of it."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write("go\n")
        self.process.stdin.flush()
        found: dict[str, Any] = json.loads(self.process.stdout.readline())
        return found


@pytest.fixture
def agents() -> Iterator[tuple[Agent, Agent]]:
    """Give two processes, one of them in a cgroup below the other's neighbour."""
    require_probes()
    root = cgroup_root()
    require(root is not None, "needs cgroup2")
    assert root is not None
    places = [root / "capd-test-refused" / "below", root / "capd-test-free"]
    made = []
    for place in places:
        place.mkdir(parents=True)
        made.append(Agent(place))
    yield made[0], made[1]
    for agent in made:
        agent.process.kill()
        agent.process.communicate()
    for place in (*places, root / "capd-test-refused"):
        with contextlib.suppress(OSError):
            place.rmdir()


def programs() -> int:
    """Count this process's BPF programs and links."""
    return sum("bpf-prog" in str(entry.readlink()) or "bpf_link" in str(entry.readlink()) for entry in _descriptors())


def _descriptors() -> list[Path]:
    return [entry for entry in Path("/proc/self/fd").iterdir() if entry.is_symlink()]


def test_new_connections_of_a_cgroup_are_refused_and_of_no_other(agents: tuple[Agent, Agent]) -> None:
    """TCP and UDP of both families fail with EPERM below the cgroup, what is open goes on, and afterwards all is as before."""
    refused, free = agents
    everything = dict.fromkeys(refused.attempt(), "done")
    held = refused.cgroup.parent
    before = programs()
    refusal = Refusal()
    assert [] == refusal.hold({held.stat().st_ino: held})
    nothing = dict.fromkeys(everything, "Operation not permitted") | {"open connection": "done"}
    assert (nothing, everything) == (refused.attempt(), free.attempt())
    assert (4, 1) == (refusal.refused, len(refusal))
    assert [] == refusal.hold({held.stat().st_ino: held, free.cgroup.stat().st_ino: free.cgroup})
    assert nothing == free.attempt()
    assert [] == refusal.hold({held.stat().st_ino: held})
    assert everything == free.attempt()
    refusal.release()
    assert everything == refused.attempt()
    assert (before, 8) == (programs(), refusal.refused)


def test_a_cgroup_that_ended_is_no_problem_and_what_is_none_is_told(agents: tuple[Agent, Agent], tmp_path: Path) -> None:
    """A run that ended meanwhile is passed over; a directory that is no cgroup is named, and nothing stays behind."""
    before = programs()
    refusal = Refusal()
    (problem,) = refusal.hold({1: tmp_path / "gone", 2: tmp_path})
    assert f"connections of {tmp_path} cannot be refused: " in problem
    refusal.release()
    assert before == programs()
