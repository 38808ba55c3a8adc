"""Columns that rules hide, through the proxy's shell, before a real MariaDB and a real MySQL: what clients get instead.

What lives here: a few statements of each kind. What must not: statements made at random (rows/test_rows_mysql_made.py).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mysql.connector
import pymysql
import pytest

from capd.enforcer.obligations.obligation import NOTHING, Obligations
from capd.enforcer.policy.rule import Mask, Replace
from capd.enforcer.proxy.question import Kind, Question, Verdict
from tests.e2e.certificates import make
from tests.enforcer.proxied import ADDRESS, Proxied, proxied
from tests.servers.mariadb import DATABASE, PASSWORD, USER, MariaDb, mariadb
from tests.servers.mysql import mysql as real_mysql

SERVERS = {"mariadb": mariadb, "mysql": real_mysql}
SECRET = "123-45-6789"
SETUP = (
    f"use {DATABASE}",
    "create table people (id int primary key, name varchar(20), ssn varchar(20) unique)",
    "insert into people values (1, 'a', '123-45-6789'), (2, 'b', null)",
    "create view shown as select id, ssn as other from people",
    "create table named (`gehält` varchar(20)) character set utf8mb4",
    "insert into named values ('123-45-6789')",
)
HIDDEN = (f"{DATABASE}.people.ssn", "gehält")
MASKS = Obligations(masks=(("hide", Mask(columns=HIDDEN, replace=Replace.PARTIAL)),))


NAMED: list[tuple[str, str]] = []
"""What statements were about."""


def hiding(question: Question) -> Verdict:
    """Allow everything, and hide a column."""
    if question.statement is not None:
        NAMED.extend(question.statement.resources or ())
    obligations = MASKS if question.kind is Kind.STATEMENT else NOTHING
    return Verdict(number=question.number, allowed=True, rule="r", policy="1", obligations=obligations)


@dataclass(frozen=True, slots=True)
class Place:
    """A proxy before a server."""

    proxy: Proxied
    server: MariaDb

    @property
    def login(self) -> dict[str, Any]:
        """Give what clients connect with."""
        where = {"host": ADDRESS, "port": self.proxy.port, "ssl_disabled": True}
        return {**where, "user": USER, "password": PASSWORD, "database": DATABASE}


@pytest.fixture(scope="module", params=SERVERS)
def place(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    """Make one for all tests here, of each server."""
    directory: Path = tmp_path_factory.mktemp("masked")
    with SERVERS[request.param]() as server:
        server.administer(*SETUP)
        with proxied(directory, server.port, make(directory), hiding) as proxy:
            yield Place(proxy, server)
            assert [] == proxy.mistakes


SHOWN = {
    "select * from people order by id": ((1, "a", "****6789"), (2, "b", None)),
    "select ssn as x, id from people where id = 1": (("****6789", 1),),
    "select other from shown where id = 1": (("****6789",),),
    "select count(*) from people": ((2,),),
    "select sql_no_cache * from people where id = 1": ((1, "a", "****6789"),),
    "select high_priority ssn, id from people order by id limit 1": (("****6789", 1),),
    "select 'goes on'": (("goes on",),),
}
REFUSED = (
    "show grants",
    "show create user",
    "show create user agent",
    "select concat(ssn, '') from people",
    "select name from people where ssn like '1%'",
    "with x as (select ssn from people) select * from x",
    "update people set name = ssn",
    "create table copied as select * from people",
    "call p()",
    "select length(load_file('/etc/hostname'))",
    "select sql_no_cache * from people order by 3",
    "select distinctrow * from people",
    "select high_priority * from (select sql_no_cache * from people limit 9) x",
    "select sql_no_cache * from (select distinctrow * from people union select straight_join * from people) x",
)


def test_text(place: Place) -> None:
    """Hidden values come replaced, whatever the statement calls their column; what cannot be followed is an error."""
    with closing(pymysql.connect(**place.login, autocommit=True, read_timeout=60)) as connection, connection.cursor() as cursor:
        for sql, expected in SHOWN.items():
            cursor.execute(sql)
            assert (sql, expected) == (sql, cursor.fetchall())
        for sql in REFUSED:
            with pytest.raises(pymysql.err.MySQLError) as error:
                assert cursor.execute(sql) == cursor.fetchall()
            assert (sql, 1142) == (sql, error.value.args[0])
        with pytest.raises(pymysql.err.IntegrityError) as error:
            cursor.execute("insert into people values (3, 'c', %s)", (SECRET,))
        assert SECRET not in str(error.value)


ENCODINGS = {
    **dict.fromkeys(("utf8mb4", "utf8mb3", "null", "binary"), (True, True)),
    **dict.fromkeys(("latin1", "ascii", "koi8r", "greek"), (True, False)),
    **dict.fromkeys(("ucs2", "utf16", "utf16le", "utf32", "gbk", "swe7", "sjis"), (False, False)),
}
"""Of answers, and whether columns whose names are ASCII, and others, can be hidden in them."""


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_in_which_encoding_the_server_answers(place: Place, encoding: str) -> None:
    """It is capd that is answered so, too: where names would be others, or not all of them, nothing is shown."""
    shown = []
    for sql in ("select ssn from people where id = 1", "select `gehält` from named"):
        with (
            closing(pymysql.connect(**place.login, autocommit=True, read_timeout=60)) as connection,
            connection.cursor() as cursor,
        ):
            cursor.execute(f"set character_set_results = {encoding}")
            try:
                cursor.execute(sql)
            except pymysql.err.MySQLError as error:
                assert 1142 == error.args[0]  # noqa: PT017 - one of two things comes
                shown.append(False)
            else:
                assert cursor.fetchall() in ((("****6789",),), ((b"***",),))
                shown.append(True)
    assert ENCODINGS[encoding] == tuple(shown)


@pytest.mark.parametrize("rows", [0, 1, 2, 3, 4])
def test_how_many_rows_the_server_gives(place: Place, rows: int) -> None:
    """It is capd that is given so few, too: where columns may be missing, nothing is shown."""
    with pymysql.connect(**place.login, autocommit=True, read_timeout=60) as connection, connection.cursor() as cursor:
        cursor.execute(f"set sql_select_limit = {rows}")
        if rows > len(SHOWN["select * from people order by id"][0]):
            cursor.execute("select ssn from people where id = 1")
            assert (("****6789",),) == cursor.fetchall()
        else:
            with pytest.raises(pymysql.err.MySQLError, match="did not say"):
                cursor.execute("select ssn from people where id = 1")


def test_a_database_with_letters_that_encodings_lack(place: Place) -> None:
    """A name without a schema is one of the session's database, whatever that is called, and however answers come."""
    place.server.administer("create database if not exists `имя-ö`", "create table if not exists `имя-ö`.kept (a int)")
    with closing(pymysql.connect(**place.login, autocommit=True, read_timeout=60)) as connection, connection.cursor() as cursor:
        for sql in ("use `имя-ö`", "set character_set_results = latin1", "set sql_mode = default"):
            cursor.execute(sql)
        NAMED.clear()
        cursor.execute("select a from kept")
    assert ("имя-ö.kept", "read") in NAMED


