"""The package capd-fleet by itself: its bytes, what Debian's and rpm's rules say of it, and what is in it.

What lives here: cases that need no machine. What must not: what becomes of it on one (test_fleet_running.py).
"""

from __future__ import annotations

import io
import re
import subprocess
import tarfile
from pathlib import Path

import pytest

from capd.daemon.version import VERSION
from tests.daemon.conftest import REPOSITORY
from tests.requirements import require_command
from tests.system.building import build, digest
from tests.system.contents import contents
from tests.system.empty_root import DATABASE, EmptyRoot

pytestmark = [pytest.mark.slow]

LIBRARIES = "./usr/lib/capd/lib/python3.11/site-packages"
PAPERS = {
    *(f"./usr/share/doc/capd-fleet/{name}" for name in ("copyright", "changelog.gz", "changelog.Debian.gz")),
    "./usr/share/lintian/overrides/capd-fleet",
}
FILE, DIRECTORY = 0o644, 0o755
FLEET = ("--package", "capd-fleet")


def said(*command: str) -> str:
    """Give what a command prints, whatever its exit status."""
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout


def test_the_same_commit_gives_the_same_bytes(fleets: tuple[Path, Path], fleet_rpms: tuple[Path, Path], place: Path) -> None:
    """Who builds again gets the same files."""
    (deb,) = build("deb", place / "deb", *FLEET)
    assert fleets[0].name == deb.name
    first, second = contents(fleets[0]), contents(deb)
    assert set() == {name for name in first.keys() | second.keys() if first.get(name) != second.get(name)}
    assert digest(fleets[0]) == digest(deb)
    (rpm,) = build("rpm", place / "rpm", *FLEET, "--python", "3.11")
    assert (fleet_rpms[0].name, digest(fleet_rpms[0])) == (rpm.name, digest(rpm))


def test_lintian_has_nothing_to_say(fleets: tuple[Path, Path]) -> None:
    """The package keeps Debian's rules, but where it says why not (packaging/system/deb/capd-fleet/overrides)."""
    require_command("lintian")
    done = subprocess.run(["lintian", "--allow-root", str(fleets[0])], capture_output=True, text=True, check=False)
    assert ("", 0) == (done.stdout, done.returncode), done.stderr


def test_rpmlint_has_nothing_to_say(fleet_rpms: tuple[Path, Path]) -> None:
    """The package keeps the rules of rpms, but where it says why not (packaging/system/rpm/rpmlint.toml)."""
    require_command("rpmlint")
    heard = said("rpmlint", "-c", str(REPOSITORY / "packaging/system/rpm/rpmlint.toml"), str(fleet_rpms[0]))
    assert [] == [line for line in heard.splitlines() if line.startswith("capd")]
    assert "0 errors, 0 warnings" in heard


def test_it_has_libraries_and_nothing_else(package: Path, fleets: tuple[Path, Path]) -> None:
    """Beside its papers all is where capd's libraries are, no file is also capd's, and nothing is run when it comes or goes."""
    mine, capd = contents(fleets[0]), contents(package)
    files = {name for name, entry in mine.items() if entry[0] == FILE}
    assert {DIRECTORY} == {entry[0] for name, entry in mine.items() if name not in files}
    assert PAPERS == {name for name in files if not name.startswith(f"{LIBRARIES}/")}
    assert set() == files & capd.keys()
    assert {f"{LIBRARIES}/{name}/__init__.py" for name in ("pyarrow", "duckdb", "fsspec")} <= files
    assert [] == [name for name in files if re.search(r"flight|_s3|/tests/", name)]
    assert {"control", "md5sums"} == control_files(fleets[0])


def test_it_goes_with_one_capd(fleets: tuple[Path, Path], fleet_rpms: tuple[Path, Path]) -> None:
    """It is for the capd of its own version and revision, which has the Python and the directory that it is made for."""
    for number, (deb, rpm) in enumerate(zip(fleets, fleet_rpms, strict=True), 1):
        assert f"capd (= {VERSION}-{number})" in said("dpkg-deb", "--field", str(deb), "Depends").strip().split(", ")
        required = said("rpm", "--query", "--package", str(rpm), "--requires").splitlines()
        assert f"capd = {VERSION}-{number}.py311" in required
        assert [] == [line for line in required if line.startswith(("libarrow", "libparquet"))]
        offered = said("rpm", "--query", "--package", str(rpm), "--provides").splitlines()
        assert [] == [line for line in offered if not line.startswith(("bundled(", "capd-fleet"))]


def test_licences_of_what_is_compiled_in_come_along(fleets: tuple[Path, Path]) -> None:
    """The file of pyarrow has the terms of what it is made of behind its own: it is not taken for Apache's text alone."""
    _, _, _, _, _, text = contents(fleets[0])["./usr/share/doc/capd-fleet/copyright"]
    assert all(
        word in text.decode() for word in ("Stichting DuckDB Foundation", "3rdparty dependency", "Boost Software License")
    )


def test_an_rpm_leaves_nothing_and_holds_capd_back(
    place: Path, debian: Path, rpms: tuple[Path, Path], fleet_rpms: tuple[Path, Path]
) -> None:
    """Installed, its libraries are found and have bytecode; capd alone is not upgraded below it; erased, all of it is gone."""
    root = EmptyRoot(place / "empty", debian)
    root.change("--install", "--nodeps", str(rpms[0]))
    before = root.files()
    assert "" == root.change("--install", "--nodeps", str(fleet_rpms[0]))
    script = "import duckdb, fsspec, pyarrow.parquet as parquet; print(parquet.__file__)"
    found = root.must("/usr/lib/capd/bin/python", "-IB", "-c", script)
    assert f"{LIBRARIES.lstrip('.')}/pyarrow/parquet/__init__.py\n" == found
    assert [] == [path for path in root.files() - before if path.endswith(".py") and not (root.root / cached(path)).exists()]
    assert "" == root.rpm("--verify", "--nodeps", "capd-fleet", "capd")
    arguments = [f"--root={root.root}", f"--dbpath={DATABASE}", "--force-debian", "--upgrade", "--test", str(rpms[1])]
    refused = subprocess.run(["rpm", *arguments], capture_output=True, text=True, check=False)
    assert f"capd = {VERSION}-1.py311 is needed by (installed) capd-fleet" in refused.stderr
    assert "" == root.change("--erase", "capd-fleet")
    assert before == root.files()


def cached(source: str) -> str:
    """Give where the bytecode of a module is."""
    directory, _, name = source.rpartition("/")
    return f"{directory}/__pycache__/{name.removesuffix('.py')}.cpython-311.pyc"


def control_files(package: Path) -> set[str]:
    """Give the names of a package's control files: which scripts it has is among them."""
    packed = subprocess.run(["dpkg-deb", "--ctrl-tarfile", str(package)], capture_output=True, check=True).stdout
    with tarfile.open(fileobj=io.BytesIO(packed)) as tar:
        return {member.name.removeprefix("./") for member in tar if member.isfile()}
