"""The fixed parts of a segment, byte for byte: file header, frame header, preamble, and file names.

What lives here: layouts and their checks. What must not: files, footer and trailer, records, ciphers.
"""

from __future__ import annotations

import re
import struct
import zlib
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Final
from uuid import UUID

import msgpack
import zstandard

from capd.recording.position import Position

VERSION: Final = 2
UNSIGNED_VERSION: Final = 1
"""Version 1 had no chain, no signature and no encryption."""
FILE_MAGIC: Final = b"\x89CAPDSEG"
"""The first byte is no ASCII, so that no text file passes for a segment."""
FRAME_MAGIC: Final = b"CFRM"
FILE_HEADER: Final = struct.Struct("<8sHHI16sQQI8sI")
"""magic, version, flags, key block length, host, sequence, created, CRC-32 of the key block, reserved, CRC-32 of the 60 bytes
before it. In version 1 flags and both key block fields are 0."""
FRAME_HEADER_1: Final = struct.Struct("<4sHBBIIII")
"""magic, version, codec, flags, number, raw length, stored length, CRC-32 of the 20 bytes before it and the stored bytes."""
FRAME_HEADER: Final = struct.Struct("<4sHBBIIIII")
"""magic, version, codec, flags, number, raw length, index length, stored length, CRC-32 of the 24 bytes before it, the index
and the stored bytes."""
_CRC: Final = struct.Struct("<I")

FRAME_RAW_BYTES_MAX: Final = 128 << 20
"""Bounds what a reader allocates for one frame."""
RECORD_BYTES_MAX: Final = 64 << 20
"""Largest packed record: far above one call's payload, and a frame has room for one beside its usual filling."""
FRAME_STORED_BYTES_MAX: Final = FRAME_RAW_BYTES_MAX + (FRAME_RAW_BYTES_MAX >> 8) + 1024
"""zstd's own bound for what cannot be compressed, and the few bytes of a cipher's tag."""
FRAME_INDEX_BYTES_MAX: Final = 64 << 20
"""Bounds what a reader allocates for a frame's index: a record of the smallest kind names a session in a frame's raw bytes."""
FRAME_BYTES_MAX: Final = FRAME_HEADER.size + FRAME_INDEX_BYTES_MAX + FRAME_STORED_BYTES_MAX
KEY_BLOCK_BYTES_MAX: Final = 64 << 10
"""An age header with hundreds of recipients."""
HEADER_READ_BYTES: Final = 4096
"""As much as holds a file header and its key block in almost all cases."""
CODEC_ZSTD: Final = 1
FILE_FLAG_ENCRYPTED: Final = 1
FLAG_CONTINUED: Final = 1
"""The flush that this frame belongs to goes on in the next frame: without that one, this one does not count."""
PREAMBLE_BYTES_MAX: Final = 64
"""Six numbers of at most nine bytes, in an array."""
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


