"""One direction of a MySQL connection: cutting bytes into packets, gaps, messages too long to hold.

What lives here: length and sequence, and what remains possible when bytes are missing. What must not: what a packet means.

A packet has no mark by which it could be found among others. But client and server take turns: when one spoke, the other's next
byte begins a packet. There a direction goes on after a gap, if the header fits.

A message of several packets (16,777,215 bytes or more) is not held; its first part is decoded.
"""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from enum import IntEnum, auto
from typing import Final

from capd.decoders.conversation import Side
from capd.decoders.message import Direction, Gap, Message, ProtocolError, Skipped
from capd.decoders.mysql.answers import Answers
from capd.decoders.mysql.wire import CONTROL_BYTES_MAX, HEADER_BYTES, PACKET_BYTES_MAX, PREFIX_BYTES

_FIRST_BYTES: Final = HEADER_BYTES + 1
COMPRESSED: Final = "the compressed protocol begins here, which is not decoded"


class State(IntEnum):
    """What the next byte of a direction is."""

    PACKETS = auto()
    SKIP = auto()
    RESYNC = auto()


@dataclass(slots=True, kw_only=True)
class Partial:
    """A message that is passed by without being held.

    Attributes:
        start: offset where it began.
        sequence: of its first packet.
        prefix: what is known of its payload.
        remaining: bytes of the packet that are still to come.
        last: whether no packet of the same message follows.
        reasons: why it is not whole.
    """

    start: int
    sequence: int
    prefix: bytes
    remaining: int
    last: bool
    reasons: list[str]


