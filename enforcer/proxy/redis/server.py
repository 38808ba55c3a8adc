"""The server's side: what it was sent, what it still has to answer, and what capd answers in its place, all in order.

What lives here: that order. Answers go on as they come, byte for byte, but for those to capd's own commands. What must not:
judging.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from capd.decoders.message import JsonValue
from capd.decoders.redis.answers import RUNS_MAX, Answers
from capd.decoders.redis.reader import Answer, Reader
from capd.decoders.redis.wire import BrokenError
from capd.decoders.stream import Stream
from capd.enforcer.limits.meter import Exceeded, Meter
from capd.enforcer.proxy.postgresql.outbox import Outbox
from capd.enforcer.proxy.redis import words

LOOKED_AT_BYTES: Final = 1_024
"""Of the strings of an answer: enough for the word that says what a push is, and for the name of a channel."""
DUE_MAX: Final = 8_192
"""Commands and answers of capd's own that may wait; then the client is left to wait."""
assert DUE_MAX <= RUNS_MAX // 2, "what is due can be counted"

HELD_BYTES_MAX: Final = 1 << 20
"""Of an answer that may turn out to be beyond a limit: so much is kept, to be able to say so in its place."""
LIMIT_EXCEEDED: Final = "limit_exceeded"

Told = Callable[[str, JsonValue], None]
"""Type byte and value of an answer that is waited for."""


class BeyondError(Exception):
    """An answer is beyond a limit, and the client has its beginning already."""

    def __init__(self, exceeded: Exceeded) -> None:
        super().__init__(exceeded.words)
        self.exceeded = exceeded


class LostError(Exception):
    """What the server says belongs to nothing that it was asked."""


@dataclass(slots=True)
class _Due:
    """What comes next for the client.

    Attributes:
        exchange: of a command that the server was sent, or None.
        said: what capd says itself.
        own: whether the command is capd's own, and its answer not for the client.
        told: is told the answer.
        then: is done when it was said.
        meter: counts its answer; None: nobody does.
        exceeded: which limit the answer is beyond: then it is dropped, and that is said in its place.
        size, values: how much of the answer was counted.
    """

    exchange: int | None = None
    said: bytes = b""
    own: bool = False
    told: Told | None = None
    then: Callable[[], None] | None = None
    meter: Meter | None = None
    exceeded: Exceeded | None = None
    size: int = 0
    values: int = 0


