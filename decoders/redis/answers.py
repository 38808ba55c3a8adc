"""Which answer belongs to which command.

What lives here: the numbering of exchanges, the queue of answers that are due, and what makes a client or server say more or
less than one answer for one command. What must not: bytes.

Redis answers commands in their order, one answer each, but for: SUBSCRIBE and its like, which are answered once for each
channel; messages, pushes and the lines of MONITOR, which nobody asked for; CLIENT REPLY OFF and SKIP, which leave answers
out.

After bytes were lost nobody can count. Then no answer has an exchange, until the client takes its turn again: a client that
always waited for all its answers before it spoke again, and speaks again, waits for nothing else (`turn`). One that sends
commands while answers are due never gets there.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import Enum, auto
from typing import Final

from capd.decoders.message import JsonValue
from capd.decoders.redis.secret_arguments import answer_is_secret

RUNS_MAX: Final = 16_384
"""Runs of answers that are due, where a run is any number of ordinary commands, or one other. Beyond it nobody counts."""
CHANNELS_MAX: Final = 65_536
"""Channels that are remembered as subscribed; with more, nobody counts the answers of an UNSUBSCRIBE from all."""
TRANSACTION_MAX: Final = 65_536
"""Commands of a transaction that are remembered, to say of which the answer to EXEC is made."""
MONITOR_LINE: Final = re.compile(r"\d{1,20}\.\d{6} \[\d{1,10} [^\]]*\] \"")
_SUBSCRIBE: Final = {b"SUBSCRIBE": "subscribe", b"PSUBSCRIBE": "psubscribe", b"SSUBSCRIBE": "ssubscribe"}
_UNSUBSCRIBE: Final = {b"UNSUBSCRIBE": "unsubscribe", b"PUNSUBSCRIBE": "punsubscribe", b"SUNSUBSCRIBE": "sunsubscribe"}
_CONFIRMATIONS: Final = frozenset({*_SUBSCRIBE.values(), *_UNSUBSCRIBE.values()})
_PUBLISHED: Final = frozenset({"message", "pmessage", "smessage"})
_GROUP: Final = {name: name.removeprefix("un") for name in ("subscribe", "unsubscribe")} | {
    "psubscribe": "psubscribe",
    "punsubscribe": "psubscribe",
    "ssubscribe": "ssubscribe",
    "sunsubscribe": "ssubscribe",
}
_CONFIRMATION_VALUES: Final = 3


class Due(Enum):
    """What kind of answer is due."""

    PLAIN = auto()
    SECRET = auto()
    CHANNELS = auto()
    HELLO = auto()
    RESET = auto()
    MONITOR = auto()
    MULTI = auto()
    EXEC = auto()
    DISCARD = auto()
    SYNC = auto()
    REPLY = auto()


_SPECIAL: Final = {
    b"HELLO": Due.HELLO,
    b"RESET": Due.RESET,
    b"MONITOR": Due.MONITOR,
    b"MULTI": Due.MULTI,
    b"EXEC": Due.EXEC,
    b"DISCARD": Due.DISCARD,
    b"SYNC": Due.SYNC,
    b"PSYNC": Due.SYNC,
}
_UNCOUNTED_LATER: Final = frozenset({Due.CHANNELS, Due.HELLO, Due.MONITOR, Due.REPLY, Due.SYNC})
"""In a transaction these do what they do when EXEC comes, in the middle of its answer."""


@dataclass(slots=True)
class Run:
    """Answers that are due: of `count` commands from `exchange` on.

    Attributes:
        said: of CHANNELS, what each of its answers says, such as `subscribe`.
        parts: of CHANNELS, how many are to come; 0: as many as are subscribed, at least one.
    """

    due: Due
    exchange: int
    count: int = 1
    said: str = ""
    parts: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """What an answer is.

    Attributes:
        type: `reply`, `error`, `push` or `monitor`.
        exchange: which command it answers, or None.
        secret: whether it may hold a password.
        commands: of the answer to EXEC, exchanges of the commands of which it holds answers.
    """

    type: str
    exchange: int | None = None
    secret: bool = False
    commands: Sequence[int] = ()


@dataclass(slots=True)
class Answers:
    """The queue, and what it depends on.

    Attributes:
        resp: version of the protocol that the server speaks.
        lost: whether bytes were lost, and nothing is counted until the client takes its turn.
        turns: whether the client has always waited for all answers before it spoke again.
        replicating: whether what the server says next is a copy of its data.
    """

    resp: int = 2
    lost: bool = False
    turns: bool = True
    replicating: bool = False
    _queue: deque[Run] = field(default_factory=deque)
    _next: int = 0
    _silent: bool = False
    _skipping: int = 0
    _monitoring: bool = False
    _channels: dict[str, set[str]] = field(
        default_factory=lambda: {"subscribe": set(), "psubscribe": set(), "ssubscribe": set()}
    )
    _transaction: list[int] | None = None
    _later: bool = False
    _secret: bool = False

    # The client asks.

    def ask(self, arguments: Sequence[bytes]) -> int:
        """A command came; gives its exchange."""
        exchange = self._next
        self._next += 1
        name = arguments[0].upper()
        if name == b"RESET":
            self._silent, self._skipping = False, 0
        elif name == b"CLIENT" and [argument.upper() for argument in arguments[1:2]] == [b"REPLY"]:
            if not self._reply_mode(arguments[2:]):
                return exchange
        elif self._silent or self._skipping:
            self._skipping = max(0, self._skipping - 1)
            return exchange
        if not self.lost:
            self._expect(name, arguments, exchange)
        return exchange

    def _reply_mode(self, modes: Sequence[bytes]) -> bool:
        """CLIENT REPLY; whether it is answered."""
        self.turns = False
        mode = modes[0].upper() if len(modes) == 1 else b""
        if mode == b"ON":
            self._silent, self._skipping = False, 0
        elif mode == b"OFF":
            self._silent = True
        elif mode == b"SKIP" and not self._silent:
            self._skipping = 1
        else:
            # Refused with an error, which is silent too where answers are.
            answered = not (self._silent or self._skipping)
            self._skipping = 0
            return answered
        return mode == b"ON"

    def _expect(self, name: bytes, arguments: Sequence[bytes], exchange: int) -> None:
        said = _SUBSCRIBE.get(name) or _UNSUBSCRIBE.get(name)
        if said is not None:
            self._add(Run(Due.CHANNELS, exchange, said=said, parts=len(arguments) - 1))
            return
        due = _SPECIAL.get(name, Due.PLAIN)
        if due is Due.PLAIN and answer_is_secret(arguments):
            due = Due.SECRET
        elif name == b"CLIENT" and [argument.upper() for argument in arguments[1:2]] == [b"REPLY"]:
            due = Due.REPLY
        last = self._queue[-1] if self._queue else None
        if due is Due.PLAIN and last is not None and last.due is due and last.exchange + last.count == exchange:
            last.count += 1
        else:
            self._add(Run(due, exchange))

    def _add(self, run: Run) -> None:
        self._queue.append(run)
        if len(self._queue) > RUNS_MAX:
            self.lose()
            self.turns = False

    @property
    def waiting(self) -> bool:
        """Whether an answer is due."""
        return bool(self._queue)

    @property
    def oldest(self) -> int | None:
        """Give the exchange whose answer is due next; None: none is."""
        return self._queue[0].exchange if self._queue else None

    @property
    def synchronises(self) -> bool:
        """Whether the answer that is due next is a copy of the server's data."""
        return bool(self._queue) and self._queue[0].due is Due.SYNC

    # The server answers.

    def place(self, kind: str, value: JsonValue) -> Place:
        """Say what an answer is, by the type byte of its outermost value."""
        words = _first(value)
        if kind == ">" or (kind == "*" and self._out_of_band(words)):
            self.turns = False
            return Place(type="push", exchange=self._confirmed(words))
        if kind == "+" and self._monitoring and isinstance(value, str) and MONITOR_LINE.match(value):
            self.turns = False
            return Place(type="monitor")
        type_ = "error" if kind in "-!" else "reply"
        if not self._queue:
            if not self.lost and self._silent:
                # CLIENT REPLY OFF was refused, or it is not the Redis it seems to be.
                self._silent = False
                self.lose()
            return Place(type=type_)
        return self._settle(type_, kind, value)

    def _settle(self, type_: str, kind: str, value: JsonValue) -> Place:
        run = self._queue[0]
        exchange = run.exchange
        run.exchange += 1
        run.count -= 1
        if not run.count:
            self._queue.popleft()
        queued = self._transaction is not None and kind == "+" and value == "QUEUED"
        secret = run.due is Due.SECRET
        if queued:
            self._queue_up(run.due, exchange, secret=secret)
            return Place(type=type_, exchange=exchange)
        commands: Sequence[int] = ()
        if run.due is not Due.PLAIN and type_ != "error":
            if run.due is Due.EXEC:
                commands, secret = self._transaction or (), self._secret
            self._did(run.due, kind)
        elif run.due in (Due.EXEC, Due.DISCARD) and _aborted(value):
            self._end_transaction()
        return Place(type=type_, exchange=exchange, secret=secret, commands=commands)

    def _queue_up(self, due: Due, exchange: int, *, secret: bool) -> None:
        assert self._transaction is not None, "there is a transaction"
        self._secret = self._secret or secret
        self._later = self._later or due in _UNCOUNTED_LATER
        if len(self._transaction) < TRANSACTION_MAX:
            self._transaction.append(exchange)

    def _did(self, due: Due, kind: str) -> None:
        """A command other than an ordinary one was carried out."""
        if due is Due.HELLO:
            self.resp = 3 if kind == "%" else 2
        elif due is Due.RESET:
            self.resp, self._monitoring = 2, False
            self._end_transaction()
            for channels in self._channels.values():
                channels.clear()
        elif due is Due.MONITOR:
            self._monitoring = True
        elif due is Due.MULTI:
            self._transaction = []
        elif due in (Due.EXEC, Due.DISCARD):
            later = self._later and due is Due.EXEC
            self._end_transaction()
            if later:
                self.lose()
                self.turns = False
        elif due is Due.SYNC:
            self.replicating = True
        elif due is Due.CHANNELS:
            # A SUBSCRIBE that was answered with something else.
            self.lose()
            self.turns = False

    def _end_transaction(self) -> None:
        self._transaction, self._later, self._secret = None, False, False

    # Channels

    def _out_of_band(self, words: Sequence[JsonValue]) -> bool:
        """Whether an array is a message, or a confirmation: only RESP2 says these so, and only to who subscribes."""
        if self.resp != 2 or not words or not isinstance(words[0], str):  # noqa: PLR2004 - RESP2
            return False
        if words[0] in _CONFIRMATIONS:
            return len(words) == _CONFIRMATION_VALUES and (self._subscribed or self._subscribing)
        return words[0] in _PUBLISHED and self._subscribed

    @property
    def _subscribed(self) -> bool:
        return self.lost or any(self._channels.values())

    @property
    def _subscribing(self) -> bool:
        return bool(self._queue) and self._queue[0].due is Due.CHANNELS

    def _confirmed(self, words: Sequence[JsonValue]) -> int | None:
        """A push came; gives the exchange of the command that it confirms."""
        said = words[0] if words and isinstance(words[0], str) else ""
        if said not in _CONFIRMATIONS or len(words) != _CONFIRMATION_VALUES:
            return None
        channels = self._channels[_GROUP[said]]
        run = self._queue[0] if self._subscribing else None
        if run is not None and run.said != said:
            run = None
        if run is not None and not run.parts:
            run.parts = max(1, len(channels))
            if len(channels) >= CHANNELS_MAX:
                self.lose()
        channel = repr(words[1])
        if said == _GROUP[said]:
            if len(channels) < CHANNELS_MAX:
                channels.add(channel)
        else:
            channels.discard(channel)
        if run is None or self.lost:
            return None
        run.parts -= 1
        if not run.parts:
            self._queue.popleft()
        return run.exchange

    # Bytes were lost.

    def lose(self) -> None:
        """Nobody can say any more what is due."""
        self.lost = True
        self._queue.clear()
        self._transaction, self._later, self._secret = None, False, False

    def turn(self) -> None:
        """The client speaks again, and has no answer to wait for."""
        self.lost = False
        self._queue.clear()


def _first(value: JsonValue) -> Sequence[JsonValue]:
    return value if isinstance(value, Sequence) and not isinstance(value, str) else ()


def _aborted(value: JsonValue) -> bool:
    """Whether an error to EXEC ended the transaction: any but those that say that there is none."""
    text = value.get("error") if isinstance(value, dict) else ""
    return isinstance(text, str) and "without MULTI" not in text
