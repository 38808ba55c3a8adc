"""A database of MariaDB with hidden columns, and statements made at random that try to get at them.

What lives here: the schema, its values, and the statements. What must not: running them.
"""

# ruff: noqa: S608, E501 - statements are made of pieces, and a piece stays on its line

from __future__ import annotations

import random
from collections.abc import Callable

from tests.enforcer.rows import needles
from tests.enforcer.rows.needles import Needles

HIDDEN = ("ssn", "pin", "amount", "raw", "doc", "born")
ROWS = 12
SCHEMA = """
CREATE TABLE people(id int PRIMARY KEY, name text, city varchar(40), ssn varchar(40), pin bigint, amount decimal(20,2), raw varbinary(40),
  doc json, born date, short varchar(10) AS (right(ssn, 10)) VIRTUAL, UNIQUE KEY (ssn), FULLTEXT KEY (name));
CREATE TABLE orders(id int PRIMARY KEY, person int, note text, total int);
CREATE TABLE notes(id int AUTO_INCREMENT PRIMARY KEY, said text, n bigint);
CREATE ALGORITHM=MERGE VIEW seen AS SELECT id, name, ssn AS x, upper(ssn) AS up, pin FROM people;
CREATE ALGORITHM=TEMPTABLE VIEW kept AS SELECT id, name, ssn, pin FROM people;
CREATE VIEW seen2 AS SELECT s.id, s.x AS y, o.note FROM seen s JOIN orders o ON o.person = s.id;
CREATE VIEW both_ways AS SELECT id, ssn FROM people UNION ALL SELECT id, name FROM people;
CREATE VIEW cities AS SELECT city, count(*) AS n FROM people GROUP BY city;
CREATE VIEW derived AS SELECT z.id, z.q AS note FROM (SELECT id, ssn AS q FROM people) z;
CREATE FUNCTION tell(i int) RETURNS text READS SQL DATA RETURN (SELECT ssn FROM people WHERE id = i);
CREATE VIEW told AS SELECT id, tell(id) AS t FROM orders
"""
COLUMNS = {
    "people": ("id", "name", "city", *HIDDEN, "short"),
    "seen": ("id", "name", "x", "up", "pin"),
    "kept": ("id", "name", "ssn", "pin"),
    "seen2": ("id", "y", "note"),
    "both_ways": ("id", "ssn"),
    "cities": ("city", "n"),
    "derived": ("id", "note"),
    "told": ("id", "t"),
    "orders": ("id", "person", "note", "total"),
    "notes": ("id", "said", "n"),
}
RELATIONS = ("people", "people", "people", *COLUMNS)
WRAPS = (
    *(
        "{c}",
        "{c}",
        "{c}",
        "({c})",
        "CAST({c} AS char)",
        "CONVERT({c} USING utf8mb4)",
        "concat({c}, '')",
        "upper({c})",
        "reverse({c})",
    ),
    *(
        "hex({c})",
        "to_base64({c})",
        "repeat({c}, 2)",
        "left({c}, 8)",
        "substr({c}, 2, 7)",
        "json_object('a', {c})",
        "json_array({c})",
        "max({c})",
    ),
    *(
        "min({c})",
        "group_concat({c})",
        "coalesce({c}, 1)",
        "ifnull({c}, '')",
        "nullif({c}, '')",
        "CASE WHEN 1 THEN {c} END",
        "if(1, {c}, 1)",
    ),
    *(
        "lag({c}) OVER (ORDER BY 1)",
        "first_value({c}) OVER ()",
        "trim({c})",
        "quote({c})",
        "{c} + 0",
        "-{c}",
        "{c} = 'a'",
        "length({c})",
    ),
    *(
        "(SELECT {c})",
        "(SELECT max(ssn) FROM people)",
        "greatest({c}, {c})",
        "@a := {c}",
        "last_insert_id({c})",
        "get_lock({c}, 0)",
    ),
    *(
        "values({c})",
        "default({c})",
        "any_value({c})",
        "name_const('a', {c})",
        "{c} COLLATE utf8mb4_bin",
        "binary {c}",
        "count({c})",
    ),
    *(
        "extractvalue({c}, '/a')",
        "updatexml('<a/>', concat('~', {c}), '')",
        "tell({c})",
        "lpad({c}, 40, 'a')",
        "replace({c}, 'q', '')",
    ),
    *(
        "char({c})",
        "bin({c})",
        "inet_ntoa({c})",
        "from_unixtime({c})",
        "date_add({c}, INTERVAL 1 DAY)",
        "sum({c})",
        "{c} IS NULL",
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
    "*",
    "{a}.*",
)


class MysqlMaker:
    """Makes a database's content, and statements about it."""

    def __init__(self, seed: int) -> None:
        self.chance = random.Random(seed)
        self.needles = Needles()
        self._names = 0

    def content(self) -> list[tuple[str, tuple[object, ...]]]:
        """Give statements with parameters that fill the database; what they hide is noted."""
        found: list[tuple[str, tuple[object, ...]]] = []
        insert = (
            "INSERT INTO people(id, name, city, ssn, pin, amount, raw, doc, born) VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s)"
        )
        for number in range(ROWS):
            found.append((insert, self._person(number)))
            found.append(("INSERT INTO orders VALUES (%s, %s, %s, %s)", (number, number, f"note{number}", number * 3)))
        shown = [f"{word}{number}" for word in ("name", "city", "note") for number in range(ROWS)]
        for text in [*shown, *(["new", "mine", "hello", "zzz", "people", "orders"])]:
            for form in needles.forms(text):
                self.needles.excuse(form)
        return found

    def statement(self) -> str:
        """Give one."""
        ways: list[tuple[int, Callable[[], str]]] = [
            (30, self._select),
            (35, self._simple),
            (10, self._nested),
            (10, self._change),
            (5, self._making),
            (10, self._odd),
        ]
        return self.chance.choices([way for _, way in ways], [weight for weight, _ in ways])[0]()

    def _person(self, number: int) -> tuple[object, ...]:
        chance = self.chance
        pin, amount, raw = int(needles.digits(chance, 12)), int(needles.digits(chance, 13)), chance.randbytes(16)
        self.needles.add("pin", needles.number_forms(pin))
        self.needles.add("amount", needles.number_forms(amount))
        self.needles.add("raw", [raw, *needles.forms(raw.hex())])
        born = f"2{needles.digits(chance, 3)}-{chance.randint(10, 12)}-{chance.randint(10, 28)}"
        self.needles.add_date("born", born)
        texts = (f"name{number}", f"city{number % 3}", self._text("ssn"))
        return (number, *texts, pin, amount, raw, f'{{"a": "{self._text("doc")}"}}', born)

    def _text(self, name: str) -> str:
        value = needles.text(self.chance)
        self.needles.add(name, needles.forms(value))
        return value

    def _pick(self, *choices: str) -> str:
        return self.chance.choice(choices)

    def _item(self, columns: tuple[str, ...], alias: str) -> str:
        if self.chance.random() < 0.45:
            item = self._pick(*PLAIN).replace("{a}", alias)
            return item if "*" in item else item + self._pick("", "", " AS q")
        column = self.chance.choice(columns)
        item = self._pick(*WRAPS).replace("{c}", self._pick(column, f"{alias}.{column}", f"`{column}`"))
        return item + self._pick("", "", " AS q", " AS `Q r`", " AS note", " 'x'")

    def _tail(self, columns: tuple[str, ...], alias: str) -> str:
        column = f"{alias}.{self.chance.choice(columns)}"
        return self._pick(
            *(
                "",
                "",
                "",
                "",
                f" WHERE {alias}.id < 5",
                f" WHERE {column} LIKE '%b%'",
                f" ORDER BY {column}",
                " ORDER BY 1",
                " LIMIT 3",
            ),
            *(
                f" GROUP BY {column}",
                f" GROUP BY {column} WITH ROLLUP",
                " FOR UPDATE",
                f" WHERE {column} + 0 > 1",
                " ORDER BY 2 DESC",
            ),
            *(
                f" WHERE EXISTS (SELECT 1 FROM people e WHERE e.ssn = {column})",
                f" WHERE get_lock({column}, 0)",
                f" HAVING max({column}) > 'b'",
            ),
            *(
                f" WHERE (@a := {column}) IS NOT NULL",
                f" WHERE last_insert_id({column}) > 0",
                " PROCEDURE ANALYSE()",
                " INTO @a",
                " INTO OUTFILE '/tmp/x'",
            ),
            *(
                f" WHERE updatexml(1, concat('~', {column}), 1) IS NULL",
                f" WHERE CAST({column} AS date) IS NULL",
                f" WHERE json_extract({column}, '$.a') = 1",
            ),
        )

    def _source(self, alias: str) -> tuple[str, tuple[str, ...]]:
        name = self._pick(*RELATIONS)
        columns = COLUMNS[name]
        draw = self.chance.random()
        if draw < 0.65:
            return f"{self._pick('', 'masked.')}{name} {self._pick('', 'AS ')}{alias}", columns
        if draw < 0.8:
            inner = ", ".join(self._item(columns, "i") for _ in range(self.chance.randint(1, 3)))
            return f"(SELECT {inner} FROM {name} i) {alias}", columns
        if draw < 0.9:
            return f"{name} {alias} JOIN orders o ON o.id = {alias}.{columns[0]}", columns
        return (
            f"{name} {alias} {self._pick('NATURAL JOIN people z', 'JOIN people z USING (id)', 'LEFT JOIN people z USING (ssn)')}",
            columns,
        )

    def _select(self) -> str:
        alias = self._pick("t", "t", "orders", "notes")
        source, columns = self._source(alias)
        items = ", ".join(self._item(columns, alias) for _ in range(self.chance.randint(1, 4)))
        return f"SELECT {self._pick('', '', '', 'DISTINCT ', 'SQL_NO_CACHE ', 'ALL ')}{items} FROM {source}{self._tail(columns, alias)}"

    def _simple(self) -> str:
        name = self._pick("people", "people", "seen", "kept", "cities", "orders", "seen2", "derived")
        columns = COLUMNS[name]
        shown = [self._pick(*columns), f"t.{self._pick(*columns)} AS a", "count(*) OVER ()", "t.*", f"upper(t.{columns[1]})"]
        items = self.chance.choices(shown, [6, 6, 1, 1, 2], k=self.chance.randint(1, 4))
        join = self._pick("", "", f" JOIN orders o ON o.id = t.{columns[0]}", f" LEFT JOIN orders o ON o.note = t.{columns[1]}")
        return f"SELECT {', '.join(items)} FROM {name} t{join}{self._pick('', ' LIMIT 5', f' ORDER BY t.{columns[0]}', ' FOR UPDATE')}"

    def _nested(self) -> str:
        column = self._pick(*HIDDEN)
        return self._pick(
            f"SELECT note FROM (SELECT {column} AS note FROM people) orders",
            f"WITH orders AS (SELECT {column} AS note FROM people) SELECT note FROM orders",
            f"WITH w(a) AS (SELECT {column} FROM people) SELECT a FROM w",
            "SELECT * FROM (SELECT * FROM people) z",
            "WITH w AS (SELECT * FROM people) SELECT name FROM w",
            "SELECT id FROM orders WHERE id IN (SELECT id FROM people WHERE name <> '')",
            f"SELECT (SELECT {column} FROM people LIMIT 1), id FROM orders",
            f"SELECT {column} FROM people UNION SELECT name FROM people",
            f"SELECT name FROM people UNION ALL SELECT {column} FROM people",
            f"SELECT name FROM people EXCEPT SELECT {column} FROM people",
            f"SELECT id FROM orders o WHERE o.note > ALL (SELECT {column} FROM people)",
            f"SELECT o.note FROM orders o JOIN (SELECT {column} AS k FROM people) z ON z.k <> o.note",
            f"SELECT j.v FROM people p, json_table(json_array(p.{column}), '$[*]' COLUMNS (v text PATH '$')) j",
            "SELECT name, x.id FROM people JOIN (SELECT id FROM orders) x ON x.id = people.id",
        )

    def _change(self) -> str:
        column = self._pick(*HIDDEN)
        returning = self._pick("", f" RETURNING {column}", " RETURNING *", f" RETURNING upper({column})", " RETURNING id, name")
        return self._pick(
            f"UPDATE people SET name = {column}",
            "UPDATE people SET city = 'c' WHERE id = 1",
            "UPDATE people SET ssn = 'zzz' WHERE id = 1",
            f"UPDATE orders o, people p SET o.note = p.{column} WHERE p.id = o.person",
            f"UPDATE orders SET note = (SELECT {column} FROM people LIMIT 1)",
            f"INSERT INTO people(id, name, ssn) VALUES (100, 'new', 'mine'){returning}",
            f"INSERT INTO people(id, name) VALUES (1, 'new') ON DUPLICATE KEY UPDATE name = {column}",
            f"INSERT INTO people(id, ssn) VALUES (200, 'mine') ON DUPLICATE KEY UPDATE ssn = values(ssn){returning}",
            f"REPLACE INTO people(id, ssn) VALUES (1, 'mine'){returning}",
            f"INSERT INTO notes(said) SELECT {column} FROM people RETURNING *",
            "INSERT INTO notes(said) VALUES ('hello') RETURNING *",
            f"DELETE FROM people WHERE id = 2{returning}",
            f"DELETE p FROM people p JOIN orders o ON o.person = p.id WHERE p.{column} > 'b'",
            f"DELETE FROM people WHERE {column} LIKE '%b%'{returning}",
            "UPDATE people SET ssn = (SELECT ssn FROM people WHERE id = 2) WHERE id = 1",
            f"UPDATE people SET id = {column}",
            "INSERT INTO people SELECT * FROM people",
            "UPDATE people SET ssn = 'mine'",
        )

    def _making(self) -> str:
        self._names += 1
        name = f"made{self._names}"
        return self._pick(
            f"CREATE TABLE {name} AS SELECT * FROM people",
            f"CREATE TEMPORARY TABLE {name} AS SELECT ssn AS note FROM people",
            f"CREATE VIEW {name} AS SELECT ssn AS note FROM people",
            f"CREATE TABLE {name} LIKE people",
            f"RENAME TABLE people TO {name}",
            "ALTER TABLE people RENAME COLUMN ssn TO other",
            "ALTER TABLE people ADD COLUMN copied varchar(40) AS (ssn) VIRTUAL",
            f"CREATE FUNCTION {name}() RETURNS text RETURN (SELECT ssn FROM people LIMIT 1)",
            f"CREATE TRIGGER {name} BEFORE INSERT ON notes FOR EACH ROW SET NEW.said = (SELECT ssn FROM people LIMIT 1)",
            f"CREATE OR REPLACE VIEW seen AS SELECT id, name, ssn AS x FROM people -- {name}",
        )

    def _odd(self) -> str:
        column = self._pick(*HIDDEN)
        return self._pick(
            *(
                "SHOW WARNINGS",
                "SHOW ERRORS",
                "SHOW FULL PROCESSLIST",
                "SHOW ENGINE INNODB STATUS",
                "SHOW PROFILES",
                "SHOW COLUMNS FROM people",
            ),
            *("SHOW CREATE TABLE people", "SHOW INDEX FROM people", "SHOW TABLES", "DESCRIBE people", "SHOW TABLE STATUS"),
            *(
                "EXPLAIN SELECT * FROM people",
                f"ANALYZE FORMAT=JSON SELECT * FROM people WHERE {column} > 'b'",
                "ANALYZE TABLE people PERSISTENT FOR ALL",
            ),
            *(
                "SELECT @a",
                "SELECT last_insert_id()",
                "SELECT * FROM mysql.column_stats",
                "SELECT * FROM information_schema.innodb_ft_index_table",
            ),
            *("SELECT * FROM performance_schema.events_statements_history", "SELECT info FROM information_schema.processlist"),
            *(
                f"HANDLER people OPEN; HANDLER people READ {column} FIRST",
                "HANDLER people READ FIRST",
                "TABLE people",
                "VALUES (1)",
            ),
            *(
                f"SET @a = (SELECT {column} FROM people LIMIT 1)",
                f"SELECT {column} INTO @a FROM people LIMIT 1",
                "DO 1",
                "CALL nothing()",
            ),
            *(
                f"SELECT {column} FROM people WHERE 1/0",
                f"SELECT /*! {column}, */ id FROM people",
                f"SELECT id FROM people WHERE MATCH (name) AGAINST ({column})",
            ),
            *(
                "CHECKSUM TABLE people",
                "LOCK TABLES people READ",
                "UNLOCK TABLES",
                "SELECT count(*) FROM people",
                "SELECT database(), user()",
            ),
            *(
                "SELECT table_name, column_name FROM information_schema.columns WHERE table_schema = 'masked'",
                f"PREPARE p FROM 'SELECT {column} FROM people'",
            ),
        )
