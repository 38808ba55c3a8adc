"""For each type of PostgreSQL a constant that every client can read, in text and in binary.

What lives here: the constants (pg_type.dat for the OIDs; the server's own send functions for the binary forms). What must not:
which of them is used.

A type that is not here gets NULL, which is legal for every type. So do types whose text depends on settings of the session.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from typing import Final, NamedTuple

HIDDEN_TEXT: Final = b"***"
_NUMERIC_ZERO: Final = bytes(8)
"""No digits, weight 0, sign plus, scale 0."""
_INET: Final = bytes((2, 32, 0, 4, 0, 0, 0, 0))
_CIDR: Final = bytes((2, 32, 1, 4, 0, 0, 0, 0))
"""Family (2: IPv4), bits, whether it is a cidr, length, address."""
_JSON: Final = b'"***"'
_UUID: Final = "00000000-0000-0000-0000-000000000000"


class Constant(NamedTuple):
    """In text and in binary; None: NULL."""

    text: bytes | None
    binary: bytes | None


BOOL: Final = 16
BYTEA: Final = 17
CHAR: Final = 18
NAME: Final = 19
INT8, INT2, INT4, OID = 20, 21, 23, 26
TEXT: Final = 25
JSON, XML, JSONB = 114, 142, 3802
BPCHAR, VARCHAR, UNKNOWN, UUID = 1042, 1043, 705, 2950
NUMERIC: Final = 1700
TEXTS: Final = frozenset({TEXT, VARCHAR, BPCHAR, UNKNOWN, NAME})
"""Any text is a value of these."""
INTEGERS: Final[Mapping[int, struct.Struct]] = {INT2: struct.Struct(">h"), INT4: struct.Struct(">i"), INT8: struct.Struct(">q")}

_ARRAYS: Final = {
    1000: BOOL, 1001: BYTEA, 1002: CHAR, 1003: NAME, 1005: INT2, 1007: INT4, 1009: TEXT, 1014: BPCHAR, 1015: VARCHAR,
    1016: INT8, 1021: 700, 1022: 701, 1028: OID, 1041: 869, 651: 650, 1115: 1114, 1182: 1082, 1183: 1083, 1185: 1184,
    1187: 1186, 1231: NUMERIC, 1270: 1266, 2951: UUID, 199: JSON, 3807: JSONB, 143: XML, 1040: 829,
}  # fmt: skip
"""Arrays, and the types of their elements."""
ARRAYS: Final[Mapping[int, int]] = _ARRAYS
_RANGES: Final = (3904, 3906, 3908, 3910, 3912, 3926)


def _array(element: int) -> Constant:
    # No dimensions, no NULLs, the type of the elements (array_send).
    return Constant(b"{}", struct.pack(">iiI", 0, 0, element))


CONSTANTS: Final[Mapping[int, Constant]] = {
    **dict.fromkeys(TEXTS, Constant(HIDDEN_TEXT, HIDDEN_TEXT)),
    CHAR: Constant(b"*", b"*"),
    BOOL: Constant(b"f", b"\0"),
    BYTEA: Constant(b"\\x", b""),
    INT2: Constant(b"0", bytes(2)),
    INT4: Constant(b"0", bytes(4)),
    INT8: Constant(b"0", bytes(8)),
    OID: Constant(b"0", bytes(4)),
    700: Constant(b"0", bytes(4)),
    701: Constant(b"0", bytes(8)),
    NUMERIC: Constant(b"0", _NUMERIC_ZERO),
    UUID: Constant(_UUID.encode("ascii"), bytes(16)),
    JSON: Constant(_JSON, _JSON),
    JSONB: Constant(_JSON, b"\x01" + _JSON),
    XML: Constant(b"<hidden/>", b"<hidden/>"),
    869: Constant(b"0.0.0.0", _INET),
    650: Constant(b"0.0.0.0/32", _CIDR),
    829: Constant(b"00:00:00:00:00:00", bytes(6)),
    774: Constant(b"00:00:00:00:00:00:00:00", bytes(8)),
    1082: Constant(None, bytes(4)),
    1114: Constant(None, bytes(8)),
    1184: Constant(None, bytes(8)),
    1083: Constant(b"00:00:00", bytes(8)),
    1266: Constant(b"00:00:00+00", bytes(12)),
    1186: Constant(None, bytes(16)),
    **dict.fromkeys(_RANGES, Constant(b"empty", b"\x01")),
    **{array: _array(element) for array, element in _ARRAYS.items()},
}
"""By OID. 2000-01-01 is the server's own day 0; dates in text stand in `ISO_DATES`: their form is a setting's (DateStyle)."""
ISO_DATES: Final[Mapping[int, bytes]] = {1082: b"2000-01-01", 1114: b"2000-01-01 00:00:00", 1184: b"2000-01-01 00:00:00+00"}
EMPTY: Final = Constant(None, None)
