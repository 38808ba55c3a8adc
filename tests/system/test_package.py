"""The Debian package by itself: its bytes, and what Debian's rules say of it.

What lives here: cases that need no machine. What must not: what becomes of it on one (test_installed.py).
"""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tests.requirements import require_command
from tests.system.building import build, digest
from tests.system.contents import contents

pytestmark = [pytest.mark.slow]


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