class CutHeaderError(MalformedSegmentError):
    """The file ends within its header: nothing was ever in it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FileHeader:
    """What a segment starts with.

    Attributes:
        host: the installation that wrote it.
        sequence: number of the segment on that host, from 1 without holes.
        created_ns: wall time when the file was begun, ns since 1970 UTC.
        version: of the format; footers do not repeat it, nor the key block.
        key_block: the age file that holds the key of the frames; empty when they are not encrypted.
    """

    host: UUID
    sequence: int
    created_ns: int
    version: int = field(default=VERSION, compare=False)
    key_block: bytes = field(default=b"", compare=False)

    @property
    def size(self) -> int:
        """Where the first frame starts."""
        return FILE_HEADER.size + len(self.key_block)

    @property
    def digest(self) -> bytes:
        """SHA-256 of header and key block, which the footer repeats and every encrypted frame is bound to."""
        return sha256(self.pack()).digest()

    def pack(self) -> bytes:
        """Give the bytes on disk, key block included."""
        body = FILE_HEADER.pack(
            FILE_MAGIC,
            self.version,
            FILE_FLAG_ENCRYPTED if self.key_block else 0,
            len(self.key_block),
            self.host.bytes,
            self.sequence,
            self.created_ns,
            zlib.crc32(self.key_block),
            bytes(8),
            0,
        )[: -_CRC.size]
        return body + _CRC.pack(zlib.crc32(body)) + self.key_block

    @classmethod
    def parse(cls, data: bytes) -> FileHeader:
        """Read and check the bytes on disk; what follows them is passed over.

        Raises:
            NewerSegmentError: a later version wrote it.
            CutHeaderError: there is less than the header and its key block.
            MalformedSegmentError: it is no file header.
        """
        if len(data) < FILE_HEADER.size:
            raise CutHeaderError(f"the file header is cut after {len(data)} bytes")
        magic, version, flags, length, host, sequence, created_ns, key_crc, reserved, crc = FILE_HEADER.unpack_from(data)
        if magic != FILE_MAGIC:
            raise MalformedSegmentError("this is not a segment")
        if zlib.crc32(data[: FILE_HEADER.size - _CRC.size]) != crc:
            raise MalformedSegmentError("the file header's checksum is wrong")
        if version > VERSION:
            raise NewerSegmentError(version)
        if version == UNSIGNED_VERSION:
            length = flags = 0
        elif any(reserved):
            raise MalformedSegmentError("reserved bytes of the file header are not 0")
        if flags & ~FILE_FLAG_ENCRYPTED or bool(flags) != bool(length) or length > KEY_BLOCK_BYTES_MAX:
            raise MalformedSegmentError(f"flags {flags} with a key block of {length} bytes are not possible")
        key_block = bytes(data[FILE_HEADER.size : FILE_HEADER.size + length])
        if len(key_block) < length:
            raise CutHeaderError(f"the key block is cut after {len(key_block)} bytes")
        if length and zlib.crc32(key_block) != key_crc:
            raise MalformedSegmentError("the key block's checksum is wrong")
        return cls(host=UUID(bytes=host), sequence=sequence, created_ns=created_ns, version=version, key_block=key_block)


@dataclass(frozen=True, slots=True, kw_only=True)
class FrameHeader:
    """What a frame starts with.

    Attributes:
        version: of the format.
        number: of the frame in its file, from 0.
        continued: whether the next frame belongs to the same flush.
        raw_bytes: length of its records, packed; in version 1 with the preamble before them.
        index_bytes: length of its index; 0 in version 1, where the preamble is in the content.
        stored_bytes: length of what comes last: the zstd frame, in an encrypted segment enciphered.
        crc: CRC-32 of the rest of the header, the index and the stored bytes.
    """

    version: int
    number: int
    continued: bool
    raw_bytes: int
    index_bytes: int
    stored_bytes: int
    crc: int

    @property
    def size(self) -> int:
        """Length of the header itself."""
        return frame_header_bytes(self.version)

    @property
    def length(self) -> int:
        """Length of the whole frame."""
        return self.size + self.index_bytes + self.stored_bytes

    @classmethod
    def parse(cls, data: bytes, version: int = VERSION) -> FrameHeader:
        """Read the bytes on disk and check everything that can be checked without the rest of the frame.

        Args:
            data: begins with the header.
            version: that of the file header.

        Raises:
            MalformedSegmentError: it is no frame header, its version is not that of the file header, or a limit is broken.
        """
        if len(data) < frame_header_bytes(version):
            raise MalformedSegmentError("the frame header is cut")
        index = 0
        if version == UNSIGNED_VERSION:
            magic, found, codec, flags, number, raw, stored, crc = FRAME_HEADER_1.unpack_from(data)
        else:
            magic, found, codec, flags, number, raw, index, stored, crc = FRAME_HEADER.unpack_from(data)
        if magic != FRAME_MAGIC:
            raise MalformedSegmentError("no frame starts here")
        if found != version:
            raise MalformedSegmentError(f"the frame has version {found}, the file {version}")
        if codec != CODEC_ZSTD or flags & ~FLAG_CONTINUED:
            raise MalformedSegmentError(f"codec {codec} or flags {flags} are unknown")
        if raw > FRAME_RAW_BYTES_MAX or stored > FRAME_STORED_BYTES_MAX or index > FRAME_INDEX_BYTES_MAX:
            raise MalformedSegmentError(f"lengths {raw}, {index} and {stored} are over the limit of {FRAME_RAW_BYTES_MAX}")
        return cls(
            version=version,
            number=number,
            continued=bool(flags & FLAG_CONTINUED),
            raw_bytes=raw,
            index_bytes=index,
            stored_bytes=stored,
            crc=crc,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Preamble:
    """What a frame is, and how far it has come: in its index, in version 1 the first array of its content.

    Attributes:
        number: of the frame in its file.
        position: everything that the journal holds before it is in this frame and earlier ones.
        first_ns, last_ns: earliest and latest time of the frame's records; 0 when it has none.
    """

    number: int
    position: Position
    first_ns: int
    last_ns: int

    @classmethod
    def split(cls, raw: bytes) -> tuple[Preamble, bytes]:
        """Take the preamble from the content of a frame of version 1, and give the records that follow it.

        Raises:
            MalformedSegmentError: there is none.
        """
        unpacker = msgpack.Unpacker(strict_map_key=False)
        unpacker.feed(raw[:PREAMBLE_BYTES_MAX])
        try:
            fields = unpacker.unpack()
        except (ValueError, msgpack.UnpackException) as error:
            raise MalformedSegmentError("the frame does not start with its preamble") from error
        match fields:
            case [0, int(number), int(file), int(offset), int(first_ns), int(last_ns)] if file >= 0 and offset >= 0:
                preamble = cls(number=number, position=Position(file, offset), first_ns=first_ns, last_ns=last_ns)
                return preamble, raw[unpacker.tell() :]
        raise MalformedSegmentError("the frame does not start with its preamble")


def frame_header_bytes(version: int) -> int:
    """Give the length of a frame header."""
    return FRAME_HEADER_1.size if version == UNSIGNED_VERSION else FRAME_HEADER.size


def frame_head(*, number: int, continued: bool, raw_bytes: int, index_bytes: int, stored_bytes: int) -> bytes:
    """Give a frame's header without its checksum, which is what a cipher binds the frame to."""
    flags = FLAG_CONTINUED if continued else 0
    fields = (FRAME_MAGIC, VERSION, CODEC_ZSTD, flags, number, raw_bytes, index_bytes, stored_bytes, 0)
    return FRAME_HEADER.pack(*fields)[: -_CRC.size]


