"""Keyed hashes of values: the same value has the same one, and who does not have the key cannot try values.

What lives here: hashing. What must not: the key's source, types.

Whoever may write a hidden column and read it back learns the hash of what he wrote, and can compare: hashes keep a value from
being read, not from being recognised by such an agent.
"""

from __future__ import annotations

import base64
import hmac
from typing import Final

KEY_BYTES_MIN: Final = 16
HASH_CHARACTERS: Final = 32
TOKEN_PREFIX: Final = "tok_"  # noqa: S105 - no password
_TOKEN_BYTES: Final = 15


def digest(key: bytes, value: bytes) -> bytes:
    """Give 32 bytes for a value in its text form (HMAC-SHA256, RFC 2104)."""
    return hmac.digest(key, value, "sha256")


def hash_text(key: bytes, value: bytes) -> bytes:
    """Give 32 hexadecimal digits."""
    return digest(key, value).hex()[:HASH_CHARACTERS].encode("ascii")


def token_text(key: bytes, value: bytes) -> bytes:
    """Give a token: a prefix, and 24 letters and digits."""
    return TOKEN_PREFIX.encode("ascii") + base64.b32encode(digest(key, value)[:_TOKEN_BYTES]).lower()
