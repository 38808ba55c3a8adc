"""What was said over HTTP, request by request: both heads and bodies, and when.

What lives here: records in, exchanges out, each once it is over. What must not: HAR, layout.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

from capd.cli import facts
from capd.cli.facts import Facts
from capd.cli.http_body import Body
from capd.cli.pieces import pieces_of
from capd.cli.window import Window
from capd.recording.record import Direction, Kind, Record

EXCHANGES_OPEN_MAX: Final = 1024
"""Requests without an answer that are waited for; pipelining clients stop far below."""
APPLICATION: Final = frozenset({"", "application"})


@dataclass(slots=True, kw_only=True)
class Half:
    """A request, or a response.

    Attributes:
        told: the body of its head's record.
        head_ns, end_ns: when its head was whole, and its end.
        body: what came of its body.
        ended: whether its end came.
    """

    told: Facts
    head_ns: int
    end_ns: int
    body: Body
    ended: bool = False

    @property
    def fields(self) -> Facts:
        """What the decoder says of the head."""
        return facts.mapping(self.told, "fields")

    @property
    def head_bytes(self) -> int:
        """Bytes of the head; -1 when nobody knows."""
        start, end = facts.number(self.told, "start"), facts.number(self.told, "end")
        return end - start if start is not None and end is not None and end >= start else -1


@dataclass(slots=True, kw_only=True)
class Exchange:
    """A request and its answer; each None when it is not in the recording.

    Attributes:
        number: of the exchange in its session; None when the decoder could not tell.
        halves: request, response.
        interim: status of answers before the one that counts (1xx).
        notes: what was missing or masked while it went on, in words.
    """

    number: int | None
    halves: dict[Direction, Half] = field(default_factory=dict)
    interim: list[int] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def over(self) -> bool:
        """Whether both came to their end."""
        return len(self.halves) == len(Direction) and all(half.ended for half in self.halves.values())


class HttpExchanges:
    """Takes the records of one session, in recorded order."""

    def __init__(self, body_bytes_max: int) -> None:
        """Begin; of each body no more than so many bytes are kept."""
        self._body_bytes_max = body_bytes_max
        self._windows = {direction: Window(body_bytes_max) for direction in Direction}
        self._left_out = dict.fromkeys(Direction, False)
        self._open: dict[int | None, Exchange] = {}

    def feed(self, record: Record) -> Iterator[Exchange]:
        """Take the next record; give the exchanges that are over with it."""
        direction = record.direction
        if record.kind is Kind.DATA and direction is not None and facts.text(record.body, "layer") in APPLICATION:
            payload = facts.payload(record.body, "payload")
            self._left_out[direction] = not payload and facts.number(record.body, "length") is not None
            self._windows[direction].put(facts.number(record.body, "position"), payload)
        elif record.kind is Kind.MESSAGE and direction is not None:
            yield from self._message(direction, record)

    def note(self, words: str) -> None:
        """Note what concerns every exchange that is not over."""
        for exchange in self._open.values():
            exchange.notes.append(words)

    def finish(self) -> Iterator[Exchange]:
        """Give what did not come to its end."""
        yield from self._open.values()
        self._open.clear()

    def _message(self, direction: Direction, record: Record) -> Iterator[Exchange]:
        told = record.body
        kind = facts.text(told, "type")
        start, end = facts.number(told, "start"), facts.number(told, "end")
        span = b"" if start is None or end is None else self._windows[direction].take(start, end, pieces_of(told))
        content = facts.payload(told, "content") or span
        number = facts.number(told, "exchange")
        if kind == "PUSH_PROMISE":
            self._promised(record)
            return
        exchange = self._open.get(number)
        if kind == "RST_STREAM" and exchange is not None:
            exchange.notes.append(f"{facts.text(told, 'summary')} of the {direction.name.lower()}")
            yield self._open.pop(number)
            return
        if kind in {"request", "response"}:
            if exchange is not None and direction in exchange.halves:
                yield from self._again(exchange, direction)
                exchange = self._open.get(number)
            if exchange is None:
                exchange = self._open[number] = Exchange(number=number)
            body = Body.after(facts.mapping(told, "fields"))
            exchange.halves[direction] = Half(told=told, head_ns=record.time_ns, end_ns=record.time_ns, body=body)
        half = None if exchange is None else exchange.halves.get(direction)
        if exchange is None or half is None:
            return
        half.end_ns = record.time_ns
        if kind == "body":
            half.body.take(told, content, self._body_bytes_max)
            half.body.left_out = half.body.left_out or self._left_out[direction]
        elif note := facts.text(told, "incomplete"):
            half.body.notes.append(note)
        half.ended = half.ended or kind == "end"
        if exchange.over:
            yield self._open.pop(number)
        elif len(self._open) > EXCHANGES_OPEN_MAX:
            yield self._open.pop(next(iter(self._open)))

    def _promised(self, record: Record) -> None:
        """A server says by itself which request its next answer is for (RFC 9113 section 8.4)."""
        fields = facts.mapping(record.body, "fields")
        number = facts.number(fields, "promised")
        half = Half(told=record.body, head_ns=record.time_ns, end_ns=record.time_ns, body=Body.after(fields), ended=True)
        self._open[number] = Exchange(number=number, halves={Direction.REQUEST: half}, notes=["promised by the server"])

    def _again(self, exchange: Exchange, direction: Direction) -> Iterator[Exchange]:
        """A second head where one was: an answer after an interim one, or another exchange that nobody could number."""
        half = exchange.halves[direction]
        status = facts.number(half.fields, "status")
        if direction is Direction.RESPONSE and (facts.flag(half.fields, "interim") or not half.ended) and status is not None:
            exchange.interim.append(status)
            del exchange.halves[direction]
        else:
            yield self._open.pop(exchange.number)
