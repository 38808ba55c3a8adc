"""Captures that the kernel tests share: loading one takes seconds."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator

import pytest

from capd.probes.capture import Capture
from tests.probes.watching import started
from tests.requirements import require_command, require_probes


@pytest.fixture(scope="session", params=["modern", "classic"])
def capture(request: pytest.FixtureRequest) -> Iterator[Capture]:
    """Give a capture of each tier."""
    require_probes()
    with started(request.param) as running:
        yield running


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Give a file with a key and a certificate for localhost."""
    require_command("openssl")
    folder = tmp_path_factory.mktemp("tls")
    key, certificate = folder / "key.pem", folder / "certificate.pem"
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2"]
    names = ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"]
    subprocess.run([*command, *names, "-keyout", key, "-out", certificate], check=True, capture_output=True)
    both = folder / "both.pem"
    both.write_bytes(certificate.read_bytes() + key.read_bytes())
    return str(both)