class Server:
    """Of one connection."""

    def __init__(self, outbox: Outbox, now: Callable[[], float], exceeded: Callable[[Exceeded], None]) -> None:
        """Begin.

        Args:
            outbox: what is to be done.
            now: gives the time.
            exceeded: is told of a limit that was reached, and of an answer that is dropped for it.
        """
        self._outbox, self._now, self._exceeded = outbox, now, exceeded
        self._stream = Stream()
        self._reader = Reader(self._stream, bytes_max=LOOKED_AT_BYTES)
        self._answers = Answers()
        self._due: deque[_Due] = deque()
        self._raw = bytearray()
        self._sent = 0
        """Offset in what the server said up to which it went on, or was dropped."""
        self.midway = False
        """Whether the client has the beginning of an answer, and not its end."""

    @property
    def room(self) -> bool:
        """Whether more can be asked."""
        return len(self._due) < DUE_MAX

    def send(
        self,
        arguments: Sequence[bytes],
        *,
        raw: bytes | None = None,
        own: bool = False,
        told: Told | None = None,
        meter: Meter | None = None,
    ) -> None:
        """Send a command.

        Args:
            arguments: its words.
            raw: its bytes, if they are at hand.
            own: whether it is capd's own.
            told: is told its answer, or the last of its answers.
            meter: counts its answer.
        """
        exchange = self._answers.ask(arguments)
        self._due.append(_Due(exchange=exchange, own=own, told=told, meter=meter))
        self._outbox.up(words.command(arguments) if raw is None else raw)

    def say(self, data: bytes, then: Callable[[], None] | None = None) -> None:
        """Answer the client in the server's place, behind what is due before; `then`: what is done when it is said."""
        self._due.append(_Due(said=data, then=then))
        if len(self._due) == 1 and not self._reader.inside:
            self._say_next()

    def said(self, data: bytes) -> None:
        """Take bytes of the server.

        Raises:
            LostError: they cannot be followed.
            BeyondError: too much came.
        """
        self._stream.append(data)
        self._raw += data
        try:
            while (answer := self._reader.read()) is not None:
                self._answered(answer)
                self.midway = False
        except BrokenError as error:
            raise LostError(f"the target does not speak RESP: {error.reason}") from error
        self._go_on()

    def _go_on(self) -> None:
        """Send on what came of an answer that is not whole, or keep it while it may turn out to be too long."""
        end, head = self._stream.position, self._due[0] if self._due else None
        if head is not None and head.meter is not None and self._reader.inside and self._reader.kind != ">":
            self._count(head, end)
            if head.exceeded is not None and not self.midway:
                self._pass(end, drop=True)
            if end - self._sent <= HELD_BYTES_MAX and not self.midway:
                return
        if not self._dropping:
            self.midway = self._reader.inside
            self._pass(end, drop=False)

    def _count(self, head: _Due, end: int) -> None:
        """Count what came of the answer that is due, up to an offset."""
        assert head.meter is not None
        size, values = end - self._reader.start, self._reader.values
        more = head.meter.count(rows=values - head.values, size=size - head.size, now=self._now())
        head.size, head.values = size, values
        while head.meter.alarms:
            self._exceeded(head.meter.alarms.pop())
        if more is not None and head.exceeded is None:
            head.exceeded = more
            self._exceeded(more)
            if self.midway:
                raise BeyondError(more)

    @property
    def _dropping(self) -> bool:
        return bool(self._due) and (self._due[0].own or self._due[0].exceeded is not None)

    @property
    def seconds(self) -> tuple[int, int] | None:
        """Give number and seconds of the command whose answer is due next; None: it may take its time."""
        head = self._due[0] if self._due else None
        seconds = None if head is None or head.meter is None else head.meter.seconds
        return None if head is None or head.exchange is None or seconds is None else (head.exchange, seconds)

    def _pass(self, end: int, *, drop: bool) -> None:
        """Send what the server said up to an offset on to the client, or drop it."""
        size = end - self._sent
        if size <= 0:
            return
        if not drop:
            self._outbox.down(bytes(self._raw[:size]))
        del self._raw[:size]
        self._sent = end

    def _answered(self, answer: Answer) -> None:
        place = self._answers.place(answer.kind, answer.value)
        head = self._due[0] if self._due else None
        if self._answers.lost or self._answers.replicating:
            raise LostError("what the target answers cannot be counted any more")
        if place.exchange is None:
            if place.type == "reply":
                raise LostError("the target answers what it was not asked")
            self._pass(answer.end, drop=False)
            self._say_next()
            return
        if head is None or head.exchange != place.exchange:
            raise LostError("the target answers out of order")
        if head.meter is not None:
            self._count(head, answer.end)
            head.size = head.values = 0
        self._pass(answer.end, drop=head.own or head.exceeded is not None)
        oldest = self._answers.oldest
        if oldest is None or oldest > place.exchange:
            self._due.popleft()
            if head.exceeded is not None:
                self._outbox.down(words.error(words.ERR, f"capd: {head.exceeded.words}", {"reason": LIMIT_EXCEEDED}))
            if head.told is not None:
                head.told(answer.kind, answer.value)
            self._say_next()

    def _say_next(self) -> None:
        while self._due and self._due[0].exchange is None:
            due = self._due.popleft()
            self._outbox.down(due.said)
            if due.then is not None:
                due.then()
