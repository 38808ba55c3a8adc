"""Bytes of one peer into whole frames, within limits: before anybody looks into them.

What lives here: the preface, what must come first, lengths, header blocks without a hole, floods. What must not: what frames
mean (the h2 library's state machine, peer.py).

The library would take frames whole as well; but it forgets what came before a mistake in the same read, keeps no count of what
costs work and carries nothing, and takes a GOAWAY for the end. So it gets its frames one by one.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, NamedTuple

from capd.decoders.http2.frames import ACK, BLOCKS, END_HEADERS, END_STREAM, HEADER_BYTES, PREFACE, Type
from capd.enforcer.proxy.broken_peer import BrokenPeerError
from capd.enforcer.proxy.http2.errors import Code
from capd.enforcer.proxy.http2.limits import (
    BLOCK_BYTES_MAX,
    BLOCK_FRAMES_MAX,
    CONTROL_FRAMES_MAX,
    CONTROL_FRAMES_PER_DATA,
    FRAME_BYTES_MAX,
    RESETS_MAX,
)

_STREAM_BITS: Final = 0x7FFF_FFFF
BEGINNING: Final = -1
"""In the place of a type: the preface."""


class Cut(NamedTuple):
    """A frame; `raw` is all of it."""

    kind: int
    flags: int
    stream: int
    raw: bytes

    @property
    def payload(self) -> bytes:
        """Give what follows its head."""
        return self.raw[HEADER_BYTES:]


class Cutter:
    """One peer's bytes."""

    def __init__(self, *, preface: bool) -> None:
        """Begin; `preface`: the peer is a client, which says that first."""
        self._data = bytearray()
        self._preface = preface
        self._first = True
        self._block = 0
        """The stream whose header block is on its way; 0: none is."""
        self._block_frames = self._block_bytes = 0
        self._control = self._resets = self._bodies = 0

    @property
    def unfinished(self) -> int:
        """Name the stream whose head is not whole, or the BEGINNING that is not; 0: neither."""
        return BEGINNING if self._first else self._block

    @property
    def counting(self) -> bool:
        """Whether there is anything to be forgotten by `calm`."""
        return bool(self._control or self._resets or self._bodies)

    @property
    def held(self) -> int:
        """Bytes that wait for the rest of their frame."""
        return len(self._data)

    def calm(self) -> None:
        """Forget what was counted: some time has passed."""
        self._control = self._resets = self._bodies = 0

    def sent(self) -> None:
        """A part of a body was sent to the peer, which it may answer with window updates."""
        self._bodies += 1

    def receive(self, data: bytes) -> Iterator[Cut]:
        """Give the frames that became whole.

        Raises:
            BrokenPeerError: nothing more can be taken.
        """
        self._data += data
        at = 0
        try:
            while True:
                end = self._whole(at)
                if end is None:
                    return
                cut = self._cut(at, end)
                at = end
                yield cut
        finally:
            del self._data[:at]

    def _whole(self, at: int) -> int | None:
        """Give the end of what begins at an index; None: it is not whole."""
        data = self._data
        if self._preface:
            if not PREFACE.startswith(data[at : at + len(PREFACE)]):
                raise BrokenPeerError(Code.PROTOCOL_ERROR, "it does not begin as HTTP/2 does")
            return at + len(PREFACE) if len(data) - at >= len(PREFACE) else None
        if len(data) - at < HEADER_BYTES:
            return None
        length = int.from_bytes(data[at : at + 3], "big")
        if length > FRAME_BYTES_MAX:
            raise BrokenPeerError(Code.FRAME_SIZE_ERROR, f"a frame of {length} bytes")
        end = at + HEADER_BYTES + length
        return end if end <= len(data) else None

    def _cut(self, at: int, end: int) -> Cut:
        raw = bytes(self._data[at:end])
        if self._preface:
            self._preface = False
            return Cut(BEGINNING, 0, 0, raw)
        cut = Cut(raw[3], raw[4], int.from_bytes(raw[5:9], "big") & _STREAM_BITS, raw)
        if self._first and (cut.kind != Type.SETTINGS or cut.flags & ACK):
            raise BrokenPeerError(Code.PROTOCOL_ERROR, "its first frame is not SETTINGS")
        self._first = False
        self._follow_block(cut)
        self._count(cut)
        return cut

    def _follow_block(self, cut: Cut) -> None:
        """Hold a header block together (RFC 9113 4.3)."""
        if self._block and (cut.kind != Type.CONTINUATION or cut.stream != self._block):
            raise BrokenPeerError(Code.PROTOCOL_ERROR, "another frame within a head")
        if cut.kind not in BLOCKS:
            return
        if not self._block:
            self._block_frames = self._block_bytes = 0
        self._block_frames += 1
        self._block_bytes += len(cut.raw) - HEADER_BYTES
        if self._block_frames > BLOCK_FRAMES_MAX or self._block_bytes > BLOCK_BYTES_MAX:
            raise BrokenPeerError(Code.ENHANCE_YOUR_CALM, "a head in more than is looked at")
        self._block = 0 if cut.flags & END_HEADERS else cut.stream

    def _count(self, cut: Cut) -> None:
        """Count what costs work and carries nothing."""
        if cut.kind == Type.RST_STREAM:
            self._resets += 1
        elif cut.kind == Type.DATA and (len(cut.raw) > HEADER_BYTES or cut.flags & END_STREAM):
            self._bodies += 1
        elif cut.kind not in BLOCKS:
            self._control += 1
        if self._resets > RESETS_MAX:
            raise BrokenPeerError(Code.ENHANCE_YOUR_CALM, "it gives up one stream after the other")
        if self._control > CONTROL_FRAMES_MAX + CONTROL_FRAMES_PER_DATA * self._bodies:
            raise BrokenPeerError(Code.ENHANCE_YOUR_CALM, "frames that carry nothing, one after the other")
