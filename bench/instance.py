"""A capd of its own for a measurement: started, asked, stopped.

What lives here: processes of the instance and of the load. What must not: what is measured.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
START_SECONDS_MAX = 240
JOURNAL_BYTES_MAX = 40 << 30
"""A minute at full speed may leave more than the default of the product, and here nobody reads it away."""


class Instance:
    """A running capd in a temporary directory."""

    def __init__(self, folder: Path, process: subprocess.Popen[bytes]) -> None:
        self.folder = folder
        self.process = process

    def command(self, *words: str) -> list[str]:
        """Give the command line of a verb on this instance."""
        return [sys.executable, "-P", "-m", "capd.cli.main", *words]

    def ask(self, *words: str) -> dict[str, Any]:
        """Run a verb with --json and give its first object."""
        result = subprocess.run(
            [*self.command(*words), "--json"], capture_output=True, env=environment(self.folder), check=False
        )
        answer: dict[str, Any] = json.loads(result.stdout)
        return answer

    def run(self, command: Sequence[str]) -> str:
        """Run a command as an agent and give what it printed."""
        words = self.command("run", "--name", "bench", "--", *command)
        return subprocess.run(words, capture_output=True, text=True, env=environment(self.folder), check=True).stdout


def environment(folder: Path) -> dict[str, str]:
    """Give the environment in which verbs find the instance."""
    return {**os.environ, "CAPD_CONFIG": str(folder / "capd.toml")}


@contextlib.contextmanager
def started(role: str, *, tier: str = "auto") -> Iterator[Instance]:
    """Start `capd up`, or one role of it, and stop it afterwards.

    Args:
        role: `up` or `daemon`.
        tier: of the probes.
    """
    with tempfile.TemporaryDirectory(prefix="capd-bench-", dir="/var/tmp") as name:
        folder = Path(name)
        folder.chmod(0o755)
        (folder / "capd.toml").write_text(
            f'state_dir = "{folder}/state"\nruntime_dir = "{folder}/run"\n'
            f'[capture]\ntier = "{tier}"\n[journal]\nbytes_max = {JOURNAL_BYTES_MAX}\n'
        )
        log = (folder / "log").open("wb")
        words = [sys.executable, "-P", "-m", "capd.cli.main", role]
        process = subprocess.Popen(words, env=environment(folder), stdout=log, stderr=subprocess.STDOUT)
        instance = Instance(folder, process)
        try:
            _wait_until_ready(instance, whole=role == "up")
            yield instance
        finally:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            log.close()


def _wait_until_ready(instance: Instance, *, whole: bool) -> None:
    """Wait for the daemon, or for all roles."""
    deadline = time.monotonic() + START_SECONDS_MAX
    while time.monotonic() < deadline:
        if instance.process.poll() is not None:
            break
        with contextlib.suppress(json.JSONDecodeError, KeyError):
            roles = instance.ask("status")["roles"]
            if all(role["state"] == "running" for name, role in roles.items() if whole or name == "daemon"):
                return
        time.sleep(0.2)
    sys.exit("capd did not start:\n" + (instance.folder / "log").read_text())


def built(folder: Path) -> str:
    """Compile the load generator into a folder and give its path."""
    program = folder / "load"
    subprocess.run(["gcc", "-O2", "-o", program, ROOT / "bench" / "load.c", "-ldl"], check=True)
    return str(program)
