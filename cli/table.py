"""Lay cells out as aligned columns.

What lives here: widths, alignment, fitting into a terminal. What must not: knowledge of what is shown.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from capd.cli.line import Line, Span, Style
from capd.cli.safe_text import cut, visible, width

GUTTER: Final = "  "
# A column narrower than this says nothing any more; the table then runs over the edge instead.
COLUMN_MIN: Final = 8


@dataclass(frozen=True, kw_only=True, slots=True)
class Column:
    """A column's heading and behaviour.

    Attributes:
        name: the heading.
        right: whether cells align to the right, as numbers do.
        rigid: whether cells are never cut, as identifiers are not.
    """

    name: str
    right: bool = False
    rigid: bool = False


Cell = Span | str


def lay_out(columns: Sequence[Column], rows: Sequence[Sequence[Cell]], *, fit: int | None) -> list[Line]:
    """Give a heading line and one line per row.

    Args:
        columns: the headings; every row has as many cells.
        rows: the cells; they are made visible here.
        fit: columns of the terminal, into which flexible columns are cut; None to cut nothing.
    """
    cells = [[_span(cell) for cell in row] for row in rows]
    widths = widths_of(columns, cells)
    if fit is not None:
        widths = fitted(columns, widths, fit)
    heading = [Span(column.name, Style.FAINT) for column in columns]
    return [in_columns(row, columns, widths) for row in (heading, *cells)]


def widths_of(columns: Sequence[Column], rows: Sequence[Sequence[Span]]) -> list[int]:
    """Give each column's natural width: that of its widest cell or of its heading."""
    return [
        max(width(visible(column.name)), *(width(visible(row[number].text)) for row in rows), 1)
        for number, column in enumerate(columns)
    ]


def fitted(columns: Sequence[Column], widths: Sequence[int], fit: int) -> list[int]:
    """Give widths that fit: the widest column that may be cut gives way first, none below COLUMN_MIN."""
    shrunk = list(widths)
    excess = sum(shrunk) + len(GUTTER) * (len(shrunk) - 1) - fit
    while excess > 0:
        soft = [number for number, column in enumerate(columns) if not column.rigid and shrunk[number] > COLUMN_MIN]
        if not soft:
            break
        ranked = sorted({shrunk[number] for number in soft} | {COLUMN_MIN}, reverse=True)
        widest = [number for number in soft if shrunk[number] == ranked[0]]
        step = max(1, min(ranked[0] - ranked[1], -(-excess // len(widest))))
        for number in widest:
            shrunk[number] -= step
        excess -= step * len(widest)
    return shrunk


def in_columns(row: Sequence[Span], columns: Sequence[Column], widths: Sequence[int]) -> Line:
    """Give one row as a line: cells cut to their width and padded."""
    spans: list[Span] = []
    for number, (cell, column, columns_wide) in enumerate(zip(row, columns, widths, strict=True)):
        if number:
            spans.append(Span(GUTTER))
        text = cut(visible(cell.text), columns_wide)
        padding = " " * (columns_wide - width(text))
        if column.right and padding:
            spans.append(Span(padding))
        spans.append(Span(text, cell.style))
        if not column.right and padding and number + 1 < len(columns):
            spans.append(Span(padding))
    return tuple(spans)


def _span(cell: Cell) -> Span:
    return cell if isinstance(cell, Span) else Span(cell)
