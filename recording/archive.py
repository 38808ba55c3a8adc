"""The archive: everything that was recorded under one state directory, as its readers see it.

What lives here: the index, a session's records and streams, evidence. What must not: going through segments
(cursor.py), writing, presentation.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Final, Self
from uuid import UUID

from capd.recording.age import NoKeys
from capd.recording.errors import NothingRecordedError, on_disk
from capd.recording.holes import expired, gone
from capd.recording.index import Index
from capd.recording.record import Direction, Kind, Record

if TYPE_CHECKING:
    from capd.recording.excerpt import Excerpt
    from capd.recording.segment.cipher import Keys

SEGMENTS: Final = "segments"
INDEX: Final = Path("index") / "capd.db"
MANIFEST: Final = "manifest.json"
"""Of a bundle (bundle.py); a state directory has no such file."""
APPLICATION: Final = "application"
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

    def __init__(self, state_dir: Path, keys: Keys = _NO_KEYS, *, indexed: bool = True) -> None:
        """Look at a state directory.

        Args:
            state_dir: the directory.
            keys: who opens encrypted segments.
            indexed: whether an index in it counts; False where only what is signed does.

        Raises:
            NothingRecordedError: there are neither segments nor an index.
            StateDirectoryError: it cannot be read.
        """
        self.directory = state_dir
        self.keys = keys
        self.segments = state_dir / SEGMENTS
        self.index_path = state_dir / INDEX
        self._index: Index | None = None
        self._indexed = indexed
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
        from capd.recording.cursor import Cursor, sequences  # noqa: PLC0415 - who only finds sessions must not pay for it

        cursor = Cursor(self.segments, self.keys, session, from_ns, until_ns, skip=not follow)
        parts = deque(self.index.expired_parts(session) if self._has_index else ())
        known, start = self._known(session)
        for number in known:
            while parts and parts[0].first < number:
                yield expired(session, cursor.last_ns, parts.popleft().words())
            yield from cursor.read(number)
            if cursor.missing:
                yield gone(session, cursor.last_ns, number, by_policy=self.index.is_expired(number))
        for part in parts:
            yield expired(session, cursor.last_ns, part.words())
        sequence = next(iter(sequences(self.segments)), 1) if start is None else start
        while True:
            yield from cursor.read(sequence)
            if cursor.sealed:
                sequence += 1
            elif cursor.missing and (later := [number for number in sequences(self.segments) if number > sequence]):
                sequence = later[0]
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

    @property
    def _has_index(self) -> bool:
        return self._indexed and self.index_path.exists()

    def _known(self, session: UUID) -> tuple[list[int], int | None]:
        """Give the sealed segments that are known to hold records of a session, and the first of which nothing is known."""
        if not self._has_index:
            return [], None
        # The order matters: what is sealed after the first question is found by going on from its answer.
        last = self.index.last_segment()
        return [sequence for sequence in self.index.segments_of(session) if sequence <= last], last + 1 if last else None


def _gap(record: Record) -> GapRecord:
    position, length, reason = (record.body.get(name) for name in ("position", "length", "reason"))
    return GapRecord(
        time_ns=record.time_ns,
        position=position if isinstance(position, int) else 0,
        length=length if isinstance(length, int) else None,
        reason=reason if isinstance(reason, str) else "unknown",
    )
