"""RESP on the wire: limits, numbers, and what is wrong with bytes.

What lives here: what both directions need ("Redis serialization protocol specification", RESP2 and RESP3). What must not:
state.

Redis itself takes any two bytes for the CRLF that ends a line or a string. Here only CRLF is, so that nobody can say one
thing to this decoder and another to some server that speaks the same protocol.
"""

from __future__ import annotations

import re
from typing import Final

CRLF: Final = b"\r\n"
STRING_BYTES_LIMIT: Final = 512 << 20
"""The server's own default limit (proto-max-bulk-len); operators can raise it, and beyond this nothing is decoded."""
COUNT_LIMIT: Final = (1 << 31) - 1
"""The server's own limit for the elements of a command; an answer has no more."""
HEAD_BYTES_MAX: Final = 64
"""Of a line that announces a length, or is a number of at most 64 bits: longer ones are not RESP."""
LINE_BYTES_MAX: Final = 1 << 20
"""Of a simple string, an error or a big number. Redis bounds none of them; scripts can make long errors."""
INLINE_BYTES_MAX: Final = 64 << 10
"""The server's own limit (PROTO_INLINE_MAX_SIZE)."""

COMMAND_BYTES_MAX: Final = 16 << 20
"""Of the arguments of a command that are held, because a command must be judged whole."""
ANSWER_BYTES_MAX: Final = 1 << 20
"""Of the strings of an answer that are given; the rest is passed over by length, never held."""
PREFIX_BYTES: Final = 64 << 10
"""How much is given of a string that does not fit any more."""
VALUES_MAX: Final = 65_536
"""Arguments of a command, or values of an answer, that are given."""
DEPTH_GIVEN: Final = 24
"""Levels of an answer that are given; what readers do with values must not nest deeper than they can bear."""
DEPTH_MAX: Final = 65_536
"""Levels that are followed. Scripts build answers of thousands."""

_LENGTH: Final = re.compile(rb"0|[1-9][0-9]{0,9}")
_NUMBER: Final = re.compile(rb"[+-]?[0-9]{1,19}")


class BrokenError(Exception):
    """Bytes that are not RESP. Never leaves this package.

    Attributes:
        offset: of the line, in its direction.
        reason: what is wrong.
    """

    def __init__(self, offset: int, reason: str) -> None:
        super().__init__(reason)
        self.offset = offset
        self.reason = reason


def length_of(line: bytes, limit: int) -> int | None:
    """Read a length or a count as Redis does: no sign, no leading zero; None: it is none, or beyond the limit."""
    if _LENGTH.fullmatch(line) is None:
        return None
    length = int(line)
    return length if length <= limit else None


def number_of(line: bytes) -> int | None:
    """Read an integer of 64 bits; None: it is none."""
    if _NUMBER.fullmatch(line) is None:
        return None
    number = int(line)
    return number if -(1 << 63) <= number < 1 << 63 else None


def shown(raw: bytes) -> str:
    """Give bytes for an error message."""
    return repr(raw[:32])[1:]
