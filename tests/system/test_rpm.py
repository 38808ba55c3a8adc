"""The rpm: its bytes, what is in it, and what installing, upgrading and erasing it do to a root file system that is not booted.

The last cases are one story, in their order.
"""

from __future__ import annotations

import re
import struct
import subprocess
from pathlib import Path

import pytest

from tests.daemon.conftest import REPOSITORY
from tests.requirements import require_command
from tests.system.building import build, digest
from tests.system.empty_root import DATABASE, EmptyRoot

pytestmark = [pytest.mark.slow]

QUERY = r"[%{FILENAMES}\t%{FILEMODES:perms}\t%{FILEUSERNAME}:%{FILEGROUPNAME}\t%{FILEFLAGS:fflags}\n]"
LIBRARIES = "usr/lib/capd/lib/python3.11/site-packages"
FLAGS = (
    (r"/etc/capd/capd\.toml", "cn"),
    (r"/usr/share/licenses/capd/[A-Z]+", "l"),
    (r"/usr/share/(doc/capd|man)/.*", "d"),
    (r"/var/lib/capd|.*/__pycache__/[^/]+\.pyc", "g"),
)
"""c is configuration, n is not replaced, l a licence, d documentation, g not in the package but its own."""
SHELLS = {
    "/usr/share/bash-completion/completions/capd",
    "/usr/share/zsh/site-functions/_capd",
    "/usr/share/fish/vendor_completions.d/capd.fish",
}
COMMON = {
    "/usr/bin/capd",
    "/usr/lib/sysusers.d/capd.conf",
    "/usr/lib/tmpfiles.d/capd.conf",
    "/etc/capd/policy.d",
    "/usr/share/man/man1/capd.1.gz",
}
UNITS = (".service", ".target", ".slice", ".timer", ".socket")
REQUIRED = {
    "python(abi) = 3.12",
    "python3 >= 3.12",
    "python3 < 3.13",
    "/usr/bin/python3.12",
    "python3-bcc",
    "nftables",
    "ca-certificates",
}
USERS = {"capd", "capd-enforcer", "capd-approvers"}
LEFT = {"etc/capd", "etc/capd/capd.toml.rpmsave", "etc/capd/policy.d", "etc/capd/policy.d/mine.yaml"}

Before = tuple[set[str], set[str]]
"""Files and accounts."""


@pytest.fixture(scope="module")
def released(place: Path) -> Path:
    """Give what `make rpm` makes."""
    require_command("rpmbuild")
    (made,) = build("rpm", place / "released")
    return made


@pytest.fixture(scope="module")
def root(place: Path, debian: Path) -> EmptyRoot:
    """Give a root file system without capd."""
    require_command("rpm")
    return EmptyRoot(place / "empty", debian)


@pytest.fixture(scope="module")
def before(root: EmptyRoot) -> Before:
    """Give its files and accounts."""
    return root.files(), root.accounts()


def said(*command: str) -> str:
    """Give what a command prints, whatever its exit status."""
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout


def query(package: Path, *words: str) -> list[str]:
    """Ask rpm about a package that is a file."""
    return said("rpm", "--query", "--package", str(package), *words).splitlines()


def test_the_same_commit_gives_the_same_bytes(rpms: tuple[Path, Path], place: Path) -> None:
    """Who builds again gets the same file."""
    (again,) = build("rpm", place / "again", "--python", "3.11")
    assert rpms[0].name == again.name
    assert digest(rpms[0]) == digest(again)


def test_digests_hold(rpms: tuple[Path, Path], released: Path, place: Path) -> None:
    """`rpm -K` passes, and does not when one bit of the payload is another."""
    for package in (*rpms, released):
        assert f"{package}: digests OK\n" == said("rpm", "-K", str(package))
    content = bytearray(released.read_bytes())
    content[-100] ^= 1
    spoiled = place / "spoiled.rpm"
    spoiled.write_bytes(content)
    assert "NOT OK" in said("rpm", "-K", str(spoiled))


def test_rpmlint_has_nothing_to_say(rpms: tuple[Path, Path]) -> None:
    """The package keeps the rules of rpms, but where it says why not (packaging/system/rpm/rpmlint.toml)."""
    require_command("rpmlint")
    heard = said("rpmlint", "-c", str(REPOSITORY / "packaging/system/rpm/rpmlint.toml"), str(rpms[0]))
    assert [] == [line for line in heard.splitlines() if line.startswith("capd")]
    assert "0 errors, 0 warnings" in heard


