"""Secrets of webhooks, read once from files that others cannot read.

What lives here: reading and refusing. What must not: using them.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import Final

from capd.daemon.errors import ConfigurationError
from capd.recording.durable import read_regular

FILE_BYTES_MAX: Final = 4_096
SECRET_BYTES_MIN: Final = 16
"""Of a key that somebody chose: below that it can be guessed."""
NOT_FOR: Final = stat.S_IWGRP | stat.S_IRWXO
"""Who else may not: the group may read, as the enforcer's own must where a unit starts it without root."""


def read_secret(path: Path, key: str) -> bytes:
    """Give a secret, without the line's end.

    Args:
        path: of the file.
        key: of the configuration, for the message.

    Raises:
        ConfigurationError: it cannot be read, others may read or write it, or it is too short.
    """
    try:
        status = path.stat()
        content = read_regular(path, FILE_BYTES_MAX).strip()
    except OSError as error:
        raise ConfigurationError(f"{key}: {path}: {error.strerror or error}") from error
    if status.st_uid not in {0, os.geteuid()} or status.st_mode & NOT_FOR:
        raise ConfigurationError(
            f"{key}: {path} (user {status.st_uid}, mode {status.st_mode & 0o7777:04o}) "
            "must be root's, and closed to others: chmod 0600"
        )
    if len(content) < SECRET_BYTES_MIN:
        raise ConfigurationError(f"{key}: {path} has less than {SECRET_BYTES_MIN} bytes, which could be guessed")
    return content
