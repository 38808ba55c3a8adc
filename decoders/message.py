"""What every decoder speaks: directions, gaps, messages, errors and the two calls.

What lives here: the vocabulary shared by all protocols. What must not: a protocol's own words, I/O, time.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum, IntEnum
from typing import Final, Literal, Protocol, runtime_checkable

JsonValue = None | bool | int | float | str | Sequence["JsonValue"] | Mapping[str, "JsonValue"]


class Direction(IntEnum):
    """Who speaks: the side that opened the conversation (request) or the side that answers it (response)."""

    REQUEST = 0
    RESPONSE = 1


class Signal(Enum):
    """Returned by `Decoder.next_event` when it can tell nothing more before it gets more bytes."""

    NEED_DATA = "need data"


NEED_DATA: Final = Signal.NEED_DATA


@dataclass(frozen=True, slots=True)
class Gap:
    """Bytes known to be missing from one direction.

    Attributes:
        length: how many bytes are missing; None when nobody knows.
        reason: why, in words for a person.
    """

    length: int | None
    reason: str

    @property
    def words(self) -> str:
        """What it took away, for a person."""
        if self.length is None:
            return f"bytes lost: {self.reason}"
        return f"{self.length} byte{'' if self.length == 1 else 's'} lost: {self.reason}"


@dataclass(slots=True, kw_only=True)
class Message:
    """One protocol message with the exact bytes it was read from. Nobody changes it; freezing makes building it twice as slow.

    Attributes:
        direction: who said it.
        start: offset of its first byte in that direction's stream. Bytes lost in a gap of known length count.
        end: offset after its last byte.
        type: the protocol's own word for it, such as `Query`, `DataRow`, `request`, `body`.
        summary: one line for a person and for search: the SQL text, `GET /x HTTP/1.1`, `200 OK`. Never cut.
        exchange: number of the request that this belongs to, counted from 0, shared by request and answer.
        fields: the protocol's details; the decoder's module docstring is their documentation.
        content: payload bytes of `body`-like messages, transfer framing removed; else empty.
        content_start: offset of the content's first byte in the stream; None: the content ends where the message does.
        incomplete: None, or why this message is not all that was said.
    """

    direction: Direction
    start: int
    end: int
    type: str
    summary: str = ""
    exchange: int | None = None
    fields: Mapping[str, JsonValue] = field(default_factory=dict)
    content: bytes = b""
    content_start: int | None = None
    incomplete: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Skipped:
    """Bytes that a decoder passed over because it could not tell what they were, after a gap or a protocol error."""

    direction: Direction
    start: int
    end: int
    reason: str


class ProtocolError(Exception):
    """The peer's bytes break the protocol: the only exception that a decoder may raise.

    Attributes:
        direction: whose bytes.
        offset: where in that direction's stream.
        reason: what is wrong there.
    """

    def __init__(self, direction: Direction, offset: int, reason: str) -> None:
        super().__init__(f"{direction.name.lower()} byte {offset}: {reason}")
        self.direction = direction
        self.offset = offset
        self.reason = reason


Event = Message | Skipped | Literal[Signal.NEED_DATA]


class Decoder(Protocol):
    """A protocol's state machine. Two calls and nothing else."""

    def receive(self, direction: Direction, data: bytes | Gap) -> None:
        """Take the next bytes of a direction, a gap in their place, or `b""` for the end of that direction. Never raises."""

    def next_event(self) -> Event:
        """Give the next message, in the order in which it became whole, or NEED_DATA.

        Raises:
            ProtocolError: once, when a direction cannot be decoded further; what follows in it is then given as `Skipped`.
        """


@runtime_checkable
class Restorable(Decoder, Protocol):
    """A decoder whose state cannot be had by decoding again what is recorded, because what is masked there belongs to it."""

    def save(self) -> Sequence[object]:
        """Give its state as plain values, when `next_event` had nothing more to give."""

    def restore(self, saved: Sequence[object]) -> None:
        """Take the state of one that was saved."""
