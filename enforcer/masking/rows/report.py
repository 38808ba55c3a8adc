"""Errors and notices while hidden columns are about: what of them may repeat a value is left out.

What lives here: the fields of ErrorResponse and NoticeResponse (PostgreSQL documentation, section 55.8). What must not: which
messages.

A cast that fails repeats what it was given, a broken constraint the row. Names of relations, columns and constraints, the code,
and where in the agent's own statement it is, stay.
"""

from __future__ import annotations

from typing import Final

from capd.enforcer.masking.rows.field import BrokenMessageError

HIDDEN: Final = b"hidden by capd: it may repeat values of hidden columns"
_KEPT: Final = frozenset(b"SVCPFLRstcdn")
"""Severity, code, position, where in the server's source, and names."""
_MESSAGE: Final = ord("M")
_CODE: Final = ord("C")
_CONSTRAINTS: Final = b"23502 23503 23505 23514 23P01".split()
_STOPPED: Final = b"40001 40P01 57014 55P03 25P02 25P03 57P01 57P02 57P03 57P05".split()
_NAMED_CODES: Final = frozenset([*_CONSTRAINTS, *_STOPPED])
"""Broken constraints, conflicts of transactions, what is cancelled or ended: their messages have names only, values are in the
detail."""
NOTIFICATION: Final = b"hidden by capd"


def hidden_report(body: bytes, *, details_only: bool = False) -> bytes:
    """Give the body of an error or a notice without what may be values.

    Args:
        body: what follows the length.
        details_only: the statement was not about hidden columns, and what it set off may have been: its message stays.

    Raises:
        BrokenMessageError: it is none.
    """
    fields = _fields(body)
    code = next((value for kind, value in fields if kind == _CODE), b"")
    shown = bytearray()
    for kind, value in fields:
        if kind in _KEPT:
            shown += bytes((kind,)) + value + b"\0"
        elif kind == _MESSAGE:
            shown += b"M" + (value if details_only or code in _NAMED_CODES else HIDDEN) + b"\0"
    return bytes(shown) + b"\0"


def hidden_notification(body: bytes) -> bytes:
    """Give the body of a NotificationResponse with another payload: what a trigger put there, nobody knows.

    Raises:
        BrokenMessageError: it is none.
    """
    end = body.find(b"\0", 4)
    if end < 0 or not body.endswith(b"\0"):
        raise BrokenMessageError
    payload = body[end + 1 : -1]
    return body[: end + 1] + (NOTIFICATION if payload else b"") + b"\0"


def _fields(body: bytes) -> list[tuple[int, bytes]]:
    found: list[tuple[int, bytes]] = []
    at = 0
    while at < len(body) and body[at]:
        end = body.find(b"\0", at + 1)
        if end < 0:
            raise BrokenMessageError
        found.append((body[at], body[at + 1 : end]))
        at = end + 1
    if at != len(body) - 1:
        raise BrokenMessageError
    return found
