"""What stands in a hidden value's place is a value of its type, in text and in binary: the server itself takes it back.

What lives here: types, ways of replacing, keyed hashes. What must not: statements.
"""

# ruff: noqa: S608, PT018 - tables by number; what may be None is none

from __future__ import annotations

from collections.abc import Iterator

import psycopg
import pytest
from psycopg.pq import ExecStatus

from capd.enforcer.masking.rows.constants import CONSTANTS
from capd.enforcer.policy.rule import Mask, Predicates, Replace
from tests.enforcer.rows.mysql_agent import MysqlAgent, connected
from tests.enforcer.rows.postgresql_agent import Agent
from tests.servers.mariadb import MariaDb

VALUES = {
    "bool": "true", "bytea": "'abcdefghij'", '"char"': "'x'", "name": "'abcdefghij'", "int2": "12345", "int4": "123456789",
    "int8": "1234567890123", "oid": "4711", "text": "'abcdefghijklm'", "varchar(20)": "'abcdefghijklm'", "varchar(3)": "'abc'",
    "char(20)": "'abcdefghijklm'", "char(2)": "'ab'", "float4": "1.5", "float8": "2.5", "numeric": "123456.789",
    "numeric(12,2)": "123456.78", "uuid": "'6ecd8c99-4036-403d-bf84-cf8400f67836'", "json": "'{\"a\": \"abcdef\"}'",
    "jsonb": "'{\"a\": \"abcdef\"}'", "xml": "'<a>abcdef</a>'", "inet": "'10.1.2.3/24'", "cidr": "'10.1.2.0/24'",
    "macaddr": "'08:00:2b:01:02:03'", "macaddr8": "'08:00:2b:01:02:03:04:05'", "date": "'2391-11-12'",
    "timestamp": "'2391-11-12 13:14:15'", "timestamptz": "'2391-11-12 13:14:15+02'", "time": "'13:14:15'",
    "timetz": "'13:14:15+02'", "interval": "'3 days 04:05:06'", "int4range": "'[11,22)'",
    "tstzrange": "'[2391-01-01,2392-01-01)'",
    "text[]": "'{abcdef,ghijkl}'", "int4[]": "'{123456,654321}'", "uuid[]": "'{6ecd8c99-4036-403d-bf84-cf8400f67836}'",
    "jsonb[]": "ARRAY['{\"a\": 1}'::jsonb]", "date[]": "'{2391-11-12}'", "point": "'(1.5,2.5)'", "money": "'12.34'",
    "bit(8)": "B'10101010'", "tsvector": "'abcdef:1'", "mood": "'sad'",
    "pair": "ROW(1,'abcdef')", "short_text": "'abcdefghijklm'",
}  # fmt: skip
EXTRA = """
CREATE TYPE mood AS ENUM ('sad', 'glad'); CREATE TYPE pair AS (a int, b text); CREATE DOMAIN short_text AS varchar(20);
"""
Connection = psycopg.Connection[tuple[object, ...]]
SERVER = {
    "tinyint": "12", "smallint": "1234", "mediumint": "123456", "int": "12345678", "bigint unsigned": "12345678901234",
    "decimal(12,2)": "123456.78", "float": "1.5", "double": "2.5", "varchar(20)": "'abcdefghijklm'", "varchar(2)": "'ab'",
    "char(20)": "'abcdefghijklm'", "text": "'abcdefghijklm'", "longtext": "'abcdefghijklm'", "json": "'{\"a\": 1}'",
    "varbinary(20)": "'abcdefghij'", "blob": "'abcdefghij'", "date": "'2391-11-12'", "datetime(6)": "'2391-11-12 13:14:15.1'",
    "timestamp": "'2031-11-12 13:14:15'", "time(3)": "'13:14:15.5'", "year": "2031", "bit(8)": "b'10101010'",
}  # fmt: skip


@pytest.fixture(scope="module")
def typed(database: str) -> Iterator[Connection]:
    """Give a connection to a table with one hidden column of each type, and one that is shown."""
    with psycopg.connect(database, autocommit=True) as connection:
        connection.execute(EXTRA.encode())
        for number, (name, value) in enumerate(VALUES.items()):
            connection.execute(f"CREATE TABLE t{number} (id int, hidden {name})".encode())
            connection.execute(f"INSERT INTO t{number} VALUES (1, {value}), (2, NULL)".encode())
        yield connection


