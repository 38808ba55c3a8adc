"""A certificate authority that lives for one test session.

What lives here: files for TLS servers on loopback and for clients that trust them. What must not: servers.
"""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from pathlib import Path

CURVE = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2")
NAMES = "subjectAltName=DNS:localhost,DNS:api.test,DNS:other.test,IP:127.0.0.1,IP:::1"


@dataclass(frozen=True, slots=True, kw_only=True)
class Certificates:
    """Paths: what clients trust, and what servers show.

    Attributes:
        authority: PEM of the authority.
        certificate: PEM of the server's certificate for localhost, 127.0.0.1 and ::1.
        key: PEM of its key.
    """

    authority: Path
    certificate: Path
    key: Path


def make(directory: Path) -> Certificates:
    """Make an authority and one server certificate below a directory."""
    made = Certificates(authority=directory / "ca.pem", certificate=directory / "cert.pem", key=directory / "key.pem")
    authority_key, request = directory / "ca.key", directory / "request.pem"
    (directory / "names").write_text(NAMES, encoding="ascii")
    _openssl("req", "-x509", *CURVE, "-subj", "/CN=capd tests", "-keyout", authority_key, "-out", made.authority)
    _openssl("req", *CURVE[:-2], "-subj", "/CN=localhost", "-keyout", made.key, "-out", request)
    signed_by = ("-CA", made.authority, "-CAkey", authority_key, "-CAcreateserial", "-days", "2")
    _openssl("x509", "-req", "-in", request, *signed_by, "-extfile", directory / "names", "-out", made.certificate)
    for path in directory.iterdir():
        path.chmod(0o644)
    return made


def _openssl(*arguments: str | Path) -> None:
    subprocess.run(["openssl", *map(str, arguments)], check=True, capture_output=True)
