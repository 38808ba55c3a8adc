"""A record that waits in masking until it can be judged.

What lives here: what is known of it meanwhile. What must not: judging.
"""

from __future__ import annotations

from dataclasses import dataclass

from capd.recording.record import Kind, Record


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


def begin_of(record: Record) -> int:
    """Give where the bytes of a record begin."""
    begin = record.body.get("position" if record.kind is Kind.DATA else "start")
    return begin if isinstance(begin, int) and record.kind in (Kind.DATA, Kind.MESSAGE) else 1 << 62
