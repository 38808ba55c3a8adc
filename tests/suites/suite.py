"""The suites of tests that clients of databases bring with them, and what each needs.

What lives here: the table. What must not: running them (run.py).

Of a client whose package on the index has its tests, that is what is run; of others a checkout of the client's own repository,
which whoever runs this names.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from tests.enforcer.yard import ADDRESSES

DATABASE: Final = "suites"
HOST: Final = ADDRESSES[0]
"""Where the servers are, in the yard. A name leads to two addresses, of which one refuses: behind the enforcer each answers."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Suite:
    """One.

    Attributes:
        server: which one it wants: `postgresql`, `mysql`, `mariadb`, `redis`.
        package: whose source on the index has it; empty: a checkout is named on the command line.
        needs: further packages.
        source: folders of the tree that stand before what is installed.
        without: folders of the tree that would stand before it, and must not: they are not compiled.
        words: for pytest; `{password}` and others of the server are put in.
        environment: likewise.
        files: to be written into the tree before, likewise.
        prepare: statements for the server's administrator.
        prepare_database: likewise, of PostgreSQL, in the database that `prepare` makes.
    """

    server: str
    package: str = ""
    needs: tuple[str, ...] = ()
    source: tuple[str, ...] = ()
    without: tuple[str, ...] = ()
    words: tuple[str, ...] = ("tests",)
    environment: Mapping[str, str] = field(default_factory=dict)
    files: Mapping[str, str] = field(default_factory=dict)
    prepare: tuple[str, ...] = ()
    prepare_database: tuple[str, ...] = ()


_LIBPQ: Final = {
    "PGHOST": HOST,
    "PGPORT": "5432",
    "PGUSER": "postgres",
    "PGPASSWORD": "{password}",
    "PGDATABASE": DATABASE,
    "PGSSLMODE": "disable",
}
_POSTGRESQL: Final = (
    "create role postgres superuser login password '{password}'",
    f"create database {DATABASE} owner postgres template template0 encoding 'UTF8'",
)
_WHO: Final = {"host": HOST, "user": "agent", "passwd": "{password}", "ssl_disabled": True}
_PYMYSQL: Final = json.dumps(
    [{**_WHO, "database": "test1", "use_unicode": True, "local_infile": True}, {**_WHO, "database": "test2"}]
)

_SQLALCHEMY: Final = ("test/dialect/test_suite.py", "test/engine", "--backend-only", "--maxfail=0")
_INSTALLED: Final = {"PYTHONNOUSERSITE": "1"}
"""By this its tests take what is installed, which is compiled."""
SUITES: Final[Mapping[str, Suite]] = {
    "asyncpg": Suite(server="postgresql", package="asyncpg", without=("asyncpg",), environment=_LIBPQ, prepare=_POSTGRESQL),
    "psycopg": Suite(
        server="postgresql",
        needs=("pproxy", "dnspython"),
        source=("psycopg",),
        words=(
            "tests",
            "-m",
            "not slow and not timing and not mypy and not proxy",
            "--ignore=tests/pool",
            "--ignore=tests/crdb",
        ),
        environment={**_LIBPQ, "PSYCOPG_TEST_DSN": "dbname=suites", "PSYCOPG_IMPL": "python"},
        prepare=_POSTGRESQL,
    ),
    "psycopg2": Suite(
        server="postgresql",
        package="psycopg2",
        environment={**_LIBPQ, "PSYCOPG2_TESTDB": "suites"},
        prepare=_POSTGRESQL,
    ),
    "pymysql": Suite(
        server="mysql",
        source=(".",),
        words=("pymysql/tests",),
        files={"pymysql/tests/databases.json": _PYMYSQL},
        prepare=("create database test1", "create database test2", "set global local_infile = 1"),
    ),
    "pymysql-mariadb": Suite(
        server="mariadb",
        source=(".",),
        words=("pymysql/tests",),
        files={"pymysql/tests/databases.json": _PYMYSQL},
        prepare=("create database test1", "create database test2"),
    ),
    "sqlalchemy": Suite(
        server="postgresql",
        package="sqlalchemy",
        words=("test/dialect/postgresql", *_SQLALCHEMY, f"--dburi=postgresql+psycopg://postgres:{{password}}@{HOST}/suites"),
        environment={"PGSSLMODE": "disable", **_INSTALLED},
        prepare=(*_POSTGRESQL, "alter database suites set default_text_search_config = 'pg_catalog.english'"),
        prepare_database=("create schema test_schema", "create schema test_schema_2"),
    ),
    "sqlalchemy-mariadb": Suite(
        server="mariadb",
        package="sqlalchemy",
        words=(
            "test/dialect/mysql",
            *_SQLALCHEMY,
            "--dburi=mariadb+pymysql://agent:{password}@127.0.0.1/suites?charset=utf8mb4",
        ),
        environment=_INSTALLED,
        prepare=("create database suites", "create database test_schema"),
    ),
    "mysql-connector": Suite(
        server="mysql",
        package="mysql-connector-python",
        words=(
            *("tests", "--ignore=tests/ai", "--ignore=tests/otel", "--ignore=tests/test_django.py"),
            "--ignore=tests/cext",  # compiled, for a newer OpenSSL than Debian 12 has
            *("--ignore=tests/qa", "--ignore=tests/test_bugs.py"),  # wait, for minutes
        ),
        files={"conftest.py": (Path(__file__).parent / "connector_conftest.txt").read_text(encoding="utf-8")},
        prepare=("set global local_infile = 1",),
    ),
    "redis": Suite(
        server="redis",
        package="redis",
        needs=("pytest-asyncio", "numpy", "pybreaker", "redis-entraid"),
        words=(
            *("tests", f"--redis-url=redis://{HOST}:6379/9", f"--redis-mod-url=redis://{HOST}:6379/9"),
            *("-m", "not onlycluster and not redismod and not ssl and not cp_integration"),
            *("--ignore=tests/test_scenario", "--ignore=tests/test_asyncio/test_scenario", "--ignore=tests/test_multidb"),
            *("--ignore=tests/test_asyncio/test_multidb", "--ignore=tests/test_observability"),
            "--ignore=tests/maint_notifications",
        ),
    ),
}
