"""Putting sealed segments into a bucket's catalogue.

What lives here: which range of segments is next, and creating its files. What must not: when that is done, shipping.

There is no state but the bucket's: the table `segments` decides (docs/formats/catalogue.md), so that two shippers, or one that
was killed anywhere, leave neither a hole nor a range twice.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date
from operator import attrgetter
from pathlib import Path
from typing import Final
from uuid import UUID

from capd.recording.bucket import Bucket, Outcome
from capd.recording.bucket.errors import ObjectMissingError
from capd.recording.bucket.layout import SegmentKey, day_folder, host_folder
from capd.recording.catalogue.layout import SUFFIX, Part, day_of, host_prefix, newest, parse_key
from capd.recording.catalogue.rows import Gathering
from capd.recording.catalogue.schema import DECIDER, TABLES, pack, read_range
from capd.recording.errors import CorruptSegmentError, EncryptedError, StateDirectoryError
from capd.recording.record import Record
from capd.recording.rows import RunRow, SessionRow
from capd.recording.segment import SegmentReader
from capd.recording.segment.source import ObjectSource

SEGMENTS_MAX: Final = 256
"""Segments of one file: 20 minutes at one every five seconds, some megabytes."""
FILE_BYTES_MAX: Final = 64 << 20
"""Segments whose messages are in memory while a file is made: a quarter of a gigabyte of what was said."""
DAY_FOLDER: Final = "date="

FindSession = Callable[[UUID], SessionRow | None]
FindRun = Callable[[UUID], RunRow | None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """A segment in the bucket that may be put into its catalogue.

    Attributes:
        sequence: its number.
        day: UTC day of its creation.
        shipped_ns: when the bucket got it.
        file_bytes: its length.
    """

    sequence: int
    day: date
    shipped_ns: int
    file_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Extent:
    """How far a host's catalogue goes.

    Attributes:
        through: the last segment that is in it; 0 when none is.
        waiting: segments in the bucket that are not in it yet.
        whole: everything up to this day, which is over, is in it.
    """

    through: int
    waiting: int
    whole: date


def next_range(candidates: Sequence[Candidate], covered: int, *, now_ns: int, age_max_ns: int) -> list[Candidate]:
    """Give the range of segments that is due next; empty when none is.

    Args:
        candidates: of one host and day, by number.
        covered: the last one that is in the catalogue, 0 when none is.
        now_ns: wall time, ns since 1970.
        age_max_ns: how long a segment waits in the bucket for others to share a file with.

    Returns:
        Consecutive segments, when no more fit, or their day is over, or the oldest has waited so long.
    """
    chosen: list[Candidate] = []
    file_bytes = 0
    full = False
    for candidate in candidates:
        if candidate.sequence <= covered:
            continue
        hole = bool(chosen) and candidate.sequence != chosen[-1].sequence + 1
        full = bool(chosen) and (hole or len(chosen) == SEGMENTS_MAX or file_bytes + candidate.file_bytes > FILE_BYTES_MAX)
        if full:
            break
        chosen.append(candidate)
        file_bytes += candidate.file_bytes
    if not chosen:
        return []
    late = now_ns - min(candidate.shipped_ns for candidate in chosen) >= age_max_ns
    return chosen if full or late or len(chosen) == SEGMENTS_MAX or chosen[0].day < day_of(now_ns) else []


class CatalogueWriter:
    """Extends the catalogue of one host by what is in the bucket. Several at a time do no harm."""

    def __init__(
        self, bucket: Bucket, host: UUID, *, local: Callable[[int], Path], find_session: FindSession, find_run: FindRun
    ) -> None:
        """Prepare.

        Args:
            bucket: where the segments and their catalogue are.
            host: whose.
            local: gives where a segment's local copy is, if it is still there: it is not fetched then.
            find_session: gives what the host's index knows of a session.
            find_run: the same for a run.
        """
        self._bucket = bucket
        self._host = host
        self._local = local
        self._find_session = find_session
        self._find_run = find_run

    def extend(self, now_ns: int, *, age_max_ns: int = 0, since: date = date.min) -> Extent:
        """Create the files that are due.

        Args:
            now_ns: wall time, ns since 1970.
            age_max_ns: how long a segment waits in the bucket for others: how late a fleet's answers are.
            since: the first day that is looked at.

        Raises:
            BucketError: the bucket could not be asked or written; calling again goes on.
        """
        through = waiting = 0
        whole = since
        for day in self._days(since):
            candidates = self._candidates(day)
            covered, late = self._finish(day, candidates)
            done = 0
            while chosen := next_range(late, done, now_ns=now_ns, age_max_ns=age_max_ns):
                done = self._catalogue(chosen)
            while chosen := next_range(candidates, covered, now_ns=now_ns, age_max_ns=age_max_ns):
                covered = self._catalogue(chosen)
            left = sum(candidate.sequence > covered for candidate in candidates)
            left += sum(candidate.sequence > done for candidate in late)
            through, waiting = max(through, covered), waiting + left
            if not waiting and day < day_of(now_ns):
                whole = day
        return Extent(through=through, waiting=waiting, whole=whole)

    def _days(self, since: date) -> list[date]:
        names = [name.removeprefix(DAY_FOLDER) for name in self._bucket.folders(host_folder(self._host)) if DAY_FOLDER in name]
        return [day for day in sorted(map(date.fromisoformat, names)) if day >= since]

    def _candidates(self, day: date) -> list[Candidate]:
        found = []
        for entry in self._bucket.list(day_folder(self._host, day)):
            key = SegmentKey.parse(entry.key)
            if key is not None:
                found.append(Candidate(sequence=key.sequence, day=day, shipped_ns=entry.modified_ns, file_bytes=entry.size))
        return sorted(found, key=attrgetter("sequence"))

    def _catalogue(self, chosen: Sequence[Candidate]) -> int:
        """Create the files of a range; give its last segment, which another shipper may have decided."""
        first, last = chosen[0].sequence, chosen[-1].sequence
        tables = self._tables(chosen, last)
        part = Part(table=DECIDER, day=chosen[0].day, host=self._host, first=first)
        if self._bucket.create(part.key, tables[DECIDER]) is Outcome.EXISTS_DIFFERENT:
            last = self._last(part)
            if last != chosen[-1].sequence:
                within = [candidate for candidate in self._candidates(part.day) if first <= candidate.sequence <= last]
                tables = self._tables(within, last)
        self._create_others(part, tables)
        return last

    def _finish(self, day: date, candidates: Sequence[Candidate]) -> tuple[int, list[Candidate]]:
        """Create what a dead shipper left undone of a day.

        Returns:
            The last segment that is in the catalogue, and those before it that are not: they were shipped later.
        """
        entries = self._bucket.list(host_prefix(DECIDER, day, self._host))
        parts = newest(part for entry in entries if (part := parse_key(entry.key, entry.size)) is not None)
        if not parts:
            return 0, []
        lasts = {parts[-1]: self._complete(parts[-1])}
        covered = lasts[parts[-1]]
        late = []
        for candidate in _overtaken(candidates):
            if candidate.sequence > covered:
                break
            at = bisect_right(parts, candidate.sequence, key=attrgetter("first")) - 1
            if at >= 0 and parts[at] not in lasts:
                lasts[parts[at]] = self._complete(parts[at])
            if at < 0 or candidate.sequence > lasts[parts[at]]:
                late.append(candidate)
        return covered, late

    def _complete(self, part: Part) -> int:
        """Give the last segment of a range, having created those of its files that are missing."""
        last = self._last(part)
        if not all(self._exists(part, table) for table in TABLES if table != DECIDER):
            chosen = [candidate for candidate in self._candidates(part.day) if part.first <= candidate.sequence <= last]
            if chosen:  # else all of it expired
                self._create_others(part, self._tables(chosen, last))
        return last

    def _exists(self, part: Part, table: str) -> bool:
        wanted = replace(part, table=table, gone=0, size=0)
        prefix = wanted.key.removesuffix(SUFFIX)
        found = (parse_key(entry.key, entry.size) for entry in self._bucket.list(prefix))
        return any(there is not None and replace(there, gone=0, size=0) == wanted for there in found)

    def _create_others(self, part: Part, tables: Mapping[str, bytes]) -> None:
        for table, content in tables.items():
            if table != DECIDER:
                # Another content is that of a shipper that knew more or less of what came before: as good as this.
                self._bucket.create(replace(part, table=table).key, content)

    def _last(self, part: Part) -> int:
        return read_range(self._bucket.read(part.key), part.key)[1]

    def _tables(self, chosen: Sequence[Candidate], last: int) -> dict[str, bytes]:
        gathering = Gathering(find_session=self._find_session, find_run=self._find_run)
        for candidate in chosen:
            try:
                with self._open(candidate) as reader:
                    footer = reader.footer
                    assert footer is not None, "only sealed segments are shipped"
                    gathering.receive(footer, reader.file_bytes, _records(reader))
            except (CorruptSegmentError, ObjectMissingError):
                continue  # without a footer there is nothing to tell; `capd verify` names it
        first = chosen[0].sequence
        return {table: pack(table, rows, first=first, last=last) for table, rows in gathering.tables().items()}

    def _open(self, candidate: Candidate) -> SegmentReader:
        path = self._local(candidate.sequence)
        try:
            return SegmentReader(path)
        except StateDirectoryError:
            key = str(SegmentKey(host=self._host, day=candidate.day, sequence=candidate.sequence))
            return SegmentReader(
                ObjectSource(Path(key), candidate.file_bytes, lambda offset, length: self._bucket.read(key, offset, length))
            )


def _overtaken(candidates: Sequence[Candidate]) -> list[Candidate]:
    """Give the segments that came into the bucket later than one after them, by number."""
    found = []
    earliest: int | None = None
    for candidate in reversed(candidates):
        if earliest is not None and candidate.shipped_ns > earliest:
            found.append(candidate)
        earliest = candidate.shipped_ns if earliest is None else min(earliest, candidate.shipped_ns)
    return found[::-1]


def _records(reader: SegmentReader) -> list[Record] | None:
    """Give a segment's records; None when they cannot be read."""
    try:
        return list(reader.records())
    except (CorruptSegmentError, EncryptedError):
        return None  # damage is named by `capd verify`; the catalogue says that it is not readable
