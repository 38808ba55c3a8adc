"""What a statement is, in the session in which it is said, and the question about it.

What lives here: what is known of the session, and asking. What must not: messages of the protocol.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Final

from capd.enforcer.obligations.obligation import NOTHING
from capd.enforcer.proxy.commands import Ask, Over, Unsent, Withdraw
from capd.enforcer.proxy.layer import Surroundings
from capd.enforcer.proxy.postgresql import messages, prepared_text
from capd.enforcer.proxy.postgresql.asked_again import Asks
from capd.enforcer.proxy.postgresql.inquiry import names_queries, told
from capd.enforcer.proxy.postgresql.known_functions import GONE_SECONDS, KNOWN_SECONDS, KnownFunctions
from capd.enforcer.proxy.postgresql.names import Prepared
from capd.enforcer.proxy.postgresql.numbers import without_numbers
from capd.enforcer.proxy.postgresql.outbox import Outbox
from capd.enforcer.proxy.postgresql.read_statement import Read, as_read, together
from capd.enforcer.proxy.question import Kin, Kind, Login, Question, Statement, Verdict
from capd.enforcer.proxy.sql_question import sql_statement, sql_text
from capd.enforcer.sql import effect
from capd.enforcer.sql.lexeme import Dialect, Reading
from capd.enforcer.sql.message import MESSAGE_REMEMBERED_BYTES_MAX, Message, Reader
from capd.enforcer.sql.session import UNKNOWN_SCHEMA, Names, Session

PROTOCOL: Final = "postgresql"
UNREAD: Final = Reading(dialect=Dialect.POSTGRESQL, encoding=None, plain_backslash=None)
"""Until the server has reported how it reads text."""
_SESSION_ONLY: Final = frozenset({"session"})
_DEFINES: Final = frozenset({"define", "grant"})
_OF_NAMES: Final = frozenset({effect.SCHEMA, effect.MEANS, effect.UNMAKES})
_READS_OTHERWISE: Final = frozenset({effect.ANYTHING.setting, "client_encoding", "standard_conforming_strings"})
_ENDS: Final = frozenset({effect.COMMIT, effect.ROLLBACK, effect.ROLLBACK_TO})
_BY_NAME: Final = frozenset({"EXECUTE", "PREPARE", "DEALLOCATE"})
READS_MAX: Final = 64
"""Statements of one session that are known by their bytes until something changes in it; READER knows more, and is slower."""
DEFINED_SINCE: Final = "functions may have been defined since the server was asked which there are"
ANSWERED_SECONDS: Final = 1.0
"""A question that was answered by then had no person think about it."""
GIVEN_UP: Final = "given_up"
"""The reason of what a client took back while a person was asked."""
READER: Final = Reader()
"""Remembers what statements do, which is the same for everybody; what a name means is part of what it remembers them by."""


def _may_define(message: Message) -> bool:
    """Say whether others' statements may mean something else after a message: it makes functions, schemas, or gives rights."""
    unseen = bool(message.problems) or message.effects is None or "code" in message.effects
    return unseen or any(_makes_names(one) for one in message.statements)


def _makes_names(done: effect.Effects) -> bool:
    """Say whether a statement defines what is no relation: those that name relations are about these."""
    about_names = any(change.setting in _OF_NAMES for change in done.changes)
    return about_names or (not done.relations and not done.effects.isdisjoint(_DEFINES))


def _may_call(message: Message) -> bool:
    """Say whether a message has what may be a function of others."""
    return bool(message.functions) or any(one.fields for one in message.statements)


def _looks_up(message: Message) -> bool:
    """Say whether a message has a relation that is looked for in the search path."""
    return any(relation.schema is None for one in message.statements for relation in one.relations)


def is_plain(verdict: Verdict) -> bool:
    """Say whether a verdict allows what was asked as it is, and nobody was asked."""
    asks_nothing = verdict.obligations is NOTHING or not verdict.obligations
    return verdict.allowed and asks_nothing and not verdict.approval and not verdict.facts


