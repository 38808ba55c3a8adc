"""Reading segments, sealed or still written.

What lives here: finding frames in a file and records in frames, with every check on the way. What must not: writing, repair.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self
from uuid import UUID

import zstandard

from capd.recording.durable import open_regular
from capd.recording.errors import CorruptSegmentError, NewerVersionError, on_disk
from capd.recording.record import MalformedRecordError, Record, from_fields, unpack_arrays
from capd.recording.segment.footer import Footer, FrameEntry, SessionEntry, parse_footer, parse_trailer
from capd.recording.segment.layout import (
    FILE_HEADER,
    FRAME_HEADER,
    FRAME_STORED_BYTES_MAX,
    PREAMBLE_FIELDS,
    SEALED_SUFFIX,
    TRAILER,
    VERSION,
    FileHeader,
    FrameHeader,
    MalformedSegmentError,
    NewerSegmentError,
    Preamble,
    check_frame,
    decompress,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Frame:
    """One whole, checked frame.

    Attributes:
        path: the file it is in.
        number: in its file, from 0.
        offset: of its header in the file.
        continued: whether the next frame belongs to the same flush.
        preamble: what it says about itself.
        raw: preamble and records, packed.
    """

    path: Path
    number: int
    offset: int
    continued: bool
    preamble: Preamble
    raw: bytes

    def records(self, session: UUID | None = None) -> Iterator[Record]:
        """Give the records, or those of one session, in recorded order.

        Raises:
            CorruptSegmentError: the frame holds something else than records.
        """
        wanted = None if session is None else session.bytes
        try:
            arrays = unpack_arrays(self.raw)
            next(arrays)  # the preamble
            for fields in arrays:
                if wanted is None or (len(fields) > 1 and fields[1] == wanted):
                    yield from_fields(fields)
        except MalformedRecordError as error:
            raise CorruptSegmentError(self.path, self.number, self.offset, str(error)) from error


class SegmentReader:
    """Reads one segment file. Of a file that is still written it sees what was flushed, and more with each call.

    A sealed file is read by its footer. Without one (a file that is still written, or cut) the frames are found one after the
    other up to the first that is not whole; frames of a flush that is not finished do not count.
    """

    def __init__(self, path: Path, *, sealed: bool | None = None) -> None:
        """Open a file.

        Args:
            path: a `.seg` or `.open` file.
            sealed: whether it is read by its footer; None: as its name says. False reads a damaged file as far as it goes.

        Raises:
            StateDirectoryError: it cannot be opened; `errno` says why.
            CorruptSegmentError: file header, footer or trailer are damaged.
            NewerVersionError: a later capd wrote it.
        """
        self.path = path
        self._decompressor = zstandard.ZstdDecompressor()
        self._found: list[FrameEntry] = []
        self._footer: Footer | None = None
        with on_disk("read", path):
            self._fd = open_regular(path)
        try:
            with self._blame(None, 0), on_disk("read", path):
                self.header = FileHeader.parse(os.pread(self._fd, FILE_HEADER.size, 0))
            if path.suffix == SEALED_SUFFIX if sealed is None else sealed:
                self._footer = self._read_footer()
        except BaseException:
            self.close()
            raise

    @property
    def footer(self) -> Footer | None:
        """The footer of a file that is read by it, else None."""
        return self._footer

    @property
    def file_bytes(self) -> int:
        """Size of the file now."""
        with on_disk("read", self.path):
            return os.fstat(self._fd).st_size

    def frames(self, start: int = 0) -> Iterator[Frame]:
        """Give the frames from a number on. May be called again to see what was written since.

        Raises:
            CorruptSegmentError: a frame is damaged.
        """
        number = start
        while number < len(self._entries(number)):
            yield self.frame(number)
            number += 1

    def frame(self, number: int) -> Frame:
        """Give one frame by its number.

        Raises:
            CorruptSegmentError: it is damaged.
            IndexError: there is no such frame.
        """
        entry = self._entries(number)[number]
        data = self.stored(number)
        with self._blame(number, entry.offset):
            header = FrameHeader.parse(data)
            check_frame(header, data)
            if header.number != number:
                raise MalformedSegmentError(f"frame {header.number} is in its place")
            raw = decompress(header, data, self._decompressor)
            preamble = _preamble(raw)
            if preamble.number != number:
                raise MalformedSegmentError(f"the preamble is that of frame {preamble.number}")
        return Frame(
            path=self.path,
            number=number,
            offset=entry.offset,
            continued=header.continued,
            preamble=preamble,
            raw=raw,
        )

    def stored(self, number: int) -> bytes:
        """Give the bytes of one frame as they are in the file, header included and unchecked; fewer where the file is cut.

        Raises:
            IndexError: there is no such frame.
        """
        entry = self._entries(number)[number]
        if entry.length > FRAME_HEADER.size + FRAME_STORED_BYTES_MAX:
            raise CorruptSegmentError(self.path, number, entry.offset, f"a frame of {entry.length} bytes is over the limit")
        with on_disk("read", self.path):
            return os.pread(self._fd, entry.length, entry.offset)

    def entries(self) -> list[FrameEntry]:
        """Give what is known of each frame; without a footer that is its place and size only, the rest is empty."""
        return list(self._entries(len(self._found)))

    def records(
        self,
        session: UUID | None = None,
        *,
        start: int = 0,
        end: int | None = None,
        from_ns: int | None = None,
        until_ns: int | None = None,
    ) -> Iterator[Record]:
        """Give the records in recorded order, without reading frames that cannot hold what is asked for.

        Args:
            session: only this session's.
            start: number of the frame to start with.
            end: number of the frame to end before; None goes on as long as there are more.
            from_ns: only records of this time or later.
            until_ns: only records before this time.

        Raises:
            CorruptSegmentError: a frame that has to be read is damaged.
        """
        for number in self._numbers(session, start, from_ns, until_ns):
            if end is not None and number >= end:
                return
            for record in self.frame(number).records(session):
                if (from_ns is None or record.time_ns >= from_ns) and (until_ns is None or record.time_ns < until_ns):
                    yield record

    def sessions(self) -> dict[UUID, SessionEntry]:
        """Give what the segment holds of each session. Without a footer every record is read for it.

        Raises:
            CorruptSegmentError: a frame is damaged.
        """
        if self._footer is not None:
            return dict(self._footer.sessions)
        sessions: dict[UUID, SessionEntry] = {}
        for frame in self.frames():
            for record in frame.records():
                sessions.setdefault(record.session, SessionEntry()).take(record, frame.number)
        return sessions

    def close(self) -> None:
        """Close the file."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    @contextmanager
    def _blame(self, frame: int | None, offset: int) -> Iterator[None]:
        """Say in which file, and where, something is wrong."""
        try:
            yield
        except (MalformedSegmentError, MalformedRecordError) as error:
            raise CorruptSegmentError(self.path, frame, offset, str(error)) from error
        except NewerSegmentError as error:
            raise NewerVersionError(self.path, error.version, VERSION) from error

    def _read_footer(self) -> Footer:
        with on_disk("read", self.path):
            end = max(FILE_HEADER.size, os.fstat(self._fd).st_size - TRAILER.size)
            with self._blame(None, end):
                length, digest = parse_trailer(os.pread(self._fd, TRAILER.size, end))
                start = end - length
                if start < FILE_HEADER.size:
                    raise MalformedSegmentError(f"there is no room for a footer of {length} bytes")
            with self._blame(None, start):
                footer = parse_footer(os.pread(self._fd, length, start), digest)
                check_entries(footer.frames, start)
        return footer

    def _entries(self, wanted: int) -> Sequence[FrameEntry]:
        """Give the known frames; when the wanted one is not among them, look for more first."""
        if self._footer is not None:
            return self._footer.frames
        if wanted >= len(self._found):
            self._found += self._look_on()
        return self._found

    def _look_on(self) -> list[FrameEntry]:
        """Find the whole flushes after the frames that are known."""
        whole: list[FrameEntry] = []
        flush: list[FrameEntry] = []
        offset = self._found[-1].offset + self._found[-1].length if self._found else FILE_HEADER.size
        with on_disk("read", self.path):
            size = os.fstat(self._fd).st_size
            while True:
                try:
                    header = FrameHeader.parse(os.pread(self._fd, FRAME_HEADER.size, offset))
                except MalformedSegmentError:
                    return whole
                length = FRAME_HEADER.size + header.stored_bytes
                if offset + length > size or header.number != len(self._found) + len(whole) + len(flush):
                    return whole
                flush.append(FrameEntry(offset=offset, length=length, raw=header.raw_bytes, sha256=b"", first_ns=0, last_ns=0))
                offset += length
                if not header.continued:
                    whole += flush
                    flush = []

    def _numbers(self, session: UUID | None, start: int, from_ns: int | None, until_ns: int | None) -> Iterator[int]:
        """Give the numbers of the frames that may hold what is asked for."""
        footer = self._footer
        if footer is None:
            number = start
            while number < len(self._entries(number)):
                yield number
                number += 1
            return
        known = range(len(footer.frames)) if session is None else footer.sessions.get(session, SessionEntry()).frames
        for number in known:
            entry = footer.frames[number]
            early = from_ns is not None and entry.last_ns < from_ns
            late = until_ns is not None and entry.first_ns >= until_ns
            if number >= start and not early and not late:
                yield number


def check_entries(frames: Sequence[FrameEntry], end: int) -> None:
    """Check that the frames of a footer fill the file from the file header up to the footer.

    Raises:
        MalformedSegmentError: they do not.
    """
    offset = FILE_HEADER.size
    for number, entry in enumerate(frames):
        if entry.offset != offset or entry.length < FRAME_HEADER.size:
            raise MalformedSegmentError(f"the footer has frame {number} at {entry.offset}, not at {offset}")
        offset += entry.length
    if offset != end:
        raise MalformedSegmentError(f"the frames of the footer end at {offset}, the footer starts at {end}")


def _preamble(raw: bytes) -> Preamble:
    for fields in unpack_arrays(raw):
        if len(fields) != PREAMBLE_FIELDS:
            break
        return Preamble.from_fields(fields)
    raise MalformedSegmentError("the frame does not start with its preamble")
