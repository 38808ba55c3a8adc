"""Values of rows and parameters.

What lives here: cells by format code, and the names of built-in types. What must not: framing, state.

A cell is None for NULL, text as `str`, everything else as {"binary": hex}: binary format, and text that is not in the
client's encoding.
"""

from __future__ import annotations

import struct
from typing import Final

from capd.decoders.message import JsonValue
from capd.decoders.postgresql.wire import MalformedError

_COUNT: Final = struct.Struct(">H").unpack_from
_LENGTH: Final = struct.Struct(">i").unpack_from
_COUNT_BYTES: Final = 2
_LENGTH_BYTES: Final = 4
_NULL: Final = -1

TYPE_NAMES: Final = {
    16: "bool", 17: "bytea", 18: "char", 19: "name", 20: "int8", 21: "int2", 22: "int2vector", 23: "int4", 24: "regproc",
    25: "text", 26: "oid", 27: "tid", 28: "xid", 29: "cid", 30: "oidvector", 114: "json", 142: "xml", 143: "xml[]",
    194: "pg_node_tree", 199: "json[]", 600: "point", 601: "lseg", 602: "path", 603: "box", 604: "polygon", 628: "line",
    650: "cidr", 700: "float4", 701: "float8", 705: "unknown", 718: "circle", 774: "macaddr8", 790: "money", 829: "macaddr",
    869: "inet", 1000: "bool[]", 1001: "bytea[]", 1002: "char[]", 1003: "name[]", 1005: "int2[]", 1007: "int4[]",
    1009: "text[]", 1014: "bpchar[]", 1015: "varchar[]", 1016: "int8[]", 1021: "float4[]", 1022: "float8[]", 1028: "oid[]",
    1033: "aclitem", 1034: "aclitem[]", 1042: "bpchar", 1043: "varchar", 1082: "date", 1083: "time", 1114: "timestamp",
    1115: "timestamp[]", 1182: "date[]", 1184: "timestamptz", 1185: "timestamptz[]", 1186: "interval", 1231: "numeric[]",
    1266: "timetz", 1560: "bit", 1562: "varbit", 1700: "numeric", 1790: "refcursor", 2205: "regclass", 2206: "regtype",
    2249: "record", 2275: "cstring", 2278: "void", 2950: "uuid", 2951: "uuid[]", 3220: "pg_lsn", 3614: "tsvector",
    3615: "tsquery", 3802: "jsonb", 3807: "jsonb[]", 3904: "int4range", 3906: "numrange", 3908: "tsrange",
    3910: "tstzrange", 3912: "daterange", 3926: "int8range",
}  # fmt: skip
"""Object ids that never change between servers (src/include/catalog/pg_type.dat)."""


def type_name(oid: int) -> str:
    """Name of a built-in type, else `oid N`: other types differ from server to server."""
    return TYPE_NAMES.get(oid) or f"oid {oid}"


def cell(raw: bytes, encoding: str, *, binary: bool) -> JsonValue:
    """One value that is not NULL."""
    if not binary:
        try:
            return raw.decode(encoding)
        except UnicodeDecodeError:
            pass
    return {"binary": raw.hex()}


def row(body: bytes, formats: bytes, encoding: str) -> list[JsonValue]:
    """The values of a DataRow, or of Bind's parameters: a count, then length and bytes of each.

    Args:
        body: exactly the values.
        formats: a code for each, or one for all, or none when all are text.
        encoding: the client's codec.

    Raises:
        MalformedError: lengths and `body` do not fit.
    """
    values: list[JsonValue] = []
    add = values.append
    try:
        (count,) = _COUNT(body, 0)
        at = _COUNT_BYTES
        if 1 in formats:
            return _mixed_row(body, count, formats, encoding)
        for _ in range(count):
            (length,) = _LENGTH(body, at)
            at += _LENGTH_BYTES
            if length >= 0:
                end = at + length
                add(body[at:end].decode(encoding))
                at = end
            elif length == _NULL:
                add(None)
            else:
                raise MalformedError("a negative length")
    except struct.error:
        raise MalformedError("it ends early") from None
    except UnicodeDecodeError:
        return _mixed_row(body, count, formats, encoding)
    if at != len(body):
        raise MalformedError("lengths of its values do not add up")
    return values


def _mixed_row(body: bytes, count: int, formats: bytes, encoding: str) -> list[JsonValue]:
    values, at = _cells(body, count, formats, encoding)
    if len(values) != count or at != len(body):
        raise MalformedError("lengths of its values do not add up")
    return values


def _cells(body: bytes, count: int, formats: bytes, encoding: str) -> tuple[list[JsonValue], int]:
    """Values up to the first that is not whole, and the index where that one starts."""
    values: list[JsonValue] = []
    at = _COUNT_BYTES
    for index in range(count):
        if at + _LENGTH_BYTES > len(body):
            break
        (length,) = _LENGTH(body, at)
        end = at + _LENGTH_BYTES + max(length, 0)
        if length < _NULL or end > len(body):
            break
        if length == _NULL:
            values.append(None)
        else:
            code = formats[0] if len(formats) == 1 else formats[index] if index < len(formats) else 0
            values.append(cell(body[at + _LENGTH_BYTES : end], encoding, binary=code == 1))
        at = end
    return values, at


def row_prefix(body: bytes, formats: bytes, encoding: str) -> list[JsonValue]:
    """The values that are whole in the first part of a row; the one that is cut is given as {"omitted": length}."""
    if len(body) < _COUNT_BYTES:
        return []
    (count,) = _COUNT(body, 0)
    values, at = _cells(body, count, formats, encoding)
    if len(values) < count and at + _LENGTH_BYTES <= len(body):
        (length,) = _LENGTH(body, at)
        if length >= 0:
            values.append({"omitted": length})
    return values
