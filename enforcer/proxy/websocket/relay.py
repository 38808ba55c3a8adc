"""One direction of a WebSocket: frames read, looked at, and written anew.

What lives here: the state machine, without I/O. What must not: what happens to the other direction (layer.py).

A frame goes on when it is whole; a longer one as fragments of itself (RFC 6455 5.4), so that between two of what was sent there
is always room for a Close, and a mistake is found before what follows it has gone on.
"""

from __future__ import annotations

import codecs
from collections.abc import Callable
from typing import Final

from capd.decoders.websocket.frames import KEY_BYTES, Head, Opcode, fault, head_at, unmasked
from capd.enforcer.proxy.broken_peer import BrokenPeerError

HELD_BYTES_MAX: Final = 65_536
"""Payload of a frame that waits for its end; longer ones go on in fragments of this size."""
PROTOCOL_ERROR: Final = 1_002
INVALID_DATA: Final = 1_007
_CODE_BYTES: Final = 2
_CODES: Final = (frozenset(range(1_000, 1_015)) - {1_004, 1_005, 1_006}) | frozenset(range(3_000, 5_000))
"""That may be sent (RFC 6455 7.4, and the registry that it began)."""
_LENGTH_7: Final = 126
_LENGTH_16: Final = 1 << 16

Randomness = Callable[[int], bytes]
"""Gives so many random bytes."""


def frame(opcode: int, payload: bytes, *, final: bool, key: bytes = b"") -> bytes:
    """Write a frame (RFC 6455 5.2); `key`: what it is scrambled with, as what goes to a server must be."""
    first = (0x80 if final else 0) | opcode
    masked = 0x80 if key else 0
    length = len(payload)
    if length < _LENGTH_7:
        head = bytes((first, masked | length))
    elif length < _LENGTH_16:
        head = bytes((first, masked | 126)) + length.to_bytes(2, "big")
    else:
        head = bytes((first, masked | 127)) + length.to_bytes(8, "big")
    return head + key + unmasked(payload, key, 0)


class Relay:
    """One direction.

    Attributes:
        closed: a Close was passed on, or nothing can be: nothing comes behind it.
    """

    def __init__(self, *, from_client: bool, random: Randomness) -> None:
        """Begin; what a client says is scrambled, and so is what a target is told."""
        self.closed = False
        self._from_client, self._random = from_client, random
        self._data = bytearray()
        self._head: Head | None = None
        self._left = 0
        """Of the frame's payload, what did not go on yet."""
        self._begun = False
        """Whether a part of the frame went on."""
        self._message = 0
        """What kind of message is on its way; 0: none is."""
        self._text = codecs.getincrementaldecoder("utf-8")()

    @property
    def held(self) -> int:
        """Bytes that wait for the rest of their frame."""
        return len(self._data)

    def receive(self, data: bytes) -> tuple[bytes, BrokenPeerError | None]:
        """Take bytes; give what goes on of them, and what is wrong with what follows that, if anything is."""
        if self.closed:
            return b"", None
        self._data += data
        out = bytearray()
        try:
            for part in iter(self._next, None):
                out += part
        except BrokenPeerError as error:
            self.closed = True
            return bytes(out), error
        return bytes(out), None

    def _next(self) -> bytes | None:
        """Give the next part that goes on; None: more bytes are needed, or none are wanted."""
        if self.closed:
            return None
        if self._head is None:
            head = head_at(self._data, 0)
            if head is None:
                return None
            self._begin(head)
            del self._data[: head.size]
        head = self._head
        assert head is not None
        most = min(self._left, HELD_BYTES_MAX)
        if len(self._data) < most:
            return None
        payload = unmasked(bytes(self._data[:most]), head.key, head.length - self._left)
        del self._data[:most]
        self._left -= most
        return self._pass(head, payload, whole=not self._left)

    def _begin(self, head: Head) -> None:
        wrong = fault(head, masked=self._from_client, packs=False, within=bool(self._message))
        if wrong is not None:
            raise BrokenPeerError(PROTOCOL_ERROR, wrong)
        self._head, self._left, self._begun = head, head.length, False
        if not head.control and head.opcode:
            self._message = head.opcode

    def _pass(self, head: Head, payload: bytes, *, whole: bool) -> bytes:
        final = whole and head.final
        opcode = Opcode.CONTINUATION if self._begun else head.opcode
        self._begun = True
        if whole:
            self._head = None
        if head.control:
            self._check_control(head, payload)
        else:
            self._check_text(payload, final=final)
            if final:
                self._message = 0
        key = self._random(KEY_BYTES) if self._from_client else b""
        return frame(opcode, payload, final=final, key=key)

    def _check_text(self, payload: bytes, *, final: bool) -> None:
        if self._message != Opcode.TEXT:
            return
        try:
            self._text.decode(payload, final)
        except UnicodeDecodeError as error:
            raise BrokenPeerError(INVALID_DATA, "a text is not UTF-8") from error
        if final:
            self._text.reset()

    def _check_control(self, head: Head, payload: bytes) -> None:
        if head.opcode != Opcode.CLOSE:
            return
        self.closed = True
        if not payload:
            return
        code = int.from_bytes(payload[:_CODE_BYTES], "big")
        if len(payload) < _CODE_BYTES or code not in _CODES:
            raise BrokenPeerError(PROTOCOL_ERROR, "a Close with a code that is none")
        try:
            payload[_CODE_BYTES:].decode()
        except UnicodeDecodeError as error:
            raise BrokenPeerError(INVALID_DATA, "the reason of a Close is not UTF-8") from error
