"""Where the files of the catalogue are in a bucket.

What lives here: keys and how they are read back. What must not: I/O.

Day before host, so that a question about some days over all hosts lists only those days.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Final
from uuid import UUID

from capd.recording.catalogue.schema import TABLES
from capd.recording.rows import NANOSECONDS

PREFIX: Final = "catalogue/"
SUFFIX: Final = ".parquet"
BEFORE: Final = timedelta(days=3)
"""So many days before what expired there may be files that told of its sessions as far as those go on."""
AFTER: Final = timedelta(days=1)
_KEY: Final = re.compile(
    r"catalogue/(?P<table>[a-z]+)/date=(?P<day>\d{4}-\d\d-\d\d)/host=(?P<host>[0-9a-f-]{36})/(?P<first>\d{12})"
    r"(?:\.e(?P<gone>\d{1,6}))?\.parquet"
)


@dataclass(frozen=True, slots=True, order=True, kw_only=True)
class Part:
    """One Parquet file.

    Attributes:
        table: its table.
        day: UTC day on which its segments were created.
        host: who wrote them.
        first: number of the first of them; the file itself says which is the last.
        gone: how many of them had expired when it was made: of two files that differ in this alone the higher one counts.
        size: bytes of the file.
    """

    table: str
    day: date
    host: UUID
    first: int
    gone: int = 0
    size: int = 0

    @property
    def key(self) -> str:
        """Its place in the bucket."""
        gone = f".e{self.gone}" if self.gone else ""
        return f"{table_prefix(self.table)}date={self.day}/host={self.host}/{self.first:012d}{gone}.parquet"


def table_prefix(table: str) -> str:
    """Give what the keys of a table begin with."""
    return f"{PREFIX}{table}/"


def day_prefix(table: str, day: date) -> str:
    """Give what the keys of one day of a table begin with."""
    return f"{table_prefix(table)}date={day}/"


def parse_key(key: str, size: int) -> Part | None:
    """Give the file that a key names; None when it names none of a catalogue."""
    match = _KEY.fullmatch(key)
    if match is None or match["table"] not in TABLES:
        return None
    try:
        day, host = date.fromisoformat(match["day"]), UUID(match["host"])
    except ValueError:
        return None
    return Part(table=match["table"], day=day, host=host, first=int(match["first"]), gone=int(match["gone"] or 0), size=size)


def newest(parts: Iterable[Part]) -> list[Part]:
    """Give of each range of segments the file that counts, sorted."""
    found = {(part.table, part.day, part.host, part.first): part for part in sorted(parts)}
    return sorted(found.values())


def host_prefix(table: str, day: date, host: UUID) -> str:
    """Give what the keys of one host and day of a table begin with."""
    return f"{day_prefix(table, day)}host={host}/"


def day_of(time_ns: int) -> date:
    """Give the UTC day of a time in ns since 1970."""
    return datetime.fromtimestamp(time_ns // NANOSECONDS, UTC).date()


def days_in(folders: Iterable[str], spans: Sequence[tuple[int | None, int | None]]) -> list[date]:
    """Give the days of a catalogue whose files may tell of segments.

    Args:
        folders: names of the folders of its days, `date=2026-11-21`.
        spans: times of the first and last record of those segments, ns since 1970; None: not known, and so any.
    """
    days = [day for name in folders if (day := _day(name)) is not None]
    known = [(first, last) for first, last in spans if first is not None and last is not None]
    if len(known) < len(spans):
        return sorted(days)
    within = [(day_of(first) - BEFORE, day_of(last) + AFTER) for first, last in known]
    return sorted(day for day in days if any(first <= day <= last for first, last in within))


def _day(folder: str) -> date | None:
    try:
        return date.fromisoformat(folder.removeprefix("date="))
    except ValueError:
        return None
