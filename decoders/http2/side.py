"""One direction of an HTTP/2 connection: its state machine.

What lives here: which bytes are which frame, the parts of bodies, header blocks put together. What must not: what a header
section or a control frame means (sections.py), gaps and ends (losses.py).

Frames other than DATA wait until they are whole, within limits; DATA is given as it comes.
"""

from __future__ import annotations

from abc import abstractmethod
from enum import Enum, auto
from typing import Final

from capd.decoders.conversation import Side
from capd.decoders.http2 import frames
from capd.decoders.http2.frames import HEADER_BYTES, PREFACE, Frame, Type
from capd.decoders.http2.header_block import BLOCK_BYTES_MAX, BlockError, HeaderBlocks, Pairs
from capd.decoders.http2.resync import search
from capd.decoders.http2.streams import Half, Streams
from capd.decoders.message import Direction, JsonValue, Message, ProtocolError, Skipped

CONTROL_BYTES_MAX: Final = 16_384
"""A SETTINGS, GOAWAY or unknown frame that is looked into; what everybody must accept (RFC 9113 section 4.2)."""
DOUBTED_FRAMES: Final = 4
"""Frames after a gap of which an error says that they were none."""
NOT_SEEN: Final = "its beginning was not seen"


class State(Enum):
    """What the next byte of a direction is."""

    PREFACE = auto()
    FRAME = auto()
    WHOLE = auto()
    PAD_LENGTH = auto()
    DATA = auto()
    PASS = auto()
    RESYNC = auto()


