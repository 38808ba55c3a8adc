"""Reading segments, sealed or still written, from wherever they are.

What lives here: finding frames in a file and records in frames, with every check on the way. What must not: writing, repair.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Final, Self
from uuid import UUID

import zstandard

from capd.recording.age import NoKeys
from capd.recording.errors import CorruptSegmentError, NewerVersionError
from capd.recording.record import MalformedRecordError, Record, from_fields, unpack_arrays
from capd.recording.segment.cipher import FrameCipher, Keys
from capd.recording.segment.footer import Footer, FrameEntry, SessionEntry, parse_footer
from capd.recording.segment.frame_index import FrameIndex, Tally
from capd.recording.segment.layout import (
    FILE_HEADER,
    FRAME_BYTES_MAX,
    FRAME_HEADER,
    HEADER_READ_BYTES,
    KEY_BLOCK_BYTES_MAX,
    SEALED_SUFFIX,
    UNSIGNED_VERSION,
    VERSION,
    CutHeaderError,
    FileHeader,
    FrameHeader,
    MalformedSegmentError,
    NewerSegmentError,
    Preamble,
    bound_part,
    check_frame,
    decompress,
    frame_header_bytes,
)
from capd.recording.segment.source import FileSource, Source
from capd.recording.segment.trailer import Trailer, parse_trailer, trailer_bytes

_NO_KEYS: Final = NoKeys()


@dataclass(frozen=True, slots=True, kw_only=True)
class Frame:
    """One whole, checked frame.

    Attributes:
        path: the file it is in.
        number: in its file, from 0.
        offset: of its header in the file.
        continued: whether the next frame belongs to the same flush.
        preamble: what it says about itself.
        raw: records, packed.
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
            for fields in unpack_arrays(self.raw):
                if wanted is None or (len(fields) > 1 and fields[1] == wanted):
                    yield from_fields(fields)
        except MalformedRecordError as error:
            raise CorruptSegmentError(self.path, self.number, self.offset, str(error)) from error


