"""Fields of a head as RFC 9113 section 8 has them: what may stand there, and what it is.

What lives here: pure functions over fields. What must not: what a request or an answer means (request.py, answer.py).

What the standard calls malformed is refused here, and what it leaves to others is held to what HTTP/1.1 may carry, since a
target may hand it on in that form: a control character in a value is one field to one reader and two to the next.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

FIELDS_MAX: Final = 1_000
"""As of HTTP/1.1 (decoders/http1/grammar.py)."""
LENGTH_DIGITS_MAX: Final = 18
_NAME: Final = re.compile(r"[!#$%&'*+\-.^_`|~0-9a-z]+")
_VALUE: Final = re.compile(r"(?:[\x21-\x7e\x80-\xff](?:[\t\x20-\x7e\x80-\xff]*[\x21-\x7e\x80-\xff])?)?")
_OF_CONNECTION: Final = frozenset({"connection", "keep-alive", "proxy-connection", "transfer-encoding", "upgrade"})
_DIGITS: Final = re.compile(r"[0-9]{1,18}")


class FieldsError(ValueError):
    """A section that is malformed (RFC 9113 8.1.1)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Section:
    """A head, or trailers.

    Attributes:
        pseudo: pseudo-header fields by name.
        fields: the others, in order; text as Latin-1.
        length: what content-length says; None: nothing.
    """

    pseudo: Mapping[str, str]
    fields: list[tuple[str, str]]
    length: int | None


def read_section(raw: Sequence[tuple[bytes, bytes]], allowed: Iterable[str]) -> Section:
    """Read a header block, unpacked.

    Args:
        raw: as it was sent.
        allowed: the pseudo-header fields that it may have.

    Raises:
        FieldsError: it is malformed.
    """
    if len(raw) > FIELDS_MAX:
        raise FieldsError(f"more than {FIELDS_MAX} fields")
    pseudo: dict[str, str] = {}
    fields: list[tuple[str, str]] = []
    for raw_name, raw_value in raw:
        name, value = str(raw_name, "latin-1"), str(raw_value, "latin-1")
        if _VALUE.fullmatch(value) is None:
            raise FieldsError("a field has a value with characters that none may have")
        if name.startswith(":"):
            _take_pseudo(name, value, pseudo, allowed, late=bool(fields))
        else:
            _check_name(name, value)
            fields.append((name, value))
    return Section(pseudo=pseudo, fields=fields, length=_length(fields))


def _take_pseudo(name: str, value: str, pseudo: dict[str, str], allowed: Iterable[str], *, late: bool) -> None:
    if name not in allowed:
        raise FieldsError("a pseudo-header field that has no place there")
    if late or name in pseudo:
        raise FieldsError(f"{name} {'behind other fields' if late else 'twice'}")
    pseudo[name] = value


def _check_name(name: str, value: str) -> None:
    if _NAME.fullmatch(name) is None:
        raise FieldsError("a field has a name that none may have")
    if name in _OF_CONNECTION or (name == "te" and value.lower() != "trailers"):
        raise FieldsError(f"the field {name} belongs to HTTP/1.1")


def _length(fields: Sequence[tuple[str, str]]) -> int | None:
    said = [value for name, value in fields if name == "content-length"]
    if len(said) > 1 or any(_DIGITS.fullmatch(value) is None for value in said):
        raise FieldsError("content-length is not one number")
    return int(said[0]) if said else None


class Counted:
    """A body as it comes, against what content-length said of it (RFC 9113 8.1.1)."""

    __slots__ = ("_left",)

    def __init__(self, length: int | None) -> None:
        self._left = length

    def take(self, count: int) -> None:
        """Take bytes. Raises FieldsError: there are too many."""
        if self._left is None:
            return
        self._left -= count
        if self._left < 0:
            raise FieldsError("the body is longer than its content-length")

    def end(self) -> None:
        """Take the end. Raises FieldsError: there were too few."""
        if self._left:
            raise FieldsError("the body is shorter than its content-length")
