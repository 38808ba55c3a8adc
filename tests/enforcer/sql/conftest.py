"""Servers on which statements are tried.

What lives here: a PostgreSQL for the session. What must not: statements.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import psycopg
import pytest
from psycopg.conninfo import make_conninfo

from tests.e2e import postgres
from tests.e2e.certificates import make
from tests.requirements import require


@contextmanager
def passable(prefix: str) -> Iterator[Path]:
    """Give a directory that servers of other users may enter; pytest's own are for its user alone."""
    with TemporaryDirectory(prefix=prefix, ignore_cleanup_errors=True) as name:
        Path(name).chmod(0o755)
        yield Path(name)


@pytest.fixture(scope="session")
def postgresql(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Give what psycopg needs to connect to a PostgreSQL of this session."""
    require(os.geteuid() == 0, "needs root: PostgreSQL runs as another user")
    trusted = make(tmp_path_factory.mktemp("sql-tls"))
    with passable("capd-sql-") as path, postgres.database(path / "server", trusted) as server:
        names = {"PGHOST": "host", "PGHOSTADDR": "hostaddr", "PGPORT": "port", "PGUSER": "user", "PGPASSWORD": "password"}
        found = {name: server.environment[variable] for variable, name in names.items()}
        yield make_conninfo(dbname="postgres", sslmode="disable", **found)


@pytest.fixture
def connection(postgresql: str) -> Iterator[psycopg.Connection[tuple[object, ...]]]:
    """Give a connection to a database of its own."""
    with psycopg.connect(postgresql, autocommit=True) as admin:
        admin.execute("CREATE DATABASE tried TEMPLATE template0 ENCODING 'UTF8'")
        try:
            with psycopg.connect(make_conninfo(postgresql, dbname="tried"), autocommit=True) as found:
                yield found
        finally:
            admin.execute("DROP DATABASE tried WITH (FORCE)")