PLANNED = (
    "create table words (id int, word varchar(20))",
    "create view agree as select w.id from people p join words w on w.word = p.ssn where p.id = 1",
)


def test_what_the_optimizer_writes_down(place: Place) -> None:
    """It puts what it has read of a table into the conditions of others, also where a view compares what is hidden."""
    place.server.administer(f"use {DATABASE}", *PLANNED)
    with closing(pymysql.connect(**place.login, autocommit=True, read_timeout=60)) as connection, connection.cursor() as cursor:
        cursor.execute("set optimizer_trace = 'enabled=on'")
        traces = []
        for _ in range(2):  # before the first capd asks about the relations, and the trace is of that
            cursor.execute("select id from agree")
            cursor.execute("select trace from information_schema.optimizer_trace")
            traces += cursor.fetchall()
    assert traces
    assert SECRET not in repr(traces)


def test_prepared(place: Place) -> None:
    """So do those of prepared statements, in the binary protocol."""
    with closing(mysql.connector.connect(**place.login, use_pure=True)) as connection:
        cursor = connection.cursor(prepared=True)
        cursor.execute("select id, ssn, name from people where id < %s order by id", (9,))
        assert [(1, "****6789", "a"), (2, None, "b")] == cursor.fetchall()
        with pytest.raises(mysql.connector.Error) as error:
            cursor.execute("select id from people where ssn = %s", (SECRET,))
        assert 1142 == error.value.errno
    assert SECRET not in repr(place.proxy.log.entries)
