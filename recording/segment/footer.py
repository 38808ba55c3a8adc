"""The footer: what a sealed segment says about itself, and how it is gathered while records are written.

What lives here: the footer's content, its msgpack form, the sums over a segment. What must not: files, frames' bytes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Final, cast
from uuid import UUID

import msgpack

from capd.recording.position import Position
from capd.recording.record import Direction, Value
from capd.recording.segment.frame_index import Tally
from capd.recording.segment.layout import UNSIGNED_VERSION, VERSION, FileHeader, MalformedSegmentError, NewerSegmentError
from capd.recording.segment.trailer import Signer, pack_trailer

DIGEST_BYTES: Final = 32


@dataclass(frozen=True, slots=True, kw_only=True)
class FrameEntry:
    """One frame in the footer.

    Attributes:
        offset: of its header in the file.
        length: of all its bytes.
        raw: length of its records (in version 1 with the preamble) before compression.
        sha256: of all its bytes.
        first_ns, last_ns: earliest and latest time of its records; 0 when it has none.
    """

    offset: int
    length: int
    raw: int
    sha256: bytes
    first_ns: int
    last_ns: int

    def to_fields(self) -> dict[str, Value]:
        """Give the footer's map."""
        return {
            "offset": self.offset,
            "length": self.length,
            "raw": self.raw,
            "sha256": self.sha256,
            "first": self.first_ns,
            "last": self.last_ns,
        }


