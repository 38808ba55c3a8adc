"""The systemd units: right by systemd's own check, and, on request, at work in a systemd container.

The container test takes minutes and some 300 MB. It runs when CAPD_TEST_NSPAWN is set: to a directory with a root file system
of Debian 12 that has systemd, dbus and python3-bpfcc, or to 1, and then mmdebstrap makes one.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from capd.daemon.alert_kinds import KINDS, Alert
from capd.daemon.cgroups import AGENTS_SLICE
from tests.daemon.conftest import REPOSITORY, wait_until
from tests.requirements import require_command, require_probes

UNITS = REPOSITORY / "systemd"
PACKAGES = "systemd,systemd-sysv,dbus,python3-bpfcc,iproute2,procps,curl"
WANTED = os.environ.get("CAPD_TEST_NSPAWN", "")


def test_units_are_right(tmp_path: Path) -> None:
    """systemd-analyze has nothing to say about the units, once the command is where they expect it."""
    require_command("systemd-analyze")
    for unit in (*UNITS.glob("*.service"), *UNITS.glob("*.slice")):
        text = unit.read_text(encoding="utf-8").replace("/usr/bin/capd", "/bin/true")
        text = re.sub(r"^(User|Group)=capd(-enforcer)?$", r"\1=daemon", text, flags=re.MULTILINE)
        (tmp_path / unit.name).write_text(text, encoding="utf-8")
    command = ["systemd-analyze", "verify", "--man=no", *map(str, sorted(tmp_path.iterdir()))]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    mine = [line for line in done.stderr.splitlines() if "capd" in line]
    assert [] == mine


def test_slice_of_the_units_is_the_daemons() -> None:
    """The slice that capd asks systemd for is the one that the package brings."""
    assert (UNITS / AGENTS_SLICE).exists()


class Machine:
    """A booted container."""

    def __init__(self, root: Path) -> None:
        self._process = subprocess.Popen(
            [
                *("systemd-nspawn", "--quiet", f"--directory={root}", "--register=no", "--keep-unit", "--private-network"),
                *(f"--bind-ro={REPOSITORY}:/opt/capd", f"--bind-ro={Path(sys.executable).parent.parent}:/opt/v"),
                *("--volatile=overlay", "--capability=all", "--system-call-filter=bpf perf_event_open @debug"),
                *("--console=pipe", "--boot"),
            ],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env={**os.environ, "SYSTEMD_NSPAWN_API_VFS_WRITABLE": "yes"},
        )

    def wait_booted(self) -> None:
        """Wait until all of its services are there."""
        wait_until(self._booted, "booted")

    def _booted(self) -> bool:
        assert self._process.poll() is None
        return self("systemctl", "is-system-running").stdout.strip() in {"running", "degraded"}

    def __call__(self, *words: str) -> subprocess.CompletedProcess[str]:
        """Run a command inside: in the namespaces of its first process, the child of systemd-nspawn."""
        children = Path(f"/proc/{self._process.pid}/task/{self._process.pid}/children").read_text().split()
        command = ["nsenter", f"--target={children[-1] if children else 0}", "--all", *words]
        return subprocess.run(command, capture_output=True, text=True, check=False, timeout=120, stdin=subprocess.DEVNULL)

    def stop(self) -> None:
        """Power it off, and remove the empty cgroups that systemd-nspawn leaves."""
        self("systemctl", "poweroff")
        try:
            self._process.wait(30)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        for cgroup in Path("/sys/fs/cgroup").glob("*/supervisor"), Path("/sys/fs/cgroup").glob("*/payload"):
            for directory in cgroup:
                for below, _directories, _files in os.walk(directory, topdown=False):
                    with suppress(OSError):
                        Path(below).rmdir()


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[Machine]:
    """Give a systemd machine with capd's files where the package puts them."""
    require_probes()
    require_command("systemd-nspawn", "nsenter")
    root = Path(WANTED)
    if WANTED == "1":
        require_command("mmdebstrap")
        root = tmp_path / "root"
        subprocess.run(["mmdebstrap", "--variant=minbase", f"--include={PACKAGES}", "bookworm", str(root)], check=True)
    for directory in ("opt/capd", "opt/v"):
        (root / directory).mkdir(parents=True, exist_ok=True)
    launcher = root / "usr/bin/capd"
    launcher.write_text('#!/bin/sh\nPYTHONPATH=/opt/capd/src exec /opt/v/bin/python -P -m capd.cli.main "$@"\n')
    launcher.chmod(0o755)
    for unit in (*UNITS.glob("*.service"), *UNITS.glob("*.slice")):
        shutil.copy(unit, root / "usr/lib/systemd/system")
    shutil.copy(UNITS / "capd.sysusers", root / "usr/lib/sysusers.d/capd.conf")
    shutil.copy(UNITS / "capd.tmpfiles", root / "usr/lib/tmpfiles.d/capd.conf")
    made = Machine(root)
    try:
        made.wait_booted()
        yield made
    finally:
        made.stop()


@pytest.mark.slow
@pytest.mark.skipif(not WANTED, reason="CAPD_TEST_NSPAWN is not set: a systemd container takes minutes")
def test_capd_under_systemd(machine: Machine) -> None:
    """As a service capd gets healthy; runs are scopes or units of the slice and outlive the daemon; the journal has alerts."""
    started = machine("systemctl", "start", "capd")
    assert 0 == started.returncode, started.stderr + machine("journalctl", "-u", "capd").stdout
    wait_until(lambda: machine("capd", "status").returncode == 0, "healthy")
    assert "capd" == machine("ps", "-o", "user=", "-C", "python").stdout.split()[-1]

    done = machine("capd", "run", "--name", "scope", "--", "sh", "-c", "grep ^0:: /proc/self/cgroup; exit 5")
    assert 5 == done.returncode
    assert re.fullmatch(r"0::/capd\.slice/capd-agents\.slice/capd-run-[0-9a-f-]{36}\.scope\n", done.stdout)
    wait_until(lambda: "none live" in machine("capd", "status").stdout, "the run has ended")
    assert "capd-run" not in machine("systemctl", "list-units", "--all", "capd-run*").stdout.split("LOAD")[0]

    machine("systemd-run", "--quiet", "--slice=capd-agents.slice", "--unit=agent", "sleep", "600")
    wait_until(lambda: "agent.service" in machine("capd", "status").stdout, "the unit is a run")
    machine("systemctl", "kill", "--signal=KILL", "capd")
    wait_until(lambda: "agent.service" in machine("capd", "status").stdout, "the next daemon took it up")
    machine("systemctl", "stop", "agent")
    wait_until(lambda: "none live" in machine("capd", "status").stdout, "the unit's run has ended")

    machine("systemctl", "stop", "capd-recorder")
    entry = ["journalctl", f"MESSAGE_ID={KINDS[Alert.RECORDER_DOWN].message_id.hex}", "--output=cat", "--quiet"]
    wait_until(lambda: machine(*entry).stdout, f"an alert; {machine('journalctl', '-u', 'capd-metrics').stdout}", seconds=60)
    assert machine(*entry).stdout.startswith("alert recorder-down begins (critical): the recorder does not run")
    assert machine("ls", "/run/capd/alerts").stdout.split() == ["recorder-down.json"]
    assert 0 == machine("systemctl", "stop", "capd").returncode
    assert "inactive" == machine("systemctl", "is-active", "capd-metrics").stdout.strip()
    assert "failed" not in machine("systemctl", "is-failed", "capd", "capd-recorder", "capd-metrics").stdout
