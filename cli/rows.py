"""Lay the rows of a result out as a small table, or one value a line where the table would be too wide.

What lives here: rows as a person reads them, whatever database they come from. What must not: protocols.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import Final

from capd.cli.binary_values import readable
from capd.cli.facts import Facts, mapping_of, number, sequence, sequence_of, text, text_of
from capd.cli.line import Line, Span, Style
from capd.cli.payload import Limits
from capd.cli.safe_text import cut, visible, width
from capd.cli.table import GUTTER, Column, in_columns, widths_of
from capd.recording.record import Value

NUMBER_TYPES: Final = (
    "int",
    "numeric",
    "float",
    "double",
    "real",
    "decimal",
    "oid",
    "serial",
    "money",
    "bigint",
    "smallint",
    "tinyint",
    "mediumint",
    "year",
)
NULL: Final = Span("NULL", Style.FAINT)
# A wider table wraps on most screens and then nobody finds the column of a value.
TABLE_COLUMNS_MAX: Final = 160
HEX_DIGITS_SHOWN: Final = 32


@dataclass(frozen=True, kw_only=True, slots=True)
class Shape:
    """How a result is laid out, kept from its first rows for those that come later."""

    columns: tuple[Column, ...]
    widths: tuple[int, ...]

    @property
    def upright(self) -> bool:
        """Whether it is shown one value a line."""
        return sum(self.widths) + len(GUTTER) * (len(self.widths) - 1) > TABLE_COLUMNS_MAX


def result_lines(fields: Facts, limits: Limits, *, shape: Shape | None, shown: int) -> tuple[list[Line], Shape, int]:
    """Give the lines of a batch of rows.

    Args:
        fields: `columns`, `rows` and `first_row` of a message of type `rows`.
        limits: how many rows of a result, how wide a cell.
        shape: of the batch before of the same result, None for the first.
        shown: rows of the same result shown so far.

    Returns:
        The lines, the shape for the next batch, and how many rows were shown.
    """
    rows = sequence(fields, "rows")
    types = _types(fields)
    head = [_cells(row, types) for row in rows[: max(limits.rows - shown, 0)]]
    names = [_column_name(column) for column in sequence(fields, "columns")]
    lines: list[Line] = []
    if shape is None:
        shape = _shape(fields, names, head, limits)
        if not shape.upright and shape.columns:
            lines.append(in_columns([Span(column.name, Style.FAINT) for column in shape.columns], shape.columns, shape.widths))
    first = (number(fields, "first_row") or 0) + 1
    for offset, row in enumerate(head):
        padded = [cell or Span("") for cell, _ in zip_longest(row[: len(shape.columns)], shape.columns)]
        if shape.upright:
            lines += _upright(padded, shape, first + offset, limits)
        else:
            lines.append(in_columns(padded, shape.columns, shape.widths))
    hidden = len(rows) - len(head)
    if hidden:
        lines.append((Span(f"… {hidden:,} more row{'s' if hidden > 1 else ''}", Style.FAINT),))
    return lines, shape, len(head)


def cell_span(cell: Value, kind: str = "") -> Span:
    """Give one value: NULL stands apart from the text NULL by style and, where that word is a text, by quotes around it.

    Args:
        cell: as records have it.
        kind: name of its type; a binary value of a type that is known is shown as text.
    """
    if cell is None:
        return NULL
    omitted = number(mapping_of(cell), "omitted")
    if omitted is not None:
        return Span(f"… {omitted:,} bytes, too long to decode", Style.DOUBTFUL)
    binary = text(mapping_of(cell), "binary") if mapping_of(cell) else cell.hex() if isinstance(cell, bytes) else None
    if binary is not None:
        known = readable(kind, bytes.fromhex(binary)) if kind else None
        if known is not None:
            return Span(known)
        more = f"… {len(binary) // 2:,} bytes" if len(binary) > HEX_DIGITS_SHOWN else ""
        return Span(f"\\x{binary[:HEX_DIGITS_SHOWN]}{more}", Style.DOUBTFUL)
    words = text_of(cell)
    return Span("'NULL'" if words == "NULL" else words)


def _shape(fields: Facts, names: Sequence[str], rows: Sequence[Sequence[Span]], limits: Limits) -> Shape:
    breadth = max([len(names), *(len(row) for row in rows)])
    types = _types(fields)
    columns = tuple(
        Column(
            name=names[index] if index < len(names) else f"column {index + 1}",
            right=index < len(types) and types[index].startswith(NUMBER_TYPES),
        )
        for index in range(breadth)
    )
    padded = [[*row, *[Span("")] * (breadth - len(row))] for row in rows]
    widths = tuple(min(wide, limits.cell_columns) for wide in widths_of(columns, padded)) if columns else ()
    return Shape(columns=columns, widths=widths)


def _upright(row: Sequence[Span], shape: Shape, ordinal: int, limits: Limits) -> list[Line]:
    names = [visible(column.name) for column in shape.columns]
    wide = min(max((width(name) for name in names), default=0), limits.cell_columns)
    lines: list[Line] = [(Span(f"row {ordinal}", Style.FAINT),)]
    for name, cell in zip(names, row, strict=True):
        label = cut(name, wide)
        value = cut(visible(cell.text), 2 * limits.cell_columns)
        lines.append((Span(label + " " * (wide - width(label)) + GUTTER, Style.FAINT), Span(value, cell.style)))
    return lines


def _types(fields: Facts) -> list[str]:
    return [text(mapping_of(column), "type").lower() for column in sequence(fields, "columns")]


def _cells(row: Value, types: Sequence[str]) -> list[Span]:
    cells = sequence_of(row)
    return [cell_span(cell, kind) for cell, kind in zip_longest(cells, types[: len(cells)], fillvalue="")]


def _column_name(column: Value) -> str:
    named = mapping_of(column)
    return text(named, "name") if named else text_of(column)
