"""A record that waits in masking until it can be judged.

What lives here: what is known of it meanwhile. What must not: judging.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

from capd.recording.record import Kind, Record, from_fields, pack, unpack_arrays

_Saved = tuple[bytes, bool, list[tuple[int, int]] | None, bytes | None, bool]


@dataclass(slots=True)
class Waiting:
    """A record that waits.

    Attributes:
        record: as it came.
        quiet: for messages: nothing in their bytes can be masked.
        pieces: of a body: where its content is in the stream.
        begun: of messages: some of their bytes were judged before anybody knew whose they are, and may be let go.
        said: of a message of WebSocket: what it says, masked; None: it is as it was.
    """

    record: Record
    quiet: bool = False
    pieces: list[tuple[int, int]] | None = None
    said: bytes | None = None
    begun: bool = False

    def save(self) -> list[object]:
        """Give it as plain values."""
        return [pack(self.record), self.quiet, self.pieces, self.said, self.begun]

    @classmethod
    def restored(cls, saved: Sequence[object]) -> Waiting:
        """Give one that was saved."""
        packed, quiet, pieces, said, *begun = cast("_Saved", tuple(saved))
        places = None if pieces is None else [(at, size) for at, size in pieces]
        return cls(from_fields(next(unpack_arrays(packed))), quiet, places, said, any(begun))


def begin_of(record: Record) -> int:
    """Give where the bytes of a record begin."""
    begin = record.body.get("position" if record.kind is Kind.DATA else "start")
    return begin if isinstance(begin, int) and record.kind in (Kind.DATA, Kind.MESSAGE) else 1 << 62
