"""Values of rows and parameters.

What lives here: types, and cells in the text and in the binary protocol. What must not: framing, state.

A cell is None for NULL, text as `str`, everything else as {"binary": hex}. Numbers and times of the binary protocol are
given as the text protocol has them.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from capd.decoders.message import JsonValue
from capd.decoders.mysql.collations import BINARY, DEFAULT
from capd.decoders.mysql.wire import NULL, Fields, MalformedError

UNSIGNED: Final = 0x20
ENUM: Final = 0x100
SET: Final = 0x800
"""Flags of a column."""
UNSIGNED_PARAMETER: Final = 0x8000
"""Flag beside the type of a parameter."""

NAMES: Final = {
    0: "decimal", 1: "tinyint", 2: "smallint", 3: "int", 4: "float", 5: "double", 6: "null", 7: "timestamp", 8: "bigint",
    9: "mediumint", 10: "date", 11: "time", 12: "datetime", 13: "year", 14: "date", 15: "varchar", 16: "bit",
    17: "timestamp", 18: "datetime", 19: "time", 20: "array", 242: "vector", 244: "boolean", 245: "json", 246: "decimal",
    247: "enum", 248: "set", 249: "tinyblob", 250: "mediumblob", 251: "longblob", 252: "blob", 253: "varchar", 254: "char",
    255: "geometry",
}  # fmt: skip
"""Type code to its name in SQL (protocol page "Field types")."""
_OF_BYTES: Final = {"varchar": "varbinary", "char": "binary"}
_OF_TEXT: Final = {"tinyblob": "tinytext", "blob": "text", "mediumblob": "mediumtext", "longblob": "longtext"}
INTEGERS: Final = {1: 1, 2: 2, 3: 4, 8: 8, 9: 4, 13: 2}
"""Type code to how many bytes a binary value has."""
FLOAT, DOUBLE, DATE, TIME = 4, 5, 10, 11
MOMENTS: Final = frozenset({7, 10, 12, 14, 17, 18})
TIMES: Final = frozenset({11, 19})
_NUMBERS: Final = frozenset({0, 1, 2, 3, 4, 5, 8, 9, 13, 246})
_BITMAP_OFFSET: Final = 2
"""The null bitmap of a binary row begins with two bits that stand for nothing."""
_CONTROL: Final = frozenset(range(32)) - {9, 10, 13}
_TEXT_BLOB: Final = 252


@dataclass(slots=True, frozen=True, kw_only=True)
class Column:
    """One column of a result, or a parameter.

    Attributes:
        name: as the statement calls it.
        code: of its type.
        flags: of the definition.
        collation: its number.
        table, column: where its values come from; "": from nowhere that the server knows.
        schema: of that table.
        encoding: codec of its text.
    """

    name: str
    code: int
    flags: int = 0
    collation: int = BINARY
    schema: str = ""
    table: str = ""
    column: str = ""
    encoding: str = DEFAULT

    @property
    def type(self) -> str:
        """The type's name."""
        return type_name(self.code, self.flags, binary=self.collation == BINARY)


def type_name(code: int, flags: int = 0, *, binary: bool = False) -> str:
    """Name a type."""
    name = NAMES.get(code) or f"type {code}"
    if flags & (ENUM | SET) and code not in _NUMBERS:
        return "enum" if flags & ENUM else "set"
    name = (_OF_BYTES if binary else _OF_TEXT).get(name, name)
    return f"{name} unsigned" if flags & UNSIGNED and code in _NUMBERS else name


def cell(raw: bytes, encoding: str, *, binary: bool = False) -> JsonValue:
    """One value that is not NULL; `binary`: of no character set, then it is text only if it looks like it."""
    if not (binary and _CONTROL.intersection(raw)):
        try:
            return raw.decode(encoding)
        except UnicodeDecodeError:
            pass
    return {"binary": raw.hex()}


def _is_binary(column: Column) -> bool:
    return column.collation == BINARY and column.code not in _NUMBERS


def text_row(body: bytes, columns: Sequence[Column]) -> list[JsonValue]:
    """The values of a row of the text protocol.

    Raises:
        MalformedError: lengths and `body` do not fit.
    """
    values: list[JsonValue] = []
    at, end = 0, len(body)
    for column in columns:
        if at >= end:
            raise MalformedError("it ends early")
        length = body[at]
        at += 1
        if length == NULL:
            values.append(None)
            continue
        if length > NULL:
            fields = Fields(body)
            fields.at = at - 1
            length, at = fields.counted(), fields.at
        if at + length > end:
            raise MalformedError("it ends early")
        values.append(cell(body[at : at + length], column.encoding, binary=_is_binary(column)))
        at += length
    if at != end:
        raise MalformedError(f"{end - at} bytes too many")
    return values


