"""A capd whose daemon has a service manager that keeps descriptors, as the installed one has; the recorder runs beside it.

What lives here: starting, stopping and killing the daemon, as such a manager would. What must not: cases.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests import kept_probes
from tests.daemon.conftest import wait_until
from tests.e2e.instance import CAPD, STOP_SECONDS, Instance
from tests.service_manager import ServiceManager


class ManagedInstance(Instance):
    """A daemon that is restarted, and a recorder that is not."""

    def __init__(self, directory: Path, settings: str = "") -> None:
        super().__init__(directory, settings)
        self.manager = ServiceManager(directory)
        self._recorder: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start both, and wait until they are healthy."""
        kept_probes.bring(self.state)
        self.start_daemon()
        self._recorder = self._spawn([str(CAPD), "recorder", "--config", str(self.config)], [])
        wait_until(lambda: self.ask("status", check=False).returncode == 0, "capd is healthy")
        kept_probes.keep(self.state)

    def start_daemon(self) -> None:
        """Start the daemon with what its manager has kept; wait until it answers."""
        self.manager.settle()
        words, numbers = self.manager.command([str(CAPD), "daemon", "--config", str(self.config)])
        self._up = self._spawn(words, numbers)
        wait_until(self._daemon_answers, "the daemon answers")

    def _daemon_answers(self) -> bool:
        assert self._up is not None
        assert self.alive(), self.said()
        return bool(self.status()["roles"]["daemon"]["pid"] == self._up.pid)

    def status(self) -> dict[str, Any]:
        """Ask for the status."""
        found: dict[str, Any] = json.loads(self.ask("status", "--json", check=False).stdout)
        return found

    def end_daemon(self, number: int = signal.SIGTERM) -> None:
        """End the daemon with a signal; what is kept stays kept."""
        assert self._up is not None
        self._up.send_signal(number)
        status = self._up.wait(STOP_SECONDS)
        assert (0 if number == signal.SIGTERM else -number) == status, self.said()
        self._up = None

    def stop(self) -> int:
        """End both, and drop what is kept."""
        recorder, self._recorder = self._recorder, None
        status = super().stop()
        if recorder is not None:
            recorder.terminate()
            assert 0 == recorder.wait(STOP_SECONDS)
        self.manager.close()
        return status

    def _spawn(self, words: list[str], numbers: list[int]) -> subprocess.Popen[bytes]:
        environment = {**os.environ, "NOTIFY_SOCKET": str(self.manager.address)}
        with self._log.open("ab") as log:
            return subprocess.Popen(
                words,
                stdout=log,
                stderr=log,
                stdin=subprocess.DEVNULL,
                env=environment,
                pass_fds=numbers,
                start_new_session=True,
            )


@contextmanager
def managed(directory: Path, settings: str = "") -> Iterator[ManagedInstance]:
    """Run one; it must stop in good order."""
    instance = ManagedInstance(directory, settings)
    try:
        instance.start()
        yield instance
    finally:
        instance.stop()
