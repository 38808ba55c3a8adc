"""What a PostgreSQL server is asked about its relations, on the connection that is masked, and how its answers are read.

What lives here: the questions, one after the other. What must not: connections; what follows from the answers.

The session may have any search path and any operators in it: everything is named with its schema. Answers come as text, as a
simple Query gives them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Final

from capd.enforcer.masking.rows.catalogue import Catalogue, Column, Origin, Relation, schema_of
from capd.enforcer.masking.rows.node_tree import UnreadableTreeError, origins
from capd.enforcer.masking.rows.statistics import CATALOGUE_RELATIONS

# ruff: noqa: S608 - questions are put together of constants, and of numbers that the server gave
Row = Sequence[bytes | None]
STALE_SECONDS_MAX: Final = 5.0
"""What was asked longer ago than this is asked for its stamp again before a statement is judged by it: so long may pass until
what others define counts. What the session itself defines, or a relation that is not known, makes it stale at once."""
COLUMNS_MAX: Final = 250_000
"""In one database; more are not kept, and nothing can be masked there."""
LINKS_MAX: Final = 100_000
_EQUALS: Final = "OPERATOR(pg_catalog.=)"
_KINDS: Final = "'r', 'v', 'm', 'f', 'p', 'S'"
_OWN_MIN: Final = 16_384
"""Objects that the server did not make at its birth have larger numbers (FirstNormalObjectId)."""


def _sum(table: str, where: str) -> str:
    total = "coalesce(pg_catalog.sum(xmin::pg_catalog.text::pg_catalog.int8), 0)"
    return f"(SELECT pg_catalog.concat(pg_catalog.count(*), '.', {total}) FROM pg_catalog.{table} WHERE {where})"


_LASTING: Final = (
    f'SELECT c.oid FROM pg_catalog.pg_class c WHERE c.relkind {_EQUALS} ANY (ARRAY[{_KINDS}]::pg_catalog."char"[])'
    f" AND (c.relpersistence OPERATOR(pg_catalog.<>) 't' OR c.relnamespace {_EQUALS} pg_catalog.pg_my_temp_schema())"
    f" AND c.oid OPERATOR(pg_catalog.>=) {_OWN_MIN}::pg_catalog.oid"
)
STAMP: Final = (
    "SELECT pg_catalog.concat_ws(' ', pg_catalog.current_database(), pg_catalog.pg_my_temp_schema(), "
    + ", ".join(
        (
            _sum("pg_class", f"oid {_EQUALS} ANY ({_LASTING})"),
            _sum("pg_attribute", f"attrelid {_EQUALS} ANY ({_LASTING})"),
            _sum("pg_inherits", "true"),
            _sum("pg_constraint", f"contype {_EQUALS} 'f'"),
            _sum("pg_rewrite", f"oid OPERATOR(pg_catalog.>=) {_OWN_MIN}::pg_catalog.oid"),
            _sum("pg_namespace", "true"),
        )
    )
    + ")"
)
"""Gives one value, which is another after any definition: each row that is written has another xmin, and the sum of all of
them is the same only if nothing was."""
_NAMED: Final = " OR ".join(
    f"(n.nspname {_EQUALS} '{schema}' AND c.relname {_EQUALS} '{name}')" for schema, name in CATALOGUE_RELATIONS
)
_RELATIONS: Final = (
    "SELECT c.oid, n.nspname, c.relname, c.relkind, a.attnum, a.attname, a.attgenerated,"
    f" (SELECT t.nspname FROM pg_catalog.pg_namespace t WHERE t.oid {_EQUALS} pg_catalog.pg_my_temp_schema())"
    f" FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid {_EQUALS} c.relnamespace"
    f" LEFT JOIN pg_catalog.pg_attribute a ON a.attrelid {_EQUALS} c.oid AND a.attnum OPERATOR(pg_catalog.>) 0"
    f" AND NOT a.attisdropped WHERE c.oid {_EQUALS} ANY ({_LASTING}) OR {_NAMED}"
    f" ORDER BY c.oid USING OPERATOR(pg_catalog.<), a.attnum USING OPERATOR(pg_catalog.<) LIMIT {COLUMNS_MAX + 1}"
)
_FAMILIES: Final = f"SELECT inhrelid, inhparent FROM pg_catalog.pg_inherits LIMIT {LINKS_MAX + 1}"
_KEYS: Final = (
    "SELECT k.conrelid, k.conkey[at], k.confrelid, k.confkey[at]"
    " FROM pg_catalog.pg_constraint k, LATERAL pg_catalog.generate_subscripts(k.conkey, 1) AS at"
    f" WHERE k.contype {_EQUALS} 'f' LIMIT {LINKS_MAX + 1}"
)
_RULES: Final = (
    f"SELECT DISTINCT r.ev_class, d.refclassid {_EQUALS} 'pg_catalog.pg_class'::pg_catalog.regclass, d.refobjid"
    f" FROM pg_catalog.pg_depend d JOIN pg_catalog.pg_rewrite r ON r.oid {_EQUALS} d.objid"
    f" WHERE d.classid {_EQUALS} 'pg_catalog.pg_rewrite'::pg_catalog.regclass"
    f" AND r.ev_class OPERATOR(pg_catalog.>=) {_OWN_MIN}::pg_catalog.oid"
    f" AND (d.refclassid {_EQUALS} 'pg_catalog.pg_class'::pg_catalog.regclass"
    f" OR d.refclassid {_EQUALS} 'pg_catalog.pg_proc'::pg_catalog.regclass) LIMIT {LINKS_MAX + 1}"
)
_TREES: Final = (
    f"SELECT ev_class, ev_action FROM pg_catalog.pg_rewrite WHERE rulename {_EQUALS} '_RETURN'"
    f" AND ev_class {_EQUALS} ANY ('{{%s}}'::pg_catalog.oid[])"
)


class UnreadableAnswerError(Exception):
    """A server's answer is not what was asked for, or more than is kept: nothing can be masked by it."""


