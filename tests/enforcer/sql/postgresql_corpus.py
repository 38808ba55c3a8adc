"""Statements for a real PostgreSQL: a schema with what schemas have, and statements over it, by hand and made.

What lives here: the statements. What must not: what they do.
"""

# ruff: noqa: S608 - statements are what is made here
from __future__ import annotations

import random
from collections.abc import Iterator

SCHEMA = """
CREATE SCHEMA s;
CREATE TABLE a (id int PRIMARY KEY, x int DEFAULT 1, t text, j jsonb);
CREATE TABLE b (id serial PRIMARY KEY, a_id int REFERENCES a (id) ON DELETE CASCADE, y int, t text);
CREATE TABLE s.c (id int GENERATED ALWAYS AS IDENTITY, z int, a int);
CREATE TABLE parts (k int, v text) PARTITION BY RANGE (k);
CREATE TABLE parts_low PARTITION OF parts FOR VALUES FROM (0) TO (100);
CREATE TABLE parts_high PARTITION OF parts DEFAULT;
CREATE TABLE parent (id int, x int);
CREATE TABLE child (extra int) INHERITS (parent);
CREATE VIEW v AS SELECT id, x FROM a;
CREATE MATERIALIZED VIEW mv AS SELECT count(*) AS n FROM b;
CREATE SEQUENCE q;
CREATE TABLE "We ird" ("A a" int, "select" int);
CREATE TABLE logged (what text);
CREATE FUNCTION writes(int) RETURNS int LANGUAGE sql AS 'INSERT INTO logged VALUES (''f''); SELECT $1';
CREATE FUNCTION writes_rows() RETURNS SETOF record LANGUAGE sql AS 'INSERT INTO logged VALUES (''g'') RETURNING 1';
CREATE FUNCTION conflict(int) RETURNS boolean LANGUAGE sql AS 'INSERT INTO logged VALUES (''c''); SELECT true';
CREATE FUNCTION materialized(int) RETURNS boolean LANGUAGE sql AS 'INSERT INTO logged VALUES (''m''); SELECT true';
CREATE FUNCTION second(text) RETURNS text LANGUAGE sql AS 'INSERT INTO logged VALUES (''s''); SELECT ''a''';
CREATE FUNCTION columns(int) RETURNS int LANGUAGE sql AS 'INSERT INTO logged VALUES (''o''); SELECT 1';
CREATE FUNCTION length(a) RETURNS int LANGUAGE sql AS 'INSERT INTO logged VALUES (''n''); SELECT 1';
CREATE FUNCTION log_it() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN INSERT INTO logged VALUES (''t''); RETURN NULL; END';
CREATE TABLE watched (x int);
CREATE TRIGGER w AFTER INSERT ON watched FOR EACH ROW EXECUTE FUNCTION log_it();
CREATE TABLE ruled (x int);
CREATE RULE r AS ON INSERT TO ruled DO ALSO INSERT INTO logged VALUES ('r');
INSERT INTO a SELECT n, n, 'x' || n, '{"k": 1}' FROM generate_series(1, 20) AS n;
INSERT INTO b (a_id, y, t) SELECT n, n, 'y' FROM generate_series(1, 20) AS n;
INSERT INTO s.c (z, a) SELECT n, n FROM generate_series(1, 20) AS n;
INSERT INTO parts SELECT n, 'p' FROM generate_series(1, 200, 10) AS n;
INSERT INTO parent VALUES (1, 1);
INSERT INTO child VALUES (2, 2, 2);
"""

