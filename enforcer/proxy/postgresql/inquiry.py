"""What capd asks a server itself, on the client's connection: where names are looked for, and functions of others.

What lives here: the questions, and reading the answers. What must not: when they are asked.

Everything is named with its schema, operators too: whatever is in the session's path, these mean the server's own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from capd.enforcer.sql.functions import POSTGRESQL_TYPES

_SCHEMAS: Final = "SELECT pg_catalog.unnest(pg_catalog.current_schemas(false))"
_TEMPORARY: Final = (
    "SELECT relname FROM pg_catalog.pg_class WHERE relnamespace OPERATOR(pg_catalog.=) pg_catalog.pg_my_temp_schema()"
)
_FUNCTIONS: Final = (
    "SELECT DISTINCT p.proname FROM pg_catalog.pg_proc p"  # noqa: S608 - names of our own
    " WHERE p.pronamespace OPERATOR(pg_catalog.<>) 'pg_catalog'::pg_catalog.regnamespace"
    f" AND (p.proname OPERATOR(pg_catalog.=) ANY ('{{{','.join(sorted(POSTGRESQL_TYPES))}}}'::pg_catalog.name[])"
    " OR EXISTS (SELECT 1 FROM pg_catalog.pg_proc q WHERE q.proname OPERATOR(pg_catalog.=) p.proname"
    " AND q.pronamespace OPERATOR(pg_catalog.=) 'pg_catalog'::pg_catalog.regnamespace))"
    " UNION ALL SELECT DISTINCT pg_catalog.concat('.', p.proname) FROM pg_catalog.pg_proc p"
    " JOIN pg_catalog.pg_type t ON t.oid OPERATOR(pg_catalog.=) p.proargtypes[0]"
    " WHERE p.pronamespace OPERATOR(pg_catalog.<>) 'pg_catalog'::pg_catalog.regnamespace"
    " AND t.typtype OPERATOR(pg_catalog.=) ANY ('{c,d,p}'::pg_catalog.\"char\"[])"
    " UNION ALL SELECT DISTINCT pg_catalog.concat(').', p.proname) FROM pg_catalog.pg_proc p"
    " WHERE p.pronargs OPERATOR(pg_catalog.>) 0"
    " AND p.pronargs OPERATOR(pg_catalog.-) p.pronargdefaults OPERATOR(pg_catalog.<=) 1"
    " AND (p.provolatile OPERATOR(pg_catalog.=) 'v'"
    " OR p.pronamespace OPERATOR(pg_catalog.<>) 'pg_catalog'::pg_catalog.regnamespace)"
)
"""Those that have the name of one of the server's own; with effect.OF_ROW before them those that may take a row, and with
effect.OF_VALUE those that may take one value and may do more than give another."""
_ISOLATION: Final = "SELECT pg_catalog.current_setting('transaction_isolation')"
_SEES_LATEST: Final = frozenset({"read committed", "read uncommitted"})
"""In others a transaction is shown the functions of its begin, and calls those of now."""
_WITHOUT, _WITH, _WITHIN = 2, 3, 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """What a server said of names; `functions` is None if it was not asked for them, or did not say those of now."""

    schemas: tuple[str, ...]
    temporary: tuple[str, ...]
    functions: frozenset[str] | None


def names_queries(*, functions: bool, within: bool = False) -> tuple[str, ...]:
    """Give statements: schemas of the path, temporary relations, functions that have the name of one of the server's own.

    Args:
        functions: whether these are asked for.
        within: whether that is in a transaction of the client's.
    """
    asked = (_SCHEMAS, _TEMPORARY, *((_FUNCTIONS,) if functions else ()), *((_ISOLATION,) if functions and within else ()))
    return tuple(f"/* capd */ {one}" for one in asked)


def told(results: Sequence[Sequence[tuple[bytes | None, ...]]], encoding: str) -> Told | None:
    """Read the answers to `names_queries`; None: they cannot be read."""
    if len(results) not in (_WITHOUT, _WITH, _WITHIN):
        return None
    try:
        names = [[_name(row, encoding) for row in rows] for rows in results]
    except (ValueError, UnicodeDecodeError):
        return None
    latest = len(names) != _WITHOUT and all(_SEES_LATEST.issuperset(one) for one in names[_WITH:])
    functions = frozenset(names[2]) if latest else None
    return Told(schemas=tuple(names[0]), temporary=tuple(names[1]), functions=functions)


def _name(row: tuple[bytes | None, ...], encoding: str) -> str:
    (value,) = row
    if value is None:
        raise ValueError("a name is missing")
    return value.decode(encoding)
