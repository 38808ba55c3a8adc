"""A column of a result, as RowDescription tells it (PostgreSQL documentation, section 55.7).

What lives here: reading the message's body. What must not: what is hidden.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Final

_COUNT: Final = struct.Struct(">H")
_REST: Final = struct.Struct(">IhIhih")
"""OID of the table, number of the column, OID of the type, its size, its modifier, format."""


class BrokenMessageError(Exception):
    """A message of the server is not what its type says it is; nothing more of the session can be masked."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Field:
    """One column.

    Attributes:
        name: as the result calls it.
        table: OID of the relation that it comes from; 0: it is computed.
        column: its number there; 0: a whole row, or computed.
        type: OID of its type; of a domain that of what it is a domain of.
        modifier: of the type: for texts 4 more than the length in characters; -1: none.
        format: 0 text, 1 binary; of a described statement always 0: the portal says it.
    """

    name: bytes
    table: int
    column: int
    type: int
    modifier: int
    format: int


def read_fields(body: bytes) -> tuple[Field, ...]:
    """Read the body of RowDescription: what follows its length.

    Raises:
        BrokenMessageError: it is none.
    """
    found: list[Field] = []
    try:
        (count,) = _COUNT.unpack_from(body)
        at = _COUNT.size
        for _ in range(count):
            end = body.index(b"\0", at)
            table, column, type_, _size, modifier, format_ = _REST.unpack_from(body, end + 1)
            found.append(Field(name=body[at:end], table=table, column=column, type=type_, modifier=modifier, format=format_))
            at = end + 1 + _REST.size
    except (struct.error, ValueError) as error:
        raise BrokenMessageError from error
    if at != len(body):
        raise BrokenMessageError
    return tuple(found)
