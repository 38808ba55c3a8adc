"""The rpm on a machine that boots: its scriptlets with systemd behind them.

The machine is a Debian 12, whose packages have other names (--nodeps) and whose presets are set to Fedora's: what Fedora and
RHEL have of their own could not be tried. The cases are one story, in their order.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.daemon.conftest import wait_until
from tests.requirements import require_command
from tests.system.empty_root import DATABASE, PRESETS
from tests.system.machine import Machine
from tests.system.test_installed import POLICY, ROLES, agent, closed, forced, serve, wait_healthy

pytestmark = [pytest.mark.e2e, pytest.mark.kernel, pytest.mark.slow]

TRUSTS = ("SSL_CERT_FILE=/var/lib/capd/trust/bundle.pem",)
CONFIGURATION = '[enforcement]\nmode = "enforce"\nca_file = "/etc/capd/server.pem"\n'


@pytest.fixture(scope="module")
def fedora(machine: Machine) -> Iterator[Machine]:
    """Give a machine whose services do not start because a package came, with an agent and what it talks to."""
    require_command("rpm")
    for preset in (machine.root / PRESETS).iterdir():
        preset.unlink()
    machine.write(f"/{PRESETS}/99-default-disable.preset", "disable *\n")
    serve(machine)
    yield machine
    machine("nft", "delete", "table", "inet", "capd")
    machine("rm", "-rf", "/sys/fs/bpf/capd")


def rpm(machine: Machine, verb: str, *words: str, package: Path | None = None) -> str:
    """Install, upgrade or erase, inside; give what rpm and the scriptlets say."""
    if package is not None:
        (machine.root / "root/capd.rpm").write_bytes(package.read_bytes())
        words = (*words, "/root/capd.rpm")
    done = machine("rpm", "--force-debian", f"--dbpath={DATABASE}", verb, "--nodeps", *words)
    assert 0 == done.returncode, done.stdout + done.stderr
    return done.stdout + done.stderr


def pids(machine: Machine, *roles: str) -> list[str]:
    """Give the numbers of the roles' processes."""
    return [machine.must("systemctl", "show", "--property=MainPID", "--value", role).strip() for role in roles]


def test_nothing_runs_before_it_is_enabled(fedora: Machine, rpms: tuple[Path, Path]) -> None:
    """Installed, it does nothing; enabled, it records an unchanged agent."""
    assert "" == rpm(fedora, "--install", package=rpms[0])
    assert "disabled" == fedora("systemctl", "is-enabled", "capd.target").stdout.strip()
    assert {"inactive"} == {fedora("systemctl", "is-active", role).stdout.strip() for role in ROLES}
    fedora.must("systemctl", "enable", "--now", "capd.target")
    wait_healthy(fedora)
    assert ["told /allowed/one"] == agent(fedora, "/allowed/one", variables=("SSL_CERT_FILE=/root/cert.pem",))
    (row,) = closed(fedora, 1)
    assert "complete" == row["completeness"]["verdict"], row["completeness"]
    assert "told /allowed/one" in fedora.must("capd", "replay", row["session"])


def test_an_upgrade_restarts_what_runs_and_lets_nothing_by(fedora: Machine, rpms: tuple[Path, Path]) -> None:
    """While it is upgraded an agent that asks all the time for what is denied never gets it; every role runs anew."""
    fedora.write("/etc/capd/capd.toml", CONFIGURATION)
    fedora.must("cp", "/root/cert.pem", "/etc/capd/server.pem")
    fedora.write("/etc/capd/policy.d/agents.yaml", POLICY)
    fedora.must("systemctl", "restart", "capd", "capd-recorder")
    fedora.must("systemctl", "enable", "--now", "capd-enforcer")
    wait_healthy(fedora)
    loop = "while :; do python3 /root/agent.py /secret; done"
    unit = ("systemd-run", "--quiet", "--unit=always", "--slice=capd-agents.slice", f"--setenv={TRUSTS[0]}")
    fedora.must(*unit, "/bin/sh", "-c", loop)
    heard = ("journalctl", "--unit=always", "--output=cat", "--quiet")
    wait_until(lambda: "refused" in fedora.must(*heard), "it asks")
    before = pids(fedora, *ROLES, "capd-enforcer")
    assert "" == rpm(fedora, "--upgrade", package=rpms[1])
    wait_until(lambda: forced(fedora), "forced anew")
    fedora.must("systemctl", "stop", "always")
    assert not {"0", *before} & set(pids(fedora, *ROLES, "capd-enforcer"))
    assert "told" not in fedora.must(*heard)
    assert "/secret" not in fedora.must("journalctl", "--unit=server", "--output=cat", "--quiet")
    assert ["told /allowed/two", "refused 403"] == agent(fedora, "/allowed/two", "/secret", variables=TRUSTS)


def test_an_upgrade_restarts_nothing_while_the_configuration_is_wrong(fedora: Machine, rpms: tuple[Path, Path]) -> None:
    """What runs runs on, for it would not start again, and the operator is told."""
    fedora.write("/etc/capd/capd.toml", "[capture\n")
    before = pids(fedora, *ROLES, "capd-enforcer")
    assert "what runs is not restarted" in rpm(fedora, "--upgrade", "--replacepkgs", package=rpms[1])
    assert before == pids(fedora, *ROLES, "capd-enforcer")
    fedora.write("/etc/capd/capd.toml", CONFIGURATION)


def test_erasing_stops_it_and_leaves_the_rules(fedora: Machine) -> None:
    """Without being told so, erasing takes no rule away: agents stay cut off, and the operator is told how to end it."""
    assert "agents stay cut off" in rpm(fedora, "--erase", "capd")
    assert "table inet capd" in fedora.must("nft", "list", "tables")
    shown = fedora.must("systemctl", "list-units", "--no-legend", "--plain", "--state=active", "capd*.service")
    left = {line.split()[0] for line in shown.splitlines()}
    assert {"capd-guard.service"} == left  # which refuses to be stopped, for agents are cut off by it
    (said,) = agent(fedora, "/allowed/three", variables=("SSL_CERT_FILE=/root/cert.pem",))
    assert said.startswith("failed")
    fedora.must("sh", "-c", "nft delete table inet capd; rm -r /sys/fs/bpf/capd")
    assert ["told /allowed/four"] == agent(fedora, "/allowed/four", variables=("SSL_CERT_FILE=/root/cert.pem",))
