"""Bodies that were compressed: nothing in them can be masked in place, so they are looked into, and hidden if need be.

What lives here: unpacking in blocks, what becomes of a block. What must not: framing of bodies.

A body is judged in blocks at fixed offsets, so that it does not matter how it arrived. A block stays when everything that
it unpacks to was judged and nothing was found; from the first block with a hit on the rest of the body is masked. What
cannot be looked into is masked from there on as well, unless the configuration says otherwise.
"""

from __future__ import annotations

import zlib
from collections import deque
from collections.abc import Callable, Sequence
from typing import Final, cast

import zstandard

from capd.enforcer.masking.place import Place

BLOCK_BYTES: Final = 65_536
UNPACKED_BYTES_MAX: Final = 16 * 1024 * 1024
"""What one block may unpack to: DEFLATE reaches 1,032 times its size, and looking takes time by what is unpacked."""
SEEN_BYTES_MAX: Final = 1024 * 1024
"""Of a longer body a snapshot keeps nothing: whatever comes of it after the snapshot is masked."""
GZIP: Final = 47
"""zlib's window bits for either wrapping, found out by itself."""
RULE: Final = "compressed body"

Look = Callable[[bytes, bool], tuple[bool, int]]
"""Takes unpacked bytes and whether they are the last; gives whether anything was found so far, and up to where all is
judged."""


class _UnreadableError(Exception):
    """It cannot be unpacked."""


def known(codings: list[str]) -> bool:
    """Say whether a body with these codings can be looked into."""
    return len(codings) == 1 and codings[0] in ("gzip", "x-gzip", "deflate", "zstd")


class Packed:
    """One compressed body. Offsets are those of its content."""

    def __init__(self, coding: str, look: Look, position: int, *, unreadable: bool) -> None:
        """Begin.

        Args:
            coding: as in Content-Encoding; one that is not known cannot be looked into.
            look: judges what was unpacked.
            position: offset of the first byte.
            unreadable: whether what cannot be looked into is masked.
        """
        self._look = look
        self._masks_unreadable = unreadable
        self._unpack = _unpacker(coding)
        self._buffer = b""
        self._blocks: deque[tuple[int, int]] = deque()
        """Blocks that wait: their end in the content, and the end of what they unpacked to."""
        self._unpacked = 0
        self._hides: str | None = None if self._unpack is not None else "unreadable"
        self.decided = position
        self._taken = position
        self._begin = position
        self._seen: bytes | None = b""
        """What came, for a snapshot; of what is long nothing is kept."""

    def feed(self, data: bytes, *, final: bool = False) -> list[Place]:
        """Take the next bytes of the content; give the places that are decided now."""
        self._buffer += data
        self._seen = self._seen + data if self._seen is not None and len(self._seen) + len(data) <= SEEN_BYTES_MAX else None
        places: list[Place] = []
        while self._hides is None and (len(self._buffer) >= BLOCK_BYTES or (final and self._buffer)):
            self._judge(self._buffer[:BLOCK_BYTES], last=final and len(self._buffer) <= BLOCK_BYTES)
        if final and self._hides is None:
            self._settle(*self._look(b"", True))
        if self._hides is not None:
            end = self._taken + len(self._buffer)
            if self._hides == "hit" or self._masks_unreadable:
                rule = RULE if self._hides == "hit" else f"{RULE}, {self._hides}"
                places.append(Place(self.decided, end, "compressed", rule))
            self.decided = self._taken = end
            self._buffer = b""
            self._blocks.clear()
        return places

    def save(self) -> list[object]:
        """Give its state as plain values: what came, for an unpacker cannot be saved. Of more than that the rest is hidden."""
        if self._hides is None and self._seen is None:
            self._hides = "long"
        return [self._begin, None if self._hides else self._seen, self._hides, self.decided, self._taken + len(self._buffer)]

    def restore(self, saved: Sequence[object]) -> None:
        """Take the state of one that was saved."""
        begin, seen, hides, decided, taken = cast("tuple[int, bytes | None, str | None, int, int]", tuple(saved))
        self._begin = self.decided = self._taken = begin
        if seen is not None:
            self.feed(seen)
            return
        self._hides, self._seen, self.decided, self._taken = hides, None, decided, taken

    def gap(self, length: int) -> list[Place]:
        """Bytes are missing: what comes behind them cannot be unpacked."""
        self._hides = self._hides or "bytes lost"
        places = self.feed(b"")
        self.decided += length
        self._taken = self.decided
        return places

    def _judge(self, block: bytes, *, last: bool) -> None:
        assert self._unpack is not None, "a body without an unpacker hides"
        self._buffer = self._buffer[len(block) :]
        self._taken += len(block)
        try:
            unpacked = self._unpack(block)
        except _UnreadableError:
            self._hides = "unreadable"
            return
        self._unpacked += len(unpacked)
        self._blocks.append((self._taken, self._unpacked))
        self._settle(*self._look(unpacked, last))

    def _settle(self, hit: bool, judged: int) -> None:
        """Let go what was judged; or hide what was not let go yet, and all that comes."""
        if hit:
            self._hides = "hit"
            return
        while self._blocks and self._blocks[0][1] <= judged:
            self.decided = self._blocks.popleft()[0]


def _unpacker(coding: str) -> Callable[[bytes], bytes] | None:
    if coding in ("gzip", "x-gzip"):
        return _Inflater(GZIP)
    if coding == "deflate":
        return _Inflater(None)
    if coding == "zstd":
        return _zstd()
    return None


class _Inflater:
    """zlib, gzip (of several members), or bare DEFLATE, which some servers call deflate."""

    def __init__(self, window_bits: int | None) -> None:
        self._window_bits = window_bits
        self._inflater = None if window_bits is None else zlib.decompressobj(window_bits)

    def __call__(self, data: bytes) -> bytes:
        parts: list[bytes] = []
        room = UNPACKED_BYTES_MAX
        while data:
            if self._inflater is None:
                self._window_bits = GZIP if data[0] & 0x0F == 8 and data[0] >> 4 <= 7 else -zlib.MAX_WBITS  # noqa: PLR2004 - RFC 1950
                self._inflater = zlib.decompressobj(self._window_bits)
            try:
                parts.append(self._inflater.decompress(data, room))
            except zlib.error as error:
                raise _UnreadableError from error
            room -= len(parts[-1])
            if self._inflater.unconsumed_tail or room <= 0:
                raise _UnreadableError
            data = self._inflater.unused_data
            if self._inflater.eof:
                self._inflater = zlib.decompressobj(self._window_bits or GZIP)
                data = data.lstrip(b"\0")
        return b"".join(parts)


def _zstd() -> Callable[[bytes], bytes]:
    unpacker = zstandard.ZstdDecompressor(max_window_size=8 << 20).decompressobj(read_across_frames=True)

    def unpack(data: bytes) -> bytes:
        try:
            unpacked = unpacker.decompress(data)
        except (zstandard.ZstdError, MemoryError) as error:
            raise _UnreadableError from error
        if len(unpacked) > UNPACKED_BYTES_MAX:
            raise _UnreadableError
        return unpacked

    return unpack
