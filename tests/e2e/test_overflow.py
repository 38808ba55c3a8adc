"""Where more happens than capd has room for, nobody is told that all is there, nor that something is missing that is not.

What lives here: both rings overflow, the journal is full. What must not: floods of one connection (test_loss).
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.daemon.conftest import wait_until
from tests.e2e.instance import CAPD, CLIENTS, PYTHON, running
from tests.e2e.test_loss import role_pid
from tests.e2e.truth import Hash, Server, Sink, noise, serving
from tests.requirements import kernel, require, require_probes

pytestmark = pytest.mark.e2e

MODERN_KERNEL = (6, 16)
SMALLEST_RING = 65_536
CONNECTIONS, CONNECTION_BYTES = 1_200, 300
"""Three times what either ring has room for."""
ANSWER_BYTES = 5
JOURNAL_BYTES = 1 << 20
SENT_BYTES = 4 << 20
LARGE_RING = 32 << 20


@pytest.fixture(params=["modern", "classic"])
def tier(request: pytest.FixtureRequest) -> str:
    """Each set of probes."""
    require_probes()
    require(request.param == "classic" or kernel() >= MODERN_KERNEL, "the modern tier needs kernel 6.16 or later")
    return str(request.param)


@contextmanager
def stopped(pid: int) -> Iterator[None]:
    """Let a role stand still."""
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


def test_whole_connections_of_which_nothing_was_recorded(tier: str, directory: Path) -> None:
    """Both rings overflow: what is in sessions, and what the run says is in none, is all that there was."""
    settings = f'[capture]\ntier = "{tier}"\ndata_ring_bytes = {SMALLEST_RING}\ncontrol_ring_bytes = {SMALLEST_RING}\n'
    with serving(Server(Sink)) as sink, running(directory, settings) as capd:
        agent = [PYTHON, "-I", CLIENTS / "crowd.py", sink.port, CONNECTIONS, CONNECTION_BYTES, directory]
        command = [CAPD, "run", "--config", capd.config, "--name", "crowd", "--", *agent]
        with subprocess.Popen(list(map(str, command)), stdin=subprocess.DEVNULL) as process:
            wait_until(lambda: json.loads(capd.ask("runs", "--json").stdout), "the run has begun")
            with stopped(role_pid(capd, "daemon")):
                (directory / "go").touch()
                wait_until((directory / "gone").exists, "all connections were made")
            (directory / "end").touch()
            assert 0 == process.wait(180)
        sink.ledger.take(CONNECTIONS)

        def run() -> dict[str, object]:
            (found,) = json.loads(capd.ask("runs", "--json").stdout)
            return dict(found)

        wait_until(lambda: run()["state"] == "closed", "the run has ended")
        sessions = capd.sessions("crowd")
        assert 0 < len(sessions) < CONNECTIONS
        completeness = run()["completeness"]
        assert isinstance(completeness, dict)
        assert "partial" == completeness["verdict"]
        assert any(str(reason).startswith("nothing recorded of ") for reason in completeness["reasons"])
        lost = run()["lost"]
        assert isinstance(lost, dict)
        assert lost["control_events"] > 0
        assert CONNECTIONS == len(sessions) + lost["streams"]
        told = sum(sum(session["bytes"].values()) for session in sessions)
        assert CONNECTIONS * (CONNECTION_BYTES + ANSWER_BYTES) == told + lost["bytes"]
        for session in sessions:
            whole = {"request": CONNECTION_BYTES, "response": ANSWER_BYTES} == session["bytes"]
            assert session["completeness"]["verdict"] != "complete" or whole, session
        status = capd.ask("status", "--json", check=False)
        assert 1 == status.returncode
        assert json.loads(status.stdout)["losses"]["bytes"] > 0


@pytest.mark.parametrize("ring", [LARGE_RING, SMALLEST_RING], ids=["room in the ring", "none"])
def test_journal_full(tier: str, ring: int, directory: Path) -> None:
    """A recorder that stands still fills the journal; what the ring has room for comes later, the rest is a gap and no more."""
    settings = f'[capture]\ntier = "{tier}"\ndata_ring_bytes = {ring}\n[journal]\nbytes_max = {JOURNAL_BYTES}\n'
    content = noise("journal full", SENT_BYTES)
    (directory / "content").write_bytes(content)
    with serving(Server(Sink)) as sink, running(directory, settings) as capd:
        with stopped(role_pid(capd, "recorder")):
            capd.run(
                "full",
                PYTHON,
                "-I",
                CLIENTS / "sockets.py",
                "plain" if ring == LARGE_RING else "slowly",
                str(sink.port),
                directory / "content",
            )

            def full() -> bool:
                cause = json.loads(capd.ask("status", "--json", check=False).stdout)["journal"]["stopped"]
                return bool(cause) and cause["cause"] == "journal full"

            wait_until(full, "the journal is full")
            assert 1 == capd.ask("status", check=False).returncode
        sink.ledger.take(1)
        (session,) = capd.settled("full", 1)
        if ring == LARGE_RING:
            assert ("complete", []) == (session["completeness"]["verdict"], session["completeness"]["reasons"])
            assert Hash.of(content) == Hash.of(capd.raw(session, "request"))
            return
        assert "partial" == session["completeness"]["verdict"]
        gaps = [record["body"] for record in capd.records(session) if record["kind"] == "gap"]
        assert {"ring full"} == {gap["reason"] for gap in gaps}
        kept = capd.raw(session, "request", whole=False)
        assert SENT_BYTES == len(kept) + sum(gap["length"] for gap in gaps)
        assert content.startswith(kept[: min(gap["position"] for gap in gaps)])
