"""Results: definitions of columns, rows, and what ends them; and what a prepared statement is told of.

What lives here: packets behind the first of an answer, OK, ERR and EOF. What must not: which answer is due (server.py), the
insides of packets (packets.py, values.py).

Definitions of columns are told together, from their count to the last of them. Whether an EOF stands behind them is seen, not
believed: an EOF has five bytes, what may stand in its place has more.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import Enum, auto
from typing import Final

from capd.decoders.message import Direction, JsonValue, Message
from capd.decoders.mysql import packets
from capd.decoders.mysql.answers import Answers, Due
from capd.decoders.mysql.collations import CODECS
from capd.decoders.mysql.side import MysqlSide
from capd.decoders.mysql.statements import Statement
from capd.decoders.mysql.values import Column, binary_row, text_row
from capd.decoders.mysql.wire import (
    COLUMNS_MAX,
    CONTROL_BYTES_MAX,
    EOF,
    EOF_BYTES,
    ERR,
    HEADER_BYTES,
    PROGRESS,
    ROW_BYTES_MAX,
    Capability,
    Command,
    Fields,
    MalformedError,
    Status,
)

_EXECUTIONS: Final = frozenset({Command.STMT_EXECUTE, Command.STMT_BULK_EXECUTE, Command.STMT_FETCH})
_ROW: Final = "Row"


class Step(Enum):
    """What the next packet of an answer is."""

    FIRST = auto()
    COLUMNS = auto()
    AFTER_COLUMNS = auto()
    ROWS = auto()
    PARAMETERS = auto()
    AFTER_PARAMETERS = auto()
    PREPARED_COLUMNS = auto()
    AFTER_PREPARED = auto()
    LIST = auto()


@dataclass(slots=True, kw_only=True)
class Joined:
    """Definitions that are told together.

    Attributes:
        kind: type of the message.
        start, end: offsets.
        left: how many are still to come.
        columns: those that came.
        binary: whether values will be in the binary protocol.
        reasons: why it is not whole.
    """

    kind: str
    start: int
    end: int
    left: int
    binary: bool
    columns: list[Column] = field(default_factory=list)
    reasons: list[str] = field(default_factory=list)


class Results(MysqlSide):
    """The part of the server's direction that is about results."""

    def __init__(self, answers: Answers) -> None:
        super().__init__(Direction.RESPONSE, answers)
        self._step = Step.FIRST
        self._joined: Joined | None = None
        self._columns: Sequence[Column] | None = None
        self._described: list[JsonValue] | None = None
        self._binary = False
        self._columns_after = 0
        self._notes: list[str] = []
        self._sequence = 0

    @abstractmethod
    def dispatch(self, due: Due | None, body: bytes, start: int, end: int) -> Message | None:
        """Decode a packet by what it answers."""

    def count(self, sequence: int) -> Due | None:
        """Note the sequence of a packet; gives what it answers."""
        due = self.answers.due
        self._notes, self._sequence = [], sequence
        if due is not None:
            if due.sequence not in (None, sequence):
                self._notes.append(f"malformed: sequence {sequence} where {due.sequence} is due")
            due.sequence = (sequence + 1) % 256
        return due

    def held_max(self, _first: int) -> int:
        """Only rows are long."""
        return ROW_BYTES_MAX if self._step is Step.ROWS else CONTROL_BYTES_MAX

    def _message(
        self,
        kind: str,
        span: tuple[int, int],
        exchange: int | None,
        summary: str = "",
        fields: dict[str, JsonValue] | None = None,
        *,
        incomplete: str | None = None,
    ) -> Message:
        notes = "; ".join([*([incomplete] if incomplete else []), *self._notes])
        return Message(
            direction=self.direction,
            start=span[0],
            end=span[1],
            type=kind,
            summary=summary,
            exchange=exchange,
            fields=fields or {},
            incomplete=notes or None,
        )

    def _over(self, status: int = 0) -> None:
        """A result is whole: the next one of the same answer comes, or the answer is whole."""
        self._step = Step.FIRST
        if not status & Status.MORE_RESULTS:
            self.answers.settle()

    def _done(self, due: Due, body: bytes, start: int, end: int) -> Message:
        """An OK or an EOF that ends a result or an answer."""
        short = body[0] == EOF and len(body) <= EOF_BYTES
        return self._eof(due, body, start, end) if short else self._ok(due, body, start, end, over=True)

    def _ok(self, due: Due, body: bytes, start: int, end: int, *, over: bool = False) -> Message:
        try:
            found = packets.ok(body, self.answers.capabilities, self.answers.results)
        except MalformedError as error:
            message = self._message("OK", (start, end), due.exchange, incomplete=f"malformed: {error}")
            if over:
                self.restart("an OK that does not add up")
            return message
        for name, value in found.variables:
            if name == "character_set_client":
                self.answers.encoding = CODECS.get(value, "utf-8")
            elif name == "character_set_results":
                self.answers.results = CODECS.get(value, "utf-8")
        if over:
            self._over(found.status)
        return self._message("OK", (start, end), due.exchange, *packets.ok_fields(found))

    def _eof(self, due: Due, body: bytes, start: int, end: int) -> Message:
        try:
            found = packets.eof(body)
        except MalformedError as error:
            message = self._message("EOF", (start, end), due.exchange, incomplete=f"malformed: {error}")
            self.restart("an EOF that does not add up")
            return message
        self._over(found.status)
        return self._eof_message(due, found, start, end)

    def _eof_message(self, due: Due, found: packets.Ok, start: int, end: int) -> Message:
        fields: dict[str, JsonValue] = {"warnings": found.warnings, "status": packets.statuses(found.status)}
        words = f"{found.warnings} warning{'' if found.warnings == 1 else 's'}" if found.warnings else ""
        return self._message("EOF", (start, end), due.exchange, words, fields)

    def _error(self, due: Due, body: bytes, start: int, end: int) -> Message:
        progress = int.from_bytes(body[1:3], "little") == PROGRESS and len(body) > HEADER_BYTES
        message = self._err(due.exchange, body, start, end)
        if not progress:
            self._over()
        return message

    def _err(self, exchange: int | None, body: bytes, start: int, end: int) -> Message:
        if int.from_bytes(body[1:3], "little") == PROGRESS:
            return self._progress(exchange, body, start, end)
        try:
            found = packets.err(body, self.answers.results)
        except MalformedError as error:
            return self._message("ERR", (start, end), exchange, incomplete=f"malformed: {error}")
        fields: dict[str, JsonValue] = {"code": found.code, "state": found.state, "message": found.message}
        state = f" ({found.state})" if found.state else ""
        return self._message("ERR", (start, end), exchange, f"{found.code}{state}: {found.message}", fields)

    def _progress(self, exchange: int | None, body: bytes, start: int, end: int) -> Message:
        """MariaDB tells how far a statement is."""
        fields = Fields(body, self.answers.results)
        try:
            fields.raw(4)
            stage, stages, done = fields.byte(), fields.byte(), fields.number(3)
            words = fields.string()
        except MalformedError as error:
            return self._message("Progress", (start, end), exchange, incomplete=f"malformed: {error}")
        summary = f"{words}: {done / 1000:.1f} % of stage {stage} of {stages}"
        told: dict[str, JsonValue] = {"stage": stage, "stages": stages, "thousandths": done // 10, "info": words}
        return self._message("Progress", (start, end), exchange, summary, told)

    def _begin_result(self, due: Due, body: bytes, start: int, end: int) -> Message | None:
        fields = Fields(body)
        try:
            count = fields.counted()
            follows = True
            if self.answers.capabilities & (Capability.CACHE_METADATA | Capability.OPTIONAL_METADATA) and fields.left:
                follows = fields.byte() == 1
            fields.end()
            if not 0 < count <= COLUMNS_MAX:
                raise MalformedError(f"{count:,} columns")
        except MalformedError as error:
            message = self._message("Packet", (start, end), due.exchange, incomplete=f"malformed: {error}")
            self.restart("an answer that does not add up")
            return message
        binary = due.command in _EXECUTIONS
        if not follows:
            self._show(due.statement.columns if due.statement is not None else None, binary=binary)
            self._step = Step.AFTER_COLUMNS
            return self._message("ColumnCount", (start, end), due.exchange, f"{count} columns", {"count": count})
        self._join("ColumnDefinitions", start, end, count, binary=binary)
        self._step = Step.COLUMNS
        return None

    def _show(self, columns: Sequence[Column] | None, *, binary: bool) -> None:
        """Note of which columns the rows are that come now."""
        self._columns, self._binary = columns, binary
        self._described = None if columns is None else [packets.described(one, binary=binary) for one in columns]

    def _join(self, kind: str, start: int, end: int, count: int, *, binary: bool) -> None:
        self._joined = Joined(kind=kind, start=start, end=end, left=count, binary=binary)

    def _definition(self, due: Due, body: bytes, _start: int, end: int) -> Message | None:
        joined = self._joined
        assert joined is not None, "definitions are joined"
        if body[:1] == bytes([ERR]):
            self.settle_joined("an error took their place")
            self.out.append(self._error(due, body, _start, end))
            return None
        found: Column | None = None
        try:
            found = packets.column(body, self.answers.capabilities, self.answers.results)
        except MalformedError as error:
            joined.reasons.append(f"malformed: {error}")
        return self._add(due, joined, found, end)

    def _add(self, due: Due, joined: Joined, found: Column | None, end: int) -> Message | None:
        joined.reasons += self._notes
        self._notes = []
        if found is not None:
            joined.columns.append(found)
        joined.left -= 1
        joined.end = end
        if joined.left:
            return None
        message = self._joined_message(joined, due.exchange)
        self._joined = None
        self._step = _BEHIND[self._step]
        whole = not joined.reasons
        if self._step is Step.AFTER_COLUMNS:
            self._show(joined.columns if whole else None, binary=joined.binary)
            if due.statement is not None and due.command != Command.QUERY:
                self._remember(due.statement, joined.columns if whole else None)
        else:
            if self._step is Step.AFTER_PREPARED and due.statement is not None:
                self._remember(due.statement, joined.columns if whole else None)
            self._behind_definitions()
        return message

    def _remember(self, statement: Statement, columns: list[Column] | None) -> None:
        statement.columns = columns
        self.answers.statements.weigh(statement)

    def _joined_message(self, joined: Joined, exchange: int | None) -> Message:
        columns: list[JsonValue] = [packets.described(one, binary=joined.binary) for one in joined.columns]
        summary = ", ".join(f"{one.name} {one.type}" for one in joined.columns)
        name = "parameters" if joined.kind == "ParameterDefinitions" else "columns"
        reasons = "; ".join(dict.fromkeys(joined.reasons)) or None
        return self._message(joined.kind, (joined.start, joined.end), exchange, summary, {name: columns}, incomplete=reasons)

    def settle_joined(self, reason: str) -> None:
        """Tell the definitions that came; those behind them will not be found."""
        joined, self._joined = self._joined, None
        if joined is not None:
            joined.reasons.append(reason)
            due = self.answers.due
            self.out.append(self._joined_message(joined, None if due is None else due.exchange))

    def _after_columns(self, due: Due, body: bytes, start: int, end: int) -> Message | None:
        self._step = Step.ROWS
        if body[:1] != bytes([EOF]) or len(body) > EOF_BYTES:
            return self._row(due, body, start, end)
        try:
            found = packets.eof(body)
        except MalformedError as error:
            return self._message("EOF", (start, end), due.exchange, incomplete=f"malformed: {error}")
        if found.status & Status.CURSOR_EXISTS and due.command == Command.STMT_EXECUTE:
            self._over(found.status)
        return self._eof_message(due, found, start, end)

    def _row(self, due: Due, body: bytes, start: int, end: int) -> Message:
        first = body[0] if body else None
        if first == EOF:
            return self._done(due, body, start, end)
        if first == ERR:
            return self._error(due, body, start, end)
        incomplete: str | None = None
        values: list[JsonValue] = []
        if self._columns is None:
            incomplete = "the definitions of its columns were not seen"
        else:
            try:
                values = binary_row(body, self._columns) if self._binary else text_row(body, self._columns)
            except MalformedError as error:
                incomplete = f"malformed: {error}"
        return self._row_message(due, values, start, end, incomplete)

    def _row_message(self, due: Due, values: list[JsonValue], start: int, end: int, incomplete: str | None) -> Message:
        fields: dict[str, JsonValue] = {"values": values, "columns": self._described}
        return self._message(_ROW, (start, end), due.exchange, "", fields, incomplete=incomplete)

    def _prepared(self, due: Due, body: bytes, start: int, end: int) -> Message:
        fields = Fields(body)
        try:
            fields.byte()
            number, columns, parameters = fields.number(4), fields.number(2), fields.number(2)
            fields.rest()
        except MalformedError as error:
            message = self._message("COM_STMT_PREPARE_OK", (start, end), due.exchange, incomplete=f"malformed: {error}")
            self.restart("an answer that does not add up")
            return message
        statement = due.statement or Statement()
        due.statement = statement
        statement.parameters = parameters
        self.answers.statements.prepared(number, statement)
        told: dict[str, JsonValue] = {"statement": number, "columns_count": columns, "parameters_count": parameters}
        message = self._message("COM_STMT_PREPARE_OK", (start, end), due.exchange, f"statement {number}", told)
        self._columns_after = columns
        if parameters:
            self._join("ParameterDefinitions", end, end, parameters, binary=True)
            self._step = Step.PARAMETERS
        else:
            self._begin_prepared_columns(end)
        return message

    def _begin_prepared_columns(self, at: int) -> None:
        count, self._columns_after = self._columns_after, 0
        if not count:
            self._over()
            return
        self._join("ColumnDefinitions", at, at, count, binary=True)
        self._step = Step.PREPARED_COLUMNS

    def _behind_definitions(self) -> None:
        """Where it is known that no EOF comes behind definitions, go on at once."""
        if self.answers.wanted is not None and self.answers.capabilities & Capability.DEPRECATE_EOF:
            self._begin_prepared_columns(self.stream.position)

    def _after_definitions(self, due: Due, body: bytes, start: int, end: int) -> Message | None:
        """An EOF, or, of a connection whose beginning was not seen, perhaps what comes behind it."""
        if body[:1] != bytes([EOF]) or len(body) > EOF_BYTES:
            self._begin_prepared_columns(start)
            return self.dispatch(self.count(self._sequence), body, start, end)
        self._begin_prepared_columns(end)
        return self._eof_message(due, packets.Ok(), start, end)


_BEHIND: Final = {
    Step.COLUMNS: Step.AFTER_COLUMNS,
    Step.PARAMETERS: Step.AFTER_PARAMETERS,
    Step.PREPARED_COLUMNS: Step.AFTER_PREPARED,
}
