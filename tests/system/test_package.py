"""The Debian package by itself: its bytes, and what Debian's rules say of it.

What lives here: cases that need no machine. What must not: what becomes of it on one (test_installed.py).
"""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tests.daemon.conftest import REPOSITORY
from tests.requirements import require_command, require_root
from tests.system.building import build, digest
from tests.system.contents import contents

pytestmark = [pytest.mark.slow]

PURGE = """\
mkdir -p /var/lib/capd /etc/capd
mount -t tmpfs none /var/lib/capd
mkdir /var/lib/capd/keys
touch /var/lib/capd/host /var/lib/capd/keys/host.key
useradd --system capd
sh /root/postrm purge || exit
find /var/lib/capd /etc/capd
getent passwd capd
exit 0
"""


def test_the_same_commit_gives_the_same_bytes(package: Path, place: Path) -> None:
    """Who builds again gets the same file."""
    (again,) = build("deb", place / "again")
    assert package.name == again.name
    first, second = contents(package), contents(again)
    assert set() == {name for name in first.keys() | second.keys() if first.get(name) != second.get(name)}
    assert digest(package) == digest(again)


def test_lintian_has_nothing_to_say(package: Path) -> None:
    """The package keeps Debian's rules, but where it says why not (packaging/system/deb/overrides)."""
    require_command("lintian")
    done = subprocess.run(["lintian", "--allow-root", str(package)], capture_output=True, text=True, check=False)
    assert ("", 0) == (done.stdout, done.returncode), done.stderr


def test_purging_ends_where_a_file_system_is_mounted(place: Path, debian: Path) -> None:
    """Where the recording has a file system of its own, purging empties that and takes all else away."""
    require_root()
    root = place / "purged"
    subprocess.run(["cp", "--archive", "--reflink=auto", f"{debian}/.", str(root)], check=True)
    (root / "root/postrm").write_bytes((REPOSITORY / "packaging/system/deb/capd/postrm").read_bytes())
    command = ["unshare", "--mount", "--net", "chroot", str(root), "sh", "-c", PURGE]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (0, "/var/lib/capd\n") == (done.returncode, done.stdout), done.stderr
    assert "Device or resource busy" in done.stderr
