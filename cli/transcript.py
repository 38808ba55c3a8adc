"""A session as a transcript: records in, blocks of lines out.

What lives here: what a person is told about each kind of record, and in which order. Pure: no clock, no files, no terminal.
What must not: layout of a protocol's messages (http_lines, mysql_lines, postgresql_lines, redis_lines).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Final

from capd.cli import facts, moments
from capd.cli.decision import decision_line, is_stopped
from capd.cli.facts import Facts
from capd.cli.line import Line, Span, Style
from capd.cli.payload import Limits, preview
from capd.cli.pieces import pieces_of
from capd.cli.summary import tls_words
from capd.cli.window import Window
from capd.recording.record import Direction, Kind, Record, Value

if TYPE_CHECKING:
    from capd.cli.http_lines import BodyKey, HttpLines
    from capd.cli.mysql_lines import MysqlLines
    from capd.cli.postgresql_lines import PostgresqlLines
    from capd.cli.redis_lines import RedisLines

# Requests without an answer that are remembered, to say how long it took; pipelining clients stop far below.
ASKED_MAX: Final = 1024
DECODED: Final = frozenset({"http1", "http2", "mysql", "postgresql", "redis", "websocket"})
# Undecoded bytes that follow each other are shown as one payload up to this many, so that a byte-wise writer stays readable.
RAW_TOGETHER_BYTES_MAX: Final = 16 * 1024
MASKED_PLACES_SHOWN_MAX: Final = 8


@dataclass(frozen=True, kw_only=True, slots=True)
class Block:
    """What is shown together: one message, one gap, one event.

    Attributes:
        time_ns: when, wall time.
        direction: whose; None when it concerns both or none.
        lines: what is said.
        ordinal: number of the message in its session, the first of several that are shown together; None if it is none.
        through: number of the last of them.
        warning: whether it tells of something missing or wrong, which no filter may hide.
    """

    time_ns: int
    direction: Direction | None
    lines: list[Line]
    ordinal: int | None = None
    through: int | None = None
    warning: bool = False


class Transcript:
    """Turns the records of one session, in recorded order, into blocks."""

    def __init__(self, limits: Limits, *, protocol: str = "") -> None:
        """Begin.

        Args:
            limits: how much of long things is shown.
            protocol: of the session, if it is known: bytes of a decoded one are shown as what they say, not as they are.
        """
        self._limits = limits
        self._windows = {direction: Window(limits.body_bytes) for direction in Direction}
        self._decoded = dict.fromkeys(Direction, protocol in DECODED)
        self._waiting: dict[BodyKey, Record] = {}
        """The first part of each body that is not shown yet, because more of the same body may follow."""
        self._last: dict[BodyKey, Record] = {}
        self._http_spoken = False
        self._asked: dict[int, int] = {}
        self._raw: dict[Direction, tuple[int, bytearray, int]] = {}
        self._told: dict[Kind, Callable[[Record], list[Block]]] = {
            Kind.DATA: self._data,
            Kind.MESSAGE: self._message,
            Kind.GAP: self._gap,
            Kind.MARKER: self._marker,
            Kind.MASKED: self._masked,
            Kind.VERDICT: self._verdict,
        }

    @cached_property
    def _http(self) -> HttpLines:
        from capd.cli.http_lines import HttpLines  # noqa: PLC0415 - a replay pays for the protocols that were spoken

        return HttpLines(self._limits)

    @cached_property
    def _postgresql(self) -> PostgresqlLines:
        from capd.cli.postgresql_lines import PostgresqlLines  # noqa: PLC0415 - as above

        return PostgresqlLines(self._limits)

    @cached_property
    def _redis(self) -> RedisLines:
        from capd.cli.redis_lines import RedisLines  # noqa: PLC0415 - as above

        return RedisLines(self._limits)

    @cached_property
    def _mysql(self) -> MysqlLines:
        from capd.cli.mysql_lines import MysqlLines  # noqa: PLC0415 - as above

        return MysqlLines(self._limits)

    def feed(self, record: Record) -> list[Block]:
        """Take the next record; give the blocks that are now ready to show."""
        tell = self._told.get(record.kind)
        return [] if tell is None else tell(record)

    def pending(self) -> list[Block]:
        """Give what was held back to be shown together with what follows: at the end, or when nothing follows for a while."""
        blocks = [block for key in list(self._waiting) for block in self._pending_body(key)]
        blocks += [block for direction in Direction for block in self._pending_raw(direction)]
        return sorted(blocks, key=lambda block: block.time_ns)

    def _data(self, record: Record) -> list[Block]:
        direction = record.direction
        if direction is None or facts.text(record.body, "layer") not in {"", "application"}:
            return []
        payload = facts.payload(record.body, "payload")
        position = facts.number(record.body, "position")
        self._windows[direction].put(position, payload)
        if self._decoded[direction]:
            return []
        blocks = self._pending_raw(Direction(1 - direction))
        peer = facts.mapping(record.body, "peer")
        if peer:
            # A datagram is a message of its own, and the next one may go elsewhere.
            return [*blocks, _block(record, self._datagram(direction, peer, payload))]
        time_ns, kept, length = self._raw.pop(direction, (record.time_ns, bytearray(), 0))
        kept += payload[: max(self._limits.body_bytes - len(kept), 0)]
        self._raw[direction] = (time_ns, kept, length + len(payload))
        if length + len(payload) >= RAW_TOGETHER_BYTES_MAX:
            blocks += self._pending_raw(direction)
        return blocks

    def _message(self, record: Record) -> list[Block]:
        direction = record.direction
        told = record.body
        if direction is None:
            return [_block(record, [_generic(told)])]
        if not self._decoded[direction]:
            # Its bytes were waiting to be shown as they are; now they are shown as what they say.
            self._decoded[direction] = True
            self._raw.pop(direction, None)
        content = self._content(direction, told)
        protocol, kind = facts.text(told, "protocol"), facts.text(told, "type")
        key = (direction, facts.number(told, "exchange"))
        held: list[Block] = []
        if protocol == "postgresql":
            lines = self._postgresql.message(told, content)
        elif protocol == "redis":
            lines = self._redis.message(told)
        elif protocol == "mysql":
            lines = self._mysql.message(told, content)
        elif protocol.startswith("http"):
            held = self._pending_body(key) if kind in {"request", "response"} else []
            lines = self._http.message(direction, told, content)
            self._http_spoken = True
        elif protocol == "websocket":
            lines = self._said(told, content)
        else:
            lines = [_generic(told)]
        if kind == "body":
            self._last[key] = record
        elif kind == "end":
            self._last.pop(key, None)
        if not lines:
            if kind == "body":
                self._waiting.setdefault(key, record)
            return held
        first = self._waiting.pop(key, record)
        lines[0] = (*lines[0], *self._waited(record, facts.number(told, "exchange")))
        return [*held, _block(record, lines, first=first, warning=bool(facts.text(told, "incomplete")))]

    def _said(self, told: Facts, content: bytes) -> list[Line]:
        """Say a message of WebSocket."""
        kind, note = facts.text(told, "type"), facts.text(told, "incomplete")
        if kind in {"ping", "pong"} and not self._limits.everything:
            return []
        first: Line = (Span(facts.text(told, "summary"), Style.STRONG),)
        if note:
            first = (*first, Span(f"  incomplete: {note}", Style.BAD))
        shown = content[: self._limits.body_bytes] if kind != "close" else b""
        lines = preview(shown, limits=self._limits, json_like=shown[:1] in {b"{", b"["}, total=len(content)) if shown else []
        return [first, *lines]

    def _waited(self, record: Record, exchange: int | None) -> Line:
        """Give how long the first answer took, once."""
        if exchange is None:
            return ()
        if record.direction is Direction.REQUEST:
            self._asked.setdefault(exchange, record.time_ns)
            if len(self._asked) > ASKED_MAX:
                self._asked.pop(next(iter(self._asked)))
            return ()
        asked_ns = self._asked.pop(exchange, None)
        return () if asked_ns is None else (Span(f"  after {moments.span(record.time_ns - asked_ns)}", Style.FAINT),)

    def _content(self, direction: Direction, told: Facts) -> bytes:
        window = self._windows[direction]
        content = facts.payload(told, "content")
        start, end = facts.number(told, "start"), facts.number(told, "end")
        if start is None or end is None:
            return content
        taken = window.take(start, end, pieces_of(told))
        return content or taken

    def _gap(self, record: Record) -> list[Block]:
        line = gap_line(record.direction, record.body, layer=facts.text(record.body, "layer"))
        if self._http_spoken:
            for direction in Direction if record.direction is None else (record.direction,):
                self._http.lost(direction, "bytes lost")
        return [*self.pending(), _block(record, [line], warning=True)]

    def _masked(self, record: Record) -> list[Block]:
        return [_block(record, [masked_line(record.direction, record.body)])]

    def _verdict(self, record: Record) -> list[Block]:
        return [*self.pending(), _block(record, [decision_line(record.body)], warning=is_stopped(record.body))]

    def _marker(self, record: Record) -> list[Block]:
        name = facts.text(record.body, "name")
        if name == "witness":
            style = Style.BAD if record.body.get("alarm") is True else Style.DOUBTFUL
            words = f"WITNESS {facts.text(record.body, 'finding')}"
            return [*self.pending(), _block(record, [(Span(words, style),)], warning=True)]
        if name == "decoder":
            offset = facts.number(record.body, "offset")
            words = f"decoder gave up at byte {offset}: {facts.text(record.body, 'error')}; what follows is shown as it is"
            for direction in Direction if record.direction is None else (record.direction,):
                self._decoded[direction] = False
            return [_block(record, [(Span(words, Style.BAD),)], warning=True)]
        if name == "skipped":
            start, end = facts.number(record.body, "start") or 0, facts.number(record.body, "end") or 0
            words = f"{max(end - start, 0):,} bytes at byte {start:,} not decoded: {facts.text(record.body, 'reason')}"
            return [*self.pending(), _block(record, [(Span(words, Style.DOUBTFUL),)], warning=True)]
        return [*self.pending(), _block(record, [(Span(marker_words(record.body), Style.FAINT),)])]

    def _pending_body(self, key: BodyKey) -> list[Block]:
        first = self._waiting.pop(key, None)
        lines = [] if first is None else self._http.pending(key)
        if first is None or not lines:
            return []
        return [_block(self._last[key], lines, first=first)]

    def _datagram(self, direction: Direction, peer: Facts, payload: bytes) -> list[Line]:
        toward = "to" if direction is Direction.REQUEST else "from"
        host, port = facts.text(peer, "host"), facts.text(peer, "port")
        head = f"· {len(payload):,} bytes {toward} {f'[{host}]' if ':' in host else host}:{port}"
        return [(Span(head, Style.FAINT),), *preview(payload, limits=self._limits, total=len(payload))]

    def _pending_raw(self, direction: Direction) -> list[Block]:
        waiting = self._raw.pop(direction, None)
        if waiting is None:
            return []
        time_ns, kept, length = waiting
        if not length:
            return []
        shown = preview(bytes(kept), limits=self._limits, total=length)
        lines: list[Line] = [(Span(f"· {length:,} bytes", Style.FAINT),), *shown]
        return [Block(time_ns=time_ns, direction=direction, lines=lines)]


def gap_line(direction: Direction | None, told: Facts, *, layer: str = "") -> Line:
    """Give the line that says what is missing, where and why."""
    length = facts.number(told, "length")
    position = facts.number(told, "position")
    missing = "an unknown number of bytes" if length is None else "1 byte" if length == 1 else f"{length:,} bytes"
    words = [f"GAP {missing} missing"]
    if direction is not None:
        words.append(f"from the {direction.name.lower()}")
    if layer not in {"", "application"}:
        words.append(f"({layer})")
    if position is not None:
        words.append(f"at byte {position:,}")
    reason = facts.text(told, "reason") or "unknown"
    detail = facts.text(told, "detail")
    return (Span(" ".join(words) + f": {reason}" + (f" ({detail})" if detail else ""), Style.BAD),)


def masked_line(direction: Direction | None, told: Facts) -> Line:
    """Give the line that says what was masked before it was stored: what kind, how much and where, never the value."""
    places = [facts.sequence_of(place) for place in facts.sequence(told, "places")]
    spans = [span for place in places if (span := _span_of(place)) is not None]
    kind = facts.text(told, "kind") or ", ".join(facts.mapping(told, "entities")) or "of an unknown kind"
    words = [f"MASKED {kind}"]
    if spans:
        total = sum(length for _, length in spans)
        where = ", ".join(f"{start:,}" for start, _ in spans[:MASKED_PLACES_SHOWN_MAX])
        more = f" and {len(spans) - MASKED_PLACES_SHOWN_MAX:,} more places" if len(spans) > MASKED_PLACES_SHOWN_MAX else ""
        side = "" if direction is None else f" of the {direction.name.lower()}"
        words.append(f"{total:,} byte{'' if total == 1 else 's'}{side} at byte {where}{more}")
    rule = facts.text(told, "rule")
    return (Span(" ".join(words) + (f" (rule {rule})" if rule else ""), Style.DOUBTFUL),)


def _span_of(place: Sequence[Value]) -> tuple[int, int] | None:
    start, length = (*place[:2], None, None)[:2]
    return (start, length) if isinstance(start, int) and isinstance(length, int) else None


def marker_words(told: Facts) -> str:
    """Give a marker in words."""
    name = facts.text(told, "name")
    if name == "tls":
        version = facts.text(told, "version")
        return f"TLS{f' {version}' if version else ''}: {tls_words(facts.text(told, 'library'), facts.text(told, 'tie'))}"
    if name == "protocol":
        return f"protocol {facts.text(told, 'protocol')}"
    details = ", ".join(f"{key} {facts.text_of(value)}" for key, value in told.items() if key != "name")
    return f"{name}: {details}" if details else name


def _generic(told: Facts) -> Line:
    return (Span(facts.text(told, "type") + " ", Style.FAINT), Span(facts.text(told, "summary"), Style.STRONG))


def _block(record: Record, lines: list[Line], *, first: Record | None = None, warning: bool = False) -> Block:
    through = facts.number(record.body, "ordinal") if record.kind is Kind.MESSAGE else None
    return Block(
        time_ns=record.time_ns,
        direction=record.direction,
        lines=lines,
        ordinal=through if first is None else facts.number(first.body, "ordinal"),
        through=through,
        warning=warning,
    )
