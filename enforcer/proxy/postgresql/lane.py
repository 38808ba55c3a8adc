"""Statements that a session said before, and was allowed: a Query, or a group of Binds up to its Sync, taken as a whole.

What lives here: knowing them again by their bytes, asking about all of a group at once, and knowing a whole answer again. What
must not: anything out of the ordinary. That is left to the long way (conversation.py, extended.py, answers.py), which finds
everything as if it had done it itself: `leave` gives it what the client said, with the decisions that were asked for, or what
the server still has to answer.

Nothing goes on undecided: each statement is asked about with its own values and gets its own decision; what is spared is taking
apart, and finding out once more what it does. That is known as long as the session is the same object, and so is the prepared
statement: whatever changes what a name or a text means makes another one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from capd.decoders.postgresql.wire import HEADER
from capd.enforcer.proxy.commands import Ask, Command, Over, Send
from capd.enforcer.proxy.events import Data, Decided, Event, Side
from capd.enforcer.proxy.postgresql import estimate, messages
from capd.enforcer.proxy.postgresql.asked_again import Asks
from capd.enforcer.proxy.postgresql.due import Asked, Due
from capd.enforcer.proxy.postgresql.frames import ClientFrames, shortest
from capd.enforcer.proxy.postgresql.judging import is_plain
from capd.enforcer.proxy.postgresql.names import UNNAMED, Portal, Prepared
from capd.enforcer.proxy.postgresql.numbers import NUMBER_DIGITS_MAX, PLAIN_BYTES_MAX, only_number, varies, without_numbers
from capd.enforcer.proxy.postgresql.read_statement import Read
from capd.enforcer.proxy.question import Verdict
from capd.enforcer.sql.session import Session

if TYPE_CHECKING:  # it makes this
    from capd.enforcer.proxy.postgresql.conversation import Conversation

KNOWN_MAX: Final = 16
"""Of each kind in one session; drivers run a few again and again. When there are more the oldest goes."""
SQL_BYTES_MAX: Final = 1_024
"""With what follows from it a statement takes 5 KiB at most then."""
GROUP_MAX: Final = 64
"""Statements that are asked about at once: their entries of the log are written together. A longer group goes the long way."""
_QUERY, _BIND = b"QB"
_HEADER: Final = 5
_READY_BYTES: Final = 6
_EXECUTE: Final = b"E\0\0\0\x09\0\0\0\0\0"
"""Of the unnamed portal, all rows."""
_DESCRIBE_EXECUTE: Final = b"D\0\0\0\6P\0" + _EXECUTE
_BOUND: Final = b"2\0\0\0\4"
_ROW: Final = ord("D")
_COMPLETE: Final = ord("C")
_LEAST: Final = 4
"""The length of a message counts itself."""
_OF_QUERY: Final = frozenset(b"TDCI")
_DESCRIPTIONS: Final = frozenset(b"Tn")
_STANDS_FOR_OTHERS: Final = ("FETCH", "EXECUTE", "MOVE", "CLOSE", "DECLARE", "PREPARE")


@dataclass(slots=True)
class Unit:
    """A statement that is under way.

    Attributes:
        asks: what is asked about it, but for its values.
        content: every byte that decides what it does.
        number: of the question.
        prepared: of a Bind: what it binds.
        described: of a Bind: whether its portal is described.
        verdict: if it is there.
    """

    asks: Asks
    content: bytes
    number: int = 0
    prepared: Prepared | None = None
    described: bool = False
    verdict: Verdict | None = None


@dataclass(slots=True, frozen=True)
class Latest:
    """A Query with a single number, by what stands before and behind that: it is known again without taking it apart.

    Attributes:
        before, behind: so much that the number is one, whichever it is (numbers.without_numbers).
        most: bytes of all of it.
        asks: what is asked about it.
    """

    before: bytes
    behind: bytes
    most: int
    asks: Asks

    def has(self, sql: bytes) -> bool:
        """Say whether a text is this with a number."""
        before, behind = self.before, self.behind
        if len(sql) > self.most or not sql.startswith(before) or not sql.endswith(behind):
            return False
        return sql[len(before) : len(sql) - len(behind)].isdigit()


def around_number(sql: bytes, asks: Asks) -> Latest | None:
    """Give a Query by what is around its number; None: it has none, or several."""
    number = only_number(sql)
    if number is None:
        return None
    before, behind = sql[: number[0]], sql[number[1] :]
    return Latest(before, behind, min(len(before) + len(behind) + NUMBER_DIGITS_MAX, PLAIN_BYTES_MAX), asks)


class Lane:
    """Of one session.

    Attributes:
        asking: statements wait for their decisions.
        running: the server has them, and nothing else.
    """

    def __init__(self, hub: Conversation, frames: ClientFrames) -> None:
        self._hub, self._frames = hub, frames
        self._session: Session | None = None
        self._status = self._ready = b""
        self._queries: dict[bytes, Asks] = {}
        self._latest: Latest | None = None
        self._bound: dict[Prepared, Asks] = {}
        self._units: list[Unit] = []
        self._decided = self._stamp = 0
        self._said = b""
        self.asking = self.running = False
        self._calm = False
        """Whether the latest that happened was an answer: then the session is still, and what is known is of it."""

    @property
    def waiting_bytes(self) -> int:
        """How many bytes wait for a decision."""
        return len(self._said)

    # -- what is known ---------------------------------------------------------------------------------------------------------

    def learn_query(self, read: Read, sql: bytes) -> None:
        """Take a Query that was allowed and asked nothing more of anybody."""
        key = without_numbers(sql)
        literal = any(one.literal for one in read.message.statements)
        self._current()
        if key not in self._queries and self._fits(read, sql) and not (literal and varies(sql)):
            _make_room(self._queries)
            self._queries[key] = self._asks(read, sql)

    def learn_bound(self, read: Read, prepared: Prepared) -> None:
        """Take a prepared statement of which a Bind was allowed so."""
        sql, session = prepared.sql, self._hub.judging.session
        self._current()
        if prepared in self._bound or prepared.doubt or prepared.reading != session.reading or not self._fits(read, sql):
            return
        _make_room(self._bound)
        asks = self._bound[prepared] = self._asks(read, sql)
        asks.before = sql + b"\0" + prepared.types + b"\0"

    def _asks(self, read: Read, sql: bytes) -> Asks:
        estimable = self._status == messages.IDLE and estimate.estimable(read, sql)
        return self._hub.judging.asks(read, sql, estimable=estimable, shown=self._hub.shown)

    def _fits(self, read: Read, sql: bytes) -> bool:
        """Say whether a statement changes nothing, is known in full, and stands for no other."""
        message = read.message
        plain = not (read.moves or read.may_copy or message.problems) and read.tied is None and message.effects is not None
        if not plain or len(sql) > SQL_BYTES_MAX or any(word in message.command for word in _STANDS_FOR_OTHERS):
            return False
        return not self._hub.judging.lacks_names(message, self._hub.status)

    def _current(self) -> None:
        """See that what is known is of the session as it is."""
        session, status = self._hub.judging.session, self._hub.status
        if session is not self._session or status != self._status:
            self._session, self._status, self._ready = session, status, messages.ready(status)
            self._queries.clear()
            self._latest = None
            self._bound.clear()

    # -- what happens ----------------------------------------------------------------------------------------------------------

    def handle(self, event: Event) -> list[Command] | None:
        """Take an event and give what follows; None: it is one for the long way, which finds all in its hands."""
        commands: list[Command] | None = None
        if isinstance(event, Data):
            if self.running:
                if event.side is Side.UPSTREAM:
                    commands = self._answered(event.data)
            elif event.side is Side.CLIENT and not self.asking:
                commands = self._take(event.data)
        elif self.asking and isinstance(event, Decided):
            commands = self._decide(event.verdict)
        if commands is None:
            self._calm = False
            if self.asking or self.running:
                self.leave()
        return commands

    def _take(self, data: bytes) -> list[Command] | None:
        """Take what a client says if it is nothing but statements that are known, in a session that is still."""
        if not self._calm:
            if not self._is_still():
                return None
            self._current()
        code = data[0]
        if code == _QUERY:
            units = self._query(data)
        elif code == _BIND and self._status == messages.IDLE and self._bound:
            units = self._group(data)
        else:
            return None
        if not units:
            return None
        judging, commands = self._hub.judging, list[Command]()
        if judging.are_stale([unit.asks for unit in units], self._status):
            return None
        for unit in units:
            question = judging.question_again(unit.asks, unit.content, first=not commands)
            unit.number = question.number
            commands.append(Ask(question))
        self._units, self._decided, self._said, self.asking = units, 0, data, True
        self._stamp = judging.stamp
        return commands

    def _is_still(self) -> bool:
        """Say whether nothing is under way, and nothing out of the ordinary is to be seen to."""
        hub = self._hub
        if hub.blocked or hub.answers.due or self._frames.busy or hub.extended.busy or hub.answers.midway:
            return False
        return not (hub.over or hub.discarding or hub.copying or hub.hiding.active)

    def _query(self, data: bytes) -> list[Unit]:
        if len(data) < _HEADER or HEADER.unpack_from(data)[1] + 1 != len(data) or data[-1]:
            return []
        sql = data[_HEADER:-1]
        latest = self._latest
        if latest is not None and latest.has(sql):
            return [Unit(latest.asks, sql)]
        asks = self._queries.get(without_numbers(sql))
        if asks is None:
            return []
        self._latest = around_number(sql, asks)
        return [Unit(asks, sql)]

    def _group(self, data: bytes) -> list[Unit]:
        units: list[Unit] = []
        stop, at = len(data) - len(messages.SYNC), 0
        if not data.endswith(messages.SYNC):
            return units
        names, bound = self._hub.extended.prepared, self._bound
        while at < stop:
            code, length = HEADER.unpack_from(data, at)
            until = at + 1 + length
            ends = data.find(b"\0", at + _HEADER + 1, until)
            if code != _BIND or length < _SHORTEST_BIND or until > stop or data[at + _HEADER] or ends < 0:
                return []
            prepared = names.get(data[at + _HEADER + 1 : ends])
            asks = None if prepared is None or prepared.doubt else bound.get(prepared)
            if asks is None or len(units) >= GROUP_MAX:
                return []
            described = data.startswith(_DESCRIBE_EXECUTE, until)
            if not described and not data.startswith(_EXECUTE, until):
                return []
            units.append(Unit(asks, asks.before + data[ends + 1 : until], 0, prepared, described))
            at = until + len(_DESCRIBE_EXECUTE if described else _EXECUTE)
        return units if at == stop else []

    def _decide(self, verdict: Verdict) -> list[Command] | None:
        """Take a verdict; once all are there, what was said goes on."""
        units, place = self._units, self._decided
        unit = units[place]
        if unit.number != verdict.number:
            later = next((one for one in units[place + 1 :] if one.number == verdict.number), None)
            if later is None:
                return []
            later.verdict = verdict
            return None  # one before it waits for more than the policy
        unit.verdict = verdict
        if not is_plain(verdict):
            return None
        self._decided = place = place + 1
        if place < len(units):
            return []
        return self._go(verdict.number) if self._hub.judging.stamp == self._stamp else None  # it may mean something else by now

    def _go(self, number: int) -> list[Command]:
        hub = self._hub
        self.asking, self.running = False, True
        hub.judging.standing = hub.outbox.decision = number
        said, self._said = self._said, b""
        if self._units[0].prepared is None and UNNAMED in hub.extended.prepared:
            hub.extended.prepared.drop(UNNAMED)  # a Query takes it with it
        return [Send(Side.UPSTREAM, said, number)]

    # -- what the server answers -----------------------------------------------------------------------------------------------

    def _answered(self, data: bytes) -> list[Command] | None:
        """Take an answer if it is all of it, nothing else, and says that nothing has failed."""
        end = len(data) - _READY_BYTES
        if end < 0 or not data.endswith(self._ready):
            return None
        if self._units[0].prepared is None:
            if not _queried(data, end):
                return None
        elif self._executed(data, end):
            self._hub.extended.group += 1
        else:
            return None
        judging = self._hub.judging
        over, judging.standing = judging.standing, 0
        self.running, self._units, self._calm = False, [], True
        return [Send(Side.CLIENT, data), Over(over)]

    def _executed(self, data: bytes, end: int) -> bool:
        """Say whether all units were bound and executed."""
        at = 0
        for unit in self._units:
            if not data.startswith(_BOUND, at):
                return False
            at += len(_BOUND)
            described = not unit.described
            while at + _HEADER <= end:
                code, length = HEADER.unpack_from(data, at)
                if length < _LEAST:
                    return False
                at += length + 1
                if code == _ROW:
                    continue
                if described or code not in _DESCRIPTIONS:
                    break
                described = True
            else:
                return False
            if code != _COMPLETE or not described:
                return False
        return at == end

    # -- the long way ----------------------------------------------------------------------------------------------------------

    def leave(self) -> None:
        """Hand over to the long way.

        What of a group was asked behind the first question that has no plain answer is asked again when it comes to that: there
        may be something to do before.
        """
        units, said, hub = self._units, self._said, self._hub
        asking, running = self.asking, self.running
        self.asking = self.running = False
        self._units, self._said = [], b""
        if asking:
            known = self._decided + 1
            foreseen = [(unit.number, unit.content, unit.asks.read.message, unit.verdict) for unit in units]
            hub.judging.foresee(foreseen[:known])
            hub.judging.give_back(foreseen[known:])
            hub.client_said(said)
        elif running and units[0].prepared is None:
            hub.answers.due.append(Due(Asked.QUERY, read=units[0].asks.read, group=hub.extended.group))
        elif running:
            self._under_way(units)

    def _under_way(self, units: list[Unit]) -> None:
        """Have the long way wait for the answers to a group."""
        extended, due = self._hub.extended, self._hub.answers.due
        for unit in units:
            assert unit.prepared is not None
            portal = Portal(
                prepared=unit.prepared, read=unit.asks.read, content=unit.content, decision=unit.number, group=extended.group
            )
            undo = extended.portals.put(UNNAMED, portal)
            due.append(Due(Asked.BIND, undo=undo, lost=lambda: extended.portals.drop(UNNAMED)))
            if unit.described:
                due.append(Due(Asked.DESCRIBE))
            due.append(Due(Asked.EXECUTE, read=unit.asks.read, number=unit.number))
        due.append(Due(Asked.SYNC, group=extended.group))
        extended.group += 1


_SHORTEST_BIND: Final = shortest(_BIND)


def _make_room(known: dict[Any, Asks]) -> None:
    if len(known) >= KNOWN_MAX:
        del known[next(iter(known))]


def _queried(data: bytes, end: int) -> bool:
    """Say whether an answer to a Query is all of it, up to where ReadyForQuery begins."""
    at = 0
    while at + _HEADER <= end:
        code, length = HEADER.unpack_from(data, at)
        if code not in _OF_QUERY or length < _LEAST:
            return False
        at += length + 1
    return at == end
