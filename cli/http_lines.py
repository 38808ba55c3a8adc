"""Say HTTP messages in lines: the request or status line, the headers that matter, a preview of the body.

What lives here: presentation of what decoders/http1 tells. What must not: parsing of HTTP.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from capd.cli import facts
from capd.cli.facts import Facts
from capd.cli.line import Line, Span, Style
from capd.cli.payload import Limits, preview, unpack
from capd.cli.safe_text import cut, visible
from capd.recording.record import Direction, Value

# What a person looks for in an exchange; the rest is counted and shown by --full.
HEADERS_SHOWN: Final = frozenset(
    {
        "host", "content-type", "content-length", "content-encoding", "transfer-encoding", "content-range", "range",
        "location", "user-agent", "upgrade", "authorization", "proxy-authorization", "www-authenticate", "cookie",
        "set-cookie", "x-api-key", "api-key", "retry-after", "x-request-id", "request-id", "traceparent",
    }
)  # fmt: skip
# A screen is seen by more people than a recording: what opens doors is named, not spelled. `--format json` and `raw` have it.
HEADERS_VEILED: Final = frozenset({"authorization", "proxy-authorization", "cookie", "set-cookie", "x-api-key", "api-key"})
HEADERS_OF_COOKIES: Final = frozenset({"cookie", "set-cookie"})
SCHEMES: Final = frozenset({"basic", "bearer", "digest", "negotiate", "ntlm", "token", "aws4-hmac-sha256"})
STATUS_ERROR_MIN: Final = 400
# What stands in a span before a chunk (RFC 9112 section 7.1): the end of the chunk before, and a size line.
CHUNK_FRAMING: Final = re.compile(rb"(?:\r\n)?([0-9A-Fa-f]{1,16})[^\r\n]{0,4096}\r\n")
STREAMED_TYPES: Final = ("text/event-stream", "application/x-ndjson", "application/jsonl", "application/stream+json")


@dataclass(kw_only=True, slots=True)
class _Body:
    """The body being received in one direction."""

    media_type: str = ""
    codings: Sequence[str] = ()
    chunked: bool = False
    chunk_left: int = 0
    kept: bytearray = field(default_factory=bytearray)
    length: int = 0
    notes: list[str] = field(default_factory=list)

    @property
    def streamed(self) -> bool:
        return self.media_type.startswith(STREAMED_TYPES) and not self.codings

    @property
    def json_like(self) -> bool:
        return "json" in self.media_type

    def successor(self) -> _Body:
        """Give the state for what follows of the same body once what was received is shown."""
        return _Body(media_type=self.media_type, codings=self.codings, chunked=self.chunked, chunk_left=self.chunk_left)


class HttpLines:
    """Turns the messages of one HTTP session into lines, in the order in which they come."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._bodies: dict[Direction, _Body] = {}

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
        headers = _headers(fields)
        self._bodies[direction] = _Body(
            media_type=headers.get("content-type", "").strip().lower(),
            codings=[coding.strip() for coding in headers.get("content-encoding", "").split(",") if coding.strip()],
            chunked=facts.text(fields, "framing") == "chunked",
        )
        first = _summary(told) if kind == "request" else _status_line(told, fields)
        return [first, *self._header_lines(fields)]

    def _header_lines(self, fields: Facts) -> list[Line]:
        lines: list[Line] = []
        hidden = 0
        for pair in facts.sequence(fields, "headers"):
            name, value = _pair(pair)
            if not (self._limits.everything or name.lower() in HEADERS_SHOWN):
                hidden += 1
                continue
            shown = _veiled(name, value) if name.lower() in HEADERS_VEILED else cut(visible(value), self._limits.line_columns)
            lines.append((Span(f"{name}: ", Style.FAINT), Span(shown)))
        if hidden:
            lines.append((Span(f"… {hidden} more header{'s' if hidden > 1 else ''}", Style.FAINT),))
        return lines

    def _part(self, direction: Direction, told: Facts, content: bytes) -> list[Line]:
        body = self._bodies.setdefault(direction, _Body())
        content = _unframed(body, content)
        length = facts.number(facts.mapping(told, "fields"), "bytes")
        body.length += max(length or 0, len(content)) or _span_length(told)
        if len(body.kept) < self._limits.body_bytes:
            body.kept += content[: self._limits.body_bytes - len(body.kept)]
        note = facts.text(told, "incomplete")
        if note:
            body.notes.append(note)
        return self.pending(direction) if body.streamed else []

    def _end(self, direction: Direction, told: Facts) -> list[Line]:
        body = self._bodies.pop(direction, _Body())
        note = facts.text(told, "incomplete")
        if note:
            body.notes.append(note)
        lines = self._body_lines(body, whole=not body.notes) if body.length or body.notes else []
        trailers = facts.sequence(facts.mapping(told, "fields"), "trailers")
        return [*lines, *((Span("trailer ", Style.FAINT), Span(": ".join(_pair(pair)))) for pair in trailers)]

    def _body_lines(self, body: _Body, *, whole: bool) -> list[Line]:
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


def _headers(fields: Facts) -> Mapping[str, str]:
    pairs = (_pair(pair) for pair in facts.sequence(fields, "headers"))
    return {name.lower(): value for name, value in pairs}


def _pair(pair: Value) -> tuple[str, str]:
    parts = [facts.text_of(part) for part in facts.sequence_of(pair)]
    return (parts[0], ": ".join(parts[1:])) if parts else ("", facts.text_of(pair))


def _veiled(name: str, value: str) -> str:
    if name.lower() in HEADERS_OF_COOKIES:
        key, _, secret = value.partition("=")
        return f"{key}=… ({len(secret)} characters not shown)"
    scheme, _, secret = value.partition(" ")
    if scheme.lower() in SCHEMES and secret:
        return f"{scheme} … ({len(secret)} characters not shown)"
    return f"… ({len(value)} characters not shown)"


def _body_title(body: _Body, note: str | None) -> Line:
    words = [f"body {body.length:,} bytes"]
    if body.media_type:
        words.append(body.media_type)
    if body.codings:
        words.append(", ".join(body.codings))
    title = Span("· " + " · ".join(words), Style.FAINT)
    return (title, Span(f" · {note}", Style.DOUBTFUL)) if note else (title,)


def _span_length(told: Facts) -> int:
    start, end = facts.number(told, "start"), facts.number(told, "end")
    return max(end - start, 0) if start is not None and end is not None else 0


def _unframed(body: _Body, span: bytes) -> bytes:
    """Take the chunk framing out of a span; it stands before the content of each chunk, perhaps of several."""
    if not body.chunked:
        return span
    content = bytearray()
    at = 0
    while at < len(span):
        if body.chunk_left == 0:
            framing = CHUNK_FRAMING.match(span, at)
            if framing is None:
                break
            at, body.chunk_left = framing.end(), int(framing[1], 16)
            continue
        part = span[at : at + body.chunk_left]
        content += part
        at += len(part)
        body.chunk_left -= len(part)
    return bytes(content)
