"""What statements of MySQL and MariaDB do, as their text says, and as a real MariaDB says."""

from __future__ import annotations

import pymysql
import pytest
from hypothesis import given
from hypothesis import strategies as st

from capd.enforcer.sql import mysql_scanner
from capd.enforcer.sql.lexeme import MYSQL_DEFAULT, Dialect
from capd.enforcer.sql.message import Message, Reader
from capd.enforcer.sql.session import new_session
from capd.enforcer.sql.statement import split
from tests.enforcer.sql import mysql_truth

READER = Reader()
SESSION = new_session(Dialect.MYSQL).told_schemas(("d",))


def read(sql: str) -> Message:
    """Give what a message does."""
    return READER.read(sql.encode(), SESSION)


CERTAIN = [
    ("SELECT * FROM a", {"select"}, {"d.a"}, set()),
    ("select * from `e`.`a b`", {"select"}, {"e.a b"}, set()),
    ("INSERT INTO a VALUES (1), (2)", {"insert"}, set(), {"d.a"}),
    ("REPLACE INTO a SELECT * FROM b", {"insert", "delete", "select"}, {"d.b"}, {"d.a"}),
    ("INSERT INTO a VALUES (1) ON DUPLICATE KEY UPDATE x = 1", {"insert", "update"}, set(), {"d.a"}),
    ("DELETE FROM a WHERE x = 'a\\'b'", {"delete"}, set(), {"d.a"}),
    ("SELECT LOAD_FILE('/etc/passwd')", {"select", "file"}, set(), set()),
    ("USE e", {"session"}, set(), set()),
    ("DROP TABLE a, e.b", {"drop"}, set(), {"d.a", "e.b"}),
    ("SELECT 1 # ' \n", {"select"}, set(), set()),
]


@pytest.mark.parametrize(("sql", "effects", "reads", "writes"), CERTAIN)
def test_effects_are_known(sql: str, effects: set[str], reads: set[str], writes: set[str]) -> None:
    """Of these statements all is known."""
    found = read(sql)
    found_effects = set(found.effects or ())
    by_access = {access: {name for name, of in found.resources or () if of == access} for access in ("read", "write")}
    assert [effects, reads, writes] == [found_effects, by_access["read"], by_access["write"]]
    assert () == found.problems


UNCERTAIN = [
    "/*!50000 DROP TABLE a */",
    "SELECT 1 /*! UNION SELECT * FROM b */",
    "SELECT /*+ SET_VAR(sql_mode='ANSI_QUOTES') */ 1",
    "/*M! DROP TABLE a */",
    "CALL p()",
    "DO SLEEP(1)",
    "PREPARE p FROM 'DROP TABLE a'",
    "EXECUTE p",
    "SELECT f(1)",
    "SELECT d.f(1)",
    "SELECT now ()",
    "SELECT * INTO OUTFILE '/tmp/x' FROM a",
    "SELECT x INTO @a FROM a",
    "SELECT @a := 1",
    "LOAD DATA INFILE '/etc/passwd' INTO TABLE a",
    "HANDLER a OPEN",
    "SET GLOBAL x = 1",
    "SET PASSWORD = 'x'",
    "SET @a = (SELECT 1)",
    "GRANT ALL ON *.* TO x",
    "KILL 1",
    "CREATE PROCEDURE p() BEGIN DELETE FROM a; SELECT 1; END",
    "CREATE TRIGGER t AFTER INSERT ON a FOR EACH ROW DELETE FROM b",
    "BEGIN NOT ATOMIC DELETE FROM a; END",
    "SELECT _gbk'x\\'",
    "SELECT 'x",
    "SELECT `x",
    "SELECT /* x",
    "SET sql_mode = 'ANSI_QUOTES'; SELECT \"a\" FROM b",
    "SET NAMES gbk; SELECT 'x'",
    "DELETE a, b FROM a JOIN b",
    "UPDATE a, b SET x = 1",
    "",
]


@pytest.mark.parametrize("sql", UNCERTAIN, ids=range(len(UNCERTAIN)))
def test_what_is_not_known_is_not_complete(sql: str) -> None:
    """What nobody can see through, or capd does not understand, is never called complete."""
    assert () != read(sql).problems


WORDS = """
select insert into update delete from where a b . ( ) , ; * = 'x' "y" `z` 1 ? \\\\ ' " ` # -- /* */ /*! @a @@b := set
use replace values join on _gbk x'00' \\\\N
"""
PIECES = st.sampled_from([*WORDS.split(), "\n", " ", "\0", "\xe9"])
SQL = st.lists(PIECES, max_size=30).map(" ".join) | st.lists(PIECES, max_size=30).map("".join) | st.text(max_size=60)


@given(SQL)
def test_reading_never_fails(sql: str) -> None:
    """Whatever is said, something is known of it, or why not."""
    found = READER.read(sql.encode("utf-8", "surrogatepass"), SESSION)
    assert (found.effects is not None) or found.problems


def test_capd_is_never_sure_and_wrong(mysql: pymysql.connections.Connection[pymysql.cursors.Cursor]) -> None:
    """Statements lock the tables of a real MariaDB that capd says, or are not complete."""
    truth = mysql_truth.Truth(mysql)
    with mysql.cursor() as cursor:
        for text in mysql_truth.SCHEMA:
            cursor.execute(text)
    for text in mysql_truth.STATEMENTS:
        truth.try_(text)
    assert [] == truth.wrong, "\n".join(map(str, truth.wrong))
    assert truth.counts["complete"] >= len(mysql_truth.STATEMENTS) * 0.7, (truth.counts, truth.incomplete)


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
def test_statements_are_split_as_the_server_does(mariadb: dict[str, str], sql: str, count: int) -> None:
    """A message has as many statements for capd as for a real MariaDB."""
    flag = pymysql.constants.CLIENT.MULTI_STATEMENTS
    connection = pymysql.connect(unix_socket=mariadb["unix_socket"], user="root", client_flag=flag)
    with connection, connection.cursor() as cursor:
        cursor.execute(sql)
        results = 1
        while cursor.nextset():
            results += 1
    assert (count, count) == (results, len(split(mysql_scanner.scan(sql.encode(), MYSQL_DEFAULT), Dialect.MYSQL)))
