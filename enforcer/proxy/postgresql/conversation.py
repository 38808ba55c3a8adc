"""A session that is signed in: what its client says, message by message, each judged before the server gets it.

What lives here: the client's messages in their order, and waiting: for decisions, for answers that decide what comes next. What
must not: what a statement does (enforcer/sql), messages of the extended protocol (extended.py), reading answers (answers.py).

A denied statement must leave client and server agreeing. Where nothing of a transaction is open, the client gets its error and,
at its Sync, ReadyForQuery: the server never hears of it. Where one is open, or a pipeline has begun, an error makes it a failed
one: so the server is sent a statement of capd's own that fails before it means anything (a syntax error), and its error is told
in capd's words. What follows until Sync is dropped here as the server would drop it.

A statement is read in the session that it will meet. Where one before it is still under way that changes the session (SET, an
unknown function), the client waits for its end; in a pipeline the server is asked to say what it has (Flush). How the server
reads text it reports with ReadyForQuery and not before: behind such a statement, within a pipeline, nothing is known.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Final

from capd.enforcer.obligations.obligation import CannotCarryOutError
from capd.enforcer.proxy.commands import Arm, Close, Refused, Report
from capd.enforcer.proxy.events import Held, Timer
from capd.enforcer.proxy.layer import Surroundings
from capd.enforcer.proxy.postgresql import messages
from capd.enforcer.proxy.postgresql.answers import IN_COPY, Answers
from capd.enforcer.proxy.postgresql.asking import Asking, Said
from capd.enforcer.proxy.postgresql.due import Asked, Due
from capd.enforcer.proxy.postgresql.extended import CODES, Extended
from capd.enforcer.proxy.postgresql.frames import COPY_DATA, ClientFrames, UnreadableError
from capd.enforcer.proxy.postgresql.hiding import Hiding
from capd.enforcer.proxy.postgresql.judging import Judging, is_plain
from capd.enforcer.proxy.postgresql.lane import Lane
from capd.enforcer.proxy.postgresql.masked import MaskedAnswers
from capd.enforcer.proxy.postgresql.metered import BeyondError, Metered
from capd.enforcer.proxy.postgresql.metering import Metering
from capd.enforcer.proxy.postgresql.names import UNNAMED
from capd.enforcer.proxy.postgresql.naming import Naming
from capd.enforcer.proxy.postgresql.outbox import Outbox
from capd.enforcer.proxy.postgresql.read_statement import Read
from capd.enforcer.proxy.postgresql.refusals import Refusals
from capd.enforcer.proxy.postgresql.rewriting import Rewriting
from capd.enforcer.proxy.question import Verdict

HELD_BYTES_MAX: Final = 65_536
"""Of a client that goes on before it is answered; then it is left to wait. One message may have more."""
DENIED_SQL: Final = "capd_denied"
"""Fails in the server's grammar, whatever the session."""
OWN_NAME: Final = "capd_asks"
_QUERY, _CALL, _SYNC, _TERMINATE, _FLUSH = b"QFSXH"
_COPY_ENDS: Final = frozenset(b"cf")
_COPY_MESSAGES: Final = frozenset(b"dcf")
_NOTHING_IN_COPY: Final = frozenset(b"SH")
"""The server passes over these while it waits for data (CopyGetData). Of all else it says an error, and ends the session."""
NO_CALLS: Final = "capd: FunctionCall is not judged; say SELECT"
_SHOWN: Final = {
    messages.IDLE: {"transaction": "none"},
    messages.IN_TRANSACTION: {"transaction": "open"},
    messages.FAILED: {"transaction": "failed"},
}


