"""How a target is asked when its answer has to be looked at.

What lives here: fields that would have it answer in a form that nobody can look into. What must not: credentials.

A compressed answer cannot be masked in place, and a part of one has no beginning: where in a JSON text it is, and whether a
secret was cut in two, nobody could tell.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

Fields = Sequence[tuple[str, str]]
PARTIAL: Final = frozenset({"range", "if-range"})
_LEFT_OUT: Final = PARTIAL | {
    "accept-encoding",
    "grpc-accept-encoding",
    "a-im",
    "want-digest",
    "want-content-digest",
    "want-repr-digest",
}
_GUESSES: Final = frozenset({"if-match", "if-none-match"})
"""Who knows how a target makes tags asks with the tag of what he guesses, and is told whether he was right."""
_READS: Final = frozenset({"GET", "HEAD"})
"""Elsewhere the two keep one writer from undoing what another did."""
IDENTITY: Final = ("accept-encoding", "identity")
"""Without the field any coding is welcome (RFC 9110 12.5.3)."""


def asked(fields: Fields) -> list[tuple[str, str]]:
    """Give the fields of a request whose answer has to be readable and whole (RFC 9110 14.2: a Range may be ignored)."""
    return [*((name, value) for name, value in fields if name.lower() not in _LEFT_OUT), IDENTITY]


def without_guesses(method: str, fields: Fields) -> list[tuple[str, str]]:
    """Give the fields of a request whose answer is masked, without asking what 304 or 412 would tell."""
    return [(name, value) for name, value in fields if method not in _READS or name.lower() not in _GUESSES]
