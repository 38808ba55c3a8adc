"""A column of a result of MySQL or MariaDB, as its definition tells it (MySQL Internals, "Column Definition Packet").

What lives here: reading it. What must not: what is hidden.

What MariaDB 10.11 says of where a column comes from, in text and prepared:

| stands in FROM | schema | table | org_table | org_name |
|---|---|---|---|---|
| a table | its schema | its alias | its name | the column |
| a view that is merged | its schema; empty if computed | its alias | the view's name | the view's column |
| a view made as a temporary table | empty | its alias | the first table behind it; empty if computed | the view's column |
| a query, a name of WITH | of a table behind it, or empty | its alias | its alias, or a table behind it | the query's column |
| no column: an expression | empty | empty | empty | empty |

So a query in FROM can give any column any table and name. Only where FROM has relations by their names and nothing else is the
answer to be believed, and there `table` says which of them it is, and `org_name` which column.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Final

from capd.enforcer.masking.rows.field import BrokenMessageError

_REST: Final = struct.Struct("<HIBHB2x")
"""Character set, length, type, flags, decimals, and two bytes that mean nothing."""
_REST_BYTES: Final = 0x0C
NULL_VALUE: Final = 0xFB
_TWO, _THREE, _EIGHT = 0xFC, 0xFD, 0xFE
_ONE_MAX: Final = 0xFA


@dataclass(frozen=True, slots=True, kw_only=True)
class MysqlColumn:
    """One column.

    Attributes:
        schema, table, org_table, name, org_name: as above.
        charset: number of its collation; 63 is none: bytes.
        length: at most so many bytes.
        type: its number (field types of the protocol).
        flags: of the column.
    """

    schema: str
    table: str
    org_table: str
    name: str
    org_name: str
    charset: int
    length: int
    type: int
    flags: int


def read_column(body: bytes) -> MysqlColumn:
    """Read a column's definition.

    Raises:
        BrokenMessageError: it is none.
    """
    at = 0
    texts: list[str] = []
    for _ in range(6):
        size, at = read_length(body, at)
        texts.append(body[at : at + size].decode("utf-8", "surrogateescape"))
        at += size
    if len(body) != at + 1 + _REST.size or body[at] != _REST_BYTES:
        raise BrokenMessageError
    charset, length, type_, flags, _decimals = _REST.unpack_from(body, at + 1)
    _, schema, table, org_table, name, org_name = texts
    return MysqlColumn(
        schema=schema,
        table=table,
        org_table=org_table,
        name=name,
        org_name=org_name,
        charset=charset,
        length=length,
        type=type_,
        flags=flags,
    )


def read_length(body: bytes, at: int) -> tuple[int, int]:
    """Read a number of variable length (MySQL Internals, "Length-Encoded Integer"); give it, and where what follows begins.

    Raises:
        BrokenMessageError: there is none, or it is longer than what follows.
    """
    if at >= len(body):
        raise BrokenMessageError
    first = body[at]
    size = 0 if first <= _ONE_MAX else {_TWO: 2, _THREE: 3, _EIGHT: 8}.get(first, -1)
    if size < 0 or at + 1 + size > len(body):
        raise BrokenMessageError
    number = first if not size else int.from_bytes(body[at + 1 : at + 1 + size], "little")
    begins = at + 1 + size
    if begins + number > len(body):
        raise BrokenMessageError
    return number, begins


def write_length(number: int) -> bytes:
    """Write a number of variable length."""
    if number <= _ONE_MAX:
        return bytes((number,))
    for mark, size in ((_TWO, 2), (_THREE, 3)):
        if number < 1 << (8 * size):
            return bytes((mark,)) + number.to_bytes(size, "little")
    return bytes((_EIGHT,)) + number.to_bytes(8, "little")
