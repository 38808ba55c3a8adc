"""What the server says.

What lives here: which packet is which, by the command that is answered. What must not: framing, results (results.py), the
insides of packets (packets.py).

Scrambles and what a way to authenticate sends are in no field.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

from capd.decoders.message import JsonValue, Message
from capd.decoders.mysql import packets
from capd.decoders.mysql.answers import Answers, Due, Phase
from capd.decoders.mysql.commands import REPLICATION
from capd.decoders.mysql.login import greeting
from capd.decoders.mysql.results import Results, Step
from capd.decoders.mysql.values import row_prefix
from capd.decoders.mysql.wire import (
    EOF,
    EOF_BYTES,
    ERR,
    HEADER_BYTES,
    LOCAL_INFILE,
    OK,
    TLS,
    Capability,
    Command,
    MalformedError,
    text,
)

_NEXT_FACTOR: Final = 2
_AUTHENTICATION_TYPES: Final = {EOF: "AuthSwitchRequest", _NEXT_FACTOR: "AuthNextFactor"}
_CACHING_SHA2: Final = {b"\x01\x03": "the proof was right", b"\x01\x04": "the password itself is wanted"}


class Server(Results):
    """The server's direction."""

    def __init__(self, answers: Answers) -> None:
        super().__init__(answers)
        self._greeted = False
        self._special: Mapping[int | None, Callable[[Due, bytes, int, int], Message | None]] = {
            None: self._authentication,
            Command.CHANGE_USER: self._authentication,
            Command.STMT_FETCH: self._fetched,
            Command.STATISTICS: self._statistics,
            Command.FIELD_LIST: self._listed,
            **dict.fromkeys(REPLICATION, self._replication),
        }
        self._steps: Mapping[Step, Callable[[Due, bytes, int, int], Message | None]] = {
            Step.FIRST: self._first,
            Step.COLUMNS: self._definition,
            Step.AFTER_COLUMNS: self._after_columns,
            Step.ROWS: self._row,
            Step.PARAMETERS: self._definition,
            Step.AFTER_PARAMETERS: self._after_definitions,
            Step.PREPARED_COLUMNS: self._definition,
            Step.AFTER_PREPARED: self._after_definitions,
            Step.LIST: self._listed,
        }

    def check_opening(self) -> bool:
        """A record of TLS would be taken for a packet."""
        if self.answers.phase is Phase.OPENING and self._greeted:
            stream = self.stream
            if bytes(stream.data[stream.start : stream.start + 2]) in TLS:
                raise self.error(stream.position, "a TLS record where a packet must be")
        return True

    def plausible(self, length: int, sequence: int, first: int) -> bool:  # noqa: ARG002  # an answer may begin with any byte
        """An answer goes on with the sequence of its command."""
        due = self.answers.newest
        return due is not None and length > 0 and sequence == due.sequence

    def resynchronised(self) -> None:
        """It answers the command that was sent last."""
        self.answers.answers_lost()
        self._greeted = True
        self._step = Step.FIRST

    def _compressed(self) -> bool:
        # What is still held of the OK that began it was not: packets are read one by one.
        return True

    def decode(self, body: bytes, sequence: int, start: int, end: int) -> Message | None:
        """Decode a whole packet, and note what it answers."""
        if not self._greeted:
            return self._greeting(body, sequence, start, end)
        return self.dispatch(self.count(sequence), body, start, end)

    def dispatch(self, due: Due | None, body: bytes, start: int, end: int) -> Message | None:
        """Decode a packet by what it answers."""
        if due is None:
            return self._unasked(body, start, end)
        return self._steps[self._step](due, body, start, end)

    def decode_partial(self, prefix: bytes, sequence: int, start: int, end: int, incomplete: str) -> Message | None:
        """A row shows the values that are whole; everything else only that it was there."""
        if not self._greeted:
            self._greeted = True
            self.answers.begin(None, (sequence + 1) % 256)
            return self._message("Handshake", (start, end), 0, incomplete=incomplete)
        due = self.count(sequence)
        joined = self._joined
        if due is None:
            return self._message("Packet", (start, end), None, incomplete=incomplete)
        if joined is not None:
            joined.reasons.append(incomplete)
            return self._add(due, joined, None, end)
        if prefix[:1] == bytes([ERR]):
            self._over()
            return self._message("ERR", (start, end), due.exchange, incomplete=incomplete)
        if self._step is Step.ROWS and prefix and prefix[0] != EOF:
            values = row_prefix(prefix, self._columns or [], binary=self._binary) if self._columns is not None else []
            return self._row_message(due, values, start, end, incomplete)
        if due.command in (None, Command.CHANGE_USER) and prefix:
            if prefix[0] == OK:
                self._let_in()
                return self._message("OK", (start, end), due.exchange, incomplete=incomplete)
            return self._authentication_data(due, prefix, start, end, incomplete)
        message = self._message("Packet", (start, end), due.exchange, incomplete=incomplete)
        self.restart(f"an answer whose beginning is not known ({incomplete})")
        return message

    def _unasked(self, body: bytes, start: int, end: int) -> Message:
        if body[:1] == bytes([ERR]):
            return self._err(None, body, start, end)
        return self._message("Packet", (start, end), None, incomplete="nothing that was seen asked for it")

    def _greeting(self, body: bytes, sequence: int, start: int, end: int) -> Message:
        self._greeted = True
        exchange = self.answers.begin(None, (sequence + 1) % 256)
        if body[:1] == bytes([ERR]):
            self.answers.settle()
            return self._err(exchange, body, start, end)
        try:
            found = greeting(body)
        except MalformedError as error:
            raise self.rejected(start, end, f"not a greeting of MySQL: {error}") from None
        self.answers.offered = found.capabilities
        fields: dict[str, JsonValue] = {
            "protocol": body[0],
            "version": found.version,
            "thread": found.thread,
            "plugin": found.plugin,
            "capabilities": [str(one.name) for one in Capability if found.capabilities & one],
            "status": packets.statuses(found.status),
            "proof": [found.proof[0] + HEADER_BYTES, found.proof[1] + HEADER_BYTES],
        }
        return self._message("Handshake", (start, end), exchange, f"{found.version}, connection {found.thread}", fields)

    def _authentication(self, due: Due, body: bytes, start: int, end: int) -> Message:
        first = body[0] if body else None
        if first == OK:
            message = self._ok(due, body, start, end)
            self._let_in()
            return message
        if first == ERR:
            message = self._err(due.exchange, body, start, end)
            self._over()
            if due.command == Command.CHANGE_USER:
                self.answers.phase = Phase.COMMANDS
            return message
        return self._authentication_data(due, body, start, end, None)

    def _authentication_data(self, due: Due, body: bytes, start: int, end: int, incomplete: str | None) -> Message:
        kind = _AUTHENTICATION_TYPES.get(body[0] if body else 0, "AuthMoreData")
        fields: dict[str, JsonValue] = {}
        summary = ""
        if kind == "AuthMoreData":
            summary = _CACHING_SHA2.get(body, "")
        elif b"\0" in body[1:]:
            summary = text(body[1 : body.index(b"\0", 1)], "ascii")
            fields["plugin"] = summary
        self.answers.switched = kind == "AuthSwitchRequest"
        return self._message(kind, (start, end), due.exchange, summary, fields, incomplete=incomplete)

    def _let_in(self) -> None:
        self.answers.authenticated()
        self._over()

    def _first(self, due: Due, body: bytes, start: int, end: int) -> Message | None:
        special = self._special.get(due.command)
        if special is not None:
            return special(due, body, start, end)
        first = body[0] if body else None
        if first == ERR:
            return self._error(due, body, start, end)
        if due.command == Command.STMT_PREPARE and first == OK:
            return self._prepared(due, body, start, end)
        if first in (OK, EOF):
            return self._done(due, body, start, end)
        if first == LOCAL_INFILE:
            return self._infile(due, body, start, end)
        return self._begin_result(due, body, start, end)

    def _fetched(self, due: Due, body: bytes, start: int, end: int) -> Message:
        self._show(due.statement.columns if due.statement is not None else None, binary=True)
        self._step = Step.ROWS
        return self._row(due, body, start, end)

    def _statistics(self, due: Due, body: bytes, start: int, end: int) -> Message:
        if body[:1] == bytes([ERR]):
            return self._error(due, body, start, end)
        self._over()
        words = text(body, self.answers.results)
        return self._message("Statistics", (start, end), due.exchange, words, {"text": words})

    def _infile(self, due: Due, body: bytes, start: int, end: int) -> Message:
        self.answers.phase = Phase.INFILE
        name = text(body[1:], self.answers.results)
        return self._message("LocalInfileRequest", (start, end), due.exchange, name, {"file": name})

    def _replication(self, due: Due, body: bytes, start: int, end: int) -> Message:
        if body[:1] == bytes([ERR]):
            return self._error(due, body, start, end)
        if body[:1] == bytes([EOF]) and len(body) <= EOF_BYTES:
            return self._eof(due, body, start, end)
        return self._message("BinlogEvent", (start, end), due.exchange, incomplete="replication, which is not decoded")

    def _listed(self, due: Due, body: bytes, start: int, end: int) -> Message:
        """COM_FIELD_LIST: definitions with default values, each for itself, up to an EOF."""
        self._step = Step.LIST
        if body[:1] == bytes([ERR]):
            return self._error(due, body, start, end)
        if body[:1] == bytes([EOF]):
            return self._done(due, body, start, end)
        try:
            found = packets.column(body, self.answers.capabilities, self.answers.results, defaults=True)
        except MalformedError as error:
            return self._message("ColumnDefinition", (start, end), due.exchange, incomplete=f"malformed: {error}")
        described: dict[str, JsonValue] = {"column": packets.described(found, binary=False)}
        return self._message("ColumnDefinition", (start, end), due.exchange, f"{found.name} {found.type}", described)
