"""PREPARE and EXECUTE of SQL: the name in them, and what stands behind or before it.

What lives here: finding these in the text of one statement of which it is known that it is such a one. What must not: what the
statement does. A text that is written in another way than most is not taken apart: then EXECUTE is one that nobody knows.
"""

from __future__ import annotations

import re
from typing import Final

_NAME: Final = rb'("(?:[^"]|"")+"|[A-Za-z_][A-Za-z0-9_$]*)'
_PREPARE: Final = re.compile(
    rb"\s*prepare\s+" + _NAME + rb"\s*(?:\([A-Za-z0-9_,\s\[\]]*\))?\s*\bas\b\s*(.*?)\s*;?\s*", re.IGNORECASE | re.DOTALL
)
_EXECUTE: Final = re.compile(rb"\s*execute\s+" + _NAME + rb"\s*(?:\((.*)\))?\s*;?\s*", re.IGNORECASE | re.DOTALL)
_DEALLOCATE: Final = re.compile(rb"\s*deallocate\s+(?:prepare\s+)?" + _NAME + rb"\s*;?\s*", re.IGNORECASE)
_ALL: Final = frozenset({b"all", b"prepare"})


def prepared(sql: bytes) -> tuple[bytes, bytes] | None:
    """Give the name that a PREPARE makes, and its statement; None: it is written otherwise."""
    found = _PREPARE.fullmatch(sql)
    return None if found is None else (_plain(found[1]), found[2])


def executed(sql: bytes) -> tuple[bytes, bytes] | None:
    """Give the name that an EXECUTE runs, and the text of its arguments; None: it is written otherwise."""
    found = _EXECUTE.fullmatch(sql)
    return None if found is None else (_plain(found[1]), found[2] or b"")


def deallocated(sql: bytes) -> bytes | None:
    """Give the name that a DEALLOCATE gives up; None: all of them, or it is written otherwise."""
    found = _DEALLOCATE.fullmatch(sql)
    if found is None or found[1].lower() in _ALL:
        return None
    return _plain(found[1])


def _plain(name: bytes) -> bytes:
    """Give a name as the server keeps it."""
    return name[1:-1].replace(b'""', b'"') if name.startswith(b'"') else name.lower()
