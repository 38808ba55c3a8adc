"""Binary values of PostgreSQL's built-in types, as a person writes them.

What lives here: the send formats of the types that drivers use most (src/backend/utils/adt, unchanged since protocol 3).
What must not: guessing. A value whose type is not known, or whose length does not fit it, stays what it is.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from typing import Final
from uuid import UUID

EPOCH: Final = datetime(2000, 1, 1, tzinfo=UTC)
"""Dates and times are counted from here."""
NUMERIC_HEAD: Final = struct.Struct(">HhHH")
NUMERIC_POSITIVE, NUMERIC_NEGATIVE = 0x0000, 0x4000
NUMERIC_DIGITS_MAX: Final = 250
"""Groups of four decimal digits that are shown; PostgreSQL itself allows some 33,000."""
JSONB_VERSION: Final = b"\x01"


def _number(form: str) -> Callable[[bytes], str]:
    unpack = struct.Struct(form).unpack
    return lambda raw: str(unpack(raw)[0])


def _boolean(raw: bytes) -> str:
    return {b"\0": "f", b"\1": "t"}[raw]


def _text(raw: bytes) -> str:
    return raw.decode()


def _jsonb(raw: bytes) -> str:
    if raw[:1] != JSONB_VERSION:
        raise ValueError("unknown version of jsonb")
    return raw[1:].decode()


def _date(raw: bytes) -> str:
    (days,) = struct.unpack(">i", raw)
    return str(date(2000, 1, 1) + timedelta(days=days))


def _moment(raw: bytes) -> str:
    (microseconds,) = struct.unpack(">q", raw)
    text = (EPOCH + timedelta(microseconds=microseconds)).replace(tzinfo=None).isoformat(" ")
    return text.rstrip("0") if "." in text else text


def _moment_with_zone(raw: bytes) -> str:
    return _moment(raw) + "+00"


def _numeric(raw: bytes) -> str:
    """Groups of four decimal digits, the first worth 10000 to the power of `weight`."""
    count, weight, sign, scale = NUMERIC_HEAD.unpack_from(raw)
    if sign not in (NUMERIC_POSITIVE, NUMERIC_NEGATIVE) or count > NUMERIC_DIGITS_MAX or weight > NUMERIC_DIGITS_MAX:
        raise ValueError("NaN, infinite or too long")
    groups = struct.unpack(f">{count}H", raw[NUMERIC_HEAD.size :])
    digits = "".join(f"{group:04d}" for group in groups)
    point = 4 * (weight + 1)
    if point < 0:
        digits, point = "0" * -point + digits, 0
    digits = digits.ljust(point, "0")
    whole, fraction = digits[:point].lstrip("0") or "0", digits[point:].ljust(scale, "0")[:scale]
    return ("-" if sign else "") + whole + (f".{fraction}" if scale else "")


_READERS: Final[dict[str, Callable[[bytes], str]]] = {
    "bool": _boolean,
    "int2": _number(">h"),
    "int4": _number(">i"),
    "int8": _number(">q"),
    "oid": _number(">I"),
    "float4": _number(">f"),
    "float8": _number(">d"),
    **dict.fromkeys(("text", "varchar", "bpchar", "name", "json", "xml", "unknown"), _text),
    "jsonb": _jsonb,
    "uuid": lambda raw: str(UUID(bytes=raw)),
    "date": _date,
    "timestamp": _moment,
    "timestamptz": _moment_with_zone,
    "numeric": _numeric,
}


def readable(kind: str, raw: bytes) -> str | None:
    """Give a binary value as text, as PostgreSQL's own text format has it.

    Args:
        kind: the type's name.
        raw: the value.

    Returns:
        The text; None when the type is not one of those known here, or the bytes are no value of it.
    """
    reader = _READERS.get(kind)
    if reader is None:
        return None
    try:
        return reader(raw)
    except (struct.error, ValueError, KeyError, OverflowError):
        return None
