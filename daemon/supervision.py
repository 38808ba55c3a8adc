"""`capd up`: all roles as one process tree in the foreground.

What lives here: starting, watching, restarting and ending the roles. What must not: what a role does. A role is a process of
its own from its first instruction (fork and exec), in the same session and process group, so that a terminal and `kill` treat
the tree as one; and each asks the kernel to be told when this process dies, so that nothing is left behind however it dies.
"""

from __future__ import annotations

import ctypes
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from capd.daemon import control_client
from capd.daemon.confinement import PR_SET_PDEATHSIG
from capd.daemon.errors import DaemonUnreachableError

BACKOFF_SECONDS_MIN: Final = 0.2
BACKOFF_SECONDS_MAX: Final = 30.0
"""A role that cannot live costs two starts a minute."""
STEADY_SECONDS: Final = 60.0
"""A role that lived this long has its backoff forgiven."""
STOP_SECONDS_MAX: Final = {"daemon": 15.0, "recorder": 30.0, "enforcer": 10.0, "shipper": 10.0, "metrics": 5.0}
"""How long a role may take to end by itself: the daemon drains, then the recorder seals what the daemon left. What is not
shipped by then is shipped after the next start."""
SECRETS: Final = re.compile(r"AWS_(SECRET|SESSION|ACCESS|WEB|CONTAINER).*|AZURE_.*|GOOGLE_.*")
"""Environment variables that only the role which talks to the bucket needs."""
TRUSTED: Final = frozenset({"shipper", "catalogue"})
"""Who talks to the bucket."""
ERRAND_STOP_SECONDS_MAX: Final = 5.0
FIRST_TO_END: Final = "metrics"
"""It would take the end of the others for something that is wrong."""
KEPT: Final = {
    "recorder": "; the journal keeps what is captured",
    "enforcer": "; what agents send is refused until then",
    "shipper": "; what is not shipped stays on this host",
}
ERRAND_PAUSE_SECONDS_MAX: Final = 900.0
ERRAND_SECONDS_MAX: Final = 1800.0
"""An errand that takes longer hangs: each request it makes has a limit of its own."""
POLL_SECONDS: Final = 0.05

Say = Callable[[str], None]
_LIBC: Final = ctypes.CDLL(None, use_errno=True)
"""Looked up before the fork: between fork and exec as little as possible may happen."""


@dataclass(kw_only=True)
class Role:
    """A child and how its life went.

    Attributes:
        name: its verb.
        process: the current one.
        started: monotonic time of its start.
        backoff: seconds to wait before the next start.
        due: monotonic time of the next start, None while it runs.
    """

    name: str
    process: subprocess.Popen[bytes] | None = None
    started: float = 0.0
    backoff: float = 0.0
    due: float | None = 0.0


@dataclass(kw_only=True)
class Errand:
    """A child that does something and ends, now and then.

    Attributes:
        name: its verb.
        wanted: tells whether there is anything to do.
        process: the current one.
        due: monotonic time from which on it may be started again.
        every: seconds from one start to the next.
        failures: how often in a row it failed.
    """

    name: str
    wanted: Callable[[], bool]
    every: float
    process: subprocess.Popen[bytes] | None = None
    due: float = 0.0
    failures: int = 0

    def attend(self, now: float, start: Callable[[str], subprocess.Popen[bytes]], say: Say) -> None:
        """Look after the process, and start it when it is due and wanted.

        Args:
            now: monotonic time.
            start: starts a verb.
            say: tells the operator one line.
        """
        if self.process is not None and self.process.poll() is None:
            if now > self.due + ERRAND_SECONDS_MAX:
                say(f"{self.name} has not ended for {ERRAND_SECONDS_MAX:.0f} s, killing it; the next one goes on")
                self.process.kill()
            return
        if self.process is not None:
            self.failures = 0 if self.process.returncode == 0 else self.failures + 1
            self.process = None
            if self.failures:
                self.due = now + min(self.every * 2**self.failures, ERRAND_PAUSE_SECONDS_MAX)
        if now >= self.due and self.wanted():
            self.process = start(self.name)
            self.due = now + self.every


