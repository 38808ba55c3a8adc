"""A disk of a few megabytes that is really full: a tmpfs, and a file that takes what is free.

What lives here: mounting, filling, emptying. What must not: roles.
"""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import Final

BYTES: Final = 16 << 20
PAGE: Final = 4096


class SmallDisk:
    """One, below a directory; empty at first."""

    def __init__(self, directory: Path) -> None:
        """Mount it."""
        self.directory = directory
        self._filler = directory / "filler"
        directory.mkdir()
        subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={BYTES}", "capd-crash", directory], check=True)

    def fill(self, left: int) -> None:
        """Leave so many bytes free."""
        self.empty()
        facts = os.statvfs(self.directory)
        with self._filler.open("wb") as file:
            os.posix_fallocate(file.fileno(), 0, max(PAGE, facts.f_bavail * facts.f_frsize - left))

    def empty(self) -> None:
        """Take the filler away."""
        self._filler.unlink(missing_ok=True)

    def close(self) -> None:
        """Unmount it."""
        subprocess.run(["umount", self.directory], check=True)
