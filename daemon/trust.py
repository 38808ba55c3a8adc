"""What agents must trust so that their TLS can be opened: the authority of this host, made once, and stores to point at.

What lives here: the files, their owners, the environment that points at them. What must not: signing (enforcer/tls/).

Some settings of runtimes replace what they trust, others add to it: the former get a bundle of the system's authorities and
ours, the latter ours alone.
"""

from __future__ import annotations

import contextlib
import os
import re
import warnings
from collections.abc import Iterator, Mapping
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Final

from cryptography import x509
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import BestAvailableEncryption
from cryptography.hazmat.primitives.serialization.pkcs12 import PKCS12Certificate, serialize_java_truststore

from capd.enforcer.tls.authority import Authority, load_authority, make_authority
from capd.enforcer.tls.errors import AuthorityUnusableError, TrustStoreError
from capd.recording.durable import read_regular, replace_content
from capd.recording.errors import on_disk

if TYPE_CHECKING:  # its library is to stay out of a role (settled.py)
    from capd.daemon.configuration import Configuration

KEY_BYTES_MAX: Final = 1 << 16
BUNDLE_BYTES_MAX: Final = 16 << 20
"""The system's store has 220 KB."""
SYSTEM_BUNDLES: Final = (
    Path("/etc/ssl/certs/ca-certificates.crt"),  # Debian, Alpine, Arch
    Path("/etc/pki/tls/certs/ca-bundle.crt"),  # Fedora
    Path("/etc/ssl/ca-bundle.pem"),  # SUSE
    Path("/etc/ssl/cert.pem"),
)
STORE_PASSWORD: Final = "changeit"  # noqa: S105 - Java wants one for a store of public certificates, and this is everybody's
REPLACING: Final = (
    "SSL_CERT_FILE",  # OpenSSL, Go, Ruby, uv, Rust's native certificates
    "REQUESTS_CA_BUNDLE",
    "CURL_CA_BUNDLE",
    "GIT_SSL_CAINFO",
    "PIP_CERT",
    "CARGO_HTTP_CAINFO",
    "AWS_CA_BUNDLE",
    "GRPC_DEFAULT_SSL_ROOTS_FILE_PATH",
    "HEX_CACERTS_PATH",
    "NIX_SSL_CERT_FILE",
    "CLOUDSDK_CORE_CUSTOM_CA_CERTS_FILE",
)
"""Variables that replace what a runtime trusts; they point at the bundle."""
_PEM: Final = re.compile(rb"-----BEGIN CERTIFICATE-----.*?-----END CERTIFICATE-----", re.DOTALL)
ADDING: Final = ("NODE_EXTRA_CA_CERTS", "DENO_CERT")
"""Variables that add to it; they point at our authority alone."""


def authority_key_file(configuration: Configuration) -> Path:
    """Give where the key is that only the enforcer reads."""
    return configuration.enforcer_dir / "authority.key"


def authority_file(configuration: Configuration) -> Path:
    """Give where everybody finds the certificate."""
    return configuration.trust_dir / "authority.pem"


def bundle_file(trust_dir: Path) -> Path:
    """Give where the system's authorities and ours are together."""
    return trust_dir / "bundle.pem"


def java_store_file(trust_dir: Path) -> Path:
    """Give the same for Java."""
    return trust_dir / "truststore.p12"


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
    for path, content in ((bundle_file(trust_dir), bundle), (java_store_file(trust_dir), store)):
        with on_disk("write", path):
            replace_content(path, content, mode=0o644)


def _certificates(bundle: bytes) -> Iterator[x509.Certificate]:
    """Give the certificates of a bundle; one that breaks RFC 5280, as a few old authorities do, is left out."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for block in _PEM.findall(bundle):
            with contextlib.suppress(ValueError):
                yield x509.load_pem_x509_certificate(block)


def variables(trust_dir: Path, environment: Mapping[str, str]) -> dict[str, str]:
    """Give the environment variables by which runtimes trust our authority.

    Args:
        trust_dir: where the files are.
        environment: as it is; Java's options are added to.
    """
    store = java_store_file(trust_dir)
    options = (
        f"-Djavax.net.ssl.trustStore={store} -Djavax.net.ssl.trustStoreType=PKCS12"
        f" -Djavax.net.ssl.trustStorePassword={STORE_PASSWORD}"
    )
    java = environment.get("JAVA_TOOL_OPTIONS", "")
    return {
        **dict.fromkeys(REPLACING, str(bundle_file(trust_dir))),
        **dict.fromkeys(ADDING, str(trust_dir / "authority.pem")),
        "JAVA_TOOL_OPTIONS": f"{java} {options}".strip(),
    }
