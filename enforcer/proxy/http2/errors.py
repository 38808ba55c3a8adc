"""What ends an HTTP/2 connection from our side.

What lives here: the error and its codes. What must not: when it is raised.
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


class Http2Error(Exception):
    """A peer broke the protocol, or a limit, so that nothing more can be said to it.

    Attributes:
        code: that it is told.
        reason: for a person.
    """

    def __init__(self, code: Code, reason: str) -> None:
        super().__init__(reason)
        self.code = code
        self.reason = reason
