"""What tests of the installed package share: the package itself, and a machine.

What lives here: making both. What must not: cases.
"""

from __future__ import annotations

import os
import subprocess
import tempfile
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.requirements import require_command, require_probes, require_root
from tests.system.building import build
from tests.system.machine import Machine, make_root

collect_ignore = [
    name
    for name in (
        "test_first_steps.py",
        "test_fleet.py",
        "test_fleet_running.py",
        "test_full_disk.py",
        "test_package.py",
        "test_rpm.py",
        "test_rpm_running.py",
        "test_selectors.py",
    )
    if "CAPD_SYSTEM" not in os.environ
]
"""What builds packages again, looks at them alone, or boots another machine for one more thing: a quarter of an hour. `make
system` runs it; `make test` has the package's whole life, its guard and its upgrade."""
KEPT = os.environ.get("CAPD_TEST_PACKAGES", "")
"""A directory with packages that were made before, for whoever runs these tests often."""
TWICE = ("--revision", "1", "--revision", "2")
FLEET = ("--package", "capd-fleet")


@pytest.fixture(scope="module")
def place() -> Iterator[Path]:
    """Give a directory for a root file system: of no user's temporary files, which may be in memory."""
    with tempfile.TemporaryDirectory(prefix="capd-system-", dir="/var/tmp", ignore_cleanup_errors=True) as name:
        yield Path(name)


@pytest.fixture(scope="session")
def shared() -> Iterator[Path]:
    """Give a directory for what all machines are made of."""
    with tempfile.TemporaryDirectory(prefix="capd-system-", dir="/var/tmp") as name:
        yield Path(name)


@dataclass
class Begun:
    """What all machines are made of, which is being made."""

    root: Future[None]
    packages: Future[list[Path]]


@pytest.fixture(scope="session")
def begun(shared: Path) -> Iterator[Begun]:
    """Begin to make a root file system, and packages beside it: one computes while the other waits for a disk or a mirror."""
    require_command("dpkg-deb", "git", "mmdebstrap")
    with ThreadPoolExecutor() as beside:
        root = beside.submit(make_root, shared / "root")
        kept = sorted(Path(KEPT).glob("capd_*.deb")) if KEPT else []
        yield Begun(root, beside.submit(lambda: kept or build("deb", shared, *TWICE)))


@pytest.fixture(scope="session")
def packages(begun: Begun) -> tuple[Path, Path]:
    """Give two versions of the package; all of them but their numbers is made once."""
    first, second = begun.packages.result()[:2]
    return first, second


@pytest.fixture(scope="session")
def package(packages: tuple[Path, Path]) -> Path:
    """Give the package."""
    return packages[0]


@pytest.fixture(scope="session")
def rpms(shared: Path) -> tuple[Path, Path]:
    """Give two versions of the rpm, for the Python of Debian 12."""
    require_root()
    require_command("rpmbuild", "git")
    if found := sorted(Path(KEPT).glob("capd-[0-9]*.rpm")) if KEPT else []:
        return found[0], found[1]
    first, second = build("rpm", shared / "rpm", "--python", "3.11", *TWICE)
    return first, second


@pytest.fixture(scope="session")
def fleets(shared: Path) -> tuple[Path, Path]:
    """Give the package capd-fleet for each version of the package."""
    require_command("dpkg-deb", "git")
    if found := sorted(Path(KEPT).glob("capd-fleet_*.deb")) if KEPT else []:
        return found[0], found[1]
    first, second = build("deb", shared, *FLEET, *TWICE)
    return first, second


@pytest.fixture(scope="session")
def fleet_rpms(shared: Path) -> tuple[Path, Path]:
    """Give the same as rpms."""
    require_root()
    require_command("rpmbuild", "git")
    if found := sorted(Path(KEPT).glob("capd-fleet-*.rpm")) if KEPT else []:
        return found[0], found[1]
    first, second = build("rpm", shared / "rpm", *FLEET, "--python", "3.11", *TWICE)
    return first, second


@pytest.fixture(scope="session")
def debian(begun: Begun, shared: Path) -> Path:
    """Give the root file system of a machine that has never booted."""
    begun.root.result()
    return shared / "root"


@pytest.fixture(scope="module")
def machine(place: Path, debian: Path) -> Iterator[Machine]:
    """Give a machine that has booted and has no capd yet."""
    require_probes()
    require_command("systemd-nspawn", "nsenter")
    root = place / "root"
    subprocess.run(["cp", "--archive", "--reflink=auto", f"{debian}/.", str(root)], check=True)
    made = Machine(root, place / "console.log")
    try:
        made.prepare()
        made.boot()
        yield made
    finally:
        made.off()
