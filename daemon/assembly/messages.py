"""Decoded messages as MESSAGE records, put together so that a reader gets tables and bodies, not fragments.

What lives here: ordinals, coalescing of rows and bodies, text for search. What must not: decoding, sessions' facts.

Rows and body pieces that arrive together become one record. Together means: within one drain cycle of the daemon, so that a
record never waits for bytes that may not come.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Final, cast

import msgpack

from capd.daemon.assembly.decoding import Failure
from capd.daemon.assembly.output import Batch
from capd.daemon.assembly.state import SessionState
from capd.decoders.message import Direction, Message, Skipped
from capd.recording.record import SIDES, Kind, Record, Value

ROWS_PER_RECORD_MAX: Final = 256
"""A reader shows a table from one record; more rows than a screen or ten gain nothing."""
ROW_BYTES_PER_RECORD_MAX: Final = 1024 * 1024
"""Wire bytes of the rows in one record, so that wide rows do not make a record of many megabytes."""
TEXT_BYTES_MAX: Final = 64 * 1024
"""Text of one message that search can find; beyond it the index would grow like the recording itself."""
TEXTS_MAX: Final = 1024
"""Bodies at a time of which it is remembered how much of them search has taken: as many as a server allows streams."""
BINARY_PROBE_BYTES: Final = 1024
"""Where a NUL byte tells that a body is not text."""
ROW_TYPES: Final = frozenset({"DataRow", "Row"})
BODY_TYPE: Final = "body"
COLUMNS: Final = "columns"
SAID_TYPES: Final = frozenset({"text", "binary", "ping", "pong", "close"})
"""WebSocket's: their payload is scrambled or packed where it stands, and short enough to be told."""
_MESSAGE: Final = Kind.MESSAGE


@dataclass(slots=True)
class _Together:
    """Messages of one kind that wait to be one record."""

    first: Message
    time_ns: int
    end: int
    rows: list[Value] = field(default_factory=list)
    content: list[bytes] = field(default_factory=list)
    content_bytes: int = 0
    pieces: list[Value] = field(default_factory=list)
    incomplete: str | None = None


