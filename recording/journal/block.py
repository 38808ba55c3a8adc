"""A journal block, byte for byte.

What lives here: layouts, their checks, what a reader gives. What must not: files.
"""

from __future__ import annotations

import re
import struct
import zlib
from dataclasses import dataclass, replace
from enum import IntEnum
from pathlib import Path
from typing import Final

import zstandard

from capd.recording.journal.cipher import OVERHEAD_BYTES, AlteredError, JournalKeys, UnknownKeyError
from capd.recording.position import Position

MAGIC: Final = b"CAPJ"
VERSION: Final = 2
PLAIN_VERSION: Final = 1
"""Blocks that are not encrypted are of version 1 still."""
HEADER: Final = struct.Struct("<4sHBBQQQQQIIII")
"""magic, version, source, codec, sequence, raw length, stored length, boottime, realtime, count, CRC of stored bytes,
key id, CRC of the 60 bytes before it. Of an encrypted block, whose cipher has a checksum of its own, the first CRC is 0."""
HEADER_BYTES: Final = 64
RAW_BYTES_MAX: Final = 256 << 20
"""Largest payload of a block. A block holds at most one ring, and no ring is larger; it bounds a reader's memory."""
STORED_BYTES_MAX: Final = RAW_BYTES_MAX + OVERHEAD_BYTES
"""A payload that would grow by compression is stored as it is, so only encryption makes it longer."""
FILE_PATTERN: Final = re.compile(r"(\d{16})\.journal")

assert HEADER.size == HEADER_BYTES
_HEADER_CRC: Final = struct.Struct("<I")


class Source(IntEnum):
    """Where a payload comes from. Numbers are frozen: they are on disk."""

    CONTROL = 1
    """A span of the control ring."""
    DATA = 2
    """A span of the data ring."""
    NOTE = 3
    """A msgpack map that the daemon wrote itself."""


class Codec(IntEnum):
    """How a payload is stored. Numbers are frozen: they are on disk."""

    NONE = 0
    ZSTD = 1


class MalformedBlockError(Exception):
    """The bytes are not a whole block."""


class NewerBlockError(MalformedBlockError):
    """The block's header is whole, and of a version that this reader does not know."""

    def __init__(self, version: int) -> None:
        super().__init__(f"block of format version {version}; this capd reads versions up to {VERSION}")
        self.version = version


