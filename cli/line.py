"""A line of output as spans of text with a style, and its form for a terminal or a file.

What lives here: styles, and `render`, the only place where text becomes output and the only source of escape sequences.
What must not: where a line goes.
"""

from __future__ import annotations

from enum import Enum
from typing import Final, NamedTuple

from capd.cli.safe_text import visible, width


class Style(Enum):
    """How a span looks on a terminal: its SGR parameters (ECMA-48 8.3.117). Meaning is never in the colour alone."""

    PLAIN = ""
    STRONG = "1"
    FAINT = "2"
    BAD = "1;31"
    GOOD = "32"
    DOUBTFUL = "33"
    REQUEST = "36"
    RESPONSE = "35"


RESET: Final = "\x1b[0m"


class Span(NamedTuple):
    """A piece of a line. The text may hold anything: it is made visible when it is rendered."""

    text: str
    style: Style = Style.PLAIN


Line = tuple[Span, ...]
EMPTY: Final[Line] = ()


def line(text: str, style: Style = Style.PLAIN) -> Line:
    """Give a line of one span."""
    return (Span(text, style),)


def plain(spans: Line) -> str:
    """Give the line without styles, safe to print."""
    return "".join(visible(span.text) for span in spans).rstrip(" ")


def columns(spans: Line) -> int:
    """Give the columns that the line takes once rendered."""
    return sum(width(visible(span.text)) for span in spans)


def render(spans: Line, *, coloured: bool) -> str:
    """Give the line as it is written, without its newline. Nothing but a style's own sequence can be an escape in it."""
    if not coloured:
        return plain(spans)
    return "".join(
        visible(span.text) if span.style is Style.PLAIN else f"\x1b[{span.style.value}m{visible(span.text)}{RESET}"
        for span in spans
    )
