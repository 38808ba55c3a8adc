"""Say PostgreSQL messages in lines: statements, parameters, rows, command tags, errors.

What lives here: presentation of what decoders/postgresql tells. What must not: parsing of the protocol.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from capd.cli import facts
from capd.cli.facts import Facts
from capd.cli.line import Line, Span, Style
from capd.cli.payload import Limits, preview
from capd.cli.rows import Shape, cell_span, result_lines
from capd.cli.safe_text import cut, visible, visible_lines

# Bookkeeping of the protocol that says nothing about what was asked or answered. `--full` shows it.
QUIET: Final = frozenset(
    {
        "AuthenticationOk", "AuthenticationSASL", "AuthenticationSASLContinue", "AuthenticationSASLFinal", "BackendKeyData",
        "BindComplete", "Close", "CloseComplete", "CopyDone", "Describe", "Execute", "Flush", "NegotiateProtocolVersion",
        "NoData", "ParameterDescription", "ParameterStatus", "ParseComplete", "PortalSuspended", "ReadyForQuery",
        "RowDescription", "SASLInitialResponse", "SASLResponse", "SSLRequest", "SSLResponse", "Sync",
    }
)  # fmt: skip
ERROR_PARTS: Final = ("detail", "hint", "where", "position")
# A client that prepares thousands of statements must not make replay grow; the oldest are forgotten.
STATEMENTS_KEPT_MAX: Final = 1000
STATEMENT_ECHO_COLUMNS: Final = 100
COPY_HEADER_BYTES: Final = 5
"""Type byte and length before what a CopyData message carries (protocol page "Message Formats")."""
RESULTS_OPEN_MAX: Final = 64


class PostgresqlLines:
    """Turns the messages of one PostgreSQL session into lines, in the order in which they come."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._statements: dict[str, tuple[str, list[str]]] = {}
        self._results: dict[int | None, tuple[Shape, int]] = {}

    def message(self, told: Facts, content: bytes) -> list[Line]:
        """Give the lines of one message; none for the protocol's bookkeeping.

        Args:
            told: the record's body.
            content: the bytes of the message's span, as far as they are at hand.
        """
        kind = facts.text(told, "type")
        fields = facts.mapping(told, "fields")
        lines = self._copied(fields, content) if kind == "CopyData" else self._lines(kind, told, fields)
        note = facts.text(told, "incomplete")
        if note:
            lines.append((Span(f"incomplete: {note}", Style.BAD),))
        return lines

    def _lines(self, kind: str, told: Facts, fields: Facts) -> list[Line]:
        if kind in {"Query", "Parse"}:
            return self._statement(kind, told, fields)
        if kind == "Bind":
            return self._bind(fields)
        if kind == "rows":
            return self._rows(told, fields)
        if kind == "CommandComplete":
            self._results.pop(facts.number(told, "exchange"), None)
            return [(Span(facts.text(told, "summary"), Style.GOOD),)]
        if kind in {"ErrorResponse", "NoticeResponse"}:
            return _report(kind, told, fields)
        if kind in QUIET and not self._limits.everything:
            return []
        return [(Span(kind, Style.FAINT), *_after(kind, facts.text(told, "summary")))]

    def _statement(self, kind: str, told: Facts, fields: Facts) -> list[Line]:
        statement = facts.text(told, "summary")
        name = facts.text(fields, "statement")
        if kind == "Parse":
            self._statements.pop(name, None)
            self._statements[name] = (statement, [facts.text_of(kind) for kind in facts.sequence(fields, "parameter_types")])
            if len(self._statements) > STATEMENTS_KEPT_MAX:
                self._statements.pop(next(iter(self._statements)))
        lines = [(Span(one, Style.STRONG),) for one in visible_lines(statement)]
        return [(Span(f"prepare {name}: ", Style.FAINT), *lines[0]), *lines[1:]] if kind == "Parse" and name else list(lines)

    def _bind(self, fields: Facts) -> list[Line]:
        name = facts.text(fields, "statement")
        lines: list[Line] = []
        statement, types = self._statements.get(name, ("", []))
        if name:
            echo = cut(visible(statement), STATEMENT_ECHO_COLUMNS)
            lines.append((Span("execute ", Style.FAINT), Span(name, Style.STRONG), Span(f"  {echo}", Style.FAINT)))
        values = facts.sequence(fields, "parameters")
        for number, value in enumerate(values[: self._limits.rows], start=1):
            cell = cell_span(value, types[number - 1] if number <= len(types) else "")
            shown = cut(visible(cell.text), self._limits.line_columns)
            lines.append((Span(f"${number} = ", Style.FAINT), Span(shown, cell.style)))
        if len(values) > self._limits.rows:
            lines.append((Span(f"… {len(values) - self._limits.rows:,} more parameters", Style.FAINT),))
        return lines

    def _copied(self, fields: Facts, content: bytes) -> list[Line]:
        first = not facts.number(fields, "offset")
        return [(Span("copy", Style.FAINT),), *preview(content[COPY_HEADER_BYTES if first else 0 :], limits=self._limits)]

    def _rows(self, told: Facts, fields: Facts) -> list[Line]:
        exchange = facts.number(told, "exchange")
        shape, shown = self._results.pop(exchange, (None, 0)) if facts.number(fields, "first_row") else (None, 0)
        lines, shape, more = result_lines(fields, self._limits, shape=shape, shown=shown)
        self._results[exchange] = (shape, shown + more)
        if len(self._results) > RESULTS_OPEN_MAX:
            self._results.pop(next(iter(self._results)))
        return lines


def _report(kind: str, told: Facts, fields: Facts) -> list[Line]:
    style = Style.BAD if kind == "ErrorResponse" else Style.DOUBTFUL
    lines: list[Line] = [(Span(one, style),) for one in visible_lines(facts.text(told, "summary") or kind)]
    for part in ERROR_PARTS:
        words = facts.text(fields, part)
        if words:
            lines += [(Span(f"{part}: ", Style.FAINT), Span(one)) for one in visible_lines(words)]
    return lines


def _after(kind: str, summary: str) -> Sequence[Span]:
    return (Span(f"  {summary}"),) if summary and summary != kind else ()
