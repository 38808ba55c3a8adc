"""What stands in the place of one value: of the type of its column, in the format that the client asked for.

What lives here: choosing and making it. What must not: rows, the constants themselves (constants.py).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from capd.enforcer.masking.rows import keyed
from capd.enforcer.masking.rows.constants import (
    BPCHAR,
    BYTEA,
    CONSTANTS,
    EMPTY,
    INTEGERS,
    ISO_DATES,
    NAME,
    TEXTS,
    UUID,
)
from capd.enforcer.masking.rows.field import Field
from capd.enforcer.policy.rule import Replace

PARTIAL_SHOWN: Final = 4
PARTIAL_CHARACTERS_MIN: Final = 8
"""Of a shorter text nothing is shown: the last four would be half of it, or all."""
PARTIAL_FILL: Final = "****"
"""The same for every length: a length tells, too."""
TEXT_MODIFIER_MORE: Final = 4
"""A text type's modifier is its length in characters, and 4 (varchartypmodin)."""
NAME_BYTES_MAX: Final = 63
BINARY: Final = 1
Replacer = Callable[[bytes], bytes | None]
"""Takes a value that is not NULL, and gives what stands in its place; None: NULL."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Style:
    """What of a session's settings decides how a replacement is written.

    Attributes:
        key: for hashes, at least KEY_BYTES_MIN, of this host and this policy.
        iso_dates: whether DateStyle is ISO.
    """

    key: bytes
    iso_dates: bool = True


def always_null(_value: bytes) -> bytes | None:
    """Give NULL."""
    return None


def replacer(replace: Replace, field: Field, style: Style) -> Replacer:
    """Give what replaces the values of a column.

    Args:
        replace: what the rule says.
        field: the column, with the format in which its values come.
        style: of the session.
    """
    if replace is Replace.NULL or field.format not in {0, BINARY}:
        return always_null
    if replace is Replace.PARTIAL and field.type in TEXTS:
        return _limited(_partial, field)
    if replace in {Replace.HASH, Replace.TOKEN}:
        made = _hashed(replace, field, style)
        if made is not None:
            return made
    return _constant(field, style)


def _constant(field: Field, style: Style) -> Replacer:
    known = CONSTANTS.get(field.type, EMPTY)
    value = known.binary if field.format == BINARY else known.text
    if field.format != BINARY and field.type in ISO_DATES:
        value = ISO_DATES[field.type] if style.iso_dates else None
    if value is None:
        return always_null
    if field.type in TEXTS:
        given = value
        return _limited(lambda _value: given, field)
    return lambda _value: value


def _partial(value: bytes) -> bytes:
    text = value.decode("utf-8", "replace").rstrip(" ")
    return (PARTIAL_FILL + (text[-PARTIAL_SHOWN:] if len(text) >= PARTIAL_CHARACTERS_MIN else "")).encode("utf-8")


def _hashed(replace: Replace, field: Field, style: Style) -> Replacer | None:
    key = style.key
    if field.type in TEXTS:
        make = keyed.hash_text if replace is Replace.HASH else keyed.token_text
        # char(n) is filled with blanks, which are none of the value (section 8.3).
        trimmed = field.type == BPCHAR
        return _limited(lambda value: make(key, value.rstrip(b" ") if trimmed else value), field)
    if field.type in INTEGERS:
        return _hashed_integer(field, key)
    if field.type == UUID:
        return _hashed_uuid(field, key)
    if field.type == BYTEA:
        if field.format == BINARY:
            return lambda value: keyed.digest(key, value)
        return lambda value: b"\\x" + keyed.digest(key, _unescaped(value)).hex().encode("ascii")
    return None


def _hashed_integer(field: Field, key: bytes) -> Replacer:
    form = INTEGERS[field.type]

    def replaced(value: bytes) -> bytes | None:
        try:
            number = form.unpack(value)[0] if field.format == BINARY else int(value)
        except (ValueError, OverflowError, ArithmeticError):
            return None
        found = int.from_bytes(keyed.digest(key, b"%d" % number), "big") % (1 << (form.size * 8 - 1))
        return form.pack(found) if field.format == BINARY else b"%d" % found

    return replaced


def _hashed_uuid(field: Field, key: bytes) -> Replacer:
    def replaced(value: bytes) -> bytes:
        plain = value if field.format == BINARY else value.replace(b"-", b"").lower()
        named = plain.hex().encode("ascii") if field.format == BINARY else plain
        found = bytearray(keyed.digest(key, named)[:16])
        # Version 8, of one's own making (RFC 9562 5.8).
        found[6], found[8] = found[6] & 0x0F | 0x80, found[8] & 0x3F | 0x80
        if field.format == BINARY:
            return bytes(found)
        digits = found.hex()
        return "-".join((digits[:8], digits[8:12], digits[12:16], digits[16:20], digits[20:])).encode("ascii")

    return replaced


def _unescaped(value: bytes) -> bytes:
    """Give what a bytea in hexadecimal is; one in the old form is hashed as it is written."""
    try:
        return bytes.fromhex(value[2:].decode("ascii")) if value.startswith(b"\\x") else value
    except ValueError:
        return value


def _limited(make: Callable[[bytes], bytes], field: Field) -> Replacer:
    """Keep a replacement within the length of its type; char(n) is filled with blanks as the server does."""
    most = field.modifier - TEXT_MODIFIER_MORE if field.modifier >= TEXT_MODIFIER_MORE else None
    if field.type == NAME:
        return lambda value: make(value)[:NAME_BYTES_MAX]
    if most is None:
        return make
    if field.type == BPCHAR:
        return lambda value: make(value).decode("utf-8", "replace")[:most].ljust(most).encode("utf-8")
    return lambda value: make(value).decode("utf-8", "replace")[:most].encode("utf-8")
