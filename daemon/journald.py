"""Telling journald: one structured entry, by its native protocol.

What lives here: the form of an entry, and whether standard error goes to journald. What must not: what is told (alert_log.py);
capd's own journal, which is something else (recording/journal).

Source: systemd.journal-fields(7), "Native Journal Protocol" (systemd.io/JOURNAL_NATIVE_PROTOCOL), systemd.exec(5) on
JOURNAL_STREAM.
"""

from __future__ import annotations

import os
import re
import socket
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Final

SOCKET: Final = Path("/run/systemd/journal/socket")
FIELD: Final = re.compile(r"[A-Z][A-Z0-9_]{0,63}")
"""Names of fields: journald drops others, and those that begin with an underscore are its own."""
VALUE_BYTES_MAX: Final = 4096
"""Of one value. A whole entry then fits into one datagram of any host (net.core.wmem_default is 212,992)."""
SECONDS_MAX: Final = 1.0
"""A journald that does not read must not keep an alert from the other ways it is told."""


def entry(fields: Mapping[str, str]) -> bytes:
    """Give the datagram for one entry; values that are too long are cut.

    Raises:
        ValueError: a name is none of a field.
    """
    return b"".join(_field(name, value) for name, value in fields.items())


def _field(name: str, value: str) -> bytes:
    if not FIELD.fullmatch(name):
        raise ValueError(f"{name!r} is no name of a field")
    content = value.encode("utf-8", "replace")[:VALUE_BYTES_MAX]
    if b"\n" not in content:
        return name.encode("ascii") + b"=" + content + b"\n"
    return name.encode("ascii") + b"\n" + struct.pack("<Q", len(content)) + content + b"\n"


def receives(descriptor: int, stream: str | None) -> bool:
    """Tell whether a descriptor is the stream that the service manager connected to journald.

    Args:
        descriptor: such as that of standard error.
        stream: JOURNAL_STREAM of the environment: `device:inode`.
    """
    try:
        found = os.fstat(descriptor)
    except OSError:
        return False
    return stream == f"{found.st_dev}:{found.st_ino}"


def send(datagram: bytes, path: Path = SOCKET) -> None:
    """Give an entry to journald.

    Raises:
        OSError: it is not there, or does not take it in time.
    """
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as connection:
        connection.settimeout(SECONDS_MAX)
        connection.sendto(datagram, str(path))
