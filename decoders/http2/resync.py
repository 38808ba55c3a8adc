"""Where a frame could start in bytes after a gap.

What lives here: the search for two frames that follow each other. What must not: the decision how long to believe in them.

A frame's head has few bits that may be anything: in bytes that are none, one that looks like two in a row is met about once in
2^60. Each search goes on where the last one stopped, so the whole costs time linear in the bytes.
"""

from __future__ import annotations

import re
from typing import Final

from capd.decoders.http2.frames import END_HEADERS, FLAGS, HEADER_BYTES, Frame, Type, fault, frame_at

FRAME_BYTES_MAX: Final = 16_384
"""Longer frames are allowed only to who asked for them (RFC 9113 section 4.2), and are passed over here."""
STREAMS_AHEAD: Final = 65_536
"""How far beyond the highest known stream a frame's may be: streams that were opened in the gap."""
_CANDIDATE: Final = re.compile(rb"\x00[\x00-\x40].[\x00-\x08][\x00-\x2d]\x00", re.DOTALL)
_CANDIDATE_BYTES: Final = 6


def search(data: bytes | bytearray, begin: int, highest: int) -> tuple[int | None, int]:
    """Look for a frame that starts at `begin` or later.

    Args:
        data: the bytes.
        begin: index from which to look.
        highest: number of the highest stream that is known.

    Returns:
        Where it starts, or None; and from where on the bytes may still belong to one.
    """
    while True:
        found = _CANDIDATE.search(data, begin)
        if found is None:
            return None, max(begin, len(data) - _CANDIDATE_BYTES + 1)
        at = found.start()
        if len(data) - at < HEADER_BYTES:
            return None, at
        frame = frame_at(data, at)
        if _plausible(frame, highest, None):
            behind = at + HEADER_BYTES + frame.length
            if len(data) - behind < HEADER_BYTES:
                return None, at
            if _plausible(frame_at(data, behind), highest, frame):
                return at, at
        begin = at + 1


def follow_each_other(data: bytes) -> bool | None:
    """Say whether bytes begin with two frames in a row; None: too few are there."""
    if len(data) < _CANDIDATE_BYTES:
        return None if _CANDIDATE.match(data + bytes(_CANDIDATE_BYTES - len(data))) else False
    found, keep = search(data, 0, 0) if _CANDIDATE.match(data) else (None, 1)
    return True if found == 0 else None if keep == 0 else False


def _plausible(frame: Frame, highest: int, before: Frame | None) -> bool:
    kind = frame.kind
    if kind is None or fault(frame) is not None or frame.length > FRAME_BYTES_MAX or frame.flags & ~FLAGS.get(kind, 0):
        return False
    goes_on = before is not None and before.type in (Type.HEADERS, Type.PUSH_PROMISE) and not before.flags & END_HEADERS
    return frame.stream <= highest + STREAMS_AHEAD and goes_on == (kind is Type.CONTINUATION)
