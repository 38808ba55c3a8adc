"""The certificate authority of one host, and the leaves that it signs.

What lives here: certificates as functions from values to values (RFC 5280). What must not: files, caches, the clock, TLS.

Every certificate passes the strict checks of clients of today (Python 3.13 sets VERIFY_X509_STRICT): critical basicConstraints
and keyUsage on the authority, SKI on both, AKI on leaves. Keys are ECDSA P-256, which every runtime verifies and which costs a
tenth of a millisecond, where an RSA key would cost thirty.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from ipaddress import ip_address
from typing import Final

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, load_pem_private_key
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from capd.enforcer.tls.errors import AuthorityUnusableError

AUTHORITY_DAYS: Final = 1095
"""Trust has to be brought to every runtime by hand, so it lasts; the key never leaves the host, so it may."""
LEAF_DAYS: Final = 7
"""Made when asked for, so that nothing needs it longer; public authorities are below 50 days."""
SKEW: Final = timedelta(hours=24)
"""Of an agent's clock, as a container's or a virtual machine's after a pause."""
COMMON_NAME_CHARACTERS_MAX: Final = 64
"""ub-common-name of RFC 5280 A.1; longer names stand in the SAN alone, where clients look."""
NO_USAGE: Final = {
    "digital_signature": False,
    "content_commitment": False,
    "key_encipherment": False,
    "data_encipherment": False,
    "key_agreement": False,
    "key_cert_sign": False,
    "crl_sign": False,
    "encipher_only": False,
    "decipher_only": False,
}


@dataclass(frozen=True, kw_only=True)
class Authority:
    """What signs leaves.

    Attributes:
        certificate: its own; agents trust it.
        key: the private key; readable to the enforcer alone.
    """

    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey

    @property
    def certificate_pem(self) -> bytes:
        """Give what agents must trust."""
        return self.certificate.public_bytes(Encoding.PEM)

    @property
    def key_pem(self) -> bytes:
        """Give the key as PKCS #8, not encrypted: the file's owner and mode protect it."""
        return self.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def make_authority(host: str, now: datetime) -> Authority:
    """Make a new authority.

    Args:
        host: what people recognise it by in a list of trusted ones.
        now: with a time zone.
    """
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name(
        [
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, "capd"),
            x509.NameAttribute(NameOID.COMMON_NAME, f"capd enforcer of {host}"[:COMMON_NAME_CHARACTERS_MAX]),
        ]
    )
    certificate = (
        _builder(name, name, key.public_key(), now, now + timedelta(days=AUTHORITY_DAYS))
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(x509.KeyUsage(**{**NO_USAGE, "key_cert_sign": True, "crl_sign": True}), critical=True)
        .sign(key, hashes.SHA256())
    )
    return Authority(certificate=certificate, key=key)


def load_authority(certificate_pem: bytes, key_pem: bytes, now: datetime) -> Authority:
    """Read an authority that `make_authority` made.

    Raises:
        AuthorityUnusableError: it is damaged, the key belongs to another certificate, or it is over.
    """
    try:
        certificate = x509.load_pem_x509_certificate(certificate_pem)
        key = load_pem_private_key(key_pem, password=None)
        certificate.verify_directly_issued_by(certificate)
    except (ValueError, TypeError, InvalidSignature) as error:
        raise AuthorityUnusableError(f"the authority cannot be read: {error}") from error
    if not isinstance(key, ec.EllipticCurvePrivateKey) or key.public_key() != certificate.public_key():
        raise AuthorityUnusableError("the authority's key is not that of its certificate")
    if now >= certificate.not_valid_after_utc:
        raise AuthorityUnusableError(f"the authority's certificate is over since {certificate.not_valid_after_utc:%Y-%m-%d}")
    return Authority(certificate=certificate, key=key)


def mint(authority: Authority, name: str, public_key: ec.EllipticCurvePublicKey, now: datetime) -> x509.Certificate:
    """Make a leaf for one name.

    Args:
        authority: who signs.
        name: a DNS name in lower case, or an address as `ipaddress` writes it.
        public_key: of the leaf; one key serves all leaves of a process.
        now: with a time zone.

    Raises:
        ValueError: the name cannot stand in a certificate.
    """
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name if len(name) <= COMMON_NAME_CHARACTERS_MAX else "capd")])
    until = min(now + timedelta(days=LEAF_DAYS), authority.certificate.not_valid_after_utc)
    issuer = authority.certificate.subject
    known_by = authority.certificate.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    return (
        _builder(subject, issuer, public_key, now, until)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.KeyUsage(**{**NO_USAGE, "digital_signature": True}), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.SubjectAlternativeName([_general_name(name)]), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(known_by), critical=False)
        .sign(authority.key, hashes.SHA256())
    )


def _builder(
    subject: x509.Name, issuer: x509.Name, public_key: ec.EllipticCurvePublicKey, now: datetime, until: datetime
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(public_key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - SKEW)
        .not_valid_after(until)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public_key), critical=False)
    )


def _general_name(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ip_address(name))
    except ValueError:
        return x509.DNSName(name)
