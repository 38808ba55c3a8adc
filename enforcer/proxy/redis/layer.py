"""Redis: one connection.

What lives here: the order of things: the session's question, the server, signing in, then command by command. What must not:
what commands do (enforcer/redis), what is due (server.py).

Every command is read whole and sent anew in its one form, so the server reads what was judged. What could make capd and the
server read the connection in two ways is refused: replication, CLIENT REPLY, and in a transaction whatever changes the
session.
"""

from __future__ import annotations

import hmac
from collections.abc import Callable, Sequence
from typing import Final

from capd.decoders.message import JsonValue
from capd.decoders.redis.commands import Command as Said
from capd.decoders.redis.commands import CommandReader
from capd.decoders.redis.wire import COMMAND_BYTES_MAX, BrokenError
from capd.decoders.stream import Stream
from capd.enforcer.limits.meter import Exceeded, Meter
from capd.enforcer.obligations.sign_in import SignIn
from capd.enforcer.proxy.commands import Arm, Close, Command, Dial, Exceed, Finish, Refused
from capd.enforcer.proxy.events import Data, Decided, DialFailed, Dialled, Ended, Event, Expired, Side, Timer
from capd.enforcer.proxy.layer import Layer, Surroundings
from capd.enforcer.proxy.postgresql.outbox import Outbox
from capd.enforcer.proxy.question import Verdict
from capd.enforcer.proxy.redis import words
from capd.enforcer.proxy.redis.asking import Asking, undoable
from capd.enforcer.proxy.redis.server import BeyondError, LostError, Server
from capd.enforcer.proxy.redis.signing_words import DEFAULT_USER, Wish, WordsError, database_of, wish_of
from capd.enforcer.redis.keys import option
from capd.enforcer.sign_in.redis_client import auth

ENTRANCE_SECONDS: Final = 60.0
"""From the first byte to the first command that may go on."""
HELD_BYTES_MAX: Final = 65_536
"""Of commands that wait behind one; then the client is left to wait."""
_HTTP: Final = frozenset({b"POST", b"HOST:"})
"""Redis itself ends a connection that says these: somebody has a browser send commands (CVE-2016-8339's kind)."""
_REPLICATION: Final = frozenset({b"SYNC", b"PSYNC", b"REPLCONF"})
_NOT_QUEUED: Final = frozenset(
    {b"AUTH", b"HELLO", b"SELECT", b"RESET", b"MONITOR"}
    | {b"SUBSCRIBE", b"PSUBSCRIBE", b"SSUBSCRIBE", b"UNSUBSCRIBE", b"PUNSUBSCRIBE", b"SUNSUBSCRIBE"}
)
"""In a transaction these change in the middle of an answer who speaks how."""
_LATIN: Final = "latin-1"
_DONE: Final = ("OK", "RESET")
_GREETINGS: Final = frozenset("%*")
"""How HELLO is answered."""
_ERRORS: Final = frozenset("-!")
ELSEWHERE: Final = words.error(words.NOPERM, "capd: the credential is not for this database", {"reason": "not_supported"})
NOAUTH: Final = b"-NOAUTH Authentication required.\r\n"