def test_files_belong_to_root_and_are_marked(released: Path) -> None:
    """All files are root's, none is writable by others, and each is marked as what it is."""
    lines = query(released, f"--queryformat={QUERY}")
    assert len(lines) > 1000
    for line in lines:
        name, mode, owner, flags = line.split("\t")
        assert "root:root" == owner, name
        assert mode in {"drwxr-xr-x", "lrwxrwxrwx", "-rwxr-xr-x" if "/bin/" in name else "-rw-r--r--"}, name
        expected = next((flag for pattern, flag in FLAGS if re.fullmatch(pattern, name)), "")
        assert ("" if mode.startswith("d") and name != "/var/lib/capd" else expected) == flags, name


def test_files_are_where_the_debian_package_has_them(released: Path) -> None:
    """Units, users, directories, the command and the manual are at the same places; what differs is the family's way."""
    names = set(query(released, "--list"))
    units = {f"/usr/lib/systemd/system/{path.name}" for path in (REPOSITORY / "systemd").iterdir() if path.suffix in UNITS}
    assert units | COMMON | SHELLS <= names
    assert not {name for name in names if re.search("copyright|lintian|dist-packages|vendor-completions", name)}


def test_it_is_bound_to_one_python(released: Path) -> None:
    """Its compiled libraries are of the Python that it requires: RHEL 10's, the one that bcc's module belongs to."""
    assert set(query(released, "--requires")) >= REQUIRED
    compiled = [name for name in query(released, "--list") if name.endswith(".so")]
    assert len(compiled) > 10
    assert [] == [name for name in compiled if ".cpython-312-" not in name and ".abi3." not in name]
    offered = [line for line in query(released, "--provides") if not line.startswith(("bundled(", "capd", "config("))]
    assert [] == offered


def test_installing_makes_users_state_and_keys_and_starts_nothing(
    root: EmptyRoot, rpms: tuple[Path, Path], before: Before
) -> None:
    """There are users, the host's id and its keys; nothing is enabled that the distribution's presets do not enable."""
    assert "" == root.change("--install", "--nodeps", str(rpms[0]))
    assert USERS == root.accounts() - before[1]
    assert 36 == len(root.must("cat", "/var/lib/capd/host").strip())
    assert [] == [name for name in root.files() - before[0] if name.startswith("etc/") and not name.startswith("etc/capd")]
    assert "capd 0.1.0\n" == root.must("capd", "--version")
    assert "" == root.rpm("--verify", "--nodeps", "capd")


def test_bytecode_is_made_where_it_runs(root: EmptyRoot) -> None:
    """Each module has bytecode that fits its source, so that no start compiles it."""
    sources = sorted((root.root / LIBRARIES / "capd").rglob("*.py"))
    assert len(sources) > 100
    for source in sources:
        head = (source.parent / "__pycache__" / f"{source.stem}.cpython-311.pyc").read_bytes()[:16]
        assert (0, int(source.stat().st_mtime), source.stat().st_size) == struct.unpack("<III", head[4:]), source


def test_an_upgrade_keeps_what_is_the_hosts(root: EmptyRoot, rpms: tuple[Path, Path]) -> None:
    """The host is the same host, its configuration is untouched, and all files are the new package's."""
    host = root.must("cat", "/var/lib/capd/host")
    (root.root / "etc/capd/capd.toml").write_text("# mine\n", encoding="ascii")
    (root.root / "etc/capd/policy.d/mine.yaml").write_text("rules: []\n", encoding="ascii")
    assert "" == root.change("--upgrade", "--nodeps", str(rpms[1]))
    assert "capd-0.1.0-2.py311.x86_64\n" == root.rpm("--query", "capd")
    assert host == root.must("cat", "/var/lib/capd/host")
    assert "# mine\n" == root.must("cat", "/etc/capd/capd.toml")
    differing = said("rpm", f"--root={root.root}", f"--dbpath={DATABASE}", "--verify", "--nodeps", "capd")
    assert ["/etc/capd/capd.toml"] == [line.split()[-1] for line in differing.splitlines()]
    assert "capd 0.1.0\n" == root.must("capd", "--version")


def test_erasing_leaves_what_is_the_operators(root: EmptyRoot, before: Before) -> None:
    """What was recorded, keys, users and changed configuration stay; nothing else does, and no bytecode."""
    assert "warning: /etc/capd/capd.toml saved as /etc/capd/capd.toml.rpmsave\n" == root.change("--erase", "capd")
    left = root.files() - before[0]
    assert LEFT == {name for name in left if not name.startswith("var/lib/capd")}
    assert "var/lib/capd/host" in left
    assert USERS == root.accounts() - before[1]
    assert set() == before[0] - root.files()
