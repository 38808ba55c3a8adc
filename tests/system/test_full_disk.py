"""The installed capd on a disk of its own that fills up, as an operator sees it."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.daemon.conftest import wait_until
from tests.system.machine import Machine
from tests.system.test_installed import ROLES, agent, closed, serve, sessions, wait_healthy

pytestmark = [pytest.mark.e2e, pytest.mark.kernel, pytest.mark.slow]

SMALL = """\
[journal]
free_bytes_min = 8388608
[storage]
low_bytes = 67108864
critical_bytes = 33554432
reserve_bytes = 8388608
"""
ONTO_SMALL = """\
systemctl stop capd.target capd
rm /var/lib/capd/reserve
mount -t tmpfs -o size=192m none /mnt && cp -a /var/lib/capd/. /mnt && mount --bind /mnt /var/lib/capd && umount /mnt
systemctl start capd.target
"""
ALL_BUT_20_MIB = (
    "fallocate --length $(( $(stat --file-system --format='%a*%S' /var/lib/capd) - 20971520 )) /var/lib/capd/filler"
)


def test_a_full_disk_costs_nothing_that_was_recorded(machine: Machine, package: Path) -> None:
    """While a disk is full agents connect to nothing, and status says why; with room again all goes on by itself, whole."""
    variables = ("SSL_CERT_FILE=/root/cert.pem",)
    serve(machine)
    machine.install(package)
    wait_healthy(machine)
    assert ["told /allowed/before"] == agent(machine, "/allowed/before", variables=variables)
    machine.write("/etc/capd/conf.d/small.toml", SMALL)
    machine.must("sh", "-c", ONTO_SMALL)
    wait_healthy(machine)
    machine.must("sh", "-c", ALL_BUT_20_MIB)
    wait_until(lambda: "storage is critical" in machine("capd", "status").stdout, "critical")
    (said,) = agent(machine, "/allowed/no-room", variables=variables)
    assert "Operation not permitted" in said
    assert "No space left" in machine("sh", "-c", "cat /dev/zero >/var/lib/capd/rest").stderr
    wait_until(lambda: "storage is out" in machine("capd", "status").stdout, "out")
    (said,) = agent(machine, "/allowed/no-room-at-all", variables=variables)
    assert "Operation not permitted" in said
    assert {"active"} == {machine.must("systemctl", "is-active", role).strip() for role in ROLES}
    machine.must("rm", "/var/lib/capd/filler", "/var/lib/capd/rest")
    wait_healthy(machine)
    before = {row["session"] for row in sessions(machine, "--protocol", "http1")}
    assert ["told /allowed/room"] == agent(machine, "/allowed/room", variables=variables)
    rows = [row for row in closed(machine, len(before) + 1) if row["session"] not in before]
    assert ["complete"] == [row["completeness"]["verdict"] for row in rows]
    assert "no-room" not in machine.must("journalctl", "--unit=server", "--output=cat", "--quiet")
    assert machine.must("capd", "verify")
