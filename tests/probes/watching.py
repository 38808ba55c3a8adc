"""A capture at work on small programs: what a kernel test needs to say what happens and what must be seen.

What lives here: starting a trigger program selected, and collecting its events. What must not: expectations.
"""

from __future__ import annotations

import subprocess
import textwrap
import threading
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TypeVar

from capd.probes import layouts
from capd.probes.capture import Capture, CaptureSettings
from capd.probes.layouts import DataEvent, EventHeader, EventKind
from tests import kept_probes

RUN = 77
PYTHON = "/usr/bin/python3"
TRIGGER_SECONDS_MAX = 60
DRAIN_PAUSE_SECONDS = 0.002
Body = TypeVar("Body")


@dataclass
class Seen:
    """What a trigger's processes did, as the rings told it."""

    events: list[tuple[EventHeader, layouts.Body]] = field(default_factory=list)
    output: bytes = b""
    pid: int = 0
    control_spans: int = 0

    def of(self, kind: type[Body]) -> list[Body]:
        """Give the events of one kind, in order."""
        return [body for _, body in self.events if isinstance(body, kind)]

    def data(self, kind: EventKind, direction: int) -> list[DataEvent]:
        """Give the data events of a layer and a direction, in ring order."""
        return [
            body
            for header, body in self.events
            if isinstance(body, DataEvent) and header.kind == kind and body.direction == direction
        ]

    def payload(self, kind: EventKind, direction: int) -> bytes:
        """Give what those events carry, joined."""
        return b"".join(bytes(event.payload) for event in self.data(kind, direction))

    def lost(self, kind: EventKind, direction: int) -> int:
        """Give the bytes that those events say are missing."""
        return sum(event.length - event.captured for event in self.data(kind, direction))


def cgroup_root() -> Path | None:
    """Give the unified hierarchy's mount point."""
    for line in Path("/proc/self/mounts").read_text().splitlines():
        if line.split()[2] == "cgroup2":
            return Path(line.split()[1])
    return None


def started(tier: str, data_ring_bytes: int = 64 << 20) -> Capture:
    """Start a capture as the tests use it; tracefs is mounted if nothing did."""
    if not Path("/sys/kernel/tracing/events").is_dir():
        subprocess.run(["mount", "-t", "tracefs", "tracefs", "/sys/kernel/tracing"], check=True)
    with TemporaryDirectory() as name:
        state = Path(name) / "state"
        kept_probes.bring(state)
        settings = CaptureSettings(
            tier=tier, data_ring_bytes=data_ring_bytes, cgroup_root=cgroup_root(), cache=state / "probes"
        )
        made = Capture.start(settings)
        kept_probes.keep(state)
    return made


def take(capture: Capture, seen: Seen) -> None:
    """Move what waits in the rings into `seen`."""
    for ring in (capture.control, capture.data):
        span = ring.drain()
        if span is not None:
            # A copy: the ring's pages are reused after the release.
            seen.events += layouts.events(memoryview(bytes(span)))
            ring.release()


@contextmanager
def _drained(capture: Capture, seen: Seen) -> Iterator[None]:
    done = threading.Event()

    def drain() -> None:
        while not done.wait(DRAIN_PAUSE_SECONDS):
            take(capture, seen)

    thread = threading.Thread(target=drain)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()
        take(capture, seen)


def watch(capture: Capture, source: str, *arguments: str, drain: bool = True, inherited: tuple[int, ...] = ()) -> Seen:
    """Run Python source as a recorded process and give what was seen of it and its children.

    Args:
        capture: at work.
        source: the trigger; it may use `sys.argv[1:]`.
        arguments: its arguments.
        drain: whether the rings are read while it runs, or only afterwards.
        inherited: descriptors that it gets, by the same numbers.
    """
    return watch_command(capture, [PYTHON, "-c", textwrap.dedent(source), *arguments], drain=drain, inherited=inherited)


def watch_command(capture: Capture, command: list[str], *, drain: bool = True, inherited: tuple[int, ...] = ()) -> Seen:
    """Run a command as a recorded process, selected before its first instruction."""
    seen = Seen()
    take(capture, Seen())  # what earlier triggers left
    gated = ["sh", "-c", 'read _; exec "$@" </dev/null', "sh", *command]
    process = subprocess.Popen(
        gated, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, pass_fds=inherited
    )
    try:
        capture.select_process(process.pid, RUN)
        with _drained(capture, seen) if drain else nullcontext():
            seen.output = process.communicate(b"\n", timeout=TRIGGER_SECONDS_MAX)[0]
        take(capture, seen)
    finally:
        if process.poll() is None:
            process.kill()
            process.communicate()
    assert 0 == process.returncode, seen.output.decode(errors="replace")
    seen.pid = process.pid
    return seen
