"""Say Redis messages in lines: commands as redis-cli takes them, answers as it prints them.

What lives here: presentation of what decoders/redis tells. What must not: parsing of the protocol.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Final

from capd.cli import facts
from capd.cli.facts import Facts
from capd.cli.line import Line, Span, Style
from capd.cli.payload import Limits, preview
from capd.cli.safe_text import cut, visible
from capd.decoders.redis.values import word
from capd.recording.record import Value

SHORT_CHARS: Final = 200
"""A string of an answer that is longer, or has several lines, is shown as a payload."""
DEPTH_MAX: Final = 32


class RedisLines:
    """Turns the messages of one Redis session into lines, in the order in which they come."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits

    def message(self, told: Facts) -> list[Line]:
        """Give the lines of one message; none for lines without a command.

        Args:
            told: the record's body.
        """
        kind, fields = facts.text(told, "type"), facts.mapping(told, "fields")
        lines = self._lines(kind, told, fields)
        note = facts.text(told, "incomplete")
        if note and lines:
            lines.append((Span(f"incomplete: {note}", Style.BAD),))
        return lines

    def _lines(self, kind: str, told: Facts, fields: Facts) -> list[Line]:
        if kind == "command":
            summary = facts.text(told, "summary")
            return [(Span(cut(visible(summary), self._limits.line_columns), Style.STRONG),)]
        if kind == "error":
            return [(Span(cut(visible(facts.text(told, "summary")), self._limits.line_columns), Style.BAD),)]
        if kind == "nothing" and not self._limits.everything:
            return []
        if kind not in {"reply", "push", "monitor"}:
            return [(Span(kind, Style.FAINT),)]
        lines = self._value(fields.get("value"), whole=facts.text(fields, "kind") in {"string", "verbatim string"})
        head = () if kind == "reply" else (Span(f"{kind} ", Style.FAINT),)
        return [(*head, *lines[0]), *lines[1:]]

    def _value(self, value: Value, *, whole: bool) -> list[Line]:
        """Give an answer: a long string as a payload, a value of values with one of them on a line."""
        if whole and isinstance(value, str) and (len(value) > SHORT_CHARS or "\n" in value):
            data = value.encode("utf-8", "surrogatepass")
            return preview(data, limits=self._limits, json_like=value[:1] in {"{", "["}, total=len(data)) or [
                (Span("(empty)"),)
            ]
        lines: list[Line] = []
        for number, (depth, text) in enumerate(_outline(value, 0)):
            if number >= self._limits.rows:
                lines.append((Span("… more values", Style.FAINT),))
                break
            style = Style.GOOD if isinstance(value, str) and not depth else Style.PLAIN
            lines.append((Span("  " * depth + cut(visible(text), self._limits.line_columns), style),))
        return lines


def _outline(value: Value, depth: int) -> Iterator[tuple[int, str]]:
    """Give the values in an answer, one by one, with their depth; names of a map before their values."""
    inside = value
    if isinstance(value, Mapping):
        inside = value.get("set", value.get("map"))
    if not isinstance(inside, Sequence) or isinstance(inside, str | bytes) or depth >= DEPTH_MAX:
        yield depth, word(value) if not isinstance(value, bytes) else value.hex()
        return
    if not inside:
        yield depth, "(nothing)"
    for index, item in enumerate(inside, start=1):
        if isinstance(value, Mapping) and "map" in value and isinstance(item, Sequence) and len(item) == 2:  # noqa: PLR2004 - a pair
            yield depth, f"{word(item[0])}:"
            yield from _outline(item[1], depth + 1)
        elif isinstance(item, Sequence) and not isinstance(item, str | bytes):
            yield depth, f"{index})"
            yield from _outline(item, depth + 1)
        else:
            yield depth, f"{index}) {word(item)}"
