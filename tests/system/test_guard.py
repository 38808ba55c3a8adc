"""What boots is closed before it is open: agents that start with the machine, with and without a daemon.

The cases are one story, in their order: each goes on where the one before stopped. A sink counts what reaches it.
"""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from capd.enforcer.tls.authority import AUTHORITY_DAYS, make_authority
from tests.daemon.conftest import wait_until
from tests.system.booting import ENFORCE, POLICY, install, reached, told, tries
from tests.system.machine import Machine

pytestmark = [pytest.mark.e2e, pytest.mark.kernel, pytest.mark.slow]

WRONG = ENFORCE + 'users = ["nobody-of-this-name"]\n'


def since_boot(machine: Machine, unit: str, moment: str) -> int:
    """Give when something of a unit happened, microseconds since the kernel started."""
    return int(machine.must("systemctl", "show", "--value", f"--property={moment}TimestampMonotonic", unit))


def reasons(machine: Machine) -> dict[str, tuple[str, str]]:
    """Give what status says is wrong, and what to do, by alert."""
    found = json.loads(machine("capd", "status", "--json").stdout)["reasons"]
    return {one["alert"]: (one["reason"], one["next_step"]) for one in found}


def reboot(machine: Machine) -> None:
    """Power it off and boot it anew."""
    machine.off()
    machine.boot()


@pytest.fixture(scope="module")
def installed(machine: Machine, package: Path) -> Machine:
    """Give a machine with capd, which records only, a sink, and an agent that starts with it."""
    install(machine, package)
    return machine


def test_without_enforcement_it_does_nothing(installed: Machine) -> None:
    """The guard of a host that only records succeeds, says that there is nothing to close off, and agents reach the sink."""
    assert "active" == installed.must("systemctl", "is-active", "capd-guard").strip()
    assert "enforcement is off: nothing is refused" in told(installed, "capd-guard")
    assert "" == installed.must("nft", "list", "tables")
    assert ["told /one"] == tries(installed, "/one")
    assert "reached /one" in reached(installed)


def test_forcing_that_fails_at_first_lets_nothing_start_unforced(installed: Machine) -> None:
    """A daemon that cannot start with the enforcement it is told to closes agents off; a unit that starts reaches nothing."""
    installed.write("/etc/capd/capd.toml", WRONG)
    before = reached(installed)
    assert 0 != installed("systemctl", "restart", "capd").returncode
    assert "agents are closed off until the daemon starts" in told(installed, "capd")
    said = tries(installed, "/two")
    assert 2 == len(said), said
    assert all(line.startswith("failed") for line in said), said
    assert before == reached(installed)
    assert 2 == installed("capd", "status").returncode


def test_a_boot_without_daemon_is_closed(installed: Machine) -> None:
    """With the daemon masked an agent that starts with the machine reaches nothing, whatever root flushes, and it is said."""
    installed.write("/etc/capd/capd.toml", ENFORCE)
    installed.write("/etc/capd/policy.d/agents.yaml", POLICY)
    installed.must("systemctl", "enable", "capd-enforcer")
    installed.must("systemctl", "mask", "capd")
    reboot(installed)
    wait_until(lambda: told(installed, "agent").count("failed") >= 6, "it tries")
    assert "agents are closed off by the nftables table capd and the programs in /sys/fs/bpf/capd" in told(
        installed, "capd-guard"
    )
    assert since_boot(installed, "capd-guard", "ActiveEnter") <= since_boot(installed, "network-pre.target", "ActiveEnter")
    assert since_boot(installed, "capd-guard", "ActiveEnter") <= since_boot(installed, "agent", "ExecMainStart")
    installed.must("nft", "flush", "ruleset")
    count = told(installed, "agent").count("failed")
    wait_until(lambda: told(installed, "agent").count("failed") >= count + 3, "it tries")
    assert "" == reached(installed)
    assert "failed" == installed("systemctl", "is-active", "under").stdout.strip()
    assert "no capd daemon answers" in installed("capd", "status").stdout


