"""The way to a target, as far as a sign-in depends on it, and what binds the one to the other.

What lives here: the value, and `tls-server-end-point` (RFC 5929 4). What must not: TLS itself.

`tls-exporter` (RFC 9266) is not here: Python's ssl module exports no keying material, and no database asks for it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes

END_POINT: Final = "tls-server-end-point"
_STRENGTHENED: Final = frozenset({"md5", "sha1"})
"""Certificates that are signed with these are hashed with SHA-256 (RFC 5929 4.1)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Channel:
    """How a target is reached.

    Attributes:
        encrypted: whether in TLS.
        proven: whether in TLS in which the target proved its name.
        certificate: that it showed, DER; None: none.
    """

    encrypted: bool = False
    proven: bool = False
    certificate: bytes | None = field(default=None, repr=False)

    @property
    def end_point(self) -> bytes | None:
        """What binds to the target's certificate; None where there is nothing."""
        return end_point(self.certificate) if self.encrypted and self.certificate is not None else None


CLEAR: Final = Channel()


def end_point(certificate: bytes) -> bytes | None:
    """Give the hash of a certificate that both sides take for `tls-server-end-point`.

    Args:
        certificate: the server's, DER.

    Returns:
        The hash; None for a certificate whose signature has no hash of its own, such as one of Ed25519: RFC 5929 does not say
        what to do about those, and PostgreSQL does not either.
    """
    try:
        algorithm = x509.load_der_x509_certificate(certificate).signature_hash_algorithm
    except (ValueError, UnsupportedAlgorithm):
        return None
    if algorithm is None:
        return None
    digest = hashes.Hash(hashes.SHA256() if algorithm.name in _STRENGTHENED else algorithm)
    digest.update(certificate)
    return digest.finalize()
