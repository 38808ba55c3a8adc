"""The fixed parts of a segment, byte for byte: file header, frame header, preamble, trailer, and file names.

What lives here: layouts and their checks. What must not: files, the footer's content, records.
"""

from __future__ import annotations

import re
import struct
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from uuid import UUID

import msgpack
import zstandard

from capd.recording.journal.block import Position

VERSION: Final = 1
FILE_MAGIC: Final = b"\x89CAPDSEG"
"""The first byte is no ASCII, so that no text file passes for a segment."""
FRAME_MAGIC: Final = b"CFRM"
TRAILER_MAGIC: Final = b"CAPDEND\x1a"
FILE_HEADER: Final = struct.Struct("<8sHHI16sQQ12sI")
"""magic, version, flags (0), reserved, host, sequence, created, reserved, CRC-32 of the 60 bytes before it."""
FRAME_HEADER: Final = struct.Struct("<4sHBBIIII")
"""magic, version, codec, flags, number, raw length, stored length, CRC-32 of the 20 bytes before it and the stored bytes."""
TRAILER: Final = struct.Struct("<Q32s8s")
"""footer length, SHA-256 of the footer, magic."""
_CRC: Final = struct.Struct("<I")

FRAME_RAW_BYTES_MAX: Final = 128 << 20
"""Bounds what a reader allocates for one frame."""
RECORD_BYTES_MAX: Final = 64 << 20
"""Largest packed record: far above one call's payload, and a frame has room for one beside its usual filling."""
FRAME_STORED_BYTES_MAX: Final = FRAME_RAW_BYTES_MAX + (FRAME_RAW_BYTES_MAX >> 8) + 1024
"""zstd's own bound for what cannot be compressed."""
FOOTER_BYTES_MAX: Final = 64 << 20
"""Bounds what a reader allocates for a footer: 8 MiB of records hold far fewer sessions and frames than this."""
CODEC_ZSTD: Final = 1
FLAG_CONTINUED: Final = 1
"""The flush that this frame belongs to goes on in the next frame: without that one, this one does not count."""
PREAMBLE_KIND: Final = 0
PREAMBLE_FIELDS: Final = 6
SEALED_SUFFIX: Final = ".seg"
OPEN_SUFFIX: Final = ".open"
_NAME: Final = re.compile(r"(\d{12})\.(seg|open)")


class MalformedSegmentError(Exception):
    """The bytes are not the part of a segment that they should be. The reader adds the file: CorruptSegmentError."""


class NewerSegmentError(Exception):
    """The part is whole, and of a version that this reader does not know."""

    def __init__(self, version: int) -> None:
        super().__init__(f"format version {version}")
        self.version = version


@dataclass(frozen=True, slots=True, kw_only=True)
class FileHeader:
    """What a segment starts with.

    Attributes:
        host: the installation that wrote it.
        sequence: number of the segment on that host, from 1 without holes.
        created_ns: wall time when the file was begun, ns since 1970 UTC.
    """

    host: UUID
    sequence: int
    created_ns: int

    def pack(self) -> bytes:
        """Give the bytes on disk."""
        data = FILE_HEADER.pack(FILE_MAGIC, VERSION, 0, 0, self.host.bytes, self.sequence, self.created_ns, bytes(12), 0)
        body = data[: -_CRC.size]
        return body + _CRC.pack(zlib.crc32(body))

    @classmethod
    def parse(cls, data: bytes) -> FileHeader:
        """Read and check the bytes on disk.

        Raises:
            NewerSegmentError: a later version wrote it.
            MalformedSegmentError: it is no file header.
        """
        if len(data) < FILE_HEADER.size:
            raise MalformedSegmentError(f"the file header is cut after {len(data)} bytes")
        magic, version, _, _, host, sequence, created_ns, _, crc = FILE_HEADER.unpack_from(data)
        if magic != FILE_MAGIC:
            raise MalformedSegmentError("this is not a segment")
        if zlib.crc32(data[: FILE_HEADER.size - _CRC.size]) != crc:
            raise MalformedSegmentError("the file header's checksum is wrong")
        if version > VERSION:
            raise NewerSegmentError(version)
        return cls(host=UUID(bytes=host), sequence=sequence, created_ns=created_ns)


