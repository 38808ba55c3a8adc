"""Letters that stand for others: what a server reads that undoes it.

What lives here: percent-encoding and the escapes of JSON. What must not: what follows from it (matcher.py).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final
from urllib.parse import unquote_plus

_ENCODED: Final = re.compile(r"%[0-9A-Fa-f]{2}|\+")
_ESCAPES: Final = re.compile(r"(?:\\u[0-9A-Fa-f]{4})+|\\/")
_PER_ESCAPE: Final = 6


def decoded(text: str) -> Iterator[str]:
    """Give what a query, or a form, is read as; nothing where that is as it stands."""
    if _ENCODED.search(text) is not None:
        yield unquote_plus(text, errors="replace")


def unescaped(text: str) -> Iterator[str]:
    """Give what a body is read as: as JSON, and as a form."""
    if _ESCAPES.search(text) is not None:
        yield _ESCAPES.sub(_letters, text)
    if "%" in text:
        yield from decoded(text)


def _letters(found: re.Match[str]) -> str:
    """Give what escapes that follow each other stand for: two may be one letter (RFC 8259 7)."""
    if found[0] == r"\/":
        return "/"
    units = (found[0][at + 2 : at + _PER_ESCAPE] for at in range(0, len(found[0]), _PER_ESCAPE))
    return bytes.fromhex("".join(units)).decode("utf-16-be", "replace")
