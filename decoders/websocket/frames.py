"""WebSocket frames: what stands before their payload (RFC 6455 section 5.2).

What lives here: pure functions over bytes. What must not: state, compression.
"""

from __future__ import annotations

from enum import IntEnum
from typing import Final, NamedTuple

CONTROL_BYTES_MAX: Final = 125
KEY_BYTES: Final = 4
_LENGTHS: Final = {126: 2, 127: 8}
_LENGTH_BITS: Final = 63


class Opcode(IntEnum):
    """What a frame is."""

    CONTINUATION = 0
    TEXT = 1
    BINARY = 2
    CLOSE = 8
    PING = 9
    PONG = 10


OPCODES: Final = frozenset(int(code) for code in Opcode)
CONTROL: Final = 8


class Head(NamedTuple):
    """What stands before a payload.

    Attributes:
        size: its own length.
        final: whether the message ends with this frame.
        packed: the first reserved bit, which says that the message is compressed (RFC 7692 section 7.2.1).
        reserved: the other two.
        opcode: as sent.
        key: what the payload is scrambled with; empty for none.
        length: of the payload.
    """

    size: int
    final: bool
    packed: bool
    reserved: int
    opcode: int
    key: bytes
    length: int

    @property
    def control(self) -> bool:
        """Whether it is no part of a message."""
        return self.opcode >= CONTROL


def head_at(data: bytes | bytearray, at: int) -> Head | None:
    """Read the head of a frame; None: it is not whole."""
    if len(data) - at < 2:  # noqa: PLR2004 - two bytes that are always there
        return None
    first, second = data[at], data[at + 1]
    length, more = second & 0x7F, _LENGTHS.get(second & 0x7F, 0)
    key_bytes = KEY_BYTES if second & 0x80 else 0
    size = 2 + more + key_bytes
    if len(data) - at < size:
        return None
    if more:
        length = int.from_bytes(data[at + 2 : at + 2 + more], "big")
    key = bytes(data[at + size - key_bytes : at + size])
    return Head(size, bool(first & 0x80), bool(first & 0x40), first >> 4 & 3, first & 0x0F, key, length)


def fault(head: Head, *, masked: bool, packs: bool, within: bool) -> str | None:
    """Say what is wrong with a frame's head.

    Args:
        head: as read.
        masked: whether its sender has to scramble payloads: a client does, a server must not (section 5.1).
        packs: whether messages may be compressed.
        within: whether a message is on its way.
    """
    first_of_message = not head.control and head.opcode != Opcode.CONTINUATION
    faults = (
        (head.opcode not in OPCODES, f"opcode {head.opcode}"),
        (bool(head.reserved) or (head.packed and not (packs and first_of_message)), "reserved bits"),
        (bool(head.key) != masked, "payload not masked" if masked else "masked payload"),
        (head.control and not head.final, "control frame in parts"),
        (head.control and head.length > CONTROL_BYTES_MAX, f"control frame of {head.length} bytes"),
        (head.length >> _LENGTH_BITS > 0, "length of 64 bits"),
        (first_of_message and within, "a message within another"),
        (head.opcode == Opcode.CONTINUATION and not within, "continuation of no message"),
    )
    return next((words for wrong, words in faults if wrong), None)


def unmasked(payload: bytes, key: bytes, phase: int) -> bytes:
    """Unscramble a part of a payload that begins at an offset in it (section 5.3)."""
    if not key or not payload:
        return payload
    turned = key[phase % KEY_BYTES :] + key[: phase % KEY_BYTES]
    keys = turned * (len(payload) // KEY_BYTES + 1)
    number = int.from_bytes(payload, "little") ^ int.from_bytes(keys[: len(payload)], "little")
    return number.to_bytes(len(payload), "little")
