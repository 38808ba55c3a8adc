"""The child that compiles: it may take as long as it works, and is given up when it does not."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from capd.probes import loader
from capd.probes.errors import CompilerError

WORKS = "import time\nend = time.process_time() + 0.3\nwhile time.process_time() < end: pass\n"
"""For a third of a second of processor, however long that takes on a busy machine."""
WAITS = "import time\ntime.sleep(3600)\n"


@contextmanager
def _child(text: str) -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen([sys.executable, "-c", text], stderr=subprocess.PIPE) as child:
        yield child
        child.kill()


def test_a_child_that_works_is_waited_for_and_said_to_go_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """However slow a machine is: nobody ends a start that gets on."""
    monkeypatch.setattr(loader, "LOOK_SECONDS", 0.02)
    told: list[str] = []
    with _child(f"{WORKS}raise SystemExit('its last words')") as child:
        assert b"its last words" in loader.wait_for(child, lambda: told.append("goes on"))
    assert told


def test_a_child_that_gets_nothing_done_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is ended, too, and what keeps it from working is not told to be getting on."""
    monkeypatch.setattr(loader, "LOOK_SECONDS", 0.02)
    monkeypatch.setattr(loader, "CHILD_IDLE_SECONDS_MAX", 0.2)
    told: list[str] = []
    with _child(WAITS) as child:
        child.send_signal(signal.SIGSTOP)
        used = loader.processor_seconds(child.pid)
        with pytest.raises(CompilerError, match="got nothing done"):
            loader.wait_for(child, lambda: told.append("goes on"))
        assert child.returncode is not None
    assert len(told) <= bool(used)


def test_a_child_that_works_without_end_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """By the processor's time that it took, which does not depend on what else the machine does."""
    monkeypatch.setattr(loader, "LOOK_SECONDS", 0.02)
    monkeypatch.setattr(loader, "CHILD_CPU_SECONDS_MAX", 0.1)
    with _child("while True: pass") as child, pytest.raises(CompilerError, match="of processor"):
        loader.wait_for(child, lambda: None)
