"""The archive: everything that was recorded under one state directory, as its readers see it.

What lives here: a session's records over all segments, sealed and open, with and without following. What must not: writing,
presentation.
"""

from __future__ import annotations

import errno
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Final, Self
from uuid import UUID

from capd.recording.age import NoKeys
from capd.recording.errors import CorruptSegmentError, NothingRecordedError, StateDirectoryError, on_disk
from capd.recording.index import Index
from capd.recording.record import Direction, Kind, Record, Value
from capd.recording.segment import SegmentReader
from capd.recording.segment.cipher import Keys
from capd.recording.segment.layout import FILE_HEADER, OPEN_SUFFIX, open_path, sealed_path, sequence_of

if TYPE_CHECKING:
    from capd.recording.excerpt import Excerpt

SEGMENTS: Final = "segments"
INDEX: Final = Path("index") / "capd.db"
APPLICATION: Final = "application"
RUN_END: Final = "run_end"
_NO_KEYS: Final = NoKeys()


@dataclass(frozen=True, slots=True, kw_only=True)
class GapRecord:
    """Bytes of a stream that are known to be missing.

    Attributes:
        time_ns: wall time of its record.
        position: where in the stream it starts.
        length: how many bytes; None when nobody knows.
        reason: why, in words for a person.
    """

    time_ns: int
    position: int
    length: int | None
    reason: str


class Archive:
    """Reads what was recorded under a state directory, while it is recorded or long after.

    Without an index, as on a laptop that has only segments, every segment's footer is looked at instead.
    """

    def __init__(self, state_dir: Path, keys: Keys = _NO_KEYS) -> None:
        """Look at a state directory.

        Args:
            state_dir: the directory.
            keys: who opens encrypted segments.

        Raises:
            NothingRecordedError: there are neither segments nor an index.
            StateDirectoryError: it cannot be read.
        """
        self.directory = state_dir
        self.keys = keys
        self.segments = state_dir / SEGMENTS
        self.index_path = state_dir / INDEX
        self._index: Index | None = None
        with on_disk("read", state_dir):
            if not self.segments.is_dir() and not self.index_path.exists():
                raise NothingRecordedError(state_dir)

    @property
    def opens(self) -> bool:
        """Whether there is a key to open encrypted segments with."""
        return not isinstance(self.keys, NoKeys)

    @property
    def index(self) -> Index:
        """The index, opened for reading at the first use.

        Raises:
            NothingRecordedError: there is none.
            IndexUnusableError, NewerVersionError, StateDirectoryError: it cannot be used.
        """
        if self._index is None:
            self._index = Index.open(self.index_path, readonly=True)
        return self._index

    def records(
        self,
        session: UUID,
        *,
        follow: bool = False,
        poll: Callable[[], bool] = lambda: False,
        from_ns: int | None = None,
        until_ns: int | None = None,
    ) -> Iterator[Record]:
        """Give the records of a session, or of a run, in recorded order, each once, reading only as far as is asked.

        Args:
            session: id of the session or run.
            follow: at the end of what is there, go on with what is written, until the session's CLOSE record.
            poll: called when there is nothing more yet: waits for a while, and gives False to end the following.
            from_ns: only records of this time or later.
            until_ns: only records before this time.

        Raises:
            CorruptSegmentError: a segment that has to be read is damaged.
            StateDirectoryError: one cannot be read.
        """
        cursor = _Cursor(self.segments, self.keys, session, from_ns, until_ns, skip=not follow)
        parts = deque(self.index.expired_parts(session) if self.index_path.exists() else ())
        known, start = self._places(session)
        for sequence in known:
            while parts and parts[0].first < sequence:
                yield cursor.hole(parts.popleft().words())
            yield from cursor.read(sequence)
            if cursor.missing:
                gone = "expired" if self.index.is_expired(sequence) else "missing"
                yield cursor.hole(f"segment {sequence} is {gone}")
        for part in parts:
            yield cursor.hole(part.words())
        sequence = start
        while True:
            yield from cursor.read(sequence)
            if cursor.sealed:
                sequence += 1
            elif cursor.missing and (later := self._after(sequence)) is not None:
                sequence = later
            elif not follow or cursor.closed or not poll():
                return

    def excerpt(self, identities: Sequence[UUID]) -> Excerpt:
        """Give the evidence for some sessions and runs, as far as it is sealed.

        Raises:
            StateDirectoryError: it cannot be read.
        """
        from capd.recording.excerpt import from_directory  # noqa: PLC0415 - only an export needs it

        numbers = {sequence for identity in identities for sequence in self.index.segments_of(identity)}
        return from_directory(self.directory, sorted(numbers))

    def stream(
        self,
        session: UUID,
        direction: Direction,
        *,
        follow: bool = False,
        poll: Callable[[], bool] = lambda: False,
        from_ns: int | None = None,
        until_ns: int | None = None,
    ) -> Iterator[bytes | GapRecord]:
        """Give the application bytes of one direction of a session, in order, with the gaps between them.

        The arguments are those of `records`.
        """
        for record in self.records(session, follow=follow, poll=poll, from_ns=from_ns, until_ns=until_ns):
            body = record.body
            if record.direction not in (direction, None) or body.get("layer", APPLICATION) != APPLICATION:
                continue
            if record.kind is Kind.DATA:
                payload = body.get("payload")
                if isinstance(payload, bytes) and payload:
                    yield payload
            elif record.kind is Kind.GAP:
                yield _gap(record)

    def close(self) -> None:
        """Close the index."""
        if self._index is not None:
            self._index.close()
            self._index = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def _places(self, session: UUID) -> tuple[list[int], int]:
        """Give the sealed segments that are known to hold records of a session, and the first of which nothing is known."""
        if self.index_path.exists():
            # The order matters: what is sealed after the first question is found by going on from its answer.
            last = self.index.last_segment()
            if last:
                return [sequence for sequence in self.index.segments_of(session) if sequence <= last], last + 1
        sequences = self._sequences()
        return [], sequences[0] if sequences else 1

    def _after(self, sequence: int) -> int | None:
        """Give the first segment after one that is not there (any more)."""
        return next((number for number in self._sequences() if number > sequence), None)

    def _sequences(self) -> list[int]:
        with on_disk("read", self.segments):
            try:
                numbers = [sequence_of(path) for path in self.segments.iterdir()]
            except FileNotFoundError:
                return []
        return sorted({number for number in numbers if number is not None})


