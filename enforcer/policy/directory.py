"""The directory of a policy on disk: every file `*.yaml` in it, sorted by name.

What lives here: reading files, within limits. What must not: what is in them, reloading (policy_set.py).

A file that cannot be read is a problem like any other: a policy is used whole, or not at all.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

from capd.enforcer.policy.policy import Policy, read_policy
from capd.enforcer.policy.policy_stamp import of_a_policy
from capd.enforcer.policy.problem import Place, PolicyError, Problem
from capd.recording.durable import OTHERS_WRITE, read_regular

FILE_BYTES_MAX: Final = 4 << 20
"""A thousand rules have about 200 KB."""
FILES_MAX: Final = 256
BEGINNING: Final = "docs/policy.md has one to begin with"


def load_policy(directory: Path, *, owners: frozenset[int] | None = None, own: bytes = b"") -> Policy:
    """Read the policy of a directory, or of a single file.

    Args:
        directory: where it is.
        owners: users to whom the files and the directory must belong, and who alone may write them: who can change the policy
            can do all that it could allow. None: that is not asked.
        own: rules of capd's own for this host, as in `read_policy`.

    Raises:
        PolicyError: it cannot be used, or there is none; every problem is listed.
    """
    return read_policy(read_files(directory, owners=owners), own)


def read_files(directory: Path, *, owners: frozenset[int] | None = None) -> dict[str, bytes]:
    """Give the content of the policy's files, by path, in the order of their names.

    Raises:
        PolicyError: one cannot be read, others could write one, or there are none.
    """
    problems: list[Problem] = []
    found: dict[str, bytes] = {}
    for path in _listed(directory):
        try:
            found[str(path)] = read_regular(path, FILE_BYTES_MAX)
            words = None if owners is None else _unguarded(path, owners)
        except OSError as error:
            words = f"cannot be read: {error.strerror or error}"
        if words is not None:
            problems.append(Problem(Place(str(path)), words))
    if owners is not None and directory.is_dir() and (words := _unguarded(directory, owners)) is not None:
        problems.append(Problem(Place(str(directory)), words))
    if problems:
        raise PolicyError(problems)
    return found


def _unguarded(path: Path, owners: frozenset[int]) -> str | None:
    """Say who else could change what agents may do; None: nobody."""
    status = path.stat()
    if status.st_uid not in owners:
        return f"belongs to user {status.st_uid}, who could change what agents may do; chown it to root"
    if status.st_mode & OTHERS_WRITE:
        return f"may be written by others (mode {status.st_mode & 0o7777:04o}), who could change what agents may do; chmod go-w"
    return None


def _listed(directory: Path) -> list[Path]:
    here = Place(str(directory))
    try:
        if not directory.exists():
            words = f"there is no policy here; {BEGINNING}, and `policy_dir` names another place"
            raise PolicyError([Problem(here, words)])
        if not directory.is_dir():
            return [directory]
        entries = sorted(directory.iterdir())
    except OSError as error:
        raise PolicyError([Problem(here, f"cannot be read: {error.strerror or error}")]) from error
    files = [path for path in entries if of_a_policy(path)]
    if not files:
        raise PolicyError([Problem(here, f"there is no policy: no file *.yaml; {BEGINNING}")])
    if len(files) > FILES_MAX:
        raise PolicyError([Problem(here, f"there are more than {FILES_MAX} files")])
    return files
