"""What a session's records hold of what was said: read again for a decoder that is built anew.

What lives here: the names of the layers, reading DATA and GAP records. What must not: writing them.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from capd.daemon.assembly.state import SessionState
from capd.decoders.message import Gap
from capd.recording.record import Kind, Record

APPLICATION: Final = "application"
WIRE: Final = "wire"


def recorded(records: Iterator[Record], state: SessionState) -> Iterator[tuple[int, int, bytes | Gap]]:
    """Give direction, position and content of the application data in a session's records that its decoder is for.

    The records may go on behind the state. Of a gap whose length nobody knows the position does not tell on which side it is,
    nor whether it was before the decoder began; but how many gaps there were does.
    """
    gaps = 0
    for record in records:
        body = record.body
        if record.kind is Kind.GAP:
            gaps += 1
            if gaps > state.gaps:
                return
            if gaps <= state.base_gaps:
                continue
        if (
            record.kind not in (Kind.DATA, Kind.GAP)
            or body.get("layer", APPLICATION) != APPLICATION
            or record.direction is None
        ):
            continue
        position = body.get("position")
        if not isinstance(position, int) or position < state.base[record.direction]:
            continue
        if record.kind is Kind.GAP:
            length = body.get("length")
            yield record.direction, position, Gap(length if isinstance(length, int) else None, str(body.get("reason")))
        elif isinstance(payload := body.get("payload"), bytes) and payload:
            yield record.direction, position, payload