class RedisLayer(Layer):
    """One connection."""

    def __init__(self, around: Surroundings, *, dialled: bool) -> None:
        self._around, self._dialled = around, dialled
        self._outbox = Outbox()
        self._stream = Stream()
        self._reader = CommandReader(self._stream)
        self._server = Server(self._outbox, around.now, self._exceeded)
        self._timed: int | None = None
        """Number of the command that a time runs for."""
        self._asking = Asking(around, self._outbox)
        self._sign_in: SignIn | None = None
        self._signed_in: tuple[bytes, ...] | None = None
        """What capd signed in with."""
        self._after_dial: Callable[[], None] | None = None
        self._settling = False
        """An answer is waited for that decides what the next command means."""
        self._open = self._over = self._left = False
        self._transaction = self._aborted = False
        self._proved = True
        """Whether the client has said what is in the credential's place, where a rule wants that."""

    # -- events ----------------------------------------------------------------------------------------------------------------

    def wants(self, side: Side) -> bool:
        """Leave a client to wait that says more than was judged."""
        return side is Side.UPSTREAM or not self._busy or self._stream.waiting < HELD_BYTES_MAX

    def waiting_bytes(self) -> int:
        """Count what is not judged yet."""
        return self._stream.waiting

    def handle(self, event: Event) -> list[Command]:
        """Take an event."""
        if not self._over:
            self._handle(event)
            self._time()
        return self._outbox.take()

    def _time(self) -> None:
        """Let a time run for the command whose answer is due, where it has one."""
        due = self._server.seconds
        number = None if due is None or self._over else due[0]
        if number != self._timed:
            self._timed = number
            self._outbox.do(Arm(Timer.STATEMENT, None if due is None or number is None else float(due[1])))

    def _too_long(self) -> None:
        """A command took longer than a rule lets it: its connection ends, which ends what waits on the server."""
        self._timed = None
        self._refuse("a command took longer than a rule allows")

    def _exceeded(self, exceeded: Exceeded) -> None:
        """Write down that a limit was reached."""
        self._outbox.do(Exceed(self._outbox.decision, exceeded))

    def _handle(self, event: Event) -> None:
        match event:
            case Data(side=Side.CLIENT):
                self._stream.append(event.data)
                self._go()
            case Data():
                self._server_said(event.data)
            case Decided():
                self._asking.decided(event.verdict)
                self._go()
            case Dialled():
                self._was_dialled()
            case DialFailed():
                reason = "target_not_verified" if event.refused else "target_not_reached"
                self._end(words.error(words.ERR, f"capd: {reason}: {event.reason}"))
            case Expired(timer=Timer.STATEMENT):
                self._too_long()
            case Expired():
                self._refuse("nothing was said in time that may go on")
            case Ended(side=Side.CLIENT):
                self._client_left(clean=event.clean)
            case Ended():
                self._over = True
                self._outbox.do(Close(abort=not event.clean))
            case _:
                if not self._open:
                    self._outbox.do(Arm(Timer.DEADLINE, ENTRANCE_SECONDS))

    def _server_said(self, data: bytes) -> None:
        try:
            self._server.said(data)
        except LostError as error:
            self._refuse(str(error))
            return
        except BeyondError as error:
            self._end(words.error(words.ERR, f"capd: {error.exceeded.words}"))
            return
        self._go()

    def _client_left(self, *, clean: bool) -> None:
        self._left = True
        if not clean:
            self._over = True
            self._outbox.do(Close(abort=True))
        else:
            self._go()

    def _refuse(self, reason: str) -> None:
        """End what cannot be followed."""
        self._outbox.do(Refused(next(self._around.numbers), reason, ""))
        self._end(words.error(words.ERR, f"capd: {reason}"))

    def _end(self, last: bytes = b"") -> None:
        """Say a last word, behind what is due, as far as it came; and close."""
        self._over = True
        if not self._server.midway:
            self._outbox.down(last)
        self._outbox.do(Close())

    @property
    def _busy(self) -> bool:
        """Whether the next command has to wait."""
        return self._asking.waits or self._settling or self._after_dial is not None or not self._server.room

    def _go(self) -> None:
        """Take the next commands, one after the other."""
        while not (self._over or self._busy):
            try:
                said = self._reader.read()
            except BrokenError as error:
                self._over = True
                self._server.say(words.error(words.ERR, f"Protocol error: {error.reason}"))
                self._outbox.do(
                    Refused(next(self._around.numbers), f"the client does not speak RESP: {error.reason}", ""), Close()
                )
                return
            if said is None:
                break
            if said.arguments:
                self._take(said)
        if self._left and not (self._over or self._busy) and self._open:
            self._outbox.do(Finish(Side.UPSTREAM))
            self._left = False
        elif self._left and not (self._over or self._busy):
            self._over = True
            self._outbox.do(Close())

    # -- commands --------------------------------------------------------------------------------------------------------------

    def _take(self, said: Said) -> None:
        arguments = said.arguments
        name = arguments[0].upper()
        if name in _HTTP:
            self._refuse("a request of HTTP, not a command of Redis")
        elif name == b"QUIT":
            self._quit()
        elif said.incomplete or said.omitted:
            self._not(f"a command of more than {COMMAND_BYTES_MAX >> 20} MiB, or with too many arguments")
        elif not self._open:
            self._enter(arguments)
        else:
            self._one(name, arguments)

    def _quit(self) -> None:
        self._settling = True
        self._server.say(words.OK, self._end)

    def _one(self, name: bytes, arguments: Sequence[bytes]) -> None:
        second = option(arguments[1]) if len(arguments) > 1 else b""
        if name in _REPLICATION:
            self._not("replication is not for agents")
        elif name == b"CLIENT" and second == b"REPLY":
            self._not("CLIENT REPLY would leave answers out")
        elif self._transaction and name in _NOT_QUEUED:
            self._not(f"{name.decode(_LATIN)} is not for transactions")
        elif name in (b"AUTH", b"HELLO"):
            self._signs_in(arguments)
        elif not self._proved:
            self._say(NOAUTH)
        elif name == b"RESET":
            self._resets()
        elif self._asking.user is None:
            self._goes_on_as_default(lambda: self._one(name, arguments))
        elif name == b"SELECT":
            self._selects(arguments)
        elif name == b"EXEC" and self._transaction and self._aborted and len(arguments) == 1:
            self._aborts()
        else:
            raw = words.command(arguments)
            self._asking.statement(
                arguments, raw, transaction=self._transaction, then=lambda verdict: self._judged(verdict, name, arguments, raw)
            )

    def _judged(self, verdict: Verdict, name: bytes, arguments: Sequence[bytes], raw: bytes) -> None:
        if not verdict.allowed:
            self._say(self._asking.denial(verdict))
        elif undoable(verdict):
            self._not("a rule wants done what cannot be done in Redis")
        else:
            limits = verdict.obligations.limits
            meter = Meter(limits=limits, totals=self._around.totals, run=self._around.run) if limits else None
            self._server.send(arguments, raw=raw, meter=meter)
            if len(arguments) == 1:
                self._turn(name)

    def _turn(self, name: bytes) -> None:
        """Follow transactions."""
        if name == b"MULTI" and not self._transaction:
            self._transaction, self._aborted = True, False
        elif name in (b"EXEC", b"DISCARD"):
            self._transaction = False

    def _aborts(self) -> None:
        """End a transaction in which something was denied, as Redis ends one in which something was wrong."""
        self._transaction = False
        self._server.send([b"DISCARD"], own=True)
        self._server.say(words.EXECABORT)

    def _not(self, why: str) -> None:
        """Refuse a command that no rule could allow."""
        self._outbox.do(Refused(next(self._around.numbers), why, ""))
        self._say(words.error(words.NOPERM, f"capd: {why}", {"reason": "not_supported", "session": self._around.session}))

    def _say(self, data: bytes) -> None:
        """Say in the server's place that something is not done."""
        self._aborted = True
        if self._open:
            self._server.say(data)
        else:
            self._end(data)

    # -- who, and where --------------------------------------------------------------------------------------------------------

    def _enter(self, arguments: Sequence[bytes]) -> None:
        """Take the first command: it says who is there."""
        name = arguments[0].upper()
        user, database = DEFAULT_USER, "0"
        chosen: str | None = database
        if name in (b"AUTH", b"HELLO"):
            try:
                user = wish_of(arguments).user or user
            except WordsError as error:
                self._end(words.error(words.ERR, str(error)))
                return
            chosen = None
        elif name == b"SELECT":
            chosen = database_of(arguments) or database
        self._asking.session(user, chosen, lambda verdict: self._entered(verdict, user, arguments))

    def _entered(self, verdict: Verdict, user: str, arguments: Sequence[bytes]) -> None:
        if not self._fit(verdict, None):
            return

        def begin() -> None:
            self._open, self._proved = True, _unasked(verdict.sign_in)
            self._outbox.do(Arm(Timer.DEADLINE, None))
            self._adopt(verdict, user, lambda: self._first(arguments, verdict.sign_in))

        self._after_dial = begin
        if self._dialled:
            self._was_dialled()
        else:
            self._outbox.do(Dial(verdict.number))

    def _was_dialled(self) -> None:
        then, self._after_dial = self._after_dial, None
        if then is not None:
            then()
            self._go()

    def _first(self, arguments: Sequence[bytes], sign_in: SignIn | None) -> None:
        name = arguments[0].upper()
        wish = wish_of(arguments) if name in (b"AUTH", b"HELLO") else None
        if wish is None or wish.user is None:
            self._is(DEFAULT_USER)
        if wish is None:
            self._one(name, arguments)
        else:
            self._pass_on(wish, arguments, sign_in)

    def _goes_on_as_default(self, then: Callable[[], None]) -> None:
        """Ask about the default user, whom the server has it for: as whom it wanted to begin, it was not let in."""

        def decided(verdict: Verdict) -> None:
            if self._fit(verdict, self._asking.database):
                self._is(DEFAULT_USER)
                self._proved = _unasked(verdict.sign_in)
                self._adopt(verdict, DEFAULT_USER, then)

        self._asking.session(DEFAULT_USER, self._asking.database, decided)

    def _fit(self, verdict: Verdict, database: str | None) -> bool:
        """Whether a session may be; says so to the client if not."""
        if not verdict.allowed:
            self._say(self._asking.denial(verdict))
            return False
        sign_in = verdict.sign_in
        if undoable(verdict) or (sign_in is not None and database is not None and not sign_in.admits(database)):
            self._say(ELSEWHERE)
            return False
        return True

    def _adopt(self, verdict: Verdict, user: str, then: Callable[[], None]) -> None:
        """Sign in to the server with the credential of a verdict, if it has one that is not in use already."""
        sign_in = verdict.sign_in
        said = None if sign_in is None else auth(sign_in, None if user == DEFAULT_USER else user)
        if said is None or said == self._signed_in:
            then()
            return
        self._settling = True

        def told(kind: str, value: JsonValue) -> None:
            self._settling = False
            if (kind, value) == ("+", "OK"):
                self._sign_in, self._signed_in = sign_in, said
                then()
            else:
                self._refuse("sign_in_failed: the target does not take the credential")

        self._server.send(said, own=True, told=told)

    def _signs_in(self, arguments: Sequence[bytes]) -> None:
        try:
            wish = wish_of(arguments)
        except WordsError as error:
            self._say(words.error(words.ERR, str(error)))
            return
        if wish.user is None or (self._sign_in is None and wish.user == self._asking.user):
            self._pass_on(wish, arguments, self._sign_in)
            return
        user = wish.user

        def decided(verdict: Verdict) -> None:
            if not self._fit(verdict, self._asking.database):
                return
            if not _proves(wish, verdict.sign_in):
                self._say(words.WRONGPASS)
                return
            self._adopt(verdict, user, lambda: self._pass_on(wish, arguments, verdict.sign_in))

        self._asking.session(user, self._asking.database, decided)

    def _pass_on(self, wish: Wish, arguments: Sequence[bytes], sign_in: SignIn | None) -> None:
        """Let AUTH or HELLO go across; where capd has signed in, without the client's password."""
        if sign_in is None or wish.user is None:
            self._settle(arguments, lambda: self._signed_in_as(wish.user))
        elif not _proves(wish, sign_in):
            self._say(words.WRONGPASS)
        else:
            self._proved = True
            self._is(wish.user)
            if wish.version is None:
                self._server.say(words.OK)
            else:
                self._settle(wish.without_password, lambda: None)

    def _signed_in_as(self, user: str | None) -> None:
        """Take that the server has let the client in with what it has itself; None: it said nothing of that."""
        if user is not None:
            self._sign_in = self._signed_in = None
            self._proved = True
            self._is(user)

    def _is(self, user: str | None) -> None:
        if user is not None:
            self._asking.user = user

    def _settle(self, arguments: Sequence[bytes], done: Callable[[], None]) -> None:
        """Send what changes the session, and wait for its answer."""
        self._settling = True

        def told(kind: str, value: JsonValue) -> None:
            self._settling = False
            if value in _DONE or kind in _GREETINGS:
                done()
            elif kind not in _ERRORS:
                self._refuse("what the target answers does not say who the client is")

        self._server.send(arguments, told=told)

    def _selects(self, arguments: Sequence[bytes]) -> None:
        user, database = self._asking.user or DEFAULT_USER, database_of(arguments)
        if database is None:  # servers differ in what they take for a number
            self._say(words.error(words.ERR, "capd: that is not the number of a database"))
            return

        def decided(verdict: Verdict) -> None:
            if not self._fit(verdict, database):
                return
            if verdict.sign_in is None and self._signed_in is not None:
                self._say(ELSEWHERE)  # the server would go on with the credential
            else:
                self._adopt(verdict, user, lambda: self._settle(arguments, lambda: self._is_in(database)))

        self._asking.session(user, database, decided)

    def _is_in(self, database: str) -> None:
        self._asking.database = database

    def _resets(self) -> None:
        """Take the session back to where it began: the default user, database 0."""

        def decided(verdict: Verdict) -> None:
            if not self._fit(verdict, "0"):
                return

            def done() -> None:
                self._transaction = False
                self._is(DEFAULT_USER)
                self._is_in("0")
                self._sign_in = self._signed_in = None
                self._proved = _unasked(verdict.sign_in)
                self._adopt(verdict, DEFAULT_USER, lambda: None)

            self._settle([b"RESET"], done)

        self._asking.session(DEFAULT_USER, "0", decided)


def _unasked(sign_in: SignIn | None) -> bool:
    return sign_in is None or sign_in.placeholder is None


def _proves(wish: Wish, sign_in: SignIn | None) -> bool:
    """Whether a client may be who it wants to be, as far as that is capd's to say."""
    if sign_in is None or sign_in.placeholder is None:
        return True
    return hmac.compare_digest(sign_in.placeholder.encode(), wish.password)
