"""The trailer: the last bytes of a sealed segment, which vouch for its footer, and so for all of it.

What lives here: its layout, what is signed. What must not: keys, files, the footer's content.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Final, Protocol
from uuid import UUID

from capd.recording.segment.layout import UNSIGNED_VERSION, FileHeader, MalformedSegmentError

TRAILER_MAGIC: Final = b"CAPDEND\x1a"
TRAILER_1: Final = struct.Struct("<Q32s8s")
"""footer length, SHA-256 of the footer, magic."""
TRAILER: Final = struct.Struct("<Q32s16s64s8s")
"""footer length, SHA-256 of the footer, key id, Ed25519 signature, magic."""
FOOTER_BYTES_MAX: Final = 64 << 20
"""Bounds what a reader allocates for a footer: 8 MiB of records hold far fewer sessions and frames than this."""
KEY_ID_BYTES: Final = 16
SIGNATURE_BYTES: Final = 64
NO_KEY: Final = bytes(KEY_ID_BYTES)
"""Key id of a segment that nobody signed."""
SEAL_DOMAIN: Final = b"capd segment seal 2\0"
"""What a signature is for stands before what is signed, so that it can never pass for a signature of something else."""
_SEALED: Final = struct.Struct("<16sQ32s")


class Signer(Protocol):
    """The host's key, as a writer needs it."""

    @property
    def key_id(self) -> bytes:
        """Name of the key: KEY_ID_BYTES."""

    def sign(self, message: bytes) -> bytes:
        """Give the Ed25519 signature of a message."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Trailer:
    """The end of a sealed segment.

    Attributes:
        footer_bytes: length of the footer.
        digest: SHA-256 of the footer.
        key_id: name of the key that signed; empty when nobody did.
        signature: of `seal_message`; empty when nobody signed.
    """

    footer_bytes: int
    digest: bytes
    key_id: bytes = b""
    signature: bytes = b""


def seal_message(host: UUID, sequence: int, digest: bytes) -> bytes:
    """Give what is signed of a segment: whose it is, which, and the hash of its footer."""
    return SEAL_DOMAIN + _SEALED.pack(host.bytes, sequence, digest)


def trailer_bytes(version: int) -> int:
    """Give the length of a trailer."""
    return TRAILER_1.size if version == UNSIGNED_VERSION else TRAILER.size


def pack_trailer(header: FileHeader, footer_bytes: int, digest: bytes, signer: Signer | None) -> bytes:
    """Give the bytes on disk, signed if there is somebody to sign."""
    if header.version == UNSIGNED_VERSION:
        return TRAILER_1.pack(footer_bytes, digest, TRAILER_MAGIC)
    if signer is None:
        return TRAILER.pack(footer_bytes, digest, NO_KEY, bytes(SIGNATURE_BYTES), TRAILER_MAGIC)
    signature = signer.sign(seal_message(header.host, header.sequence, digest))
    return TRAILER.pack(footer_bytes, digest, signer.key_id, signature, TRAILER_MAGIC)


def parse_trailer(data: bytes, version: int) -> Trailer:
    """Read the last bytes of a sealed segment.

    Args:
        data: as many as `trailer_bytes` says.
        version: that of the file header.

    Raises:
        MalformedSegmentError: they are no trailer.
    """
    if len(data) != trailer_bytes(version):
        raise MalformedSegmentError("the trailer is cut")
    key_id = signature = b""
    if version == UNSIGNED_VERSION:
        length, digest, magic = TRAILER_1.unpack(data)
    else:
        length, digest, key_id, signature, magic = TRAILER.unpack(data)
    if magic != TRAILER_MAGIC:
        raise MalformedSegmentError("the file does not end with a trailer")
    if length > FOOTER_BYTES_MAX:
        raise MalformedSegmentError(f"a footer of {length} bytes is over the limit of {FOOTER_BYTES_MAX}")
    if key_id == NO_KEY:
        key_id = signature = b""
    return Trailer(footer_bytes=length, digest=digest, key_id=key_id, signature=signature)