def binary_row(body: bytes, columns: Sequence[Column]) -> list[JsonValue]:
    """The values of a row of the binary protocol.

    Raises:
        MalformedError: lengths and `body` do not fit.
    """
    fields = Fields(body)
    values = _binary_values(fields, columns, [])
    fields.end()
    return values


def _binary_values(fields: Fields, columns: Sequence[Column], values: list[JsonValue]) -> list[JsonValue]:
    if fields.byte():
        raise MalformedError("not a row of the binary protocol")
    nulls = fields.raw((len(columns) + 7 + _BITMAP_OFFSET) // 8)
    for index, column in enumerate(columns, start=_BITMAP_OFFSET):
        null = nulls[index // 8] >> (index % 8) & 1
        unsigned = bool(column.flags & UNSIGNED)
        values.append(
            None if null else binary_value(fields, column.code, column.encoding, unsigned=unsigned, binary=_is_binary(column))
        )
    return values


def row_prefix(body: bytes, columns: Sequence[Column], *, binary: bool) -> list[JsonValue]:
    """The values that are whole in the first part of a row; the one that is cut is given as {"omitted": length}."""
    values: list[JsonValue] = []
    fields = Fields(body)
    begun = 0
    try:
        if binary:
            _binary_values(fields, columns, values)
            return values
        for column in columns:
            begun = fields.at
            length = fields.length()
            values.append(None if length is None else cell(fields.raw(length), column.encoding, binary=_is_binary(column)))
    except MalformedError:
        omitted = None if binary else _omitted(body, begun)
        if omitted is not None:
            values.append({"omitted": omitted})
    return values


def _omitted(body: bytes, at: int) -> int | None:
    fields = Fields(body)
    fields.at = at
    try:
        return fields.length()
    except MalformedError:
        return None


def binary_value(fields: Fields, code: int, encoding: str, *, unsigned: bool, binary: bool = False) -> JsonValue:
    """One value of the binary protocol that is not NULL.

    Raises:
        MalformedError: it is none of its type, or the type is not known, or it ends early.
    """
    size = INTEGERS.get(code)
    if size is not None:
        return str(fields.number(size, signed=not unsigned))
    if code == FLOAT:
        return _shortest(fields.single())
    if code == DOUBLE:
        return repr(fields.double())
    if code in MOMENTS:
        return _moment(fields)
    if code in TIMES:
        return _time(fields)
    if code not in NAMES:
        raise MalformedError(f"a value of the unknown type {code}")
    if code == 6:  # noqa: PLR2004  # NULL has no bytes
        return None
    return cell(fields.piece(), encoding, binary=binary)


def _shortest(value: float) -> str:
    """Give the shortest digits that mean this float of four bytes."""
    for digits in range(6, 10):
        words = f"{value:.{digits}g}"
        try:
            if struct.pack("<f", float(words)) == struct.pack("<f", value):
                return words
        except (OverflowError, struct.error):
            continue
    return repr(value)


def _moment(fields: Fields) -> str:
    raw = fields.raw(fields.byte())
    if not raw:
        return "0000-00-00"
    if len(raw) not in (4, 7, 11):
        raise MalformedError("a date of an impossible length")
    year, month, day = int.from_bytes(raw[:2], "little"), raw[2], raw[3]
    words = f"{year:04d}-{month:02d}-{day:02d}"
    if len(raw) > 4:  # noqa: PLR2004  # a date has four bytes
        words += f" {raw[4]:02d}:{raw[5]:02d}:{raw[6]:02d}"
    return words + _fraction(raw[7:])


def _time(fields: Fields) -> str:
    raw = fields.raw(fields.byte())
    if not raw:
        return "00:00:00"
    if len(raw) not in (8, 12):
        raise MalformedError("a time of an impossible length")
    hours = 24 * int.from_bytes(raw[1:5], "little") + raw[5]
    return f"{'-' if raw[0] else ''}{hours:02d}:{raw[6]:02d}:{raw[7]:02d}" + _fraction(raw[8:])


def _fraction(raw: bytes) -> str:
    return f".{int.from_bytes(raw, 'little'):06d}" if raw else ""


def null_bits(raw: bytes, count: int) -> list[bool]:
    """Which of so many parameters are NULL."""
    return [bool(raw[index // 8] >> (index % 8) & 1) for index in range(count)]
