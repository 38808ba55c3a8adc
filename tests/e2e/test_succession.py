"""A daemon is followed by another while agents talk: what stands in the kernel goes on, and the record with it.

What lives here: restarts and deaths of the daemon under a service manager that keeps descriptors. What must not: systemd itself
(tests/system), a daemon without one (test_interruptions).
"""

from __future__ import annotations

import json
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Self

import pytest

from tests.daemon.conftest import wait_until
from tests.e2e.certificates import Certificates
from tests.e2e.instance import CAPD, CLIENTS, PYTHON
from tests.e2e.managed import ManagedInstance, managed
from tests.e2e.truth import Mirror, Pair, Server, serving
from tests.requirements import kernel, require, require_command, require_probes

pytestmark = pytest.mark.e2e

MODERN_KERNEL = (6, 16)
RING_BYTES = 1 << 20
TALK_SECONDS = 0.5
"""How long is talked before, between and after changes."""


@pytest.fixture(params=["modern", "classic"])
def fresh(request: pytest.FixtureRequest, directory: Path) -> Iterator[ManagedInstance]:
    """An instance for one test, with each set of probes."""
    require_probes()
    require(request.param == "classic" or kernel() >= MODERN_KERNEL, "the modern tier needs kernel 6.16 or later")
    with managed(directory, f'[capture]\ntier = "{request.param}"\ndata_ring_bytes = {256 << 20}\n') as instance:
        yield instance


class Talk:
    """An agent that talks without a pause."""

    def __init__(self, capd: ManagedInstance, trusted: Certificates, mirror: Server) -> None:
        self._mirror, self.plain = mirror, Server(Mirror)
        self.said_in_clear = [0, 0]
        """Bytes of requests and of responses, once it has ended."""
        self._stop = capd.directory / "stop"
        client = [PYTHON, "-I", CLIENTS / "unceasing.py", trusted.authority, mirror.port, self.plain.port, self._stop, 0.05]
        command = [str(CAPD), "run", "--config", str(capd.config), "--name", "unceasing", "--", *map(str, client)]
        self._serving = serving(self.plain)
        self._command = command

    def __enter__(self) -> Self:
        self._serving.__enter__()
        self._process = subprocess.Popen(self._command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE)
        return self

    def __exit__(self, *error: object) -> None:
        self._stop.touch()
        with self._process:
            pass
        self._serving.__exit__(None, None, None)

    def end(self) -> Counter[Pair]:
        """Let it end; give what the servers know."""
        self._stop.touch()
        said, _ = self._process.communicate(timeout=180)
        assert 0 == self._process.returncode
        tls, plain = map(int, said.split())
        in_clear = self.plain.ledger.take(plain)
        self.said_in_clear = [sum(pair[way].length * count for pair, count in in_clear.items()) for way in (0, 1)]
        return self._mirror.ledger.take(tls) + in_clear

    def goes_on(self) -> None:
        """Let some time pass, in which it talks."""
        begun = self._mirror.ledger.begun
        time.sleep(TALK_SECONDS)
        wait_until(lambda: self._mirror.ledger.begun > begun, "it talks")


def test_a_restart_and_a_death_lose_nothing(fresh: ManagedInstance, trusted: Certificates, mirror: Server) -> None:
    """Over a restart and a kill of the daemon, each with a while without one, every conversation is one, whole to the byte."""
    with Talk(fresh, trusted, mirror) as talk:
        for number in (signal.SIGTERM, signal.SIGKILL):
            talk.goes_on()
            fresh.end_daemon(number)
            talk.goes_on()
            fresh.start_daemon()
            assert {"continued": True, "kept": True, "reason": None} == fresh.status()["standing"], fresh.said()
        talk.goes_on()
        truth = talk.end()
    fresh.assert_recorded("unceasing", truth)


def kernel_programs(capd: ManagedInstance) -> list[str]:
    """Give the kernel's numbers of the programs that stand, as the description has them."""
    described = json.loads((capd.directory / "run/standing/probes.json").read_bytes())["probes"]
    return [identity.split()[1] for identity in described["programs"].values()]


