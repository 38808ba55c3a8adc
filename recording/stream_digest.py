"""A running digest of one direction of a connection, by which two who saw it can tell whether they saw the same.

What lives here: the digest, and the form of what is compared. What must not: where bytes come from, what follows from them.

Poly1305 (RFC 8439 section 2.5) with one key for a host: four times as fast as a hash, which counts where a gigabyte crosses in
a second. Who neither knows the key nor sees a digest, as an agent, has a chance of at most length / 2^107 to say something else
with the same one. That RFC wants a key for one message only because there digests are shown; these are in root's files.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Final

from cryptography.hazmat.primitives.poly1305 import Poly1305

KEY_BYTES: Final = 32
DIGEST_BYTES: Final = 16
KEY_NAME_BYTES: Final = 8
DIGESTED_BYTES: Final = 1_024
"""At least so many at once, or all at the end: a call costs as much as the digest of a kilobyte; most messages are short."""


@dataclass(slots=True, kw_only=True)
class Said:
    """What was said on a connection, as one who saw it knows it: without TLS, in both directions.

    Attributes:
        key: name of the key of the digests (`key_name`).
        request_bytes, request: how much the agent said, and its digest; None: a part of it was not seen.
        response_bytes, response: the same of what it was told.
    """

    key: bytes
    request_bytes: int
    request: bytes | None
    response_bytes: int
    response: bytes | None


class StreamDigest:
    """The digest of one direction."""

    __slots__ = ("_few", "_poly", "count")

    def __init__(self, key: bytes) -> None:
        """Begin with KEY_BYTES of a secret."""
        self._poly = Poly1305(key)
        self._few = bytearray()
        """Taken, and not digested yet."""
        self.count = 0

    def take(self, data: bytes) -> None:
        """Take the bytes that come next."""
        size, few = len(data), self._few
        self.count += size
        if len(few) + size < DIGESTED_BYTES:
            few += data
            return
        if few:
            self._poly.update(few)
            few.clear()
        self._poly.update(data)

    def end(self) -> bytes:
        """Give DIGEST_BYTES over all that was taken; nothing more can be taken."""
        self._poly.update(self._few)
        del self._few
        return self._poly.finalize()


def key_name(key: bytes) -> bytes:
    """Give what tells a key from others and does not tell it."""
    return hashlib.sha256(b"capd: name of a key of stream digests" + key).digest()[:KEY_NAME_BYTES]
