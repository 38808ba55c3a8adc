"""One session's records on their way to the recording: judged, masked, in order.

What lives here: which bytes wait for which message, what of a record is shown at which level. What must not: looking for
secrets (enforcer/masking), other sessions, when anything is stored.

Records leave in the order in which they came; one that cannot be judged yet holds those behind it. What was said last of an
unfinished message waits for its end, which for a protocol that is not decoded means: for some bytes at most.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from typing import Final, cast
from uuid import UUID

from capd.daemon.masking.levels import Level, Levels
from capd.daemon.masking.session_level import SessionLevel
from capd.daemon.masking.shown import Shown
from capd.daemon.masking.side import Side
from capd.daemon.masking.tally import Tally
from capd.daemon.masking.undecided import UNDECIDED, Undecided
from capd.daemon.masking.waiting import Waiting, begin_of
from capd.enforcer.masking.database import DATABASES, DatabaseMask, mask_of
from capd.enforcer.masking.http import HttpMask
from capd.enforcer.masking.http2 import Http2Mask
from capd.enforcer.masking.place import Place, filled
from capd.enforcer.masking.rules import Rules
from capd.enforcer.masking.scanner import CUT_OFF
from capd.enforcer.masking.websocket import WebsocketMask
from capd.recording.record import Direction, Kind, Record, Value

KEPT_BYTES_MAX: Final = 1024 * 1024
"""While something waits, bytes that nothing needs are let go when there are so many."""
HELD_BYTES_MAX: Final = 20 * 1024 * 1024
"""What may wait in a session: the longest statement that a decoder holds, and room. Beyond it bytes are judged as they come."""
DIRECTIONS: Final = (0, 1)
HTTP2: Final = "http2"
WEBSOCKET: Final = "websocket"
CODED: Final = frozenset({HTTP2, WEBSOCKET})
"""Protocols whose bytes are no text: what belongs to no message is hidden."""
PARTED: Final = frozenset({"body", "tunnel"})
HTTP: Final = frozenset({"http1"}) | CODED
"""HTTP, and what it goes over to."""
TLS: Final = "tls"
DECODED: Final = HTTP | DATABASES


_Saved = tuple[
    Mapping[str, Value],
    str | None,
    int | None,
    list[Sequence[object]],
    list[Sequence[object]],
    list[Sequence[object]],
    Sequence[int],
    tuple[Mapping[str, list[int]], list[int]],
    list[object],
]


class MaskedSession:
    """One session."""

    def __init__(self, identity: UUID, rules: tuple[Rules, Rules], levels: Levels, shown: Shown) -> None:
        """Begin with the rules for what is decoded and for what is not, and the levels."""
        self.id = identity
        self._rules, undecoded = rules
        self.extent = SessionLevel(levels)
        self._shown = shown
        self.protocol: str | None = None
        self.queue: deque[Waiting] = deque()
        self.sides = [Side(undecoded), Side(undecoded)]
        self.wire = [Side(undecoded), Side(undecoded)]
        self.http = self._http_masks()
        self.database: DatabaseMask | None = None
        self.authenticated = False
        self.upgrading = False
        """HTTP/1 was asked to go over to a protocol whose bytes are no text, and nobody knows that it does not."""
        self.blind = False
        """Bytes were missing before it was known which protocol it is: it may be one that has columns."""
        self.tally = Tally()
        self.undecided = Undecided()
        self.closed = False
        self.failed = False

    def _http_masks(self) -> list[HttpMask | Http2Mask | WebsocketMask]:
        masks: dict[str | None, type[Http2Mask | WebsocketMask]] = {HTTP2: Http2Mask, WEBSOCKET: WebsocketMask}
        mask = masks.get(self.protocol, HttpMask)
        return [mask(self._rules) for _ in DIRECTIONS]

    # -- over the recorder's end

    def save(self) -> list[object]:
        """Give its state as plain values."""
        queue = [one.save() for one in self.queue]
        sides = [side.save() for side in (*self.sides, *self.wire)]
        masks = [self.http[0].save(), self.http[1].save(), [] if self.database is None else self.database.save()]
        told = None if self.extent.told is None else int(self.extent.told)
        tally = [self.tally.masked, [int(level) for level in self.tally.levels]]
        seen = [self.authenticated, self.blind, self.upgrading, int(self.extent.floor)]
        return [self.extent.facts, self.protocol, told, queue, sides, masks, seen, tally, self.undecided.save()]

    def restore(self, saved: Sequence[object]) -> None:
        """Take the state of one that was saved."""
        facts, protocol, told, queue, sides, masks, seen, tally, undecided = cast("_Saved", tuple(saved))
        self.undecided.restore(undecided)
        self.extent.facts, self.protocol = dict(facts), protocol
        self.http = self._http_masks()
        authenticated, blind, upgrading, *floor = seen
        self.authenticated, self.blind, self.upgrading = bool(authenticated), bool(blind), bool(upgrading)
        self.extent.floor = Level(floor[0]) if floor else Level.FULL
        self.extent.told = None if told is None else Level(told)
        self.queue.extend(map(Waiting.restored, queue))
        for side, state in zip((*self.sides, *self.wire), sides, strict=True):
            side.restore(state)
        for mask, state in zip(self.http, masks[:2], strict=True):
            mask.restore(state)
        self.database = mask_of(self.protocol, self._rules)
        if self.database is not None:
            self.database.restore(masks[2])
        masked, levels = tally
        self.tally = Tally({kind: list(count) for kind, count in masked.items()}, [Level(level) for level in levels])
        self.extent.choose(self.protocol)

    # -- records in ------------------------------------------------------------------------------------------------------------

    def take(self, record: Record) -> None:
        """Take the next record."""
        waiting = Waiting(record)
        self.queue.append(waiting)
        kind = record.kind
        if kind is Kind.OPEN:
            self._learn(record.body)
        elif kind is Kind.MARKER:
            self._marker(record)
        elif kind is Kind.CLOSE:
            self._end()
        if self.level is not Level.MASKED and self.certain:
            return
        if kind is Kind.DATA:
            self._data(record)
        elif kind is Kind.MESSAGE:
            self._message(waiting)
        elif kind is Kind.GAP:
            self._gap(record)

    def _end(self) -> None:
        """Nothing more is told; of which nothing could be read, TLS is known all the same."""
        if self.protocol is None and any(side.end for side in self.wire) and not any(side.end for side in self.sides):
            self.protocol = TLS
            self.extent.choose(self.protocol)
        self.extent.certain = self.closed = True
        if not self.failed:
            self._close()

    @property
    def level(self) -> Level:
        """How much is recorded; while that is not certain, the least that it may be."""
        return self.extent.now

    @property
    def certain(self) -> bool:
        """Whether that is certain."""
        return self.extent.certain

    def _learn(self, body: Mapping[str, Value]) -> None:
        self.blind = self.blind or bool(body.get("mid_stream"))
        self.extent.learn(body, self.protocol)

    def note(self, record: Record) -> None:
        """Learn what decides of a record that passes as it is, since all levels are one for now."""
        self.extent.told = self.level
        if record.kind is Kind.OPEN:
            self._learn(record.body)
        elif record.kind is Kind.MARKER and record.body.get("name") in ("protocol", "tls"):
            self._marker(record)
        self.closed = record.kind is Kind.CLOSE

    def _marker(self, record: Record) -> None:
        body = record.body
        name = body.get("name")
        if name == "protocol":
            protocol = body.get("protocol")
            self.protocol = protocol if isinstance(protocol, str) else None
            self.extent.choose(self.protocol)
            self.http = self._http_masks()
            self.database = mask_of(self.protocol, self._rules)
            self.authenticated = self.upgrading = False
            for side in self.sides:
                side.raw = False
        elif name == "tls":
            self.extent.opened_tls(self.protocol)
        elif name == "skipped" and record.direction is not None:
            self._skipped(record.direction, body.get("start"), body.get("end"))
        elif name in ("decoder", "resumed"):
            for direction in DIRECTIONS if record.direction is None else (record.direction,):
                self.sides[direction].raw = True

    def _skipped(self, direction: int, start: Value, end: Value) -> None:
        side, mask = self.sides[direction], self.http[direction]
        if not isinstance(mask, HttpMask) and isinstance(start, int) and isinstance(end, int):
            # Other streams may have said something before that waits for its rest, which is judged by itself.
            side.mask(Place(at, at + len(data), UNDECIDED, "not decoded") for at, data in side.parts(start, end))
            mask.passed_over(end)
            side.covered = max(side.covered, end)
        elif isinstance(end, int):
            self._look(side, direction, min(end, side.end), final=False)
            side.covered = max(side.covered, end)
        side.raw = True

    def _data(self, record: Record) -> None:
        payload, position, direction = record.body.get("payload"), record.body.get("position"), record.direction
        if direction is None or not isinstance(payload, bytes) or not isinstance(position, int) or not payload:
            return
        self._side(record).append(position, payload)

    def _side(self, record: Record) -> Side:
        sides = self.wire if record.body.get("layer") == "wire" else self.sides
        return sides[record.direction or 0]

    def _gap(self, record: Record) -> None:
        length = record.body.get("length")
        lost = length if isinstance(length, int) else 0
        wire = record.body.get("layer") == "wire"
        self.blind = self.blind or (not wire and self.protocol is None)
        for direction in DIRECTIONS if record.direction is None else (record.direction,):
            side = (self.wire if wire else self.sides)[direction]
            if wire or self.protocol not in DECODED:
                if not wire:
                    self._look(side, direction, side.end, final=False)
                side.lose(lost)
                continue
            if self.protocol in HTTP:
                side.told(self.http[direction].gap(lost), self.http[direction].decided)
            if self._hides_all(direction):
                side.hide(side.end, UNDECIDED, CUT_OFF)
            side.lose(lost)

    # -- judging ---------------------------------------------------------------------------------------------------------------

    def _hides_all(self, direction: int) -> bool:
        """Say whether bytes of the protocol that belong to no message must be masked: nobody can say what they are."""
        if self.protocol in CODED or self.upgrading:
            return True
        if self.database is None:
            return self.blind and self.protocol not in DECODED and bool(self._rules.columns)
        return not self.authenticated or self.database.hides(answers=direction == Direction.RESPONSE)

    def _look(self, side: Side, direction: int, end: int, *, final: bool) -> None:
        """Judge bytes that belong to no message."""
        if self._hides_all(direction):
            side.hide(end, UNDECIDED, "not decoded")
        else:
            side.scan(end, final=final)

    def _message(self, waiting: Waiting) -> None:
        record = waiting.record
        body, direction = record.body, record.direction
        kind, start, end = body.get("type"), body.get("start"), body.get("end")
        if direction is None or not isinstance(kind, str) or not isinstance(start, int) or not isinstance(end, int):
            return
        side = self.sides[direction]
        if self.protocol in CODED and start > side.covered:
            self._skipped(direction, side.covered, start)
        fields = body.get("fields")
        fields = fields if isinstance(fields, Mapping) else {}
        if self.database is not None and (authenticates := self.database.authenticates(kind)) is not None:
            self.authenticated = authenticates
        begun = waiting.begun = side.judged > start
        # Framing of a body may have been let go before it was told of; what comes behind it cannot be read without it.
        framed = self.protocol in HTTP and kind == "body"
        parts = side.parts(start if framed else max(start, side.judged), end)
        whole = not begun and len(parts) <= 1 and sum(len(raw) for _, raw in parts) == end - start
        if not begun:
            side.stop_scanning()
        side.covered, side.raw = max(side.covered, end), False
        if self.protocol in HTTP:
            self._http(direction, waiting, parts, end, begun=begun, whole=whole)
            return
        database = self.database
        if database is None:
            side.scan(end, final=True)
            return
        exchange = cast("int | None", body.get("exchange"))
        if whole and not database.watches(kind, fields, parts, exchange) and not (parts and self._rules.may_hold(parts[0][1])):
            waiting.quiet = kind not in database.quiet
        else:
            if begun:
                side.scan(end, final=True)
            for position, raw in parts or [(end, b"")]:
                side.mask(database.message(kind, fields, raw, position, whole=whole, exchange=exchange))
        side.judged = max(side.judged, end)

    def _http(
        self, direction: int, waiting: Waiting, parts: list[tuple[int, bytes]], end: int, *, begun: bool, whole: bool
    ) -> None:
        side, body = self.sides[direction], waiting.record.body
        kind, fields = str(body.get("type")), body.get("fields")
        fields = fields if isinstance(fields, Mapping) else {}
        mask, coded = self.http[direction], self.protocol in CODED
        waiting.quiet = not coded and whole and kind not in PARTED and not (parts and self._rules.may_hold(parts[0][1]))
        if begun and kind != "body":
            if kind == "preface":  # which holds nothing that anybody chose
                side.scan(end, final=True)
            self._look(side, direction, end, final=True)
            parts = []
        pieces: list[tuple[int, int]] = []
        if isinstance(mask, WebsocketMask):
            mask.content = cast("bytes | None", body.get("content"))
        for position, raw in parts or [(end, b"")]:
            side.mask(mask.message(kind, fields, raw, position, whole=whole))
            pieces += mask.pieces if kind == "body" else []
        if kind == "body":
            waiting.pieces = pieces
        elif not (coded or (isinstance(mask, HttpMask) and mask.goes_on(kind))):
            side.judged = max(side.judged, end)
        if isinstance(mask, WebsocketMask):
            waiting.said = mask.shown
        elif isinstance(mask, HttpMask):
            self.upgrading = mask.upgrades(kind, fields, already=self.upgrading)
        if isinstance(other := self.http[1 - direction], Http2Mask):
            self.sides[1 - direction].mask(other.other_said(kind, fields))

    def _advance(self, direction: int) -> None:
        """Judge what was told of."""
        if self.protocol in HTTP:
            side, mask = self.sides[direction], self.http[direction]
            side.mask(mask.judge())
            side.judged = max(side.judged, min(mask.decided, side.covered))

    def settle(self) -> None:
        """Nothing more comes for now: judge what does not need what comes later."""
        if self.failed or (self.level is not Level.MASKED and self.certain):
            return
        for direction in DIRECTIONS:
            side = self.sides[direction]
            if self.protocol in HTTP:
                self._advance(direction)
                if side.judged >= side.covered and side.waiting and not side.raw:
                    tail = side.parts(side.covered, side.end)
                    if len(tail) == 1 and self.http[direction].harmless(tail[0][1]):
                        side.judged = side.end
            if side.waiting and side.judged >= side.covered and (self.protocol not in DECODED or side.raw):
                self._look(side, direction, side.end, final=False)
            if side.waiting > HELD_BYTES_MAX:
                self._force(side, direction)
        for side in self.wire:
            side.scan(side.end, final=False)

    def _force(self, side: Side, direction: int) -> None:
        """Too much waits: from here on bytes are judged as they come."""
        if self.protocol in HTTP:
            side.mask(self.http[direction].cut())
            side.judged = max(side.judged, side.covered)
        side.raw = True
        self._look(side, direction, side.end, final=False)

    def _close(self) -> None:
        for direction in DIRECTIONS:
            side = self.sides[direction]
            if self.protocol in HTTP:
                side.told(self.http[direction].end(), side.covered)
            self._look(side, direction, side.end, final=True)
        for side in self.wire:
            side.scan(side.end, final=True)

    def cut(self) -> None:
        """The recorder ends: let go of everything, masked where it may be the beginning of something."""
        self.settle()
        for direction, side in enumerate(self.sides):
            if side.waiting:
                self._cut(side, direction)
        for side in self.wire:
            side.cut()

    def _cut(self, side: Side, direction: int) -> None:
        """Let go of a direction."""
        if self.protocol in HTTP:
            mask = self.http[direction]
            side.told(mask.cut(), side.covered)
            if isinstance(mask, HttpMask) and mask.in_body and not side.raw:
                # It is kept until its message comes, for what follows cannot be read without it; nobody can say what it is.
                side.hide(side.end, UNDECIDED, CUT_OFF)
                return
        if self.database is None:
            self._look(side, direction, side.end, final=False)
        side.cut(rest_too=self.database is not None)
        side.raw = True

    def fail(self, where: str, time_ns: int) -> Iterator[Record]:
        """Masking itself failed here, which is a defect of capd: nothing that was said is stored of this session any more.

        Gives what says so; the records themselves are given by `release`.
        """
        self.failed = True
        self.extent.fix(Level.METADATA)
        self.tally.failed = True
        body: dict[str, Value] = {"name": "masking", "error": where}
        yield Record(Kind.MARKER, self.id, time_ns, None, body)

    # -- records out -----------------------------------------------------------------------------------------------------------

    def release(self, *, all_of_them: bool = False) -> Iterator[Record]:
        """Give what can be stored now, in order; `all_of_them` though the level may not be known for certain."""
        queue = self.queue
        while queue:
            waiting = queue[0]
            held = waiting.record.kind not in (Kind.OPEN, Kind.CLOSE) and not (self.certain or all_of_them)
            if held or not self._ready(waiting.record):
                break
            yield from self._out(waiting)
            queue.popleft()
        if self.level is Level.MASKED or not self.certain:
            self._forget()

    def _forget(self) -> None:
        """Let go of bytes that no record needs any more."""
        for sides in (self.sides, self.wire):
            for direction, side in enumerate(sides):
                if not self.queue:
                    framed = sides is self.sides and self.protocol in HTTP and not side.raw
                    side.forget(min(side.judged, side.covered) if framed else side.judged)
                elif side.kept > KEPT_BYTES_MAX:
                    needed = (begin_of(waiting.record) for waiting in self.queue if waiting.record.direction == direction)
                    side.forget(min(needed, default=side.judged))

    @property
    def held_bytes(self) -> int:
        """Bytes that are kept of what came."""
        return sum(side.kept for side in (*self.sides, *self.wire))

    def _ready(self, record: Record) -> bool:
        if self.level is not Level.MASKED or record.direction is None:
            return True
        if record.kind is Kind.DATA:
            payload, position = record.body.get("payload"), record.body.get("position")
            size = len(payload) if isinstance(payload, bytes) else 0
            return not size or not isinstance(position, int) or position + size <= self._side(record).judged
        end = record.body.get("end") if record.kind is Kind.MESSAGE else None
        side = self.sides[record.direction]
        return not isinstance(end, int) or not side.judged < end <= side.end  # behind the end: its bytes never came

    def _out(self, waiting: Waiting) -> Iterator[Record]:
        record = waiting.record
        if record.kind is Kind.OPEN:
            yield self._shown.opened(record, self.level) if self.level is not Level.FULL else record
            if self.certain:
                yield from self._tell(record)
            return
        if self.extent.now is not self.extent.told:
            yield from self._tell(record)
        if record.kind is Kind.CLOSE:
            yield self.tally.closed(record)
        elif self.level is Level.FULL:
            yield record
        elif self.level is Level.OFF:
            return
        elif self.level is Level.METADATA:
            yield self._shown.metadata(record)
        elif record.kind is Kind.DATA:
            yield from self._masked_data(record)
        elif record.kind is Kind.MESSAGE:
            yield record if waiting.quiet else self._masked_message(waiting)
        else:
            yield self._shown.anything(record)

    def _tell(self, record: Record) -> Iterator[Record]:
        """Say which level is in force from here on, where it is not the usual one, or another than before."""
        if self.extent.untold():
            yield self._shown.level(record, self.level)
        self.tally.level(self.level)

    def _masked_data(self, record: Record) -> Iterator[Record]:
        payload, position = record.body.get("payload"), record.body.get("position")
        if not isinstance(payload, bytes) or not isinstance(position, int):
            yield record
            return
        places = self._side(record).overlapping(position, position + len(payload))
        if not places:
            yield record
            return
        body = {**record.body, "payload": filled(payload, places, position)}
        yield Record(Kind.DATA, record.session, record.time_ns, record.direction, body)
        layer = record.body.get("layer") or "application"
        if layer == "application" and record.direction is not None:
            self.undecided.keep(record.direction, position, payload, places)
        for told in self.tally.told(places, str(layer)):
            yield Record(Kind.MASKED, record.session, record.time_ns, record.direction, told)

    def _masked_message(self, waiting: Waiting) -> Record:
        record = waiting.record
        side = self.sides[record.direction or 0]
        if waiting.pieces is not None:
            return self._shown.body(record, side, waiting.pieces)
        start, end = record.body.get("start"), record.body.get("end")
        touched = isinstance(start, int) and isinstance(end, int) and (waiting.begun or bool(side.overlapping(start, end)))
        shown = self._shown.message(record, self.database, touched=touched)
        return shown if waiting.said is None else self._shown.said(shown, waiting.said)
