"""Prepared statements of one session, and what decides what an execution does.

What lives here: statements by number, values that were sent before. What must not: judging them.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field
from typing import Final

from capd.decoders.mysql.statements import LATEST
from capd.decoders.mysql.wire import Fields, MalformedError
from capd.enforcer.proxy.mysql.passage import FREE, Passage
from capd.enforcer.sql.message import Message
from capd.enforcer.sql.session import Session

STATEMENTS_MAX: Final = 16_382
"""The server's own limit for all sessions together (max_prepared_stmt_count)."""
KEPT_BYTES_MAX: Final = 16 << 20
"""Text of statements, and values that wait for their execution: as much as one message may have."""
_HEAD_BYTES: Final = 10
"""Of COM_STMT_EXECUTE before its values: command, number, flags, iterations."""
_TYPE_BYTES: Final = 2


class TooMuchError(Exception):
    """More is kept than may be; told to the client."""


@dataclass(slots=True, kw_only=True)
class Prepared:
    """One.

    Attributes:
        sql: its text.
        message: what it does, read in the session in which it was prepared.
        parameters: how many values it takes.
        types: of the values, as they were told last.
        long: values that were sent before, by parameter.
        session: in which it was prepared.
        passage: what the rows of its cursor go through.
    """

    sql: bytes
    message: Message
    parameters: int
    session: Session
    types: bytes = b""
    long: dict[int, bytearray] = field(default_factory=dict)
    passage: Passage = FREE


class Statements:
    """Those of a session."""

    def __init__(self) -> None:
        self._known: OrderedDict[int, Prepared] = OrderedDict()
        self._kept_bytes = 0
        self._latest = 0

    def add(self, number: int, one: Prepared) -> None:
        """Take one that the server has prepared."""
        self.close(number)
        self._known[number] = one
        self._kept_bytes += len(one.sql)
        self._latest = number

    def room(self, sql: bytes) -> bool:
        """Say whether there is room for one more."""
        return len(self._known) < STATEMENTS_MAX and self._kept_bytes + len(sql) <= KEPT_BYTES_MAX

    def find(self, number: int) -> tuple[int, Prepared] | None:
        """Give a statement with its number; None: there is none."""
        number = self._latest if number == LATEST else number
        found = self._known.get(number)
        return None if found is None else (number, found)

    def close(self, number: int) -> None:
        """Forget one."""
        former = self._known.pop(number, None)
        if former is not None:
            self._kept_bytes -= len(former.sql)
            self.forget_values(former)

    def clear(self) -> None:
        """Forget all."""
        self._known.clear()
        self._kept_bytes = 0

    def keep_value(self, one: Prepared, parameter: int, data: bytes) -> None:
        """Keep a part of a value for the next execution.

        Raises:
            TooMuchError: there is no room for it.
        """
        if self._kept_bytes + len(data) > KEPT_BYTES_MAX:
            raise TooMuchError(f"more than {KEPT_BYTES_MAX >> 20} MiB of values and statements are not kept")
        one.long.setdefault(parameter, bytearray()).extend(data)
        self._kept_bytes += len(data)

    def forget_values(self, one: Prepared) -> None:
        """Forget what was sent before."""
        self._kept_bytes -= sum(len(value) for value in one.long.values())
        one.long.clear()


def content(one: Prepared, body: bytes) -> tuple[bytes, bytes]:
    """Give every byte that decides what an execution does, and the types of its values: the server keeps them, if it hears it.

    Args:
        one: the statement.
        body: of COM_STMT_EXECUTE.

    Raises:
        MalformedError: its inside does not add up.
    """
    fields = Fields(body)
    head = fields.raw(_HEAD_BYTES)
    if int.from_bytes(head[6:], "little") != 1:
        raise MalformedError("more than one iteration")
    types = one.types
    if one.parameters:
        fields.raw((one.parameters + 7) // 8)
        if fields.byte():
            types = fields.raw(_TYPE_BYTES * one.parameters)
        elif not types:
            raise MalformedError("values without types")
    sent = b"".join(parameter.to_bytes(2, "little") + bytes(value) for parameter, value in sorted(one.long.items()))
    parts = (one.sql, types, head[5:] + body[_HEAD_BYTES:], sent)
    return b"".join(len(part).to_bytes(4, "little") + part for part in parts), types