class MysqlSide(Side):
    """The state machine."""

    def __init__(self, direction: Direction, answers: Answers) -> None:
        super().__init__(direction)
        self.state = State.PACKETS
        self.answers = answers
        self._partial: Partial | None = None
        self._skip_from = 0
        self._skip_reason = ""
        self._boundary: int | None = None
        self._rejected: tuple[int, int] | None = None

    # What client and server do differently.

    @abstractmethod
    def held_max(self, first: int) -> int:
        """How long a payload may be to be held, by its first byte."""

    @abstractmethod
    def decode(self, body: bytes, sequence: int, start: int, end: int) -> Message | None:
        """Decode a whole packet; None: it is told together with those behind it."""

    @abstractmethod
    def decode_partial(self, prefix: bytes, sequence: int, start: int, end: int, incomplete: str) -> Message | None:
        """Decode what is there of a message."""

    @abstractmethod
    def plausible(self, length: int, sequence: int, first: int) -> bool:
        """Whether a packet may begin so, where one must begin if any."""

    @abstractmethod
    def resynchronised(self) -> None:
        """A packet was found behind lost bytes."""

    def settle_joined(self, reason: str) -> None:
        """Tell what waits for packets that will not be found."""

    def check_opening(self) -> bool:
        """Whether a packet can be read now; False: with more bytes.

        Raises:
            ProtocolError: what comes is no packet.
        """
        return True

    # Events

    def take(self, item: bytes | Gap) -> bool:
        """Take an arrival."""
        spoken = isinstance(item, bytes) and bool(item)
        if spoken and self.answers.other_spoke(self.direction) and self.state is State.RESYNC:
            self._boundary = self.stream.end
        taken = super().take(item)
        if spoken:
            self.answers.spoke(self.direction)
        return taken

    def advance(self) -> Message | Skipped | None:
        """Give the next event or None."""
        while True:
            before = (self.state, self.stream.position)
            event = self._next_event()
            if event is not None:
                return event
            if self.out:
                return self.out.popleft()
            if before == (self.state, self.stream.position):
                self.ready = False
                return None

    def _next_event(self) -> Message | Skipped | None:
        if self.state is State.PACKETS:
            return self._next_packet()
        return self._skip() if self.state is State.SKIP else self._resync()

    def _next_packet(self) -> Message | None:
        stream = self.stream
        data, start = stream.data, stream.start
        available = len(data) - start
        if available and self.answers.compressed and self._compressed():
            raise self.error(stream.position, COMPRESSED)
        if available < HEADER_BYTES or not self.check_opening():
            return None
        length = int.from_bytes(data[start : start + 3], "little")
        if length > CONTROL_BYTES_MAX:
            if available < _FIRST_BYTES:
                return None
            if length > self.held_max(data[start + HEADER_BYTES]):
                return self._begin_long(length)
        begin = start + HEADER_BYTES
        end = begin + length
        if end > len(data):
            return None
        sequence = data[start + 3]
        body = stream.take(begin, end)
        base = stream.base
        stream.report(end)
        return self.decode(body, sequence, base + start, base + end)

    def _compressed(self) -> bool:
        """Whether what comes now is compressed."""
        return True

    # Messages that are not held

    def _begin_long(self, length: int) -> Message | None:
        stream = self.stream
        begin = stream.start + HEADER_BYTES
        if len(stream.data) < begin + PREFIX_BYTES:
            return None
        prefix_end = begin + PREFIX_BYTES
        many = "16,777,215 or more" if length == PACKET_BYTES_MAX else f"{length:,}"
        self._partial = Partial(
            start=stream.position,
            sequence=stream.data[stream.start + 3],
            prefix=stream.take(begin, prefix_end),
            remaining=length - PREFIX_BYTES,
            last=length < PACKET_BYTES_MAX,
            reasons=[f"{many} bytes long; only the first {PREFIX_BYTES:,} are decoded"],
        )
        stream.report(prefix_end)
        self.state = State.SKIP
        return None

    def _skip(self) -> Message | None:
        partial = self._partial
        assert partial is not None, "state SKIP has a partial message"
        stream = self.stream
        size = min(stream.waiting, partial.remaining)
        stream.report(stream.start + size)
        partial.remaining -= size
        if partial.remaining:
            return None
        if partial.last:
            return self._end_partial(None)
        if stream.waiting >= HEADER_BYTES:
            length = int.from_bytes(stream.data[stream.start : stream.start + 3], "little")
            partial.remaining, partial.last = length, length < PACKET_BYTES_MAX
            stream.report(stream.start + HEADER_BYTES)
        return None

    def _end_partial(self, reason: str | None) -> Message | None:
        partial = self._partial
        assert partial is not None, "state SKIP has a partial message"
        self._partial = None
        self.state = State.PACKETS
        why = "; ".join(dict.fromkeys([*partial.reasons, *([reason] if reason else [])]))
        return self.decode_partial(partial.prefix, partial.sequence, partial.start, self.stream.position, why)

    def _give_partial(self, reason: str) -> None:
        message = self._end_partial(reason)
        if message is not None:
            self.out.append(message)

    # What is missing

    def lose(self, gap: Gap) -> bool:
        """Take a gap: inside a packet whose length is known the framing survives."""
        if gap.length == 0:
            return True
        reason = gap.words
        if not self._survives(gap, reason):
            self.settle_joined(reason)
            self.stream.pass_over(gap.length or 0)
            self.restart(reason)
        return True

    def _survives(self, gap: Gap, reason: str) -> bool:
        """Whether the framing is still known behind the gap; reports what the gap cut off."""
        stream = self.stream
        if self.state is State.PACKETS and stream.waiting >= HEADER_BYTES:
            self._to_partial()
        if self.state is State.SKIP:
            return self._lose_partial(gap, reason)
        if self.state is State.RESYNC:
            self._report_skipped()
        elif stream.waiting:
            self.settle_joined(reason)
            self.out.append(self.skipped(stream.position, stream.end, f"cut off: {reason}"))
        return False

    def restart(self, reason: str) -> None:
        """Wait until a packet must begin."""
        self.state = State.RESYNC
        self._boundary = None
        self.answers.other_spoke(self.direction)
        self._skip_from = self.stream.position
        self._skip_reason = f"no packet boundary known after {reason}"
        self.ready = True

    def _to_partial(self) -> None:
        """Go on with the packet that waits as one that is not held."""
        stream = self.stream
        begin = stream.start + HEADER_BYTES
        length = int.from_bytes(stream.data[stream.start : stream.start + 3], "little")
        body = stream.take(begin, len(stream.data))
        self._partial = Partial(
            start=stream.position,
            sequence=stream.data[stream.start + 3],
            prefix=body[:PREFIX_BYTES],
            remaining=length - len(body),
            last=length < PACKET_BYTES_MAX,
            reasons=[],
        )
        stream.drop()
        self.state = State.SKIP

    def _lose_partial(self, gap: Gap, reason: str) -> bool:
        """True: the message goes on behind the gap. False: it is reported and nothing is known behind the gap."""
        partial = self._partial
        assert partial is not None, "state SKIP has a partial message"
        if gap.length is None or gap.length > partial.remaining or self.stream.waiting:
            self.stream.drop()
            self._give_partial(reason)
            return False
        partial.remaining -= gap.length
        partial.reasons.append(reason)
        self.stream.pass_over(gap.length)
        return True

    def finish(self) -> bool:
        """Take the end of the direction."""
        stream = self.stream
        reason = "the direction ended inside it"
        if self.state is State.RESYNC:
            self._report_skipped()
            return True
        if self.state is State.PACKETS and stream.waiting >= HEADER_BYTES:
            self._to_partial()
        if self.state is State.SKIP:
            stream.drop()
            self._give_partial(reason)
        self.settle_joined("the direction ended")
        if stream.waiting:
            self.out.append(self.skipped(stream.position, stream.end, "cut off: the direction ended inside a packet"))
            stream.drop()
        return True

    def rejected(self, start: int, end: int, reason: str) -> ProtocolError:
        """Build the error for a packet behind which nothing can be found."""
        self._rejected = (start, end)
        return self.error(start, reason)

    def fail(self, error: ProtocolError) -> None:
        """Stop decoding."""
        self.settle_joined("what follows breaks the protocol")
        if self._rejected is not None:
            self.out.append(self.skipped(*self._rejected, f"after a protocol error: {error.reason}"))
        super().fail(error)

    def _report_skipped(self) -> None:
        stream = self.stream
        if stream.end > self._skip_from:
            self.out.append(self.skipped(self._skip_from, stream.end, self._skip_reason))
        stream.drop()
        self._skip_from = stream.position

    def _resync(self) -> Skipped | None:
        stream = self.stream
        boundary = self._boundary
        if boundary is None:
            stream.report(len(stream.data))
            return None
        stream.report(boundary - stream.base)
        if stream.waiting < _FIRST_BYTES:
            return None
        self._boundary = None
        head = stream.data[stream.start : stream.start + _FIRST_BYTES]
        if not self.plausible(int.from_bytes(head[:3], "little"), head[3], head[4]):
            return None
        start = stream.position
        self.state = State.PACKETS
        self.resynchronised()
        return self.skipped(self._skip_from, start, self._skip_reason) if start > self._skip_from else None
