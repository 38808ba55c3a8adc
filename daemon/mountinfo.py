"""What is mounted here, from /proc/self/mountinfo (proc(5)).

What lives here: parsing and asking. What must not: mounting (mounts.py).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

MOUNTINFO: Final = Path("/proc/self/mountinfo")
_ESCAPE: Final = re.compile(r"\\([0-7]{3})")


@dataclass(frozen=True, kw_only=True)
class Mount:
    """One mount.

    Attributes:
        root: which directory of the file system is mounted; "/" is all of it.
        point: where.
        type: file system type.
        writable: neither the mount nor the file system is read-only.
    """

    root: str
    point: Path
    type: str
    writable: bool


def parse(text: str) -> Iterator[Mount]:
    """Read mountinfo lines; lines of another shape are passed over, as proc(5) asks."""
    for line in text.splitlines():
        before, separator, after = line.partition(" - ")
        fields, rest = before.split(" "), after.split(" ")
        if not separator or len(fields) < 6 or len(rest) < 3:  # noqa: PLR2004 - the fixed fields of proc(5)
            continue
        read_only = "ro" in fields[5].split(",") or "ro" in rest[2].split(",")
        yield Mount(root=_plain(fields[3]), point=Path(_plain(fields[4])), type=rest[0], writable=not read_only)


def mounted(kind: str) -> list[Mount]:
    """List what is mounted of a file system type, in the order of mounting."""
    text = MOUNTINFO.read_text(encoding="utf-8", errors="surrogateescape")
    return [mount for mount in parse(text) if mount.type == kind]


def _plain(field: str) -> str:
    return _ESCAPE.sub(lambda match: chr(int(match.group(1), 8)), field)