class SegmentReader:
    """Reads one segment. Of a file that is still written it sees what was flushed, and more with each call.

    A sealed file is read by its footer. Without one (a file that is still written, or cut) the frames are found one after the
    other up to the first that is not whole; frames of a flush that is not finished do not count.
    """

    def __init__(self, place: Path | Source, *, sealed: bool | None = None, keys: Keys = _NO_KEYS) -> None:
        """Open a segment.

        Args:
            place: a `.seg` or `.open` file, or where else its bytes are.
            sealed: whether it is read by its footer; None: as its name says. False reads a damaged file as far as it goes.
            keys: who opens encrypted frames; needed for their records only.

        Raises:
            StateDirectoryError: it cannot be opened; `errno` says why.
            CorruptSegmentError: file header, footer or trailer are damaged.
            NewerVersionError: a later capd wrote it.
        """
        self._source = FileSource(place) if isinstance(place, Path) else place
        self.path = path = self._source.path
        self._keys = keys
        self._cipher: FrameCipher | None = None
        self._decompressor = zstandard.ZstdDecompressor()
        self._found: list[FrameEntry] = []
        self._footer: Footer | None = None
        self._trailer: Trailer | None = None
        try:
            with self._blame(None, 0):
                self.header = self._read_header()
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
    def footer_digest(self) -> bytes | None:
        """SHA-256 of the footer of a file that is read by it, else None: what the next segment names as `previous`."""
        return None if self._trailer is None else self._trailer.digest

    @property
    def file_bytes(self) -> int:
        """Size of the file now."""
        return self._source.size()

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
            EncryptedError: it is encrypted, and nobody here has the key.
            IndexError: there is no such frame.
        """
        entry = self._entries(number)[number]
        data = self.stored(number)
        with self._blame(number, entry.offset):
            header = self._checked(data, number)
            index = memoryview(data)[header.size : header.size + header.index_bytes]
            raw = decompress(header, self._deciphered(header, data), self._decompressor)
            if header.version == UNSIGNED_VERSION:
                preamble, raw = Preamble.split(raw)
            else:
                preamble = FrameIndex.parse(index).preamble
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

    def index(self, number: int) -> tuple[FrameHeader, FrameIndex]:
        """Give what can be known of a frame without a key; of version 1 its records are read for it.

        Raises:
            CorruptSegmentError: it is damaged.
            IndexError: there is no such frame.
        """
        if self.header.version == UNSIGNED_VERSION:
            frame, sessions = self.frame(number), dict[UUID, Tally]()
            for record in frame.records():
                sessions.setdefault(record.session, Tally()).take(record)
            with self._blame(number, frame.offset):
                header = FrameHeader.parse(self.stored(number), UNSIGNED_VERSION)
            return header, FrameIndex(preamble=frame.preamble, sessions=sessions)
        entry = self._entries(number)[number]
        data = self.stored(number)
        with self._blame(number, entry.offset):
            header = self._checked(data, number)
            index = FrameIndex.parse(memoryview(data)[header.size : header.size + header.index_bytes])
            if index.preamble.number != number:
                raise MalformedSegmentError(f"the index is that of frame {index.preamble.number}")
        return header, index

    def stored(self, number: int) -> bytes:
        """Give the bytes of one frame as they are in the file, header included and unchecked; fewer where the file is cut.

        Raises:
            IndexError: there is no such frame.
        """
        entry = self._entries(number)[number]
        if entry.length > FRAME_BYTES_MAX:
            raise CorruptSegmentError(self.path, number, entry.offset, f"a frame of {entry.length} bytes is over the limit")
        return self._source.read(entry.offset, entry.length)

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
        """Give what the segment holds of each session. Without a footer every frame is looked at for it.

        Raises:
            CorruptSegmentError: a frame is damaged.
        """
        if self._footer is not None:
            return dict(self._footer.sessions)
        sessions: dict[UUID, SessionEntry] = {}
        number = 0
        while number < len(self._entries(number)):
            for session, tally in self.index(number)[1].sessions.items():
                sessions.setdefault(session, SessionEntry()).add(tally, number)
            number += 1
        return sessions

    def close(self) -> None:
        """Close the file."""
        self._source.close()

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

    def _read_header(self) -> FileHeader:
        try:
            return FileHeader.parse(self._source.read(0, HEADER_READ_BYTES))
        except CutHeaderError:
            return FileHeader.parse(self._source.read(0, FILE_HEADER.size + KEY_BLOCK_BYTES_MAX))

    def _checked(self, data: bytes, number: int) -> FrameHeader:
        header = FrameHeader.parse(data, self.header.version)
        check_frame(header, data)
        if header.number != number:
            raise MalformedSegmentError(f"frame {header.number} is in its place")
        return header

    def _deciphered(self, header: FrameHeader, data: bytes) -> bytes | memoryview:
        """Give the zstd frame in a whole frame."""
        start = header.size + header.index_bytes
        stored = memoryview(data)[start:]
        if not self.header.key_block:
            return stored
        if self._cipher is None:
            self._cipher = FrameCipher(self._keys.data_key(self.header), self.header.digest)
        return self._cipher.decrypt(header.number, bound_part(header, data), stored)

    def _read_footer(self) -> Footer:
        size = trailer_bytes(self.header.version)
        end = max(self.header.size, self._source.size() - size)
        with self._blame(None, end):
            trailer = parse_trailer(self._source.read(end, size), self.header.version)
            start = end - trailer.footer_bytes
            if start < self.header.size:
                raise MalformedSegmentError(f"there is no room for a footer of {trailer.footer_bytes} bytes")
        with self._blame(None, start):
            footer = parse_footer(self._source.read(start, trailer.footer_bytes), trailer.digest)
            check_entries(footer.frames, self.header, start)
        self._trailer = trailer
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
        offset = self._found[-1].offset + self._found[-1].length if self._found else self.header.size
        size = self._source.size()
        while True:
            try:
                header = FrameHeader.parse(self._source.read(offset, FRAME_HEADER.size), self.header.version)
            except MalformedSegmentError:
                return whole
            length = header.length
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


def check_entries(frames: Sequence[FrameEntry], header: FileHeader, end: int) -> None:
    """Check that the frames of a footer fill the file from the file header up to the footer.

    Raises:
        MalformedSegmentError: they do not.
    """
    offset = header.size
    for number, entry in enumerate(frames):
        if entry.offset != offset or entry.length < frame_header_bytes(header.version):
            raise MalformedSegmentError(f"the footer has frame {number} at {entry.offset}, not at {offset}")
        if entry.length > FRAME_BYTES_MAX:  # who checks its hash reads it at once
            raise MalformedSegmentError(f"the footer has frame {number} with {entry.length} bytes, which is over the limit")
        offset += entry.length
    if offset != end:
        raise MalformedSegmentError(f"the frames of the footer end at {offset}, the footer starts at {end}")
