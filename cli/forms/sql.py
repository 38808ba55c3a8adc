"""Sessions with a database as a file of SQL: the statements, and comments that say when, with what, and what came of it.

What lives here: which record becomes which lines. What must not: where a statement ends (sql_text), layout of rows (rows).

A file for reading, and for running piece by piece on a copy of the database: parameters stand in comments. A statement that
would not end where it ended is a comment altogether.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final

from capd.cli import facts, moments
from capd.cli.facts import Facts
from capd.cli.forms.spoken import Spoken, head_words
from capd.cli.forms.sql_text import is_closed, takes_what_follows
from capd.cli.line import Line, plain
from capd.cli.mysql_lines import value_span
from capd.cli.payload import Limits
from capd.cli.rows import Shape, result_lines
from capd.cli.safe_text import cut, visible, visible_lines
from capd.cli.transcript import gap_line, marker_words, masked_line
from capd.recording.record import Direction, Kind, Record, Value

STATEMENTS_KEPT_MAX: Final = 1000
"""Prepared statements that are remembered, as a replay does."""
WAITING_MAX: Final = 1024
"""Statements that wait for the outcome of one before them."""
STATEMENT_BYTES_SEEN_MAX: Final = 1 << 20
"""Statements longer than this are comments: whether they end is not looked at."""
ENDS: Final = frozenset({"ReadyForQuery"})
MYSQL: Final = "mysql"
MYSQL_ENDS: Final = frozenset({"OK", "ERR", "EOF", "COM_STMT_PREPARE_OK", "Progress"})
TOLD: Final = frozenset({"protocol", "skipped", "decoder"})
"""Markers that say something of how well the statements are known."""


@dataclass(slots=True, kw_only=True)
class _Asked:
    """A statement that was sent, with what came back so far.

    Attributes:
        exchange: what answers are told by.
        time_ns: when it was sent.
        statement: its text.
        prepared_as: name under which it was only prepared; None when it was executed.
        parameters: lines that say them.
        answered: lines of the answers that are not written yet.
        defined: MySQL: definitions of columns came, and no EOF behind them yet.
        shape, shown: of the result that is being received.
    """

    exchange: int | None
    time_ns: int
    ordinal: int | None
    statement: str
    prepared_as: str | None = None
    parameters: list[str] = field(default_factory=list)
    answered: list[str] = field(default_factory=list)
    rows: int = 0
    defined: bool = False
    shape: Shape | None = None
    shown: int = 0
    written: bool = False
    over: bool = False


def sql(sessions: Iterable[Spoken], limits: Limits) -> Iterator[bytes]:
    """Give the pieces of one file of statements of some sessions with databases."""
    first = True
    for spoken in sessions:
        if not first:
            yield b"\n"
        first = False
        script = _Script(limits, spoken.row.protocol)
        yield _text(_comments(["recorded by capd", *head_words(spoken.row)]))
        for record in spoken.records():
            yield _text(script.feed(record))
        yield _text(script.finish())


def _text(lines: Iterable[str]) -> bytes:
    return "".join(line + "\n" for line in lines).encode("utf-8", "backslashreplace")


def _comments(words: Iterable[str]) -> list[str]:
    return [f"-- {visible(one)}".rstrip() for one in words]


class _Script:
    """The statements of one session, written in the order in which they were sent."""

    def __init__(self, limits: Limits, protocol: str) -> None:
        self._limits, self._mysql = limits, protocol == MYSQL
        self._prepared: dict[str, tuple[str, list[str]]] = {}
        self._waiting: list[_Asked] = []

    def feed(self, record: Record) -> list[str]:
        """Take the next record; give the lines that are ready."""
        if record.kind is Kind.MESSAGE:
            if record.direction is Direction.REQUEST:
                self._request(record)
            else:
                self._response(record)
            return self._ready(record.time_ns)
        return self._told(record)

    def finish(self) -> list[str]:
        """Give what is left."""
        lines: list[str] = []
        for asked in self._waiting:
            lines += [*self._written(asked), *asked.answered, *_comments(["no end of its answer is in the recording"])]
        self._waiting.clear()
        return lines

    def _told(self, record: Record) -> list[str]:
        line: Line | None = None
        if record.kind is Kind.GAP:
            line = gap_line(record.direction, record.body, layer=facts.text(record.body, "layer"))
        elif record.kind is Kind.MASKED:
            line = masked_line(record.direction, record.body)
        elif record.kind is Kind.MARKER and facts.text(record.body, "name") in TOLD - {"protocol"}:
            return _comments([f"{moments.rfc3339(record.time_ns)} {marker_words(record.body)}"])
        return [] if line is None else _comments([f"{moments.rfc3339(record.time_ns)} {plain(line)}"])

    def _request(self, record: Record) -> None:
        told = record.body
        fields = facts.mapping(told, "fields")
        kind = facts.text(told, "type")
        if kind == "Query":
            self._ask(record, facts.text(fields, "sql") or facts.text(told, "summary"))
        elif kind == "Parse":
            name = facts.text(fields, "statement")
            statement = facts.text(fields, "sql") or facts.text(told, "summary")
            self._prepared.pop(name, None)
            self._prepared[name] = (statement, [facts.text_of(one) for one in facts.sequence(fields, "parameter_types")])
            if len(self._prepared) > STATEMENTS_KEPT_MAX:
                self._prepared.pop(next(iter(self._prepared)))
            self._ask(record, statement, prepared_as=name)
        elif kind == "Bind":
            self._bind(record, fields)
        elif self._mysql:
            self._command(record, kind, fields)

    def _command(self, record: Record, kind: str, fields: Facts) -> None:
        """Take a command of MySQL; each is an exchange of its own."""
        summary = facts.text(record.body, "summary")
        if kind == "COM_QUERY":
            self._ask(record, facts.text(fields, "sql") or summary)
        elif kind == "COM_STMT_PREPARE":
            self._ask(record, facts.text(fields, "sql") or summary, prepared_as="")
        elif kind == "COM_INIT_DB":
            self._ask(record, "USE `" + facts.text(fields, "database").replace("`", "``") + "`")
        elif kind in {"COM_STMT_EXECUTE", "COM_STMT_BULK_EXECUTE"}:
            number = facts.number(fields, "statement")
            asked = self._ask(record, summary or f"-- statement {number}: its text is not in the recording")
            values = list(facts.sequence(fields, "parameters"))
            for row in facts.sequence(fields, "rows"):
                values += facts.sequence_of(row)
            kinds = [facts.text_of(one) for one in facts.sequence(fields, "parameter_types")]
            self._parameters(asked, values, [*kinds] * (len(values) // max(len(kinds), 1)), "?")

    def _ask(self, record: Record, statement: str, *, prepared_as: str | None = None) -> _Asked:
        asked = _Asked(
            exchange=facts.number(record.body, "exchange"),
            time_ns=record.time_ns,
            ordinal=facts.number(record.body, "ordinal"),
            statement=statement,
            prepared_as=prepared_as,
        )
        self._waiting.append(asked)
        return asked

    def _bind(self, record: Record, fields: Facts) -> None:
        name = facts.text(fields, "statement")
        statement, types = self._prepared.get(name, ("", []))
        exchange = facts.number(record.body, "exchange")
        last = self._waiting[-1] if self._waiting else None
        if last is not None and last.exchange == exchange and last.prepared_as == name and not last.written:
            last.prepared_as, asked = None, last
        else:
            known = statement or facts.text(record.body, "summary")
            asked = self._ask(record, known or f"-- statement {visible(name)!r}: its text is not in the recording")
        self._parameters(asked, facts.sequence(fields, "parameters"), types, "$")

    def _parameters(self, asked: _Asked, values: Sequence[Value], types: Sequence[str], sign: str) -> None:
        for number, value in enumerate(values[: self._limits.rows], start=1):
            cell = value_span(value, types[number - 1] if number <= len(types) else "")
            asked.parameters.append(f"{sign}{number} = {cut(visible(cell.text), self._limits.line_columns)}")
        if len(values) > self._limits.rows:
            asked.parameters.append(f"… {len(values) - self._limits.rows:,} more parameters")

    def _response(self, record: Record) -> None:
        told = record.body
        kind = facts.text(told, "type")
        exchange = facts.number(told, "exchange")
        mine = [asked for asked in self._waiting if asked.exchange == exchange and not asked.over]
        if not mine:
            return
        if self._mysql and kind in MYSQL_ENDS | {"ColumnDefinitions"}:
            self._answer(mine[0], record, kind)
        if kind in ENDS:
            for asked in mine:
                asked.over = True
            return
        # One exchange may hold several statements; they are answered in their order, what was only prepared with nothing.
        asked = next((one for one in mine if one.prepared_as is None), mine[0])
        if kind == "rows":
            asked.answered += self._rows(asked, facts.mapping(told, "fields"))
        elif kind in {"CommandComplete", "ErrorResponse", "NoticeResponse", "EmptyQueryResponse"}:
            words = facts.text(told, "summary") or kind
            waited = moments.span(record.time_ns - asked.time_ns)
            first, *rest = visible_lines(words)
            asked.answered += _comments([f"=> {first}  after {waited}", *rest])
            # A Query may hold several statements: it is over with ReadyForQuery. Of pipelined executions each has its own end.
            asked.over = kind == "CommandComplete" and len(mine) > 1
        if note := facts.text(told, "incomplete"):
            asked.answered += _comments([f"incomplete: {note}"])

    def _answer(self, asked: _Asked, record: Record, kind: str) -> None:
        """Take what ends a result of MySQL, or begins it."""
        fields, summary = facts.mapping(record.body, "fields"), facts.text(record.body, "summary")
        status = [facts.text_of(one) for one in facts.sequence(fields, "status")]
        if kind == "ColumnDefinitions":
            asked.defined = asked.prepared_as is None
            return
        if kind == "EOF" and asked.defined:
            asked.defined = False
            asked.over = "cursor_exists" in status
            return
        asked.defined = False
        if kind != "COM_STMT_PREPARE_OK":
            waited = moments.span(record.time_ns - asked.time_ns)
            first, *rest = visible_lines(summary or ("end of the result" if kind == "EOF" else kind))
            asked.answered += _comments([f"=> {first}  after {waited}", *rest])
        asked.over = kind != "Progress" and "more_results" not in status

    def _rows(self, asked: _Asked, fields: Facts) -> list[str]:
        if not facts.number(fields, "first_row"):
            asked.shape, asked.shown = None, 0
        lines, asked.shape, more = result_lines(fields, self._limits, shape=asked.shape, shown=asked.shown)
        asked.shown += more
        return [f"--    {plain(line)}" for line in lines]

    def _ready(self, now_ns: int) -> list[str]:
        """Give what can be written: all of the first statement that waits, and of those after it once it is over."""
        del now_ns
        lines: list[str] = []
        while self._waiting:
            first = self._waiting[0]
            if first.answered or first.over or len(self._waiting) > WAITING_MAX:
                lines += [*self._written(first), *first.answered]
                first.answered.clear()
            if not first.over and len(self._waiting) <= WAITING_MAX:
                break
            self._waiting.pop(0)
        return lines

    def _written(self, asked: _Asked) -> list[str]:
        """Give a statement with what stands above it; nothing the second time."""
        if asked.written:
            return []
        asked.written = True
        number = "" if asked.ordinal is None else f" #{asked.ordinal}"
        lines = ["", *_comments([f"{moments.rfc3339(asked.time_ns)}{number}", *asked.parameters])]
        shown = visible_lines(asked.statement)
        if asked.prepared_as is not None:
            return [*lines, *_comments([f"prepared{' as ' + asked.prepared_as if asked.prepared_as else ''}:", *shown])]
        return [*lines, *statement_lines(shown, mysql=self._mysql)]


def statement_lines(shown: Sequence[str], *, mysql: bool = False) -> list[str]:
    """Give a statement as lines that end it whatever it holds; `mysql`: for that server's own client."""
    text = "\n".join(shown)
    if len(text) > STATEMENT_BYTES_SEEN_MAX or not is_closed(text, mysql=mysql):
        return _comments(["a comment, because as a statement it would not end here:", *shown])
    if takes_what_follows(text, mysql=mysql):
        return _comments(["a comment, because it reads or runs what is not here:", *shown])
    return [*shown, ";"]
