"""The canary: a process that tries, as an agent would, whether forcing works, and what its findings mean.

What lives here: the process's text, starting it, judging what it says. What must not: the clock, what follows.

It lives for a fraction of a second in a cgroup below the parent of all runs. Nothing it does leaves the host, even if nothing
is forced: all addresses are loopback's, and nobody listens at them.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from capd.enforcer.forcing.plan import CANARY_ADDRESS4, CANARY_ADDRESS6, CANARY_PORT

AGAIN_SECONDS: Final = 2.0
"""From a canary that found something wrong to the next: whoever starts the enforcer then looks at the status."""
ANSWER_BYTES_MAX: Final = 4096
NO_IPV6: Final = {"EADDRNOTAVAIL", "EAFNOSUPPORT", "ENETUNREACH"}
REFUSED: Final = {"EPERM", "EACCES", "ECONNREFUSED"}
REACHED: Final = {"done", "ECONNRESET"}
"""The enforcer closes such a connection, sometimes before the canary has seen that it was made."""
CLONE_NEWNET: Final = 0x40000000

TEXT: Final = """
import ctypes, errno, json, socket, sys
address, address6, canary_port, proxy_port, namespace, kind = *sys.argv[1:3], *map(int, sys.argv[3:])
sys.stdin.readline()
if namespace >= 0 and ctypes.CDLL(None).setns(namespace, kind): sys.exit("no such namespace")
def attempt(family, host, port, kind=socket.SOCK_STREAM):
    try:
        with socket.socket(family, kind) as client:
            client.settimeout(1)
            if kind == socket.SOCK_DGRAM: client.sendto(b"canary", (host, port))
            else: client.connect((host, port))
        return "done"
    except TimeoutError: return "timeout"
    except OSError as error: return errno.errorcode.get(error.errno, str(error))
print(json.dumps({
    "redirected": attempt(socket.AF_INET, address, canary_port),
    "redirected6": attempt(socket.AF_INET6, address6, canary_port),
    "direct": attempt(socket.AF_INET, "127.0.0.1", proxy_port),
    "datagram": attempt(socket.AF_INET, address, canary_port, socket.SOCK_DGRAM),
}))
"""


@dataclass(frozen=True, kw_only=True)
class Findings:
    """What a canary found.

    Attributes:
        open: ways by which traffic gets around the enforcer; each is an alarm.
        closed: what keeps traffic from the enforcer, so that agents reach nothing.
        unknown: why it says nothing, or None.
    """

    open: tuple[str, ...] = ()
    closed: tuple[str, ...] = ()
    unknown: str | None = None

    @property
    def result(self) -> str:
        """Say it in a word: `forced`, `closed`, `open` or `unknown`."""
        if self.unknown is not None:
            return "unknown"
        return "open" if self.open else "closed" if self.closed else "forced"


def judge(said: Mapping[str, str], *, enforced: bool, elsewhere: bool = False) -> Findings:
    """Say what the attempts mean.

    Args:
        said: what came of each: `done`, `timeout` or an error's name; empty when it gave no answer.
        enforced: whether what is not redirected is to be refused.
        elsewhere: whether it tried in a network namespace of others, whose root may keep an attempt from succeeding in any way
            there is: only what succeeds gets around us there.
    """
    if not said:
        return Findings(unknown="it gave no answer")
    opened, closed = [], []
    for name, family in (("redirected", "IPv4"), ("redirected6", "IPv6")):
        outcome = said.get(name, "no answer")
        if outcome in REACHED or (name == "redirected6" and outcome in NO_IPV6):
            continue
        words = "the enforcer does not listen" if outcome == "ECONNREFUSED" else f"a connection does not reach it: {outcome}"
        closed.append(f"{family}: {words}")
    if enforced:
        for name, what in (("direct", "a connection that is not redirected"), ("datagram", "a datagram")):
            outcome = said.get(name, "no answer")
            if outcome in REACHED or (outcome not in REFUSED and not elsewhere):
                opened.append(f"{what} is not refused: {outcome}")
    return Findings(open=tuple(opened), closed=tuple(closed))


class Pace:
    """How soon a canary tries again: at once, nearly, after one that found something wrong, so that what is mended is seen.

    What stays wrong is tried more and more seldom: each canary is an interpreter that starts.
    """

    def __init__(self, seconds_max: float) -> None:
        """Take the seconds from one canary to the next where nothing is wrong."""
        self._again, self._seconds_max = AGAIN_SECONDS, seconds_max

    def after(self, findings: Findings) -> float:
        """Give the seconds from this canary's answer to the next canary at the latest."""
        if findings.result == "forced":
            self._again = AGAIN_SECONDS
            return self._seconds_max
        again, self._again = self._again, min(2 * self._again, self._seconds_max)
        return again


class Canary:
    """One process that tries. The caller looks after it until it has answered."""

    def __init__(self, cgroup: Path, proxy_port: int, namespace: int | None = None) -> None:
        """Start it and put it into a cgroup before it tries anything.

        Args:
            cgroup: where it lives.
            proxy_port: where the proxy listens.
            namespace: descriptor of the network namespace in which it tries; None: ours.

        Raises:
            OSError: it cannot be started, or not be put there.
        """
        where = -1 if namespace is None else namespace
        arguments = [CANARY_ADDRESS4, CANARY_ADDRESS6, *map(str, (CANARY_PORT, proxy_port, where, CLONE_NEWNET))]
        self._process = subprocess.Popen(
            [sys.executable, "-I", "-S", "-c", TEXT, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            pass_fds=() if namespace is None else (namespace,),
        )
        try:
            (cgroup / "cgroup.procs").write_text(str(self._process.pid), encoding="ascii")
            assert self._process.stdin is not None
            self._process.stdin.write(b"go\n")
            self._process.stdin.flush()
        except OSError:
            self.kill()
            raise

    def answer(self) -> dict[str, str] | None:
        """Give what it said; None while it tries. What is no answer is an empty one."""
        if self._process.poll() is None:
            return None
        assert self._process.stdout is not None
        said = self._process.stdout.read(ANSWER_BYTES_MAX)
        self._close()
        try:
            found = json.loads(said)
        except ValueError:
            return {}
        return {str(key): str(value) for key, value in found.items()} if isinstance(found, dict) else {}

    def kill(self) -> None:
        """End it."""
        self._process.kill()
        self._process.wait()
        self._close()

    def _close(self) -> None:
        for stream in (self._process.stdin, self._process.stdout):
            if stream is not None:
                stream.close()
