"""Verification of content: whether segments hold records that follow each other as they must, record by record.

What lives here: the checks, over bytes; and a thin walk over files. What must not: signatures and the chain, which need no
content (seals.py), repair, presentation. The checks read the layout on their own instead of through the reader, so that a
defect there cannot hide damage.
"""

from __future__ import annotations

import mmap
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from hashlib import sha256
from pathlib import Path
from typing import Final
from uuid import UUID

import zstandard

from capd.recording.age import NoKeys
from capd.recording.durable import open_regular
from capd.recording.errors import EncryptedError, on_disk
from capd.recording.position import Position
from capd.recording.record import Direction, Kind, MalformedRecordError, Record, from_fields, unpack_arrays
from capd.recording.segment.cipher import FrameCipher, Keys
from capd.recording.segment.footer import Footer, SessionEntry, parse_footer
from capd.recording.segment.frame_index import APPLICATION_LAYER, FrameIndex, Tally
from capd.recording.segment.layout import (
    FILE_HEADER,
    FRAME_HEADER,
    KEY_BLOCK_BYTES_MAX,
    SEALED_SUFFIX,
    UNSIGNED_VERSION,
    CutHeaderError,
    FileHeader,
    FrameHeader,
    MalformedSegmentError,
    NewerSegmentError,
    Preamble,
    bound_part,
    check_frame,
    decompress,
    sequence_of,
)
from capd.recording.segment.trailer import parse_trailer, trailer_bytes

_NO_KEYS: Final = NoKeys()


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
            # Where only sizes are recorded, the length says how much there was.
            size = length if not payload and isinstance(length, int) else len(payload) if isinstance(payload, bytes) else None
            stream.next = None if size is None else position + size
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


