"""Prepared statements of one connection, as far as the conversation told of them.

What lives here: numbers, SQL, columns, types of parameters. What must not: bytes, order of messages.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from typing import Final

from capd.decoders.mysql.values import Column

STATEMENTS_MAX: Final = 1_024
"""Statements that are remembered; the oldest is forgotten first."""
KEPT_BYTES_MAX: Final = 16 << 20
"""SQL text and descriptions of columns that are remembered together."""
COLUMN_BYTES: Final = 256
"""What a column costs in memory, roughly, beside the characters of its names."""
LATEST: Final = 0xFFFF_FFFF
"""MariaDB: stands for the statement that was prepared last, whose number the client may not know yet."""


class Statement:
    """A prepared statement. What is None is not known, or not any more."""

    __slots__ = ("columns", "long", "parameters", "sql", "types", "weight")

    def __init__(self, sql: str | None = None) -> None:
        self.sql = sql
        self.parameters: int | None = None
        self.columns: Sequence[Column] | None = None
        self.types: Sequence[tuple[int, bool]] | None = None
        """Of its parameters, and whether each is unsigned; told with the first execution."""
        self.long: set[int] = set()
        """Parameters whose values were sent before (COM_STMT_SEND_LONG_DATA)."""
        self.weight = 0

    def forget(self) -> None:
        """Let go of what costs memory."""
        self.sql = self.columns = self.types = self.parameters = None
        self.weight = 0


class Statements:
    """What numbers mean now."""

    def __init__(self) -> None:
        self._known: OrderedDict[int, Statement] = OrderedDict()
        self._weight = 0
        self.latest: Statement | None = None

    def prepared(self, number: int, statement: Statement) -> None:
        """The server gave a statement its number."""
        self.close(number)
        self._known[number] = statement
        self.weigh(statement)
        while len(self._known) > STATEMENTS_MAX or (self._weight > KEPT_BYTES_MAX and len(self._known) > 1):
            _, oldest = self._known.popitem(last=False)
            self._weight -= oldest.weight
            oldest.forget()

    def weigh(self, statement: Statement) -> None:
        """Count what a statement remembers."""
        columns = statement.columns or ()
        weight = 4 * len(statement.sql or "") + COLUMN_BYTES * len(columns)
        weight += sum(4 * (len(one.name) + len(one.table) + len(one.column) + len(one.schema)) for one in columns)
        self._weight += weight - statement.weight
        statement.weight = weight

    def find(self, number: int) -> Statement:
        """Give what a number means; one that was prepared unseen is a statement of which nothing is known."""
        if number == LATEST:
            return self.latest or Statement()
        return self._known.get(number) or Statement()

    def close(self, number: int) -> None:
        """A number ends."""
        former = self._known.pop(number, None)
        if former is not None:
            self._weight -= former.weight
            former.weight = 0

    def clear(self) -> None:
        """All end: the session began anew."""
        self._known.clear()
        self._weight = 0
        self.latest = None