BY_HAND = """
SELECT writes(1);
SELECT x FROM a WHERE writes(x) > 0 LIMIT 1;
SELECT * FROM writes(1);
SELECT * FROM a, writes_rows() AS (x int);
SELECT length(a) FROM a;
SELECT DISTINCT ON (x) writes(x) FROM a;
SELECT 1 OPERATOR(pg_catalog.+) writes(2);
SELECT NOT materialized(1);
SELECT nextval('s'::text || '.c_id_seq');
SELECT 1 FROM a WHERE 'a' SIMILAR TO second('b');
SELECT sum(x) OVER (ORDER BY x RANGE columns(5) PRECEDING) FROM a;
SELECT * FROM a JOIN b ON conflict(1);
SELECT * FROM ONLY (parent);
WITH q (x) AS (VALUES (1)), r (y) AS (SELECT x FROM q) SELECT * FROM r;
UPDATE pg_settings SET setting = 's' WHERE name = 'search_path';
SELECT * FROM s.c;
SET search_path TO public;
SELECT * FROM ROWS FROM (writes(1), generate_series(1, 2)) AS t (a, b);
WITH d AS (DELETE FROM b WHERE y = 1 RETURNING *) SELECT count(*) FROM d;
WITH d AS (DELETE FROM b WHERE y = 2 RETURNING *), i AS (INSERT INTO logged SELECT t FROM d RETURNING 1) SELECT 1;
WITH a AS (SELECT * FROM b) SELECT * FROM a;
WITH a AS (SELECT * FROM a) SELECT * FROM a;
WITH a AS (SELECT 1 AS id) SELECT * FROM (WITH b AS (SELECT * FROM a) SELECT * FROM b) AS sub, s.c AS c;
WITH a AS (SELECT 1 AS id) DELETE FROM a USING b WHERE a.id = b.id AND a.id = 100;
WITH a AS (SELECT 1 AS id) INSERT INTO logged SELECT id::text FROM a;
WITH RECURSIVE r (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM r WHERE n < 3) SELECT * FROM r;
WITH RECURSIVE a AS (SELECT id FROM b UNION SELECT a.id FROM a JOIN s.c ON c.id = a.id) SELECT count(*) FROM a;
SELECT * FROM a WHERE EXISTS (SELECT 1 FROM b WHERE a_id = a.id AND y IN (SELECT z FROM s.c));
SELECT (SELECT max(y) FROM b), ARRAY(SELECT z FROM s.c), x FROM a;
SELECT * FROM a, LATERAL (SELECT * FROM b WHERE a_id = a.id) AS l;
SELECT * FROM (a JOIN b ON a.id = b.a_id) JOIN s.c USING (id);
SELECT * FROM ONLY parent;
SELECT * FROM parent *;
SELECT id INTO new_one FROM a;
SELECT id INTO TEMP TABLE temp_one FROM a;
INSERT INTO temp_one VALUES (1);
CREATE TEMP TABLE a AS SELECT 1 AS id;
SELECT * FROM a;
DROP TABLE a;
SELECT count(*) FROM a;
CREATE TABLE pg_temp.b (x int);
SELECT * FROM b;
DROP TABLE pg_temp.b;
TABLE a;
VALUES (1, (SELECT max(id) FROM a));
SELECT * FROM a UNION SELECT * FROM a EXCEPT SELECT * FROM a WHERE id IN (SELECT id FROM b);
SELECT * FROM v;
SELECT * FROM mv;
REFRESH MATERIALIZED VIEW mv;
SELECT * FROM parts WHERE k = 5;
INSERT INTO parts VALUES (7, 'x');
UPDATE parts SET k = 150 WHERE k = 7;
DELETE FROM parts WHERE k = 150;
UPDATE parent SET x = 3;
DELETE FROM ONLY parent WHERE id = 99;
UPDATE v SET x = 5 WHERE id = 1;
INSERT INTO watched VALUES (1);
INSERT INTO ruled VALUES (1);
INSERT INTO b (a_id, y) VALUES (3, 3) RETURNING id;
INSERT INTO a (id) VALUES (1) ON CONFLICT (id) DO UPDATE SET x = excluded.x, t = (SELECT max(t) FROM b) WHERE a.x > 0;
INSERT INTO a (id) VALUES (1) ON CONFLICT DO NOTHING;
INSERT INTO a AS q (id) SELECT 1000 + z FROM s.c WHERE NOT EXISTS (SELECT 1 FROM a WHERE id = 1000 + z);
INSERT INTO s.c (id, z) OVERRIDING SYSTEM VALUE VALUES (900, 1);
INSERT INTO logged DEFAULT VALUES;
UPDATE a SET x = b.y FROM b WHERE b.a_id = a.id;
UPDATE a SET (x, t) = (SELECT y, t FROM b WHERE b.a_id = a.id LIMIT 1) WHERE id < 3;
UPDATE a SET x = 1 FROM (SELECT z FROM s.c) AS c WHERE c.z = a.id;
DELETE FROM b USING a, s.c WHERE b.a_id = a.id AND c.id = a.id AND a.id = 19;
DELETE FROM a WHERE id = 20;
MERGE INTO a USING b ON a.id = b.a_id WHEN MATCHED AND b.y > 5 THEN UPDATE SET x = y WHEN MATCHED THEN DO NOTHING
 WHEN NOT MATCHED THEN INSERT (id) VALUES (b.id + 5000);
MERGE INTO s.c USING (SELECT id FROM a) AS q ON q.id = c.z WHEN MATCHED THEN DELETE;
SELECT * FROM a WHERE id = 1 FOR UPDATE;
SELECT * FROM a JOIN b ON a.id = b.a_id FOR SHARE OF b;
SELECT * FROM a FOR NO KEY UPDATE SKIP LOCKED;
LOCK TABLE a IN SHARE MODE;
TRUNCATE logged;
TRUNCATE a CASCADE;
SELECT nextval('q'), setval('q', 5), currval('q');
SELECT nextval('s.c_id_seq');
SELECT nextval('b_id_seq'::regclass);
SELECT x::regclass FROM (VALUES ('a')) AS t (x);
SELECT "A a", "select" FROM "We ird" AS "x y";
DELETE FROM "We ird" WHERE "select" = 1;
SELECT 'DELETE FROM a', $$INSERT INTO b$$, E'\\'; DROP TABLE a; --' FROM logged;
SELECT 1 /* DELETE FROM a /* nested */ */ FROM logged -- DELETE FROM b
;
SELECT extract(year FROM now()), substring('abc' FROM 2 FOR 1), trim(BOTH 'x' FROM 'xax'), position('a' IN 'ba') FROM logged;
SELECT overlay('abc' PLACING 'x' FROM 2), x IS DISTINCT FROM 1, x IS NOT DISTINCT FROM id FROM a;
SELECT count(*) FILTER (WHERE x > 1), sum(x) OVER (PARTITION BY t ORDER BY id) FROM a GROUP BY x, t, id;
SELECT j ->> 'k', j @> '{}', j ? 'k', j #>> '{k}', j || '{}' FROM a;
SELECT box '(1,2,3,4)', interval '1 day', date '2020-01-01', int4 '1', '1'::int8 FROM a;
SELECT * FROM a ORDER BY x USING <, id DESC NULLS LAST FETCH FIRST 2 ROWS WITH TIES;
SELECT * FROM a TABLESAMPLE system (10) REPEATABLE (1);
SELECT percentile_cont(0.5) WITHIN GROUP (ORDER BY x) FROM a;
SELECT x, count(*) FROM a GROUP BY GROUPING SETS ((x), ());
SELECT x, count(*) FROM a GROUP BY ROLLUP (x), CUBE (t);
SELECT * FROM generate_series(1, 3) WITH ORDINALITY AS g (n, o);
SELECT * FROM unnest(ARRAY[1, 2]) AS u (n), json_to_recordset('[]') AS r (a int, b text);
SELECT id = ANY (SELECT y FROM b), id > ALL (ARRAY[1]) FROM a;
SELECT row_to_json(a) FROM a;
SELECT a.* FROM a;
SELECT (a).x FROM a;
SELECT CASE WHEN x > 1 THEN (SELECT max(id) FROM b) ELSE 0 END FROM a;
SELECT set_config('search_path', 's, public', false);
SELECT * FROM c;
SET search_path TO public;
SELECT * FROM s.c;
SET search_path TO s, public;
SELECT * FROM c, a;
INSERT INTO c (z) VALUES (5);
CREATE TABLE made (i int);
RESET search_path;
SELECT * FROM s.made;
EXPLAIN DELETE FROM a;
EXPLAIN ANALYZE DELETE FROM a WHERE id = 15;
EXPLAIN (ANALYZE, COSTS off) UPDATE a SET x = 2 WHERE id = 14;
EXPLAIN (ANALYZE false) UPDATE a SET x = 2 WHERE id = 14;
COPY a TO STDOUT;
COPY logged FROM STDIN;
COPY (SELECT * FROM b) TO STDOUT WITH CSV;
COPY (DELETE FROM b WHERE id = 5 RETURNING *) TO STDOUT;
DECLARE cur CURSOR FOR SELECT * FROM a;
CREATE TABLE made_of AS SELECT a.id, b.y FROM a JOIN b ON a.id = b.a_id WITH NO DATA;
CREATE TABLE made_like (LIKE a INCLUDING ALL, extra int CHECK (extra > 0) REFERENCES a (id));
CREATE VIEW made_view AS SELECT * FROM made_like WHERE EXISTS (SELECT 1 FROM b);
CREATE INDEX ON a (lower(t), (x + 1)) WHERE x > 0;
CREATE UNIQUE INDEX made_index ON made_like USING btree (id);
CREATE SEQUENCE made_sequence OWNED BY made_like.extra;
CREATE TYPE made_type AS ENUM ('a', 'b');
CREATE DOMAIN made_domain AS int CHECK (VALUE > 0);
CREATE SCHEMA made_schema;
ALTER TABLE made_like ADD COLUMN n int DEFAULT 5, DROP COLUMN t;
ALTER TABLE made_like ALTER COLUMN x TYPE bigint USING x + 1;
ALTER TABLE made_like RENAME TO made_other;
ALTER TABLE made_other ADD CONSTRAINT fk FOREIGN KEY (x) REFERENCES made_of (id);
COMMENT ON TABLE a IS 'x';
COMMENT ON COLUMN s.c.z IS 'x';
GRANT SELECT, UPDATE (x) ON a TO PUBLIC;
REVOKE ALL ON a FROM PUBLIC;
ANALYZE a;
DROP VIEW made_view;
DROP TABLE made_other, s.made;
DO 'BEGIN DELETE FROM logged; END';
SELECT query_to_xml('DELETE FROM logged', true, true, '');
SELECT table_to_xml('b', true, true, '');
SELECT * FROM pg_class, pg_catalog.pg_attribute LIMIT 1;
SELECT * FROM information_schema.tables LIMIT 1;
SELECT current_user, current_date, localtime, session_user, current_schema FROM logged;
SELECT pg_advisory_lock(1);
SELECT pg_relation_size('a');
NOTIFY x, 'y';
SHOW search_path;
"""