class FrameSide(Side):
    """The state machine. A step gives an event, or True when it only changed the state, or None when it needs more bytes."""

    def __init__(self, direction: Direction, streams: Streams) -> None:
        super().__init__(direction)
        self._streams = streams
        self.state = State.PREFACE if direction is Direction.REQUEST else State.FRAME
        self._first = True
        self._frame = Frame(0, 0, 0, 0)
        self._half = Half()
        self._left = 0
        """Of the content of DATA, or of what is passed over."""
        self._padding = 0
        self._headers = HeaderBlocks()
        self._block: bytearray | None = None
        self._opened = Frame(0, 0, 0, 0)
        """The frame that began the header block."""
        self._promised = 0
        self._block_lost = False
        self._gaps = 0
        self._doubt = 0
        self._skip_from = 0
        self._skip_reason = ""
        self._then = State.FRAME
        """The state behind what is passed over."""

    # What frames mean.

    @abstractmethod
    def fields_message(self, opened: Frame, promised: int, fields: Pairs | None) -> Message:
        """Tell a header block; `fields` None: it could not be decoded."""

    @abstractmethod
    def control_message(self, frame: Frame, payload: bytes, end: int) -> Message:
        """Tell any other whole frame, which ends at an index."""

    @abstractmethod
    def end_message(self, number: int, half: Half, incomplete: str | None = None) -> Message:
        """Tell the end of a half, up to where parsing came."""

    # Events

    def advance(self) -> Message | Skipped | None:
        """Give the next event or None."""
        while True:
            try:
                event = self._step()
            except ProtocolError:
                if not self._doubt:
                    raise
                self._disbelieve()
                continue
            if event is None:
                self.ready = False
                return None
            if not isinstance(event, bool):
                return event

    def message(
        self,
        kind: str,
        end: int,
        *,
        stream: int = 0,
        summary: str = "",
        fields: dict[str, JsonValue] | None = None,
        incomplete: str | None = None,
    ) -> Message:
        """Report everything up to index `end` as one message, of a stream or of the connection."""
        told: dict[str, JsonValue] = {"stream": stream} if stream else {}
        start = self.stream.position
        self.stream.report(end)
        return Message(
            direction=self.direction,
            start=start,
            end=self.stream.position,
            type=kind,
            exchange=stream or None,
            summary=summary,
            fields={**told, **(fields or {})},
            incomplete=incomplete,
        )

    # Steps, one for each state

    def _step(self) -> Message | Skipped | bool | None:
        state = self.state
        event: Message | Skipped | bool | None
        if state is State.DATA:
            event = self._data()
        elif state is State.FRAME:
            event = self._frame_head()
        elif state is State.WHOLE:
            event = self._whole()
        elif state is State.PAD_LENGTH:
            event = self._pad_length()
        elif state is State.PASS:
            event = self._pass()
        elif state is State.RESYNC:
            event = self._resync()
        else:
            event = self._preface()
        return event

    def _preface(self) -> Message | None:
        stream = self.stream
        said = stream.take(stream.start, stream.start + len(PREFACE))
        if not PREFACE.startswith(said):
            raise self.error(stream.position, "not the connection preface")
        if len(said) < len(PREFACE):
            return None
        self.state = State.FRAME
        return self.message("preface", stream.start + len(PREFACE), summary="PRI * HTTP/2.0")

    def _frame_head(self) -> bool | None:
        stream = self.stream
        at = stream.cursor
        if len(stream.data) - at < HEADER_BYTES:
            return None
        frame = frames.frame_at(stream.data, at)
        reason = self._refuse(frame)
        if reason is not None:
            raise self.error(stream.base + at, reason)
        self._frame, self._first = frame, False
        self._doubt -= self._doubt > 0
        if frame.type == Type.DATA:
            stream.cursor = at + HEADER_BYTES
            self.state = State.PAD_LENGTH
            if not frame.flags & frames.PADDED:
                self._begin_data(frame.length, 0)
        elif self._block_lost:
            self._block_lost = not frame.flags & frames.END_HEADERS
            self.pass_over(HEADER_BYTES + frame.length, "the rest of a header block of which bytes were lost")
        elif frame.kind is None and frame.length > CONTROL_BYTES_MAX:
            self.pass_over(HEADER_BYTES + frame.length, f"frame of the unknown type 0x{frame.type:x}")
        else:
            self.state = State.WHOLE
        return True

    def _refuse(self, frame: Frame) -> str | None:
        """Say what is wrong with a frame at this place."""
        reason = frames.fault(frame)
        kind = frame.kind
        open_block = self._block is not None or self._block_lost
        if open_block != (kind is Type.CONTINUATION) or (open_block and frame.stream != self._opened.stream):
            reason = "header block interrupted" if open_block else "CONTINUATION frame without a header block"
        elif self._first and (kind is not Type.SETTINGS or frame.flags & frames.ACK):
            reason = "the first frame is no SETTINGS frame"
        elif kind is Type.PUSH_PROMISE and self.direction is Direction.REQUEST:
            reason = "PUSH_PROMISE frame from a client"
        elif reason is None and kind in frames.BLOCKS:
            waiting = self.stream.waiting if self._block_lost else self.stream.cursor - self.stream.start
            if waiting + HEADER_BYTES + frame.length > BLOCK_BYTES_MAX:
                reason = f"header block of more than {BLOCK_BYTES_MAX} bytes"
        elif reason is None and kind not in (None, Type.DATA) and frame.length > CONTROL_BYTES_MAX:
            reason = f"{frame.name} frame of {frame.length} bytes"
        return reason

    # Bodies

    def _pad_length(self) -> bool | None:
        stream, frame = self.stream, self._frame
        if not frame.length:
            raise self.error(stream.base + stream.cursor - HEADER_BYTES, "padding longer than its frame")
        if stream.cursor == len(stream.data):
            return None
        padding = stream.data[stream.cursor]
        if padding >= frame.length:
            raise self.error(stream.base + stream.cursor, "padding longer than its frame")
        stream.cursor += 1
        self._begin_data(frame.length - 1 - padding, padding)
        return True

    def _begin_data(self, content: int, padding: int) -> None:
        half = self._half = self._streams.of(self._frame.stream).halves[self.direction]
        if not half.begun:
            half.begun, half.gaps = True, self._gaps
            half.losses.append(NOT_SEEN)
        self._left, self._padding = content, padding
        self.state = State.DATA

    def _data(self) -> Message | bool | None:
        stream = self.stream
        available = len(stream.data) - stream.cursor
        if self._left or self._padding:
            if not available:
                return None
            return self._content(available) if self._left else self._pad(available)
        self.state = State.FRAME
        if self._frame.flags & frames.END_STREAM:
            return self.end_message(self._frame.stream, self._half)
        return self.framing() if stream.cursor > stream.start else True

    def _content(self, available: int) -> Message:
        """Report the next part of the content, with the framing before it; a message of gRPC ends a part."""
        stream, half, grpc = self.stream, self._half, self._half.grpc
        begin = stream.cursor
        size = min(available, self._left) if grpc is None else min(available, self._left, grpc.left)
        content = stream.take(begin, begin + size)
        content_start = stream.base + begin
        self._left -= size
        half.body_bytes += size
        told = self.message("body", begin + size, stream=self._frame.stream)
        told.content, told.content_start = content, content_start
        if grpc is not None and grpc.take(content):
            self.out.append(self._grpc_message(half))
        return told

    def _pad(self, available: int) -> Message | bool:
        """Report padding; from the first byte on that is not zero, which it has to be (RFC 9113 section 6.1), as skipped."""
        stream = self.stream
        size = min(available, self._padding)
        said = stream.take(stream.cursor, stream.cursor + size)
        zeros = size - len(said.lstrip(b"\0"))
        self._padding -= zeros
        stream.cursor += zeros
        if zeros < size:
            left, self._padding = self._padding, 0
            self.pass_over(left, "padding that is not zero", then=State.DATA)
        return self.framing() if stream.cursor > stream.start else True

    def framing(self) -> Message:
        """Report what is before the cursor as a part of the body without content."""
        told = self.message("body", self.stream.cursor, stream=self._frame.stream)
        told.content_start = told.end
        return told

    def _grpc_message(self, half: Half) -> Message:
        grpc, number = half.grpc, self._frame.stream
        assert grpc is not None, "only a body of gRPC has its messages"
        path = self._streams.of(number).path
        fields: dict[str, JsonValue] = {
            "path": path, "number": grpc.number, "length": grpc.length, "compressed": grpc.compressed,
        }  # fmt: skip
        incomplete = "bytes of it were lost" if grpc.damaged else None
        summary = f"{path or 'gRPC'} message {grpc.number}: {grpc.length} bytes"
        grpc.next()
        return self.message("grpc", self.stream.start, stream=number, summary=summary, fields=fields, incomplete=incomplete)

    # Whole frames

    def _whole(self) -> Message | bool | None:
        stream, frame = self.stream, self._frame
        begin = stream.cursor + HEADER_BYTES
        end = begin + frame.length
        if len(stream.data) < end:
            return None
        payload = stream.take(begin, end)
        if frame.kind in frames.BLOCKS:
            return self._block_part(frame, payload, end)
        self.state = State.FRAME
        return self.control_message(frame, payload, end)

    def _block_part(self, frame: Frame, payload: bytes, end: int) -> Message | bool:
        stream = self.stream
        part = frames.fragment(frame, payload)
        if part is None:
            raise self.error(stream.base + stream.cursor, "padding longer than its frame")
        if self._block is None:
            self._block, self._opened = bytearray(), frame
            if frame.type == Type.PUSH_PROMISE:
                self._promised = int.from_bytes(payload[part[0] - frames.PROMISED_BYTES : part[0]], "big") & 0x7FFF_FFFF
        self._block += payload[part[0] : part[1]]
        stream.cursor = end
        self.state = State.FRAME
        if not frame.flags & frames.END_HEADERS:
            return True
        try:
            fields = self._headers.decode(bytes(self._block))
        except BlockError as error:
            raise self.error(stream.position, str(error)) from None
        self._block = None
        return self.fields_message(self._opened, self._promised, fields)

    # What is passed over

    def pass_over(self, length: int, reason: str, then: State = State.FRAME) -> None:
        """Give the next bytes as skipped, and go on in a state."""
        self._left, self._skip_reason, self.state, self._then = length, reason, State.PASS, then

    def _pass(self) -> Skipped | bool | None:
        stream = self.stream
        size = min(stream.waiting, self._left)
        if not self._left:
            self.state = self._then
            return True
        if not size:
            return None
        start = stream.position
        self._left -= size
        stream.report(stream.start + size)
        return self.skipped(start, stream.position, self._skip_reason)

    def restart(self, reason: str) -> None:
        """Look for the next plausible frame from the first byte that waits; nothing is known of header blocks any more."""
        self._headers.lose(reason)
        self.state, self._block, self._block_lost, self._first = State.RESYNC, None, False, False
        self._skip_from = self.stream.position
        self._skip_reason = f"no frame boundary known after {reason}"
        self.stream.cursor = self.stream.start
        self.ready = True

    def _resync(self) -> Skipped | bool | None:
        stream = self.stream
        found, keep = search(stream.data, stream.start, self._streams.highest)
        stream.report(keep)
        if found is None:
            return None
        self.state, self._doubt = State.FRAME, DOUBTED_FRAMES
        if stream.position == self._skip_from:
            return True
        return self.skipped(self._skip_from, stream.position, self._skip_reason)

    def _disbelieve(self) -> None:
        """What was taken for a frame was none: search on behind its first byte."""
        stream, skip_from, reason = self.stream, self.stream.position, self._skip_reason
        begin = max(stream.cursor - HEADER_BYTES if self.state is State.PAD_LENGTH else stream.cursor, stream.start) + 1
        self.restart("what looked like a frame")
        stream.report(min(begin, len(stream.data)))
        self._skip_from, self._skip_reason, self._doubt = skip_from, reason, 0
