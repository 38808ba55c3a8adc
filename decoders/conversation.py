"""What the decoders of two-way protocols share: order of arrival, and what happens after an error or an end.

What lives here: the loop behind `receive` and `next_event`. What must not: any protocol's grammar.

Arrivals are kept in the order in which they came and are looked at one by one, each only after everything before it has been
decoded. So a gap is met exactly where it belongs, messages come out in the order in which they became whole, and how often the
caller calls `next_event` changes nothing.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import deque

from capd.decoders.message import NEED_DATA, Direction, Event, Gap, Message, ProtocolError, Skipped
from capd.decoders.stream import Stream


class Side(ABC):
    """One direction's state machine.

    Attributes:
        stream: its bytes.
        out: events that are decided but not yet given; they come before any other.
        ready: whether `advance` may have something to do.
        broken: why it cannot be decoded any further, or None.
        ended: whether the direction has ended.
    """

    def __init__(self, direction: Direction) -> None:
        self.direction = direction
        self.stream = Stream()
        self.out: deque[Message | Skipped] = deque()
        self.ready = False
        self.broken: str | None = None
        self.ended = False

    @abstractmethod
    def advance(self) -> Message | Skipped | None:
        """Give the next event; None, with `ready` cleared, when more bytes are needed.

        Raises:
            ProtocolError: the bytes break the protocol.
        """

    @abstractmethod
    def lose(self, gap: Gap) -> bool:
        """Take a gap. False: decode first what a decision just made set free, then offer the gap again."""

    @abstractmethod
    def finish(self) -> bool:
        """Take the end of the direction. False as for `lose`."""

    def broke(self) -> None:  # noqa: B027  (most protocols need nothing here)
        """Called once after a ProtocolError of this side."""

    @property
    def over(self) -> bool:
        """Whether nothing more will be decoded; bytes that come nevertheless are skipped."""
        return self.ended or self.broken is not None

    def error(self, offset: int, reason: str) -> ProtocolError:
        """Build the error for a byte at `offset` of this direction."""
        return ProtocolError(self.direction, offset, reason)

    def skipped(self, start: int, end: int, reason: str) -> Skipped:
        """Build the event for bytes passed over."""
        return Skipped(direction=self.direction, start=start, end=end, reason=reason)

    def take(self, item: bytes | Gap) -> bool:
        """Take an arrival. False: it must be offered again later."""
        if self.ended or self.broken is not None:
            self._take_after_end(item)
            return True
        self.ready = True
        if isinstance(item, Gap):
            return self.lose(item)
        if item:
            self.stream.append(item)
            return True
        if self.finish():
            self.ended = True
            return True
        return False

    def _take_after_end(self, item: bytes | Gap) -> None:
        stream = self.stream
        if isinstance(item, Gap):
            stream.pass_over(item.length or 0)
        elif item:
            start = stream.end
            stream.pass_over(len(item))
            self.out.append(self.skipped(start, stream.end, self.broken or "bytes after the end of the direction"))

    def fail(self, error: ProtocolError) -> None:
        """Stop decoding; what was not reported yet is given as skipped."""
        self.broken = f"after a protocol error: {error.reason}"
        self.ready = False
        stream = self.stream
        if stream.waiting:
            self.out.append(self.skipped(stream.position, stream.end, self.broken))
        stream.drop()
        self.broke()


class Conversation:
    """Two sides and the order of what they said."""

    def __init__(self, request: Side, response: Side) -> None:
        self._sides = (request, response)
        self._current, self._other = request, response
        self._arrivals: deque[tuple[Direction, bytes | Gap]] = deque()

    @property
    def held(self) -> int:
        """Bytes that wait for more of their message."""
        return sum(side.stream.waiting for side in self._sides)

    def receive(self, direction: Direction, data: bytes | Gap) -> None:
        """Take the next bytes of a direction, a gap in their place, or `b""` for the end of that direction."""
        self._arrivals.append((direction, data))

    def next_event(self) -> Event:
        """Give the next message, or NEED_DATA.

        Raises:
            ProtocolError: once for a direction; what follows in it is then given as `Skipped`.
        """
        while True:
            side, other = self._current, self._other
            if side.out:
                return side.out.popleft()
            if other.ready:
                # What this side just said set held bytes of the other free; they came before what this side says next.
                side, other = self._current, self._other = other, side
            if side.ready:
                try:
                    event = side.advance()
                except ProtocolError as error:
                    side.fail(error)
                    raise
                if event is not None:
                    return event
            elif other.out:
                self._current, self._other = other, side
            elif self._arrivals:
                self._arrive()
            else:
                return NEED_DATA

    def _arrive(self) -> None:
        """Go to the next arrival."""
        direction, item = self._arrivals.popleft()
        side = self._sides[direction]
        if side is self._other:
            self._current, self._other = side, self._current
        if not side.take(item):
            self._arrivals.appendleft((direction, item))
