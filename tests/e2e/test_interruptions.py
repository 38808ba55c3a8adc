"""One role of capd stands still or dies while an agent talks; the rest goes on, and nobody has to lend a hand.

What lives here: signals to one role, and the two commands that a person asks meanwhile. What must not: floods (test_loss).
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.daemon.conftest import wait_until
from tests.e2e.certificates import Certificates
from tests.e2e.instance import CAPD, CLIENTS, PYTHON, Instance, running
from tests.e2e.test_loss import first_record, role_pid, traffic
from tests.e2e.truth import Hash, Server, noise
from tests.requirements import kernel, require, require_probes

pytestmark = pytest.mark.e2e

MODERN_KERNEL = (6, 16)
STOPPED_SECONDS = 4
"""More than twice what the assembler's patience was, when it still had to guess."""


@pytest.fixture(params=["modern", "classic"])
def fresh(request: pytest.FixtureRequest, directory: Path) -> Iterator[Instance]:
    """An instance for one test, with each set of probes."""
    require_probes()
    require(request.param == "classic" or kernel() >= MODERN_KERNEL, "the modern tier needs kernel 6.16 or later")
    with running(directory, f'[capture]\ntier = "{request.param}"\n') as instance:
        yield instance


@pytest.fixture
def body(directory: Path) -> Path:
    """What each request of the traffic carries."""
    path = directory / "body"
    path.write_bytes(noise("interrupted", 20_000))
    return path


@pytest.fixture
def enough(directory: Path) -> Path:
    """Give the file that ends the traffic."""
    return directory / "enough"


def stand_still(pid: int) -> None:
    """Stop a role for a while."""
    os.kill(pid, signal.SIGSTOP)
    try:
        time.sleep(STOPPED_SECONDS)
    finally:
        os.kill(pid, signal.SIGCONT)


@pytest.mark.parametrize("role", ["recorder", "daemon"])
def test_a_role_that_stands_still(fresh: Instance, role: str, trusted: Certificates, mirror: Server, body: Path) -> None:
    """However long a role does not run, the others wait for it: nothing is lost, and nothing is concluded too early."""
    agent = traffic(fresh, "patient", trusted, mirror, body)
    first_record(fresh, "patient")
    stand_still(role_pid(fresh, role))
    assert 0 == agent.wait(180)
    fresh.assert_recorded("patient", mirror.ledger.take(1), protocol="http1", state="closed")


def test_kill_of_the_daemon_alone(fresh: Instance, trusted: Certificates, mirror: Server, body: Path, enough: Path) -> None:
    """`capd up` starts another: what was sealed stays, the run and its connection go on, and the hole is told."""
    fresh.run("before", PYTHON, "-I", CLIENTS / "blocking.py", trusted.authority, str(mirror.port), "/before", body)
    sealed = fresh.assert_recorded("before", mirror.ledger.take(1))
    fresh.wait_sealed()
    agent = traffic(fresh, "cut", trusted, mirror, body, until=enough)
    first_record(fresh, "cut")
    killed = role_pid(fresh, "daemon")
    os.kill(killed, signal.SIGKILL)
    wait_until(lambda: role_pid(fresh, "daemon") not in (0, killed), "another daemon runs")
    enough.touch()
    assert 0 == agent.wait(180)
    mirror.ledger.take(1)
    (session,) = fresh.settled("cut", 1, transport="tcp")
    assert "partial" == session["completeness"]["verdict"]
    assert any("capture restarted" in reason for reason in session["completeness"]["reasons"])
    assert b"/cut.last/" in fresh.raw(session, "request", whole=False)
    fresh.run("after", PYTHON, "-I", CLIENTS / "blocking.py", trusted.authority, str(mirror.port), "/after", body)
    fresh.assert_recorded("after", mirror.ledger.take(1), protocol="http1", state="closed")
    assert sealed == fresh.sessions("before")
    fresh.ask("verify")


def test_following_a_session(fresh: Instance, trusted: Certificates, mirror: Server, body: Path, enough: Path) -> None:
    """`replay --follow`, begun in the middle, writes each byte once, as it comes, and ends with the session."""
    agent = traffic(fresh, "followed", trusted, mirror, body, until=enough)
    session = str(first_record(fresh, "followed")["session"])
    arguments = ["replay", "--config", str(fresh.config), session, "--follow", "--format", "raw", "--direction", "request"]
    follower = subprocess.Popen([CAPD, *arguments], stdout=subprocess.PIPE, bufsize=0)
    assert follower.stdout is not None
    early = follower.stdout.read(1)
    assert agent.poll() is None
    enough.touch()
    rest, _ = follower.communicate(timeout=180)
    assert 0 == agent.wait(180)
    assert 0 == follower.returncode
    ((sent, _answered),) = mirror.ledger.take(1)
    assert sent == Hash.of(early + rest)


def test_asking_why_a_process_is_recorded(
    fresh: Instance, trusted: Certificates, mirror: Server, body: Path, enough: Path
) -> None:
    """`doctor PID` tells the run of an agent and its watched TLS library, and of another process that it has none."""
    agent = traffic(fresh, "examined", trusted, mirror, body, until=enough)
    session = first_record(fresh, "examined")
    answer = fresh.ask("doctor", str(session["process"]["pid"]), "--json")
    found = {finding["subject"]: finding for finding in json.loads(answer.stdout)}
    assert session["run"] in found["selection"]["found"]
    assert any("libssl" in finding["found"] and "good" == finding["mark"] for finding in json.loads(answer.stdout))
    other = fresh.ask("doctor", str(os.getpid()), check=False)
    assert b"not recorded" in other.stdout
    enough.touch()
    assert 0 == agent.wait(180)
    mirror.ledger.take(1)
