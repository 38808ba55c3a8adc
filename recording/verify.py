"""Verification: whether segments are what was written, and whole.

What lives here: the checks, over bytes; and a thin walk over files. What must not: repair, presentation. The checks read the
layout on their own instead of through the reader, so that a defect there cannot hide damage.
"""

from __future__ import annotations

import mmap
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from hashlib import sha256
from pathlib import Path
from uuid import UUID

import zstandard

from capd.recording.durable import open_regular
from capd.recording.errors import on_disk
from capd.recording.journal.block import Position
from capd.recording.record import Direction, Kind, MalformedRecordError, Record, from_fields, unpack_arrays
from capd.recording.segment.footer import APPLICATION_LAYER, Footer, SessionEntry, parse_footer, parse_trailer
from capd.recording.segment.layout import (
    FILE_HEADER,
    FRAME_HEADER,
    SEALED_SUFFIX,
    TRAILER,
    FileHeader,
    FrameHeader,
    MalformedSegmentError,
    NewerSegmentError,
    Preamble,
    check_frame,
    decompress,
    sequence_of,
)


class Fault(StrEnum):
    """What kind of thing is wrong."""

    ALTERED = "altered"
    """Bytes are not those that were written."""
    CUT = "cut"
    """The end is missing."""
    MISSING = "missing"
    """A whole segment is not there."""
    ORDER = "order"
    """Records, positions or frames do not follow each other as they must."""
    CONTRADICTION = "contradiction"
    """The footer says something else than the frames."""
    NEWER = "newer"
    """Written in a format that this capd does not know; it was not checked."""
    CLOCK = "clock"
    """Times go backwards: the host's clock was set. Worth knowing, not damage."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One thing that is wrong.

    Attributes:
        fault: its kind.
        frame: number of the frame that it concerns; None when it is not in a frame.
        offset: byte in the file.
        message: what was found, in words for a person.
    """

    fault: Fault
    frame: int | None
    offset: int
    message: str

    @property
    def damage(self) -> bool:
        """Whether the record cannot be trusted or is not whole because of it."""
        return self.fault is not Fault.CLOCK


@dataclass(frozen=True, slots=True, kw_only=True)
class FileReport:
    """What was found out about one segment.

    Attributes:
        path: the file.
        sequence: its number.
        sealed: whether it is sealed; an open one is checked as far as it is written.
        file_bytes: its size.
        frames, records: how many could be read.
        first_ns, last_ns: times of the earliest and latest record; None without records.
        findings: what is wrong; nothing when it is as it was written.
    """

    path: Path
    sequence: int
    sealed: bool
    file_bytes: int
    frames: int
    records: int
    first_ns: int | None
    last_ns: int | None
    findings: Sequence[Finding]


@dataclass(slots=True)
class _Stream:
    """Where the application stream of one direction goes on; None when nobody knows."""

    next: int | None = None


@dataclass(slots=True)
class _SessionState:
    streams: tuple[_Stream, _Stream] = field(default_factory=lambda: (_Stream(), _Stream()))
    ordinal: int | None = None
    last_ns: int = 0


@dataclass(slots=True)
class Chain:
    """What has to hold from one segment to the next. Give the segments of a host in their order."""

    sequence: int | None = None
    sessions: dict[UUID, _SessionState] = field(default_factory=dict)

    def hole(self, sequence: int) -> str | None:
        """Give what is missing between the segment before and this one."""
        before, self.sequence = self.sequence, sequence
        if before is None or sequence == before + 1:
            return None
        if sequence <= before:
            return f"segment {sequence} comes after segment {before}"
        self.sessions.clear()  # their streams go on somewhere in what is missing
        missing = f"segment {before + 1} is" if sequence == before + 2 else f"segments {before + 1} to {sequence - 1} are"
        return f"{missing} missing before this one"

    def take(self, record: Record) -> tuple[Fault, str] | None:
        """Check a record against what came before it in its session."""
        state = self.sessions.setdefault(record.session, _SessionState())
        problem = self._stream(record, state) or self._ordinal(record, state)
        if record.time_ns < state.last_ns and problem is None:
            problem = (Fault.CLOCK, f"{_name(record)} is {state.last_ns - record.time_ns} ns before the one ahead of it")
        state.last_ns = record.time_ns
        if record.kind is Kind.CLOSE:
            del self.sessions[record.session]
        return problem

    def _stream(self, record: Record, state: _SessionState) -> tuple[Fault, str] | None:
        body = record.body
        if record.kind not in (Kind.DATA, Kind.GAP) or body.get("layer", APPLICATION_LAYER) != APPLICATION_LAYER:
            return None
        if record.direction is None:
            for each in state.streams:
                each.next = None
            return None
        stream, position = state.streams[record.direction], body.get("position")
        if not isinstance(position, int):
            return Fault.ORDER, f"{_name(record)} says no position"
        expected = stream.next
        payload, length = body.get("payload"), body.get("length")
        if record.kind is Kind.DATA:
            stream.next = position + len(payload) if isinstance(payload, bytes) else None
        else:
            stream.next = position + length if isinstance(length, int) else None
        if expected is not None and position != expected:
            return Fault.ORDER, f"{_name(record)} is at byte {position} of its stream, {expected} comes next"
        return None

    def _ordinal(self, record: Record, state: _SessionState) -> tuple[Fault, str] | None:
        ordinal = record.body.get("ordinal")
        if record.kind is not Kind.MESSAGE or not isinstance(ordinal, int):
            return None
        before, state.ordinal = state.ordinal, ordinal
        if before is not None and ordinal != before + 1:
            return Fault.ORDER, f"{_name(record)} has number {ordinal}, {before + 1} comes next"
        return None


