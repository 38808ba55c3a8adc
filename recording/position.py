"""Positions in a journal: segments say up to which they were made of it.

What lives here: the position and its forms. What must not: blocks and files of a journal, which readers of segments do without.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass

import msgpack


@dataclass(frozen=True, slots=True, order=True)
class Position:
    """A place between blocks of a journal. Positions are ordered as the blocks are.

    Attributes:
        file: number of the journal file.
        offset: byte in that file where the next block starts.
    """

    file: int
    offset: int

    def to_fields(self) -> tuple[int, int]:
        """Give the form for msgpack and JSON: an array of file and offset."""
        return (self.file, self.offset)

    @classmethod
    def from_fields(cls, fields: object) -> Position:
        """Build a position from its array.

        Raises:
            ValueError: it is not an array of two whole numbers.
        """
        match fields:
            case [int(file), int(offset)] if file >= 0 and offset >= 0:
                return cls(file, offset)
        raise ValueError(f"{fields!r} is not a journal position")

    def to_bytes(self) -> bytes:
        """Give the content of a file that holds it: its two numbers and a checksum, for a wrong one would let journal go."""
        fields = self.to_fields()
        return bytes(msgpack.packb([*fields, zlib.crc32(msgpack.packb(fields))]))

    @classmethod
    def from_bytes(cls, data: bytes) -> Position:
        """Read such a file; one of an earlier capd has no checksum.

        Raises:
            ValueError: it holds something else.
        """
        try:
            fields = msgpack.unpackb(data)
        except msgpack.UnpackException as error:
            raise ValueError("it is no position") from error
        match fields:
            case [file, offset, check] if check == zlib.crc32(msgpack.packb([file, offset])):
                return cls.from_fields([file, offset])
        return cls.from_fields(fields)
