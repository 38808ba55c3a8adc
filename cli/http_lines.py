"""Say HTTP messages in lines: the request or status line, the headers that matter, a preview of the body.

What lives here: presentation of what decoders/http1 and decoders/http2 tell. What must not: parsing of HTTP.

The streams of HTTP/2 are mixed; a body is shown when it is whole, and every message says of which stream it is.
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
from capd.decoders.sse import ServerSentEvent
from capd.recording.record import Direction

# What a person looks for in an exchange; the rest is counted and shown by --full.
HEADERS_SHOWN: Final = frozenset(
    {
        "host", ":authority", "content-type", "content-length", "content-encoding", "transfer-encoding", "content-range",
        "range", "location", "user-agent", "upgrade", "authorization", "proxy-authorization", "www-authenticate", "cookie",
        "set-cookie", "x-api-key", "api-key", "retry-after", "x-request-id", "request-id", "traceparent", "grpc-encoding",
    }
)  # fmt: skip
STATUS_ERROR_MIN: Final = 400
QUIET: Final = frozenset({"preface", "WINDOW_UPDATE", "PING", "PRIORITY"})
"""Housekeeping of HTTP/2, which --full shows."""
BODIES_MAX: Final = 1_024
"""Bodies at a time, as many as a server allows streams; of more the oldest is shown in two parts."""
GRPC_PREFIX_BYTES: Final = 5
NOT_AT_HAND: Final = "its middle is not shown; --full gives more"

BodyKey = tuple[Direction, int | None]
"""Whose body, and of which exchange."""


class HttpLines:
    """Turns the messages of one HTTP session into lines, in the order in which they come."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._bodies: dict[BodyKey, Body] = {}

    def message(self, direction: Direction, told: Facts, content: bytes) -> list[Line]:
        """Give the lines of one message; none if they are to come with a later one.

        Args:
            direction: whose.
            told: the record's body.
            content: the bytes of the message's span or content, as far as they are at hand.
        """
        kind = facts.text(told, "type")
        key = (direction, facts.number(told, "exchange"))
        if kind in {"request", "response"}:
            return [*self.pending(key), *self._head(key, kind, told)]
        if kind == "body":
            return self._part(key, told, content)
        if kind == "end":
            return self._end(key, told)
        if kind == "grpc":
            return self._grpc(key, told)
        if facts.text(told, "protocol") == "http2":
            return self._control(kind, told)
        lines = preview(content[: self._limits.body_bytes], limits=self._limits) if content else []
        return [*self.pending(key), _summary(told), *lines]

    def pending(self, key: BodyKey) -> list[Line]:
        """Give the lines of what was received of a body so far and not yet shown, and forget it."""
        body = self._bodies.get(key)
        if body is None or not body.length:
            return []
        self._bodies[key] = body.successor()
        return self._body_lines(body, whole=False)

    def _head(self, key: BodyKey, kind: str, told: Facts) -> list[Line]:
        fields = facts.mapping(told, "fields")
        self._bodies[key] = Body.after(fields)
        if len(self._bodies) > BODIES_MAX:
            del self._bodies[next(iter(self._bodies))]
        first = _summary(told) if kind == "request" else _status_line(told, fields)
        return [first, *self._header_lines(fields)]

    def _control(self, kind: str, told: Facts) -> list[Line]:
        """Say a frame of HTTP/2 that is neither head nor body."""
        fields = facts.mapping(told, "fields")
        if not self._limits.everything and (kind in QUIET or fields.get("ack")) and not facts.text(told, "incomplete"):
            return []
        settings = ", ".join(f"{name} {facts.text_of(value)}" for name, value in facts.mapping(fields, "settings").items())
        words = settings or facts.text(fields, "debug")
        first, *rest = _summary(told)
        shown = (Span(f" {cut(visible(words), self._limits.line_columns)}", Style.FAINT),) if words else ()
        return [(first, *shown, *rest), *self._header_lines(fields)]

    def _grpc(self, key: BodyKey, told: Facts) -> list[Line]:
        """Say a message of gRPC: its bytes came as parts of the body before it."""
        body = self._bodies.get(key, Body())
        self._bodies[key] = body.successor()
        kept = bytes(body.kept[GRPC_PREFIX_BYTES:])
        packed = (Span(" · compressed", Style.FAINT),) if facts.flag(facts.mapping(told, "fields"), "compressed") else ()
        total = max(body.length - GRPC_PREFIX_BYTES, len(kept))
        return [(*_summary(told), *packed), *preview(kept, limits=self._limits, total=total)]

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
        malformed = facts.text(fields, "malformed")
        if malformed:
            lines.append((Span(f"malformed: {malformed}", Style.BAD),))
        if hidden:
            lines.append((Span(f"… {hidden} more header{'s' if hidden > 1 else ''}", Style.FAINT),))
        return lines

    def _part(self, key: BodyKey, told: Facts, content: bytes) -> list[Line]:
        body = self._bodies.setdefault(key, Body())
        said, missing = body.take(told, content, self._limits.body_bytes)
        body.stream = facts.number(facts.mapping(told, "fields"), "stream")
        if body.events is None:
            return self.pending(key) if body.streamed else []
        self._bodies[key] = body.successor()
        self._bodies[key].notes = body.notes
        events = body.events.take(said)
        if missing:
            body.events.lose(missing, NOT_AT_HAND)
        return [line for event in events for line in self._event(event, body.stream)]

    def lost(self, direction: Direction, reason: str) -> None:
        """Bytes of a direction are missing: what was on its way may have lost some."""
        for (of, _), body in self._bodies.items():
            if of == direction and body.events is not None:
                body.events.lose(None, reason)

    def _event(self, event: ServerSentEvent, stream: int | None) -> list[Line]:
        """Say one server-sent event."""
        words = "".join([f"  id {event.id}" if event.id else "", "" if stream is None else f"  stream {stream}"])
        first: Line = (Span(f"event {visible(event.type)}", Style.STRONG), Span(visible(words), Style.FAINT))
        if event.incomplete:
            first = (*first, Span(f"  incomplete: {event.incomplete}", Style.BAD))
        data = event.data.encode("utf-8", "replace")
        return [first, *preview(data, limits=self._limits, json_like=data.startswith((b"{", b"[{")))]

    def _end(self, key: BodyKey, told: Facts) -> list[Line]:
        body = self._bodies.pop(key, Body())
        note = facts.text(told, "incomplete")
        if note:
            body.notes.append(note)
        fields = facts.mapping(told, "fields")
        body.stream = facts.number(fields, "stream")
        lines = self._body_lines(body, whole=not body.notes) if body.length or body.notes else []
        if body.events is not None:
            lines = [line for event in body.events.end() for line in self._event(event, body.stream)]
            lines += [(Span(f"incomplete: {words}", Style.BAD),) for words in dict.fromkeys(body.notes)]
        return [
            *lines,
            *([_summary(told)] if facts.text(told, "summary") else []),
            *(
                (Span("trailer ", Style.FAINT), Span(f"{name}: {veiled(name, value)}"))
                for name, value in map(pair_of, facts.sequence(fields, "trailers"))
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
    stream = facts.number(facts.mapping(told, "fields"), "stream")
    if stream is not None:
        spans.append(Span(f"  stream {stream}", Style.FAINT))
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
    if body.stream is not None:
        words.append(f"stream {body.stream}")
    title = Span("· " + " · ".join(words), Style.FAINT)
    return (title, Span(f" · {note}", Style.DOUBTFUL)) if note else (title,)