def verify_files(paths: Iterable[Path]) -> Iterator[FileReport]:
    """Check segments, given in their order: each by itself, and that they follow each other.

    Raises:
        StateDirectoryError: a file cannot be read.
    """
    chain = Chain()
    for path in paths:
        sealed = path.suffix == SEALED_SUFFIX
        with on_disk("verify", path), os.fdopen(open_regular(path), "rb") as file:
            # A sealed file never changes; one that is written may be cut by recovery while it is mapped, so it is copied.
            size = path.stat().st_size
            if sealed and size:
                with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
                    report = verify_segment(path, data, chain, sealed=True)
            else:
                report = verify_segment(path, file.read(), chain, sealed=sealed)
        yield report


def verify_directory(directory: Path) -> Iterator[FileReport]:
    """Check all segments of a directory in their order.

    Raises:
        StateDirectoryError: the directory or a file cannot be read.
    """
    with on_disk("verify", directory):
        paths = sorted((number, path) for path in directory.iterdir() if (number := sequence_of(path)) is not None)
    yield from verify_files(path for _, path in paths)


def verify_segment(path: Path, data: bytes | mmap.mmap, chain: Chain, *, sealed: bool) -> FileReport:
    """Check one segment; its path is only named, the bytes are what is checked."""
    check = _Check(data, chain, sealed=sealed)
    sequence = sequence_of(path) or 0
    check.run(sequence)
    return FileReport(
        path=path,
        sequence=sequence,
        sealed=sealed,
        file_bytes=len(data),
        frames=check.frames,
        records=sum(entry.records for entry in check.sessions.values()),
        first_ns=check.first_ns,
        last_ns=check.last_ns,
        findings=check.findings,
    )