class _Cursor:
    """Reads the records of one session from one segment after the other, and remembers how far it came in the last one."""

    def __init__(
        self, segments: Path, keys: Keys, session: UUID, from_ns: int | None, until_ns: int | None, *, skip: bool
    ) -> None:
        self._segments = segments
        self._keys = keys
        self._session = session
        self._from_ns = from_ns
        self._until_ns = until_ns
        self._skip = skip
        """Whether frames outside of the time range may be left unread: not when the CLOSE record may be in one."""
        self._last_ns = 0
        self._sequence = 0
        self._frame = 0
        self.closed = False
        """Whether the session's CLOSE record was met."""
        self.sealed = False
        """Whether the segment that was read last cannot grow."""
        self.missing = False
        """Whether the segment that was asked for last is not there."""

    def read(self, sequence: int) -> Iterator[Record]:
        """Give the records of a segment that were not given yet, and set what is known of it."""
        if sequence != self._sequence:
            self._sequence, self._frame = sequence, 0
        reader = self._open(sequence)
        self.missing = reader is None
        self.sealed = False
        if reader is None:
            return
        with reader:
            # Known before reading: a file that is sealed now has all that it ever will.
            sealed = reader.footer is not None
            frames = len(reader.entries())
            yield from self._records(reader, frames)
            self._frame = frames
        self.sealed = sealed

    def _records(self, reader: SegmentReader, frames: int) -> Iterator[Record]:
        from_ns, until_ns = (self._from_ns, self._until_ns) if self._skip else (None, None)
        for record in reader.records(self._session, start=self._frame, end=frames, from_ns=from_ns, until_ns=until_ns):
            self._last_ns = record.time_ns
            if record.kind is Kind.CLOSE or (record.kind is Kind.MARKER and record.body.get("name") == RUN_END):
                self.closed = True
            if self._from_ns is not None and record.time_ns < self._from_ns:
                continue
            if self._until_ns is None or record.time_ns < self._until_ns:
                yield record

    def hole(self, reason: str) -> Record:
        """Give a GAP record for what the index knows of and is not there."""
        body: dict[str, Value] = {"position": 0, "length": None, "reason": reason}
        return Record(Kind.GAP, self._session, self._last_ns, None, body)

    def _open(self, sequence: int) -> SegmentReader | None:
        """Open a segment under whichever of its names it has: it may be sealed between two looks."""
        for path in (
            sealed_path(self._segments, sequence),
            open_path(self._segments, sequence),
            sealed_path(self._segments, sequence),
        ):
            try:
                return SegmentReader(path, keys=self._keys)
            except StateDirectoryError as error:
                if error.errno != errno.ENOENT:
                    raise
            except CorruptSegmentError:
                if path.suffix != OPEN_SUFFIX or not _unborn(path):
                    raise
        return None


def _unborn(path: Path) -> bool:
    """Tell whether a segment's writer has made the file and not written to it yet."""
    with on_disk("read", path):
        return not path.exists() or path.stat().st_size < FILE_HEADER.size


def _gap(record: Record) -> GapRecord:
    position, length, reason = (record.body.get(name) for name in ("position", "length", "reason"))
    return GapRecord(
        time_ns=record.time_ns,
        position=position if isinstance(position, int) else 0,
        length=length if isinstance(length, int) else None,
        reason=reason if isinstance(reason, str) else "unknown",
    )
