"""Files that only root could have written.

What lives here: who may own, write and read them, checked on the file that is open. What must not: what is in them.

Whoever can write a file that a credential is read from chooses what is sent; whoever can write a directory on the way to it can
put another file there, also one that root wrote for something else.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import Final

from capd.enforcer.credentials.errors import CredentialError
from capd.recording.durable import OTHERS_WRITE, open_regular

CONTENT_BYTES_MAX: Final = 65_536
"""A secret, or a file of variables, is far shorter; a device or a log in its place is not read whole."""


def read_guarded(path: Path, *, group: int | None = None, owners: frozenset[int] = frozenset({0})) -> str:
    """Give the text of a file that nobody but root could have written, and others than the reader cannot read.

    Args:
        path: of the file; links are followed, and where they lead is checked.
        group: that may read it; None: none may.
        owners: whose it may be.

    Raises:
        CredentialError: it cannot be read, is too long, or others could have written or can read it.
    """
    try:
        real = path.resolve(strict=True)
        check_way(real, owners)
        descriptor = open_regular(real)
    except (OSError, RuntimeError) as error:
        raise CredentialError(f"{path}: {_words(error)}") from error
    with os.fdopen(descriptor, "rb") as file:
        _check(path, os.fstat(descriptor), group, owners)
        content = file.read(CONTENT_BYTES_MAX + 1)
    if len(content) > CONTENT_BYTES_MAX:
        raise CredentialError(f"{path}: it has more than {CONTENT_BYTES_MAX} bytes")
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError:
        raise CredentialError(f"{path}: it is no text") from None


def _check(path: Path, found: os.stat_result, group: int | None, owners: frozenset[int]) -> None:
    if found.st_uid not in owners:
        raise CredentialError(f"{path}: it belongs to user {found.st_uid}, and must belong to root")
    if found.st_mode & (stat.S_IRWXO | stat.S_IWGRP):
        raise CredentialError(f"{path}: its mode {stat.S_IMODE(found.st_mode):04o} lets others at it; make it 0600")
    if found.st_mode & stat.S_IRGRP and found.st_gid not in {0, group}:
        raise CredentialError(f"{path}: group {found.st_gid} may read it; make it 0600, or give it to the enforcer's group")


def check_way(path: Path, owners: frozenset[int] = frozenset({0})) -> None:
    """Check that nobody but root can change what a path without links leads to.

    Args:
        path: whose directories are looked at.
        owners: whose they may be.

    Raises:
        CredentialError: somebody can.
    """
    for directory in path.parents:
        found = directory.stat()
        sticky = bool(found.st_mode & stat.S_ISVTX)
        if found.st_uid not in owners and not sticky:
            raise CredentialError(f"{path}: the directory {directory} belongs to user {found.st_uid}, and must belong to root")
        if found.st_mode & OTHERS_WRITE and not sticky:
            raise CredentialError(f"{path}: others may write the directory {directory}")


def _words(error: OSError | RuntimeError) -> str:
    return (error.strerror or str(error)) if isinstance(error, OSError) else "its links lead in a circle"
