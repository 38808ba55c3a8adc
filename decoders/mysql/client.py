"""What the client says.

What lives here: which packet is which. What must not: framing, the insides of commands (commands.py).

Proofs, passwords and what a way to authenticate sends are in no field and no summary.
"""

from __future__ import annotations

from typing import Final

from capd.decoders.message import Direction, JsonValue, Message
from capd.decoders.mysql import commands
from capd.decoders.mysql.answers import Answers, Phase
from capd.decoders.mysql.collations import codec
from capd.decoders.mysql.login import SSL_REQUEST_BYTES, Login, change_user, client_capabilities, login
from capd.decoders.mysql.side import MysqlSide
from capd.decoders.mysql.wire import (
    CONTROL_BYTES_MAX,
    HEADER_BYTES,
    STATEMENT_BYTES_MAX,
    TLS,
    Capability,
    Command,
    Fields,
    MalformedError,
    text,
)

_LONG: Final = frozenset(
    {Command.QUERY, Command.STMT_PREPARE, Command.STMT_EXECUTE, Command.STMT_BULK_EXECUTE, Command.STMT_SEND_LONG_DATA}
)
_TLS_BYTES: Final = 2

_EXACT: Final = {
    Command.PING: 1, Command.QUIT: 1, Command.STATISTICS: 1, Command.RESET_CONNECTION: 1, Command.STMT_CLOSE: 5,
    Command.STMT_RESET: 5, Command.STMT_FETCH: 9, Command.SET_OPTION: 3,
}  # fmt: skip


