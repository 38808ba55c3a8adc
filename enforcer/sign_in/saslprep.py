"""Passwords and names as SCRAM compares them: SASLprep (RFC 4013), as PostgreSQL's client does it.

What lives here: the mapping, the normal form, and what is forbidden. What must not: what is done with the result.

Like libpq, and unlike the RFC, a text that cannot be prepared is used as it is: the server has stored it so too.
"""

from __future__ import annotations

import stringprep
import unicodedata
from typing import Final

_FORBIDDEN: Final = (
    stringprep.in_table_c12,
    stringprep.in_table_c21_c22,
    stringprep.in_table_c3,
    stringprep.in_table_c4,
    stringprep.in_table_c5,
    stringprep.in_table_c6,
    stringprep.in_table_c7,
    stringprep.in_table_c8,
    stringprep.in_table_c9,
    stringprep.in_table_a1,
)
"""RFC 4013 2.3, and code points that Unicode 3.2 did not have (2.5: a stored string)."""


def prepared(text: str) -> str | None:
    """Give a text in the form in which it is compared; None: it has none."""
    if text and text.isascii() and text.isprintable():
        return text
    mapped = "".join(
        " " if stringprep.in_table_c12(one) else one for one in text if not stringprep.in_table_b1(one)
    )  # RFC 4013 2.1
    # The normal form is that of Unicode 3.2 (RFC 3454 4): a later one would make other bytes of the same text.
    normal = unicodedata.ucd_3_2_0.normalize("NFKC", mapped)
    if not normal or any(table(one) for one in normal for table in _FORBIDDEN) or not _directed(normal):
        return None
    return normal


def password(text: str) -> bytes:
    """Give the bytes that a password counts as, in UTF-8."""
    found = prepared(text)
    return (text if found is None else found).encode("utf-8", "surrogateescape")


def _directed(text: str) -> bool:
    """Say whether its letters go one way (RFC 3454 6)."""
    if not any(map(stringprep.in_table_d1, text)):
        return True
    ends = stringprep.in_table_d1(text[0]) and stringprep.in_table_d1(text[-1])
    return ends and not any(map(stringprep.in_table_d2, text))
