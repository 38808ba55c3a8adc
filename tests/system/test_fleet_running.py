"""The package capd-fleet on a machine that boots: a bucket in a directory is made searchable, searched, and no more.

The cases are one story, in their order.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.daemon.conftest import wait_until
from tests.system import booting
from tests.system.machine import Machine
from tests.system.test_installed import files, wait_healthy

pytestmark = [pytest.mark.e2e, pytest.mark.kernel, pytest.mark.slow]

BUCKET = "/srv/bucket"
CONFIGURATION = f'bucket_url = "{BUCKET}"\n[recording]\nlevel = "full"\n[catalogue]\ndelay_seconds = 1\n'
DIRECTORY = f"[Service]\nReadWritePaths={BUCKET}\n"
"""What the units say that a bucket in a directory needs."""
SAYS = "install capd-fleet"
CHANGING = ("/var/lib/capd", BUCKET)
"""What goes on being recorded and shipped, whatever is installed."""


def asked(machine: Machine, *words: str) -> Any:  # noqa: ANN401 - JSON
    """Ask the bucket."""
    return json.loads(machine.must("capd", *words, "--bucket", BUCKET, "--json"))


def package_files(machine: Machine) -> set[str]:
    """Give what a package may have made."""
    return {path for path in files(machine) if not path.startswith(CHANGING)}


def shipped(machine: Machine) -> int:
    """Give how many segments the bucket has."""
    return len(machine.must("find", BUCKET, "-name", "*.seg").splitlines())


@pytest.fixture(scope="module")
def host(machine: Machine, package: Path) -> Machine:
    """Give a machine that has shipped what an agent said, without capd-fleet."""
    booting.install(machine, package)
    machine.must("install", "-d", "-o", "capd", "-g", "capd", BUCKET)
    machine.write("/etc/capd/capd.toml", CONFIGURATION)
    for unit in ("capd-shipper", "capd-catalogue"):
        machine.write(f"/etc/systemd/system/{unit}.service.d/bucket.conf", DIRECTORY)
    machine.must("systemctl", "daemon-reload")
    machine.must("systemctl", "restart", "capd", "capd-recorder")
    machine.must("systemctl", "enable", "--now", "capd-shipper")
    wait_healthy(machine)
    said = booting.tries(machine, "/allowed")
    story = "capd status; nft list ruleset; journalctl --quiet --no-pager --lines=60 --unit='capd*'"
    assert "told /allowed" in said, f"{said}\n{machine('sh', '-c', story).stdout}"
    wait_until(lambda: shipped(machine) > 0, "shipped")
    return machine


@pytest.fixture(scope="module")
def before(host: Machine) -> set[str]:
    """Give its files."""
    return package_files(host)


@pytest.mark.usefixtures("before")
def test_without_it_whoever_needs_it_is_told(host: Machine) -> None:
    """The errand, its unit, whoever asks the bucket, status and doctor name the package; evidence is verified all the same."""
    for words in (("catalogue",), ("sessions", "--bucket", BUCKET), ("search", "allowed", "--bucket", BUCKET)):
        done = host("capd", *words)
        assert (2, "") == (done.returncode, done.stdout)
        assert SAYS in done.stderr
    assert 0 != host("systemctl", "start", "capd-catalogue").returncode
    assert SAYS in host.must("journalctl", "--unit=capd-catalogue", "--output=cat", "--quiet")
    host("systemctl", "reset-failed", "capd-catalogue")
    assert SAYS in host("capd", "status").stdout
    assert SAYS in host("capd", "doctor").stdout
    assert "WHOLE" in host.must("capd", "verify", "--bucket", BUCKET)


def test_with_it_the_bucket_is_searched(host: Machine, fleets: tuple[Path, Path]) -> None:
    """Installed, it starts nothing; the unit writes the catalogue, confined as it is, and what was said is found."""
    units = host.must("systemctl", "list-units", "--all", "--no-legend", "--plain", "capd*")
    host.install(fleets[0])
    assert units == host.must("systemctl", "list-units", "--all", "--no-legend", "--plain", "capd*")

    def catalogued() -> bool:
        host.must("systemctl", "start", "capd-catalogue")
        return bool(host.must("find", f"{BUCKET}/catalogue/sessions", "-name", "*.parquet"))

    wait_until(catalogued, "catalogued")
    assert {"capd"} == set(host.must("find", f"{BUCKET}/catalogue", "-printf", "%u\n").split())
    (row,) = asked(host, "sessions", "--protocol", "http1")
    assert "complete" == row["completeness"]["verdict"], row["completeness"]
    assert {row["session"]} == {hit["session"] for hit in asked(host, "search", "allowed")}
    assert "told /allowed" in host.must("capd", "replay", row["session"], "--bucket", BUCKET)
    told = host("capd", "status").stdout + host("capd", "doctor").stdout
    assert SAYS not in told
    assert "through segment" in told


def test_it_is_upgraded_together_with_capd(host: Machine, packages: tuple[Path, Path], fleets: tuple[Path, Path]) -> None:
    """Both new files in one command: both are the new ones, and the bucket is searched on; capd alone would end the other."""
    found = asked(host, "sessions", "--protocol", "http1")
    (host.root / "root/alone.deb").write_bytes(packages[1].read_bytes())
    assert "Remv capd-fleet" in host.must("apt-get", "install", "--simulate", "--quiet", "/root/alone.deb")
    (host.root / "root/alone.deb").unlink()
    host.install(packages[1], fleets[1])
    shown = host.must("dpkg-query", "--show", "--showformat=${Version} ${db:Status-Status}\n", "capd", "capd-fleet")
    assert ["0.1.0-2 installed"] * 2 == shown.splitlines()
    wait_healthy(host)
    host.must("systemctl", "start", "capd-catalogue")
    assert found == asked(host, "sessions", "--protocol", "http1")


def test_removed_it_leaves_nothing_and_capd_as_it_was(host: Machine, before: set[str]) -> None:
    """There are the files of before, capd records and ships on, and who needs the package is told again."""
    host.must("apt-get", "remove", "--quiet", "--yes", "capd-fleet")
    assert (set(), set()) == (package_files(host) - before, before - package_files(host))
    known = host("dpkg-query", "--show", "--showformat=${db:Status-Status}", "capd-fleet").stdout
    assert known in {"", "not-installed"}  # its name alone is known, as what capd suggests
    assert "" == host.must("find", "/root", "-path", "*duckdb*")
    assert SAYS in host("capd", "sessions", "--bucket", BUCKET).stderr
    count = shipped(host)
    assert "told /allowed" in booting.tries(host, "/allowed")
    wait_until(lambda: shipped(host) > count, "shipped")
    wait_healthy(host)