def verify_files(paths: Iterable[Path], keys: Keys = _NO_KEYS) -> Iterator[FileReport]:
    """Check segments, given in their order: each by itself, and that they follow each other.

    Args:
        paths: the files.
        keys: who opens encrypted frames; of those that stay closed only the outside is checked.

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
                    report = verify_segment(path, data, chain, sealed=True, keys=keys)
            else:
                report = verify_segment(path, file.read(), chain, sealed=sealed, keys=keys)
        yield report


def verify_directory(directory: Path, keys: Keys = _NO_KEYS) -> Iterator[FileReport]:
    """Check all segments of a directory in their order.

    Raises:
        StateDirectoryError: the directory or a file cannot be read.
    """
    with on_disk("verify", directory):
        paths = sorted((number, path) for path in directory.iterdir() if (number := sequence_of(path)) is not None)
    yield from verify_files((path for _, path in paths), keys)


def verify_segment(path: Path, data: bytes | mmap.mmap, chain: Chain, *, sealed: bool, keys: Keys = _NO_KEYS) -> FileReport:
    """Check one segment; its path is only named, the bytes are what is checked."""
    check = _Check(data, chain, sealed=sealed, keys=keys)
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

    def __init__(self, data: bytes | mmap.mmap, chain: Chain, *, sealed: bool, keys: Keys) -> None:
        self.findings: list[Finding] = []
        self.frames = 0
        self.sessions: dict[UUID, SessionEntry] = {}
        self.first_ns: int | None = None
        self.last_ns: int | None = None
        self._data = data
        self._chain = chain
        self._sealed = sealed
        self._keys = keys
        self._cipher: FrameCipher | None = None
        self._version = UNSIGNED_VERSION
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
        self._version = header.version
        try:
            self._cipher = FrameCipher(self._keys.data_key(header), header.digest) if header.key_block else None
            closed = False
        except EncryptedError:
            closed = True
        footer, end = self._footer(header) if self._sealed else (None, len(self._data))
        offset, unfinished = self._walk(footer, header.size, end, closed=closed)
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
            header = FileHeader.parse(self._data[: FILE_HEADER.size + KEY_BLOCK_BYTES_MAX])
        except NewerSegmentError as error:
            self._find(Fault.NEWER, None, 0, f"{error} is not known here")
            return None
        except CutHeaderError as error:
            if self._sealed:
                self._find(Fault.CUT, None, 0, str(error))
            return None
        except MalformedSegmentError as error:
            self._find(Fault.ALTERED, None, 0, str(error))
            return None
        if header.sequence != sequence:
            self._find(Fault.ALTERED, None, 0, f"the file is that of segment {header.sequence}")
        return header

    def _footer(self, header: FileHeader) -> tuple[Footer | None, int]:
        """Give the footer and where it starts."""
        end = max(header.size, len(self._data) - trailer_bytes(header.version))
        try:
            trailer = parse_trailer(self._data[end:], header.version)
            start = end - trailer.footer_bytes
            if start < header.size:
                raise MalformedSegmentError(f"there is no room for a footer of {trailer.footer_bytes} bytes")
        except MalformedSegmentError as error:
            self._find(Fault.CUT, None, end, str(error))
            return None, len(self._data)
        try:
            return parse_footer(self._data[start:end], trailer.digest), start
        except NewerSegmentError as error:
            self._find(Fault.NEWER, None, start, f"{error} is not known here")
        except MalformedSegmentError as error:
            self._find(Fault.ALTERED, None, start, str(error))
        return None, start

    def _walk(self, footer: Footer | None, offset: int, end: int, *, closed: bool) -> tuple[int, bool]:
        """Check frame after frame; of an unsealed file only whole flushes count.

        Returns:
            Where the frames end, and whether the last flush is unfinished.
        """
        unfinished = False
        while offset < end:
            number = self.frames
            try:
                header = FrameHeader.parse(self._data[offset : min(end, offset + FRAME_HEADER.size)], self._version)
            except MalformedSegmentError as error:
                if self._sealed:
                    self._find(Fault.ALTERED, number, offset, str(error))
                return offset, unfinished
            if offset + header.length > end:
                if self._sealed:
                    self._find(Fault.CUT, number, offset, "the frame is cut")
                return offset, unfinished
            frame = self._data[offset : offset + header.length]
            if footer is not None and number < len(footer.frames):
                entry = footer.frames[number]
                if (entry.offset, entry.length, entry.raw) != (offset, header.length, header.raw_bytes):
                    self._find(Fault.CONTRADICTION, number, offset, "the footer has another place or size for the frame")
                elif sha256(frame).digest() != entry.sha256:
                    self._find(Fault.ALTERED, number, offset, "the frame's hash is not the one in the footer")
            self._frame(header, frame, offset, closed=closed)
            self.frames += 1
            unfinished = header.continued
            offset += header.length
        return offset, unfinished

    def _frame(self, header: FrameHeader, frame: bytes, offset: int, *, closed: bool) -> None:
        number = self.frames
        try:
            check_frame(header, frame)
            if header.number != number:
                self._find(Fault.ORDER, number, offset, f"frame {header.number} is in the place of frame {number}")
            preamble, told, raw = self._opened(header, frame, closed=closed)
            if raw is None:
                tallies, times = told or {}, (preamble.first_ns, preamble.last_ns)
                self._span(times)
            else:
                tallies, times = self._records(unpack_arrays(raw), number, offset)
        except (MalformedSegmentError, MalformedRecordError) as error:
            self._find(Fault.ALTERED, number, offset, str(error))
            return
        for session, tally in tallies.items():
            self.sessions.setdefault(session, SessionEntry()).add(tally, number)
        if (preamble.number, preamble.first_ns, preamble.last_ns) != (number, *times):
            self._find(Fault.CONTRADICTION, number, offset, "the preamble has another number or other times than the frame")
        if told is not None and told != tallies:
            self._find(Fault.CONTRADICTION, number, offset, "the frame's index has other sessions than its records")
        if preamble.position < self._position:
            self._find(Fault.ORDER, number, offset, "the journal position goes backwards")
        self._position = preamble.position

    def _opened(
        self, header: FrameHeader, frame: bytes, *, closed: bool
    ) -> tuple[Preamble, Mapping[UUID, Tally] | None, bytes | None]:
        """Give a frame's preamble, the tallies in its index, and its records; None for what it has not, or keeps closed."""
        start = header.size + header.index_bytes
        stored: bytes | memoryview = memoryview(frame)[start:]
        if header.version == UNSIGNED_VERSION:
            preamble, raw = Preamble.split(decompress(header, stored, self._decompressor))
            return preamble, None, raw
        index = FrameIndex.parse(memoryview(frame)[header.size : start])
        if closed:
            return index.preamble, index.sessions, None
        if self._cipher is not None:
            stored = self._cipher.decrypt(header.number, bound_part(header, frame), stored)
        return index.preamble, index.sessions, decompress(header, stored, self._decompressor)

    def _records(self, arrays: Iterable[list[object]], number: int, offset: int) -> tuple[dict[UUID, Tally], tuple[int, int]]:
        """Check the records of a frame; give what it holds of each session, and its earliest and latest time."""
        times: list[int] = []
        tallies: dict[UUID, Tally] = {}
        for fields in arrays:
            record = from_fields(fields)
            times.append(record.time_ns)
            tallies.setdefault(record.session, Tally()).take(record)
            problem = self._chain.take(record)
            if problem is not None:
                self._find(problem[0], number, offset, problem[1])
        span = (min(times), max(times)) if times else (0, 0)
        self._span(span)
        return tallies, span

    def _span(self, times: tuple[int, int]) -> None:
        if any(times):
            self.first_ns = times[0] if self.first_ns is None else min(self.first_ns, times[0])
            self.last_ns = times[1] if self.last_ns is None else max(self.last_ns, times[1])

    def _compare(self, header: FileHeader, footer: Footer, offset: int, end: int) -> None:
        """Check the footer against what the file was seen to hold."""
        if footer.header != header or footer.header_digest not in (None, header.digest):
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
