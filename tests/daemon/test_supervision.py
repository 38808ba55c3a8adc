"""When a role that ended is started again: by values, with processes that do nothing."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from capd.daemon import supervision
from capd.daemon.supervision import BACKOFF_SECONDS_MIN, STEADY_SECONDS, Role, Supervisor


class Clock:
    """In the place of the module's time."""

    def __init__(self) -> None:
        self.now = 1_000.0

    def monotonic(self) -> float:
        """Give the time."""
        return self.now


@pytest.mark.parametrize("lived", [0.0, STEADY_SECONDS + 1])
def test_the_first_death_costs_no_wait(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, lived: float) -> None:
    """A role is started anew at once when it ends for the first time, or lived long; one that ends again and again waits."""
    clock = Clock()
    monkeypatch.setattr(supervision, "time", clock)
    said: list[str] = []
    made = Supervisor([], tmp_path / "s", said.append)
    monkeypatch.setattr(made, "_launch", lambda _verb: _ended())
    role = Role(name="enforcer", process=_ended(), started=clock.now)
    waits = []
    for _ in range(4):
        clock.now += lived
        ended, began = clock.now, role.process
        while role.process is began or role.process is None:
            made._attend(role)
            clock.now += 0.01
        waits.append(round(clock.now - ended, 1))
    assert ([0.0] * 4 if lived else [0.0, BACKOFF_SECONDS_MIN, 2 * BACKOFF_SECONDS_MIN, 4 * BACKOFF_SECONDS_MIN]) == waits


def _ended() -> subprocess.Popen[bytes]:
    process = subprocess.Popen([sys.executable, "-S", "-c", ""])
    process.wait()
    return process
