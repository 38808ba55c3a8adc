"""Selectors that a reload brings take effect on services that run; and what a boot without the guard is, for comparison."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.daemon.conftest import wait_until
from tests.system.booting import AGENT, ENFORCE, POLICY, install, reached, told
from tests.system.machine import Machine

pytestmark = [pytest.mark.e2e, pytest.mark.kernel, pytest.mark.slow]
OUTSIDE = {
    "by-cgroup": "",
    "by-slice": "Slice=chosen.slice\n",
    "by-user": "Slice=user-65534.slice\nUser=nobody\n",
    "by-account": "User=daemon\n",
    "by-container": "Slice=machine.slice\nPrivateNetwork=yes\nPrivateMounts=yes\n",
}
"""Services outside of all that is selected, and how they differ. The last has a network of its own, as a container has."""
SELECTED = """\
users = ["daemon"]
[selection]
slices = ["capd-agents.slice", "chosen.slice", "machine.slice"]
cgroups = ["/system.slice/by-cgroup.service", "/user.slice/user-65534.slice"]
"""
NO_RUN = {"by-account.service", "by-user.service"}
"""Forced by its user alone, and a part of the run that is its slice."""


@pytest.fixture(scope="module")
def installed(machine: Machine, package: Path) -> Machine:
    """Give a machine with capd, which records only, a sink, and an agent that starts with it."""
    install(machine, package)
    return machine


def test_a_selector_takes_effect_on_what_runs(installed: Machine) -> None:
    """A reload that selects a unit, a slice, a user's slice and a container has running services recorded and judged."""
    command = "ExecStart=/usr/bin/python3 /srv/agent.py -1 /outside\n"
    installed.write("/srv/agent.py", AGENT)
    installed.write("/etc/capd/capd.toml", ENFORCE)
    installed.write("/etc/capd/policy.d/agents.yaml", POLICY)
    installed.must("systemctl", "restart", "capd")
    installed.must("systemctl", "enable", "--now", "capd-enforcer")
    for name, text in OUTSIDE.items():
        installed.write(f"/etc/systemd/system/{name}.service", f"[Service]\n{text}{command}")
    installed.must("systemctl", "daemon-reload")
    installed.must("systemctl", "start", *OUTSIDE)
    free = set(OUTSIDE) - {"by-container"}
    wait_until(lambda: all("told /outside" in told(installed, name) for name in free), "they are free")
    before = {name: installed.must("systemctl", "show", "--property=MainPID", name) for name in OUTSIDE}
    installed.write("/etc/capd/capd.toml", ENFORCE + SELECTED)
    installed.must("systemctl", "reload", "capd")
    judged = free - {"by-account"}
    wait_until(lambda: all("403" in told(installed, name) for name in judged), "they are judged")
    wait_until(lambda: "Connection reset" in told(installed, "by-account"), "who is of no run is reset")
    shown = json.loads(installed("capd", "status", "--json").stdout)
    names = {run["name"] for run in shown["runs"]}
    assert {f"{name}.service" for name in OUTSIDE} - NO_RUN | {"user-65534.slice"} <= names, names
    assert ["/machine.slice/by-container.service"] == [one["cgroup"] for one in shown["enforcement"]["namespaces"]["known"]]
    count = reached(installed).count("/outside")
    said = {name: told(installed, name).count("failed") for name in OUTSIDE}
    wait_until(lambda: all(told(installed, name).count("failed") >= said[name] + 4 for name in OUTSIDE), "they try on")
    assert count == reached(installed).count("/outside")
    assert before == {name: installed.must("systemctl", "show", "--property=MainPID", name) for name in OUTSIDE}


def test_control_without_the_guard_it_is_open(installed: Machine) -> None:
    """Without guard and daemon the agent of the boot reaches the sink."""
    installed.write("/etc/systemd/system/capd-agents.slice", "[Unit]\nBefore=slices.target\n")
    installed.must("systemctl", "mask", "capd-guard", "capd")
    installed.off()
    installed.boot()
    wait_until(lambda: "told /allowed" in told(installed, "agent"), "it tries")
    assert "reached /denied" in reached(installed)
