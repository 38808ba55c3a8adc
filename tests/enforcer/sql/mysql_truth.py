"""What MariaDB or MySQL itself did for a statement: which tables it locked for writing and for reading.

What lives here: statements, asking the server, comparing. What must not: tests.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import TYPE_CHECKING

from capd.enforcer.proxy.mysql.judging import server_of
from capd.enforcer.sql.effect import WRITE
from capd.enforcer.sql.lexeme import Dialect
from capd.enforcer.sql.message import Message, Reader
from capd.enforcer.sql.session import new_session

if TYPE_CHECKING:
    import pymysql

SCHEMA = (
    "CREATE TABLE a (id INT PRIMARY KEY, x INT, t TEXT)",
    "CREATE TABLE b (id INT PRIMARY KEY AUTO_INCREMENT, a_id INT, y INT)",
    "CREATE TABLE `we ird` (`sel``ect` INT)",
    "CREATE TABLE logged (what TEXT)",
    "CREATE TABLE `lateral` (what TEXT)",
    "CREATE FUNCTION writes(n INT) RETURNS INT MODIFIES SQL DATA BEGIN INSERT INTO logged VALUES ('f'); RETURN n; END",
    "INSERT INTO a WITH RECURSIVE s (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM s WHERE n < 20) SELECT n, n, 'x' FROM s",
    "INSERT INTO b (a_id, y) SELECT id, id FROM a ORDER BY id",
)
STATEMENTS = (
    "SELECT 1",
    "SELECT * FROM a",
    "SELECT * FROM tried.a AS q JOIN b ON q.id = b.a_id",
    "SELECT `sel``ect` FROM `we ird`",
    "SELECT 'DELETE FROM a', \"INSERT INTO b\" FROM logged",
    "SELECT 'a\\'; DELETE FROM a; #' FROM logged",
    "SELECT 1 # DELETE FROM a\n FROM logged",
    "SELECT 1 -- DELETE FROM a\n FROM logged",
    "SELECT 1 /* DELETE FROM a */ FROM logged",
    "SELECT 2--1 FROM logged",
    "SELECT x, COUNT(*), GROUP_CONCAT(t ORDER BY t SEPARATOR ',') FROM a GROUP BY x HAVING COUNT(*) > 0 LIMIT 2, 3",
    "SELECT * FROM a WHERE EXISTS (SELECT 1 FROM b WHERE a_id = a.id) ORDER BY x DESC",
    "SELECT (SELECT MAX(y) FROM b), IF(x > 1, x, 2), IFNULL(t, 'x'), x DIV 2, x <=> 3 FROM a",
    "WITH c AS (SELECT * FROM b) SELECT * FROM c, a",
    "WITH a AS (SELECT * FROM a) SELECT * FROM a",
    "WITH RECURSIVE r AS (SELECT 1 AS n UNION ALL SELECT n + 1 FROM r WHERE n < 3) SELECT * FROM r",
    "SELECT * FROM a UNION SELECT id, a_id, y FROM b",
    "SELECT * FROM (SELECT id FROM b) AS q",
    "SELECT * FROM a FOR UPDATE",
    "SELECT * FROM a LOCK IN SHARE MODE",
    "INSERT INTO a VALUES (100, 1, 'x'), (101, 2, \"y\")",
    "INSERT INTO a (id) VALUES (102) ON DUPLICATE KEY UPDATE x = 5",
    "INSERT IGNORE INTO a (id) SELECT y + 200 FROM b",
    "INSERT INTO a SET id = 300, x = 1",
    "REPLACE INTO a VALUES (100, 5, 'z')",
    "UPDATE a SET x = 1 WHERE id = 3",
    "UPDATE a SET x = (SELECT MAX(y) FROM b) WHERE id = 3 LIMIT 1",
    "UPDATE a JOIN b ON a.id = b.a_id SET a.x = b.y",
    "DELETE FROM a WHERE id = 100 ORDER BY id LIMIT 1",
    "DELETE FROM a WHERE id IN (SELECT y + 200 FROM b)",
    "DELETE a FROM a JOIN b ON a.id = b.a_id WHERE b.y = 19",
    "DELETE FROM a USING a JOIN b ON a.id = b.a_id WHERE b.y = 18",
    "SELECT writes(1)",
    "SELECT x FROM a WHERE writes(x) > 0 LIMIT 1",
    "SELECT NOW(), CURDATE(), UUID(), CONCAT('a', 'b'), CAST('1' AS UNSIGNED), DATE_ADD(NOW(), INTERVAL 1 DAY)",
    "SELECT EXTRACT(YEAR FROM NOW()), SUBSTRING('abc' FROM 2), TRIM(BOTH 'x' FROM 'xax') FROM logged",
    "SELECT JSON_EXTRACT('{\"a\": 1}', '$.a'), RAND(), SLEEP(0) FROM logged",
    "UPDATE LOW_PRIORITY a SET x = 1 WHERE id = 16",
    "SELECT 1 FROM a, lateral b",
    "SELECT 1 FROM lateral b",
    "SELECT 8.0from a",
    "SELECT .5from a",
    "SELECT 1.from a",
    "SELECT 1e1FROM a",
    "SELECT 1e-1FROM a",
    "SELECT 1.5e1FROM a",
    "SELECT logged.what FROM logged",
    "DELETE FROM q USING a AS q WHERE q.id = 17",
    "SHOW COLUMNS FROM a",
    "SHOW CREATE TABLE a",
    "SHOW INDEX FROM a FROM tried",
    "SELECT @a := 5",
    "SELECT x INTO @b FROM a LIMIT 1",
    "SELECT 1 /*! , (SELECT MAX(y) FROM b) */ FROM logged",
    "SELECT 1 /*M! , (SELECT MAX(y) FROM b) */ FROM logged",
    "EXPLAIN SELECT * FROM a",
    "SHOW TABLES",
    "DESCRIBE a",
    "SET @x = 5",
    "SET SESSION sql_mode = 'ANSI_QUOTES'",
    'SELECT "x" FROM "a"',
    'SELECT "t" FROM a WHERE "x" = 1',
    "SET sql_mode = 'MSSQL'",
    "SELECT t [' ], (SELECT y FROM b LIMIT 1) AS ['] FROM a",
    "SET sql_mode = 'NO_BACKSLASH_ESCAPES'",
    "SELECT 'a\\' FROM logged",
    "SET sql_mode = ''",
    "SET NAMES utf8mb4",
    "SELECT 'x' FROM logged",
    "LOCK TABLES a READ",
    "UNLOCK TABLES",
    "CREATE TABLE made (i INT PRIMARY KEY, t VARCHAR(10) DEFAULT 'x', KEY k (t), j INT REFERENCES a (id))",
    "CREATE TABLE made_of AS SELECT * FROM a",
    "ALTER TABLE made ADD COLUMN n INT DEFAULT 5",
    "CREATE INDEX made_index ON made (n)",
    "CREATE VIEW made_view AS SELECT * FROM made",
    "RENAME TABLE made_of TO made_other",
    "TRUNCATE TABLE logged",
    "DROP VIEW made_view",
    "DROP TABLE made, made_other",
    "ANALYZE TABLE a",
    "CALL nothing()",
    "DO writes(1)",
    "HANDLER a OPEN",
    "START TRANSACTION",
    "COMMIT",
)
OF_MYSQL = (
    "TABLE a ORDER BY id LIMIT 2",
    "VALUES ROW(1, 2), ROW(3, 4)",
    "INSERT INTO a VALUES (100, 1, 'x') AS new ON DUPLICATE KEY UPDATE x = new.x",
    "INSERT INTO a TABLE a",
    "WITH b AS (SELECT 1) (WITH c AS (SELECT 1) TABLE b) ORDER BY 1",
    "REPLACE INTO a TABLE a",
    "CREATE TABLE copied TABLE b",
    "SELECT id FROM a INTERSECT SELECT y FROM b",
    "SELECT id FROM a EXCEPT (SELECT y FROM b)",
    "SELECT * FROM a, LATERAL (SELECT * FROM b WHERE a_id = a.id) AS q",
    "SELECT * FROM JSON_TABLE('[1]', '$[*]' COLUMNS (n INT PATH '$')) AS j, a",
    "SELECT * FROM a WHERE id MEMBER OF ('[1, 2]')",
    "SELECT * FROM a FOR UPDATE OF a SKIP LOCKED",
    "SELECT * FROM a FOR SHARE NOWAIT",
    "WITH c AS (SELECT y FROM b) UPDATE a SET x = 2 WHERE id IN (SELECT y FROM c)",
    "WITH c AS (SELECT y FROM b) DELETE FROM a WHERE id IN (SELECT y FROM c)",
    "WITH a AS (SELECT * FROM b) DELETE FROM logged WHERE what IN (SELECT id FROM a)",
    "DELETE FROM a AS q WHERE q.id = 4",
    "EXPLAIN FORMAT = TREE SELECT * FROM a",
    "EXPLAIN FORMAT = JSON INTO @plan SELECT * FROM a",
    "EXPLAIN ANALYZE SELECT * FROM a WHERE writes(x) > 0",
    "EXPLAIN ANALYZE DELETE a FROM a JOIN b ON a.id = b.a_id",
    "DESC ANALYZE SELECT * FROM a",
    "SELECT /*+ SET_VAR(sql_mode = 'ANSI_QUOTES') */ * FROM a",
    "SELECT 1 /*!80000 , (SELECT MAX(y) FROM b) */ FROM logged",
    "SELECT 1 /*!999999 , (SELECT MAX(y) FROM b) */ FROM logged",
    "SELECT VECTOR_TO_STRING(STRING_TO_VECTOR('[1, 2]')), VECTOR_DIM(TO_VECTOR('[3]')) FROM logged",
    "SELECT REGEXP_LIKE(t, 'x'), ANY_VALUE(x), BIN_TO_UUID(UUID_TO_BIN(UUID())) FROM a GROUP BY t",
    "SELECT t, x, ROW_NUMBER() OVER w, LAG(x) OVER w FROM a WINDOW w AS (PARTITION BY t ORDER BY x)",
    "SET PERSIST max_connections = 151",
    "SET @@SESSION.sql_mode = 'ANSI_QUOTES'",
    'SELECT "x" FROM "a"',
    "SET sql_mode = DEFAULT",
    "SET RESOURCE GROUP USR_default",
    "ALTER TABLE copied ADD COLUMN v VECTOR(3), ALGORITHM = INPLACE",
    "HELP 'x'",
    "EXPLAIN ANALYZE FOR SCHEMA mysql SELECT * FROM user",
    "SHOW COLUMNS FROM logged WHERE 1 IN (TABLE b)",
    "ANALYZE TABLE a UPDATE HISTOGRAM ON x",
    "CREATE FUNCTION nvl(n INT) RETURNS INT MODIFIES SQL DATA BEGIN INSERT INTO logged VALUES ('n'); RETURN n; END",
    "SELECT nvl(1)",
    "SELECT x FROM a WHERE nvl(x) = 1",
    "SELECT NVL (1)",
    "DROP FUNCTION nvl",
)
"""That only MySQL 8 and later has, or reads in its own way."""
LOCKED = """
SELECT CONCAT(object_schema, '.', object_name), lock_type FROM performance_schema.metadata_locks
 JOIN performance_schema.threads ON thread_id = owner_thread_id
 WHERE processlist_id = CONNECTION_ID() AND object_type = 'TABLE' AND object_schema = 'tried'
