"""GAP records for what was recorded and is not there any more: no segment holds them, readers of a session put them in.

What lives here: their form. What must not: finding what is gone.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final
from uuid import UUID

from capd.recording.record import Kind, Record, Value

MISSING_SEGMENT: Final = "missing_segment"
"""Field of the body: number of a segment that is not there, and that no policy let go."""


EXPIRED: Final = "expired"
"""Field of the body, true: a policy let it go."""


def expired(session: UUID, time_ns: int, reason: str) -> Record:
    """Give a gap for what a policy let go.

    Args:
        session: id of the session or run.
        time_ns: of the record before it.
        reason: why, in words for a person.
    """
    return _hole(session, time_ns, {"reason": reason, EXPIRED: True})


def gone(session: UUID, time_ns: int, sequence: int, *, by_policy: bool) -> Record:
    """Give a gap for a segment that is not there.

    Args:
        session: id of the session or run.
        time_ns: of the record before it.
        sequence: number of the segment.
        by_policy: whether a policy let it go.
    """
    if by_policy:
        return expired(session, time_ns, f"segment {sequence} is expired")
    return _hole(session, time_ns, {"reason": f"segment {sequence} is missing", MISSING_SEGMENT: sequence})


def _hole(session: UUID, time_ns: int, about: Mapping[str, Value]) -> Record:
    """Give a gap of unknown length in both directions."""
    return Record(Kind.GAP, session, time_ns, None, {"position": 0, "length": None, **about})
