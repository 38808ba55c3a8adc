"""What agents must trust so that their TLS can be opened: the authority of this host, made once, and stores to point at.

What lives here: the files and their owners. What must not: signing (enforcer/tls/), who points at them (trust_environment.py).

There is our authority alone, and together with the system's, as PEM and as Java has it.
"""

from __future__ import annotations

import contextlib
import os
import re
import warnings
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Final

from cryptography import x509
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import BestAvailableEncryption
from cryptography.hazmat.primitives.serialization.pkcs12 import PKCS12Certificate, serialize_java_truststore

from capd.daemon.trust_environment import AUTHORITY, STORE_PASSWORD, bundle_file, java_store_file, wget_file
from capd.enforcer.tls.authority import Authority, load_authority, make_authority
from capd.enforcer.tls.errors import AuthorityUnusableError, TrustStoreError
from capd.recording.durable import read_regular, replace_content
from capd.recording.errors import on_disk

if TYPE_CHECKING:  # its library is to stay out of a role (settled.py)
    from capd.daemon.configuration import Configuration

KEY_BYTES_MAX: Final = 1 << 16
SETTINGS_BYTES_MAX: Final = 1 << 20
WGET_SETTINGS: Final = Path("/etc/wgetrc")
BUNDLE_BYTES_MAX: Final = 16 << 20
"""The system's store has 220 KB."""
SYSTEM_BUNDLES: Final = (
    Path("/etc/ssl/certs/ca-certificates.crt"),  # Debian, Alpine, Arch
    Path("/etc/pki/tls/certs/ca-bundle.crt"),  # Fedora
    Path("/etc/ssl/ca-bundle.pem"),  # SUSE
    Path("/etc/ssl/cert.pem"),
)
_PEM: Final = re.compile(rb"-----BEGIN CERTIFICATE-----.*?-----END CERTIFICATE-----", re.DOTALL)


def authority_key_file(configuration: Configuration) -> Path:
    """Give where the key is that only the enforcer reads."""
    return configuration.enforcer_dir / "authority.key"


def authority_file(configuration: Configuration) -> Path:
    """Give where everybody finds the certificate."""
    return configuration.trust_dir / AUTHORITY


def prepare(configuration: Configuration, uid: int, now: datetime) -> None:
    """Make the authority if there is none, and the stores anew. As root; the directories are there.

    Args:
        configuration: where.
        uid: the enforcer's user, who alone may read the key.
        now: with a time zone.

    Raises:
        AuthorityUnusableError: there is one that cannot be used; it is left as it is.
        TrustStoreError: the system trusts nobody, so that agents could reach nothing that capd does not open.
        StateDirectoryError: a file cannot be written.
    """
    key_file, certificate_file = authority_key_file(configuration), authority_file(configuration)
    if not key_file.exists():
        authority = make_authority(os.uname().nodename, now)
        with on_disk("write", certificate_file):
            replace_content(certificate_file, authority.certificate_pem, mode=0o644)
        with on_disk("write", key_file):
            replace_content(key_file, authority.key_pem, mode=0o400)
    with on_disk("give an owner to", key_file):
        os.chown(key_file, uid, -1, follow_symlinks=False)
    _write_stores(configuration.trust_dir, load(configuration, now))


def load(configuration: Configuration, now: datetime) -> Authority:
    """Read the authority, as root or as the enforcer.

    Raises:
        AuthorityUnusableError: it is not there, or cannot be used.
    """
    try:
        certificate = read_regular(authority_file(configuration), KEY_BYTES_MAX)
        key = read_regular(authority_key_file(configuration), KEY_BYTES_MAX)
    except OSError as error:
        raise AuthorityUnusableError(f"the authority cannot be read: {error}") from error
    return load_authority(certificate, key, now)


def system_bundle() -> bytes:
    """Give the authorities that the system trusts.

    Raises:
        TrustStoreError: there are none where distributions have them.
    """
    for path in SYSTEM_BUNDLES:
        if path.exists():
            with on_disk("read", path):
                return read_regular(path.resolve(), BUNDLE_BYTES_MAX)
    raise TrustStoreError(f"the system's authorities are in none of {', '.join(map(str, SYSTEM_BUNDLES))}")


def _write_stores(trust_dir: Path, authority: Authority) -> None:
    bundle = system_bundle().rstrip(b"\n") + b"\n" + authority.certificate_pem
    certificates = {one.fingerprint(SHA256()): one for one in _certificates(bundle)}
    store = serialize_java_truststore(
        [PKCS12Certificate(one, f"capd-{number}".encode()) for number, one in enumerate(certificates.values())],
        BestAvailableEncryption(STORE_PASSWORD.encode()),
    )
    made = {
        bundle_file(trust_dir): bundle,
        java_store_file(trust_dir): store,
        wget_file(trust_dir): _wget_settings(bundle_file(trust_dir)),
    }
    for path, content in made.items():
        with on_disk("write", path):
            replace_content(path, content, mode=0o644)


def _wget_settings(bundle: Path) -> bytes:
    """Give the system's settings of wget, in whose place ours stand, and what it trusts."""
    own = b""
    if WGET_SETTINGS.exists():
        with on_disk("read", WGET_SETTINGS):
            own = read_regular(WGET_SETTINGS.resolve(), SETTINGS_BYTES_MAX)
    return own.rstrip(b"\n") + f"\nca_certificate = {bundle}\n".encode()


def _certificates(bundle: bytes) -> Iterator[x509.Certificate]:
    """Give the certificates of a bundle; one that breaks RFC 5280, as a few old authorities do, is left out."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for block in _PEM.findall(bundle):
            with contextlib.suppress(ValueError):
                yield x509.load_pem_x509_certificate(block)
