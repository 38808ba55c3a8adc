"""A root file system that is not booted, into which rpm installs: `rpm --root`, scriptlets in a chroot.

What lives here: rpm's verbs on it, and what is there. What must not: judging.

No Fedora is to be had where these tests run: it is a Debian 12, which has what the scriptlets call (systemd, nft, Python 3.11)
in packages of other names, hence --nodeps; its presets are set to Fedora's.
"""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import Final

PRESETS: Final = "usr/lib/systemd/system-preset"
ACCOUNTS: Final = ("etc/passwd", "etc/group")
DATABASE: Final = "/var/lib/rpm"
"""Debian's rpm has it in the caller's home."""
OTHERS: Final = ("var/lib/rpm", "etc/passwd-", "etc/group-", "etc/shadow-", "etc/gshadow-", "proc", "sys", "dev", "run")
"""What rpm keeps for itself, what was before of the files of accounts, and what is not on disk."""


class EmptyRoot:
    """One such file system."""

    def __init__(self, root: Path, debian: Path) -> None:
        """Make it, a copy of a machine that has never booted."""
        self.root = root
        subprocess.run(["cp", "--archive", "--reflink=auto", f"{debian}/.", str(root)], check=True)
        for preset in (root / PRESETS).iterdir():
            preset.unlink()
        (root / PRESETS / "99-default-disable.preset").write_text("disable *\n", encoding="ascii")
        (root / "usr/share/licenses").mkdir()  # of Fedora's package `filesystem`

    def change(self, *words: str) -> str:
        """Install, upgrade or erase; it must succeed. Give what rpm and the scriptlets say, but for Debian's opinion of it."""
        return self.rpm("--force-debian", *words)

    def rpm(self, *words: str) -> str:
        """Run rpm; it must succeed. Give what it says."""
        done = subprocess.run(
            ["rpm", f"--root={self.root}", f"--dbpath={DATABASE}", *words], capture_output=True, text=True, check=False
        )
        assert 0 == done.returncode, done.stdout + done.stderr
        return done.stdout + done.stderr

    def must(self, *words: str) -> str:
        """Run a command inside; it must succeed. Give what it says."""
        done = subprocess.run(["chroot", str(self.root), *words], capture_output=True, text=True, check=False)
        assert 0 == done.returncode, done.stdout + done.stderr
        return done.stdout

    def files(self) -> set[str]:
        """Give the paths of all files and directories, but for `OTHERS`."""
        left_out = {str(self.root / name) for name in OTHERS}
        found = set()
        for directory, below, names in os.walk(self.root):
            below[:] = [name for name in below if f"{directory}/{name}" not in left_out]
            found |= {f"{directory}/{name}" for name in (*below, *names)} - left_out
        return {path.removeprefix(f"{self.root}/") for path in found}

    def accounts(self) -> set[str]:
        """Give the names of users, and of groups."""
        return {line.split(":")[0] for name in ACCOUNTS for line in (self.root / name).read_text(encoding="utf-8").splitlines()}
