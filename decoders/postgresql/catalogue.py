"""Prepared statements and portals of one connection, as far as the conversation told of them.

What lives here: names, SQL and columns. What must not: bytes, order of messages.

A name is looked up when the client uses it, in the client's order; the objects are then held by what waits for an answer.
So an answer fills in the statement that was meant, however deep the client pipelines and however often a name is used
again.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Final, TypeVar

from capd.decoders.message import JsonValue

STATEMENTS_MAX: Final = 1_024
"""Names remembered for each of statements and portals; the oldest is forgotten first."""
KEPT_BYTES_MAX: Final = 16 << 20
"""SQL text and column descriptions remembered together."""
NAME_CHARACTERS_MAX: Final = 1_024
"""A longer name is not remembered; the server cuts identifiers at 63 bytes, drivers use short ones."""
CELL_BYTES: Final = 128
"""What one column's name and type cost in memory, roughly, beside the name's characters."""

Columns = list[JsonValue]
_T = TypeVar("_T")


class Statement:
    """A prepared statement. SQL and columns are None as long as, or as soon as, they are not known."""

    __slots__ = ("columns", "sql", "weight")

    def __init__(self, sql: str | None = None) -> None:
        self.sql = sql
        self.columns: Columns | None = None
        self.weight = 0


class Portal:
    """A statement with its parameters. `formats` holds a format code for each column, or one for all, or none (text)."""

    __slots__ = ("formats", "statement")

    def __init__(self, statement: Statement, formats: bytes) -> None:
        self.statement = statement
        self.formats = formats


class Catalogue:
    """What names mean now."""

    def __init__(self) -> None:
        self._statements: OrderedDict[str, Statement] = OrderedDict()
        self._portals: OrderedDict[str, Portal] = OrderedDict()
        self._weighed: OrderedDict[int, Statement] = OrderedDict()
        self._weight = 0

    def parse(self, name: str, sql: str) -> Statement:
        """A statement gets a name."""
        statement = Statement(sql)
        self._keep(self._statements, name, statement)
        self.weigh(statement)
        return statement

    def bind(self, name: str, statement: str, formats: bytes) -> Portal:
        """A portal gets a name."""
        portal = Portal(self.statement(statement), formats)
        self._keep(self._portals, name, portal)
        return portal

    def statement(self, name: str) -> Statement:
        """What a name means; an unknown statement, which may be described later, if it was prepared unseen."""
        return self._statements.get(name) or self._keep(self._statements, name, Statement())

    def portal(self, name: str) -> Portal:
        """What a name means; an unknown portal, which may be described later, if it was bound unseen."""
        return self._portals.get(name) or self._keep(self._portals, name, Portal(Statement(), b""))

    def close(self, kind: str, name: str) -> None:
        """A name ends."""
        if kind == "statement":
            self._statements.pop(name, None)
        else:
            self._portals.pop(name, None)

    def weigh(self, statement: Statement) -> None:
        """Count what a statement remembers, and let the oldest forget when that is too much."""
        columns = statement.columns or []
        weight = 4 * len(statement.sql or "") + CELL_BYTES * len(columns)
        weight += sum(4 * len(str(column.get("name"))) for column in columns if isinstance(column, dict))
        self._weight += weight - statement.weight
        statement.weight = weight
        self._weighed[id(statement)] = statement
        self._weighed.move_to_end(id(statement))
        while self._weight > KEPT_BYTES_MAX or len(self._weighed) > 2 * STATEMENTS_MAX:
            _, oldest = self._weighed.popitem(last=False)
            self._weight -= oldest.weight
            oldest.sql = oldest.columns = None
            oldest.weight = 0

    @staticmethod
    def _keep(table: OrderedDict[str, _T], name: str, value: _T) -> _T:
        if len(name) > NAME_CHARACTERS_MAX:
            return value
        table[name] = value
        table.move_to_end(name)
        if len(table) > STATEMENTS_MAX:
            table.popitem(last=False)
        return value