def test_the_daemon_takes_over(installed: Machine) -> None:
    """From a closed boot to judged agents nothing passes that is not allowed."""
    installed.must("systemctl", "unmask", "capd")
    installed.must("systemctl", "start", "capd.target")
    wait_until(lambda: "told /allowed" in told(installed, "agent"), "it is let through")
    said = tries(installed, "/denied")
    assert said[0].startswith("failed HTTP Error 403"), said
    lines = set(reached(installed).splitlines())
    assert {"reached /allowed"} == lines


def test_a_boot_with_a_daemon_is_judged(installed: Machine) -> None:
    """What starts with the machine gets what is allowed, and never anything else."""
    reboot(installed)
    wait_until(lambda: "told /allowed" in told(installed, "agent"), "it is let through")
    assert {"reached /allowed"} == set(reached(installed).splitlines())


def test_an_authority_that_is_over_closes_agents_off_and_nothing_else(installed: Machine) -> None:
    """The daemon records on, agents reach nothing, status has an alert with what to do; once that is done all is well."""
    old = make_authority("host", datetime.now(UTC) - timedelta(days=AUTHORITY_DAYS + 2))
    for path, content in (("trust/authority.pem", old.certificate_pem), ("enforcer/authority.key", old.key_pem)):
        (installed.root / "var/lib/capd" / path).write_bytes(content)
    installed("systemctl", "restart", "capd", "capd-enforcer")
    assert "active" == installed.must("systemctl", "is-active", "capd").strip()
    before, runs = reached(installed), len(json.loads(installed.must("capd", "runs", "--json")))
    assert all(line.startswith("failed") for line in tries(installed, "/allowed"))
    assert before == reached(installed)
    wait_until(lambda: len(json.loads(installed.must("capd", "runs", "--json"))) > runs, "it is recorded")
    steps = reasons(installed)
    for alert in ("trust-unusable", "enforcer-down"):
        assert "the authority's certificate is over since" in steps[alert][0]
        assert "remove `authority.key` in `state_dir`/enforcer, then `systemctl restart capd capd-enforcer`" in steps[alert][1]
    wait_until(lambda: installed("ls", "/run/capd/alerts/trust-unusable.json").returncode == 0, "an alert")
    installed.must("rm", "/var/lib/capd/enforcer/authority.key")
    restart = ("systemctl", "restart", "capd", "capd-enforcer")
    wait_until(lambda: installed(*restart).returncode == 0, "systemd lets it start again")
    count = told(installed, "agent").count("told /allowed")
    wait_until(lambda: told(installed, "agent").count("told /allowed") > count, "it is let through")
    assert not {"trust-unusable", "enforcer-down"} & set(reasons(installed))


def test_a_restart_of_capd_restarts_no_service_under_it(installed: Machine) -> None:
    """A service that the drop-in puts under capd is a run, and goes on while the daemon is started anew."""
    assert "under.service" in installed("capd", "status").stdout
    before = installed.must("systemctl", "show", "--property=MainPID", "under")
    installed.must("systemctl", "restart", "capd")
    assert before == installed.must("systemctl", "show", "--property=MainPID", "under")
    wait_until(lambda: "under.service" in installed("capd", "status").stdout, "it is a run again")


def test_a_boot_with_a_wrong_configuration_starts_no_agent(installed: Machine) -> None:
    """Where the guard cannot do all that it is told to, no agent of the slice starts, the rest is closed, and it says why."""
    installed.write("/etc/capd/capd.toml", WRONG)
    reboot(installed)
    assert "failed" == installed("systemctl", "is-active", "capd-guard").stdout.strip()
    assert "there is no user 'nobody-of-this-name'" in told(installed, "capd-guard")
    assert "inactive" == installed("systemctl", "is-active", "agent").stdout.strip()
    assert "Dependency failed" in installed.must("journalctl", "--boot", "--quiet", "--no-pager", "UNIT=agent.service")
    assert "table inet capd" in installed.must("nft", "list", "tables")
    installed.write("/etc/capd/capd.toml", ENFORCE)
    installed.must("systemctl", "start", "capd", "agent")
    wait_until(lambda: "told /allowed" in told(installed, "agent"), "it is let through")
    assert {"reached /allowed"} == set(reached(installed).splitlines())
