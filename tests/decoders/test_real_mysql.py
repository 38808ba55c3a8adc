"""What real clients and a real MariaDB say to each other, decoded, against what the clients got."""

from __future__ import annotations

import datetime as dt
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import closing
from decimal import Decimal

import mysql.connector
import pymysql
import pytest

from capd.decoders.detect import detect
from capd.decoders.message import JsonValue, Message, ProtocolError, Skipped
from capd.decoders.mysql import MysqlDecoder
from tests.decoders.feeding import Arrival, byte_by_byte, check_spans, feed, normal
from tests.decoders.relay import Relay, relay_to
from tests.requirements import require_command
from tests.servers.mariadb import DATABASE, PASSWORD, USER, MariaDb, environment, mariadb

TABLE = "create table t (id int primary key, name varchar(20), at datetime(3), raw blob, price decimal(10,2), f float)"
FILL = "insert into t values (1, 'é 漢', '2026-01-02 03:04:05.678', x'00ff', 1.5, 1.5)"
MOMENT = dt.datetime(2026, 1, 2, 3, 4, 5, 678_000)  # noqa: DTZ001  # a datetime of MariaDB has no zone
ROW = (1, "é 漢", MOMENT, b"\0\xff", Decimal("1.50"), 1.5)
CELLS: list[JsonValue] = ["1", "é 漢", "2026-01-02 03:04:05.678", {"binary": "00ff"}, "1.50", "1.5"]
BINARY_CELLS: list[JsonValue] = [*CELLS[:2], "2026-01-02 03:04:05.678000", *CELLS[3:]]


@pytest.fixture(scope="module")
def server() -> Iterator[MariaDb]:
    """A server of this module."""
    with mariadb(["--local-infile=1"]) as running:
        running.administer(f"use {DATABASE}", TABLE, FILL)
        yield running


def decoded(arrivals: Sequence[Arrival]) -> list[Message]:
    """All messages of a conversation, which must decode whole, the same byte by byte, and never show the password."""
    seen = feed(MysqlDecoder(), arrivals)
    check_spans(arrivals, seen)
    assert normal(seen) == normal(feed(MysqlDecoder(), byte_by_byte(arrivals)))
    assert [] == [event for event in seen if isinstance(event, Skipped | ProtocolError)]
    messages = [event for event in seen if isinstance(event, Message)]
    assert [] == [message for message in messages if message.incomplete]
    assert [] == [message for message in messages if PASSWORD in repr(message)]
    return messages


def of_type(messages: Sequence[Message], kind: str) -> list[Message]:
    """The messages of a type."""
    return [message for message in messages if message.type == kind]


def rows(messages: Sequence[Message], exchange: int | None) -> list[JsonValue]:
    """The rows of a statement."""
    return [message.fields["values"] for message in of_type(messages, "Row") if message.exchange == exchange]


def connect(relay: Relay, **options: object) -> pymysql.connections.Connection[pymysql.cursors.Cursor]:
    """Connect with PyMySQL."""
    own = {"host": "127.0.0.1", "port": relay.port, "user": USER, "password": PASSWORD, "database": DATABASE}
    return pymysql.connect(**own, autocommit=True, **options)  # type: ignore[call-overload,no-any-return] # its stubs name each argument


def test_text_protocol(server: MariaDb) -> None:
    """Statements, rows, columns with where they come from, errors and changes are those that PyMySQL sent and got."""
    with relay_to(server.port) as relay, closing(connect(relay)) as connection, connection.cursor() as cursor:
        cursor.execute("select t.*, name as alias, 1 + 1 as two from t where id = %s", (1,))
        assert cursor.fetchall() == ((*ROW, "é 漢", 2),)
        with pytest.raises(pymysql.err.ProgrammingError):
            cursor.execute("select * from missing")
        cursor.execute("update t set name = name")
    messages = decoded(relay.conversations[0])
    asked = {message.summary: message.exchange for message in of_type(messages, "COM_QUERY")}
    question = "select t.*, name as alias, 1 + 1 as two from t where id = 1"
    assert [[*CELLS, "é 漢", "2"]] == rows(messages, asked[question])
    (defined,) = of_type(messages, "ColumnDefinitions")
    columns = defined.fields["columns"]
    assert isinstance(columns, list)
    kinds = ["int", "varchar", "datetime", "blob", "decimal", "float", "varchar", "int"]
    assert kinds == [column["type"] for column in columns if isinstance(column, dict)]
    origins = [(column["name"], column["table"], column["column"]) for column in columns[6:] if isinstance(column, dict)]
    assert [("alias", "t", "name"), ("two", "", "")] == origins
    (error,) = of_type(messages, "ERR")
    assert (1146, "42S02", asked["select * from missing"]) == (error.fields["code"], error.fields["state"], error.exchange)
    assert ["shop"] == [message.fields["database"] for message in of_type(messages, "HandshakeResponse")]


def test_detected(server: MariaDb) -> None:
    """The first bytes of the server are recognised; while there are none, it may be it."""
    with relay_to(server.port) as relay:
        connect(relay).close()
    first = next(data for _, data in relay.conversations[0])
    assert isinstance(first, bytes)
    assert "mysql" == detect(b"", first, None, ended=False)