def exist(programs: list[str]) -> bool:
    """Tell whether the kernel has one of these programs."""
    return any(
        subprocess.run(["bpftool", "prog", "show", "id", number], capture_output=True, check=False).returncode == 0
        for number in programs
    )


def whole(capd: ManagedInstance) -> tuple[Counter[Pair], list[str]]:
    """Wait until all is closed; give what the complete sessions hold, and why the others are not complete."""
    wait_until(lambda: all(session["state"] != "open" for session in capd.sessions("unceasing")), "all are closed")
    sessions = [session for session in capd.sessions("unceasing") if session["transport"] == "tcp"]
    complete = [session for session in sessions if session["completeness"]["verdict"] == "complete"]
    reasons = ["; ".join(session["completeness"]["reasons"]) for session in sessions if session not in complete]
    return Counter(capd.pair(session, inside=True) for session in complete), reasons


def test_a_stop_for_good_leaves_nothing(directory: Path, trusted: Certificates, mirror: Server) -> None:
    """What only the service manager kept is gone with it; the next daemon begins anew, and open sessions have a gap, told."""
    require_probes()
    require_command("bpftool")
    with managed(directory) as capd:
        with Talk(capd, trusted, mirror) as talk:
            stood = kernel_programs(capd)
            talk.goes_on()
            capd.end_daemon()
            assert exist(stood)
            capd.manager.drop()
            wait_until(lambda: not exist(stood), "the kernel has let all go")
            capd.start_daemon()
            assert {"continued": False, "kept": True, "reason": None} == capd.status()["standing"]
            talk.goes_on()
            truth = talk.end()
        complete, reasons = whole(capd)
        assert complete <= truth
        assert 3 <= sum("capture restarted" in reason for reason in reasons)


def test_other_probes_begin_anew_behind_the_old_ones(directory: Path, trusted: Certificates, mirror: Server) -> None:
    """What the old probes told while no daemon was there is recorded to its end; what was open then has a gap, told."""
    require_probes()
    require_command("bpftool")
    with managed(directory) as capd:
        with Talk(capd, trusted, mirror) as talk:
            talk.goes_on()
            capd.end_daemon(signal.SIGKILL)
            stood, begun = kernel_programs(capd), mirror.ledger.begun
            talk.goes_on()
            wait_until(lambda: mirror.ledger.begun > begun + 5, "some conversations")
            between = mirror.ledger.ended()[begun:]
            capd.config.write_text(f"{capd.config.read_text()}[capture]\ndata_ring_bytes = {32 << 20}\n", encoding="utf-8")
            capd.start_daemon()
            assert not capd.status()["standing"]["continued"]
            wait_until(lambda: not exist(stood), "the kernel has let all go")
            talk.goes_on()
            truth = talk.end()
        complete, reasons = whole(capd)
        assert Counter(between) <= complete <= truth
        assert between
        assert 3 <= sum("capture restarted" in reason for reason in reasons)


def test_what_the_rings_cannot_hold_is_counted(directory: Path, trusted: Certificates, mirror: Server) -> None:
    """What the rings cannot hold between two daemons is lost and told where it was; all else is whole, and nothing twice."""
    require_probes()
    with managed(directory, f"[capture]\ndata_ring_bytes = {RING_BYTES}\n") as capd:
        with Talk(capd, trusted, mirror) as talk:
            talk.goes_on()
            capd.end_daemon(signal.SIGKILL)
            before = talk.plain.ledger.request_bytes
            wait_until(lambda: talk.plain.ledger.request_bytes > before + 2 * RING_BYTES, "more is said than the ring holds")
            capd.start_daemon()
            assert capd.status()["standing"]["continued"]
            talk.goes_on()
            truth = talk.end()
        sessions = capd.settled("unceasing", truth.total(), transport="tcp")
        verdicts = Counter(session["completeness"]["verdict"] for session in sessions)
        assert {"complete", "partial"} == verdicts.keys()
        complete = [session for session in sessions if session["completeness"]["verdict"] == "complete"]
        assert Counter(capd.pair(session, inside=True) for session in complete) <= truth
        in_clear = [session for session in sessions if session["target"]["port"] == talk.plain.port]
        said = [sum(session["bytes"][way] for session in in_clear) for way in ("request", "response")]
        assert talk.said_in_clear == said  # lost ones count, each once
