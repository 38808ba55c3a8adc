"""Statements that differ in whole numbers alone, and so mostly do the same.

What lives here: telling, by their bytes. What must not: what they do.
"""

from __future__ import annotations

import re
from typing import Final

PLAIN_BYTES_MAX: Final = 1_024
NUMBER_DIGITS_MAX: Final = 9
_PLAIN: Final = re.compile(rb"[A-Za-z0-9_ ,.=<>()*;+\n\t]{1,%d}" % PLAIN_BYTES_MAX)
"""No quotes, comments, dollars, backslashes, minus signs: what is a number there is one for the server too."""
_NUMBER: Final = re.compile(rb"(?<![A-Za-z0-9_.])[0-9]{1,%d}(?![A-Za-z0-9_.])" % NUMBER_DIGITS_MAX)


def varies(sql: bytes) -> bool:
    """Say whether `without_numbers` gives the same for other statements."""
    return _PLAIN.fullmatch(sql) is not None and _NUMBER.search(sql) is not None


def only_number(sql: bytes) -> tuple[int, int] | None:
    """Give where the only number stands that `without_numbers` would make another one of; None: there are several, or none."""
    found = list(_NUMBER.finditer(sql)) if _PLAIN.fullmatch(sql) is not None else []
    return found[0].span() if len(found) == 1 else None


def without_numbers(sql: bytes) -> bytes:
    """Give a statement without its whole numbers, where it is of nothing but words, numbers and a few signs; else itself.

    Statements that differ in nothing else do the same, unless what they do hangs on a literal.
    """
    return sql if _PLAIN.fullmatch(sql) is None else _NUMBER.sub(b"0", sql)
