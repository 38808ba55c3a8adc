"""A database with hidden columns, and statements made at random that try to get at them.

What lives here: the schema, its values, and the statements. What must not: running them.
"""

# ruff: noqa: S608, E501 - statements are made of pieces, and a piece stays on its line

from __future__ import annotations

import random
import uuid
from collections.abc import Callable

from tests.enforcer.rows import needles
from tests.enforcer.rows.needles import Needles

HIDDEN = ("ssn", "pin", "amount", "uid", "doc", "raw", "tags", "code", "born")
ROWS = 12
SCHEMA = """
CREATE SCHEMA other;
CREATE TABLE people(id int PRIMARY KEY, name text, city text, ssn text UNIQUE, pin int8, amount numeric, uid uuid, doc jsonb,
  raw bytea, tags text[], code char(16), born date, short text GENERATED ALWAYS AS (right(ssn, 10)) STORED);
CREATE TABLE orders(id int PRIMARY KEY, person int, note text, total int);
CREATE TABLE notes(id serial, said text, n int8);
CREATE TABLE other.people(id int, name text, ssn text);
CREATE VIEW seen AS SELECT id, name, ssn AS x, upper(ssn) AS up, pin FROM people;
CREATE VIEW seen2 AS SELECT s.id, s.x AS y, o.note FROM seen s JOIN orders o ON o.person = s.id;
CREATE VIEW wholes AS SELECT p.id, row_to_json(p) AS j, p AS whole FROM people p;
CREATE VIEW both_ways AS SELECT id, ssn FROM people UNION ALL SELECT id, name FROM people;
CREATE VIEW cities AS SELECT city, count(*) AS n FROM people GROUP BY city;
CREATE MATERIALIZED VIEW kept AS SELECT id, name, ssn, pin FROM people;
CREATE TABLE minors(school text) INHERITS (people);
CREATE TABLE parts(id int, name text, ssn text) PARTITION BY RANGE (id);
CREATE TABLE parts_low PARTITION OF parts FOR VALUES FROM (0) TO (1000);
CREATE SEQUENCE numbers;
CREATE TABLE calls(id int, of_whom text REFERENCES people(ssn), what text);
CREATE FUNCTION tell(int) RETURNS text LANGUAGE sql AS 'SELECT ssn FROM people WHERE id = $1';
CREATE FUNCTION tell_row(people) RETURNS text LANGUAGE sql AS 'SELECT $1.ssn';
CREATE FUNCTION loud(text) RETURNS text LANGUAGE plpgsql AS 'BEGIN RAISE NOTICE ''%'', $1; RETURN $1; END';
CREATE VIEW told AS SELECT id, tell(id) AS t FROM orders;
CREATE RULE also AS ON INSERT TO notes DO ALSO SELECT id, ssn, pin FROM people;
"""
RELATIONS = (
    *(
        "people",
        "people",
        "people",
        "public.people",
        "seen",
        "seen2",
        "wholes",
        "both_ways",
        "cities",
        "kept",
        "minors",
        "parts",
    ),
    *("parts_low", "other.people", "told", "ONLY people", "orders", "notes", "calls"),
)
COLUMNS = {
    "people": ("id", "name", "city", *HIDDEN, "short"),
    "minors": ("id", "name", "city", *HIDDEN, "short", "school"),
    "seen": ("id", "name", "x", "up", "pin"),
    "seen2": ("id", "y", "note"),
    "wholes": ("id", "j", "whole"),
    "both_ways": ("id", "ssn"),
    "cities": ("city", "n"),
    "kept": ("id", "name", "ssn", "pin"),
    "parts": ("id", "name", "ssn"),
    "parts_low": ("id", "name", "ssn"),
    "told": ("id", "t"),
    "orders": ("id", "person", "note", "total"),
    "notes": ("id", "said", "n"),
    "calls": ("id", "of_whom", "what"),
}
WRAPS = (
    *("{c}", "{c}", "{c}", "({c})", "{c}::text", "{c}::varchar(40)", "{c}::text::varchar", "CAST({c} AS text)", "{c} || ''"),
    *("upper({c}::text)", "reverse({c}::text)", "repeat({c}::text, 2)", "left({c}::text, 8)", "substr({c}::text, 2, 7)"),
    *("encode(convert_to({c}::text, 'UTF8'), 'hex')", "encode(convert_to({c}::text, 'UTF8'), 'base64')", "to_json({c})"),
    *(
        "array[{c}]",
        "array_agg({c})",
        "max({c})",
        "min({c}::text)",
        "string_agg({c}::text, ',')",
        "json_agg({c})",
        "count({c})",
    ),
    *("row({c}, 1)", "json_build_object('a', {c})", "jsonb_build_array({c})", "format('%s', {c})", "concat('a', {c}, 'b')"),
    *(
        "coalesce({c}, {c})",
        "nullif({c}::text, '')",
        "CASE WHEN true THEN {c} END",
        "lag({c}) OVER ()",
        "first_value({c}) OVER ()",
    ),
    *("translate({c}::text, 'bcd', 'BCD')", "quote_literal({c})", "to_tsvector('simple', {c}::text)", "sum(length({c}::text))"),
    *(
        "regexp_replace({c}::text, 'q', '')",
        "xmlelement(name a, {c})",
        '({c})::text COLLATE "C"',
        "string_to_array({c}::text, 'x')",
    ),
    *(
        "pg_column_size({c})",
        "octet_length({c}::text)",
        "ascii({c}::text)",
        "{c}::text = 'a'",
        "to_hex({c})",
        "({c} + 0)",
        "-{c}",
    ),
    *("(SELECT {c})", "(SELECT max({c}::text) FROM people)", "(TABLE kept LIMIT 1)", "decode({c}::text, 'escape')", "{c}::int"),
    *("greatest({c}, {c})", "set_config('a.b', {c}::text, false)", "pg_notify('ch', {c}::text)", "setval('numbers', {c})"),
    *("pg_advisory_lock({c})", "loud({c}::text)", "to_regclass({c}::text)", "{c}::regclass", "{c}::regtype", "{c} IS NULL"),
)
WHOLES = (
    *(
        "*",
        "{a}.*",
        "{a}",
        "row_to_json({a})",
        "to_jsonb({a})",
        "{a}::text",
        "({a}).*",
        "row({a}.*)",
        "array_agg({a})",
        "({a}).id",
    ),
    *(
        "{a}.tell_row",
        "tell_row({a})",
        "tell({a}.id)",
        "json_agg({a})",
        "jsonb_each_text(to_jsonb({a}))",
        "hstore({a})",
        "{a}.row_to_json",
    ),
    *(
        "count({a}.*)",
        "xmlforest({a})",
        "format('%s', {a})",
        "concat({a})",
        "count(*)",
        "7",
        "'x'",
        "now() > now()",
        "{a}.tableoid",
    ),
)
PLAIN = (
    "id",
    "name",
    "upper(name)",
    "length(name)",
    "id + 1",
    "count(*)",
    "max(name)",
    "city",
    "{a}.id",
    "coalesce(name, city)",
    "1",
)


