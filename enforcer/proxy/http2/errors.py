"""Why a stream, or a connection, of HTTP/2 ends.

What lives here: the codes. What must not: when they are said.
"""

from __future__ import annotations

from enum import IntEnum


class Code(IntEnum):
    """Why a stream or a connection ends (RFC 9113 7)."""

    NO_ERROR = 0
    PROTOCOL_ERROR = 1
    INTERNAL_ERROR = 2
    FRAME_SIZE_ERROR = 6
    REFUSED_STREAM = 7
    CANCEL = 8
    ENHANCE_YOUR_CALM = 11
