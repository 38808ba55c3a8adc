"""Servers whose answers are masked.

What lives here: a PostgreSQL of this session, and a database of its own for each module. What must not: statements.
"""

from __future__ import annotations

from collections.abc import Iterator

import psycopg
import pytest
from psycopg.conninfo import make_conninfo

from tests.e2e import postgres
from tests.e2e.certificates import make
from tests.enforcer.sql.conftest import passable
from tests.requirements import require_root
from tests.servers.mariadb import MariaDb
from tests.servers.mariadb import mariadb as server


@pytest.fixture(scope="session")
def postgresql(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Give what psycopg needs to connect to a PostgreSQL of this session."""
    require_root()
    trusted = make(tmp_path_factory.mktemp("rows-tls"))
    with passable("capd-rows-") as path, postgres.database(path / "server", trusted) as running:
        names = {"PGHOST": "host", "PGHOSTADDR": "hostaddr", "PGPORT": "port", "PGUSER": "user", "PGPASSWORD": "password"}
        found = {name: running.environment[variable] for variable, name in names.items()}
        yield make_conninfo(dbname="postgres", sslmode="disable", **found)


@pytest.fixture(scope="module")
def database(postgresql: str) -> Iterator[str]:
    """Give what psycopg needs to connect to an empty database."""
    with psycopg.connect(postgresql, autocommit=True) as admin:
        admin.execute("CREATE DATABASE masked TEMPLATE template0 ENCODING 'UTF8'")
        yield make_conninfo(postgresql, dbname="masked")
        admin.execute("DROP DATABASE masked WITH (FORCE)")


@pytest.fixture(scope="session")
def mariadb() -> Iterator[MariaDb]:
    """Give a MariaDB of this session."""
    with server() as running:
        yield running
