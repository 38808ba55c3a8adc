"""The record: one entry of a session, and its form on disk.

What lives here: the kinds of records, their fields and the msgpack form (docs/formats/segment.md). What must not: files.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from functools import lru_cache
from typing import Final, cast
from uuid import UUID

import msgpack

Value = None | bool | int | float | str | bytes | Sequence["Value"] | Mapping[str, "Value"]

RECORD_FIELDS: Final = 5
NESTING_MAX: Final = 64
"""Where a body nested too deeply for msgpack (511 levels or more) is cut. Far above what our own bodies need."""
_INTEGERS: Final = range(-(1 << 63), 1 << 64)
_PACKER: Final = msgpack.Packer()
"""For nearly every record: making one costs as much as packing, and one that minds surrogates minds them in every text."""


class Kind(IntEnum):
    """What a record says. Numbers are frozen: they are on disk."""

    OPEN = 1
    DATA = 2
    MESSAGE = 3
    GAP = 4
    MARKER = 5
    CLOSE = 6
    VERDICT = 7
    APPROVAL = 8
    MASKED = 9


class Direction(IntEnum):
    """A stream: `request` is agent to peer, `response` is peer to agent, whoever opened the connection."""

    REQUEST = 0
    RESPONSE = 1


SIDES: Final = tuple(Direction)
"""A direction by its number, for where making one of a number would be dear."""


class MalformedRecordError(Exception):
    """The bytes are not a record of a version that this reader knows."""


@dataclass(slots=True)
class Record:
    """One entry of a session. Nobody changes it; a frozen class takes three times as long to build.

    Attributes:
        kind: what it says.
        session: UUIDv7 of the session, or of the run for records about processes.
        time_ns: wall time in nanoseconds since 1970, UTC.
        direction: the stream it belongs to; None when it concerns both or none.
        body: the kind's own fields, as documented in docs/formats/segment.md.
    """

    kind: Kind
    session: UUID
    time_ns: int
    direction: Direction | None = None
    body: Mapping[str, Value] = field(default_factory=dict)


def pack(record: Record) -> bytes:
    """Give the msgpack form: an array of kind, session (16 bytes), time, direction or nil, body.

    Never fails for what a decoder may have found in an agent's bytes: text that is not Unicode keeps its bytes where it holds
    them as surrogate escapes and is written with backslash escapes else; integers beyond 64 bits become text, and so do
    values below NESTING_MAX levels of a body that is too deep for msgpack.

    Raises:
        TypeError: the body holds a type that is not a `Value`.
    """
    fields = (record.kind, record.session.bytes, record.time_ns, record.direction, record.body)
    try:
        return cast(bytes, _PACKER.pack(fields))
    except (ValueError, OverflowError, TypeError):  # UnicodeEncodeError is a ValueError
        return _pack_escaped(record)


def _pack_escaped(record: Record) -> bytes:
    """Give the form of a record that holds what msgpack does not take as it is."""
    head = (record.kind, record.session.bytes, record.time_ns, record.direction)
    try:
        return cast(bytes, msgpack.packb((*head, record.body), unicode_errors="surrogateescape"))
    except (ValueError, OverflowError, TypeError):
        return cast(bytes, msgpack.packb((*head, _writable(record.body, 0)), unicode_errors="surrogateescape"))


def _writable(value: Value | bytearray | memoryview, depth: int) -> Value:
    """Give the nearest value that msgpack can hold."""
    if isinstance(value, str):
        return value if _encodable(value) else value.encode("utf-8", "backslashreplace").decode("utf-8")
    if isinstance(value, int):
        return value if value in _INTEGERS else str(value)
    if isinstance(value, bytearray | memoryview):
        return bytes(value)
    if value is None or isinstance(value, float | bytes):
        return value
    if depth == NESTING_MAX:
        return "nested too deeply"
    if isinstance(value, Mapping):
        return {str(_writable(key, depth)): _writable(item, depth + 1) for key, item in value.items()}
    if isinstance(value, Sequence):
        return [_writable(item, depth + 1) for item in value]
    raise TypeError(f"a record cannot hold a {type(value).__name__}")


def _encodable(text: str) -> bool:
    try:
        text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        return False
    return True


def from_fields(fields: object) -> Record:
    """Build a record from its unpacked array.

    Raises:
        MalformedRecordError: the array is not a record.
    """
    if not isinstance(fields, list | tuple) or len(fields) != RECORD_FIELDS:
        raise MalformedRecordError(f"a record is an array of {RECORD_FIELDS} fields")
    kind, session, time_ns, direction, body = fields
    if not isinstance(session, bytes) or not isinstance(time_ns, int) or not isinstance(body, dict):
        raise MalformedRecordError("session, time or body has the wrong type")
    try:
        return Record(_KINDS[kind], _identity(session), time_ns, _DIRECTIONS[direction], body)
    except (KeyError, TypeError, ValueError) as error:
        raise MalformedRecordError(f"kind {kind!r}, session {session.hex()} or direction {direction!r} is unknown") from error


_KINDS: Final = {int(kind): kind for kind in Kind}
_DIRECTIONS: Final[Mapping[object, Direction | None]] = {None: None, 0: Direction.REQUEST, 1: Direction.RESPONSE}


@lru_cache(maxsize=4096)
def _identity(identity: bytes) -> UUID:
    return UUID(bytes=identity)


def unpack_arrays(raw: bytes | memoryview) -> Iterator[list[object]]:
    """Give the arrays that follow each other in the raw bytes of a frame: its records.

    Raises:
        MalformedRecordError: the bytes are not whole msgpack arrays.
    """
    unpacker = msgpack.Unpacker(
        max_buffer_size=len(raw), use_list=True, raw=False, strict_map_key=False, unicode_errors="surrogateescape"
    )
    unpacker.feed(raw)
    end = 0
    try:
        for fields in unpacker:
            if not isinstance(fields, list):
                raise MalformedRecordError(f"an array was expected, not a {type(fields).__name__}")
            end = unpacker.tell()
            yield fields
    except (ValueError, msgpack.UnpackException) as error:  # StackError and FormatError are ValueErrors
        raise MalformedRecordError(f"not msgpack: {str(error) or type(error).__name__}") from error
    if end != len(raw):
        raise MalformedRecordError(f"{len(raw) - end} bytes of a cut record at the end")
