"""One direction of a PostgreSQL connection: cutting bytes into messages, gaps, messages too long to hold.

What lives here: type byte and length, and what remains possible when bytes are missing. What must not: what a message means.

Framing errors (an unknown type, an impossible length) are protocol errors: nothing behind them can be found. A message
whose inside does not add up while its length is sound is given as incomplete, and the next one is read.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum, auto
from typing import Final

from capd.decoders.conversation import Side
from capd.decoders.message import Direction, Gap, JsonValue, Message, ProtocolError, Skipped
from capd.decoders.postgresql.resync import candidate
from capd.decoders.postgresql.wire import (
    CONTROL_BYTES_MAX,
    COPY_PART_BYTES,
    HEADER,
    HEADER_BYTES,
    LENGTH_BYTES,
    MESSAGE_BYTES_LIMIT,
    PREFIX_BYTES,
)

Decoded = tuple[str, dict[str, JsonValue]]
"""Summary and fields."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """One type of message.

    Attributes:
        name: the protocol's word for it.
        shortest: smallest length that it can announce, which counts the four bytes of the length itself.
        longest: largest length that it can announce.
        held: a longer one is not held; its first part is decoded and the rest skipped.
    """

    name: str
    shortest: int = LENGTH_BYTES
    longest: int = MESSAGE_BYTES_LIMIT
    held: int = CONTROL_BYTES_MAX


def exactly(name: str, length: int) -> Kind:
    """A type of message that has always the same length."""
    return Kind(name=name, shortest=length, longest=length)


class State(IntEnum):
    """What the next byte of a direction is."""

    MESSAGES = auto()
    OPENING = auto()
    SKIP = auto()
    COPY = auto()
    RESYNC = auto()


@dataclass(slots=True, kw_only=True)
class Partial:
    """A message that is passed by without being held: where it began, what is known, what is still to come."""

    code: int
    start: int
    prefix: bytes
    remaining: int
    reasons: list[str]


@dataclass(slots=True, kw_only=True)
class LongCopy:
    """A CopyData message given in parts."""

    total: int
    offset: int = 0


class PostgresqlSide(Side):
    """The state machine."""

    kinds: Mapping[int, Kind]
    copy_code: Final = ord("d")

    def __init__(self, direction: Direction) -> None:
        super().__init__(direction)
        self.state = State.MESSAGES
        self._partial: Partial | None = None
        self._copy: LongCopy | None = None
        self._copy_losses: list[str] = []
        self._skip_from = 0
        self._skip_reason = ""
        self._final = False
        self._search_from = 0

    # What client and server do differently.

    @abstractmethod
    def decode(self, code: int, body: bytes, start: int, end: int) -> Message:
        """Decode a whole message."""

    @abstractmethod
    def decode_partial(self, code: int, prefix: bytes, start: int, end: int, incomplete: str) -> Message:
        """Decode what is there of a message."""

    @abstractmethod
    def copy_message(
        self, start: int, end: int, content: bytes, fields: dict[str, JsonValue], incomplete: str | None
    ) -> Message:
        """Build a CopyData message."""

    @abstractmethod
    def advance_opening(self) -> Message | None:
        """Read what has no type byte."""

    @abstractmethod
    def resynchronised(self) -> None:
        """A message boundary was found behind lost bytes."""

    # Events

    def advance(self) -> Message | Skipped | None:
        """Give the next event or None."""
        event: Message | Skipped | None
        before = self.state
        if before is State.MESSAGES:
            event = self._next_message()
        elif before is State.OPENING:
            event = self.advance_opening()
        elif before is State.SKIP:
            event = self._skip()
        elif before is State.COPY:
            event = self._copy_part()
        else:
            event = self._resync()
        if event is None and self.state is before:
            self.ready = False
        return event

    def _next_message(self) -> Message | None:
        stream = self.stream
        data = stream.data
        start = stream.start
        available = len(data) - start
        if available < HEADER_BYTES:
            if available and data[start] not in self.kinds:
                raise self._unknown(data[start])
            return None
        code, length = HEADER.unpack_from(data, start)
        kind = self.kinds.get(code)
        if kind is None:
            raise self._unknown(code)
        if not kind.shortest <= length <= kind.longest:
            raise self.error(stream.base + start, f"{kind.name} with a length of {length}")
        if length > kind.held:
            return self._begin_long(code, length)
        end = start + 1 + length
        if end > len(data):
            return None
        body = (
            data[start + HEADER_BYTES : end] if isinstance(data, bytes) else bytes(memoryview(data)[start + HEADER_BYTES : end])
        )
        stream.start = stream.cursor = end
        base = stream.base
        if code == self.copy_code:
            return self.copy_message(base + start, base + end, body, {}, None)
        return self.decode(code, body, base + start, base + end)

    def _unknown(self, code: int) -> ProtocolError:
        letter = chr(code)
        name = f"'{letter}'" if letter.isascii() and letter.isprintable() else f"0x{code:02x}"
        return self.error(self.stream.position, f"unknown message type {name}")

    # Messages that are not held

    def _begin_long(self, code: int, length: int) -> Message | None:
        stream = self.stream
        if code == self.copy_code:
            self.state = State.COPY
            self._copy = LongCopy(total=length - LENGTH_BYTES)
            return None
        if stream.waiting < HEADER_BYTES + PREFIX_BYTES:
            return None
        begin = stream.start
        prefix_end = begin + HEADER_BYTES + PREFIX_BYTES
        self._partial = Partial(
            code=code,
            start=stream.position,
            prefix=stream.take(begin + HEADER_BYTES, prefix_end),
            remaining=length - LENGTH_BYTES - PREFIX_BYTES,
            reasons=[f"{length + 1 - HEADER_BYTES} bytes long; only the first {PREFIX_BYTES} are decoded"],
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
        return None if partial.remaining else self._end_partial(None)

    def _end_partial(self, reason: str | None) -> Message:
        partial = self._partial
        assert partial is not None, "state SKIP has a partial message"
        self._partial = None
        self.state = State.MESSAGES
        why = "; ".join(dict.fromkeys([*partial.reasons, *([reason] if reason else [])]))
        return self.decode_partial(partial.code, partial.prefix, partial.start, self.stream.position, why)

    def _copy_part(self) -> Message | None:
        """Parts end at multiples of their size, so that how the stream was cut does not show."""
        copy = self._copy
        assert copy is not None, "state COPY has a copy"
        stream = self.stream
        size = min(COPY_PART_BYTES - copy.offset % COPY_PART_BYTES, copy.total - copy.offset)
        header = 0 if copy.offset else HEADER_BYTES
        if stream.waiting < header + size:
            return None
        return self._copy_event(copy, header, size)

    def _copy_event(self, copy: LongCopy, header: int, size: int) -> Message:
        stream = self.stream
        begin = stream.start
        end = begin + header + size
        content = stream.take(begin + header, end)
        fields: dict[str, JsonValue] = {"offset": copy.offset, "total": copy.total}
        stream.report(end)
        copy.offset += size
        if copy.offset == copy.total:
            self._copy = None
            self.state = State.MESSAGES
        reason = "; ".join(self._copy_losses) or None
        self._copy_losses = []
        return self.copy_message(stream.base + begin, stream.base + end, content, fields, reason)

    # What is missing

    def lose(self, gap: Gap) -> bool:
        """Take a gap: inside a message whose length is known the framing survives, otherwise it is searched for."""
        if gap.length == 0:
            return True
        reason = gap.words
        if not self._survives(gap, reason):
            self.stream.pass_over(gap.length or 0)
            self.restart(reason)
        return True

    def _survives(self, gap: Gap, reason: str) -> bool:
        """Whether the framing is still known behind the gap; reports what the gap cut off."""
        stream = self.stream
        if self.state is State.MESSAGES and stream.waiting >= HEADER_BYTES:
            self._to_partial()
        if self.state is State.SKIP:
            return self._lose_partial(gap, reason)
        if self.state is State.COPY:
            return self._lose_copy(gap, reason)
        if self.state is State.RESYNC:
            self._report_skipped()
        elif stream.waiting:
            self.out.append(self.skipped(stream.position, stream.end, f"cut off: {reason}"))
        return False

    def restart(self, reason: str) -> None:
        """Look for the next plausible message boundary."""
        self.state = State.RESYNC
        self._skip_from = self._search_from = self.stream.position
        self._skip_reason = f"no message boundary known after {reason}"
        self.ready = True

    def _to_partial(self) -> None:
        """Go on with the message that waits as one that is not held."""
        stream = self.stream
        code, length = HEADER.unpack_from(stream.data, stream.start)
        begin = stream.start + HEADER_BYTES
        body = stream.take(begin, len(stream.data))
        self._partial = Partial(
            code=code, start=stream.position, prefix=body, remaining=length - LENGTH_BYTES - len(body), reasons=[]
        )
        stream.drop()
        self.state = State.SKIP

    def _lose_partial(self, gap: Gap, reason: str) -> bool:
        """True: the message goes on behind the gap. False: it is reported and nothing is known behind the gap."""
        partial = self._partial
        assert partial is not None, "state SKIP has a partial message"
        if gap.length is None or gap.length > partial.remaining:
            self.out.append(self._end_partial(reason))
            return False
        partial.remaining -= gap.length
        partial.reasons.append(reason)
        self.stream.pass_over(gap.length)
        return True

    def _lose_copy(self, gap: Gap, reason: str) -> bool:
        copy = self._copy
        assert copy is not None, "state COPY has a copy"
        self._copy_losses.append(reason)
        stream = self.stream
        header = 0 if copy.offset else HEADER_BYTES
        held = stream.waiting - header
        missing = copy.total - copy.offset - held
        if stream.waiting or gap.length is None or gap.length >= missing:
            self.out.append(self._copy_event(copy, header, held))
        if gap.length is None or gap.length > missing:
            self._copy = None
            return False
        copy.offset += gap.length
        stream.pass_over(gap.length)
        if gap.length == missing:
            self._copy = None
            self.state = State.MESSAGES
        return True

    def finish(self) -> bool:
        """Take the end of the direction."""
        stream = self.stream
        if self.state is State.RESYNC:
            if not self._final:
                self._final = True
                return False
            self._report_skipped()
            return True
        reason = "the direction ended inside it"
        if self.state is State.COPY:
            copy = self._copy
            assert copy is not None, "state COPY has a copy"
            header = 0 if copy.offset else HEADER_BYTES
            self._copy_losses.append(reason)
            self.out.append(self._copy_event(copy, header, stream.waiting - header))
        elif self.state is State.SKIP:
            self.out.append(self._end_partial(reason))
        elif stream.waiting:
            self._finish_waiting(reason)
        return True

    def _finish_waiting(self, reason: str) -> None:
        stream = self.stream
        if self.state is State.MESSAGES and stream.waiting >= HEADER_BYTES:
            self._to_partial()
            self.out.append(self._end_partial(reason))
        else:
            self.out.append(self.skipped(stream.position, stream.end, "cut off: the direction ended inside a message"))
            stream.drop()

    def _report_skipped(self) -> None:
        stream = self.stream
        if stream.end > self._skip_from:
            self.out.append(self.skipped(self._skip_from, stream.end, self._skip_reason))
        stream.drop()
        self._skip_from = self._search_from = stream.position

    def _resync(self) -> Skipped | None:
        stream = self.stream
        found, keep = candidate(self.direction, stream.data, self._search_from - stream.base, final=self._final)
        stream.report(keep)
        self._search_from = stream.base + keep
        if not found:
            return None
        start = stream.position
        self.state = State.MESSAGES
        self._final = False
        self.resynchronised()
        if start == self._skip_from:
            return None
        return self.skipped(self._skip_from, start, self._skip_reason)
