"""`capd run` is transparent: an agent does not notice it, and neither does who started it.

What lives here: exit status, signals, streams and terminal through `capd run`. What must not: what is recorded of it.
"""

from __future__ import annotations

import os
import pty
import signal
import subprocess
from pathlib import Path

import pytest

from tests.daemon.conftest import wait_until
from tests.e2e.instance import CAPD, Instance

pytestmark = pytest.mark.e2e


def command(capd: Instance, *inside: str) -> list[str]:
    """Give the command line of a run."""
    return [str(CAPD), "run", "--config", str(capd.config), "--name", "transparent", "--", *inside]


@pytest.mark.parametrize(
    ("script", "status"),
    [("exit 0", 0), ("exit 7", 7), ("exit 255", 255), ("kill -TERM $$", -signal.SIGTERM), ("no-such-program-x", 127)],
)
def test_exit_status(capd: Instance, script: str, status: int) -> None:
    """Who waits for `capd run` sees the end of the command itself, also when a signal was that end."""
    assert status == subprocess.run(command(capd, "/bin/sh", "-c", script), stderr=subprocess.DEVNULL, check=False).returncode


def test_streams(capd: Instance) -> None:
    """Standard input, output and error are the command's own, untouched."""
    done = subprocess.run(
        command(capd, "/bin/sh", "-c", "cat; echo bad >&2"), input=b"\x00in\xff", capture_output=True, check=True
    )
    assert (b"\x00in\xff", b"bad\n") == (done.stdout, done.stderr)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_signals(capd: Instance, directory: Path, number: signal.Signals) -> None:
    """A signal to `capd run` reaches the command, which decides what to do."""
    ready = directory / "ready"
    script = f"trap 'exit 42' {number.name.removeprefix('SIG')}; touch '{ready}'; while :; do sleep 0.05; done"
    # Below nohup the tests' own SIGHUP is ignored, and a shell cannot trap what was ignored when it began.
    before = signal.signal(number, signal.SIG_DFL) if signal.getsignal(number) is signal.SIG_IGN else None
    running = subprocess.Popen(command(capd, "/bin/sh", "-c", script))
    if before is not None:
        signal.signal(number, before)
    try:
        wait_until(ready.exists, "the command has set its trap")
        running.send_signal(number)
        assert 42 == running.wait(180)
    finally:
        running.kill()
        running.wait()


def test_terminal(capd: Instance) -> None:
    """The command has the terminal of `capd run`, as its controlling one."""
    ours, theirs = pty.openpty()
    script = "tty; stty size >/dev/null && [ -t 0 ] && : </dev/tty && echo mine"
    running = subprocess.Popen(
        ["setsid", "--ctty", "--wait", *command(capd, "/bin/sh", "-c", script)], stdin=theirs, stdout=theirs, stderr=theirs
    )
    os.close(theirs)
    assert 0 == running.wait(180)
    assert b"mine" in os.read(ours, 4096)
    os.close(ours)
