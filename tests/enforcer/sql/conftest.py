"""Servers on which statements are tried.

What lives here: a PostgreSQL and a MariaDB for the session. What must not: statements.
"""

from __future__ import annotations

import getpass
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import psycopg
import pymysql
import pytest
from psycopg.conninfo import make_conninfo

from tests.e2e import postgres
from tests.e2e.certificates import make
from tests.requirements import require

START_SECONDS_MAX = 60
MYSQL_PASSWORD = ""
LOCKS = ("--performance-schema=ON", "--performance-schema-instrument=wait/lock/metadata/sql/mdl=ON")


@contextmanager
def _passable(prefix: str) -> Iterator[Path]:
    """Give a directory that servers of other users may enter; pytest's own are for its user alone."""
    with TemporaryDirectory(prefix=prefix, ignore_cleanup_errors=True) as name:
        Path(name).chmod(0o755)
        yield Path(name)


@pytest.fixture(scope="session")
def postgresql(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Give what psycopg needs to connect to a PostgreSQL of this session."""
    require(os.geteuid() == 0, "needs root: PostgreSQL runs as another user")
    trusted = make(tmp_path_factory.mktemp("sql-tls"))
    with _passable("capd-sql-") as path, postgres.database(path / "server", trusted) as server:
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


@pytest.fixture(scope="session")
def mariadb(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """Give what pymysql needs to connect to a MariaDB of this session."""
    server = shutil.which("mariadbd", path="/usr/sbin:/usr/bin")
    require(server, "needs a MariaDB server: mariadbd")
    assert server is not None
    with _passable("capd-mysql-") as path:
        yield from _mariadb(server, path)


def _mariadb(server: str, path: Path) -> Iterator[dict[str, str]]:
    user, data = getpass.getuser(), path / "data"
    install = ["mariadb-install-db", "--no-defaults", f"--user={user}", f"--datadir={data}"]
    subprocess.run(
        [*install, "--auth-root-authentication-method=normal", "--skip-test-db"], check=True, stdout=subprocess.DEVNULL
    )
    options = [f"--datadir={data}", f"--socket={path}/s", f"--pid-file={path}/pid", "--skip-networking", f"--user={user}"]
    with (path / "log").open("wb") as log:
        running = subprocess.Popen(
            [
                server,
                "--no-defaults",
                *options,
                "--performance-schema=ON",
                "--performance-schema-instrument=wait/lock/metadata/sql/mdl=ON",
            ],
            stdout=log,
            stderr=log,
        )
    try:
        deadline = time.monotonic() + START_SECONDS_MAX
        while not (path / "s").exists():
            assert running.poll() is None, (path / "log").read_text(errors="replace")
            assert time.monotonic() < deadline
            time.sleep(0.05)
        yield {"unix_socket": str(path / "s"), "user": "root", "password": MYSQL_PASSWORD}
    finally:
        running.kill()
        running.wait()


@pytest.fixture
def mysql(mariadb: dict[str, str]) -> Iterator[pymysql.connections.Connection[pymysql.cursors.Cursor]]:
    """Give a connection to a database of its own."""
    connection = pymysql.connect(**mariadb, autocommit=True)  # type: ignore[call-overload] # its stubs name each argument
    with connection:
        with connection.cursor() as cursor:
            cursor.execute("CREATE DATABASE tried")
            cursor.execute("USE tried")
        try:
            yield connection
        finally:
            with connection.cursor() as cursor:
                cursor.execute("DROP DATABASE tried")