Foreseen = tuple[int, bytes, Message, Verdict | None]
"""Number and content of what was asked already, what it was then, and its verdict; None: it is still to come."""


class Judging:
    """Of one session.

    Attributes:
        session: what is known of it.
        prepared: gives what stands behind a name.
        standing: number of the decision under which something may still go on; 0: nothing does.
        waits: whether a question is open.
    """

    def __init__(self, around: Surroundings, login: Login, outbox: Outbox, functions: KnownFunctions) -> None:
        self._around, self._login, self._outbox = around, login, outbox
        self._functions = functions.at((around.destination.address, around.destination.port, login.database or ""))
        self._stamp: int | None = None
        """Of when the server said which functions there are; None: it did not."""
        self._told_at = around.now()
        self._asked = (0, False)
        """The stamp when it was asked last, and whether that was in a transaction."""
        self._told_within = False
        """Whether what is known of names was said in a transaction that is open, which may be undone."""
        self.session = Session(reading=UNREAD, names=Names())
        self._reported = UNREAD
        self._rereads = False
        """Whether how the server reads text has changed since no transaction was open: the end of one may take that back."""
        self.prepared: Callable[[bytes], Prepared | None] = lambda _: None
        self._read_in: Session | None = None
        self._reads: dict[bytes, Read] = {}
        self._number = self.standing = 0
        self._judged: Message | None = None
        self._defines = False
        """Whether something was perhaps defined in a transaction that is open."""
        self._then: Callable[[Verdict], None] | None = None
        self._foreseen: deque[Foreseen] = deque()

    # -- what is known of the session ------------------------------------------------------------------------------------------

    @property
    def encoding(self) -> str:
        """Give Python's name of the client's encoding."""
        return self.session.reading.encoding or "ascii"

    def reported(self, name: str, value: str) -> None:
        """Take what the server says of a parameter."""
        changed = replace(self.session, reading=self._reported).reported(name, value)
        self._rereads = self._rereads or self._reported != changed.reading
        self._reported = changed.reading
        if self.session.reading != changed.reading:
            self.session = replace(self.session, reading=changed.reading)

    def settle(self, status: bytes) -> None:
        """Take that the server is ready: how it reads text is as it has reported, and whether a transaction is open it says."""
        session, open_ = self.session, status != messages.IDLE
        if session.reading != self._reported:
            session = replace(session, reading=self._reported)
        if session.in_transaction is not open_:
            # It began or ended otherwise than its statements say: what is, or was, undone is not known.
            names, unknown = session.names if open_ else Names(temporary=None), Names(temporary=None)
            session = replace(session, names=names, in_transaction=open_, before=unknown, lasting=unknown)
        if not open_:
            self._rereads = False
            self.commits()
            self._defines = False
            if session.turned:  # SET LOCAL has no effect then, and what a message did may be undone
                session = replace(session, names=replace(session.names, schemas=None), turned=False)
        self.session = session
        if not open_:
            self._undone()

    def done(self, message: Message, *, failed_before: bool) -> None:
        """Take that the statements of a message were run, while the transaction had failed or not."""
        self.may_have_defined(message)
        for one in message.statements:
            if failed_before and any(change.setting == effect.COMMIT for change in one.changes):
                self.unnamed()  # COMMIT of a failed transaction undoes it
                continue
            self.session = self.session.after(one, succeeded=True)
            changed = {change.setting for change in one.changes}
            if changed & _ENDS:
                self._undone()
            if one.problems or changed & _READS_OTHERWISE or (self._rereads and changed & _ENDS):
                # The server says when it is ready, and not before, how it reads text now.
                self.session, self._rereads = replace(self.session, reading=UNREAD), True
        if not message.statements and message.problems:
            self.session = self.session.lost()

    def may_have_defined(self, message: Message) -> None:
        """Take that a message was run, or a part of it."""
        if _may_define(message):
            self._functions.defines(self._around.now())
            self._defines = True

    def unnamed(self) -> None:
        """Take that what names mean is not known any more."""
        self.session = replace(self.session, names=Names(temporary=None), lasting=Names(temporary=None))

    def commits(self) -> None:
        """Take that the transaction ends, or may: from then on others see what was defined in it."""
        if self._defines:
            self._functions.defines(self._around.now())

    def names_queries(self, *, within: bool) -> tuple[str, ...]:
        """Give what to ask about names; functions only where they are not known of another session.

        Args:
            within: whether a transaction is open: what was defined in it is not known of another one.
        """
        self._asked = self._functions.stamp, within
        known = None if self._defines else self._functions.of(self._around.now())
        if known is not None:
            self._believe(*known)
        self._told_within = within
        return names_queries(functions=known is None, within=within)

    def _undone(self) -> None:
        """Take that what was done in a transaction is perhaps not any more, and what the server said of names there neither."""
        if self._told_within:
            self._told_within = False
            self.untold()

    def _believe(self, stamp: int, functions: frozenset[str]) -> None:
        self._stamp, self._told_at = stamp, self._around.now()
        self.session = self.session.told_functions(functions)

    def learn(self, results: list[list[tuple[bytes | None, ...]]]) -> None:
        """Take what the server said of names."""
        found = told(results, self.encoding)
        if found is None:
            self.untold()
            return
        self.session = self.session.told_schemas(found.schemas, found.temporary)
        if found.functions is not None:
            stamp, within = self._asked
            self._believe(stamp, found.functions)
            if not within:  # what others do not see yet, or any more, is nothing for them
                self._functions.learn(self._told_at, stamp, found.functions)

    def untold(self) -> None:
        """Take that the server did not say what names mean when it was asked, as when the client lets it have no time."""
        self._stamp = None
        self.unnamed()

    # -- statements ------------------------------------------------------------------------------------------------------------

    def read(self, sql: bytes, reading: Reading | None = None) -> Read:
        """Read a statement in the session as it is now; how it reads text may be of earlier."""
        session = self.session
        if reading is not None and reading is not session.reading and reading != session.reading:
            other = as_read(READER.read(sql, replace(session, reading=reading)))
            return self._by_name(other, sql, reading) if other.message.command in _BY_NAME else other
        if session is not self._read_in:
            self._read_in = session
            self._reads.clear()
        known = plain = without_numbers(sql)
        found = self._reads.get(known)
        if found is None:
            found = as_read(READER.read(sql, session))
            if found.message.command in _BY_NAME:
                return self._by_name(found, sql, session.reading)
            if plain is not sql and (found.message.problems or any(one.literal for one in found.message.statements)):
                known = sql
                if sql in self._reads:
                    return self._reads[sql]
                if plain == sql:  # its bytes stand for others here
                    return found
            if len(sql) <= MESSAGE_REMEMBERED_BYTES_MAX:
                if len(self._reads) >= READS_MAX:
                    self._reads.clear()
                self._reads[known] = found
        return found

    def _by_name(self, found: Read, sql: bytes, reading: Reading) -> Read:
        """Tie an EXECUTE of SQL to what was prepared, and give names that others make or give up."""
        message = found.message
        if len(message.statements) != 1:
            return found
        if message.command == "EXECUTE":
            return self._tied(found, sql)
        if message.command == "PREPARE":
            made = None if message.problems else prepared_text.prepared(sql)
            return found if made is None else replace(found, prepares=(*made, reading))
        return found if message.problems else replace(found, gives_up=prepared_text.deallocated(sql))

    def _tied(self, found: Read, sql: bytes) -> Read:
        named = prepared_text.executed(sql)
        prepared = None if named is None else self.prepared(named[0])
        if named is None or prepared is None or prepared.doubt:
            return found
        session = self.session
        inner = READER.read(prepared.sql, replace(session, reading=prepared.reading))
        if len(inner.statements) != 1:
            return found
        if named[1].strip():
            arguments = READER.read(b"SELECT " + named[1], session)
            if len(arguments.statements) != 1:
                return found
            inner = together(inner, arguments)
        return replace(as_read(inner), tied=prepared.sql)

    def lacks_names(self, message: Message, status: bytes) -> bool:
        """Say whether asking the server would tell more of a message."""
        names = self.session.names
        stale = self.is_stale(message, status)
        if status == messages.FAILED or (names.schemas is not None and names.temporary is not None and not stale):
            return False
        if status != messages.IDLE and message.effects is not None and message.effects <= _SESSION_ONLY:
            return False  # asked now, it could be too late for SET TRANSACTION
        prefix = f"{UNKNOWN_SCHEMA}."
        return stale or any(name.startswith(prefix) for name, _ in message.resources or ())

    def _is_old(self, status: bytes) -> bool:
        """Say whether what the server said of names is of another time; by the clock, between transactions only."""
        long_ago = status == messages.IDLE and self._around.now() - self._told_at > KNOWN_SECONDS
        return long_ago or self._functions.stamp != self._stamp

    @property
    def stamp(self) -> int:
        """What is another one once something may have been defined."""
        return self._functions.stamp

    def doubted(self, read: Read) -> Read:
        """Give a statement as it is known where the server did not say which functions there are, or they may be others now."""
        if self._functions.stamp == self._stamp or not _may_call(read.message):
            return read
        return as_read(replace(read.message, problems=(*read.message.problems, DEFINED_SINCE)))

    # -- questions -------------------------------------------------------------------------------------------------------------

    def is_stale(self, message: Message, status: bytes) -> bool:
        """Say whether the server has to be asked about names before a message is believed."""
        if _may_call(message):
            return self._is_old(status) or self._functions.is_fresh(self._around.now())
        return self._is_old(status) and _looks_up(message)

    def is_outdated(self, message: Message, status: bytes) -> bool:
        """Say whether names may mean something else than when a message was read, perhaps minutes ago."""
        if self._around.now() - self._told_at <= ANSWERED_SECONDS and self._functions.stamp == self._stamp:
            return False
        return self.is_stale(message, status)

    @property
    def waits(self) -> bool:
        """Whether a question is open."""
        return self._then is not None

    def ask(
        self,
        message: Message,
        sql: bytes,
        content: bytes,
        then: Callable[[Verdict], None],
        *,
        shown: Mapping[str, object],
        estimable: bool,
        prepares: bool = False,
        approved: str = "",
    ) -> None:
        """Ask whether a statement may go on.

        Args:
            message: what it does.
            sql: its text.
            content: every byte that decides what it does.
            then: is told the verdict.
            shown: to a person beside it.
            estimable: whether how much it is about can be found out first.
            prepares: whether it is only prepared.
            approved: as in question.Statement.
        """
        if self._foreseen and self._was_foreseen(message, content, then):
            return
        self._number, self._then, self.standing = next(self._around.numbers), then, 0
        self._judged = message
        encoding = self.session.reading.encoding or "utf-8"
        statement = sql_statement(
            message, sql, encoding, content, shown=shown, estimable=estimable, prepares=prepares, approved=approved
        )
        self._outbox.do(Ask(self._question(self._number, statement, None)))

    def _question(self, number: int, statement: Statement, kin: Kin | None) -> Question:
        around = self._around
        return Question(
            number=number,
            kind=Kind.STATEMENT,
            destination=around.destination,
            protocol=PROTOCOL,
            server_name=around.server_name,
            inspected=around.inspected,
            login=self._login,
            statement=statement,
            carries_out=True,
            kin=kin,
        )

    def text(self, sql: bytes) -> str | None:
        """Give a statement as rules look at it; None: it is no text."""
        return sql_text(sql, self.session.reading.encoding or "utf-8")

    def asks(self, read: Read, sql: bytes, *, shown: Mapping[str, object], estimable: bool) -> Asks:
        """Give what is to be asked when a statement comes again; arguments as `ask` has them."""
        message = read.message
        encoding = self.session.reading.encoding or "utf-8"
        first = sql_statement(message, sql, encoding, sql, shown=shown, estimable=estimable)
        later = replace(first, estimable=False)
        questions = self._question(0, first, Kin()), self._question(0, later, Kin())
        return Asks(read, *questions, _may_call(message), _looks_up(message))

    def question_again(self, asks: Asks, content: bytes, *, first: bool) -> Question:
        """Give the question about a statement that was asked about before, with other values. The lane takes the verdict."""
        like = asks.first if first else asks.later
        assert like.statement is not None
        self.standing = 0
        text = like.statement.text if asks.before else self.text(content)
        return like.again(next(self._around.numbers), like.statement.again(content, text))

    def are_stale(self, asked: Sequence[Asks], status: bytes) -> bool:
        """Say of statements that come again what `is_stale` says, of any of them."""
        old = self._is_old(status)
        for asks in asked:
            if asks.may_call and (old or self._functions.is_fresh(self._around.now())):
                return True
            if old and asks.looks_up:
                return True
        return False

    def foresee(self, asked: Iterable[Foreseen]) -> None:
        """Take what was asked about statements that are about to be asked about."""
        self._foreseen.extend(asked)

    def _was_foreseen(self, message: Message, content: bytes, then: Callable[[Verdict], None]) -> bool:
        number, asked, was, verdict = self._foreseen[0]
        if asked != content or was != message:
            self.forget_foreseen()
            return False
        self._foreseen.popleft()
        self._number, self._then, self.standing = number, then, 0
        self._judged = None  # it is one that changes nothing
        if verdict is not None:
            self.decided(verdict)
        return True

    def forget_foreseen(self) -> None:
        """Take that what was foreseen does not come: nothing is sent under it."""
        self.give_back(self._foreseen)
        self._foreseen.clear()

    def give_back(self, asked: Iterable[Foreseen]) -> None:
        """Take that nothing is sent under what was asked, whether or not it was answered."""
        for number, _, _, verdict in asked:
            if verdict is None:
                self._outbox.do(Withdraw(number))
            elif verdict.allowed:
                self._outbox.do(Unsent(number))

    def decided(self, verdict: Verdict) -> None:
        """Take a verdict, if it is the one that is waited for."""
        if self._then is None or verdict.number != self._number:
            return
        then, self._then = self._then, None
        if verdict.allowed:
            self.standing = verdict.number
            if self._defines or (self._judged is not None and _may_define(self._judged)):
                self._functions.begins(self._around.now())
            self._outbox.join(verdict.number)
        then(verdict)

    def over(self) -> None:
        """Take that the server has answered everything: a policy that changes now is about what comes next."""
        self._functions.ends()
        if self.standing:
            self._outbox.do(Over(self.standing))
            self.standing = 0

    def ended(self) -> None:
        """Take that the session is over."""
        self._functions.ends(self._around.now() + GONE_SECONDS)

    def unsent(self) -> None:
        """Take that nothing is sent under the latest decision: it is asked again."""
        if self.standing:
            self._outbox.do(Unsent(self.standing))
            self.standing = 0

    def waits_for(self, number: int) -> bool:
        """Say whether a question is the one that is open."""
        return self._then is not None and number == self._number

    def withdraw(self) -> None:
        """Wait for no verdict any more."""
        self.forget_foreseen()
        if self._then is not None:
            self._then = None
            self._outbox.do(Withdraw(self._number))

    def give_up(self) -> None:
        """Go on as if the open question had been denied."""
        then = self._then
        if then is not None:
            self.withdraw()
            message = "canceling statement due to user request"
            then(Verdict(number=self._number, allowed=False, reason=GIVEN_UP, message=message))
