"""The record: one entry of a session, and its form on disk.

What lives here: the kinds of records, their fields and the msgpack form (docs/formats/segment.md). What must not: files.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Final, cast
from uuid import UUID

import msgpack

Value = None | bool | int | float | str | bytes | Sequence["Value"] | Mapping[str, "Value"]

RECORD_FIELDS: Final = 5


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


class MalformedRecordError(Exception):
    """The bytes are not a record of a version that this reader knows."""


@dataclass(frozen=True, slots=True)
class Record:
    """One entry of a session.

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
    """Give the msgpack form: an array of kind, session (16 bytes), time, direction or nil, body."""
    return cast(
        bytes,
        msgpack.packb((int(record.kind), record.session.bytes, record.time_ns, record.direction, record.body)),
    )


def from_fields(fields: Sequence[Value]) -> Record:
    """Build a record from its unpacked array.

    Raises:
        MalformedRecordError: the array is not a record.
    """
    if len(fields) != RECORD_FIELDS:
        raise MalformedRecordError(f"a record has {RECORD_FIELDS} fields, not {len(fields)}")
    kind, session, time_ns, direction, body = fields
    if not isinstance(session, bytes) or not isinstance(time_ns, int) or not isinstance(body, Mapping):
        raise MalformedRecordError("session, time or body has the wrong type")
    try:
        return Record(
            Kind(cast(int, kind)),
            UUID(bytes=session),
            time_ns,
            None if direction is None else Direction(cast(int, direction)),
            body,
        )
    except ValueError as error:
        raise MalformedRecordError(str(error)) from error