class Inquiry:
    """The questions of one round. Each is sent as a simple Query, and its rows are given back."""

    def __init__(self, looked_into: Callable[[Catalogue], frozenset[int]]) -> None:
        """Begin.

        Args:
            looked_into: gives the views whose columns have to be traced, by what is known without (protection.py).
        """
        self._looked_into = looked_into
        self._catalogue = Catalogue(stamp="")
        self._steps = [(STAMP, self._stamp), (_RELATIONS, self._relations), (_FAMILIES, self._families)]
        self._steps += [(_KEYS, self._keys), (_RULES, self._rules)]

    @property
    def question(self) -> str | None:
        """What to ask next; None: everything is known."""
        return self._steps[0][0] if self._steps else None

    @property
    def catalogue(self) -> Catalogue:
        """What the server said, once there is no further question."""
        assert not self._steps
        return self._catalogue

    def answered(self, rows: Sequence[Row]) -> None:
        """Take the rows that answer the question.

        Raises:
            UnreadableAnswerError: they do not.
        """
        _, read = self._steps.pop(0)
        try:
            read(rows)
        except (ValueError, IndexError, UnicodeDecodeError) as error:
            raise UnreadableAnswerError from error

    def _stamp(self, rows: Sequence[Row]) -> None:
        self._catalogue = replace(self._catalogue, stamp=read_stamp(rows))

    def _relations(self, rows: Sequence[Row]) -> None:
        _bounded(rows, COLUMNS_MAX)
        found: dict[int, Relation] = {}
        for oid, schema, name, kind, number, column, generated, temporary in (tuple(row) for row in rows):
            at = int(_text(oid))
            known = found.get(at)
            if known is None:
                own = "" if temporary is None else _text(temporary)
                view = _text(kind) in {"v", "m"} and at >= _OWN_MIN
                known = Relation(oid=at, schema=schema_of(_text(schema), own), name=_text(name), view=view, columns=())
            if number is not None:
                one = Column(number=int(_text(number)), name=_text(column), generated=bool(generated))
                known = replace(known, columns=(*known.columns, one))
            found[at] = known
        self._catalogue = replace(self._catalogue, relations=found)

    def _families(self, rows: Sequence[Row]) -> None:
        _bounded(rows, LINKS_MAX)
        pairs = tuple((int(_text(child)), int(_text(parent))) for child, parent in (tuple(row) for row in rows))
        self._catalogue = replace(self._catalogue, families=pairs)

    def _keys(self, rows: Sequence[Row]) -> None:
        _bounded(rows, LINKS_MAX)
        numbers = [tuple(int(_text(one)) for one in row) for row in rows]
        pairs = tuple((Origin(one, own), Origin(other, its)) for one, own, other, its in numbers)
        self._catalogue = replace(self._catalogue, keys=pairs)

    def _rules(self, rows: Sequence[Row]) -> None:
        _bounded(rows, LINKS_MAX)
        made_of: list[tuple[int, int]] = []
        opaque: set[int] = set()
        for relation, is_relation, other in (tuple(row) for row in rows):
            on, of = int(_text(relation)), int(_text(other))
            if _text(is_relation) == "t":
                made_of += [(on, of)] if on != of else []
            elif of >= _OWN_MIN:
                opaque.add(on)
        self._catalogue = replace(self._catalogue, made_of=tuple(made_of), opaque=frozenset(opaque))
        views = sorted(self._looked_into(self._catalogue))
        if views:
            self._steps.append((_TREES % ",".join(map(str, views)), self._trees))

    def _trees(self, rows: Sequence[Row]) -> None:
        found = {}
        for view, tree in (tuple(row) for row in rows):
            # One that cannot be read stays unknown: then all its columns count as computed.
            try:
                found[int(_text(view))] = origins(_text(tree))
            except UnreadableTreeError:
                continue
        self._catalogue = replace(self._catalogue, origins=found)


def read_stamp(rows: Sequence[Row]) -> str:
    """Give the answer to STAMP.

    Raises:
        UnreadableAnswerError: it is none.
    """
    if len(rows) != 1 or len(rows[0]) != 1 or not rows[0][0]:
        raise UnreadableAnswerError
    return _text(rows[0][0])


def _text(value: bytes | None) -> str:
    if value is None:
        raise UnreadableAnswerError
    return value.decode("utf-8")


def _bounded(rows: Sequence[Row], most: int) -> None:
    if len(rows) > most:
        raise UnreadableAnswerError
