"""Loss is visible: what capd could not keep it counts, in the right place.

What lives here: floods and kills. What must not: cases in which nothing is lost; they are in the other files.
"""

from __future__ import annotations

import json
import os
import signal
import ssl
import subprocess
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.daemon.conftest import wait_until
from tests.e2e.certificates import Certificates
from tests.e2e.instance import CAPD, CLIENTS, PYTHON, Instance, Session, running
from tests.e2e.truth import Drain, Hash, Server, Sink, noise, serving
from tests.requirements import kernel, require, require_probes

pytestmark = pytest.mark.e2e

MODERN_KERNEL = (6, 16)
FLOOD_BYTES = 64 << 20
ABRUPT_ROUNDS, ABRUPT_WRITES, ABRUPT_BYTES = 20, 25, 8_000
"""Connections that lose something at their end: three times what the ring holds, in pieces that each are a TLS record."""
TRAFFIC = 60
"""Requests of the connection during which something is killed."""
ENDLESS = 1_200
"""Of one that goes on until somebody has seen enough, which takes a busy machine many times as long as an idle one."""


@pytest.fixture(params=["modern", "classic"])
def tier(request: pytest.FixtureRequest) -> str:
    """Each set of probes."""
    require_probes()
    require(request.param == "classic" or kernel() >= MODERN_KERNEL, "the modern tier needs kernel 6.16 or later")
    return str(request.param)


@pytest.fixture
def fresh(tier: str, directory: Path) -> Iterator[Instance]:
    """An instance for one test."""
    with running(directory, f'[capture]\ntier = "{tier}"\n') as instance:
        yield instance


def test_flood_of_a_tiny_ring(tier: str, directory: Path) -> None:
    """With a ring of 64 KiB and a flood, what is kept and the gaps together are what was sent; the rest of capd says so."""
    settings = f'[capture]\ntier = "{tier}"\ndata_ring_bytes = 65536\n'
    flood = directory / "flood.bin"
    flood.write_bytes(noise("flood", FLOOD_BYTES))
    with serving(Server(Sink)) as sink, running(directory, settings) as capd:
        capd.run("flood", PYTHON, "-I", CLIENTS / "sockets.py", "plain", str(sink.port), flood)
        ((sent, answered),) = sink.ledger.take(1)
        (session,) = capd.settled("flood", 1)
        kept = len(capd.raw(session, "request", whole=False))
        gaps = [record for record in capd.records(session) if record["kind"] == "gap"]
        missing = sum(gap["body"]["length"] for gap in gaps)
        assert (FLOOD_BYTES, FLOOD_BYTES) == (sent.length, kept + missing)
        assert missing > 0
        assert {"request"} == {gap["direction"] for gap in gaps}
        assert {"ring full"} == {gap["body"]["reason"] for gap in gaps}
        assert answered == Hash.of(capd.raw(session, "response"))
        assert "partial" == session["completeness"]["verdict"]
        assert session["completeness"]["reasons"] != []
        status = capd.ask("status", "--json", check=False)
        assert 1 == status.returncode
        assert str(missing) in status.stdout.decode()


def test_losses_right_before_an_end(tier: str, directory: Path, trusted: Certificates) -> None:
    """What is lost just before a process vanishes is told all the same: no farewell, no close, no second to note it in."""
    settings = f'[capture]\ntier = "{tier}"\ndata_ring_bytes = 65536\n'
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(trusted.certificate, trusted.key)
    with serving(Server(Drain, context=context)) as server, running(directory, settings) as capd:
        numbers = [server.port, ABRUPT_ROUNDS, ABRUPT_WRITES, ABRUPT_BYTES]
        capd.run("abrupt", PYTHON, "-I", CLIENTS / "abrupt.py", trusted.authority, *map(str, numbers))
        verdicts: Counter[str] = Counter()
        for session in capd.settled("abrupt", ABRUPT_ROUNDS, transport="tcp"):
            verdict = session["completeness"]["verdict"]
            gaps = [record["body"] for record in capd.records(session, inside=True) if record["kind"] == "gap"]
            missing = sum(gap["length"] or 0 for gap in gaps if gap["layer"] == "application")
            kept = len(capd.raw(session, "request", whole=verdict == "complete", inside=True))
            assert ABRUPT_WRITES * ABRUPT_BYTES == kept + missing, session
            assert (verdict == "complete") == (not gaps)
            verdicts[verdict] += 1
        assert verdicts["partial"] + verdicts["opaque"] >= ABRUPT_ROUNDS // 2


def traffic(
    capd: Instance, name: str, trusted: Certificates, mirror: Server, body: Path, *, until: Path | None = None
) -> subprocess.Popen[bytes]:
    """Start an agent that talks on one connection: for some seconds, or until there is a file."""
    what = [str(TRAFFIC), body] if until is None else [str(ENDLESS), body, until]
    client = [PYTHON, "-I", CLIENTS / "paced.py", trusted.authority, str(mirror.port), f"/{name}", *what]
    command = [str(CAPD), "run", "--config", str(capd.config), "--name", name, "--", *map(str, client)]
    return subprocess.Popen(command, stdin=subprocess.DEVNULL)


def role_pid(capd: Instance, role: str) -> int:
    """Find the process of a role; 0 while there is none."""
    status = json.loads(capd.ask("status", "--json", check=False).stdout)
    return int(status["roles"][role]["pid"] or 0)


def first_record(capd: Instance, name: str) -> Session:
    """Wait until a run's first session is in the index."""
    wait_until(lambda: capd.sessions(name), f"{name} is seen")
    return capd.sessions(name)[0]


@pytest.fixture
def body(directory: Path) -> Path:
    """What each request of the traffic carries."""
    path = directory / "body"
    path.write_bytes(noise("traffic", 20_000))
    return path


def test_kill_of_the_recorder(fresh: Instance, trusted: Certificates, mirror: Server, body: Path) -> None:
    """Kill -9 of the recorder in the middle of a conversation loses nothing at all: the next one goes on from the journal."""
    agent = traffic(fresh, "interrupted", trusted, mirror, body)
    first_record(fresh, "interrupted")
    killed = role_pid(fresh, "recorder")
    os.kill(killed, signal.SIGKILL)
    assert 0 == agent.wait(180)
    fresh.assert_recorded("interrupted", mirror.ledger.take(1), protocol="http1", state="closed")
    assert killed != role_pid(fresh, "recorder")
    fresh.ask("verify")


def test_kill_of_everything(fresh: Instance, trusted: Certificates, mirror: Server, body: Path) -> None:
    """Kill -9 of all of capd keeps every sealed segment; the next start closes what was cut, says so, and records on."""
    fresh.run("before", PYTHON, "-I", CLIENTS / "blocking.py", trusted.authority, str(mirror.port), "/before", body)
    sealed = fresh.assert_recorded("before", mirror.ledger.take(1))
    fresh.wait_sealed()
    agent = traffic(fresh, "cut", trusted, mirror, body)
    first_record(fresh, "cut")
    fresh.kill_all()
    assert 0 == agent.wait(180)
    mirror.ledger.take(1)
    fresh.start()
    fresh.run("after", PYTHON, "-I", CLIENTS / "blocking.py", trusted.authority, str(mirror.port), "/after", body)
    fresh.assert_recorded("after", mirror.ledger.take(1), protocol="http1", state="closed")
    assert sealed == fresh.sessions("before")
    for session in fresh.sessions("cut"):
        assert "partial" == session["completeness"]["verdict"]
        assert any("restart" in reason for reason in session["completeness"]["reasons"])
    fresh.ask("verify")
