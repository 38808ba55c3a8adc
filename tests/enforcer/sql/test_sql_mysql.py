"""What statements of MySQL and MariaDB do, as their text says (beside the servers themselves: test_sql_mysql_servers.py)."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from capd.enforcer.sql.lexeme import Dialect, Server
from capd.enforcer.sql.message import Message, Reader
from capd.enforcer.sql.session import new_session

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
    ("SELECT a.1b, 1.5, .5, 1e5, 1.e5, 5e-3 FROM a WHERE x=1.5", {"select"}, {"d.a"}, set()),
    ("CREATE OR REPLACE TABLE a (x INT)", {"define", "drop"}, set(), {"d.a"}),
    ("CREATE TABLE a SELECT x FROM b UNION SELECT y FROM c", {"define", "insert", "select"}, {"d.b", "d.c"}, {"d.a"}),
    ("CREATE TABLE a (x INT REFERENCES c (y)) SELECT 1 AS x", {"define", "insert", "select"}, set(), {"d.a", "d.c"}),
    ("SHOW FULL COLUMNS FROM a FROM e LIKE 'x'", {"select"}, {"e.a"}, set()),
    ("SELECT * FROM a, LATERAL (SELECT 1) AS q", {"select"}, {"d.a"}, set()),
    ("CREATE TABLE a (x INT) PARTITION BY RANGE COLUMNS (x) (PARTITION p VALUES LESS THAN (5))", {"define"}, set(), {"d.a"}),
    ("SHOW INDEX FROM a", {"select"}, {"d.a"}, set()),
    ("SHOW CREATE TABLE e.a", {"select"}, {"e.a"}, set()),
    ("SHOW GRANTS", {"select"}, {"mysql.user"}, set()),
    ("SHOW GRANTS FOR root", {"select"}, {"mysql.user"}, set()),
    ("SHOW CREATE USER", {"select"}, {"mysql.user"}, set()),
    ("SHOW CREATE USER a@'%'", {"select"}, {"mysql.user"}, set()),
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
    "SHOW BINLOG EVENTS",
    "SHOW FULL PROCESSLIST",
    "CREATE TABLE a (b INT) ENGINE = CONNECT TABLE_TYPE = DOS FILE_NAME = '/etc/passwd'",
    "ALTER TABLE a ENGINE SPIDER",
    "SET default_storage_engine = CONNECT",
    "SELECT 8.0from a",
    "SELECT .5from a",
    "SELECT 1e1FROM a",
    "SELECT 1e-1FROM a",
    "SELECT 1.5e1FROM a",
    "SELECT * FROM `\u0130`",
    "DELETE FROM a USING b AS a",
    "SELECT @\nFROM (a)",
    "UPDATE LOW_PRIORITY a SET x = 1",
    "SELECT * FROM a, lateral b",
    "SELECT * FROM lateral b",
    "SELECT y [' ], (SELECT x FROM b) AS ['] FROM a",
    "WITH b AS (SELECT 1) (WITH a AS (SELECT 1) TABLE b) ORDER BY 1",
    "SHOW TABLES WHERE less(1)",
    "SHOW TABLES WHERE than(1) OR fields(1)",
    "SELECT 1 FROM a GROUP BY x, rollup(1)",
    "INSERT INTO a SET x = rollup(1)",
    "SELECT lateral(1), against(1), always(1), generated(1)",
    "EXPLAIN ANALYZE FOR SCHEMA e SELECT * FROM a",
    "EXPLAIN FORMAT = TREE FOR DATABASE e SELECT * FROM a",
    "CREATE TABLE a AS TABLE b",
    "CREATE TABLE a TABLE b",
    "CREATE TABLE a WITH x AS (TABLE b) TABLE x",
    "CREATE TABLE a VALUES ROW((TABLE b))",
    "CREATE TABLE a (SELECT * FROM b)",
    "CREATE TABLE a (x INT) ENGINE = FEDERATED SELECT * FROM b",
    "CREATE TABLE a (x INT DEFAULT (f(1))) SELECT * FROM b",
    "CREATE TABLE a (x INT DEFAULT (NEXT VALUE FOR b))",
    "ALTER TABLE a ALTER x SET DEFAULT (PREVIOUS VALUE FOR b)",
    "ALTER TABLE a CONVERT TABLE b TO PARTITION p VALUES LESS THAN (5)",
    "ALTER TABLE a CONVERT PARTITION p TO TABLE b",
    "SHOW COLUMNS FROM a WHERE 1 IN (TABLE b)",
    "SHOW TABLES WHERE 1 IN (WITH x AS (VALUES ROW(1)) TABLE x)",
]


@pytest.mark.parametrize("sql", UNCERTAIN, ids=range(len(UNCERTAIN)))
def test_what_is_not_known_is_not_complete(sql: str) -> None:
    """What nobody can see through, or capd does not understand, is never called complete."""
    assert () != read(sql).problems


ON_MARIADB = replace(SESSION, reading=replace(SESSION.reading, server=Server(mariadb=True, version=101_119)))
EXECUTED = [
    ("/*!40100 SET @@SQL_MODE='' */", {"session"}, set()),
    ("/*M!100100 SET WAIT_TIMEOUT=DEFAULT */", {"session"}, set()),
    ("SELECT /*!40001 SQL_NO_CACHE */ `x` FROM `a`", {"select"}, {"d.a"}),
    ("SELECT 1 /*! UNION SELECT * FROM b */", {"select"}, {"d.b"}),
    ("LOCK TABLES a READ /*!32311 LOCAL */", {"lock"}, {"d.a"}),
    ("/*!101119 DROP TABLE a */", {"drop"}, {"d.a"}),
    ("SELECT '/*!40000 */' FROM a", {"select"}, {"d.a"}),
    ("SET sql_mode = CONCAT(@@sql_mode, ',STRICT_TRANS_TABLES')", {"session"}, set()),
    ("SET @old = @@sql_mode", {"session"}, set()),
]


@pytest.mark.parametrize(("sql", "effects", "relations"), EXECUTED)
def test_comments_that_mariadb_executes(sql: str, effects: set[str], relations: set[str]) -> None:
    """Where the server is known to be MariaDB, and executes a comment, what stands in it counts."""
    found = READER.read(sql.encode(), ON_MARIADB)
    assert (effects, relations, ()) == (set(found.effects or ()), {name for name, _ in found.resources or ()}, found.problems)


NOT_EXECUTED = [
    "/*!50701 DROP TABLE a */ SELECT 1",
    "/*!101120 DROP TABLE a */ SELECT 1",
    "/*M!999999 DROP TABLE a */ SELECT 1",
    "SELECT /*+ x */ 1",
    "SELECT 1 /*!40000 ; DROP TABLE a */",
    "SELECT 1 /*!40000 /* x */ */",
    "SELECT 1 /*!40000 /*!40000 x */ */",
    "SELECT 1 /*!40000",
    "SELECT 1 /*m!40000 */",
    "SELECT 1 */ 2",
    "SET sql_mode = CONCAT(@@sql_mode, f())",
    "SET sql_mode = LOWER('x')",
]


@pytest.mark.parametrize("sql", NOT_EXECUTED)
def test_comments_that_may_not_be_executed(sql: str) -> None:
    """Everything else about comments stays not complete."""
    assert () != READER.read(sql.encode(), ON_MARIADB).problems


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
