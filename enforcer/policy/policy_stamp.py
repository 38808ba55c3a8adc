"""Whether a policy's files are there, and whether they have changed: without reading any.

What lives here: looking at names, sizes, times, rights. What must not: what is in files (directory.py).
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

SUFFIXES: Final = frozenset({".yaml", ".yml"})


def stamp(directory: Path) -> object:
    """Give what tells whether a policy's files have changed: names, sizes, times, and whose they are, who may write them."""
    try:
        entries = [directory, *directory.iterdir()] if directory.is_dir() else [directory]
        return tuple(sorted(_of(path) for path in entries))
    except OSError as error:
        return str(error)


def _of(path: Path) -> tuple[str, int, int, int, int, int]:
    facts = path.stat()
    return str(path), facts.st_ino, facts.st_size, facts.st_mtime_ns, facts.st_mode, facts.st_uid


def is_there(directory: Path) -> bool:
    """Say whether there is a policy, which may be one that cannot be used."""
    try:
        if not directory.is_dir():
            return directory.exists()
        return any(of_a_policy(path) for path in directory.iterdir())
    except OSError:
        return True


def of_a_policy(path: Path) -> bool:
    """Say whether a file of the directory is one of the policy."""
    return path.suffix in SUFFIXES and not path.name.startswith(".")