_RELATIONS = ("a", "b", "s.c", "parts", "parent", "v", '"We ird"', "logged", "public.a")
_WRITABLE = {"a": "x", "b": "y", "s.c": "z", "parent": "x", "public.a": "x", "child": "extra"}


class Maker:
    """Makes statements from a seed: the same ones each time."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)
        self._number = 0

    def statements(self, count: int) -> Iterator[str]:
        """Give some statements, most of which a server takes."""
        for _ in range(count):
            make = self._random.choice((self.query, self.query, self.insert, self.update, self.delete, self.merge, self.odd))
            yield make(self._random.randint(0, 3))

    def _one(self, *words: str) -> str:
        return self._random.choice(words)

    def _alias(self) -> str:
        self._number += 1
        return self._one(f"t{self._number}", f'"T {self._number}"', f"T{self._number}")

    def _blank(self) -> str:
        return self._one(" ", " ", "\n", "\t", " /* DELETE FROM a; */ ", " -- INSERT INTO b\n", " /* /* */ ' */ ")

    def _literal(self) -> str:
        words = (
            "1",
            "-2",
            "'x'",
            "$$y;$$",
            "$q$ ' $q$",
            "E'\\'z'",
            "NULL",
            "now()",
            "'1'::int",
            "2.5",
            "'a''b'",
            "upper('x')",
        )
        return self._one(*words)

    def from_(self, depth: int) -> str:
        """Give one thing of FROM."""
        alias = self._alias()
        if depth <= 0 or self._random.random() < 0.5:
            return f"{self._one(*_RELATIONS)}{self._blank()}AS {alias}"
        inner = depth - 1
        return self._one(
            f"({self.query(inner)}) AS {alias}",
            f"LATERAL ({self.query(inner)}) {alias}",
            f"{self.from_(inner)} LEFT JOIN {self.from_(inner)} ON {self.condition(inner)}",
            f"({self.from_(inner)} CROSS JOIN {self.from_(inner)})",
            f"generate_series(1, 2) AS {alias}(n)",
            f"ONLY {self._one('parent', 'a', 'b')} {alias}",
        )

    def condition(self, depth: int) -> str:
        """Give a condition."""
        if depth <= 0 or self._random.random() < 0.4:
            return self._one(f"{self._literal()} IS NOT NULL", "true", "1 = 1", "2 IN (1, 2, 3)", "1 IS DISTINCT FROM 2")
        inner = depth - 1
        return self._one(
            f"EXISTS{self._blank()}({self.query(inner)})",
            f"NOT ({self.condition(inner)})",
            f"({self.condition(inner)} OR {self.condition(inner)})",
            f"(SELECT count(*) FROM {self.from_(inner)}) >= 0",
            f"1 = ANY (SELECT 1 FROM {self.from_(inner)} WHERE {self.condition(inner)})",
        )

    def query(self, depth: int) -> str:
        """Give a query."""
        blank = self._blank()
        plain = f"SELECT{blank}1 AS one FROM {self.from_(depth - 1)}{blank}WHERE {self.condition(depth - 1)}"
        if depth <= 0:
            return f"SELECT {self._literal()}::text IS NULL AS one FROM {self._one(*_RELATIONS)}"
        name = self._one("a", "b", "logged", "w")
        return self._one(
            plain,
            plain,
            f"WITH {name} AS ({self.query(depth - 1)}) SELECT 1 AS one FROM {name}, {self.from_(depth - 1)}",
            f"({plain}) UNION ALL ({plain})",
            f"SELECT CASE WHEN {self.condition(depth - 1)} THEN 1 ELSE 2 END AS one FROM {self.from_(depth - 1)} LIMIT 2",
        )

    def _with(self, depth: int) -> str:
        if depth <= 0 or self._random.random() < 0.6:
            return ""
        name = self._one("a", "w", "logged", "parent")
        inner = self._one(self.query(depth - 1), f"{self.delete(0)} RETURNING 1 AS one", f"{self.insert(0)} RETURNING 1 AS one")
        return f"WITH {name} AS ({inner}) "

    def insert(self, depth: int) -> str:
        """Give an INSERT."""
        target = self._one("logged", "logged (what)", "public.logged AS q")
        source = self._one(
            f"VALUES ({self._literal()}::text), ('y')", f"SELECT one::text FROM ({self.query(depth)}) AS {self._alias()}"
        )
        conflict = self._one("", "", " ON CONFLICT DO NOTHING")
        return f"{self._with(depth)}INSERT INTO {target} {source}{conflict}"

    def update(self, depth: int) -> str:
        """Give an UPDATE."""
        target = self._one(*_WRITABLE)
        from_ = self._one("", f" FROM {self.from_(depth)}")
        value = self._one("1", f"(SELECT 1 FROM {self.from_(depth - 1)} LIMIT 1)")
        return f"{self._with(depth)}UPDATE {target} SET {_WRITABLE[target]} = {value}{from_} WHERE {self.condition(depth)}"

    def delete(self, depth: int) -> str:
        """Give a DELETE, of hardly anything."""
        target = self._one("logged", "child", "parts", "s.c")
        using = self._one("", f" USING {self.from_(depth - 1)}") if depth else ""
        return f"{self._with(depth)}DELETE FROM {target}{using} WHERE false AND {self.condition(depth)}"

    def merge(self, depth: int) -> str:
        """Give a MERGE."""
        source = f"({self.query(depth)}) AS {self._alias()}"
        then = self._one("UPDATE SET z = 1", "DELETE", "DO NOTHING")
        return f"{self._with(0)}MERGE INTO s.c USING {source} ON c.z = -1 AND one IS NOT NULL WHEN MATCHED THEN {then}"

    def odd(self, depth: int) -> str:
        """Give something around one of the others."""
        inner = self._one(self.query(depth), self.update(depth), self.delete(depth), self.insert(depth))
        return self._one(
            f"EXPLAIN {inner}",
            f"EXPLAIN ANALYZE {inner}",
            f"COPY ({self.query(depth)}) TO STDOUT",
            f"SELECT writes(1), one FROM ({self.query(depth)}) AS {self._alias()}",
            f"{self.query(0)} FOR UPDATE",
            f"CREATE TEMP TABLE {self._alias()} AS {self.query(depth)}",
            f"DECLARE c{self._number} CURSOR FOR {self.query(depth)}",
        )