@dataclass(frozen=True, slots=True, kw_only=True)
class FrameHeader:
    """What a frame starts with.

    Attributes:
        number: of the frame in its file, from 0.
        continued: whether the next frame belongs to the same flush.
        raw_bytes: length of its preamble and records, packed.
        stored_bytes: length of the zstd frame that follows.
        crc: CRC-32 of the rest of the header and the zstd frame.
    """

    number: int
    continued: bool
    raw_bytes: int
    stored_bytes: int
    crc: int

    @classmethod
    def parse(cls, data: bytes) -> FrameHeader:
        """Read the bytes on disk and check everything that can be checked without the rest of the frame.

        Raises:
            MalformedSegmentError: it is no frame header, its version is not that of the file header, or a limit is broken.
        """
        if len(data) < FRAME_HEADER.size:
            raise MalformedSegmentError("the frame header is cut")
        magic, version, codec, flags, number, raw, stored, crc = FRAME_HEADER.unpack_from(data)
        if magic != FRAME_MAGIC:
            raise MalformedSegmentError("no frame starts here")
        if version != VERSION:  # a file header of that version would have been refused
            raise MalformedSegmentError(f"the frame has version {version}, the file {VERSION}")
        if codec != CODEC_ZSTD or flags & ~FLAG_CONTINUED:
            raise MalformedSegmentError(f"codec {codec} or flags {flags} are unknown")
        if raw > FRAME_RAW_BYTES_MAX or stored > FRAME_STORED_BYTES_MAX:
            raise MalformedSegmentError(f"lengths {raw} and {stored} are over the limit of {FRAME_RAW_BYTES_MAX}")
        return cls(number=number, continued=bool(flags & FLAG_CONTINUED), raw_bytes=raw, stored_bytes=stored, crc=crc)


@dataclass(frozen=True, slots=True, kw_only=True)
class Preamble:
    """The first array of a frame: what the frame is, and how far it has come.

    Attributes:
        number: of the frame in its file.
        position: everything that the journal holds before it is in this frame and earlier ones.
        first_ns, last_ns: earliest and latest time of the frame's records; 0 when it has none.
    """

    number: int
    position: Position
    first_ns: int
    last_ns: int

    def pack(self) -> bytes:
        """Give the msgpack form."""
        fields = (PREAMBLE_KIND, self.number, *self.position.to_fields(), self.first_ns, self.last_ns)
        packed: bytes = msgpack.packb(fields)
        return packed

    @classmethod
    def from_fields(cls, fields: list[object]) -> Preamble:
        """Build it from its array.

        Raises:
            MalformedSegmentError: the array is no preamble.
        """
        match fields:
            case [0, int(number), int(file), int(offset), int(first_ns), int(last_ns)] if file >= 0 and offset >= 0:
                return cls(number=number, position=Position(file, offset), first_ns=first_ns, last_ns=last_ns)
        raise MalformedSegmentError("the frame does not start with its preamble")


def pack_frame(*, number: int, continued: bool, raw: bytes | bytearray, stored: bytes) -> bytes:
    """Give a frame's header for its raw and its compressed bytes."""
    flags = FLAG_CONTINUED if continued else 0
    head = FRAME_HEADER.pack(FRAME_MAGIC, VERSION, CODEC_ZSTD, flags, number, len(raw), len(stored), 0)[: -_CRC.size]
    return head + _CRC.pack(zlib.crc32(stored, zlib.crc32(head)))


def check_frame(header: FrameHeader, frame: bytes) -> None:
    """Check a whole frame, header included, against its checksum.

    Raises:
        MalformedSegmentError: it is not what was written.
    """
    head = FRAME_HEADER.size
    if len(frame) != head + header.stored_bytes:
        raise MalformedSegmentError("the frame is cut")
    view = memoryview(frame)
    if zlib.crc32(view[head:], zlib.crc32(view[: head - _CRC.size])) != header.crc:
        raise MalformedSegmentError("the frame's checksum is wrong")


def decompress(header: FrameHeader, frame: bytes, decompressor: zstandard.ZstdDecompressor) -> bytes:
    """Give the packed preamble and records of a whole frame, having allocated no more than its header announces.

    Raises:
        MalformedSegmentError: the zstd frame is damaged or of another length.
    """
    stored = memoryview(frame)[FRAME_HEADER.size :]
    try:
        if zstandard.frame_content_size(stored) != header.raw_bytes:
            raise MalformedSegmentError("the zstd frame announces another length than the header")
        return decompressor.decompress(stored)
    except zstandard.ZstdError as error:
        raise MalformedSegmentError(f"the frame does not decompress: {error}") from error


def sealed_path(directory: Path, sequence: int) -> Path:
    """Give the path of a sealed segment."""
    return directory / f"{sequence:012d}{SEALED_SUFFIX}"


def open_path(directory: Path, sequence: int) -> Path:
    """Give the path of a segment that is being written."""
    return directory / f"{sequence:012d}{OPEN_SUFFIX}"


def sequence_of(path: Path) -> int | None:
    """Give a segment's number from its file name; None for another file."""
    match = _NAME.fullmatch(path.name)
    return int(match[1]) if match else None
