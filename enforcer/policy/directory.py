"""The directory of a policy on disk: every file `*.yaml` in it, sorted by name.

What lives here: reading files, within limits. What must not: what is in them, reloading (policy_set.py).

A file that cannot be read is a problem like any other: a policy is used whole, or not at all.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

from capd.enforcer.policy.policy import Policy, read_policy
from capd.enforcer.policy.problem import Place, PolicyError, Problem
from capd.recording.durable import read_regular

FILE_BYTES_MAX: Final = 4 << 20
"""A thousand rules have about 200 KB."""
FILES_MAX: Final = 256
SUFFIXES: Final = frozenset({".yaml", ".yml"})


def load_policy(directory: Path) -> Policy:
    """Read the policy of a directory, or of a single file.

    Raises:
        PolicyError: it cannot be used, or there is none; every problem is listed.
    """
    return read_policy(read_files(directory))


def read_files(directory: Path) -> dict[str, bytes]:
    """Give the content of the policy's files, by path, in the order of their names.

    Raises:
        PolicyError: one cannot be read, or there are none.
    """
    problems: list[Problem] = []
    found: dict[str, bytes] = {}
    for path in _listed(directory):
        try:
            content = read_regular(path, FILE_BYTES_MAX)
        except OSError as error:
            problems.append(Problem(Place(str(path)), f"cannot be read: {error.strerror or error}"))
            continue
        found[str(path)] = content
    if problems:
        raise PolicyError(problems)
    return found


def _listed(directory: Path) -> list[Path]:
    here = Place(str(directory))
    try:
        if not directory.is_dir():
            return [directory]
        entries = sorted(directory.iterdir())
    except OSError as error:
        raise PolicyError([Problem(here, f"cannot be read: {error.strerror or error}")]) from error
    files = [path for path in entries if path.suffix in SUFFIXES and not path.name.startswith(".")]
    if not files:
        raise PolicyError([Problem(here, "there is no policy: no file *.yaml")])
    if len(files) > FILES_MAX:
        raise PolicyError([Problem(here, f"there are more than {FILES_MAX} files")])
    return files
