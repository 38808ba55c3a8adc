"""Encryption of frames: AES-256-GCM under a key that each segment has for itself.

What lives here: the data key's cipher, and who knows data keys. What must not: recipients, identities, files.

A frame is bound to its place: its number is the nonce, its header and index and the hash of the file header are authenticated
with it, so that no frame passes for another one, of this segment or of another.
"""

from __future__ import annotations

import os
import struct
from typing import TYPE_CHECKING, Final, Protocol

from capd.recording.segment.layout import MalformedSegmentError

if TYPE_CHECKING:
    from capd.recording.segment.layout import FileHeader

DATA_KEY_BYTES: Final = 32
TAG_BYTES: Final = 16
_NONCE: Final = struct.Struct("<Q4x")


class Keys(Protocol):
    """Who knows the data keys of segments."""

    def data_key(self, header: FileHeader) -> bytes:
        """Give the key of a segment's frames.

        Raises:
            EncryptedError: it is not known here.
        """


class FrameCipher:
    """Enciphers and deciphers the frames of one segment."""

    def __init__(self, data_key: bytes, header_digest: bytes) -> None:
        """Take the segment's data key and the hash of its file header."""
        # Only who has a key needs it; it takes 9 MB.
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM  # noqa: PLC0415 - see above

        self._cipher = AESGCM(data_key)
        self._digest = header_digest

    def encrypt(self, number: int, head: bytes, content: bytes) -> bytes:
        """Give the stored bytes of a frame.

        Args:
            number: of the frame: no two frames of a segment may have the same.
            head: header without checksum, and index.
            content: the zstd frame.
        """
        return self._cipher.encrypt(_NONCE.pack(number), content, head + self._digest)

    def decrypt(self, number: int, head: bytes, stored: bytes | memoryview) -> bytes:
        """Give the zstd frame.

        Raises:
            MalformedSegmentError: the frame was altered, or stood in another place.
        """
        from cryptography.exceptions import InvalidTag  # noqa: PLC0415 - as above

        try:
            return self._cipher.decrypt(_NONCE.pack(number), stored, head + self._digest)
        except InvalidTag as error:
            raise MalformedSegmentError("the frame does not decrypt: it was altered, or belongs elsewhere") from error


def new_data_key() -> bytes:
    """Make the key of one segment."""
    return os.urandom(DATA_KEY_BYTES)
