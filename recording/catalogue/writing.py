"""Putting sealed segments into a bucket's catalogue.

What lives here: which range of segments is next, and creating its files. What must not: when that is done, shipping.

There is no state but the bucket's: the table `segments` decides (docs/formats/catalogue.md), so that two shippers, or one that
was killed anywhere, leave neither a hole nor a range twice.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from itertools import groupby
from pathlib import Path
from typing import Final
from uuid import UUID

import pyarrow.parquet as pq

from capd.recording.bucket import Bucket, Outcome
from capd.recording.catalogue.layout import Part, day_of, host_prefix, parse_key
from capd.recording.catalogue.rows import Gathering
from capd.recording.catalogue.schema import DECIDER, TABLES, pack, range_of
from capd.recording.errors import CorruptSegmentError, EncryptedError
from capd.recording.record import Record
from capd.recording.rows import RunRow, SessionRow
from capd.recording.segment import SegmentReader

SEGMENTS_MAX: Final = 256
"""Segments of one file: 20 minutes at one every five seconds, some megabytes."""
RAW_BYTES_MAX: Final = 256 << 20
"""Records that are in memory while a file is made."""
AGE_MAX_NS: Final = 60_000_000_000
"""How long a sealed segment waits for others to share a file with: how late a fleet's answers are."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """A sealed segment that is in the bucket and may be put into its catalogue.

    Attributes:
        sequence: its number.
        created_ns: when it was begun.
        sealed_ns: when it was finished.
        raw_bytes: of its records.
    """

    sequence: int
    created_ns: int
    sealed_ns: int
    raw_bytes: int


def next_ranges(candidates: Sequence[Candidate], covered: Mapping[date, int], now_ns: int) -> list[list[Candidate]]:
    """Give the ranges of segments that are due, in their order.

    Args:
        candidates: of one host, by number.
        covered: the last segment of each day that is in the catalogue.
        now_ns: wall time, ns since 1970.

    Returns:
        Ranges of one day that are full, whose day is over, or whose oldest segment has waited for AGE_MAX_NS.
    """
    due = []
    for day, together in groupby(candidates, lambda candidate: day_of(candidate.created_ns)):
        waiting = [candidate for candidate in together if candidate.sequence > covered.get(day, 0)]
        for chosen, full in _divide(waiting):
            late = now_ns - min(candidate.sealed_ns for candidate in chosen) >= AGE_MAX_NS
            if full or late or day < day_of(now_ns):
                due.append(chosen)
    return due


def _divide(waiting: Sequence[Candidate]) -> list[tuple[list[Candidate], bool]]:
    """Cut a day's segments into ranges without holes, each with whether nothing more fits in it."""
    ranges: list[tuple[list[Candidate], bool]] = []
    chosen: list[Candidate] = []
    raw_bytes = 0
    for candidate in waiting:
        hole = bool(chosen) and candidate.sequence != chosen[-1].sequence + 1
        if chosen and (hole or len(chosen) == SEGMENTS_MAX or raw_bytes + candidate.raw_bytes > RAW_BYTES_MAX):
            ranges.append((chosen, True))
            chosen, raw_bytes = [], 0
        chosen.append(candidate)
        raw_bytes += candidate.raw_bytes
    return [*ranges, (chosen, len(chosen) == SEGMENTS_MAX)] if chosen else ranges


class CatalogueWriter:
    """Extends the catalogue of one host. Several at a time do no harm."""

    def __init__(
        self,
        bucket: Bucket,
        host: UUID,
        segment: Callable[[int], Path],
        *,
        find_session: Callable[[UUID], SessionRow | None],
        find_run: Callable[[UUID], RunRow | None],
    ) -> None:
        """Prepare.

        Args:
            bucket: where the segments and their catalogue are.
            host: whose.
            segment: gives the file of a sealed segment.
            find_session: gives what the host's index knows of a session.
            find_run: the same for a run.
        """
        self._bucket = bucket
        self._host = host
        self._segment = segment
        self._find_session = find_session
        self._find_run = find_run
        self._finished: set[Part] = set()

    def extend(self, candidates: Sequence[Candidate], now_ns: int) -> dict[date, int]:
        """Create the files that are due.

        Returns:
            The last segment of each of the candidates' days that is wholly in the catalogue.

        Raises:
            BucketError: the bucket could not be asked or written; calling again goes on.
            CapdError: a segment cannot be read.
        """
        days = sorted({day_of(candidate.created_ns) for candidate in candidates})
        covered = {day: last for day in days if (last := self._finish(day)) is not None}
        while due := next_ranges(candidates, covered, now_ns):
            chosen = due[0]
            day = day_of(chosen[0].created_ns)
            tables = self._tables(chosen[0].sequence, chosen[-1].sequence)
            part = Part(table=DECIDER, day=day, host=self._host, first=chosen[0].sequence)
            decided = self._bucket.create(part.key, tables[DECIDER])
            last = chosen[-1].sequence if decided is not Outcome.EXISTS_DIFFERENT else self._last(part)
            self._create_others(part, tables if last == chosen[-1].sequence else self._tables(part.first, last))
            covered[day] = last
        return covered

    def _finish(self, day: date) -> int | None:
        """Give the last segment of a day that is in the catalogue, after creating what a dead shipper left undone."""
        entries = self._bucket.list(host_prefix(DECIDER, day, self._host))
        parts = sorted(part for entry in entries if (part := parse_key(entry.key, entry.size)) is not None)
        if not parts:
            return None
        newest = parts[-1]
        last = self._last(newest)
        if newest not in self._finished:
            missing = [table for table in TABLES if table != DECIDER and not self._exists(newest, table)]
            if missing:
                self._create_others(newest, self._tables(newest.first, last))
            self._finished.add(newest)
        return last

    def _exists(self, part: Part, table: str) -> bool:
        key = _beside(part, table).key
        return any(entry.key == key for entry in self._bucket.list(key))

    def _create_others(self, part: Part, tables: Mapping[str, bytes]) -> None:
        for table, content in tables.items():
            if table != DECIDER:
                # Another content is that of a shipper that knew more or less of what came before: as good as this.
                self._bucket.create(_beside(part, table).key, content)

    def _last(self, part: Part) -> int:
        content = self._bucket.read(part.key)
        return range_of(pq.read_metadata(io.BytesIO(content)).metadata or {})[1]

    def _tables(self, first: int, last: int) -> dict[str, bytes]:
        gathering = Gathering(find_session=self._find_session, find_run=self._find_run)
        for sequence in range(first, last + 1):
            with SegmentReader(self._segment(sequence)) as reader:
                footer = reader.footer
                assert footer is not None, "only sealed segments are shipped"
                gathering.receive(footer, reader.file_bytes, _records(reader))
        return {table: pack(table, rows, first=first, last=last) for table, rows in gathering.tables().items()}


def _records(reader: SegmentReader) -> list[Record] | None:
    """Give a segment's records; None when they cannot be read."""
    try:
        return list(reader.records())
    except (CorruptSegmentError, EncryptedError):
        return None  # `capd verify` names what is damaged; the catalogue says that it is not readable


def _beside(part: Part, table: str) -> Part:
    return Part(table=table, day=part.day, host=part.host, first=part.first)