class Client(MysqlSide):
    """The client's direction."""

    def __init__(self, answers: Answers) -> None:
        super().__init__(Direction.REQUEST, answers)
        self._encrypts = False

    def held_max(self, first: int) -> int:
        """Statements and data are held as long as they fit into one packet."""
        long = self.answers.phase is Phase.INFILE or (self.answers.phase is not Phase.OPENING and first in _LONG)
        return STATEMENT_BYTES_MAX if long else CONTROL_BYTES_MAX

    def check_opening(self) -> bool:
        """After a request for encryption a record of TLS would not be taken for a packet."""
        if self.answers.phase is not Phase.OPENING:
            return True
        stream = self.stream
        head = bytes(stream.data[stream.start : stream.start + _TLS_BYTES])
        if self._encrypts and head in TLS:
            raise self.error(stream.position, "a TLS record where a packet must be")
        return True

    def decode(self, body: bytes, sequence: int, start: int, end: int) -> Message | None:
        """Decode a whole packet and note what answer is due."""
        phase = self.answers.phase
        if phase is Phase.OPENING:
            return self._opening(body, sequence, start, end)
        if phase is not Phase.COMMANDS and self._continues(sequence):
            self._count(sequence)
            return self._data(body, start, end, None) if phase is Phase.INFILE else self._proof(start, end, None)
        return self._command(body, sequence, start, end)

    def decode_partial(self, prefix: bytes, sequence: int, start: int, end: int, incomplete: str) -> Message | None:
        """A statement shows as much of its text as is there; everything else only that it was there."""
        phase = self.answers.phase
        if phase is Phase.OPENING:
            self._begin_session(None, sequence)
            return self._message("HandshakeResponse", (start, end), 0, incomplete=incomplete)
        if phase is not Phase.COMMANDS and self._continues(sequence):
            self._count(sequence)
            return self._data(prefix, start, end, incomplete) if phase is Phase.INFILE else self._proof(start, end, incomplete)
        if not prefix:
            exchange = self._ask(None, sequence, start)
            return self._message("command", (start, end), exchange, incomplete=incomplete)
        command = prefix[0]
        found = commands.Said(fields={})
        if command in (Command.QUERY, Command.STMT_PREPARE):
            sql = self._cut_text(prefix, command)
            found = commands.Said(summary=sql, fields={"sql": sql} if sql else {})
        elif command == Command.STMT_EXECUTE and len(prefix) >= HEADER_BYTES + 1:
            statement = self.answers.statements.find(int.from_bytes(prefix[1:5], "little"))
            found = commands.Said(summary=statement.sql or "", fields={}, statement=statement)
            statement.types = None
        elif command == Command.CHANGE_USER:
            self.answers.phase = Phase.AUTHENTICATION
        exchange = self._ask(command, sequence, start, found)
        return self._message(
            commands.name_of(command), (start, end), exchange, found.summary, found.fields, incomplete=incomplete
        )

    def plausible(self, length: int, sequence: int, first: int) -> bool:
        """A command has sequence 0 and begins with its number."""
        exact = _EXACT.get(Command(first)) if first in commands.COMMAND_NAMES else None
        return sequence == 0 and length > 0 and first in commands.COMMAND_NAMES and exact in (None, length)

    def resynchronised(self) -> None:
        """The conversation is past its opening."""
        self.answers.requests_lost()

    def _compressed(self) -> bool:
        return self.answers.phase is Phase.COMMANDS

    # The opening

    def _opening(self, body: bytes, sequence: int, start: int, end: int) -> Message:
        incomplete: str | None = None
        try:
            if len(body) == SSL_REQUEST_BYTES:
                capabilities = client_capabilities(Fields(body))[0]
                if capabilities & Capability.SSL:
                    self.answers.wanted, self._encrypts = capabilities, True
                    self._count(sequence)
                    return self._message("SSLRequest", (start, end), 0)
            found = login(body)
        except MalformedError as error:
            raise self.rejected(start, end, f"not a HandshakeResponse: {error}") from None
        self._begin_session(found, sequence)
        summary, fields = _login_fields(found)
        fields["capabilities"] = [str(one.name) for one in Capability if found.capabilities & one]
        return self._message("HandshakeResponse", (start, end), 0, summary, fields, incomplete=incomplete)

    def _begin_session(self, found: Login | None, sequence: int) -> None:
        answers = self.answers
        answers.phase = Phase.AUTHENTICATION
        if answers.due is None:
            answers.begin(None, sequence)
        if found is not None:
            answers.wanted = found.capabilities
            answers.encoding = answers.results = codec(found.collation)
        self._count(sequence)

    def _continues(self, sequence: int) -> bool:
        """Whether a packet belongs to the exchange that goes on, and is not a new command."""
        due = self.answers.due
        return sequence != 0 or (due is not None and due.sequence == 0)

    def _count(self, sequence: int) -> None:
        due = self.answers.due
        if due is not None:
            due.sequence = (sequence + 1) % 256

    def _proof(self, start: int, end: int, incomplete: str | None) -> Message:
        kind = "AuthSwitchResponse" if self.answers.switched else "AuthResponse"
        self.answers.switched = False
        return self._message(kind, (start, end), self.answers.latest, incomplete=incomplete)

    def _data(self, body: bytes, start: int, end: int, incomplete: str | None) -> Message:
        """Data of LOAD DATA LOCAL: an empty packet is the last one."""
        last = not body and incomplete is None
        if last:
            self.answers.phase = Phase.COMMANDS
        message = self._message("LocalInfileData", (start, end), self.answers.latest, "", {"last": last}, incomplete=incomplete)
        message.content = body
        return message

    # Commands

    def _command(self, body: bytes, sequence: int, start: int, end: int) -> Message:
        if not body:
            return self._message("command", (start, end), self._ask(None, sequence, start), incomplete="malformed: it is empty")
        command = body[0]
        try:
            changes = command == Command.CHANGE_USER
            found = self._change_user(body) if changes else commands.said(command, body, self.answers)
            incomplete = found.incomplete
        except MalformedError as error:
            found, incomplete = commands.Said(fields={}), f"malformed: {error}"
        if command == Command.CHANGE_USER:
            self.answers.phase = Phase.AUTHENTICATION
            self.answers.statements.clear()
        elif command == Command.RESET_CONNECTION:
            self.answers.statements.clear()
        if sequence:
            incomplete = incomplete or f"malformed: sequence {sequence} where a command must begin"
        exchange = self._ask(command, sequence, start, found)
        message = self._message(
            commands.name_of(command), (start, end), exchange, found.summary, found.fields, incomplete=incomplete
        )
        message.content = found.content
        return message

    def _ask(self, command: int | None, sequence: int, start: int, found: commands.Said | None = None) -> int:
        if self.answers.full:
            raise self.rejected(start, self.stream.position, "more commands before an answer than are followed")
        if self.answers.phase is Phase.INFILE:
            self.answers.phase = Phase.COMMANDS
        statement = found.statement if found is not None else None
        if command == Command.STMT_PREPARE:
            self.answers.statements.latest = statement
        # An unknown command is answered too.
        return self.answers.begin(-1 if command is None else command, (sequence + 1) % 256, statement)

    def _change_user(self, body: bytes) -> commands.Said:
        answers = self.answers
        found = change_user(body, answers.capabilities, answers.encoding)
        if found.collation:
            answers.encoding = answers.results = codec(found.collation)
        summary, fields = _login_fields(found)
        return commands.Said(summary=summary, fields=fields)

    def _cut_text(self, prefix: bytes, command: int) -> str:
        fields = Fields(prefix, self.answers.encoding)
        fields.byte()
        if command == Command.QUERY:
            try:
                commands.query_attributes(fields, self.answers)
            except MalformedError:
                return ""
        return text(fields.rest(), fields.encoding)

    def _message(
        self,
        kind: str,
        span: tuple[int, int],
        exchange: int,
        summary: str = "",
        fields: dict[str, JsonValue] | None = None,
        *,
        incomplete: str | None = None,
    ) -> Message:
        return Message(
            direction=self.direction,
            start=span[0],
            end=span[1],
            type=kind,
            summary=summary,
            exchange=exchange,
            fields=fields or {},
            incomplete=incomplete,
        )


def _login_fields(found: Login) -> tuple[str, dict[str, JsonValue]]:
    fields: dict[str, JsonValue] = {"user": found.user}
    words = [f"user={found.user}"]
    if found.database is not None:
        fields["database"] = found.database
        words.append(f"database={found.database}")
    if found.plugin:
        fields["plugin"] = found.plugin
    if found.attributes:
        fields["attributes"] = dict(found.attributes)
    fields["proof"] = [found.proof[0] + HEADER_BYTES, found.proof[1] + HEADER_BYTES]
    return " ".join(words), fields
