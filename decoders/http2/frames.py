"""HTTP/2 frames: the nine bytes before each, and what may follow them (RFC 9113 sections 4 and 6).

What lives here: pure functions over bytes, names of numbers. What must not: state, header compression.
"""

from __future__ import annotations

from enum import IntEnum
from typing import Final, NamedTuple

PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
"""What a client says first (RFC 9113 section 3.4)."""
HEADER_BYTES: Final = 9
END_STREAM: Final = 0x1
ACK: Final = 0x1
END_HEADERS: Final = 0x4
PADDED: Final = 0x8
PRIORITY: Final = 0x20
PRIORITY_BYTES: Final = 5
PROMISED_BYTES: Final = 4
_STREAM_BITS: Final = 0x7FFF_FFFF
_SETTING_BYTES: Final = 6


class Type(IntEnum):
    """Types of frames; there may be others, which a reader passes over (RFC 9113 section 4.1)."""

    DATA = 0
    HEADERS = 1
    PRIORITY = 2
    RST_STREAM = 3
    SETTINGS = 4
    PUSH_PROMISE = 5
    PING = 6
    GOAWAY = 7
    WINDOW_UPDATE = 8
    CONTINUATION = 9


TYPES: Final = {int(kind): kind for kind in Type}
BLOCKS: Final = frozenset({Type.HEADERS, Type.PUSH_PROMISE, Type.CONTINUATION})
"""Frames that carry a part of a header block."""
FLAGS: Final = {
    Type.DATA: END_STREAM | PADDED,
    Type.HEADERS: END_STREAM | END_HEADERS | PADDED | PRIORITY,
    Type.SETTINGS: ACK,
    Type.PUSH_PROMISE: END_HEADERS | PADDED,
    Type.PING: ACK,
    Type.CONTINUATION: END_HEADERS,
}
"""Flags that a type defines; others are ignored by a reader, and make it unlikely that bytes are a frame at all."""
_OF_STREAM: Final = frozenset({Type.DATA, Type.HEADERS, Type.PRIORITY, Type.RST_STREAM, Type.PUSH_PROMISE, Type.CONTINUATION})
_OF_CONNECTION: Final = frozenset({Type.SETTINGS, Type.PING, Type.GOAWAY})
_LENGTHS: Final = {Type.PRIORITY: 5, Type.RST_STREAM: 4, Type.PING: 8, Type.WINDOW_UPDATE: 4}
_GOAWAY_BYTES: Final = 8

ERRORS: Final = (
    "NO_ERROR", "PROTOCOL_ERROR", "INTERNAL_ERROR", "FLOW_CONTROL_ERROR", "SETTINGS_TIMEOUT", "STREAM_CLOSED",
    "FRAME_SIZE_ERROR", "REFUSED_STREAM", "CANCEL", "COMPRESSION_ERROR", "CONNECT_ERROR", "ENHANCE_YOUR_CALM",
    "INADEQUATE_SECURITY", "HTTP_1_1_REQUIRED",
)  # fmt: skip
"""Error codes by number (RFC 9113 section 7)."""
SETTINGS: Final = {
    1: "HEADER_TABLE_SIZE",
    2: "ENABLE_PUSH",
    3: "MAX_CONCURRENT_STREAMS",
    4: "INITIAL_WINDOW_SIZE",
    5: "MAX_FRAME_SIZE",
    6: "MAX_HEADER_LIST_SIZE",
    8: "ENABLE_CONNECT_PROTOCOL",
    9: "NO_RFC7540_PRIORITIES",
}
"""Settings by number (RFC 9113 section 6.5.2, RFC 8441, RFC 9218)."""


class Frame(NamedTuple):
    """The head of a frame; `length` is that of what follows it."""

    length: int
    type: int
    flags: int
    stream: int

    @property
    def kind(self) -> Type | None:
        """The type, if RFC 9113 knows it."""
        return TYPES.get(self.type)

    @property
    def name(self) -> str:
        """The type in words."""
        kind = self.kind
        return "extension" if kind is None else kind.name


def frame_at(data: bytes | bytearray, at: int) -> Frame:
    """Read the head of a frame, which must be whole."""
    length = data[at] << 16 | data[at + 1] << 8 | data[at + 2]
    return Frame(length, data[at + 3], data[at + 4], int.from_bytes(data[at + 5 : at + HEADER_BYTES], "big") & _STREAM_BITS)


def fault(frame: Frame) -> str | None:
    """Say what is wrong with a frame's head: its stream, or a length that its type cannot have."""
    kind = frame.kind
    if kind is None:
        return None
    if (kind in _OF_STREAM) != bool(frame.stream) and (kind in _OF_STREAM or kind in _OF_CONNECTION):
        return f"{kind.name} frame on stream {frame.stream}"
    wanted = _LENGTHS.get(kind, frame.length)
    if kind is Type.SETTINGS:
        wanted = 0 if frame.flags & ACK else frame.length // _SETTING_BYTES * _SETTING_BYTES
    if frame.length != wanted or (kind is Type.GOAWAY and frame.length < _GOAWAY_BYTES):
        return f"{kind.name} frame of {frame.length} bytes"
    return None


def fragment(frame: Frame, payload: bytes) -> tuple[int, int] | None:
    """Give where in the payload of a HEADERS, PUSH_PROMISE or CONTINUATION frame its part of the header block is.

    None: the padding, or what stands before the block, does not fit into the frame.
    """
    begin, end = 0, len(payload)
    if frame.type != Type.CONTINUATION and frame.flags & PADDED:
        if not payload:
            return None
        begin, end = 1, end - payload[0]
    if frame.type == Type.HEADERS and frame.flags & PRIORITY:
        begin += PRIORITY_BYTES
    elif frame.type == Type.PUSH_PROMISE:
        begin += PROMISED_BYTES
    return (begin, end) if begin <= end else None


def error_name(code: int) -> str:
    """Give the name of an error code."""
    return ERRORS[code] if code < len(ERRORS) else f"0x{code:x}"


def settings(payload: bytes) -> dict[str, int]:
    """Give the settings of a SETTINGS frame by name; of several of one name the last, which is the one that counts."""
    found: dict[str, int] = {}
    for at in range(0, len(payload), _SETTING_BYTES):
        number = int.from_bytes(payload[at : at + 2], "big")
        found[SETTINGS.get(number, f"0x{number:x}")] = int.from_bytes(payload[at + 2 : at + _SETTING_BYTES], "big")
    return found
