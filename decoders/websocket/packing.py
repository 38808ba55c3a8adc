"""permessage-deflate (RFC 7692): what was agreed, and unpacking one direction's messages.

What lives here: the parameters, limits, the window that messages share, and whether it is still known. What must not: frames.

Between messages all that an inflater remembers is the last 32 KiB that came out of it, so that is all there is to keep.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, cast

EXTENSION: Final = "permessage-deflate"
WINDOW_BYTES: Final = 32_768
UNPACKED_BYTES_MAX: Final = 4 * 1024 * 1024
"""Of one part of a message: DEFLATE reaches 1,032 times its size."""
_TAIL: Final = b"\x00\x00\xff\xff"
"""Cut from the end of every message (section 7.2.1)."""


@dataclass(frozen=True, slots=True)
class Agreed:
    """What the answer to the handshake says (section 7.1).

    Attributes:
        packs: whether messages may be compressed.
        forgets: for each direction, whether each message begins with an empty window.
    """

    packs: bool = False
    forgets: tuple[bool, bool] = (False, False)

    @classmethod
    def read(cls, extensions: str) -> Agreed:
        """Read a Sec-WebSocket-Extensions field."""
        for extension in extensions.split(","):
            name, *parameters = (word.strip().lower() for word in extension.split(";"))
            if name == EXTENSION:
                names = {parameter.partition("=")[0].strip() for parameter in parameters}
                return cls(True, ("client_no_context_takeover" in names, "server_no_context_takeover" in names))
        return cls()


class Unpacker:
    """One direction.

    Attributes:
        lost: None, or why messages cannot be unpacked.
    """

    def __init__(self, *, forgets: bool) -> None:
        self._forgets = forgets
        self._window = b""
        self._inflater: zlib._Decompress | None = None
        self.lost: str | None = None

    def lose(self, reason: str) -> None:
        """Bytes of a message were not seen."""
        self.lost = self.lost or reason
        self._window, self._inflater = b"", None

    def unpack(self, packed: bytes, *, final: bool) -> bytes | None:
        """Give what a part of a message unpacks to; None: `lost` says why not."""
        unpacked = None if self.lost is not None else self._inflate(packed + _TAIL if final else packed)
        if final:
            self._inflater = None
            if self._forgets:
                self.lost, self._window = None, b""
        return unpacked

    def _inflate(self, packed: bytes) -> bytes | None:
        if self._inflater is None:
            self._inflater = zlib.decompressobj(-zlib.MAX_WBITS, zdict=self._window)
        try:
            unpacked = self._inflater.decompress(packed, UNPACKED_BYTES_MAX)
        except zlib.error:
            self.lose("a message does not unpack")
            return None
        if self._inflater.unconsumed_tail:
            self.lose(f"a message unpacks to more than {UNPACKED_BYTES_MAX} bytes")
            return None
        self._window = (self._window + unpacked[-WINDOW_BYTES:])[-WINDOW_BYTES:]
        return unpacked

    def save(self) -> list[object]:
        """Give its state as plain values; in the middle of a message it cannot be saved, and is lost."""
        lost = self.lost if self._inflater is None else "the decoder was ended in the middle of a message"
        return [self._forgets, b"" if lost else self._window, lost]

    @classmethod
    def restored(cls, saved: Sequence[object]) -> Unpacker:
        """Give one as it was saved."""
        forgets, window, lost = cast("tuple[bool, bytes, str | None]", tuple(saved))
        unpacker = cls(forgets=forgets)
        unpacker._window, unpacker.lost = window, lost
        return unpacker