class Maker:
    """Makes a database's content, and statements about it."""

    def __init__(self, seed: int) -> None:
        self.chance = random.Random(seed)
        self.needles = Needles()
        self._names = 0

    def content(self) -> list[tuple[str, tuple[object, ...]]]:
        """Give statements with parameters that fill the database; what they hide is noted."""
        insert = (
            "INSERT INTO {} (id, name, city, ssn, pin, amount, uid, doc, raw, tags, code, born)"
            " VALUES (%s, %s, %s, %s, %s, %s, %s, %s::jsonb, %s, %s, %s, %s)"
        )
        found: list[tuple[str, tuple[object, ...]]] = []
        for number in range(ROWS):
            table = "minors" if number % 6 == 5 else "people"
            found.append((insert.format(table), self._person(number)))
            ssn = self._text("ssn")
            found.append(("INSERT INTO parts VALUES (%s, %s, %s)", (number, f"part{number}", ssn)))
            found.append(("INSERT INTO other.people VALUES (%s, %s, %s)", (number, f"oth{number}", self._text("ssn"))))
            found.append(("INSERT INTO orders VALUES (%s, %s, %s, %s)", (number, number, f"note{number}", number * 3)))
        found += [("INSERT INTO calls SELECT id, ssn, 'x' FROM people WHERE id < 4", ())]
        found += [("INSERT INTO orders VALUES (99, 99, NULL, NULL)", ()), ("REFRESH MATERIALIZED VIEW kept", ())]
        shown = [f"{word}{number}" for word in ("name", "city", "part", "oth", "note") for number in range(ROWS)]
        for text in [*shown, *(["new", "mine", "hello", "zzz"])]:
            for form in needles.forms(text):
                self.needles.excuse(form)
        return [*found, ("ANALYZE", ())]

    def statement(self) -> str:
        """Give one."""
        ways: list[tuple[int, Callable[[], str]]] = [
            (30, self._select),
            (35, self._simple),
            (8, self._with),
            (6, self._union),
            (6, self._nested),
            (8, self._change),
            (6, self._making),
            (6, self._copy),
            (8, self._odd),
        ]
        return self.chance.choices([way for _, way in ways], [weight for weight, _ in ways])[0]()

    def _person(self, number: int) -> tuple[object, ...]:
        chance = self.chance
        pin, amount, uid = (
            int(needles.digits(chance, 12)),
            int(needles.digits(chance, 13)),
            uuid.UUID(int=chance.getrandbits(128)),
        )
        raw = chance.randbytes(16)
        self.needles.add("pin", needles.number_forms(pin))
        self.needles.add("amount", needles.number_forms(amount))
        self.needles.add_uuid("uid", uid)
        self.needles.add("raw", [raw, *needles.forms(raw.hex())])
        born = f"2{needles.digits(chance, 3)}-{chance.randint(10, 12)}-{chance.randint(10, 28)}"
        self.needles.add_date("born", born)
        doc, tag, code = self._text("doc"), self._text("tags"), self._text("code")
        texts = (f"name{number}", f"city{number % 3}", self._text("ssn"))
        return (number, *texts, pin, amount, uid, f'{{"a": "{doc}"}}', raw, [tag, "a"], code, born)

    def _text(self, name: str) -> str:
        value = needles.text(self.chance)
        self.needles.add(name, needles.forms(value))
        return value

    def _pick(self, *choices: str) -> str:
        return self.chance.choice(choices)

    def _relation(self) -> tuple[str, tuple[str, ...]]:
        name = self._pick(*RELATIONS)
        return name, COLUMNS[name.rpartition(" ")[2].rpartition(".")[2] if name != "other.people" else "parts"]

    def _column(self, columns: tuple[str, ...], alias: str) -> str:
        name = self.chance.choice(columns)
        return self._pick(name, f"{alias}.{name}", f"({alias}).{name}" if self.chance.random() < 0.2 else f"{alias}.{name}")

    def _item(self, columns: tuple[str, ...], alias: str) -> str:
        draw = self.chance.random()
        if draw < 0.35:
            item = self._pick(*PLAIN).replace("{a}", alias)
        elif draw < 0.8:
            item = self._pick(*WRAPS).replace("{c}", self._column(columns, alias))
        else:
            return self._pick(*WHOLES).replace("{a}", alias)
        return item + self._pick("", "", " AS q", ' AS "Q r"', " AS ssn")

    def _source(self, alias: str) -> tuple[str, tuple[str, ...]]:
        name, columns = self._relation()
        draw = self.chance.random()
        if draw < 0.6:
            return f"{name} {self._pick('', 'AS ')}{alias}", columns
        if draw < 0.72:
            inner = ", ".join(self._item(columns, "i") for _ in range(self.chance.randint(1, 3)))
            return f"(SELECT {inner} FROM {name} i) AS {alias}", columns
        if draw < 0.8:
            renamed = [f"r{number}" for number in range(len(columns))]
            return f"{name} AS {alias}({', '.join(renamed)})", tuple(renamed)
        if draw < 0.9:
            return f"{name} {alias} JOIN orders o ON o.id = {alias}.{columns[0]}", columns
        join = self._pick("NATURAL JOIN", "FULL JOIN", "LEFT JOIN")
        on = "" if join.startswith("NATURAL") else f" USING ({self._pick('id', 'name', 'ssn')})"
        return f"{name} {alias} {join} people z{on}", columns

    def _tail(self, columns: tuple[str, ...], alias: str) -> str:
        column = self._column(columns, alias)
        return self._pick(
            *(" WHERE setval('numbers', pin) > 0", " WHERE pg_try_advisory_lock(pin)") * 2,
            *(
                "",
                "",
                "",
                "",
                f" WHERE {alias}.id < 5",
                f" WHERE {column}::text LIKE '%b%'",
                f" ORDER BY {column}",
                " ORDER BY 1",
            ),
            *(
                f" GROUP BY {column}",
                f" GROUP BY {column} HAVING count(*) > 0",
                " LIMIT 3",
                " FOR UPDATE",
                f" WHERE {alias}::text <> ''",
            ),
            *(
                f" WHERE {column}::int > 0",
                f" WHERE 1 / length({column}::text) >= 0 AND {column}::numeric > 1",
                " ORDER BY 2 DESC",
            ),
            *(f" WHERE EXISTS (SELECT 1 FROM people e WHERE e.ssn = {column}::text)", f" WHERE loud({column}::text) <> ''"),
            *(
                f" WHERE set_config('a.b', {column}::text, false) <> ''",
                f" WHERE pg_advisory_lock(hashtext({column}::text)) IS NOT NULL",
            ),
        )

    def _select(self) -> str:
        source, columns = self._source("t")
        items = ", ".join(self._item(columns, "t") for _ in range(self.chance.randint(1, 4)))
        return f"SELECT {self._pick('', '', '', 'DISTINCT ')}{items} FROM {source}{self._tail(columns, 't')}"

    def _simple(self) -> str:
        """One of those that agents mostly send: columns of a relation or two, and little else."""
        name = self._pick("people", "people", "public.people", "seen", "kept", "minors", "parts", "cities", "orders", "seen2")
        columns = COLUMNS[name.rpartition(".")[2]]
        shown = [
            self._pick(*columns),
            f"t.{self._pick(*columns)} AS a",
            "count(*) OVER ()",
            "t.*",
            "*",
            f"upper(t.{columns[1]}::text)",
        ]
        items = self.chance.choices(shown, [6, 6, 1, 1, 1, 2], k=self.chance.randint(1, 4))
        join = self._pick(
            "", "", f" JOIN orders o ON o.id = t.{columns[0]}", f" LEFT JOIN orders o ON o.note = t.{columns[1]}::text"
        )
        return f"SELECT {', '.join(items)} FROM {name} t{join}{self._pick('', ' LIMIT 5', f' ORDER BY t.{columns[0]}', ' FOR UPDATE OF t')}"

    def _with(self) -> str:
        inner = self._pick(self._select(), "DELETE FROM people WHERE id < 3 RETURNING *", "TABLE people", self._select())
        names = self._pick("", "(a)", "(a, b)")
        word = self._pick("", "RECURSIVE ")
        made = self._pick("", "MATERIALIZED ", "NOT MATERIALIZED ")
        outer = self._pick(
            "SELECT * FROM w", "SELECT w FROM w", "TABLE w", "SELECT count(*) FROM w", "SELECT w.* FROM w, orders"
        )
        insert = "INSERT INTO notes(said) SELECT w::text FROM w RETURNING said"
        return f"WITH {word}w{names} AS {made}({inner}) {self._pick(outer, outer, outer, insert)}"

    def _union(self) -> str:
        column = self._pick(*HIDDEN)
        word = self._pick("UNION", "UNION ALL", "EXCEPT", "INTERSECT")
        one = f"SELECT {column}::text FROM people"
        return self._pick(
            f"{one} {word} SELECT name FROM people",
            f"SELECT name FROM people {word} {one}",
            f"(TABLE people) {word} (SELECT * FROM people)",
            f"SELECT * FROM ({one} {word} {one}) AS u",
            f"VALUES ((SELECT {column} FROM people LIMIT 1))",
            f"SELECT * FROM (VALUES ((SELECT {column}::text FROM people LIMIT 1))) AS v(a)",
        )

    def _nested(self) -> str:
        column = self._pick(*HIDDEN)
        return self._pick(
            f"SELECT (SELECT {column} FROM people ORDER BY id LIMIT 1), id FROM orders",
            f"SELECT o.id, l.* FROM orders o, LATERAL (SELECT {column} AS c FROM people p WHERE p.id = o.person) l",
            f"SELECT id FROM orders WHERE id IN (SELECT id FROM people WHERE {column}::text > 'b')",
            f"SELECT ARRAY(SELECT {column} FROM people)",
            f"SELECT * FROM orders o JOIN (SELECT id, {column} c FROM people) p USING (id) WHERE c IS NOT NULL",
            f"SELECT unnest(array_agg({column}::text)) FROM people",
            f"SELECT j.key, j.value FROM people p, json_each_text(to_json(p)) j -- {column}",
            f"SELECT g FROM people p, generate_series(1, length(p.{column}::text)) g",
            f"SELECT x.* FROM people p, ROWS FROM (json_to_record(to_json(p)) AS ({column} text)) x",
            f"SELECT {column} FROM (SELECT {column} FROM people OFFSET 0) s",
            "SELECT n.num FROM generate_series(0, 9) AS n(num) JOIN people p ON p.id = n.num",
        )

    def _change(self) -> str:
        column = self._pick(*HIDDEN)
        returning = self._pick(
            "", f" RETURNING {column}", " RETURNING *", f" RETURNING {column}::text || ''", " RETURNING id, name"
        )
        return self._pick(
            f"UPDATE people SET name = {column}::text{returning}",
            f"UPDATE people SET city = 'c' WHERE id = 1{returning}",
            f"UPDATE people SET ssn = 'zzz' WHERE id = 1{returning}",
            f"UPDATE people SET city = people::text{returning}",
            f"UPDATE people SET city = concat(people.*){returning}",
            f"UPDATE people p SET city = p.to_json::text{returning}",
            f"UPDATE people p SET (name, city) = (SELECT ssn, pin::text FROM people q WHERE q.id = p.id){returning}",
            f"UPDATE orders SET note = p.{column}::text FROM people p WHERE p.id = orders.person RETURNING note",
            f"UPDATE orders SET note = (SELECT {column} FROM people LIMIT 1)",
            f"INSERT INTO people(id, name, ssn) VALUES (100, 'new', 'mine'){returning}",
            f"INSERT INTO people(id, ssn) VALUES (1, 'mine') ON CONFLICT (id) DO UPDATE SET name = people.{column}::text{returning}",
            "INSERT INTO people(id, ssn) SELECT id + 500, ssn FROM people",
            f"INSERT INTO notes(said) SELECT {column}::text FROM people RETURNING *",
            f"INSERT INTO notes(said) VALUES ((SELECT {column}::text FROM people LIMIT 1)) RETURNING *",
            "INSERT INTO notes(said) VALUES ('hello') RETURNING *",
            f"INSERT INTO people(id) VALUES (1) ON CONFLICT (id) DO UPDATE SET city = (people.*)::text{returning}",
            f"DELETE FROM people WHERE id = 2{returning}",
            f"DELETE FROM people p USING orders o WHERE o.person = p.id{returning}",
            f"DELETE FROM people WHERE {column}::text LIKE '%b%'{returning}",
            f"MERGE INTO notes n USING people p ON false WHEN NOT MATCHED THEN INSERT (said) VALUES (p.{column}::text)",
            "UPDATE people SET ssn = (SELECT ssn FROM people WHERE id = 2) WHERE id = 1",
            "UPDATE people SET id = 3 WHERE id = 4",
        )

    def _making(self) -> str:
        self._names += 1
        name = f"made{self._names}"
        query = self._select()
        return self._pick(
            f"CREATE TABLE {name} AS {query}",
            f"CREATE TEMP TABLE {name} AS SELECT * FROM people",
            f"SELECT * INTO {name} FROM people",
            f"CREATE VIEW {name} AS {query}",
            f"CREATE MATERIALIZED VIEW {name} AS SELECT ssn FROM people",
            f"CREATE TABLE {name} (LIKE people INCLUDING ALL)",
            f"CREATE TABLE {name} () INHERITS (people)",
            "ALTER TABLE people RENAME COLUMN ssn TO other",
            "ALTER TABLE people RENAME TO folk",
            "ALTER TABLE people SET SCHEMA other",
            "ALTER SCHEMA public RENAME TO hidden",
            "ALTER TABLE people ADD COLUMN copied text GENERATED ALWAYS AS (ssn) STORED",
            "CREATE INDEX ON people ((ssn::int))",
            f"CREATE FUNCTION {name}() RETURNS text LANGUAGE sql AS 'SELECT ssn FROM people LIMIT 1'",
            "ALTER TABLE notes ADD CHECK (said <> (1/0)::text)",
            "COMMENT ON COLUMN people.ssn IS 'x'",
            "ALTER VIEW seen RENAME COLUMN x TO harmless",
            f"CREATE RULE {name} AS ON UPDATE TO notes DO ALSO SELECT ssn FROM people",
        )

    def _copy(self) -> str:
        name, columns = self._relation()
        chosen = ", ".join(self.chance.sample(columns, self.chance.randint(1, len(columns))))
        options = self._pick(
            "", " CSV", " WITH (FORMAT csv, HEADER)", " (FORMAT binary)", " (DELIMITER '|', NULL '')", " WITH CSV QUOTE ''''"
        )
        options = self._pick(
            options, options, " (FORMAT csv, FORCE_QUOTE *)", " (FORMAT csv, ESCAPE '\\')", " (FORMAT csv, DELIMITER ';')"
        )
        return self._pick(
            f"COPY {name} TO STDOUT{options}",
            f"COPY {name} ({chosen}) TO STDOUT{options}",
            f"COPY {name} ({chosen}) TO STDOUT{options}",
            f"COPY ({self._select()}) TO STDOUT{options}",
            f"COPY (TABLE people) TO STDOUT{options}",
            "COPY people TO '/tmp/leaked'",
            "COPY people TO PROGRAM 'cat'",
        )

    def _odd(self) -> str:
        column = self._pick(*HIDDEN)
        return self._pick(
            f"EXPLAIN (ANALYZE, VERBOSE) {self._select()}",
            f"EXPLAIN SELECT * FROM people WHERE {column}::text > 'f'",
            f"DO $$ BEGIN RAISE NOTICE '%', (SELECT {column} FROM people LIMIT 1); END $$",
            "SELECT current_setting('a.b', true)",
            *("SELECT objid, classid FROM pg_locks WHERE locktype = 'advisory'",) * 3,
            *("SELECT last_value FROM numbers",) * 3,
            "SELECT * FROM pg_stats WHERE tablename = 'people'",
            "SELECT tablename, attname, null_frac FROM pg_stats",
            "SELECT histogram_bounds::text, most_common_vals::text FROM pg_stats",
            "SELECT stavalues1, staattnum FROM pg_statistic",
            "SELECT query FROM pg_stat_activity",
            "SELECT name, statement FROM pg_cursors",
            "SELECT name, statement FROM pg_prepared_statements",
            "SELECT query_to_xml('SELECT * FROM people', true, true, '')",
            "SELECT table_to_xml('people', true, true, '')",
            f"SELECT id FROM people WHERE ('{{1}}'::int[])[1] = {column}::text::int",
            f"PREPARE made AS SELECT {column} FROM people",
            "EXECUTE made",
            f"SELECT {column}::text::xml FROM people",
            f"SELECT id FROM people WHERE to_date({column}::text, 'YYYY') IS NOT NULL",
            f"SELECT id FROM people WHERE ({column}::text)::json IS NOT NULL",
            f"SELECT name FROM people WHERE {column}::text::regclass IS NOT NULL",
            "SELECT tell(1)",
            "SELECT loud(ssn) FROM people",
            "SELECT t.* FROM told t",
            "ANALYZE VERBOSE people",
            "LOCK TABLE people",
            "SELECT ctid, xmin, tableoid::regclass FROM people",
            f"SELECT upper(name) FROM orders o JOIN people p ON true JOIN (unnest(p.tags) AS q(name) CROSS JOIN notes n) ON true -- {column}",
            f"SELECT upper(q.name) FROM people p JOIN (unnest(p.tags) AS q(name) CROSS JOIN orders n) ON true WHERE n.id < 3 -- {column}",
            "SELECT reltoastrelid::regclass FROM pg_class WHERE relname = 'people'",
            f"CREATE STATISTICS made_of ON {column}, name FROM people",
            f"CREATE TABLE made_to (a text REFERENCES people({column}))",
            "ALTER TABLE parts DETACH PARTITION parts_low",
            "CREATE TABLE made_part PARTITION OF parts FOR VALUES FROM (2000) TO (3000)",
            "CREATE PUBLICATION made_known FOR TABLE people",
            "CREATE POLICY made_rule ON orders USING (note < (SELECT ssn FROM people LIMIT 1))",
            "SELECT attname FROM pg_attribute WHERE attrelid = 'people'::regclass",
            "SELECT relname FROM pg_class LIMIT 5",
        )
