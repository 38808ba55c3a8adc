"""How each way of MySQL and MariaDB proves a password.

What lives here: the answer to a challenge, each a function of values. What must not: packets, what is allowed.
"""

from __future__ import annotations

import hashlib
from typing import Final

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.serialization import load_pem_public_key
from nacl import bindings

from capd.enforcer.sign_in.errors import SignInError

NATIVE: Final = "mysql_native_password"
SHA2: Final = "caching_sha2_password"
ED25519: Final = "client_ed25519"
CLEAR: Final = "mysql_clear_password"
CHALLENGE_BYTES: Final = 20
"""Of NATIVE and SHA2; a server puts a zero behind it."""
ED25519_CHALLENGE_BYTES: Final = 32
RSA_BITS_MIN: Final = 2_048
RSA_BITS_MAX: Final = 8_192
"""A longer one is work for nothing."""
RSA_KEY_BYTES_MAX: Final = 4_096
_SCALAR_BYTES: Final = 32


def native(password: bytes, challenge: bytes) -> bytes:
    """Answer by `mysql_native_password`: SHA1(pw) xor SHA1(challenge + SHA1(SHA1(pw))); nothing for no password.

    Source: dev.mysql.com, "Native Authentication".
    """
    if not password:
        return b""
    once = _sha1(password)
    return _xor(once, _sha1(challenge + _sha1(once)))


def sha2(password: bytes, challenge: bytes) -> bytes:
    """Answer by `caching_sha2_password`, the fast way: SHA256(pw) xor SHA256(SHA256(SHA256(pw)) + challenge).

    Source: dev.mysql.com, "Caching_sha2_password information".
    """
    if not password:
        return b""
    once = _sha256(password)
    return _xor(once, _sha256(_sha256(once) + challenge))


def sha2_encrypted(password: bytes, challenge: bytes, key: bytes) -> bytes:
    """Encrypt a password for a server's key, as the full way of `caching_sha2_password` has it without TLS.

    Args:
        password: the password.
        challenge: the server's, repeated over the password.
        key: the server's public key, PEM.

    Raises:
        SignInError: the key is none that a server has, or too short for the password.
    """
    try:
        found = load_pem_public_key(key) if len(key) <= RSA_KEY_BYTES_MAX else None
    except (ValueError, UnsupportedAlgorithm):
        found = None
    if not isinstance(found, rsa.RSAPublicKey) or not RSA_BITS_MIN <= found.key_size <= RSA_BITS_MAX:
        raise SignInError(f"the target's key is no RSA key of {RSA_BITS_MIN} to {RSA_BITS_MAX} bits")
    text = password + b"\0"
    covered = bytes(one ^ challenge[at % len(challenge)] for at, one in enumerate(text))
    oaep = padding.OAEP(padding.MGF1(hashes.SHA1()), hashes.SHA1(), None)  # noqa: S303 - what the protocol has
    try:
        return found.encrypt(covered, oaep)
    except ValueError:
        raise SignInError("the target's key is too short for the password") from None


def ed25519(password: bytes, challenge: bytes) -> bytes:
    """Sign by MariaDB's `ed25519`: Ed25519 (RFC 8032 5.1.6) whose private key is the password, of any length.

    Source: mariadb.com, "Authentication Plugin - ed25519".
    """
    secret, prefix = _expanded(password)
    public = bindings.crypto_scalarmult_ed25519_base_noclamp(secret)
    reduce = bindings.crypto_core_ed25519_scalar_reduce
    once = reduce(_sha512(prefix + challenge))
    point = bindings.crypto_scalarmult_ed25519_base_noclamp(once)
    product = bindings.crypto_core_ed25519_scalar_mul(reduce(_sha512(point + public + challenge)), secret)
    return point + bindings.crypto_core_ed25519_scalar_add(product, once)


def ed25519_public(password: bytes) -> bytes:
    """Give what a server of MariaDB stores of a password."""
    return bindings.crypto_scalarmult_ed25519_base_noclamp(_expanded(password)[0])


def _expanded(password: bytes) -> tuple[bytes, bytes]:
    hashed = bytearray(_sha512(password))
    hashed[0] &= 0b1111_1000
    hashed[31] = hashed[31] & 0b0011_1111 | 0b0100_0000
    return bytes(hashed[:_SCALAR_BYTES]), bytes(hashed[_SCALAR_BYTES:])


def _sha1(data: bytes) -> bytes:
    return hashlib.sha1(data, usedforsecurity=False).digest()


def _sha256(data: bytes) -> bytes:
    return hashlib.sha256(data).digest()


def _sha512(data: bytes) -> bytes:
    return hashlib.sha512(data).digest()


def _xor(one: bytes, other: bytes) -> bytes:
    return bytes(a ^ b for a, b in zip(one, other, strict=True))
