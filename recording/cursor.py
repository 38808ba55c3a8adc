"""Reading one session's records from one segment after the other, while segments are written and sealed.

What lives here: the cursor, and which segments a directory has. What must not: where a session's segments are known from
(archive.py): what finds a session is asked without any of this.
"""

from __future__ import annotations

import errno
from collections.abc import Iterator
from pathlib import Path
from typing import Final
from uuid import UUID

from capd.recording.errors import CorruptSegmentError, StateDirectoryError, on_disk
from capd.recording.record import Kind, Record
from capd.recording.segment import SegmentReader
from capd.recording.segment.cipher import Keys
from capd.recording.segment.layout import FILE_HEADER, OPEN_SUFFIX, open_path, sealed_path, sequence_of

RUN_END: Final = "run_end"


class Cursor:
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
        self.last_ns = 0
        """Time of the record that was given last."""
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
            self.last_ns = record.time_ns
            if record.kind is Kind.CLOSE or (record.kind is Kind.MARKER and record.body.get("name") == RUN_END):
                self.closed = True
            if self._from_ns is not None and record.time_ns < self._from_ns:
                continue
            if self._until_ns is None or record.time_ns < self._until_ns:
                yield record

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


def sequences(segments: Path) -> list[int]:
    """Give the numbers of the segments in a directory, in order.

    Raises:
        StateDirectoryError: it cannot be read.
    """
    with on_disk("read", segments):
        try:
            numbers = [sequence_of(path) for path in segments.iterdir()]
        except FileNotFoundError:
            return []
    return sorted({number for number in numbers if number is not None})
