"""Choose what of a transcript is shown, and put time, arrow and number before it.

What lives here: `--direction`, `--at`, `--grep`, the layout of a block. What must not: output, waiting.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from capd.cli import moments
from capd.cli.arrows import ARROWS, NO_ARROW, STYLES
from capd.cli.line import Line, Span, Style, line, plain
from capd.cli.pattern import Pattern, excerpt
from capd.cli.payload import Limits
from capd.cli.transcript import Block
from capd.recording.record import Direction

WARNING_SIGN: Final = "!"
INDENT: Final = " " * 15
"""As wide as time, arrow and the blanks around them."""
GREP_CONTEXT_LINES: Final = 1


@dataclass(frozen=True, kw_only=True, slots=True)
class Choice:
    """What the user wants to see.

    Attributes:
        direction: only this stream; None for both.
        at: begin with the message of this number.
        pattern: only blocks in which this is found.
    """

    direction: Direction | None = None
    at: int | None = None
    pattern: Pattern | None = None


class Playback:
    """Turns blocks into the lines of the transcript. Warnings are shown whatever was chosen."""

    def __init__(self, choice: Choice, limits: Limits) -> None:
        self._choice = choice
        self._limits = limits
        self._day = ""
        self._begun = choice.at is None
        self.shown = 0

    def lines(self, block: Block) -> list[Line]:
        """Give the lines of a block; none if it was not asked for."""
        body = self._chosen(block)
        if not body:
            return []
        return [*self._new_day(block), *_laid_out(block, body)]

    def _chosen(self, block: Block) -> list[Line]:
        choice = self._choice
        if choice.at is not None and not self._begun and block.through is not None:
            self._begun = block.through >= choice.at
        if block.warning:
            return block.lines
        if choice.direction is not None and block.direction not in {None, choice.direction}:
            return []
        if not self._begun:
            return []
        if choice.pattern is None:
            self.shown += 1
            return block.lines
        found = choice.pattern.found(plain(one) for one in block.lines)
        self.shown += bool(found)
        return list(condensed(block.lines, found, self._limits)) if found else []

    def _new_day(self, block: Block) -> list[Line]:
        today = moments.day(block.time_ns)
        if today == self._day:
            return []
        self._day = today
        return [line(f"{today} UTC", Style.FAINT)]


def condensed(lines: list[Line], found: dict[int, tuple[int, int]], limits: Limits) -> Iterator[Line]:
    """Give the first line and those around the matches, with marks where lines are left out; everything if it is short."""
    if len(lines) <= limits.lines:
        wanted = set(range(len(lines)))
    else:
        near = range(-GREP_CONTEXT_LINES, GREP_CONTEXT_LINES + 1)
        wanted = {0} | {number + offset for number in found for offset in near if 0 <= number + offset < len(lines)}
    last = -1
    for number in sorted(wanted):
        if number > last + 1:
            yield line("…", Style.FAINT)
        last = number
        text = plain(lines[number])
        yield line(excerpt(text, found.get(number, (0, 0)))) if len(text) > limits.line_columns else lines[number]
    if last + 1 < len(lines):
        yield line("…", Style.FAINT)


def _laid_out(block: Block, body: list[Line]) -> Iterator[Line]:
    sign = NO_ARROW if block.direction is None else ARROWS[block.direction]
    style = Style.FAINT if block.direction is None else STYLES[block.direction]
    if block.warning:
        sign, style = (WARNING_SIGN if block.direction is None or block.ordinal is None else sign), Style.BAD
    number = () if block.ordinal is None else (Span(f"#{block.ordinal} ", Style.FAINT),)
    yield (Span(moments.clock(block.time_ns), Style.FAINT), Span(f" {sign} ", style), *number, *body[0])
    for rest in body[1:]:
        yield (Span(INDENT), *rest)
