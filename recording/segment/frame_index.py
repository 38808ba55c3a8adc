"""A frame's index: what can be known of a frame without its records, which may be encrypted.

What lives here: the tally of a frame's sessions, its msgpack form beside the preamble. What must not: files, records' meaning.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, cast
from uuid import UUID

import msgpack

from capd.recording.position import Position
from capd.recording.record import Kind, Record, Value
from capd.recording.segment.layout import MalformedSegmentError, Preamble

APPLICATION_LAYER: Final = "application"
_DATA: Final = Kind.DATA
_CLOSE: Final = Kind.CLOSE


@dataclass(slots=True, kw_only=True)
class Tally:
    """What a frame holds of one session (or run, for records about processes).

    Attributes:
        records: how many.
        bytes: payload of the application layer: request, response.
        completeness: as its CLOSE record in the frame says; None when it is not closed there.
    """

    records: int = 0
    bytes: list[int] = field(default_factory=lambda: [0, 0])
    completeness: Value = None

    def take(self, record: Record) -> None:
        """Count a record."""
        self.records += 1
        kind = record.kind
        if kind is _DATA:
            payload = record.body.get("payload")
            direction = record.direction
            application = record.body.get("layer", APPLICATION_LAYER) == APPLICATION_LAYER
            if application and direction is not None and isinstance(payload, bytes | bytearray | memoryview):
                self.bytes[direction] += len(payload)
        elif kind is _CLOSE:
            self.completeness = record.body.get("completeness")


@dataclass(frozen=True, slots=True, kw_only=True)
class FrameIndex:
    """What stands before a frame's records, readable without a key.

    Attributes:
        preamble: what the frame is, and how far it has come.
        sessions: what it holds, by id.
    """

    preamble: Preamble
    sessions: Mapping[UUID, Tally]

    def pack(self) -> bytes:
        """Give the bytes on disk."""
        preamble = self.preamble
        sessions = {
            session.bytes: (tally.records, *tally.bytes, tally.completeness) for session, tally in self.sessions.items()
        }
        fields = (preamble.number, *preamble.position.to_fields(), preamble.first_ns, preamble.last_ns, sessions)
        return cast(bytes, msgpack.packb(fields, unicode_errors="surrogateescape"))

    @classmethod
    def parse(cls, data: bytes | memoryview) -> FrameIndex:
        """Read the bytes on disk.

        Raises:
            MalformedSegmentError: they are no index.
        """
        try:
            number, file, offset, first_ns, last_ns, sessions = msgpack.unpackb(
                data, strict_map_key=False, unicode_errors="surrogateescape"
            )
            numbers = (number, file, offset, first_ns, last_ns)
            if not all(isinstance(value, int) for value in numbers) or min(file, offset) < 0:
                raise MalformedSegmentError("the frame's index holds other types")
            return cls(
                preamble=Preamble(number=number, position=Position(file, offset), first_ns=first_ns, last_ns=last_ns),
                sessions={UUID(bytes=identity): _tally(fields) for identity, fields in sessions.items()},
            )
        except (ValueError, TypeError, AttributeError, msgpack.UnpackException) as error:
            raise MalformedSegmentError(f"the frame's index lacks what it must have: {error!r}") from error


def _tally(fields: list[object]) -> Tally:
    records, request, response, completeness = fields
    if not isinstance(records, int) or not isinstance(request, int) or not isinstance(response, int):
        raise TypeError("a session's tally holds other types")
    return Tally(records=records, bytes=[request, response], completeness=cast(Value, completeness))
