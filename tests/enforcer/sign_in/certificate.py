"""Certificates whose signature has a certain hash.

What lives here: making them. What must not: cases.
"""

from __future__ import annotations

import subprocess
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from tests.requirements import require_command


def signed_with(directory: Path, digest: str) -> bytes:
    """Give a certificate, DER, signed by its own key with a digest of openssl's name, or by an Ed25519 key."""
    require_command("openssl")
    key = ["-newkey", "ed25519"] if digest == "ed25519" else ["-newkey", "rsa:2048", f"-{digest}"]
    path = directory / "certificate"
    command = [
        "openssl",
        "req",
        "-x509",
        "-nodes",
        *key,
        "-days",
        "2",
        "-subj",
        "/CN=x",
        "-keyout",
        "/dev/null",
        "-out",
        str(path),
    ]
    subprocess.run(command, check=True, capture_output=True)
    return x509.load_pem_x509_certificate(path.read_bytes()).public_bytes(Encoding.DER)
