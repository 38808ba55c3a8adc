"""What capd says of statements beside what real servers do with them: MariaDB and MySQL.

What lives here: comparing. What must not: what statements do by their text alone (test_sql_mysql.py).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import TypeAlias

import pymysql
import pytest

from capd.enforcer.proxy.mysql.judging import server_of
from capd.enforcer.sql import mysql_scanner
from capd.enforcer.sql.calls import NO_FUNCTIONS
from capd.enforcer.sql.functions import catalogue
from capd.enforcer.sql.lexeme import MYSQL_DEFAULT, Dialect
from capd.enforcer.sql.message import Reader
from capd.enforcer.sql.session import Session, new_session
from capd.enforcer.sql.statement import split
from tests.enforcer.sql import mysql_truth
from tests.servers.mariadb import mariadb
from tests.servers.mysql import mysql

LOCKS = ["--performance-schema=ON", "--performance-schema-instrument=wait/lock/metadata/sql/mdl=ON"]
SEVERAL = pymysql.constants.CLIENT.MULTI_STATEMENTS
SERVERS = {"mariadb": mariadb, "mysql": mysql}
Connection: TypeAlias = "pymysql.connections.Connection[pymysql.cursors.Cursor]"


@pytest.fixture(scope="module", params=SERVERS)
def connection(request: pytest.FixtureRequest) -> Iterator[Connection]:
    """Give a connection to each, in a database of its own."""
    with SERVERS[request.param](LOCKS) as server:
        server.administer("CREATE DATABASE tried")
        with pymysql.connect(
            unix_socket=str(server.socket), user="root", database="tried", autocommit=True, client_flag=SEVERAL
        ) as made:
            yield made


def version_of(connection: Connection) -> str:
    """Give what the server says that it is."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT VERSION()")
        (version,) = cursor.fetchone() or ("",)
    return str(version)


def session_of(connection: Connection) -> Session:
    """Give what is known of a session there."""
    session = new_session(Dialect.MYSQL).told_schemas(("tried",))
    return replace(session, reading=replace(session.reading, server=server_of(version_of(connection))))


def test_versions(connection: Connection) -> None:
    """Which server it is is known by its greeting."""
    assert session_of(connection).reading.server is not None


SIGNS = """
! !0 !4000 !40000 !50699 !50700 !50799 !80000 !99999 !100000 !101100 !999999 !1001000 !8000 !800000 !080000 !090704 !090705
!40000M! M! M!50700 M!100100 M!999999 m!100100 +
"""


def test_comments_are_executed_as_the_server_does(connection: Connection) -> None:
    """What capd takes for executed the server executes, and nothing that it takes for one is anything else."""
    reading = session_of(connection).reading
    tried = 0
    with connection.cursor() as cursor:
        for sign in [*SIGNS.split(), "", "! 40000", "M !40000"]:
            sql = f"select 1 /*{sign} + 41 */"
            scanned = mysql_scanner.scan(sql.encode(), reading)
            if scanned.problems:
                continue
            tried += 1
            expected = {2: 1, 4: 42}.get(len(scanned.lexemes))
            try:
                cursor.execute(sql)
                (found,) = cursor.fetchone() or (None,)
            except pymysql.err.ProgrammingError:
                found = None
            assert (sign, expected) == (sign, found)
    assert tried > len(SIGNS.split()) / 3


def test_capd_is_never_sure_and_wrong(connection: Connection) -> None:
    """Statements lock the tables that capd says, or are not complete."""
    truth = mysql_truth.Truth(connection)
    with connection.cursor() as cursor:
        for text in mysql_truth.SCHEMA:
            cursor.execute(text)
    statements = (() if "MariaDB" in version_of(connection) else mysql_truth.OF_MYSQL) + mysql_truth.STATEMENTS
    for text in statements:
        truth.try_(text)
    assert [] == truth.wrong, "\n".join(map(str, truth.wrong))
    assert truth.counts["complete"] >= len(statements) * 0.65, (truth.counts, truth.incomplete)


@pytest.mark.parametrize("ends", ["ROLLBACK", "COMMIT"])
@pytest.mark.parametrize("begins", ["BEGIN", "SET autocommit = 0"])
def test_no_transaction_takes_a_database_back(connection: Connection, begins: str, ends: str) -> None:
    """After USE in a transaction, names are looked for where the server looks for them, however it ends."""
    message, session = f"{begins}; USE information_schema; {ends}", session_of(connection)
    with connection.cursor() as cursor:
        try:
            cursor.execute(message)
            while cursor.nextset():
                pass
            cursor.execute("SELECT DATABASE()")
            (expected,) = cursor.fetchone() or ("",)
            found = Reader().read(f"{message}; SHOW TABLES; DESCRIBE columns".encode(), session)
            assert ((), {f"{expected}.columns"}) == (found.problems, {name for name, _ in found.resources or ()})
        finally:
            cursor.execute("SET autocommit = 1")
            cursor.execute("USE tried")


CALLS = [("1", "a INT"), ("", ""), ("1, 1", "a INT, b INT")]
NOT_THERE = {1305, 1630}
"""The server has no function of that name."""


def test_nobodys_function_is_taken_for_the_servers_own(connection: Connection) -> None:
    """A function that somebody made is called by no statement that capd calls complete, whatever its name."""
    known, reader, session = catalogue(Dialect.MYSQL), Reader(), session_of(connection)
    called, missing = list[str](), 0
    with connection.cursor() as cursor:
        for name in sorted(known.pure | known.effects.keys() | NO_FUNCTIONS):
            for values, parameters in CALLS:
                sql = f"SELECT {name}({values}) LIMIT 1"
                try:
                    cursor.execute(f"SELECT {name}({values}) LIMIT 0")
                    continue
                except pymysql.err.MySQLError as error:
                    if error.args[0] not in NOT_THERE:
                        continue
                missing += 1
                cursor.execute(
                    f"CREATE FUNCTION `{name}`({parameters}) RETURNS INT DETERMINISTIC BEGIN SET @called = 1; RETURN 2; END"
                )
                cursor.execute("SET @called = 0")
                cursor.execute(sql)
                cursor.execute("SELECT @called")
                assert (1,) == cursor.fetchone()
                called += [] if reader.read(sql.encode(), session).problems else [sql]
                cursor.execute(f"DROP FUNCTION `{name}`")
    assert [] == called
    assert missing


SPLIT = [
    ("SELECT 1; SELECT 2", 2),
    ("SELECT ';'; SELECT \";\"", 2),
    ("SELECT 'a\\';'", 1),
    ("SELECT 1 AS `;`", 1),
    ("SELECT 1 -- ;\n", 1),
    ("SELECT 1 # ;\n; SELECT 2", 2),
    ("SELECT 1 /* ; */; SELECT 2", 2),
    ("SELECT 1--1; SELECT 2", 2),
    ("SELECT 1 --\t;\n", 1),
    ("SELECT 'a''b;'", 1),
]


@pytest.mark.parametrize(("sql", "count"), SPLIT)
def test_statements_are_split_as_the_server_does(connection: Connection, sql: str, count: int) -> None:
    """A message has as many statements for capd as for the server."""
    with connection.cursor() as cursor:
        cursor.execute(sql)
        results = 1
        while cursor.nextset():
            results += 1
    assert (count, count) == (results, len(split(mysql_scanner.scan(sql.encode(), MYSQL_DEFAULT), Dialect.MYSQL)))
