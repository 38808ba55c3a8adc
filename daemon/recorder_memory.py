"""What the recorder remembers over its own end, besides the recording.

What lives here: the snapshot file, the position file that lets the daemon free journal, and finding out in which steps the
recorder went from the snapshot to the end of the recording. What must not: the snapshot's content (assembly/snapshot.py).

The assembler is deterministic: from the same snapshot, the same blocks, cut and settled at the same places, it gives the same
records. So after a crash the way from the snapshot to the end of the recording is gone again with the records thrown away, and
what comes then continues as if nothing had happened. The journal is kept from the snapshot on; that is what `position` says.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final
from uuid import UUID

import msgpack

from capd.daemon.assembly.snapshot import Snapshot, UnreadableSnapshotError, pack, unpack
from capd.recording.durable import replace_content
from capd.recording.errors import CorruptSegmentError, on_disk
from capd.recording.journal import Position
from capd.recording.record import Kind
from capd.recording.segment import SegmentReader
from capd.recording.segment.layout import SEALED_SUFFIX

SETTLED: Final = "settled"
"""Name of the marker that says: here nothing more had come, and all waiting was ended."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Steps:
    """How the recorder went from one position to another.

    Attributes:
        cuts: positions at which records were stored.
        settled: those of them at which waiting had been ended before.
    """

    cuts: frozenset[Position]
    settled: frozenset[Position]


class Memory:
    """The recorder's own files."""

    def __init__(self, directory: Path, position_file: Path) -> None:
        self._state_file = directory / "state"
        self._position_file = position_file

    def load(self) -> tuple[Snapshot, Position] | None:
        """Give the last snapshot; None when there is none that can be read.

        Raises:
            StateDirectoryError: the file cannot be read.
        """
        with on_disk("read", self._state_file):
            try:
                data = self._state_file.read_bytes()
            except FileNotFoundError:
                return None
        try:
            return unpack(data)
        except UnreadableSnapshotError:
            return None

    def save(self, snapshot: Snapshot, position: Position) -> None:
        """Keep a snapshot that was taken at a position up to which everything is sealed; the journal before it may go.

        Raises:
            StateDirectoryError: it cannot be written; the one before is still there.
        """
        with on_disk("write", self._state_file):
            replace_content(self._state_file, pack(snapshot, position))
        with on_disk("write", self._position_file):
            replace_content(self._position_file, msgpack.packb(position.to_fields()), mode=0o644)


def steps_after(segments: Path, position: Position, host: UUID) -> Steps:
    """Find the steps that the recorder took after a position. Damaged segments are passed over."""
    cuts: set[Position] = set()
    settled: set[Position] = set()
    with on_disk("read", segments):
        paths = sorted((path for path in segments.iterdir() if path.suffix == SEALED_SUFFIX), reverse=True)
    for path in paths:
        try:
            if not _add_steps(path, position, host, cuts, settled):
                break
        except CorruptSegmentError:
            continue
    return Steps(cuts=frozenset(cuts), settled=frozenset(settled))


def _add_steps(path: Path, position: Position, host: UUID, cuts: set[Position], settled: set[Position]) -> bool:
    """Take the steps of one segment. False: it and all before it end before the position."""
    with SegmentReader(path) as reader:
        if reader.footer is not None and reader.footer.position <= position:
            return False
        for frame in reader.frames():
            at = frame.preamble.position
            if frame.continued or at <= position:
                continue
            cuts.add(at)
            if any(record.kind is Kind.MARKER and record.body.get("name") == SETTLED for record in frame.records(host)):
                settled.add(at)
    return True
