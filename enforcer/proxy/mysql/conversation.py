"""A session that is signed in: what its client says, command by command, each judged before the server gets it.

What lives here: the client's commands in their order, and waiting: for decisions, for answers. What must not: what a statement
does (enforcer/sql), following answers (answers.py).

One command at a time: what a client says before it is answered waits here. So a denial is an ERR of capd's own, of which the
server hears nothing, and both agree. A statement is read in the session that it meets: where it is not known how the server
reads text, it is asked before.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from enum import Enum, auto
from functools import partial
from typing import Final

from capd.decoders.mysql.wire import Command, Fields, MalformedError
from capd.enforcer.limits.counting import Counting
from capd.enforcer.limits.meter import Meter
from capd.enforcer.obligations.sign_in import SignIn
from capd.enforcer.proxy.commands import Arm, Close, Exceed, Refused, Report
from capd.enforcer.proxy.events import Timer
from capd.enforcer.proxy.layer import Surroundings
from capd.enforcer.proxy.mysql import packets
from capd.enforcer.proxy.mysql.answers import Answers, Asked, Due
from capd.enforcer.proxy.mysql.frames import Frames, TooLongError, UnreadableError
from capd.enforcer.proxy.mysql.hiding import Hiding
from capd.enforcer.proxy.mysql.judging import INQUIRY, Judging
from capd.enforcer.proxy.mysql.masked import MaskedAnswers
from capd.enforcer.proxy.mysql.passage import Passage
from capd.enforcer.proxy.mysql.prepared import Prepared, Statements, TooMuchError, content
from capd.enforcer.proxy.postgresql.outbox import Outbox
from capd.enforcer.proxy.question import Verdict
from capd.enforcer.sql.message import Message
from capd.enforcer.sql.session import Session

HELD_BYTES_MAX: Final = 65_536
"""Of a client that goes on before it is answered; then it is left to wait. One command may have more."""
TOO_SLOW: Final = "a statement took longer than a rule allows"
_CANNOT: Final = "cannot_be_carried_out"
_CURSOR: Final = 7
_NUMBER_BYTES: Final = 5


class Rows(Enum):
    """In which form a command's rows come, if any can."""

    NONE = auto()
    TEXT = auto()
    BINARY = auto()


Allowed = Callable[[Message, Passage], None]
"""Does what is allowed; is given what the answer goes through."""


