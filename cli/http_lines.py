"""Say HTTP messages in lines: the request or status line, the headers that matter, a preview of the body.

What lives here: presentation of what decoders/http1 tells. What must not: parsing of HTTP.
"""

from __future__ import annotations

from typing import Final

from capd.cli import facts
from capd.cli.facts import Facts
from capd.cli.http_body import Body
from capd.cli.line import Line, Span, Style
from capd.cli.payload import Limits, preview, unpack
from capd.cli.safe_text import cut, visible
from capd.cli.veil import pair_of, veiled
from capd.recording.record import Direction

# What a person looks for in an exchange; the rest is counted and shown by --full.
HEADERS_SHOWN: Final = frozenset(
    {
        "host", "content-type", "content-length", "content-encoding", "transfer-encoding", "content-range", "range",
        "location", "user-agent", "upgrade", "authorization", "proxy-authorization", "www-authenticate", "cookie",
        "set-cookie", "x-api-key", "api-key", "retry-after", "x-request-id", "request-id", "traceparent",
    }
)  # fmt: skip
STATUS_ERROR_MIN: Final = 400


class HttpLines:
    """Turns the messages of one HTTP session into lines, in the order in which they come."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._bodies: dict[Direction, Body] = {}

    def message(self, direction: Direction, told: Facts, content: bytes) -> list[Line]:
        """Give the lines of one message; none if they are to come with a later one.

        Args:
            direction: whose.
            told: the record's body.
            content: the bytes of the message's span, as far as they are at hand.
        """
        kind = facts.text(told, "type")
        if kind in {"request", "response"}:
            return [*self.pending(direction), *self._head(direction, kind, told)]
        if kind == "body":
            return self._part(direction, told, content)
        if kind == "end":
            return self._end(direction, told)
        lines = preview(content[: self._limits.body_bytes], limits=self._limits) if content else []
        return [*self.pending(direction), _summary(told), *lines]

    def pending(self, direction: Direction) -> list[Line]:
        """Give the lines of what was received of a body so far and not yet shown, and forget it."""
        body = self._bodies.get(direction)
        if body is None or not body.length:
            return []
        self._bodies[direction] = body.successor()
        return self._body_lines(body, whole=False)

    def _head(self, direction: Direction, kind: str, told: Facts) -> list[Line]:
        fields = facts.mapping(told, "fields")
        self._bodies[direction] = Body.after(fields)
        first = _summary(told) if kind == "request" else _status_line(told, fields)
        return [first, *self._header_lines(fields)]

    def _header_lines(self, fields: Facts) -> list[Line]:
        lines: list[Line] = []
        hidden = 0
        for pair in facts.sequence(fields, "headers"):
            name, value = pair_of(pair)
            if not (self._limits.everything or name.lower() in HEADERS_SHOWN):
                hidden += 1
                continue
            shown = cut(visible(veiled(name, value)), self._limits.line_columns)
            lines.append((Span(f"{name}: ", Style.FAINT), Span(shown)))
        if hidden:
            lines.append((Span(f"… {hidden} more header{'s' if hidden > 1 else ''}", Style.FAINT),))
        return lines

    def _part(self, direction: Direction, told: Facts, content: bytes) -> list[Line]:
        body = self._bodies.setdefault(direction, Body())
        body.take(told, content, self._limits.body_bytes)
        return self.pending(direction) if body.streamed else []

    def _end(self, direction: Direction, told: Facts) -> list[Line]:
        body = self._bodies.pop(direction, Body())
        note = facts.text(told, "incomplete")
        if note:
            body.notes.append(note)
        lines = self._body_lines(body, whole=not body.notes) if body.length or body.notes else []
        trailers = facts.sequence(facts.mapping(told, "fields"), "trailers")
        return [
            *lines,
            *(
                (Span("trailer ", Style.FAINT), Span(f"{name}: {veiled(name, value)}"))
                for name, value in map(pair_of, trailers)
            ),
        ]

    def _body_lines(self, body: Body, *, whole: bool) -> list[Line]:
        whole = whole and len(body.kept) == body.length
        unpacked = unpack(bytes(body.kept), body.codings, whole=whole, bytes_max=self._limits.body_bytes)
        lines = [] if body.streamed else [_body_title(body, unpacked.note)]
        total = len(unpacked.data) + max(body.length - len(body.kept), 0)
        lines += preview(unpacked.data, limits=self._limits, json_like=body.json_like, total=total)
        lines += [(Span(f"incomplete: {note}", Style.BAD),) for note in dict.fromkeys(body.notes)]
        return lines


def _summary(told: Facts) -> Line:
    spans = [Span(facts.text(told, "summary") or facts.text(told, "type"), Style.STRONG)]
    note = facts.text(told, "incomplete")
    return (*spans, Span(f"  incomplete: {note}", Style.BAD)) if note else tuple(spans)


def _status_line(told: Facts, fields: Facts) -> Line:
    status = facts.number(fields, "status") or 0
    first, *rest = _summary(told)
    return (Span(first.text, Style.BAD if status >= STATUS_ERROR_MIN else Style.STRONG), *rest)


def _body_title(body: Body, note: str | None) -> Line:
    words = [f"body {body.length:,} bytes"]
    if body.media_type:
        words.append(body.media_type)
    if body.codings:
        words.append(", ".join(body.codings))
    title = Span("· " + " · ".join(words), Style.FAINT)
    return (title, Span(f" · {note}", Style.DOUBTFUL)) if note else (title,)
