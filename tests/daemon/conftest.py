"""What tests of the roles share.

What lives here: private directories, a running `capd daemon`, processes that end with the test. What must not: cases.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgpack
import pytest

from capd.daemon import control_client
from capd.daemon.configuration import Configuration
from capd.daemon.errors import DaemonUnreachableError
from capd.recording.journal import Block, JournalKeys, JournalReader, Source
from tests import kept_probes
from tests.requirements import require_command, require_probes, require_root

PYTHON = sys.executable
REPOSITORY = Path(__file__).parents[2]
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(REPOSITORY / "src"), "NO_COLOR": "1"}
READY_SECONDS = 180.0
PAUSE_SECONDS_MIN, PAUSE_SECONDS_MAX = 0.02, 1.0


def capd(*arguments: str | Path) -> list[str]:
    """Give the command line of a verb, run from this checkout."""
    return [PYTHON, "-P", "-m", "capd.cli.main", *map(str, arguments)]


def call(*arguments: str | Path, timeout: float = 180, **settings: Any) -> subprocess.CompletedProcess[str]:  # noqa: ANN401 - subprocess's
    """Run a verb to its end."""
    settings = {"env": ENVIRONMENT, "stdin": subprocess.DEVNULL, **settings}
    return subprocess.run(capd(*arguments), capture_output=True, text=True, check=False, timeout=timeout, **settings)


def wait_until(condition: Callable[[], object], what: str, seconds: float = READY_SECONDS) -> None:
    """Wait for a condition. Looking takes a third of the time at most, for what is waited for needs the processor too.

    Raises:
        AssertionError: it did not come true in time.
    """
    begun = time.monotonic()
    deadline = begun + seconds
    while not condition():
        now = time.monotonic()
        assert now < deadline, f"not in {seconds:.0f} s: {what}"
        time.sleep(max(PAUSE_SECONDS_MIN, min(2 * (now - begun), PAUSE_SECONDS_MAX)))
        begun = time.monotonic()


def interpreter_seconds() -> float:
    """Measure what it takes here and now to start an interpreter with what the enforcer imports."""
    began = time.monotonic()
    subprocess.run([sys.executable, "-P", "-c", "import capd.daemon.enforcer_role"], check=True, env=ENVIRONMENT)
    return time.monotonic() - began


def in_time(took: float, promised: float = 2.0, *, interpreters: int = 0) -> bool:
    """Say whether capd kept what it promises, on this machine as it is now.

    Args:
        took: seconds.
        promised: seconds; two, where nothing else is said.
        interpreters: that had to be started for it. Where it took longer, another interpreter's start is measured and added:
            a machine that is busy is slow for both.
    """
    return took < promised or took < promised + (interpreters + 1) * interpreter_seconds()


@pytest.fixture
def root() -> None:
    """Ask for root."""
    require_root()


@contextmanager
def open_directory() -> Iterator[Path]:
    """Give a directory that other users may pass through; pytest closes its own again whenever another session starts."""
    with tempfile.TemporaryDirectory(prefix="capd-test-", ignore_cleanup_errors=True) as name:
        directory = Path(name)
        directory.chmod(0o755)
        yield directory


@pytest.fixture
def instance_dir() -> Iterator[Path]:
    """Give a directory that the recorder's user may pass through."""
    with open_directory() as directory:
        yield directory


@pytest.fixture
def configuration(instance_dir: Path) -> Configuration:
    """Give an instance of its own, whose directories do not exist yet."""
    return Configuration(state_dir=instance_dir / "state", runtime_dir=instance_dir / "run")


class Daemon:
    """A real `capd daemon` (or `capd up`) in directories of its own."""

    def __init__(self, directory: Path, settings: str = "", verb: str = "daemon", through: tuple[str, ...] = ()) -> None:
        self.directory = directory
        self.through = through
        """A command that becomes the one it is given, such as nsenter."""
        self.config = directory / "capd.toml"
        self.config.write_text(
            f'state_dir = "{directory}/state"\nruntime_dir = "{directory}/run"\n{settings}', encoding="utf-8"
        )
        self.verb = verb
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def socket(self) -> Path:
        """Where it listens."""
        return self.directory / "run" / "control.sock"

    def start(self) -> None:
        """Start it and wait until it answers."""
        kept_probes.bring(self.directory / "state")
        with (self.directory / "log").open("ab") as log:
            self.process = subprocess.Popen(
                [*self.through, *capd(self.verb, "--config", self.config)],
                stdout=log,
                stderr=log,
                env=ENVIRONMENT,
                stdin=subprocess.DEVNULL,
                start_new_session=True,
            )
        wait_until(self._answers, f"ready; it said {self.said()}")
        kept_probes.keep(self.directory / "state")

    def _answers(self) -> bool:
        assert self.process is not None
        assert self.process.poll() is None, self.said()
        try:
            status = control_client.ask(self.socket, "status")
        except DaemonUnreachableError:
            return False
        return self.verb == "up" or status["pid"] == self.process.pid

    def said(self) -> str:
        """Give what it printed."""
        return (self.directory / "log").read_text(encoding="utf-8")

    def stop(self, number: int = signal.SIGTERM) -> int:
        """End it with a signal; give its exit status."""
        assert self.process is not None
        self.process.send_signal(number)
        return self.process.wait(READY_SECONDS)

    def status(self) -> dict[str, Any]:
        """Ask for its status; where nobody answers, what it said is told with the error."""
        try:
            return control_client.ask(self.socket, "status")
        except DaemonUnreachableError as error:
            error.add_note(self.said())
            raise

    def run(self, *words: str, name: str = "agent", **settings: Any) -> subprocess.CompletedProcess[str]:  # noqa: ANN401 - subprocess's
        """Run a command as an agent."""
        return call("run", "--config", self.config, "--name", name, "--", *words, **settings)

    def blocks(self) -> list[Block]:
        """Read the journal from its beginning."""
        reader = JournalReader(
            self.directory / "state" / "journal", None, JournalKeys(self.directory / "state" / "keys" / "journal.key")
        )
        return [block for block in iter(reader.read, None) if isinstance(block, Block)]

    def notes(self, kind: str | None = None) -> list[Mapping[str, Any]]:
        """Give the notes of the journal, all or of one kind."""
        found = [msgpack.unpackb(block.payload) for block in self.blocks() if block.source is Source.NOTE]
        return [note for note in found if kind in (None, note["note"])]


@pytest.fixture
def daemons(instance_dir: Path) -> Iterator[Callable[..., Daemon]]:
    """Give a maker of daemons; those that still run at the end are ended."""
    require_probes()
    require_command("unshare")
    made: list[Daemon] = []

    def make(settings: str = "", verb: str = "daemon") -> Daemon:
        made.append(Daemon(instance_dir, settings, verb))
        return made[-1]

    yield make
    for daemon in made:
        if daemon.process is not None and daemon.process.poll() is None:
            daemon.stop()


def in_namespace(script: str, *, prepare: str = "", timeout: float = 180) -> subprocess.CompletedProcess[str]:
    """Run Python in a private mount namespace, after shell commands that change what is mounted there."""
    require_root()
    require_command("unshare")
    inside = f'{prepare}\nexec "$0" -P -c "$1"'
    command = ["unshare", "--mount", "--propagation", "private", "/bin/sh", "-ec", inside, PYTHON, script]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=timeout, env=ENVIRONMENT)
