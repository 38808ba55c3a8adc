"""One direction of a WebSocket connection: its state machine.

What lives here: frames put together to messages, what a gap does. What must not: reading a frame's head (frames.py), unpacking
(packing.py).

A message is told when it is whole. One of more than `PART_BYTES`, or with a control frame in its middle, is told in parts.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import Enum, auto
from typing import Final, cast

from capd.decoders.conversation import Side
from capd.decoders.message import Direction, Gap, JsonValue, Message, Skipped
from capd.decoders.websocket.frames import CONTROL_BYTES_MAX, Head, Opcode, fault, head_at, unmasked
from capd.decoders.websocket.packing import Unpacker

PART_BYTES: Final = 262_144
"""Payload of a message that is held; longer ones are told in parts of this size."""
PIECES_MAX: Final = 1_024
"""Frames of one part: a message of empty ones must not be held for ever."""
NO_BOUNDARY: Final = "no frame boundary can be known"


class State(Enum):
    """What the next byte of a direction is."""

    HEAD = auto()
    PAYLOAD = auto()
    LOST = auto()


class WebsocketSide(Side):
    """The state machine. A step gives an event, or True when it only changed the state, or None when it needs more bytes."""

    def __init__(self, direction: Direction, unpacker: Unpacker, *, packs: bool) -> None:
        super().__init__(direction)
        self.unpacker = unpacker
        self._packs = packs
        self._state = State.HEAD
        self._head = Head(0, True, False, 0, 0, b"", 0)
        self._left = 0
        self._opcode = 0
        """Of the message that is on its way; 0 for none."""
        self._packed = False
        self._part = 0
        self._content = bytearray()
        self._pieces: list[tuple[int, int]] = []
        self._incomplete: str | None = None
        self._lost = ""

    def advance(self) -> Message | Skipped | None:
        """Give the next event or None."""
        while True:
            if self._state is State.HEAD:
                event: Message | Skipped | bool | None = self._read_head()
            elif self._state is State.PAYLOAD:
                event = self._payload()
            else:
                event = self._pass()
            if event is None:
                self.ready = False
                return None
            if not isinstance(event, bool):
                return event

    # Steps

    def _read_head(self) -> Message | bool | None:
        stream = self.stream
        head = head_at(stream.data, stream.cursor)
        if head is None:
            return None
        masked = self.direction is Direction.REQUEST
        reason = fault(head, masked=masked, packs=self._packs, within=bool(self._opcode))
        if reason is not None:
            raise self.error(stream.base + stream.cursor, reason)
        if (head.control and self._pieces) or len(self._pieces) >= PIECES_MAX:
            return self._tell(final=False)
        self._head, self._left, self._state = head, head.length, State.PAYLOAD
        stream.cursor += head.size
        if not head.control and head.opcode:
            self._opcode, self._packed, self._part = head.opcode, head.packed, 0
        if not head.control and not head.length:
            self._pieces.append((stream.base + stream.cursor, 0))
        return True

    def _payload(self) -> Message | bool | None:
        stream, head = self.stream, self._head
        if not self._left and head.control:
            return self._control()
        if not self._left:
            self._state = State.HEAD
            return self._tell(final=True) if head.final else True
        available = len(stream.data) - stream.cursor
        if not available or (head.control and available < self._left):
            return None
        if not head.control and len(self._content) >= PART_BYTES:
            return self._tell(final=False)
        size = min(available, self._left, CONTROL_BYTES_MAX if head.control else PART_BYTES - len(self._content))
        self._take(size)
        return True

    def _take(self, size: int) -> None:
        """Take the next bytes of a payload."""
        stream, head = self.stream, self._head
        begin = stream.cursor
        said = unmasked(stream.take(begin, begin + size), head.key, head.length - self._left)
        self._content += said
        start = stream.base + begin
        if self._pieces and sum(self._pieces[-1]) == start:
            start, before = self._pieces.pop()
            self._pieces.append((start, before + size))
        else:
            self._pieces.append((start, size))
        self._left -= size
        stream.cursor = begin + size

    def _pass(self) -> Skipped | None:
        stream = self.stream
        if not stream.waiting:
            return None
        start = stream.position
        stream.report(len(stream.data))
        return self.skipped(start, stream.position, self._lost)

    # Messages

    def _tell(self, *, final: bool) -> Message:
        """Tell what came of the message that is on its way."""
        kind = "text" if self._opcode == Opcode.TEXT else "binary"
        content: bytes | None = bytes(self._content)
        reason = self._incomplete
        if self._packed:
            content = self.unpacker.unpack(content or b"", final=final)
            reason = f"not unpacked: {self.unpacker.lost or reason}" if content is None else reason
        size = len(self._content) if content is None else len(content)
        fields: dict[str, JsonValue] = {"part": self._part, "final": final, "packed": self._packed}
        words = f"{kind} {size} byte{'' if size == 1 else 's'}"
        summary = words if final and not self._part else f"{words}, part {self._part}"
        self._part += 1
        if final:
            self._opcode, self._part = 0, 0
        return self._message(kind, summary, fields, content or b"", reason)

    def _control(self) -> Message:
        head, said = self._head, bytes(self._content)
        kind = Opcode(head.opcode).name.lower()
        fields: dict[str, JsonValue] = {}
        summary = kind
        self._state = State.HEAD
        if head.opcode == Opcode.CLOSE and said and self._incomplete is None:
            fields = {"code": int.from_bytes(said[:2], "big"), "reason": said[2:].decode("utf-8", "replace")}
            summary = f"close {fields['code']} {fields['reason']}".rstrip()
        return self._message(kind, summary, fields, said, self._incomplete)

    def _message(
        self, kind: str, summary: str, fields: dict[str, JsonValue], content: bytes, incomplete: str | None
    ) -> Message:
        """Report everything up to the cursor as one message."""
        stream = self.stream
        pieces: list[JsonValue] = [[at, size] for at, size in self._pieces if size]
        start = stream.position
        stream.report(stream.cursor)
        scrambled = self.direction is Direction.REQUEST
        self._content, self._pieces, self._incomplete = bytearray(), [], None
        return Message(
            direction=self.direction,
            start=start,
            end=stream.position,
            type=kind,
            summary=summary,
            fields={**fields, "masked": scrambled, "pieces": pieces},
            content=content,
            incomplete=incomplete,
        )

    # What is missing

    def lose(self, gap: Gap) -> bool:
        """Take a gap: inside a payload the framing survives, elsewhere nobody can find it again."""
        length = gap.length
        if length == 0:
            return True
        within = self._state is State.PAYLOAD and length is not None and length <= self._left
        if self._state is not State.LOST:
            self._cut(gap.words, goes_on=within)
        if self._packed or not within:
            self.unpacker.lose(gap.words)
        self.stream.pass_over(length or 0)
        if within and length is not None:
            self._left -= length
            self._incomplete = gap.words
        else:
            self._state, self._lost = State.LOST, f"{NO_BOUNDARY} after {gap.words}"
        return True

    def finish(self) -> bool:
        """Take the end of the direction."""
        if self._state is not State.LOST:
            self._cut("the direction ended inside a message", goes_on=False)
        return True

    def _cut(self, reason: str, *, goes_on: bool) -> None:
        """Report what waits of a message or of a frame."""
        stream = self.stream
        if self._state is State.HEAD and stream.cursor < len(stream.data):
            stream.cursor = len(stream.data)
        if not stream.waiting and (goes_on or not self._opcode):
            return
        self._incomplete = reason
        if self._state is State.PAYLOAD and self._head.control:
            kind = Opcode(self._head.opcode).name.lower()
            stream.cursor = len(stream.data)
            self.out.append(self._message(kind, kind, {}, b"", reason))
            self._content = bytearray()
        elif self._opcode:
            self.out.append(self._tell(final=False))
        else:
            self._incomplete = None
            self.out.append(self.skipped(stream.position, stream.end, reason))
            stream.report(len(stream.data))
        if not goes_on:
            self._opcode = 0

    # -- over the end of whoever decodes

    def save(self) -> list[object]:
        """Give its state as plain values."""
        stream = self.stream
        return [
            [stream.position, stream.take(stream.start, len(stream.data)), stream.cursor - stream.start],
            [self._packs, self._state.value, list(self._head), self._left, self._opcode, self._packed, self._part],
            [bytes(self._content), [list(piece) for piece in self._pieces], self._incomplete, self._lost],
            [self.broken, self.ended, self.unpacker.save()],
        ]

    def restore(self, saved: Sequence[object]) -> None:
        """Take the state of one that was saved."""
        waiting, counts, parts, end = cast("Sequence[Sequence[object]]", saved)
        position, data, cursor = cast("tuple[int, bytes, int]", tuple(waiting))
        self.stream.pass_over(position)
        self.stream.data, self.stream.cursor = data, cursor
        self._packs, state, head, self._left, self._opcode, self._packed, self._part = cast(
            "tuple[bool, int, tuple[int, bool, bool, int, int, bytes, int], int, int, bool, int]", tuple(counts)
        )
        self._state, self._head = State(state), Head(*head)
        content, pieces, self._incomplete, self._lost = cast(
            "tuple[bytes, Sequence[tuple[int, int]], str | None, str]", tuple(parts)
        )
        self._content, self._pieces = bytearray(content), [(at, size) for at, size in pieces]
        self.broken, self.ended, unpacker = cast("tuple[str | None, bool, Sequence[object]]", tuple(end))
        self.unpacker = Unpacker.restored(unpacker)
