"""What a PostgreSQL server says of its relations: names, columns, and which are made of which.

What lives here: the values. What must not: asking for them (inquiry.py), what is hidden (protection.py).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from capd.enforcer.sql.effect import TEMPORARY_SCHEMA


class Origin(NamedTuple):
    """A column of a relation, as the server numbers them.

    Attributes:
        relation: its OID.
        column: from 1; 0 is the whole row, a negative one is the system's.
    """

    relation: int
    column: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """One column.

    Attributes:
        number: as in Origin.
        name: of the column.
        generated: whether it is computed from others of its row.
    """

    number: int
    name: str
    generated: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Relation:
    """A table, view, materialised view, foreign or partitioned table, or a sequence.

    Attributes:
        oid: its number.
        schema: that it is in; TEMPORARY_SCHEMA for one of this session.
        name: of it.
        view: whether its columns are those of a query.
        columns: in order, without dropped ones.
    """

    oid: int
    schema: str
    name: str
    view: bool
    columns: tuple[Column, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Catalogue:
    """What was asked of one database, in one session.

    Attributes:
        stamp: what the server says of all definitions together; when it says another, this is stale.
        relations: by OID.
        families: pairs of OIDs: child and parent, of inheritance and partitions.
        made_of: pairs of OIDs: a relation, and one that its rules name. A view has a rule.
        keys: columns, and those that they refer to by a foreign key: their values are the same.
        opaque: OIDs of relations whose rules call functions that are not the server's own: these may read anything.
        origins: for each column of views that are looked into where it comes from; None: it is computed.
    """

    stamp: str
    relations: Mapping[int, Relation] = field(default_factory=dict)
    families: tuple[tuple[int, int], ...] = ()
    made_of: tuple[tuple[int, int], ...] = ()
    keys: tuple[tuple[Origin, Origin], ...] = ()
    opaque: frozenset[int] = frozenset()
    origins: Mapping[int, tuple[Origin | None, ...]] = field(default_factory=dict)


def schema_of(name: str, own_temporary: str) -> str:
    """Give a schema's name as statements name it.

    Args:
        name: as the catalogue has it.
        own_temporary: name of the session's temporary schema; "": it has none.
    """
    return TEMPORARY_SCHEMA if name == own_temporary and own_temporary else name
