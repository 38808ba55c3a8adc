"""Say messages of MySQL and MariaDB in lines: statements, values, rows, what came of them, errors.

What lives here: presentation of what decoders/mysql tells. What must not: parsing of the protocol.
"""

from __future__ import annotations

from typing import Final

from capd.cli import facts
from capd.cli.facts import Facts
from capd.cli.line import Line, Span, Style
from capd.cli.payload import Limits, preview
from capd.cli.rows import Shape, cell_span, result_lines
from capd.cli.safe_text import cut, visible, visible_lines
from capd.recording.record import Value

# Bookkeeping of the protocol that says nothing about what was asked or answered. `--full` shows it.
QUIET: Final = frozenset(
    {
        "AuthMoreData", "AuthNextFactor", "AuthResponse", "AuthSwitchRequest", "AuthSwitchResponse", "COM_PING",
        "COM_RESET_CONNECTION", "COM_SET_OPTION", "COM_STMT_CLOSE", "COM_STMT_PREPARE_OK", "COM_STMT_RESET", "ColumnCount",
        "ColumnDefinition", "ColumnDefinitions", "EOF", "ParameterDefinitions", "SSLRequest",
    }
)  # fmt: skip
STATEMENT_ECHO_COLUMNS: Final = 100
RESULTS_OPEN_MAX: Final = 64
HEADER_BYTES: Final = 4
_LONG_DATA_HEAD_BYTES: Final = HEADER_BYTES + 7


class MysqlLines:
    """Turns the messages of one session into lines, in the order in which they come."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._results: dict[int | None, tuple[Shape, int]] = {}

    def message(self, told: Facts, content: bytes) -> list[Line]:
        """Give the lines of one message; none for the protocol's bookkeeping.

        Args:
            told: the record's body.
            content: the bytes of the message's span, as far as they are at hand.
        """
        lines = self._lines(facts.text(told, "type"), told, facts.mapping(told, "fields"), content)
        note = facts.text(told, "incomplete")
        if note:
            lines.append((Span(f"incomplete: {note}", Style.BAD),))
        return lines

    def _lines(self, kind: str, told: Facts, fields: Facts, content: bytes) -> list[Line]:
        summary = facts.text(told, "summary")
        if kind in {"COM_QUERY", "COM_STMT_PREPARE"}:
            lines: list[Line] = [(Span(one, Style.STRONG),) for one in visible_lines(summary)]
            return lines if kind == "COM_QUERY" else [(Span("prepare: ", Style.FAINT), *lines[0]), *lines[1:]]
        if kind in {"COM_STMT_EXECUTE", "COM_STMT_BULK_EXECUTE"}:
            return self._execution(summary, fields)
        if kind == "rows":
            return self._rows(told, fields)
        if kind == "OK":
            return [(Span(summary or "ok", Style.GOOD),)] if summary or self._limits.everything else []
        if kind == "ERR":
            return [(Span(one, Style.BAD),) for one in visible_lines(summary or kind)]
        if kind in {"LocalInfileData", "COM_STMT_SEND_LONG_DATA"}:
            return self._data(kind, summary, content)
        if kind in QUIET and not self._limits.everything:
            return []
        return [(Span(kind, Style.FAINT), *((Span(f"  {summary}"),) if summary else ()))]

    def _execution(self, summary: str, fields: Facts) -> list[Line]:
        number = facts.number(fields, "statement")
        echo = cut(visible(summary), STATEMENT_ECHO_COLUMNS)
        lines: list[Line] = [(Span("execute ", Style.FAINT), Span(str(number), Style.STRONG), Span(f"  {echo}", Style.FAINT))]
        kinds = [facts.text_of(kind) for kind in facts.sequence(fields, "parameter_types")]
        values = list(facts.sequence(fields, "parameters"))
        for row in facts.sequence(fields, "rows"):
            values += facts.sequence_of(row)
        for at, value in enumerate(values[: self._limits.rows]):
            shown = cut(visible(value_span(value, kinds[at % len(kinds)] if kinds else "").text), self._limits.line_columns)
            lines.append((Span(f"?{at + 1} = ", Style.FAINT), Span(shown)))
        if len(values) > self._limits.rows:
            lines.append((Span(f"… {len(values) - self._limits.rows:,} more values", Style.FAINT),))
        return lines

    def _data(self, kind: str, summary: str, content: bytes) -> list[Line]:
        head = _LONG_DATA_HEAD_BYTES if kind == "COM_STMT_SEND_LONG_DATA" else HEADER_BYTES
        if len(content) <= head:
            return []
        words = summary or "data of the client's file"
        return [(Span(words, Style.FAINT),), *preview(content[head:], limits=self._limits)]

    def _rows(self, told: Facts, fields: Facts) -> list[Line]:
        exchange = facts.number(told, "exchange")
        shape, shown = self._results.pop(exchange, (None, 0)) if facts.number(fields, "first_row") else (None, 0)
        lines, shape, more = result_lines(fields, self._limits, shape=shape, shown=shown)
        self._results[exchange] = (shape, shown + more)
        if len(self._results) > RESULTS_OPEN_MAX:
            self._results.pop(next(iter(self._results)))
        return lines


def value_span(value: Value, kind: str) -> Span:
    """Give one value of an execution."""
    told = facts.mapping_of(value)
    for name, words in (("sent_before", "sent before"), ("default", "its default"), ("ignored", "ignored")):
        if told.get(name):
            return Span(words, Style.FAINT)
    return cell_span(value, kind)