class Supervisor:
    """Keeps the roles of one instance alive until it is told to stop."""

    def __init__(
        self,
        arguments: Sequence[str],
        control_socket: Path,
        say: Say,
        *,
        others: Sequence[str] = (),
        errands: Sequence[Errand] = (),
    ) -> None:
        """Prepare.

        Args:
            arguments: what every role's command line ends with, such as --config.
            control_socket: where the daemon answers once it is ready.
            say: tells the operator one line.
            others: which roles there are beside daemon and recorder.
            errands: what is done now and then.
        """
        self._arguments = list(arguments)
        self._control_socket = control_socket
        self._say = say
        self._daemon = Role(name="daemon")
        self._recorder = Role(name="recorder")
        self._roles = [self._daemon, self._recorder, *(Role(name=name) for name in others)]
        self._errands = list(errands)
        self._stopping = False

    def run(self, ready: Callable[[dict[str, object]], None]) -> int:
        """Run until SIGINT or SIGTERM, or until the daemon cannot be started.

        Args:
            ready: is told the daemon's status when it answers for the first time.

        Returns:
            Exit status: 0 after a signal, the daemon's own if it never became ready.
        """
        with self._signals():
            try:
                self._start(self._daemon)
                status = self._wait_ready()
                if status is None:
                    return 0 if self._stopping else self._failure()
                for role in self._roles[1:]:
                    self._start(role)
                ready(status)
                while not self._stopping:
                    for role in self._roles:
                        self._attend(role)
                    for errand in self._errands:
                        errand.attend(time.monotonic(), self._launch, self._say)
                    time.sleep(POLL_SECONDS)
                return 0
            finally:
                for errand in self._errands:
                    self._end(errand.process, ERRAND_STOP_SECONDS_MAX, errand.name)
                for role in sorted(self._roles, key=lambda role: role.name != FIRST_TO_END):
                    process, role.process = role.process, None
                    self._end(process, STOP_SECONDS_MAX[role.name], role.name)

    def _wait_ready(self) -> dict[str, object] | None:
        """Give the daemon's first status; None if it ended, or we are to stop."""
        assert self._daemon.process is not None
        while self._daemon.process.poll() is None and not self._stopping:
            if self._control_socket.exists():
                try:
                    status = control_client.ask(self._control_socket, "status")
                except DaemonUnreachableError:
                    status = {}
                # Another capd's socket in our place is no sign of our daemon: it will find the lock taken and end.
                if status.get("pid") == self._daemon.process.pid:
                    return status
            time.sleep(POLL_SECONDS)
        return None

    def _failure(self) -> int:
        assert self._daemon.process is not None
        code = self._daemon.process.returncode
        return code if code > 0 else 2

    def _attend(self, role: Role) -> None:
        now = time.monotonic()
        if role.process is not None and role.process.poll() is not None:
            if now - role.started > STEADY_SECONDS:
                role.backoff = 0.0
            role.due = now + role.backoff
            kept = KEPT.get(role.name, "")
            self._say(f"the {role.name} {_ended(role.process.returncode)}, restarting it in {role.backoff:.1f} s{kept}")
            role.backoff = max(BACKOFF_SECONDS_MIN, min(role.backoff * 2, BACKOFF_SECONDS_MAX))
            role.process = None
        if role.process is None and role.due is not None and now >= role.due:
            self._start(role)

    def _start(self, role: Role) -> None:
        role.started, role.due = time.monotonic(), None
        role.process = self._launch(role.name)

    def _launch(self, verb: str) -> subprocess.Popen[bytes]:
        parent = os.getpid()
        return subprocess.Popen(
            [sys.executable, "-P", "-m", "capd.cli.main", verb, *self._arguments],
            stdin=subprocess.DEVNULL,
            env=None if verb in TRUSTED else without_secrets(os.environ),
            preexec_fn=lambda: _tie_to(parent),  # noqa: PLW1509 - this process has one thread
        )

    def _end(self, process: subprocess.Popen[bytes] | None, seconds_max: float, name: str) -> None:
        if process is None or process.poll() is not None:
            return
        process.terminate()
        try:
            process.wait(seconds_max)
        except subprocess.TimeoutExpired:
            self._say(f"the {name} did not end in {seconds_max:.0f} s, killing it; it resumes at the next start")
            process.kill()
            process.wait()

    @contextmanager
    def _signals(self) -> Iterator[None]:
        def stop(_number: int, _frame: object) -> None:
            self._stopping = True

        before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


def without_secrets(environment: Mapping[str, str]) -> dict[str, str]:
    """Give an environment for a role that has nothing to do with the bucket."""
    return {name: value for name, value in environment.items() if not SECRETS.fullmatch(name)}


def _tie_to(parent: int) -> None:
    """In the child, before exec: end with the parent, and leave Ctrl-C to it, which ends the roles in their order.

    The terminal's signals are blocked, not ignored: a role that handles SIGINT when started alone must not do so here.
    """
    _LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
    if os.getppid() != parent:
        os._exit(1)
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGHUP})


def _ended(code: int) -> str:
    """Say how a process ended."""
    if code < 0:
        return f"was ended by {signal.Signals(-code).name}"
    return f"ended with status {code}"