class Conversation:
    """Of one session.

    Attributes:
        over: nothing more is done.
        stopped: what the server runs is beyond a limit: it is to be cancelled.
        copying: the server takes data.
    """

    def __init__(self, around: Surroundings, judging: Judging, outbox: Outbox, frames: ClientFrames) -> None:
        self._around, self.judging, self.outbox, self._frames = around, judging, outbox, frames
        self.answers = Answers(self)
        self.extended, self.asking = Extended(self), Asking(self)
        self._metering = Metering(around, outbox)
        refusals = Refusals(around.session, judging, outbox)
        self.refusal, self.not_hidden = refusals.of, refusals.not_hidden
        self.hiding = Hiding(self, around.mask_key, around.now)
        self.lane = Lane(self, frames)
        self.naming = Naming(self)
        self.status = messages.IDLE
        self.discarding = self.over = self.stopped = self._passes = False
        self.copying = self._copy_passes = False
        self._timed: Due | None = None
        self._then: Callable[[], None] | None = None
        self._greeting: Callable[[], None] | None = None

    def wants(self) -> bool:
        """Say whether there is room for more of the client."""
        return len(self._frames) < HELD_BYTES_MAX or not (self.blocked or self._awaits_copy)

    @property
    def waiting_bytes(self) -> int:
        """How many bytes of the server are not passed on yet, or stand behind names."""
        return self.lane.waiting_bytes + self.answers.waiting_bytes + self.extended.prepared.size + self.extended.portals.size

    @property
    def _awaits_copy(self) -> bool:
        """Whether a Query is under way that may want data: some clients send it without waiting to be asked."""
        due = self.answers.due
        if not due or self.copying:
            return False
        last = due[-1]
        return last.asked is Asked.QUERY and last.read is not None and last.read.may_copy and not last.failed

    @property
    def blocked(self) -> bool:
        """Whether something is waited for before the client's next message is looked at."""
        return self._then is not None or self.judging.waits

    # -- events ----------------------------------------------------------------------------------------------------------------

    def begin(self, greeting: Callable[[], None]) -> None:
        """Ask the server about names before the client is told that it is ready."""
        self._greeting = greeting
        self.naming.ask(self._greet)

    def _greet(self) -> None:
        assert self._greeting is not None
        self._greeting()

    def client_said(self, data: bytes) -> None:
        """Take bytes of the client."""
        self._frames.add(data)
        self.go_on()

    def server_said(self, data: bytes) -> None:
        """Take bytes of the server."""
        try:
            self.outbox.down(self.answers.receive(data))
        except UnreadableError as error:
            self.end(str(error))
            return
        except BeyondError as error:
            self._stop(str(error))
            return
        except CannotCarryOutError as error:
            self.end(f"its answer cannot be masked: {error}")
            return
        self.go_on()
        if self._timed is not None:
            self.time()

    def decided(self, verdict: Verdict) -> None:
        """Take a verdict."""
        try:
            self.judging.decided(verdict)
        except UnreadableError as error:  # what waited behind what was asked
            self.end(str(error))
            return
        self.go_on()

    def held(self, event: Held) -> bool:
        """Tell the client that a person is asked; say whether it waits for that."""
        if not self.judging.waits_for(event.number):
            return False
        self.down(messages.notice(f"capd: waiting for approval {event.approval}", encoding=self._encoding))
        return True

    def interrupted(self) -> None:
        """Take that the client gives up what it waits for."""
        self.judging.give_up()
        self.go_on()

    def left(self) -> None:
        """Take that the client will say nothing more: what it waits for, nobody wants."""
        self.judging.withdraw()
        self.over = True
        self.outbox.do(Close())

    def go_on(self) -> None:
        """Do what can be done now."""
        try:
            while not self.over and self._step():
                pass
        except UnreadableError as error:
            self.end(str(error))

    def _step(self) -> bool:
        """Do one thing; say whether there may be another."""
        frames = self._frames
        if self._then is not None and not self.answers.due:
            then, self._then = self._then, None
            then()
            return True
        if frames.midway:
            return self._copy()
        following = frames.peek()
        if following in _COPY_MESSAGES:
            if self._awaits_copy:
                return False
            if following == COPY_DATA and (self.copying or not self.blocked):
                return self._copy()
        if (self._then is not None or self.judging.waits) and not self.copying:
            return False
        found = frames.next()
        if found is None:
            return False
        self._take(*found)
        return True

    def end(self, reason: str) -> None:
        """End what cannot be followed any more."""
        if not self.over:
            self._last_word(reason, messages.PROTOCOL_VIOLATION)
            self.outbox.do(Close())

    def _stop(self, reason: str) -> None:
        """End what is beyond a limit."""
        if not self.over:
            self._last_word(reason, messages.LIMIT)
            self.stopped = True

    def _last_word(self, reason: str, code: str) -> None:
        self.over = True
        if self.answers.due:
            self._reports(self.answers.due[0])
        told = messages.error(code, f"capd ends the session: {reason}", severity=messages.FATAL)
        self.outbox.down(self.answers.inject(told))
        self.outbox.do(Refused(next(self._around.numbers), reason, ""))

    # -- messages --------------------------------------------------------------------------------------------------------------

    def _take(self, code: int, frame: bytes) -> None:
        if code == _TERMINATE:
            self.over = True
            self.outbox.up(messages.TERMINATE)
            self.outbox.do(Close())
        elif self.copying:
            self._copy_ended(code, frame)
        elif code in _COPY_ENDS:
            return  # of a COPY that has failed: the server passes over it too
        elif self.discarding and code != _SYNC:
            return
        elif self.answers.due and self.answers.due[-1].asked is Asked.QUERY:
            self.settle(lambda: self._take(code, frame), passes=code in _NOTHING_IN_COPY)
        elif code == _QUERY:
            self.extended.flush_parse(lambda: self.settle(lambda: self._query(frame)))
        elif code in CODES:
            self.extended.take(code, frame)
        elif code == _SYNC:
            self.extended.flush_parse(self._sync, always=True)
        elif code == _FLUSH:
            self.extended.flush_parse(lambda: self.outbox.up(messages.FLUSH))
        elif code == _CALL:
            told = messages.error(messages.NOT_SUPPORTED, NO_CALLS)
            self.extended.flush_parse(lambda: self.deny(told, simple=True))
        else:
            raise UnreadableError(f"a message {chr(code)} means nothing here")

    def _copy(self) -> bool:
        """Pass on data of a COPY; of one that has failed, drop it as the server does."""
        if not self._frames.midway:
            self._copy_passes = self.copying
        data = self._frames.copied()
        if data and self._copy_passes:
            self.outbox.up(data)
        return bool(data)

    def _copy_ended(self, code: int, frame: bytes) -> None:
        if code in _COPY_ENDS:
            self.copying = False
            self.outbox.up(frame)
        elif code not in _NOTHING_IN_COPY:
            raise UnreadableError(IN_COPY)

    def _sync(self) -> None:
        self.discarding = False
        self.judging.forget_foreseen()
        self.judging.commits()
        self.extended.sync(messages.SYNC)

    def _query(self, frame: bytes) -> None:
        if self.discarding:  # what was waited for failed
            return
        sql = frame[5:-1]
        if frame[-1] or b"\0" in sql:
            raise UnreadableError("a Query has its text and one zero byte")

        def decided(read: Read, verdict: Verdict) -> None:
            refusal, masks = self.refusal(verdict), verdict.obligations.masks
            if refusal is not None:
                self.deny(refusal, simple=True)
            elif masks:
                self.hiding.query(read, sql, masks, lambda made: hidden(made, read, verdict))
            else:
                counted = self.metered(verdict, read)
                if counted is None and is_plain(verdict):
                    self.lane.learn_query(read, sql)
                self._send_query(frame, Due(Asked.QUERY, read=read, rewriting=counted))

        def hidden(made: MaskedAnswers | str | bytes, read: Read, verdict: Verdict) -> None:
            if isinstance(made, str | bytes):
                self.deny(self.not_hidden(made, verdict), simple=True)
                return
            counted = self.metered(verdict, read, made) or made
            due = Due(Asked.QUERY, read=read, rewriting=counted, number=verdict.number, masks=verdict.obligations.masks)
            self._send_query(frame, due)

        self.asking.ask(Said(reads=lambda: self.judging.read(sql), sql=sql, content=sql), decided)

    def _send_query(self, frame: bytes, due: Due) -> None:
        self.extended.prepared.drop(UNNAMED)  # a Query takes it with it
        self.extended.open = False
        due.group = self.extended.group
        self.answers.due.append(due)
        self.outbox.up(frame)
        if due.rewriting is not None:
            self.time()

    # -- limits ----------------------------------------------------------------------------------------------------------------

    def metered(self, verdict: Verdict, read: Read, inner: Rewriting | None = None) -> Metered | None:
        """Give what counts the answers to a statement; None: nobody does."""
        return self._metering.of(verdict, read.message, self.extended.portals, inner)

    def time(self) -> None:
        """See that the statement whose answer is due next takes no longer than it may; called when that changes."""
        due = self.answers.due
        head = next((one for one in due if isinstance(one.rewriting, Metered) and one.rewriting.seconds is not None), None)
        if head is self._timed:
            return
        self._timed = head
        seconds = head.rewriting.seconds if head is not None and isinstance(head.rewriting, Metered) else None
        self.outbox.do(Arm(Timer.DEADLINE, seconds))

    def too_long(self) -> None:
        """Take that a statement took longer than it may."""
        if self._timed is not None:
            self._stop("a statement took longer than a rule allows")

    # -- judging ---------------------------------------------------------------------------------------------------------------

    @property
    def _encoding(self) -> str:
        return self.judging.encoding

    @property
    def shown(self) -> Mapping[str, object]:
        """Give what a person is shown beside a statement."""
        return _SHOWN[self.status]

    def asks(self, statements: Sequence[bytes], then: Callable[[Due], None]) -> None:
        """Ask the server with statements of capd's own, in one transaction.

        A Query takes the unnamed statement and portal with it: where the client may have them, it is none.
        """
        kept = UNNAMED in self.extended.prepared or UNNAMED in self.extended.portals
        said = messages.named_queries(OWN_NAME, statements) if kept else messages.frame(b"Q", b"; ".join(statements) + b"\0")
        self.own(said, Due(Asked.OWN), then)

    def own(self, said: bytes, due: Due, then: Callable[[Due], None]) -> None:
        """Ask the server something of capd's own; the client hears nothing of it."""
        self.outbox.up(said)
        self.answers.due.append(due)
        self.settle(lambda: None if self._lost(due) else then(due))

    def _lost(self, due: Due) -> bool:
        """Say whether a question within a group was passed over, since something before it failed."""
        return due.portal and self.discarding

    def deny(self, refusal: bytes, *, simple: bool, after: Callable[[], None] | None = None) -> None:
        """Answer with an error, in the server's place; see above."""

        def settled() -> None:
            if not self.discarding:  # else it failed before it came to this
                self._deny(refusal, simple=simple)
            if after is not None:
                after()

        self.settle(settled)

    def _deny(self, refusal: bytes, *, simple: bool) -> None:
        fails = self.extended.open or self.status == messages.IN_TRANSACTION
        if simple and fails:
            self._send_query(messages.query(DENIED_SQL), Due(Asked.QUERY, instead=refusal))
        elif simple:
            self.down(refusal + messages.ready(self.status))
        else:
            self.discarding = True
            if fails:
                self.extended.send(messages.parse(DENIED_SQL, DENIED_SQL), Due(Asked.PARSE, instead=refusal))
            else:
                self.down(refusal)

    def down(self, data: bytes) -> None:
        """Send the client a message of capd's own."""
        self.outbox.down(self.answers.inject(data))

    def settle(self, then: Callable[[], None], *, passes: bool = False) -> None:
        """Do something once the server has answered all that it was asked; if it `passes`, not if that wants data."""
        if not self.answers.due:
            then()
            return
        assert self._then is None
        self._passes = passes
        if self.extended.open:
            self.outbox.up(messages.FLUSH)
        self._then = then

    # -- what answers mean (answers.Watcher) -----------------------------------------------------------------------------------

    def executed(self, due: Due) -> None:
        """Take that an Execute is done."""
        assert due.read is not None
        self._was_run(due)
        self.extended.executed(due.read)

    def _was_run(self, due: Due) -> None:
        """Take that a statement was run: say what was hidden of it."""
        self._reports(due)
        if due.read is not None and (due.rewriting is not None or self.hiding.active):
            masked = due.rewriting.inner if isinstance(due.rewriting, Metered) else due.rewriting
            self.hiding.done(due.read.message, masked, due.masks, failed=due.failed)

    def _reports(self, due: Due) -> None:
        if due.rewriting is not None and (carried_out := due.rewriting.carried_out) is not None:
            self.outbox.do(Report(due.number, carried_out))

    def failed(self, due: Due) -> None:
        """Take that something failed."""
        self.extended.failed(due)
        if due.asked is Asked.EXECUTE:
            self._was_run(due)

    def group_failed(self) -> None:
        """Take that the server passes over everything to the next Sync."""
        self.discarding, self.copying = True, False

    def copy_in(self) -> None:
        """Take that the server wants data: it takes nothing else now, whatever waits for its answer."""
        if self._then is not None and not self._passes:
            raise UnreadableError(IN_COPY)
        self.copying, self._then = True, None

    def reported(self, name: str, value: str) -> None:
        """Take what the server says of a parameter."""
        self.judging.reported(name, value)
        self.hiding.reported(name, value)

    def ready(self, due: Due, status: bytes) -> None:
        """Take that a message is done."""
        if status not in (messages.IDLE, messages.IN_TRANSACTION, messages.FAILED):
            raise UnreadableError("the server says an unknown state of its transaction")
        self.copying = False
        if due.asked is Asked.OWN:
            self._owned(due, status)
        else:
            if due.asked is Asked.QUERY:
                self._was_run(due)
            self.extended.ready(due, status)
        if status == messages.IDLE:
            self.hiding.transaction_over()
        self.status = status
        self.judging.settle(status)
        if not self.answers.due and due.asked is not Asked.OWN:  # capd asks before it sends what was allowed
            self.judging.over()

    def _owned(self, due: Due, status: bytes) -> None:
        if due.failed and not due.describes and status == messages.FAILED != self.status:
            # Asked within a transaction, and interrupted there: it is the client's that failed.
            raise UnreadableError("the transaction failed while the server was asked what names mean")