class _Check:
    """The checks of one segment, and what they saw."""

    def __init__(self, data: bytes | mmap.mmap, chain: Chain, *, sealed: bool) -> None:
        self.findings: list[Finding] = []
        self.frames = 0
        self.sessions: dict[UUID, SessionEntry] = {}
        self.first_ns: int | None = None
        self.last_ns: int | None = None
        self._data = data
        self._chain = chain
        self._sealed = sealed
        self._decompressor = zstandard.ZstdDecompressor()
        # Per segment: a journal that was removed by hand starts at its beginning again.
        self._position = Position(0, 0)

    def run(self, sequence: int) -> None:
        hole = self._chain.hole(sequence)
        if hole is not None:
            self._find(Fault.MISSING, None, 0, hole)
        header = self._header(sequence)
        if header is None:
            return
        footer, end = self._footer() if self._sealed else (None, len(self._data))
        offset, unfinished = self._walk(footer, end)
        if footer is not None:
            self._compare(header, footer, offset, end)
        elif self._sealed and not self.findings:
            self._find(Fault.CUT, None, offset, "the footer is missing")
        if unfinished and self._sealed:
            self._find(Fault.CUT, self.frames - 1, offset, "the last flush is not finished")

    def _find(self, fault: Fault, frame: int | None, offset: int, message: str) -> None:
        self.findings.append(Finding(fault=fault, frame=frame, offset=offset, message=message))

    def _header(self, sequence: int) -> FileHeader | None:
        try:
            header = FileHeader.parse(self._data[: FILE_HEADER.size])
        except NewerSegmentError as error:
            self._find(Fault.NEWER, None, 0, f"{error} is not known here")
            return None
        except MalformedSegmentError as error:
            if self._sealed or len(self._data) >= FILE_HEADER.size:
                self._find(Fault.ALTERED, None, 0, str(error))
            return None
        if header.sequence != sequence:
            self._find(Fault.ALTERED, None, 0, f"the file is that of segment {header.sequence}")
        return header

    def _footer(self) -> tuple[Footer | None, int]:
        """Give the footer and where it starts."""
        end = max(FILE_HEADER.size, len(self._data) - TRAILER.size)
        try:
            length, digest = parse_trailer(self._data[end : end + TRAILER.size])
            start = end - length
            if start < FILE_HEADER.size:
                raise MalformedSegmentError(f"there is no room for a footer of {length} bytes")
        except MalformedSegmentError as error:
            self._find(Fault.CUT, None, end, str(error))
            return None, len(self._data)
        try:
            return parse_footer(self._data[start:end], digest), start
        except NewerSegmentError as error:
            self._find(Fault.NEWER, None, start, f"{error} is not known here")
        except MalformedSegmentError as error:
            self._find(Fault.ALTERED, None, start, str(error))
        return None, start

    def _walk(self, footer: Footer | None, end: int) -> tuple[int, bool]:
        """Check frame after frame; of an unsealed file only whole flushes count.

        Returns:
            Where the frames end, and whether the last flush is unfinished.
        """
        offset = FILE_HEADER.size
        unfinished = False
        while offset < end:
            number = self.frames
            try:
                header = FrameHeader.parse(self._data[offset : min(end, offset + FRAME_HEADER.size)])
            except MalformedSegmentError as error:
                if self._sealed:
                    self._find(Fault.ALTERED, number, offset, str(error))
                return offset, unfinished
            length = FRAME_HEADER.size + header.stored_bytes
            if offset + length > end:
                if self._sealed:
                    self._find(Fault.CUT, number, offset, "the frame is cut")
                return offset, unfinished
            frame = self._data[offset : offset + length]
            if footer is not None and number < len(footer.frames):
                entry = footer.frames[number]
                if (entry.offset, entry.length, entry.raw) != (offset, length, header.raw_bytes):
                    self._find(Fault.CONTRADICTION, number, offset, "the footer has another place or size for the frame")
                elif sha256(frame).digest() != entry.sha256:
                    self._find(Fault.ALTERED, number, offset, "the frame's hash is not the one in the footer")
            self._frame(header, frame, number, offset)
            self.frames += 1
            unfinished = header.continued
            offset += length
        return offset, unfinished

    def _frame(self, header: FrameHeader, frame: bytes, number: int, offset: int) -> None:
        try:
            check_frame(header, frame)
            if header.number != number:
                self._find(Fault.ORDER, number, offset, f"frame {header.number} is in the place of frame {number}")
            arrays = unpack_arrays(decompress(header, frame, self._decompressor))
            preamble = Preamble.from_fields(next(arrays, []))
            first_ns, last_ns = self._records(arrays, number, offset)
        except (MalformedSegmentError, MalformedRecordError) as error:
            self._find(Fault.ALTERED, number, offset, str(error))
            return
        if (preamble.number, preamble.first_ns, preamble.last_ns) != (number, first_ns, last_ns):
            self._find(Fault.CONTRADICTION, number, offset, "the preamble has another number or other times than the frame")
        if preamble.position < self._position:
            self._find(Fault.ORDER, number, offset, "the journal position goes backwards")
        self._position = preamble.position

    def _records(self, arrays: Iterable[list[object]], number: int, offset: int) -> tuple[int, int]:
        """Check the records of a frame and give their earliest and latest time."""
        times: list[int] = []
        for fields in arrays:
            record = from_fields(fields)
            times.append(record.time_ns)
            self.sessions.setdefault(record.session, SessionEntry()).take(record, number)
            problem = self._chain.take(record)
            if problem is not None:
                self._find(problem[0], number, offset, problem[1])
        if not times:
            return 0, 0
        first_ns, last_ns = min(times), max(times)
        self.first_ns = first_ns if self.first_ns is None else min(self.first_ns, first_ns)
        self.last_ns = last_ns if self.last_ns is None else max(self.last_ns, last_ns)
        return first_ns, last_ns

    def _compare(self, header: FileHeader, footer: Footer, offset: int, end: int) -> None:
        """Check the footer against what the file was seen to hold."""
        if footer.header != header:
            self._find(Fault.CONTRADICTION, None, end, "the footer is that of another segment")
        if any(finding.damage and finding.fault is not Fault.MISSING for finding in self.findings):
            return  # the tallies differ because of what was found already
        if len(footer.frames) != self.frames or offset != end:
            self._find(Fault.CONTRADICTION, None, end, f"the footer has {len(footer.frames)} frames, the file {self.frames}")
        elif footer.sessions != self.sessions:
            self._find(Fault.CONTRADICTION, None, end, "the footer's sessions are not those of the records")
        if footer.position < self._position:
            self._find(Fault.ORDER, None, end, "the footer's journal position is before that of the last frame")
        self._position = footer.position


def _name(record: Record) -> str:
    direction = "" if record.direction is None else f" of the {Direction(record.direction).name.lower()} stream"
    return f"a {record.kind.name.lower()} record{direction} of {record.session}"
