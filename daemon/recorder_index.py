"""The index as the recorder keeps it: what was recorded goes in, until it lacks room; then it is left alone until a seal.

What lives here: that. What must not: what rows mean (recording/projection.py), when the recorder flushes and seals.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final

from capd.daemon.recorder_expiry import RecorderExpiry
from capd.daemon.recorder_sealing import Seals
from capd.recording.errors import CapdError
from capd.recording.index_segments import open_whole
from capd.recording.projection import Projection
from capd.recording.record import Record
from capd.recording.rows import SegmentRow
from capd.recording.segment import SegmentReader

if TYPE_CHECKING:  # its library is to stay out of a role (settled.py)
    from capd.daemon.configuration import Configuration


MESSAGES_MAX: Final = 2048
"""Rows that wait in memory. One turn of the daemon may drain a ring's worth of small messages, whose rows took 200 MB."""


class RecorderIndex:
    """The index of one recorder."""

    def __init__(self, configuration: Configuration, seals: Seals, say: Callable[[str], None]) -> None:
        """Open it, whole.

        Args:
            configuration: of this instance.
            seals: say whether what is recorded is encrypted.
            say: takes what went wrong.

        Raises:
            CapdError: it cannot be opened.
        """
        self._file, self._segments, self._seals, self._say = configuration.index_file, configuration.segments_dir, seals, say
        self.index = open_whole(self._file, self._segments, seals.ring)
        self._projection = self._new_projection()
        self.behind = False
        """It lacks what was recorded since it failed; a sealed segment will bring all of that."""
        self.ahead = False
        """It was told, not yet for others to see, of records that are to be flushed before anything else is done with it."""

    def _new_projection(self) -> Projection:
        closed = self._seals.encrypted
        if closed:
            self.index.withhold()
        return Projection(load_session=self.index.find_session, load_run=self.index.find_run, metadata_only=closed)

    def receive(self, records: list[Record], sequence: int) -> None:
        """Take what is recorded; `sequence`: of the segment that will have it."""
        if not self.behind:
            try:
                self._projection.receive(records)
                if self._projection.messages_waiting >= MESSAGES_MAX:
                    self.index.apply(self._projection.changes(), sequence)
                    self.ahead = True
            except CapdError as error:
                self._leave(error)

    def write(self, sequence: int) -> None:
        """Bring it up to what was flushed; `sequence`: of the segment that has it."""
        self.ahead = False
        if not self.behind:
            try:
                self.index.apply(self._projection.changes(), sequence)
                self.index.commit()
            except CapdError as error:
                self._leave(error)

    def expire(self, expiry: RecorderExpiry, *, idle: bool) -> None:
        """Take a little of what expired out."""
        if not self.behind:
            try:
                expiry.attend(self.index, idle=idle)
            except CapdError as error:
                self._leave(error)

    def segment(self, path: Path) -> None:
        """Put a sealed segment in; if the index is behind, with all that it lacks."""
        try:
            if self.behind:
                self.close()
                self.index = open_whole(self._file, self._segments, self._seals.ring)
                self._projection = self._new_projection()
                self.behind = False
                return
            with SegmentReader(path) as reader:
                if reader.footer is not None:
                    self.index.upsert_segment(SegmentRow.from_footer(reader.footer, reader.file_bytes))
            self.index.commit()
        except CapdError as error:
            self._leave(error)

    def close(self) -> None:
        """Close it; what it lacks it gets from the segments when it is opened again."""
        with suppress(CapdError):
            self.index.close()

    def _leave(self, error: CapdError) -> None:
        self._say(str(error))
        self.behind, self.ahead = True, False
