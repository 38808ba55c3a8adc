"""One direction of an HTTP/1 connection: heads, bodies, gaps.

What lives here: what requests and responses have in common. What must not: start lines and the meaning of a status
(decoder.py).

Every byte belongs to exactly one event, and spans follow each other without holes: chunk sizes and line ends that frame a
body belong to the span of the event after them.
"""

from __future__ import annotations

from abc import abstractmethod
from enum import IntEnum, auto
from typing import Final

from capd.decoders.conversation import Side
from capd.decoders.http1.grammar import (
    CHUNK_EXTENSION_BYTES_MAX,
    CHUNK_LINE_BYTES_MAX,
    FIELDS_MAX,
    HEAD_BYTES_MAX,
    Block,
    Fields,
    Framing,
    LineError,
    chunk_line,
    field_line,
    field_lines,
)
from capd.decoders.http1.resync import search
from capd.decoders.message import Direction, JsonValue, Message, ProtocolError, Skipped

HELD_BYTES_MAX: Final = 65_536
"""Bytes after CONNECT or an upgrade that wait for the answer which says what they are."""
UNBOUNDED: Final = 1 << 62
"""Bytes of content, where only the end of the direction ends it."""
REMEMBERED_BYTES_MAX: Final = 4_096
"""Field lines of a head that are kept, read, for the case that the next has the same; longer ones change anyway."""


class State(IntEnum):
    """What the next byte of a direction is."""

    START = auto()
    FIELDS = auto()
    LENGTH = auto()
    CHUNK_SIZE = auto()
    CHUNK = auto()
    CHUNK_END = auto()
    TRAILERS = auto()
    CLOSE = auto()
    HELD = auto()
    TUNNEL = auto()
    RESYNC = auto()


_CR: Final = 0x0D
_CRLF: Final = b"\r\n"


