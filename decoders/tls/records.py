"""The headers of TLS records (RFC 8446 5.1; the same in every version since SSL 3.0).

What lives here: where records begin and end. What must not: what is inside them.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import Final

from capd.decoders.message import Direction, ProtocolError

HEADER_BYTES: Final = 5
RECORD_BYTES_MAX: Final = (1 << 14) + 2_048
"""Longest content of a record: TLS 1.2 allows 2,048 bytes of expansion beyond 2^14."""
_MAJOR: Final = 3
_MINOR_MAX: Final = 4
_CLIENT_HELLO: Final = 1
_CLIENT_HELLO_AT: Final = 5


class ContentType(IntEnum):
    """What a record carries."""

    CHANGE_CIPHER_SPEC = 20
    ALERT = 21
    HANDSHAKE = 22
    APPLICATION_DATA = 23
    HEARTBEAT = 24


_TYPES: Final = frozenset(ContentType)


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """One record's place: `start` and `end` are offsets in the direction, header included; version as (major, minor)."""

    start: int
    end: int
    content_type: ContentType
    version: tuple[int, int]


def is_client_hello(prefix: bytes) -> bool | None:
    """Whether bytes begin a TLS connection: a handshake record whose first message is a ClientHello.

    Args:
        prefix: the first bytes of a direction or of a call; six are enough.

    Returns:
        None when there are too few bytes to tell and those there are fit.
    """
    expected = (ContentType.HANDSHAKE, _MAJOR)
    if any(byte != want for byte, want in zip(prefix, expected, strict=False)):
        return False
    if len(prefix) > len(expected) and prefix[2] > _MINOR_MAX:
        return False
    if len(prefix) <= _CLIENT_HELLO_AT:
        return None
    return prefix[_CLIENT_HELLO_AT] == _CLIENT_HELLO and 0 < int.from_bytes(prefix[3:5], "big") <= RECORD_BYTES_MAX


class RecordWalk:
    """Walks from header to header of one direction and holds never more than a header."""

    def __init__(self, direction: Direction, position: int = 0) -> None:
        self._direction = direction
        self._position = position
        self._header = bytearray()
        self._start = position
        self._inside = 0

    @property
    def position(self) -> int:
        """Offset after the last byte seen."""
        return self._position

    @property
    def at_boundary(self) -> bool:
        """Whether the next byte begins a record."""
        return not self._inside and not self._header

    def feed(self, data: bytes) -> list[Record]:
        """Take the next bytes and give the records whose header became whole in them.

        A record is given as soon as its header is known; its content may still be on its way.

        Raises:
            ProtocolError: this is no TLS record.
        """
        records: list[Record] = []
        at = 0
        while at < len(data):
            if self._inside:
                step = min(self._inside, len(data) - at)
                self._inside -= step
                self._position += step
                at += step
                continue
            if not self._header:
                self._start = self._position
            taken = data[at : at + HEADER_BYTES - len(self._header)]
            self._header += taken
            self._position += len(taken)
            at += len(taken)
            if len(self._header) == HEADER_BYTES:
                records.append(self._record())
        return records

    def _record(self) -> Record:
        content_type, major, minor = self._header[0], self._header[1], self._header[2]
        length = int.from_bytes(self._header[3:], "big")
        if content_type not in _TYPES or major != _MAJOR or minor > _MINOR_MAX:
            raise ProtocolError(self._direction, self._start, "not a TLS record")
        if length > RECORD_BYTES_MAX:
            raise ProtocolError(self._direction, self._start, f"TLS record with a length of {length}")
        self._header.clear()
        self._inside = length
        end = self._start + HEADER_BYTES + length
        return Record(start=self._start, end=end, content_type=ContentType(content_type), version=(major, minor))
