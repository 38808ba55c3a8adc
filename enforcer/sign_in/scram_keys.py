"""The keys of SCRAM-SHA-256, made of a password (RFC 5802 3, RFC 7677).

What lives here: their derivation, how much work it may be, and what is proven with them. What must not: messages.
"""

from __future__ import annotations

import hashlib
import hmac
from dataclasses import dataclass, field
from typing import Final

from capd.enforcer.sign_in.errors import SignInError
from capd.enforcer.sign_in.saslprep import password as as_bytes

ITERATIONS_MIN: Final = 4_096
"""RFC 7677 4: with fewer, who listens, or pretends to be the server, tries passwords faster than need be."""
ITERATIONS_MAX: Final = 100_000
"""Twenty milliseconds of a core, during which a worker does nothing else; PostgreSQL's own number is 4,096."""
SALT_BYTES_MAX: Final = 1_024
"""Servers have 16."""
HASH: Final = "sha256"


@dataclass(frozen=True, slots=True, kw_only=True)
class Keys:
    """Keys of one password with one salt.

    Attributes:
        client: proves the password; whoever has it can sign in.
        stored: what a server keeps of it.
        server: proves that the server knows the password.
    """

    client: bytes = field(repr=False)
    stored: bytes = field(repr=False)
    server: bytes = field(repr=False)

    def proof(self, message: bytes) -> bytes:
        """Give a client's proof over what both have said."""
        return _xor(self.client, hmac.digest(self.stored, message, HASH))

    def signature(self, message: bytes) -> bytes:
        """Give a server's signature over the same."""
        return hmac.digest(self.server, message, HASH)

    def proves(self, proof: bytes, message: bytes) -> bool:
        """Say whether a client's proof is right."""
        if len(proof) != hashlib.new(HASH).digest_size:
            return False
        client = _xor(proof, hmac.digest(self.stored, message, HASH))
        return hmac.compare_digest(hashlib.new(HASH, client).digest(), self.stored)


def keys_of(password: str, salt: bytes, iterations: int) -> Keys:
    """Derive the keys.

    Args:
        password: as it is held.
        salt: the server's.
        iterations: the server's.

    Raises:
        SignInError: the server wants too much work, or too little.
    """
    if not ITERATIONS_MIN <= iterations <= ITERATIONS_MAX:
        words = f"the target wants {iterations} rounds of SCRAM; from {ITERATIONS_MIN} to {ITERATIONS_MAX} are done"
        raise SignInError(words)
    if not 0 < len(salt) <= SALT_BYTES_MAX:
        raise SignInError("the target's salt for SCRAM has no length that can be")
    salted = hashlib.pbkdf2_hmac(HASH, as_bytes(password), salt, iterations)
    client = hmac.digest(salted, b"Client Key", HASH)
    return Keys(client=client, stored=hashlib.new(HASH, client).digest(), server=hmac.digest(salted, b"Server Key", HASH))


def _xor(one: bytes, other: bytes) -> bytes:
    return bytes(a ^ b for a, b in zip(one, other, strict=True))
