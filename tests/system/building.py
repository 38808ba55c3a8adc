"""Packages of this checkout, made as `make` does.

What lives here: making them. What must not: what is tried with them.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from pathlib import Path
from typing import Final

from tests.daemon.conftest import REPOSITORY

FASTEST: Final = {"deb": "0", "rpm": "1"}
"""Levels of compression."""


def build(form: str, target: Path, *options: str) -> list[Path]:
    """Make packages, hardly compressed.

    Args:
        form: `deb` or `rpm`.
        target: directory that they are put in.
        options: of the command.
    """
    command = [sys.executable, str(REPOSITORY / "packaging/system"), form, str(target), "--level", FASTEST[form], *options]
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY / "src")}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert 0 == done.returncode, done.stdout + done.stderr
    return [Path(line) for line in done.stdout.split()]


def digest(package: Path) -> str:
    """Give what two packages are compared by: of two that differ nobody wants to see how, in a hundred megabytes."""
    return hashlib.sha256(package.read_bytes()).hexdigest()