class MessageWriter:
    """Writes one session's messages.

    `muted` is True while a decoder is rebuilt from what is already recorded: everything is tracked, nothing is written.
    """

    def __init__(self, state: SessionState) -> None:
        self._state = state
        self._together: _Together | None = None
        self._columns: Sequence[Value] = ()
        self._columns_of: int | None = None
        self._rows_told = 0
        self._text_left: OrderedDict[tuple[int | None, int], int] = OrderedDict()
        """Of each body, by exchange and direction."""
        self._skipped: dict[int, Skipped] = {}
        """By direction of the decoder: what was passed over and is not told yet; its start is what was told."""
        self.muted = False

    def save(self) -> bytes:
        """Give what decoding again what is recorded would bring back, where that is not done."""
        skipped = [[direction, one.start, one.end, one.reason] for direction, one in self._skipped.items()]
        texts = [[*body, left] for body, left in self._text_left.items()]
        return cast("bytes", msgpack.packb([skipped, texts]))

    def restore(self, saved: bytes) -> None:
        """Take what was saved."""
        skipped, texts = msgpack.unpackb(saved)
        for direction, start, end, reason in skipped:
            self._skipped[direction] = Skipped(direction=Direction(direction), start=start, end=end, reason=reason)
        self._text_left = OrderedDict(((exchange, direction), left) for exchange, direction, left in texts)

    @property
    def waiting(self) -> bool:
        """Whether `flush` has something to do."""
        return self._together is not None

    def take(self, decoded: Message | Skipped | Failure, time_ns: int, batch: Batch) -> None:
        """Take what a decoder gave; `time_ns` is the wall time of the bytes that made it whole."""
        if isinstance(decoded, Message):
            self._message(decoded, time_ns, batch)
            return
        self.flush(batch)
        if isinstance(decoded, Skipped):
            self._skip(decoded, time_ns, batch)
        else:
            body: dict[str, Value] = {"name": "decoder", "error": decoded.reason, "offset": self._offset(decoded)}
            self._mark(decoded.direction, body, time_ns, batch)

    def flush(self, batch: Batch) -> None:
        """Write what was put together until now."""
        together = self._together
        if together is None:
            return
        self._together = None
        if together.rows:
            self._write_rows(together, batch)
        else:
            self._write_body(together, batch)

    def over_tls(self) -> None:
        """A new decoder begins: its exchange numbers go on after those already used."""
        self._state.exchange_base = max(self._state.exchange_base, self._state.exchange_last + 1)
        self._skipped.clear()

    def _message(self, message: Message, time_ns: int, batch: Batch) -> None:
        state, fields, kind = self._state, message.fields, message.type
        if message.exchange is not None and message.exchange + state.exchange_base > state.exchange_last:
            state.exchange_last = message.exchange + state.exchange_base
        if self._skipped:
            self._tell_untold(message.direction, time_ns, batch)
        if kind == BODY_TYPE or (kind in ROW_TYPES and "values" in fields):
            self._join(message, time_ns, batch)
            return
        if self._together is not None:
            self.flush(batch)
        columns = fields.get(COLUMNS)
        if columns is not None and isinstance(columns, Sequence) and not isinstance(columns, str):
            self._columns, self._columns_of, self._rows_told = columns, message.exchange, 0
        body = self._body(message)
        if kind in SAID_TYPES and "pieces" in fields:
            self._say(message, body)
        self._write(message, body, time_ns, batch)

    def _say(self, message: Message, body: dict[str, Value]) -> None:
        """Tell what a message says that is a whole by itself: where it is; and what, if it stands there in another form."""
        fields, base = message.fields, self._base(message)
        pieces = cast("Sequence[tuple[int, int]]", fields["pieces"])
        body["fields"] = {**fields, "pieces": [[at + base, size] for at, size in pieces]}
        said = message.content
        binary = message.type == "binary" or b"\0" in said[:BINARY_PROBE_BYTES]
        body["text"] = "" if binary else said[:TEXT_BYTES_MAX].decode("utf-8", "ignore")
        if fields.get("masked") or fields.get("packed"):
            body["content"] = said

    def _join(self, message: Message, time_ns: int, batch: Batch) -> None:
        together = self._together
        if together is None or not self._joins(together, message):
            self.flush(batch)
            together = self._together = _Together(message, time_ns, message.end)
        together.end, together.time_ns = message.end, time_ns
        together.incomplete = together.incomplete or message.incomplete
        if message.type == BODY_TYPE:
            together.content.append(message.content)
            together.content_bytes += len(message.content)
            if message.content_start is not None and message.content:
                together.pieces.append([message.content_start + self._base(message), len(message.content)])
        else:
            values = message.fields["values"]
            together.rows.append(values)
            if len(together.rows) >= ROWS_PER_RECORD_MAX or together.end - together.first.start >= ROW_BYTES_PER_RECORD_MAX:
                self.flush(batch)

    @staticmethod
    def _joins(together: _Together, message: Message) -> bool:
        first = together.first
        return (
            first.type == message.type
            and first.exchange == message.exchange
            and first.direction == message.direction
            and together.end <= message.start
            and together.incomplete is None
        )

    def _write_rows(self, together: _Together, batch: Batch) -> None:
        first = together.first
        if self._columns_of != first.exchange:
            self._rows_told = self._rows_told if self._columns_of is None else 0
            # Columns of another statement would name, and have masked, the wrong values.
            self._columns, self._columns_of = (), first.exchange
        own = first.fields.get(COLUMNS)
        columns = own if isinstance(own, Sequence) and not isinstance(own, str) else self._columns
        fields: dict[str, Value] = {COLUMNS: columns, "rows": together.rows, "first_row": self._rows_told}
        self._rows_told += len(together.rows)
        count = len(together.rows)
        summary = f"{count} row{'' if count == 1 else 's'}"
        self._write_together(together, {"type": "rows", "summary": summary, "fields": fields}, batch)

    def _write_body(self, together: _Together, batch: Batch) -> None:
        first = together.first
        fields: dict[str, Value] = {**first.fields, "bytes": together.content_bytes}
        if first.content_start is not None:
            fields["pieces"] = together.pieces
        text = self._text(first, together.content)
        summary = first.summary or f"{together.content_bytes} bytes"
        self._write_together(together, {"summary": summary, "fields": fields, "text": text}, batch)

    def _write_together(self, together: _Together, changes: dict[str, Value], batch: Batch) -> None:
        """Write what was put together: what its first message says, but for what became of it."""
        body = self._body(together.first)
        body["end"] = together.end + self._base(together.first)
        body["incomplete"] = together.incomplete
        body.update(changes)
        self._write(together.first, body, together.time_ns, batch)

    def _text(self, first: Message, content: list[bytes]) -> str:
        """Give as much of a body as search may still take of this message."""
        body = (first.exchange, first.direction)
        left = self._text_left.get(body)
        if left is None:
            left = 0 if b"\0" in content[0][:BINARY_PROBE_BYTES] else TEXT_BYTES_MAX
        parts = []
        for part in content:
            if left <= 0:
                break
            parts.append(part[:left])
            left -= len(parts[-1])
        self._text_left[body] = left
        if len(self._text_left) > TEXTS_MAX:
            self._text_left.popitem(last=False)
        return b"".join(parts).decode("utf-8", "ignore")

    def _body(self, message: Message) -> dict[str, Value]:
        """Give the body of a message's record."""
        state = self._state
        base = self._base(message)
        return {
            "protocol": state.protocol,
            "type": message.type,
            "summary": message.summary,
            "exchange": None if message.exchange is None else message.exchange + state.exchange_base,
            "ordinal": state.messages,
            "start": message.start + base,
            "end": message.end + base,
            "fields": message.fields,
            "incomplete": message.incomplete,
        }

    def _write(self, message: Message, body: dict[str, Value], time_ns: int, batch: Batch) -> None:
        if self.muted:
            return
        state = self._state
        state.messages += 1
        direction = SIDES[message.direction ^ state.swapped]
        batch.records.append(Record(_MESSAGE, state.id, state.moment(time_ns), direction, body))

    def finish(self, time_ns: int, batch: Batch) -> None:
        """The session is over: tell what is not told yet."""
        self.flush(batch)
        for untold in self._skipped.values():
            if untold.end > untold.start:
                self._tell_skipped(untold, time_ns, batch)
        self._skipped.clear()

    def _skip(self, skipped: Skipped, time_ns: int, batch: Batch) -> None:
        """Tell bytes that were passed over; what goes on where that left off, for the same reason, is told once, at the end."""
        before = self._skipped.get(skipped.direction)
        if before is not None and (before.end, before.reason) == (skipped.start, skipped.reason):
            self._skipped[skipped.direction] = replace(before, end=skipped.end)
            return
        if before is not None and before.end > before.start:
            self._tell_skipped(before, time_ns, batch)
        self._tell_skipped(skipped, time_ns, batch)
        self._skipped[skipped.direction] = replace(skipped, start=skipped.end)

    def _tell_untold(self, direction: int, time_ns: int, batch: Batch) -> None:
        """What was passed over comes before the message behind it."""
        untold = self._skipped.get(direction)
        if untold is not None and untold.end > untold.start:
            self.flush(batch)
            self._tell_skipped(untold, time_ns, batch)
            self._skipped[direction] = replace(untold, start=untold.end)

    def _tell_skipped(self, skipped: Skipped, time_ns: int, batch: Batch) -> None:
        base = self._state.base[skipped.direction ^ self._state.swapped]
        start, end = skipped.start + base, skipped.end + base
        self._mark(skipped.direction, {"name": "skipped", "reason": skipped.reason, "start": start, "end": end}, time_ns, batch)

    def _mark(self, direction: int, body: dict[str, Value], time_ns: int, batch: Batch) -> None:
        if not self.muted:
            batch.records.append(
                Record(Kind.MARKER, self._state.id, self._state.moment(time_ns), SIDES[direction ^ self._state.swapped], body)
            )

    def _base(self, message: Message) -> int:
        """Give where the decoder began in a message's stream."""
        return self._state.base[message.direction ^ self._state.swapped]

    def _offset(self, failure: Failure) -> int:
        return failure.offset + self._state.base[failure.direction ^ self._state.swapped]