@pytest.mark.parametrize("replace", list(Replace))
@pytest.mark.parametrize("binary", [False, True], ids=["text", "binary"])
def test_a_replacement_is_of_its_type(typed: Connection, replace: Replace, *, binary: bool) -> None:
    """Every type's replacement is taken back by the server, is not the value, and what is shown stays as it is."""
    agent = Agent(typed, (("hide", Mask(columns=("hidden",), replace=replace)),))
    for number, name in enumerate(VALUES):
        got = agent.run(f"SELECT id, hidden FROM t{number} ORDER BY id", extended=True, binary=binary)
        assert got.refused is None, (name, got)
        assert [row[0] for row in got.raw] == [row[0] for row in got.rows]
        (_, raw), (_, shown) = got.raw[0], got.rows[0]
        assert got.rows[1][1] is None
        if replace is Replace.NULL or got.fields[1].type not in CONSTANTS:
            assert shown is None, name
        if shown is None:
            continue
        assert raw != shown, name
        type_ = got.fields[1].type
        taken = agent.pgconn.exec_params(b"SELECT $1", [shown], [type_], [int(binary)], int(binary))
        assert taken.status == ExecStatus.TUPLES_OK, (name, shown, taken.error_message)
        assert taken.get_value(0, 0) == shown, name
        if name.startswith(("varchar", "char", "short")):
            limit = got.fields[1].modifier - 4
            assert len(shown) <= limit, name


def test_equal_values_have_equal_hashes(typed: Connection) -> None:
    """A hash is the same in every column, relation and format, so that agents can join by it; another key gives another."""
    typed.execute("CREATE TABLE one (a int8, b text, c uuid, d bytea); CREATE TABLE two (c int8, a text, b uuid, d bytea)")
    for table in ("one", "two"):
        typed.execute(f"INSERT INTO {table} VALUES (77, 'same', '6ecd8c99-4036-403d-bf84-cf8400f67836', 'xyz')".encode())
    agent = Agent(typed, (("hide", Mask(columns=("one.*", "two.*"), replace=Replace.HASH)),))
    first, second = (agent.run(f"SELECT * FROM {table}", extended=True).rows for table in ("one", "two"))
    assert first == second
    (binary,) = agent.run("SELECT * FROM one", extended=True, binary=True).rows
    assert binary[0] is not None and first[0][0] is not None
    assert int.from_bytes(binary[0], "big") == int(first[0][0])
    assert binary[2] is not None and first[0][2] == str.encode(
        "-".join(binary[2].hex()[a:b] for a, b in ((0, 8), (8, 12), (12, 16), (16, 20), (20, 32)))
    )


def test_partial_shows_four_characters_of_long_texts(typed: Connection) -> None:
    """The last four characters are shown of texts of eight and more, and nothing of shorter ones."""
    typed.execute("CREATE TABLE parts (hidden text); INSERT INTO parts VALUES ('12345678'), ('1234567'), ('äöü€äöü€'), ('')")
    agent = Agent(typed, (("hide", Mask(columns=("hidden",), replace=Replace.PARTIAL)),))
    rows = [row[0] for row in agent.run("SELECT hidden FROM parts").rows]
    assert [b"****5678", b"****", "****äöü€".encode(), b"****"] == rows


@pytest.mark.parametrize("replace", list(Replace))
def test_a_replacement_of_mysql_is_of_its_type(mariadb: MariaDb, replace: Replace) -> None:
    """Every type's replacement can be stored in a column of it, in text and prepared, and what is shown stays as it is."""
    with connected(mariadb, "mysql") as connection, connection.cursor() as cursor:
        cursor.execute("CREATE OR REPLACE DATABASE typed")
        cursor.execute("USE typed")
        cursor.execute("SET sql_mode = 'STRICT_ALL_TABLES'")
        masks = (("hide", Mask(columns=("hidden",), replace=replace, predicates=Predicates.ALLOW)),)
        agent = MysqlAgent(connection, "typed", masks)
        for number, (name, value) in enumerate(SERVER.items()):
            cursor.execute(f"CREATE TABLE t{number} (id int, hidden {name} NULL)")
            cursor.execute(f"INSERT INTO t{number} VALUES (1, {value}), (2, NULL)")
            got = agent.run(f"SELECT id, hidden FROM t{number} ORDER BY id")
            prepared = agent.run(f"SELECT id, hidden FROM t{number} ORDER BY id", prepared=True)
            assert [row[0] for row in prepared.raw] == [row[0] for row in prepared.rows]
            assert (None, None) == (got.rows[1][1], prepared.rows[1][1])
            shown = got.rows[0][1]
            if shown is None:
                assert prepared.rows[0][1] is None, name
                continue
            assert got.raw[0][1] != shown, name
            if name == "json":
                continue  # a text to MariaDB, whose clients are not told more
            cursor.execute(f"INSERT INTO t{number} VALUES (3, %s)", (shown,))
            again = agent.ask(f"SELECT hidden FROM t{number} WHERE id = 3")
            assert again is not None and again[0][0] is not None
            number_like = got.columns[1].type in {0, 4, 5, 246}
            assert (float(again[0][0]) == float(shown)) if number_like else again[0][0].startswith(shown[:10]), name
