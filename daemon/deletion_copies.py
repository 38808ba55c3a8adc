"""Copies of a host's records of deletion, by which those learn of what went who have no way to the bucket.

What lives here: bringing them. What must not: making records (expiry.py), working them into the index or the catalogue.

A copy is made once nothing of what its record names is in the bucket: a pass that died after its record needs what the index
knows of the rest, to finish.
"""

from __future__ import annotations

from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import UUID

from capd.recording.bucket import Bucket
from capd.recording.bucket.errors import ObjectMissingError
from capd.recording.bucket.layout import NS_PER_SECOND, SegmentKey, day_folder, deletion_key, deletions_folder
from capd.recording.deletions import RECORD_BYTES_MAX, range_of
from capd.recording.durable import replace_content
from capd.recording.errors import NothingRecordedError, on_disk
from capd.recording.index import Index


class DeletionCopies:
    """The copies of one host's records."""

    def __init__(self, bucket: Bucket, host: UUID, directory: Path) -> None:
        """Take the places; nothing is asked yet."""
        self._bucket, self._host, self._directory = bucket, host, directory
        self._listed: dict[str, frozenset[int]] = {}

    def bring(self, index: Path) -> int:
        """Copy the records that are not here yet and are carried out; give how many there are now.

        Args:
            index: what knows of which days the segments are.

        Raises:
            BucketError: the bucket failed; the next call goes on.
            CapdError: the directory or the index cannot be used.
        """
        with on_disk("read", self._directory):
            here = {path.name for path in self._directory.iterdir()}
        prefix = deletions_folder(self._host)
        names = {entry.key.removeprefix(prefix) for entry in self._bucket.list(prefix)}
        self._listed = {}
        for name in sorted(names - here):
            numbers = range_of(name)
            if numbers is None or self._remains(index, *numbers):
                continue
            with suppress(ObjectMissingError):
                content = self._bucket.read(deletion_key(self._host, name), 0, RECORD_BYTES_MAX)
                with on_disk("write", self._directory / name):
                    replace_content(self._directory / name, content)
                here.add(name)
        return sum(range_of(name) is not None for name in here)

    def _remains(self, path: Path, first: int, last: int) -> bool:
        """Tell whether one of some segments is in the bucket; those of which the index knows nothing have no rows to lose."""
        try:
            with Index.open(path, readonly=True) as index:
                between = index.times_of(self._host, first, last)
        except NothingRecordedError:
            return False
        if between is None:
            return False
        # A segment may be of the day before or after that of its records.
        day = datetime.fromtimestamp(between[0] // NS_PER_SECOND, UTC).date() - timedelta(days=1)
        end = datetime.fromtimestamp(between[1] // NS_PER_SECOND, UTC).date() + timedelta(days=1)
        while day <= end:
            if any(first <= sequence <= last for sequence in self._there(day_folder(self._host, day))):
                return True
            day += timedelta(days=1)
        return False

    def _there(self, folder: str) -> frozenset[int]:
        if folder not in self._listed:
            keys = [SegmentKey.parse(entry.key) for entry in self._bucket.list(folder)]
            self._listed[folder] = frozenset(key.sequence for key in keys if key is not None)
        return self._listed[folder]
