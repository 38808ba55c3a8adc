"""The enforcer's processes, as their parent knows them: workers, the resolver, the desk of approvals, webhooks and links.

What lives here: starting them, starting them anew, ending those that hang, the status of all together. What must not: what each
does (enforcer_role.py says which is which), rights.
"""

from __future__ import annotations

import json
import math
import os
import select
import signal
import socket
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final, NoReturn

from capd.daemon.confinement import parent_death_signal
from capd.daemon.enforcer_keeper import KeeperProcess
from capd.daemon.errors import KeeperError
from capd.daemon.heartbeat import Heartbeat
from capd.daemon.locations import CALLBACKS_RUNTIME
from capd.daemon.pulse import PROCESSES_MAX, Pulse
from capd.daemon.version import VERSION
from capd.recording.durable import read_regular, replace_content

if TYPE_CHECKING:  # its library is to stay out of a role (settled.py)
    from capd.daemon.configuration import Configuration

STATUS_SECONDS: Final = 1.0
RESOLVER: Final = -1
DESK: Final = -2
CALLBACKS: Final = -3
"""In the place of a worker's number."""
STOP_SECONDS_MAX: Final = 5.0
RESTART_SECONDS: Final = 1.0
"""Between two starts of one worker: one that cannot live costs little. One that has lived for longer is started at once."""
SILENT_SECONDS_MAX: Final = 30.0
"""Each of its processes gives a sign of life every second. One that has not for so long hangs, and is ended. Not the one of
webhooks and links, which no agent waits for: its status says when it was last heard."""
STATUS_BYTES_MAX: Final = 1 << 16

Say = Callable[[str], None]


@dataclass(kw_only=True)
class Child:
    """A worker, the resolver, the desk of approvals or the process of links, as its parent knows it.

    Attributes:
        number: of its own; RESOLVER, DESK and CALLBACKS of the others.
        listeners: its sockets, which outlive it; workers have the same.
        channels: what it has with others of the enforcer; these outlive it too.
        tells: what all workers have, to tell each other.
        pid: 0 while there is none.
        due: monotonic time before which it is not started again.
        heard: monotonic time of its last sign of life, or of its start.
        signs: how many signs of life there were when it was last looked.
        beat: gives one, in the process itself.
    """

    number: int
    listeners: Sequence[socket.socket]
    channels: Sequence[socket.socket] = ()
    tells: Sequence[socket.socket] = ()
    pid: int = 0
    due: float = 0.0
    heard: float = 0.0
    signs: int = 0
    beat: Callable[[], None] = lambda: None


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
        told: Mapping[str, object],
    ) -> None:
        self._configuration, self._children, self._work, self._say = configuration, children, work, say
        self._keeper, self._pulse, self._told = keeper, Pulse(), told
        for child in children:
            child.beat = partial(self._pulse.beat, _place(child))
        self._stopping = False
        self._restarts = 0
        self._started = time.time()
        self._ready = False
        self._heart = Heartbeat(os.environ, os.getpid())
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
        lost = False
        while not self._stopping and not lost:
            self._heart.beat()
            self._attend()
            self._write_status("running")
            self._say_ready()
            select.select([self._wake], [], [], self._pause())
            with suppress(BlockingIOError):
                os.eventfd_read(self._wake)
            lost = self._keeper is not None and self._keeper.ended()
        self._end()
        self._write_status("stopped")
        if lost:
            raise KeeperError("the keeper of credentials ended")

    def _say_ready(self) -> None:
        """Say it once all processes that agents are led to have given a sign of life: then they serve."""
        if not self._ready and all(child.signs for child in self._children if child.number >= RESOLVER):
            self._ready = True
            self._heart.ready(f"enforcing; confined: {self._told['confinement']}")

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
        child.pid, child.heard = pid, time.monotonic()
        child.due = child.heard + RESTART_SECONDS

    def _be(self, child: Child, parent: int) -> NoReturn:
        """In the worker."""
        status = 1
        try:
            parent_death_signal(signal.SIGTERM)
            if self._keeper is not None:
                self._keeper.left()
            if os.getppid() == parent:
                for descriptor in self._of_others(child):
                    os.close(descriptor)
                self._work(child)
                status = 0
        except BaseException as error:  # noqa: BLE001 - the last line of a process: its parent must hear of it
            self._say(f"capd enforcer: {_called(child.number)}: {error!r}")
        finally:
            os._exit(status)

    def _of_others(self, child: Child) -> set[int]:
        """Give the descriptors that a process has no use for; of what several share, each once."""
        held = {one.fileno() for other in self._children for one in (*other.listeners, *other.channels, *other.tells)}
        return held - {one.fileno() for one in (*child.listeners, *child.channels, *child.tells)}

    def _attend(self) -> None:
        """Start anew what has ended, and end what gives no sign of life."""
        for child in self._children:
            if (signs := self._pulse.count(_place(child))) != child.signs:
                child.signs, child.heard = signs, time.monotonic()
            if child.pid and os.waitpid(child.pid, os.WNOHANG)[0]:
                self._say(f"capd enforcer: {_called(child.number)} ended, starting it anew; what it held was reset")
                self._restarts += 1
                child.pid = 0
            elif child.pid and child.number != CALLBACKS and time.monotonic() - child.heard > SILENT_SECONDS_MAX:
                self._say(f"capd enforcer: {_called(child.number)} gives no sign of life, ending it")
                os.kill(child.pid, signal.SIGKILL)
                child.heard = time.monotonic()
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
        told = {child.number: _read_status(worker_status(directory, child.number)) for child in self._children}
        status = {
            "state": state,
            "pid": os.getpid(),
            "version": VERSION,
            **self._told,
            "time": time.time(),
            "mode": self._configuration.enforcement.mode,
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


def _place(child: Child) -> int:
    """Give where a child's signs of life are: those with negative numbers have the last places."""
    return child.number % PROCESSES_MAX


def worker_status(directory: Path, number: int) -> Path:
    """Say where a process of the enforcer tells how it is; `directory`: the enforcer's corner of the runtime directory."""
    if number == CALLBACKS:
        return directory / CALLBACKS_RUNTIME / "status.json"
    return directory / f"{_called(number).replace(' ', '-')}.status.json"


def _called(number: int) -> str:
    return {RESOLVER: "resolver", DESK: "approvals", CALLBACKS: "callbacks"}.get(number, f"worker {number}")


def _read_status(path: Path) -> object:
    with suppress(OSError, ValueError):
        return json.loads(read_regular(path, STATUS_BYTES_MAX))
    return None
