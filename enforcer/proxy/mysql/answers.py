"""What a server answers, followed packet by packet: where an answer ends, and what it says of the session.

What lives here: the state machine. What must not: what is done with it (conversation.py), insides of rows.

Bytes go to the client as they came, but for those of a result in which something is hidden: of these each packet is made anew,
and definitions of columns wait until it is known whether the result may go on at all; else an ERR takes its place. Another one
takes that of the first packet that is beyond a limit, and nothing goes on behind it. What cannot be followed ends the session:
behind it nobody knows what answers what.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum, auto
from typing import Final

from capd.decoders.mysql import packets
from capd.decoders.mysql.wire import (
    COLUMNS_MAX,
    CONTROL_BYTES_MAX,
    EOF,
    EOF_BYTES,
    ERR,
    HEADER_BYTES,
    LOCAL_INFILE,
    OK,
    PACKET_BYTES_MAX,
    Capability,
    Fields,
    MalformedError,
    Status,
)
from capd.enforcer.limits.counting import Counting
from capd.enforcer.limits.meter import Exceeded
from capd.enforcer.masking.rows.field import BrokenMessageError
from capd.enforcer.proxy.mysql.frames import UnreadableError
from capd.enforcer.proxy.mysql.masked import MaskedAnswers
from capd.enforcer.proxy.mysql.packets import BEYOND, DENIED, err, packet

TOLD_BYTES_MAX: Final = 64 << 20
"""Of rows of an answer to capd: names of columns, of thousands a few MiB."""
ROW_BYTES_AT_LEAST: Final = 256
"""What a row takes here beside its values."""


class Asked(Enum):
    """What kind of answer is due."""

    RESULT = auto()
    """OK, ERR, or results: of COM_QUERY, COM_STMT_EXECUTE and what else ends with an OK."""
    PREPARE = auto()
    ROWS = auto()
    """Rows at once: COM_STMT_FETCH, COM_FIELD_LIST."""
    TEXT = auto()
    """COM_STATISTICS."""


class _Step(Enum):
    FIRST = auto()
    COLUMNS = auto()
    AFTER_COLUMNS = auto()
    ROWS = auto()
    DEFINITIONS = auto()


@dataclass(slots=True, kw_only=True)
class Due:
    """An answer that is due.

    Attributes:
        asked: of which kind.
        own: whether capd asked: then the client gets nothing of it.
        cursor: whether an open cursor may stand in the place of rows.
        failed: the server answered with an ERR.
        error: its number.
        rows: of an answer to capd: what packets of rows hold.
        told_bytes: how much these take.
        prepared: of a COM_STMT_PREPARE: number, columns and parameters of the statement.
        status: of the session, as it was said last.
        told: what else was said of it.
        masked: what the answer goes through; None: it goes on as it is.
        counting: counts its rows and errors; None: nobody does.
        held: packets of definitions that wait.
        refusal: why nothing of the result goes on; None: it does.
    """

    asked: Asked = Asked.RESULT
    own: bool = False
    cursor: bool = False
    failed: bool = False
    error: int = 0
    rows: list[bytes] = field(default_factory=list)
    told_bytes: int = 0
    prepared: tuple[int, int, int] | None = None
    status: int | None = None
    told: list[packets.Ok] = field(default_factory=list)
    masked: MaskedAnswers | None = None
    counting: Counting | None = None
    held: list[bytes] = field(default_factory=list)
    refusal: str | None = None


_ERR: Final = bytes([ERR])


class Answers:
    """Of one session. One answer is due at a time.

    Attributes:
        due: None: none is.
        beyond: the limit that an answer was beyond: nothing more goes on.
    """

    def __init__(self, capabilities: int, done: Callable[[Due], None]) -> None:
        """Take what was agreed on, and who is told of an answer that is whole."""
        self._capabilities, self._done = capabilities, done
        self._data: bytes | bytearray = b""
        self._wanted = 0
        """How many bytes have to wait before there is more to see: a long packet is not looked at with each piece of it."""
        self._step = _Step.FIRST
        self._left = 0
        self._after: list[int] = []
        self._passing = 0
        self._goes_on = False
        self._sequence = 1
        self.due: Due | None = None
        self.beyond: Exceeded | None = None

    def expect(self, due: Due) -> None:
        """An answer is due."""
        assert self.due is None
        self.due, self._sequence = due, 1
        self._step = _Step.ROWS if due.asked is Asked.ROWS else _Step.FIRST

    @property
    def place(self) -> int | None:
        """Give the sequence that a packet of capd's own would have now; None: the client has the beginning of another."""
        if self.due is None:
            return 1
        return None if self._passing or self._goes_on else self._sequence

    def receive(self, data: bytes) -> bytes:
        """Take bytes of the server and give those for the client.

        Raises:
            UnreadableError: they cannot be followed.
        """
        if self._data:
            self._data = self._data if isinstance(self._data, bytearray) else bytearray(self._data)
            self._data += data
            if len(self._data) < self._wanted:
                return b""
            data = bytes(self._data)
        self._wanted = at = begin = 0
        given: list[bytes] = []
        while True:
            if self._passing:
                step = min(self._passing, len(data) - at)
                self._passing -= step
                at += step
                if self._passing:
                    break
            found = self._packet(data, at)
            if found is None:
                break
            end, instead = found
            if instead is None or instead:
                self._sequence = (data[at + 3] + 1) % 256
            if instead is not None:
                given += [data[begin:at], instead]
                begin = end
            at = end
            if self.beyond is not None:
                break
        given.append(data[begin:at])
        self._data = data[at:]
        return given[0] if len(given) == 1 else b"".join(given)

    def _packet(self, data: bytes, at: int) -> tuple[int, bytes | None] | None:
        """Look at a packet; give where it ends, or where it is passed on from, and what goes on in its place, if not itself."""
        if len(data) - at < HEADER_BYTES:
            return None
        length = int.from_bytes(data[at : at + 3], "little")
        begin = at + HEADER_BYTES
        if self._goes_on:
            return self._pass(0, length, data[at + 3], begin)
        if not length:
            raise UnreadableError("an empty packet of the server cannot be followed")
        if begin >= len(data):
            return None
        due = self.due
        row = data[begin] < EOF or (data[begin] == EOF and length == PACKET_BYTES_MAX)
        row = row and due is not None and self._step is _Step.ROWS
        if row and due is not None and not due.own and (due.masked is None or due.masked.passes):
            return self._pass(1, length, data[at + 3], begin)
        if length > (PACKET_BYTES_MAX - 1 if row and due is not None and not due.own else CONTROL_BYTES_MAX):
            raise UnreadableError(f"a packet of {length:,} bytes of the server cannot be followed")
        end = begin + length
        if end > len(data):
            self._wanted = end - at
            return None
        return end, self._whole(data[at:end], row=row)

    def _pass(self, rows: int, length: int, sequence: int, begin: int) -> tuple[int, bytes | None]:
        """Pass on a packet of a row, or its further ones, as it comes; not where it is beyond a limit."""
        if self._counted(rows, length):
            return begin, self._told(sequence)
        self._goes_on = length == PACKET_BYTES_MAX
        self._passing = length
        return begin, None

    def _whole(self, raw: bytes, *, row: bool) -> bytes | None:
        """Take a packet; give what goes on in its place, or None: it goes on itself."""
        due, body = self.due, raw[HEADER_BYTES:]
        if due is None:
            self._unasked(body)
            return None
        if due.refusal is None and (row or body[:1] == _ERR) and self._counted(int(row), len(body)):
            return self._told(raw[3])
        try:
            if due.masked is not None:
                return self._masked(due, due.masked, raw, body)
            self._take(due, body)
        except (MalformedError, BrokenMessageError) as error:
            raise UnreadableError(f"an answer of the server cannot be read: {error}") from None
        return b"" if due.own else None

    def _counted(self, rows: int, length: int) -> bool:
        """Count a packet; say whether it is beyond a limit."""
        if self.due is not None and self.due.counting is not None:
            self.beyond = self.due.counting.count(rows, HEADER_BYTES + length)
        return self.beyond is not None

    def _told(self, sequence: int) -> bytes:
        """Give an ERR in the place of what is beyond a limit; within a row nothing can be said."""
        assert self.beyond is not None
        return b"" if self._goes_on else err(sequence, BEYOND, f"capd: {self.beyond.words}")

    def _masked(self, due: Due, masked: MaskedAnswers, raw: bytes, body: bytes) -> bytes:
        """Give what goes on in the place of a packet of an answer in which something is hidden."""
        step, first = self._step, body[0]
        self._take(due, body)
        if due.refusal is not None:
            return b"" if self.due is due else err(due.held[0][3], DENIED, f"capd: {due.refusal}")
        if step is _Step.FIRST and self._step is _Step.COLUMNS:
            masked.begin()
            due.held = [raw]
            return b""
        if step is _Step.COLUMNS and first != ERR:
            return self._masked_column(due, masked, raw, body)
        if first == ERR:
            return packet(raw[3], masked.error(body))
        if step is _Step.ROWS and first != EOF:
            shown = masked.row(body)
            if len(shown) >= PACKET_BYTES_MAX:
                raise BrokenMessageError
            return raw if shown is body else packet(raw[3], shown)
        return raw

    def _masked_column(self, due: Due, masked: MaskedAnswers, raw: bytes, body: bytes) -> bytes:
        due.held.append(raw)
        masked.column(body)
        if self._step is _Step.COLUMNS:
            return b""
        due.refusal = masked.settle()
        return b"" if due.refusal is not None else b"".join(due.held)

    @staticmethod
    def _unasked(body: bytes) -> None:
        if body[:1] != _ERR:
            raise UnreadableError("the server says something that nobody asked for")

    def _take(self, due: Due, body: bytes) -> None:
        first = body[0]
        if first == ERR:
            packets.err(body)  # which tells of progress only where that was agreed on
            due.failed, due.error = True, int.from_bytes(body[1:3], "little")
            self._over(due)
        elif self._step is _Step.FIRST:
            self._first(due, body)
        elif self._step is _Step.COLUMNS:
            self._left -= 1
            if not self._left:
                self._step = _Step.ROWS if self._no_eof else _Step.AFTER_COLUMNS
        elif self._step is _Step.AFTER_COLUMNS:
            self._behind_columns(due, body)
        elif self._step is _Step.DEFINITIONS:
            self._definition(due, body)
        elif first == EOF:
            self._ended(due, body)
        elif due.own:
            due.told_bytes += len(body) + ROW_BYTES_AT_LEAST
            if due.told_bytes > TOLD_BYTES_MAX:
                raise UnreadableError("the server tells more than it was asked")
            due.rows.append(body)

    @property
    def _no_eof(self) -> bool:
        return bool(self._capabilities & Capability.DEPRECATE_EOF)

    def _first(self, due: Due, body: bytes) -> None:
        first = body[0]
        if due.asked is Asked.TEXT:
            self._over(due)
        elif due.asked is Asked.PREPARE and first == OK:
            self._prepared(due, body)
        elif first in (OK, EOF):
            self._ended(due, body)
        elif first == LOCAL_INFILE:
            raise UnreadableError("the server wants a file of the client, which was not agreed on")
        else:
            fields = Fields(body)
            self._left = fields.counted()
            fields.end()
            if not 0 < self._left <= COLUMNS_MAX:
                raise MalformedError(f"{self._left:,} columns")
            self._step = _Step.COLUMNS

    def _behind_columns(self, due: Due, body: bytes) -> None:
        found = self._eof(body)
        self._step = _Step.ROWS
        if found.status & Status.CURSOR_EXISTS and due.cursor:
            self._result(due, found)

    def _ended(self, due: Due, body: bytes) -> None:
        """Take what ends a result."""
        short = body[0] == EOF and len(body) <= EOF_BYTES
        self._result(due, self._eof(body) if short else packets.ok(body, self._capabilities))

    def _eof(self, body: bytes) -> packets.Ok:
        if body[0] != EOF or len(body) != EOF_BYTES:
            raise MalformedError("an EOF is missing")
        return packets.eof(body)

    def _result(self, due: Due, found: packets.Ok) -> None:
        due.status = found.status
        due.told.append(found)
        if found.status & Status.MORE_RESULTS and due.asked is Asked.RESULT:
            self._step = _Step.FIRST
        else:
            self._over(due)

    def _prepared(self, due: Due, body: bytes) -> None:
        fields = Fields(body)
        fields.byte()
        number, columns, parameters = fields.number(4), fields.number(2), fields.number(2)
        due.prepared = (number, columns, parameters)
        self._after = [count for count in (parameters, columns) if count]
        self._next_definitions(due)

    def _next_definitions(self, due: Due) -> None:
        if not self._after:
            self._over(due)
            return
        self._left = self._after.pop(0) + (0 if self._no_eof else 1)
        self._step = _Step.DEFINITIONS

    def _definition(self, due: Due, body: bytes) -> None:
        self._left -= 1
        if not self._left:
            if not self._no_eof:
                due.status = self._eof(body).status
            self._next_definitions(due)

    def _over(self, due: Due) -> None:
        self.due = None
        self._step = _Step.FIRST
        self._done(due)