def plural(count: int, noun: str) -> str:
    """`1 byte`, `2 bytes`."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


class HttpSide(Side):
    """The state machine. A step gives an event, or True when it only changed the state, or None when it needs more bytes."""

    def __init__(self, direction: Direction) -> None:
        super().__init__(direction)
        self.state = State.START
        self.word = direction.name.lower()
        self.exchange: int | None = None
        self.interim = False
        self._head_known = False
        self._fields: Fields = []
        self._before: Block | None = None
        """What the head before had."""
        self._scan = 0
        self._remaining = 0
        self._body_bytes = 0
        self._extension_bytes = 0
        self._losses: list[str] = []
        self._tunnel = ""
        self._trial = False
        self._skip_from = 0
        self._skip_reason = ""
        self._search_from = 0

    # What requests and responses do differently.

    @abstractmethod
    def read_start_line(self, line: bytes) -> None:
        """Parse and keep the start line. Raises LineError."""

    @abstractmethod
    def read_head(self, begin: int, limit: int) -> tuple[Block, int] | None:
        """Keep the start line of a head that is whole and right; give its fields and its end. None: go line by line."""

    @abstractmethod
    def head_fields(self) -> dict[str, JsonValue]:
        """What is known of the start line."""

    @abstractmethod
    def head_summary(self) -> str:
        """The start line for a person."""

    @abstractmethod
    def head_done(self, block: Block) -> tuple[Framing, int, JsonValue]:
        """Decide the framing of the body; gives its length, and `host` or `interim` (decoder.py). Raises LineError."""

    @abstractmethod
    def described(self, block: Block, framing: Framing, length: int | None, more: JsonValue) -> dict[str, JsonValue]:
        """Give the fields of a whole head."""

    @abstractmethod
    def after_message(self) -> State:
        """The state after the end of a message."""

    @abstractmethod
    def cut(self) -> None:
        """The head that was being read is all that will be seen of a message."""

    @abstractmethod
    def stop_waiting(self) -> None:
        """Decide what held bytes are without having seen the answer."""

    # Events

    def advance(self) -> Message | Skipped | None:
        """Give the next event or None."""
        while True:
            event = self._attempt() if self._trial else self._step()
            if event is None:
                self.ready = False
                return None
            if not isinstance(event, bool):
                return event

    def tunnel(self, protocol: str) -> None:
        """From here on the direction carries something else."""
        self._tunnel = protocol
        self.state = State.TUNNEL
        self.stream.cursor = self.stream.start
        self.ready = True

    def _message(
        self,
        kind: str,
        end: int,
        *,
        summary: str = "",
        fields: dict[str, JsonValue] | None = None,
        content: bytes = b"",
        incomplete: str | None = None,
    ) -> Message:
        """Report everything up to index `end` as one message."""
        stream = self.stream
        start = stream.base + stream.start
        stream.start = stream.cursor = end
        return Message(
            direction=self.direction,
            start=start,
            end=stream.base + end,
            type=kind,
            exchange=self.exchange,
            summary=summary,
            fields=fields or {},
            content=content,
            incomplete=incomplete,
        )

    # Lines

    def _line(self, limit: int, what: str) -> bytes | None:
        """Give the next line without its CRLF and move behind it; None when it is not whole yet.

        `limit` is an index in `data` that the line's last byte must stay before.
        """
        stream = self.stream
        begin = stream.cursor
        end = stream.data.find(b"\n", begin + self._scan)
        if end < 0 or end >= limit:
            if len(stream.data) >= limit:
                raise self.error(stream.base + limit, f"{what} too long")
            self._scan = len(stream.data) - begin
            return None
        if end == begin or stream.data[end - 1] != _CR:
            raise self.error(stream.base + end, "bare LF")
        self._scan = 0
        stream.cursor = end + 1
        return stream.take(begin, end - 1)

    def _fault(self, line_start: int, error: LineError) -> ProtocolError:
        return self.error(self.stream.base + line_start + error.index, error.reason)

    # Steps, one for each state

    def _step(self) -> Message | bool | None:
        """Do what the state does with the bytes that wait; asked in the order of how often they are met."""
        state = self.state
        event: Message | bool | None
        if state is State.START:
            event = self._start()
        elif state is State.LENGTH:
            event = self._length()
        elif state is State.CHUNK:
            event = self._chunk()
        elif state is State.CHUNK_SIZE:
            event = self._chunk_size()
        elif state is State.CHUNK_END:
            event = self._chunk_end()
        elif state is State.TRAILERS:
            event = self._trailers()
        elif state is State.FIELDS:
            event = self._head()
        elif state is State.CLOSE:
            event = self._close()
        elif state is State.HELD:
            event = self._held()
        elif state is State.TUNNEL:
            event = self._tunnelled()
        else:
            event = self._resync()
        return event

    def _start(self) -> Message | bool | None:
        stream = self.stream
        if stream.cursor == len(stream.data):
            return None
        fresh = stream.cursor == stream.start and not self._trial
        if fresh and not self._scan:
            whole = self.read_head(stream.start, stream.start + HEAD_BYTES_MAX)
            if whole is not None:
                block, stream.cursor = whole
                self._before = block if len(block.raw) <= REMEMBERED_BYTES_MAX else None
                return self._head_message(block)
        if fresh and self.direction is Direction.REQUEST:
            # RFC 9112 2.2: one empty line before a request line is ignored, clients send it after a POST.
            if stream.data[stream.start : stream.start + len(_CRLF)] == _CRLF:
                stream.cursor += len(_CRLF)
            elif stream.waiting < len(_CRLF) and _CRLF.startswith(stream.data[stream.start :]):
                return None
        line_start = stream.cursor
        line = self._line(stream.start + HEAD_BYTES_MAX, "head")
        if line is None:
            return None
        try:
            self.read_start_line(line)
        except LineError as error:
            stream.cursor = line_start
            raise self._fault(line_start, error) from None
        self._head_known = True
        self._fields = []
        self.state = State.FIELDS
        return True

    def _head(self) -> Message | None:
        fields = self._field_lines(self.stream.start + HEAD_BYTES_MAX, "head")
        return None if fields is None else self._head_message(Block(fields))

    def _head_message(self, block: Block) -> Message:
        """Everything up to the cursor is a head."""
        stream = self.stream
        try:
            framing, length, more = self.head_done(block)
        except LineError as error:
            raise self.error(stream.position, error.reason) from None
        self._begin_body(framing, length)
        summary = self.head_summary()
        described = self.described(block, framing, length if framing is Framing.LENGTH else None, more)
        self._head_known = False
        self._fields = []
        message = self._message(self.word, stream.cursor, summary=summary, fields=described)
        if framing is Framing.NONE:
            if self.interim:
                self.state = State.START
            else:
                self.out.append(self._end())
        return message

    def _field_lines(self, limit: int, what: str) -> Fields | None:
        """Read field lines until the empty one: at once when all are there, else one by one, which also finds what is wrong."""
        stream = self.stream
        fields = self._fields
        if not fields and not self._scan:
            whole = field_lines(stream.data, stream.cursor, limit)
            if whole is not None:
                self._fields, stream.cursor = whole
                return self._fields
        while True:
            begin = stream.cursor
            line = self._line(limit, what)
            if line is None:
                return None
            if not line:
                return fields
            try:
                fields.append(field_line(line))
                if len(fields) > FIELDS_MAX:
                    raise LineError(0, f"more than {FIELDS_MAX} fields")
            except LineError as error:
                stream.cursor = begin
                raise self._fault(begin, error) from None

    def _begin_body(self, framing: Framing, length: int) -> None:
        self._body_bytes = self._extension_bytes = 0
        self._losses = []
        self._remaining = length
        if framing is Framing.LENGTH:
            self.state = State.LENGTH
        elif framing is Framing.CHUNKED:
            self.state = State.CHUNK_SIZE
        elif framing is Framing.CLOSE:
            self.state = State.CLOSE
        elif framing is Framing.TUNNEL:
            self.state = State.TUNNEL

    def _end(self, incomplete: str | None = None, trailers: Fields | None = None) -> Message:
        """The end of a message, up to where parsing came."""
        if self._losses:
            incomplete = "; ".join([*self._losses, *([incomplete] if incomplete else [])])
        stream = self.stream
        fields: dict[str, JsonValue] = {"body_bytes": self._body_bytes, "trailers": trailers or []}
        message = self._message("end", stream.cursor, fields=fields, incomplete=incomplete)
        self.state = self.after_message()
        if self.state is State.START and stream.cursor == len(stream.data):
            self.ready = False
        return message

    @property
    def content_bytes(self) -> int:
        """How many of the next bytes are content of one body: the rest of its length, or of its chunk; 0 if bytes wait."""
        if self.over or self.stream.cursor < len(self.stream.data):
            return 0
        if self.state is State.CLOSE:
            return UNBOUNDED
        return self._remaining if self.state in (State.LENGTH, State.CHUNK) else 0

    def _content(self, length: int) -> Message:
        """Report `length` bytes of content at the cursor, with the framing before them."""
        stream = self.stream
        begin = stream.cursor
        self._body_bytes += length
        return self._message("body", begin + length, content=stream.take(begin, begin + length))

    def _length(self) -> Message | None:
        if not self._remaining:
            return self._end()
        available = len(self.stream.data) - self.stream.cursor
        if not available:
            return None
        size = min(available, self._remaining)
        self._remaining -= size
        return self._content(size)

    def _chunk_size(self) -> bool | None:
        stream = self.stream
        begin = stream.cursor
        line = self._line(begin + CHUNK_LINE_BYTES_MAX, "chunk size line")
        if line is None:
            return None
        try:
            size, extension = chunk_line(line, lenient=self.direction is Direction.RESPONSE)
            self._extension_bytes += extension
            if self._extension_bytes > CHUNK_EXTENSION_BYTES_MAX:
                raise LineError(0, "too many chunk extensions")
        except LineError as error:
            raise self._fault(begin, error) from None
        self._remaining = size
        self._fields = []
        self.state = State.CHUNK if size else State.TRAILERS
        return True

    def _chunk(self) -> Message | bool | None:
        if not self._remaining:
            self.state = State.CHUNK_END
            return True
        available = len(self.stream.data) - self.stream.cursor
        if not available:
            return None
        size = min(available, self._remaining)
        self._remaining -= size
        return self._content(size)

    def _chunk_end(self) -> bool | None:
        stream = self.stream
        ending = stream.data[stream.cursor : stream.cursor + len(_CRLF)]
        if not _CRLF.startswith(ending):
            raise self.error(stream.base + stream.cursor, "chunk longer than its size")
        if len(ending) < len(_CRLF):
            return None
        stream.cursor += len(_CRLF)
        self.state = State.CHUNK_SIZE
        return True

    def _trailers(self) -> Message | None:
        trailers = self._field_lines(self.stream.start + HEAD_BYTES_MAX, "trailer section")
        return None if trailers is None else self._end(trailers=trailers)

    def _close(self) -> Message | None:
        available = len(self.stream.data) - self.stream.cursor
        return self._content(available) if available else None

    def _held(self) -> bool | None:
        if self.stream.waiting <= HELD_BYTES_MAX:
            return None
        self.stop_waiting()
        return True

    def _tunnelled(self) -> Message | None:
        stream = self.stream
        if not stream.waiting:
            return None
        begin = stream.start
        incomplete = f"before this: {'; '.join(self._losses)}" if self._losses else None
        self._losses = []
        end = len(stream.data)
        content = stream.take(begin, end)
        return self._message("tunnel", end, content=content, fields={"protocol": self._tunnel}, incomplete=incomplete)

    # After a gap

    def _resync(self) -> bool | None:
        stream = self.stream
        result = search(self.direction, stream.data, stream.start, self._search_from - stream.base)
        stream.report(result.keep)
        self._search_from = stream.base + result.resume
        if result.found is None:
            return None
        self._scan = 0
        self._trial = True
        self.state = State.START
        return True

    def _attempt(self) -> Message | Skipped | bool | None:
        """Read a head that may not be one; on failure search on behind what was read."""
        stream = self.stream
        try:
            event = self._step()
        except ProtocolError as error:
            resume = max(stream.cursor, stream.start + 1, error.offset - stream.base)
            stream.report(min(resume, len(stream.data)))
            self._search_from = stream.position
            self._head_known = self._trial = False
            self._scan = 0
            self.state = State.RESYNC
            return True
        if not isinstance(event, Message):
            return event
        self._trial = False
        if event.start == self._skip_from:
            return event
        self.out.appendleft(event)
        return self.skipped(self._skip_from, event.start, self._skip_reason)
