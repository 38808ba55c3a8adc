"""The recordings of a fleet in a bucket, as their readers see them: like a host's archive, of all hosts.

What lives here: a session's records over its segments, by ranges. What must not: which sessions there are (fleet.py).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from datetime import date
from pathlib import Path
from types import TracebackType
from typing import Final, Self
from uuid import UUID

from capd.recording.age import NoKeys
from capd.recording.bucket import Bucket
from capd.recording.bucket.errors import ObjectMissingError
from capd.recording.bucket.layout import SegmentKey, deletions_folder
from capd.recording.catalogue.fleet import Fleet
from capd.recording.deletions import range_of
from capd.recording.errors import CapdError, ExitStatus
from capd.recording.excerpt import Excerpt, from_bucket
from capd.recording.holes import expired, gone
from capd.recording.record import Record
from capd.recording.segment import SegmentReader
from capd.recording.segment.cipher import Keys
from capd.recording.segment.source import ObjectSource

_NO_KEYS: Final = NoKeys()


class FollowBucketError(CapdError):
    """A bucket is no place to follow a session."""

    exit_status = ExitStatus.USAGE
    hint = "follow it on its host; what is in the bucket arrives seconds to a minute later"

    def __init__(self) -> None:
        super().__init__("a session in a bucket cannot be followed")


class FleetArchive:
    """Reads the recordings in a bucket. Use it from one thread."""

    def __init__(self, bucket: Bucket, keys: Keys = _NO_KEYS) -> None:
        """Prepare to read; nothing is asked of the bucket yet.

        Args:
            bucket: where it is.
            keys: who opens encrypted segments.
        """
        self._keys = keys
        self._bucket = bucket
        self._fleet = Fleet(bucket)

    @property
    def index(self) -> Fleet:
        """What finds sessions, runs and messages."""
        return self._fleet

    def records(
        self,
        session: UUID,
        *,
        follow: bool = False,
        poll: Callable[[], bool] = lambda: False,  # noqa: ARG002 - a bucket is not followed
        from_ns: int | None = None,
        until_ns: int | None = None,
    ) -> Iterator[Record]:
        """Give the records of a session, or of a run, in recorded order, each once, fetching only the frames that hold them.

        The arguments are those of a host's archive. Of a segment that is gone there is a GAP record in its place.

        Raises:
            FollowBucketError: `follow` was asked for.
            BucketError: the bucket cannot be read.
            CorruptSegmentError: a segment that has to be read is damaged.
        """
        if follow:
            raise FollowBucketError
        last_ns = 0
        parts = deque(self._fleet.expired_parts(session))
        for host, day, sequence in self._fleet.segments_of(session):
            while parts and parts[0].first < sequence:
                yield expired(session, last_ns, parts.popleft().words())
            try:
                with self._open(host, day, sequence) as reader:
                    for record in reader.records(session, from_ns=from_ns, until_ns=until_ns):
                        last_ns = record.time_ns
                        yield record
            except ObjectMissingError:
                yield gone(session, last_ns, sequence, by_policy=self._is_expired(host, sequence))
        for part in parts:
            yield expired(session, last_ns, part.words())

    def excerpt(self, identities: Sequence[UUID]) -> Excerpt:
        """Give the evidence for some sessions and runs.

        Raises:
            BucketError: the bucket cannot be read.
        """
        found = {place for identity in identities for place in self._fleet.segments_of(identity)}
        return from_bucket(
            self._bucket, [str(SegmentKey(host=host, day=day, sequence=sequence)) for host, day, sequence in sorted(found)]
        )

    def close(self) -> None:
        """End the reading."""
        self._fleet.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def _open(self, host: UUID, day: date, sequence: int) -> SegmentReader:
        key = str(SegmentKey(host=host, day=day, sequence=sequence))
        source = ObjectSource(Path(key), self._bucket.size(key), lambda offset, length: self._bucket.read(key, offset, length))
        return SegmentReader(source, keys=self._keys)

    def _is_expired(self, host: UUID, sequence: int) -> bool:
        """Tell whether a record of deletion names a segment; whether it is genuine is for `capd verify` to tell."""
        names = (entry.key.rpartition("/")[2] for entry in self._bucket.list(deletions_folder(host)))
        return any(first <= sequence <= last for first, last in filter(None, map(range_of, names)))
