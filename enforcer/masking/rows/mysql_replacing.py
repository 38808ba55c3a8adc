"""What stands in the place of one value of MySQL or MariaDB: of its column's type, in text or in binary.

What lives here: the constants and choosing them (MySQL Internals, "Binary Protocol Value"). What must not: rows.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping
from typing import Final

from capd.decoders.mysql.collations import BINARY as BYTES
from capd.decoders.mysql.collations import character_set, codec
from capd.enforcer.masking.rows import keyed
from capd.enforcer.masking.rows.constants import HIDDEN_TEXT
from capd.enforcer.masking.rows.mysql_column import MysqlColumn
from capd.enforcer.masking.rows.replacing import (
    PARTIAL_CHARACTERS_MIN,
    PARTIAL_FILL,
    PARTIAL_SHOWN,
    Replacer,
    always_null,
)
from capd.enforcer.policy.rule import Replace
from capd.enforcer.sql.lexeme import words

TINY, SHORT, LONG, FLOAT, DOUBLE, NULL, TIMESTAMP, LONGLONG, INT24, DATE, TIME, DATETIME, YEAR, NEWDATE = range(1, 15)
DECIMAL, VARCHAR, BIT, JSON, NEWDECIMAL, ENUM, SET = 0, 15, 16, 245, 246, 247, 248
GEOMETRY: Final = 255
TEXTS: Final = frozenset({VARCHAR, ENUM, SET, 249, 250, 251, 252, 253, 254})
INTEGERS: Final[Mapping[int, struct.Struct]] = {
    TINY: struct.Struct("<b"),
    SHORT: struct.Struct("<h"),
    LONG: struct.Struct("<i"),
    INT24: struct.Struct("<i"),
    LONGLONG: struct.Struct("<q"),
}
_BITS: Final[Mapping[int, int]] = {TINY: 7, SHORT: 15, INT24: 23, LONG: 31, LONGLONG: 63}
FIXED_BYTES: Final[Mapping[int, int]] = {
    TINY: 1,
    SHORT: 2,
    YEAR: 2,
    LONG: 4,
    INT24: 4,
    LONGLONG: 8,
    FLOAT: 4,
    DOUBLE: 8,
    NULL: 0,
}
"""Of values in binary; others begin with their length."""
TIMES: Final = frozenset({TIMESTAMP, DATE, TIME, DATETIME, NEWDATE})
"""Their length is one byte, and their content 0 to 12."""
_DAY: Final = struct.pack("<HBB", 2000, 1, 1)
_TEXT: Final[Mapping[int, bytes]] = {
    **dict.fromkeys((*INTEGERS, FLOAT, DOUBLE, DECIMAL, NEWDECIMAL), b"0"),
    YEAR: b"2000",
    DATE: b"2000-01-01",
    NEWDATE: b"2000-01-01",
    DATETIME: b"2000-01-01 00:00:00",
    TIMESTAMP: b"2000-01-01 00:00:00",
    TIME: b"00:00:00",
    BIT: b"\0",
    JSON: b'"***"',
}
_BINARY: Final[Mapping[int, bytes]] = {
    **_TEXT,
    **{type_: bytes(size) for type_, size in FIXED_BYTES.items()},
    YEAR: struct.pack("<H", 2000),
    **dict.fromkeys((DATE, NEWDATE, DATETIME, TIMESTAMP), _DAY),
    TIME: b"",
}


def mysql_replacer(replace: Replace, column: MysqlColumn, key: bytes, *, binary: bool) -> Replacer:
    """Give what replaces the values of a column; it takes and gives a value without its length.

    Args:
        replace: what the rule says.
        column: of the result.
        key: for hashes.
        binary: whether rows are those of a prepared statement.
    """
    if replace is Replace.NULL:
        return always_null
    if column.type in TEXTS:
        return _text(replace, column, key)
    if replace in {Replace.HASH, Replace.TOKEN} and column.type in INTEGERS:
        return _hashed_integer(column, key, binary=binary)
    value = (_BINARY if binary else _TEXT).get(column.type)
    return always_null if value is None else lambda _value: value


def _text(replace: Replace, column: MysqlColumn, key: bytes) -> Replacer:
    if replace is Replace.HASH:
        return _fitted(lambda value: keyed.hash_text(key, value).decode("ascii"), column)
    if replace is Replace.TOKEN:
        return _fitted(lambda value: keyed.token_text(key, value).decode("ascii"), column)
    if replace is Replace.PARTIAL and column.charset != BYTES:
        encoding = codec(column.charset)
        return _fitted(lambda value: _partial(value, encoding), column)
    return _fitted(lambda _value: HIDDEN_TEXT.decode("ascii"), column)


def _fitted(make: Callable[[bytes], str], column: MysqlColumn) -> Replacer:
    """Keep a replacement within the length of its column, in its encoding."""
    encoding = codec(column.charset)
    wide = 1 if column.charset == BYTES else _WIDTHS.get(character_set(column.charset) or "", _WIDTH_MAX)
    most = column.length // wide if column.length else None
    return lambda value: make(value)[:most].encode(encoding, "replace")


_WIDTH_MAX: Final = 4
_SINGLE: Final = words(
    "armscii8 ascii cp1250 cp1251 cp1256 cp1257 cp850 cp852 cp866 dec8 geostd8 greek hebrew hp8 keybcs2 koi8r koi8u"
    " latin1 latin2 latin5 latin7 macce macroman swe7 tis620"
)
_WIDTHS: Final[Mapping[str, int]] = {
    **dict.fromkeys(_SINGLE, 1),
    **dict.fromkeys(("big5", "cp932", "euckr", "gb2312", "gbk", "sjis", "ucs2"), 2),
    **dict.fromkeys(("utf8mb3", "eucjpms", "ujis"), 3),
}
"""Bytes of the widest character; a column's length is told in bytes, as if all were."""


def _partial(value: bytes, encoding: str) -> str:
    text = value.decode(encoding, "replace")
    return PARTIAL_FILL + (text[-PARTIAL_SHOWN:] if len(text) >= PARTIAL_CHARACTERS_MIN else "")


def _hashed_integer(column: MysqlColumn, key: bytes, *, binary: bool) -> Replacer:
    form, bits = INTEGERS[column.type], _BITS[column.type]

    def replaced(value: bytes) -> bytes | None:
        try:
            number = form.unpack(value)[0] if binary else int(value)
        except (ValueError, struct.error):
            return None
        # One without a sign is the same number in half of its range only; above, it has another hash in binary.
        found = int.from_bytes(keyed.digest(key, b"%d" % (number % (1 << (bits + 1)))), "big") % (1 << bits)
        return form.pack(found) if binary else b"%d" % found

    return replaced