class Conversation:
    """Of one session.

    Attributes:
        over: nothing more is done.
    """

    def __init__(
        self,
        around: Surroundings,
        judging: Judging,
        outbox: Outbox,
        frames: Frames,
        *,
        capabilities: int,
        sign_in: SignIn | None,
    ) -> None:
        self._around, self._judging, self._outbox, self._frames = around, judging, outbox, frames
        self._sign_in = sign_in
        self._answers = Answers(capabilities, self._answered)
        self._statements = Statements()
        self._hiding = Hiding(self, around.mask_key, around.now)
        self._then: Callable[[Due], None] | None = None
        self._overflowed: dict[int, str] = {}
        self._timed = False
        self.over = False
        self._commands: Mapping[int, Callable[[bytes], None]] = {
            Command.QUERY: self._query,
            Command.STMT_PREPARE: self._prepare,
            Command.STMT_EXECUTE: self._execute,
            Command.STMT_SEND_LONG_DATA: self._long_data,
            Command.STMT_CLOSE: self._close,
            Command.STMT_RESET: self._reset,
            Command.STMT_FETCH: self._fetch,
            Command.INIT_DB: self._database,
            Command.FIELD_LIST: self._columns,
            Command.PING: self._plain,
            Command.SET_OPTION: self._plain,
            Command.STATISTICS: self._statistics,
            Command.RESET_CONNECTION: self._reset_connection,
            Command.QUIT: self._quit,
        }

    def wants(self) -> bool:
        """Say whether there is room for more of the client."""
        return not self._blocked or len(self._frames) < HELD_BYTES_MAX

    @property
    def _blocked(self) -> bool:
        return self._answers.due is not None or self._judging.waits

    # -- events ----------------------------------------------------------------------------------------------------------------

    def begin(self, let_in: Callable[[], None]) -> None:
        """Ask the server how it reads text before the client is told that it is let in."""
        self._inquire(let_in)

    def client_said(self, data: bytes) -> None:
        """Take bytes of the client."""
        self._frames.add(data)
        self._go_on()

    def server_said(self, data: bytes) -> None:
        """Take bytes of the server."""
        try:
            self._outbox.down(self._answers.receive(data))
        except UnreadableError as error:
            self.end(str(error))
            return
        if self._answers.beyond is not None:
            self._close_for(self._answers.beyond.words)
            return
        self._go_on()

    def decided(self, verdict: Verdict) -> None:
        """Take a verdict."""
        self._judging.decided(verdict)
        self._go_on()

    def left(self) -> None:
        """Take that the client will say nothing more: what it waits for, nobody wants."""
        self._judging.withdraw()
        self.over = True
        self._outbox.do(Close())

    def end(self, reason: str) -> None:
        """End what cannot be followed."""
        self._judging.withdraw()
        self._last_word(packets.NOT_UNDERSTOOD, reason)
        self._close_for(reason)

    def too_long(self) -> None:
        """Take that a statement took longer than it may."""
        self._last_word(packets.BEYOND, TOO_SLOW)
        self._close_for(TOO_SLOW)

    def _last_word(self, error: tuple[int, str], message: str) -> None:
        """Tell the client why it ends, where the beginning of a packet does not stand before it."""
        if (place := self._answers.place) is not None:
            self._outbox.down(packets.err(place, error, f"capd: {message}", encoding=self._judging.encoding))

    def _close_for(self, reason: str) -> None:
        self.over = True
        due = self._answers.due
        if due is not None and due.masked is not None and due.masked.carried_out is not None:
            self._outbox.do(Report(self._outbox.decision, due.masked.carried_out))
        self._outbox.do(Refused(next(self._around.numbers), reason, ""), Close())

    def _go_on(self) -> None:
        """Do what can be done now."""
        try:
            while not self.over and not self._blocked:
                found = self._frames.next()
                if found is None:
                    return
                self._command(*found)
        except TooLongError as error:
            self._last_word(packets.TOO_LONG, str(error))
            self._close_for(str(error))
        except UnreadableError as error:
            self.end(str(error))

    def _command(self, sequence: int, body: bytes) -> None:
        if sequence or not body:
            raise UnreadableError("the client says something that is no command")
        handle = self._commands.get(body[0])
        if handle is None:
            self._refuse(packets.NOT_UNDERSTOOD, "this command is not passed on")
            return
        self._handle(handle, body)

    def _handle(self, handle: Callable[[bytes], None], body: bytes) -> None:
        try:
            handle(body)
        except MalformedError as error:
            self._refuse(packets.NOT_UNDERSTOOD, f"the command does not add up: {error}")

    # -- sending ---------------------------------------------------------------------------------------------------------------

    def _send(self, body: bytes, then: Callable[[Due], None] | None = None, **due: object) -> None:
        """Send the server a command whose answer the client gets."""
        self._expect(Due(**due), then)  # type: ignore[arg-type]  # a few words of its own
        self._outbox.up(packets.packet(0, body))

    def _expect(self, due: Due, then: Callable[[Due], None] | None) -> None:
        self._then = then
        self._answers.expect(due)
        seconds = None if due.counting is None else due.counting.seconds
        if seconds is not None:
            self._timed = True
            self._outbox.do(Arm(Timer.STATEMENT, float(seconds)))

    def _answered(self, due: Due) -> None:
        """Take an answer that is whole."""
        then, self._then = self._then, None
        if self._timed:
            self._timed = False
            self._outbox.do(Arm(Timer.STATEMENT, None))
        for told in due.told:
            self._judging.told(told.variables, told.schema)
        if due.status is not None:
            self._judging.in_transaction = bool(due.status & 1)
        if then is not None:
            then(due)

    def _refuse(self, error: tuple[int, str], message: str) -> None:
        self._outbox.down(packets.err(1, error, f"capd: {message}", encoding=self._judging.encoding))

    def _deny(self, verdict: Verdict) -> None:
        facts = {"reason": verdict.reason, "rule": verdict.rule or "default", **verdict.facts}
        message = packets.facts_text(verdict.message or verdict.reason, {**facts, "session": self._around.session})
        self._outbox.down(packets.err(1, packets.DENIED, message, encoding=self._judging.encoding))

    # -- judging ---------------------------------------------------------------------------------------------------------------

    def _inquire(self, then: Callable[[], None]) -> None:
        """Ask the server how it reads text and where it looks for names."""

        def learned(due: Due) -> None:
            if due.failed or len(due.rows) != 1:
                self._judging.lost()
            else:
                self._judging.learn(_cells(due.rows[0]))
            then()

        self._expect(Due(own=True), learned)
        self._outbox.up(packets.packet(0, bytes([Command.QUERY]) + INQUIRY))

    def _judge(
        self, sql: bytes, allowed: Allowed, of: bytes | None = None, rows: Rows = Rows.NONE, *, prepares: bool = False
    ) -> None:
        """Ask about a statement, in the session that it meets, and do what is allowed."""
        message, ask = self._judging.read(sql), partial(self._ask, rows=rows, prepares=prepares)
        if self._judging.unread or self._judging.lacks_names(message):
            self._inquire(lambda: ask(self._judging.read(sql), sql, sql if of is None else of, allowed))
        else:
            ask(message, sql, sql if of is None else of, allowed)

    def _ask(
        self,
        message: Message,
        sql: bytes,
        of: bytes,
        allowed: Allowed,
        *,
        rows: Rows,
        session: Session | None = None,
        prepares: bool = False,
    ) -> None:
        if not self._admitted(message):
            self._refuse(packets.DENIED, "the credential of this session is not for that database")
            return

        def decided(verdict: Verdict) -> None:
            masks, counting = verdict.obligations.masks, self._counting(verdict)

            def ready(found: MaskedAnswers | str) -> None:
                if isinstance(found, str):
                    self._cannot(found, verdict)
                else:
                    allowed(message, Passage(masked=found, counting=counting))

            if not verdict.allowed:
                self._deny(verdict)
            elif not masks or rows is Rows.NONE:
                allowed(message, Passage(counting=counting))
            else:
                said_in = self._judging.session if session is None else session
                self._hiding.ready(message, sql, said_in, masks, ready, binary=rows is Rows.BINARY)

        self._judging.ask(message, sql, of, decided, prepares=prepares)

    def _counting(self, verdict: Verdict) -> Counting | None:
        """Give what counts the answers to a statement; None: nothing limits them."""
        around, limits, number = self._around, verdict.obligations.limits, verdict.number
        if not limits:
            return None
        meter = Meter(limits=limits, totals=around.totals, run=around.run)
        return Counting(meter, around.now, lambda exceeded: self._outbox.do(Exceed(number, exceeded)))

    def _cannot(self, reason: str, verdict: Verdict) -> None:
        """Tell the client of what cannot be done as its rules want it."""
        facts = {"reason": _CANNOT, "rule": verdict.rule, "session": self._around.session}
        told = packets.facts_text(reason, facts)
        self._outbox.down(packets.err(1, packets.DENIED, told, encoding=self._judging.encoding))

    def _admitted(self, message: Message) -> bool:
        """Whether a credential that is put in may be used where the message goes."""
        return self._sign_in is None or all(self._sign_in.admits(name) for name in self._judging.databases(message))

    def ask(self, question: str, then: Callable[[Sequence[Sequence[bytes | None]] | None, int], None]) -> None:
        """Ask the server something of capd's own (hiding.Asks)."""
        self._expect(Due(own=True), lambda due: then(None if due.failed else [_cells(row) for row in due.rows], due.error))
        said = question.encode(self._judging.encoding, "replace")
        self._outbox.up(packets.packet(0, bytes([Command.QUERY]) + said))

    # -- commands --------------------------------------------------------------------------------------------------------------

    def _query(self, body: bytes) -> None:
        self._judge(body[1:], lambda message, passage: self._run(body, message, passage), rows=Rows.TEXT)

    def _run(self, body: bytes, message: Message, passage: Passage, *, cursor: bool = False) -> None:
        """Send what is run, and take what comes of it."""
        number, masked = self._outbox.decision, passage.masked

        def ran(due: Due) -> None:
            self._judging.done(message, failed=due.failed)
            self._hiding.done(message, masked)
            if masked is not None and masked.carried_out is not None:
                self._outbox.do(Report(number, masked.carried_out))

        self._send(body, ran, masked=masked, counting=passage.counting, cursor=cursor)

    def _prepare(self, body: bytes) -> None:
        sql = body[1:]
        if not self._statements.room(sql):
            self._refuse(packets.TOO_LONG, "more prepared statements are not kept")
            return

        def allowed(message: Message, passage: Passage) -> None:
            session = self._judging.session

            def prepared(due: Due) -> None:
                if due.prepared is not None:
                    number, _, parameters = due.prepared
                    one = Prepared(sql=sql, message=message, parameters=parameters, session=session)
                    self._statements.add(number, one)

            self._send(body, prepared, asked=Asked.PREPARE, counting=passage.counting)

        self._judge(sql, allowed, prepares=True)

    def _execute(self, body: bytes, *, asked: bool = False) -> None:
        found = self._statements.find(_number(body))
        if found is None:
            self._refuse(packets.NO_STATEMENT, "there is no such prepared statement")
            return
        if self._judging.unread and not asked:
            self._inquire(lambda: self._handle(lambda again: self._execute(again, asked=True), body))
            return
        number, one = found
        if self._judging.session.reading != one.session.reading:
            # Where a table has changed, the server reads the text once more, and perhaps otherwise.
            self._refuse(packets.PREPARE_AGAIN, "how text is read has changed since it was prepared: prepare it again")
            return
        overflowed = self._overflowed.pop(number, None)
        if overflowed is not None:
            self._statements.forget_values(one)
            self._refuse(packets.TOO_LONG, overflowed)
            return

        of, types = content(one, body)
        sent = [(parameter, bytes(value)) for parameter, value in one.long.items()]
        # Whatever comes of it, the next execution begins without them.
        self._statements.forget_values(one)

        def allowed(message: Message, passage: Passage) -> None:
            one.passage, one.types = passage, types
            for parameter, value in sent:
                self._send_long(number, parameter, value)
            # With its own number: the server's latest may be another by now.
            own = body[:1] + number.to_bytes(4, "little") + body[_NUMBER_BYTES:]
            self._run(own, message, passage, cursor=bool(body[_NUMBER_BYTES] & _CURSOR))

        self._ask(one.message, one.sql, of, allowed, rows=Rows.BINARY, session=one.session)

    def _send_long(self, number: int, parameter: int, value: bytes) -> None:
        head = bytes([Command.STMT_SEND_LONG_DATA]) + number.to_bytes(4, "little") + parameter.to_bytes(2, "little")
        self._outbox.up(packets.packet(0, head + value))

    def _long_data(self, body: bytes) -> None:
        """Keep a value; it goes with the execution that it is for. It has no answer."""
        fields = Fields(body)
        fields.byte()
        found = self._statements.find(fields.number(4))
        if found is None:
            return
        number, one = found
        try:
            self._statements.keep_value(one, fields.number(2), fields.rest())
        except TooMuchError as error:
            self._overflowed[number] = str(error)

    def _close(self, body: bytes) -> None:
        found = self._statements.find(_number(body))
        if found is not None:
            self._statements.close(found[0])
            self._overflowed.pop(found[0], None)
            self._outbox.up(packets.packet(0, body[:_NUMBER_BYTES]))

    def _reset(self, body: bytes) -> None:
        found = self._statements.find(_number(body))
        if found is not None:
            self._statements.forget_values(found[1])
            self._overflowed.pop(found[0], None)
        self._send(body)

    def _fetch(self, body: bytes) -> None:
        """Rows of what was allowed to be executed, hidden as it was, and counted with those before."""
        found = self._statements.find(_number(body))
        if found is None:
            self._refuse(packets.NO_STATEMENT, "there is no such prepared statement")
        else:
            passage = found[1].passage
            self._send(body, asked=Asked.ROWS, masked=passage.masked, counting=passage.counting)

    def _database(self, body: bytes) -> None:
        """The same as USE."""
        name = body[1:].replace(b"`", b"``")
        self._judge(b"USE `" + name + b"`", lambda message, passage: self._run(body, message, passage))

    def _columns(self, body: bytes) -> None:
        """The same as SHOW COLUMNS."""
        fields = Fields(body)
        fields.byte()
        table = fields.until_nul().replace(b"`", b"``")

        def allowed(_message: Message, passage: Passage) -> None:
            self._send(body, asked=Asked.ROWS, counting=passage.counting)

        self._judge(b"SHOW COLUMNS FROM `" + table + b"`", allowed, of=body)

    def _plain(self, body: bytes) -> None:
        self._send(body)

    def _statistics(self, body: bytes) -> None:
        self._send(body, asked=Asked.TEXT)

    def _reset_connection(self, body: bytes) -> None:
        self._statements.clear()
        self._overflowed.clear()
        self._send(body, lambda _: self._judging.lost())

    def _quit(self, body: bytes) -> None:
        self._outbox.up(packets.packet(0, body))
        self.over = True
        self._outbox.do(Close())


def _number(body: bytes) -> int:
    if len(body) < _NUMBER_BYTES:
        raise MalformedError("it ends early")
    return int.from_bytes(body[1:_NUMBER_BYTES], "little")


def _cells(body: bytes) -> list[bytes | None]:
    """Give the values of a row of the text protocol; none if it cannot be read."""
    fields = Fields(body)
    values: list[bytes | None] = []
    try:
        while fields.left:
            length = fields.length()
            values.append(None if length is None else fields.raw(length))
    except MalformedError:
        return []
    return values
