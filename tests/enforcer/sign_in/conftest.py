"""Servers that are signed in to.

What lives here: a PostgreSQL whose users are let in by different ways. What must not: signing in.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import psycopg
import pytest
from psycopg.conninfo import make_conninfo

from tests.e2e import postgres
from tests.e2e.certificates import Certificates, make
from tests.requirements import require

PASSWORD = "correct-horse-battery"
WAYS = ("scram-sha-256", "md5", "password", "trust")
"""A user is called as the way by which it is let in."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Server:
    """A PostgreSQL with a user for each of WAYS, whose password is PASSWORD.

    Attributes:
        port: on 127.0.0.1.
        certificates: of it, and of whoever stands in its place.
    """

    port: int
    certificates: Certificates


@pytest.fixture(scope="session")
def trusted(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    """Certificates for servers on loopback."""
    return make(tmp_path_factory.mktemp("sign-in-tls"))


@pytest.fixture(scope="session")
def postgresql(trusted: Certificates) -> Iterator[Server]:
    """A PostgreSQL of this session."""
    require(os.geteuid() == 0, "needs root: PostgreSQL runs as another user")
    with TemporaryDirectory(prefix="capd-sign-in-", ignore_cleanup_errors=True) as name:
        path = Path(name)
        path.chmod(0o755)
        with postgres.database(path / "server", trusted) as server:
            _make_users(path / "server" / "data" / "pg_hba.conf", server)
            yield Server(port=server.port, certificates=trusted)


def _make_users(rules: Path, server: postgres.Database) -> None:
    names = {"PGHOST": "host", "PGHOSTADDR": "hostaddr", "PGPORT": "port", "PGUSER": "user", "PGPASSWORD": "password"}
    known = {name: server.environment[variable] for variable, name in names.items()}
    lines = [f"host all {way} 127.0.0.1/32 {way}\n" for way in WAYS]
    rules.write_text("".join(lines) + rules.read_text(encoding="utf-8"), encoding="utf-8")
    with psycopg.connect(make_conninfo(dbname="postgres", sslmode="disable", **known), autocommit=True) as admin:
        for way in WAYS:
            admin.execute(f"SET password_encryption = '{'md5' if way == 'md5' else 'scram-sha-256'}'")
            admin.execute(f"CREATE USER \"{way}\" PASSWORD '{PASSWORD}'")
        admin.execute("SELECT pg_reload_conf()")