@dataclass(frozen=True, slots=True, kw_only=True)
class BlockHeader:
    """The fixed part of a block.

    Attributes:
        source: where the payload comes from.
        codec: how it is stored.
        sequence: number of the block since its writer started, from 0.
        raw_bytes: length of the payload.
        stored_bytes: length of what follows the header.
        boottime_ns: CLOCK_BOOTTIME when the payload was drained.
        realtime_ns: wall time at the same moment, ns since 1970 UTC.
        count: records in the payload.
        stored_crc: CRC-32 of what follows the header; 0 when it is encrypted.
        key: id of the key that it is encrypted with; 0 when it is not.
    """

    source: Source
    codec: Codec
    sequence: int
    raw_bytes: int
    stored_bytes: int
    boottime_ns: int
    realtime_ns: int
    count: int
    stored_crc: int
    key: int = 0

    @property
    def bound(self) -> bytes:
        """What an encrypted payload is bound to: all of the header but its checksum."""
        return self.pack()[: -_HEADER_CRC.size]

    def pack(self) -> bytes:
        """Give the 64 bytes on disk."""
        body = HEADER.pack(
            MAGIC,
            VERSION if self.key else PLAIN_VERSION,
            self.source,
            self.codec,
            self.sequence,
            self.raw_bytes,
            self.stored_bytes,
            self.boottime_ns,
            self.realtime_ns,
            self.count,
            self.stored_crc,
            self.key,
            0,
        )[: -_HEADER_CRC.size]
        return body + _HEADER_CRC.pack(zlib.crc32(body))

    @classmethod
    def parse(cls, data: bytes) -> BlockHeader:
        """Read the 64 bytes on disk and check everything that can be checked without the payload.

        Raises:
            NewerBlockError: a later version wrote it.
            MalformedBlockError: it is no header, or a limit is broken.
        """
        if len(data) != HEADER_BYTES:
            raise MalformedBlockError(f"a header has {HEADER_BYTES} bytes, not {len(data)}")
        magic, version, source, codec, sequence, raw, stored, boottime, realtime, count, crc, key, own_crc = HEADER.unpack(data)
        if magic != MAGIC:
            raise MalformedBlockError("no block starts here")
        if zlib.crc32(data[: -_HEADER_CRC.size]) != own_crc:
            raise MalformedBlockError("the header's checksum is wrong")
        if version > VERSION:
            raise NewerBlockError(version)
        if raw > RAW_BYTES_MAX or stored > (STORED_BYTES_MAX if version > PLAIN_VERSION else RAW_BYTES_MAX):
            raise MalformedBlockError(f"a payload of {max(raw, stored)} bytes is over the limit of {RAW_BYTES_MAX}")
        try:
            return cls(
                source=Source(source),
                codec=Codec(codec),
                sequence=sequence,
                raw_bytes=raw,
                stored_bytes=stored,
                boottime_ns=boottime,
                realtime_ns=realtime,
                count=count,
                stored_crc=crc,
                key=0 if version == PLAIN_VERSION else key,
            )
        except ValueError as error:
            raise MalformedBlockError(str(error)) from error


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """A block as a reader gives it: the header's facts, the payload as it was drained, and where the block lies.

    Attributes:
        position: of the block itself.
        next: of what follows it.
    """

    source: Source
    sequence: int
    boottime_ns: int
    realtime_ns: int
    count: int
    payload: memoryview
    position: Position
    next: Position

    def wall_time_ns(self, boottime_ns: int) -> int:
        """Give the wall time of an event of this block from its CLOCK_BOOTTIME, in ns since 1970 UTC."""
        return self.realtime_ns - (self.boottime_ns - boottime_ns)

    def without_payload(self) -> Block:
        """Give it for who remembers where it was: its payload may be a ring's worth."""
        return replace(self, payload=memoryview(b""))


@dataclass(frozen=True, slots=True, kw_only=True)
class JournalDamage:
    """A part of the journal that cannot be read: what was captured there is lost.

    Attributes:
        position: where it starts.
        next: where reading goes on.
        bytes: how much of the file is passed over; None when whole files are missing.
        reason: what was found, in words for a person.
    """

    position: Position
    next: Position
    bytes: int | None
    reason: str


def payload_of(
    header: BlockHeader, stored: bytes, decompressor: zstandard.ZstdDecompressor, keys: JournalKeys | None = None
) -> memoryview:
    """Give the payload from the bytes that follow the header, having allocated no more than the header announces.

    Raises:
        MalformedBlockError: they are not what the writer wrote, or its key is not here.
        StateDirectoryError: the keys cannot be read.
    """
    if header.key:
        try:
            if keys is None:
                raise UnknownKeyError(header.key)
            stored = keys.key(header.key).decrypt(stored, header.bound)
        except (UnknownKeyError, AlteredError) as error:
            raise MalformedBlockError(str(error)) from error
    elif len(stored) != header.stored_bytes or zlib.crc32(stored) != header.stored_crc:
        raise MalformedBlockError("the payload's checksum is wrong")
    if header.codec is Codec.NONE:
        if len(stored) != header.raw_bytes:
            raise MalformedBlockError("stored and raw length differ without compression")
        return memoryview(stored)
    try:
        if zstandard.frame_content_size(stored) != header.raw_bytes:
            raise MalformedBlockError("the compressed payload announces another length than the header")
        return memoryview(decompressor.decompress(stored))
    except zstandard.ZstdError as error:
        raise MalformedBlockError(f"the payload does not decompress: {error}") from error


def file_path(directory: Path, number: int) -> Path:
    """Give the path of a journal file."""
    return directory / f"{number:016d}.journal"


def file_number(name: str) -> int | None:
    """Give the number of a journal file from its name; None for another file."""
    match = FILE_PATTERN.fullmatch(name)
    return int(match[1]) if match else None