def test_several_statements(server: MariaDb) -> None:
    """Results of several statements in one message are told apart, the last of them ends the exchange."""
    with (
        relay_to(server.port) as relay,
        closing(connect(relay, client_flag=1 << 16)) as connection,
        connection.cursor() as cursor,
    ):
        cursor.execute("select 1; update t set name = name; select 2, 3")
        connection.ping()
    messages = decoded(relay.conversations[0])
    (query,) = [message for message in of_type(messages, "COM_QUERY") if "update" in message.summary]
    assert [["1"], ["2", "3"]] == rows(messages, query.exchange)
    (ping,) = of_type(messages, "COM_PING")
    assert "OK" == next(message.type for message in messages if message.exchange == ping.exchange and message is not ping)


def test_file_of_the_client(server: MariaDb) -> None:
    """The file that a server asks for, and its content, are those that the client sent."""
    path = server.directory / "load.txt"
    text = "".join(f"{number}\tname {number}\n" for number in range(10, 3_000))
    path.write_text(text, encoding="ascii")
    with (
        relay_to(server.port) as relay,
        closing(connect(relay, local_infile=True)) as connection,
        connection.cursor() as cursor,
    ):
        cursor.execute("create temporary table loaded (id int, name varchar(20))")
        cursor.execute(f"load data local infile '{path}' into table loaded")
        cursor.execute("select count(*) from loaded")
    messages = decoded(relay.conversations[0])
    assert [str(path)] == [message.fields["file"] for message in of_type(messages, "LocalInfileRequest")]
    assert text.encode() == b"".join(message.content for message in of_type(messages, "LocalInfileData"))
    assert [["2990"]] == rows(messages, of_type(messages, "COM_QUERY")[-1].exchange)


def test_prepared_statements(server: MariaDb) -> None:
    """Values and rows of the binary protocol are those that the connector sent and got, statement by statement."""
    with relay_to(server.port) as relay:
        own = {"host": "127.0.0.1", "port": relay.port, "user": USER, "password": PASSWORD, "database": DATABASE}
        connection = mysql.connector.connect(**own, use_pure=True, ssl_disabled=True)
        with closing(connection), closing(connection.cursor(prepared=True)) as cursor:
            for number in (1, 2):
                cursor.execute("select * from t where id = %s and name <> %s", (number, "none"))
                assert [ROW] * (number == 1) == cursor.fetchall()
    messages = decoded(relay.conversations[0])
    executions = of_type(messages, "COM_STMT_EXECUTE")
    assert [["1", "none"], ["2", "none"]] == [message.fields["parameters"] for message in executions]
    assert {"select * from t where id = ? and name <> ?"} == {message.summary for message in executions}
    assert [[BINARY_CELLS], []] == [rows(messages, message.exchange) for message in executions]


def test_server_cursor(server: MariaDb) -> None:
    """Rows that are fetched one by one belong to the statement that was prepared."""
    with relay_to(server.port) as relay, closing(connect(relay)) as connection, connection.cursor() as cursor:
        cursor.execute("prepare p from 'select ? + 1'")
        cursor.execute("set @a = 4")
        cursor.execute("execute p using @a")
        assert cursor.fetchall() == ((5,),)
    messages = decoded(relay.conversations[0])
    assert [["5"]] == rows(messages, of_type(messages, "COM_QUERY")[-1].exchange)


def test_the_servers_own_clients(server: MariaDb) -> None:
    """The command line and the dump, with MariaDB's extended capabilities, decode whole; rows are what they printed."""
    require_command("mariadb", "mariadb-dump")
    with relay_to(server.port) as relay:
        own = ["--no-defaults", "--skip-ssl", "--host=127.0.0.1", f"--port={relay.port}", f"--user={USER}", DATABASE]
        script = "select id, name from t; show warnings; select * from missing;"
        command = ["mariadb", *own, "--batch", "--skip-column-names", "--default-character-set=utf8mb4", "-e", script]
        printed = subprocess.run(command, check=False, capture_output=True, text=True, env=environment())
        dump = subprocess.run(["mariadb-dump", *own], check=True, capture_output=True, env=environment())
    assert "1\té 漢\n" == printed.stdout
    assert b"INSERT INTO `t`" in dump.stdout
    spoken, dumped = (decoded(arrivals) for arrivals in relay.conversations)
    (query,) = [message for message in of_type(spoken, "COM_QUERY") if message.summary.startswith("select id")]
    assert [CELLS[:2]] == rows(spoken, query.exchange)
    assert [1146] == [message.fields["code"] for message in of_type(spoken, "ERR")]
    assert [message for message in of_type(dumped, "COM_QUERY") if "SQL_NO_CACHE" in message.summary]


def test_wrong_password(server: MariaDb) -> None:
    """A refused login shows as its error, and not the password."""
    with relay_to(server.port) as relay, pytest.raises(pymysql.err.OperationalError):
        pymysql.connect(host="127.0.0.1", port=relay.port, user=USER, password="wrong-" + PASSWORD)
    errors = of_type(decoded(relay.conversations[0]), "ERR")
    assert [(1045, "28000", 0)] == [(message.fields["code"], message.fields["state"], message.exchange) for message in errors]
