"""What the end-to-end tests share: one capd for each tier, and servers that know the truth.

What lives here: fixtures. What must not: cases.
"""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from tests.e2e import certificates, postgres
from tests.e2e.instance import CAPD, Instance, running
from tests.e2e.truth import Echo, Mirror, Server, Server6, echoing_datagrams, serving
from tests.requirements import kernel, require, require_command, require_probes

MODERN_KERNEL = (6, 16)


RING_BYTES = 256 << 20
"""These cases are about exactness, not speed: a busy build server may leave the daemon without a core for a second."""


@pytest.fixture(scope="session", params=["modern", "classic"])
def capd(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Instance]:
    """A running capd, once with each set of probes."""
    require_probes()
    require(CAPD.exists(), f"needs the installed command: {CAPD}")
    require(request.param == "classic" or kernel() >= MODERN_KERNEL, "the modern tier needs kernel 6.16 or later")
    settings = f'[capture]\ntier = "{request.param}"\ndata_ring_bytes = {RING_BYTES}\n'
    with passable(f"capd-{request.param}-") as path, running(path, settings) as instance:
        instance.tier = request.param
        yield instance


@contextmanager
def passable(prefix: str) -> Iterator[Path]:
    """Give a temporary directory that the recorder's and PostgreSQL's users may pass through; pytest's are closed."""
    with TemporaryDirectory(prefix=prefix, ignore_cleanup_errors=True) as name:
        Path(name).chmod(0o755)
        yield Path(name)


@pytest.fixture
def directory() -> Iterator[Path]:
    """A directory for one test, open to all users."""
    with passable("capd-e2e-") as path:
        yield path


@pytest.fixture(scope="session")
def trusted(tmp_path_factory: pytest.TempPathFactory) -> certificates.Certificates:
    """A certificate authority and a server certificate."""
    require_command("openssl")
    return certificates.make(tmp_path_factory.mktemp("certificates"))


@pytest.fixture(scope="session")
def mirror(trusted: certificates.Certificates) -> Iterator[Server]:
    """An HTTPS server that answers with as many bytes as the path says."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(trusted.certificate, trusted.key)
    with serving(Server(Mirror, context=context)) as server:
        yield server


@pytest.fixture(scope="session")
def echo() -> Iterator[Server]:
    """A plain TCP server that sends back what it gets."""
    with serving(Server(Echo)) as server:
        yield server


@pytest.fixture(scope="session")
def six() -> Iterator[Server]:
    """The same on IPv6."""
    with serving(Server6(Echo)) as server:
        yield server


@pytest.fixture(scope="session")
def datagrams() -> Iterator[int]:
    """A UDP port that sends back what it gets, on IPv4 and IPv6."""
    with echoing_datagrams() as port:
        yield port


@pytest.fixture(scope="session")
def database(trusted: certificates.Certificates) -> Iterator[postgres.Database]:
    """A real PostgreSQL with TLS."""
    require_probes()
    with passable("capd-postgres-") as path, postgres.database(path / "server", trusted) as server:
        yield server