@dataclass(slots=True, kw_only=True)
class SessionEntry:
    """One session (or run, for records about processes) in the footer.

    Attributes:
        frames: numbers of the frames that hold records of it, ascending.
        records: how many records of it the segment holds.
        bytes: payload of the application layer in this segment: request, response.
        completeness: as its CLOSE record in this segment says; None when it is not closed here.
    """

    frames: list[int] = field(default_factory=list)
    records: int = 0
    bytes: list[int] = field(default_factory=lambda: [0, 0])
    completeness: Value = None

    def add(self, tally: Tally, frame: int) -> None:
        """Count what a frame holds."""
        self.records += tally.records
        self.frames.append(frame)
        for direction in Direction:
            self.bytes[direction] += tally.bytes[direction]
        if tally.completeness is not None:
            self.completeness = tally.completeness

    def to_fields(self) -> dict[str, Value]:
        """Give the footer's map."""
        return {
            "frames": self.frames,
            "records": self.records,
            "bytes": self.bytes,
            "completeness": self.completeness,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Footer:
    """What a sealed segment says about itself.

    Attributes:
        header: the file header's facts, repeated.
        sealed_ns: wall time of the sealing, ns since 1970 UTC.
        frames: in order.
        sessions: by id.
        position: everything that the journal holds before it is in this and earlier segments.
        losses: counters of what was lost on the host, totals since capd's start, by cause.
        recovered: whether it was sealed after a crash of its writer.
        previous: SHA-256 of the footer of the segment before; None of the first, and in version 1.
        header_digest: SHA-256 of file header and key block; None in version 1.
    """

    header: FileHeader
    sealed_ns: int
    frames: Sequence[FrameEntry]
    sessions: Mapping[UUID, SessionEntry]
    position: Position
    losses: Mapping[str, int]
    recovered: bool
    previous: bytes | None = None
    header_digest: bytes | None = None

    @property
    def first_ns(self) -> int | None:
        """Time of the earliest record; None when there is none."""
        return min((frame.first_ns for frame in self.frames if frame.first_ns), default=None)

    @property
    def last_ns(self) -> int | None:
        """Time of the latest record; None when there is none."""
        return max((frame.last_ns for frame in self.frames if frame.last_ns), default=None)

    @property
    def records(self) -> int:
        """Number of records in the segment."""
        return sum(entry.records for entry in self.sessions.values())

    @property
    def raw_bytes(self) -> int:
        """Length of all preambles and records before compression."""
        return sum(frame.raw for frame in self.frames)

    def pack(self, signer: Signer | None = None) -> tuple[bytes, bytes]:
        """Give footer and trailer as they end a sealed segment, and the footer's SHA-256, which the next segment names.

        Args:
            signer: the host's key; None leaves the segment unsigned, which every verification tells.
        """
        header = self.header
        fields = {
            "version": header.version,
            "host": self.header.host.bytes,
            "sequence": self.header.sequence,
            "created": self.header.created_ns,
            "sealed": self.sealed_ns,
            "first": self.first_ns,
            "last": self.last_ns,
            "records": self.records,
            "frames": [frame.to_fields() for frame in self.frames],
            "sessions": {session.bytes: entry.to_fields() for session, entry in self.sessions.items()},
            "position": self.position.to_fields(),
            "losses": dict(self.losses),
            "recovered": self.recovered,
            "previous": self.previous,
        }
        if header.version != UNSIGNED_VERSION:  # one that an older capd left open is closed as that would have done it
            fields["header"] = self.header_digest or header.digest
        packed = cast(bytes, msgpack.packb(fields, unicode_errors="surrogateescape"))
        digest = sha256(packed).digest()
        return packed + pack_trailer(header, len(packed), digest, signer), digest


def parse_footer(data: bytes, digest: bytes) -> Footer:
    """Read a footer and check it against the trailer's hash.

    Raises:
        NewerSegmentError: a later version wrote it.
        MalformedSegmentError: it is not what was written.
    """
    if sha256(data).digest() != digest:
        raise MalformedSegmentError("the footer's hash is wrong")
    try:
        fields = msgpack.unpackb(data, strict_map_key=False, unicode_errors="surrogateescape")
        if fields["version"] > VERSION:
            raise NewerSegmentError(fields["version"])
        return Footer(
            header=FileHeader(
                host=UUID(bytes=fields["host"]),
                sequence=int(fields["sequence"]),
                created_ns=int(fields["created"]),
                version=int(fields["version"]),
            ),
            sealed_ns=int(fields["sealed"]),
            frames=[_frame_entry(frame) for frame in fields["frames"]],
            sessions={UUID(bytes=identity): _session_entry(entry) for identity, entry in fields["sessions"].items()},
            position=Position.from_fields(fields["position"]),
            losses={str(name): int(count) for name, count in fields["losses"].items()},
            recovered=bool(fields["recovered"]),
            previous=_digest(fields["previous"]),
            header_digest=_digest(fields.get("header")),
        )
    except (ValueError, KeyError, TypeError, AttributeError, IndexError, msgpack.UnpackException) as error:
        raise MalformedSegmentError(f"the footer lacks what it must have: {error!r}") from error


def _digest(value: object) -> bytes | None:
    if value is None or (isinstance(value, bytes) and len(value) == DIGEST_BYTES):
        return value
    raise TypeError("a hash has another form")


def _frame_entry(fields: Mapping[str, object]) -> FrameEntry:
    digest = fields["sha256"]
    numbers = [fields[name] for name in ("offset", "length", "raw", "first", "last")]
    if not isinstance(digest, bytes) or not all(isinstance(number, int) for number in numbers):
        raise TypeError("a frame's entry holds other types")
    offset, length, raw, first_ns, last_ns = cast(list[int], numbers)
    return FrameEntry(offset=offset, length=length, raw=raw, sha256=digest, first_ns=first_ns, last_ns=last_ns)


def _session_entry(fields: Mapping[str, object]) -> SessionEntry:
    frames, records, moved = fields["frames"], fields["records"], fields["bytes"]
    if not isinstance(frames, list) or not isinstance(records, int) or not isinstance(moved, list):
        raise TypeError("a session's entry holds other types")
    return SessionEntry(
        frames=[int(number) for number in frames],
        records=records,
        bytes=[int(moved[Direction.REQUEST]), int(moved[Direction.RESPONSE])],
        completeness=cast(Value, fields["completeness"]),
    )