"""
WRITES = {"SHARED_WRITE", "SHARED_NO_READ_WRITE", "EXCLUSIVE", "SHARED_NO_WRITE", "SHARED_UPGRADABLE"}
ENDS_TRANSACTION = {"CREATE", "DROP", "ALTER", "TRUNCATE", "RENAME", "LOCK", "UNLOCK", "ANALYZE", "START", "COMMIT"}


class Truth:
    """A connection to a server on which statements are tried."""

    def __init__(self, connection: pymysql.connections.Connection[pymysql.cursors.Cursor]) -> None:
        self.connection = connection
        self.reader = Reader()
        session = new_session(Dialect.MYSQL).told_schemas(("tried",))
        version = str(self._run("SELECT VERSION()")[0][0])
        self.session = replace(session, reading=replace(session.reading, server=server_of(version)))
        self.counts: Counter[str] = Counter()
        self.wrong: list[tuple[str, str]] = []
        self.incomplete: list[tuple[str, tuple[str, ...]]] = []

    def _run(self, text: str) -> list[tuple[object, ...]]:
        with self.connection.cursor() as cursor:
            cursor.execute(text)
            return list(cursor.fetchall())

    def try_(self, text: str) -> None:
        """Run a statement, and compare what was said of it with what it did."""
        read = self.reader.read(text.encode(), self.session)
        self._run("BEGIN")
        try:
            self._run(text)
        except Exception as error:  # noqa: BLE001 - whatever the server says
            self.counts[f"refused: {error}"] += 1
        else:
            self.counts["complete" if read.complete else "incomplete"] += 1
            if not read.complete:
                self.incomplete.append((text, read.problems))
            elif read.command not in ENDS_TRANSACTION:
                self._compare(text, read)
            for one in read.statements:
                self.session = self.session.after(one, succeeded=True)
            self._check_session(text)
        self._run("UNLOCK TABLES")
        self._run("ROLLBACK")

    def _check_session(self, text: str) -> None:
        """Compare what the tracker says with the server; then tell it the truth."""
        mode, encoding, database = map(str, self._run("SELECT @@sql_mode, @@character_set_client, DATABASE()")[0])
        told = self.session.reported("sql_mode", mode).reported("character_set_client", encoding).told_schemas((database,))
        known, true = self.session.reading, told.reading
        for name in ("encoding", "plain_backslash", "double_quotes_name"):
            if getattr(known, name) not in {None, getattr(true, name)}:
                self.wrong.append((text, f"{name} is {getattr(true, name)}"))
        if self.session.names.schemas not in {None, (database,)}:
            self.wrong.append((text, f"the database is {database}"))
        self.session = told

    def _compare(self, text: str, read: Message) -> None:
        # The question itself is in the session's own way to read quotes: it has none that depend on it.
        locked = {(str(name), str(mode)) for name, mode in self._run(LOCKED)}
        written = {name for name, mode in locked if mode in WRITES}
        named = {name for name, _ in read.resources or ()}
        said = {name for name, access in read.resources or () if access == WRITE}
        if written != said and not (read.effects or frozenset()) & {"lock"}:
            self.wrong.append((text, f"writes {written}, not {said}"))
        if extra := {name for name, _ in locked} - named:
            self.wrong.append((text, f"reads {extra}"))