def finish_frame(head: bytes, index: bytes, stored: bytes) -> bytes:
    """Give a frame's header, whole, and its index; the stored bytes follow."""
    return head + _CRC.pack(zlib.crc32(stored, zlib.crc32(index, zlib.crc32(head)))) + index


def bound_part(header: FrameHeader, frame: bytes) -> bytes:
    """Give the part of a whole frame that its cipher binds: the header without its checksum, and the index."""
    return frame[: header.size - _CRC.size] + frame[header.size : header.size + header.index_bytes]


def check_frame(header: FrameHeader, frame: bytes) -> None:
    """Check a whole frame, header included, against its checksum.

    Raises:
        MalformedSegmentError: it is not what was written.
    """
    if len(frame) != header.length:
        raise MalformedSegmentError("the frame is cut")
    view = memoryview(frame)
    if zlib.crc32(view[header.size :], zlib.crc32(view[: header.size - _CRC.size])) != header.crc:
        raise MalformedSegmentError("the frame's checksum is wrong")


def decompress(header: FrameHeader, stored: bytes | memoryview, decompressor: zstandard.ZstdDecompressor) -> bytes:
    """Give the packed records of a frame, having allocated no more than its header announces.

    Raises:
        MalformedSegmentError: the zstd frame is damaged or of another length.
    """
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
