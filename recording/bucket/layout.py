"""What is kept in a bucket, under which names: docs/formats/bucket.md.

What lives here: keys, made and understood. What must not: requests.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import Final
from uuid import UUID

from capd.recording.segment.layout import SEALED_SUFFIX

NS_PER_SECOND: Final = 1_000_000_000
_SEGMENT: Final = re.compile(r"host=([0-9a-f-]{36})/date=(\d{4}-\d{2}-\d{2})/(\d{12})" + re.escape(SEALED_SUFFIX))


@dataclass(frozen=True, slots=True, kw_only=True)
class SegmentKey:
    """What a segment's key says.

    Attributes:
        host: who recorded it.
        day: UTC day of its creation.
        sequence: its number on that host.
    """

    host: UUID
    day: date
    sequence: int

    def __str__(self) -> str:
        """Give the key."""
        return f"{day_folder(self.host, self.day)}{self.sequence:012d}{SEALED_SUFFIX}"

    @classmethod
    def of(cls, host: UUID, sequence: int, created_ns: int) -> SegmentKey:
        """Give the key for what a segment's header says."""
        return cls(host=host, day=datetime.fromtimestamp(created_ns // NS_PER_SECOND, UTC).date(), sequence=sequence)

    @classmethod
    def parse(cls, key: str) -> SegmentKey | None:
        """Understand a key; None: it is not a segment's."""
        found = _SEGMENT.fullmatch(key)
        try:
            return cls(host=UUID(found[1]), day=date.fromisoformat(found[2]), sequence=int(found[3])) if found else None
        except ValueError:
            return None


def public_key_key(host: UUID, name: str) -> str:
    """Give the key of a host's public key; `name`: its file's."""
    return f"{host_folder(host)}keys/{name}"


def head_key(host: UUID, written_ns: int, name: str) -> str:
    """Give the key of a head; `name`: its file's."""
    return day_folder(host, datetime.fromtimestamp(written_ns // NS_PER_SECOND, UTC).date()) + name


def deletion_key(host: UUID, name: str) -> str:
    """Give the key of a record of deletion."""
    return f"{deletions_folder(host)}{name}"


def deletions_folder(host: UUID) -> str:
    """Give what the keys of a host's records of deletion start with."""
    return f"{host_folder(host)}deletions/"


def host_folder(host: UUID) -> str:
    """Give what the keys of a host's segments, keys and heads start with."""
    return f"host={host}/"


def day_folder(host: UUID, day: date) -> str:
    """Give what the keys of one day start with."""
    return f"{host_folder(host)}date={day.isoformat()}/"
