"""Codes of PostgreSQL's Authentication messages (documentation 55.7).

What lives here: their numbers. What must not: what follows from them.
"""

from __future__ import annotations

from enum import IntEnum


class Code(IntEnum):
    """What a message `R` says."""

    OK = 0
    CLEARTEXT = 3
    MD5 = 5
    SASL = 10
    SASL_CONTINUE = 11
    SASL_FINAL = 12
