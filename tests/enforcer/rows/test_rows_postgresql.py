"""Statements about a hidden column, on a real PostgreSQL: what the agent gets of each.

What lives here: single statements, and what comes of them. What must not: statements made at random.
"""

from __future__ import annotations

from collections.abc import Iterator

import psycopg
import pytest

from capd.enforcer.masking.rows.changing import READS_TOO, SIMPLE, USES
from capd.enforcer.masking.rows.comparing import COMPARED, STARRED, WHOLE
from capd.enforcer.masking.rows.inquiry import STALE_SECONDS_MAX
from capd.enforcer.masking.rows.judgement import (
    COPIED,
    EXPLAINED,
    EXPRESSION,
    FILES,
    LEAVES,
    NOT_KNOWN,
    OWN_FUNCTION,
    RENAMES,
    SEVERAL,
    STORED,
)
from capd.enforcer.policy.rule import Mask, Predicates, Replace
from tests.enforcer.rows.postgresql_agent import Agent

SSN = b"536-90-4399"
SCHEMA = """
CREATE TABLE customers(id int PRIMARY KEY, name text, ssn text, salary numeric,
  last4 text GENERATED ALWAYS AS (right(ssn, 4)) STORED);
INSERT INTO customers(id, name, ssn, salary) VALUES (1, 'ann', '536-90-4399', 48211.5);
CREATE TABLE orders(id int, customer int, total int);
INSERT INTO orders VALUES (1, 1, 30), (2, 1, 12);
CREATE VIEW plain AS SELECT id, ssn AS x, upper(ssn) AS u, name FROM customers;
CREATE VIEW wholes AS SELECT c.id, row_to_json(c) AS j FROM customers c;
CREATE VIEW views AS SELECT p.x, s.q FROM plain p JOIN (SELECT id, ssn AS q FROM customers) s USING (id);
CREATE TABLE child() INHERITS (customers);
CREATE FUNCTION leak(customers) RETURNS text LANGUAGE sql AS 'SELECT $1.ssn';
"""
ROWS = {
    "SELECT * FROM customers": [(b"1", b"ann", b"***", b"0", None)],
    "SELECT id, ssn s, salary AS x FROM public.customers c WHERE c.id = 1": [(b"1", b"***", b"0")],
    "SELECT * FROM plain": [(b"1", b"***", None, b"ann")],
    "SELECT * FROM wholes": [(b"1", None)],
    "SELECT * FROM views": [(b"***", b"***")],
    "SELECT name, last4 FROM customers": [(b"ann", None)],
    "SELECT count(*), max(name) AS m FROM customers GROUP BY name ORDER BY 1": [(b"1", b"ann")],
    "SELECT c.ssn, sum(o.total), 7 FROM customers c JOIN orders o ON o.customer = c.id GROUP BY c.id": [(b"***", b"42", b"7")],
    "WITH t AS (SELECT id, name FROM customers) SELECT id FROM t": [(b"1",)],
    "SELECT id, upper(name), CASE WHEN id > 1 THEN name ELSE 'a' END FROM customers": [(b"1", b"ANN", b"a")],
    "UPDATE customers SET ssn = ssn || '' WHERE false RETURNING ssn": USES,
    "UPDATE customers SET salary = 1 WHERE id = 1 RETURNING ssn, name": [(b"***", b"ann")],
    "INSERT INTO customers(id, ssn) VALUES (9, '1') RETURNING *": [(b"9", None, b"***", None, None)],
    "DELETE FROM customers WHERE id = 9 RETURNING ssn": [(b"***",)],
    "SELECT max(ssn) FROM customers": COMPARED,
    "SELECT id FROM customers WHERE ssn LIKE '5%'": COMPARED,
    "SELECT id, ssn FROM customers ORDER BY 2": COMPARED,
    "SELECT id, ssn FROM customers ORDER BY (2)": COMPARED,
    "SELECT id, ssn FROM customers ORDER BY id, ((2)) DESC": COMPARED,
    "SELECT ssn, count(*) FROM customers GROUP BY (1)": COMPARED,
    "SELECT id, ssn FROM customers ORDER BY 2 USING OPERATOR(pg_catalog.<)": NOT_KNOWN,
    "SELECT id, ssn FROM customers ORDER BY (id) * 2, 1 + id LIMIT 1": [(b"1", b"***")],
    "SELECT id, ssn AS q FROM customers ORDER BY q": COMPARED,
    "SELECT id FROM customers c WHERE c::text LIKE '%5%'": WHOLE,
    "SELECT id FROM customers WHERE customers::text LIKE '%5%'": WHOLE,
    "SELECT row_to_json(c) FROM customers c": WHOLE,
    "SELECT id FROM orders WHERE EXISTS (SELECT id FROM customers c WHERE c::text LIKE '5%')": WHOLE,
    "SELECT id FROM orders WHERE (1, 2, 3, 4) IN (SELECT * FROM customers)": STARRED,
    "SELECT id FROM orders WHERE (1, 'a', '5', 2, '5') IN (SELECT DISTINCT ON (id) * FROM customers)": STARRED,
    "SELECT count(*) FROM (SELECT DISTINCT ON (id) * FROM customers ORDER BY id, 3) x": STARRED,
    "SELECT ssn FROM customers UNION SELECT 'x'": COMPARED,
    "SELECT c.row_to_json FROM customers c": WHOLE,
    "SELECT c.leak FROM customers c": OWN_FUNCTION,
    "SELECT leak(c) FROM customers c": NOT_KNOWN,
    "INSERT INTO child SELECT * FROM customers": READS_TOO,
    "UPDATE customers SET name = ssn": USES,
    "INSERT INTO customers(id, ssn) VALUES (1, '1') ON CONFLICT (id) DO UPDATE SET name = customers.ssn": USES,
    "INSERT INTO customers AS excluded(id) VALUES (1) ON CONFLICT (id) DO UPDATE SET name = excluded.ssn": SIMPLE,
    "UPDATE customers AS excluded SET name = excluded.ssn": SIMPLE,
    "UPDATE customers SET name = concat(name, ssn = '1')": USES,
    "SELECT * FROM pg_toast.pg_toast_16384": STORED,
    "UPDATE customers c SET name = c::text": USES,
    "CREATE TABLE other AS SELECT * FROM customers": COPIED,
    "SELECT * INTO other FROM customers": COPIED,
    "CREATE VIEW other AS SELECT ssn FROM customers": COPIED,
    "ALTER TABLE customers RENAME COLUMN ssn TO other": COPIED,
    "EXPLAIN SELECT * FROM customers": EXPLAINED,
    "SELECT pg_notify('a', ssn) FROM customers": LEAVES,
    "SELECT id FROM customers WHERE set_config('a.b', ssn, false) IS NOT NULL": LEAVES,
    "SELECT 1; SELECT ssn FROM customers": SEVERAL,
    "ALTER SCHEMA public RENAME TO other": RENAMES,
    "SELECT pg_read_binary_file(pg_relation_filepath('customers'))": FILES,
    "SELECT loread(lo_open(lo_import(pg_relation_filepath('customers')), 262144), 9999)": FILES,
    "COPY orders FROM '/etc/hostname'": FILES,
}
ALLOWED = {
    "SELECT id FROM customers WHERE ssn LIKE '5%'": [(b"1",)],
    "SELECT id FROM customers c WHERE c::text LIKE '%5%'": [(b"1",)],
    "WITH t AS (SELECT * FROM customers) SELECT ssn, name FROM t ORDER BY 1": [(b"***", b"ann")],
    "TABLE customers": [(b"1", b"ann", b"***", b"0", None)],
    "SELECT max(ssn) FROM customers": EXPRESSION,
    "SELECT (SELECT ssn FROM customers)": EXPRESSION,
    "SELECT ssn FROM customers UNION SELECT 'x'": EXPRESSION,
    "SELECT row_to_json(c) FROM customers c": EXPRESSION,
    "SELECT to_json(date) FROM customers c JOIN customers d USING (ssn) AS date": EXPRESSION,
    "SELECT c.ssn, date.ssn FROM customers c JOIN customers d USING (ssn) AS date": [(b"***", b"***")],
    "SELECT id FROM customers WHERE set_config('a.b', ssn, false) IS NOT NULL": LEAVES,
}


@pytest.fixture(scope="module")
def connection(database: str) -> Iterator[psycopg.Connection[tuple[object, ...]]]:
    """Give a connection to a database with customers."""
    with psycopg.connect(database, autocommit=True) as found:
        found.execute(SCHEMA)
        yield found


def agent(connection: psycopg.Connection[tuple[object, ...]], predicates: Predicates) -> Agent:
    """Give an agent for whom two columns are hidden."""
    mask = Mask(columns=("public.customers.ssn", "salary"), replace=Replace.FIXED, predicates=predicates)
    return Agent(connection, (("hide", mask),))


@pytest.mark.parametrize("extended", [False, True], ids=["simple", "extended"])
@pytest.mark.parametrize(("cases", "predicates"), [(ROWS, Predicates.DENY), (ALLOWED, Predicates.ALLOW)], ids=["deny", "allow"])
def test_what_comes_of_statements(
    connection: psycopg.Connection[tuple[object, ...]],
    cases: dict[str, object],
    predicates: Predicates,
    *,
    extended: bool,
) -> None:
    """Hidden columns come back as constants, others as they are, what could carry a hidden value is refused, with a reason."""
    asks = agent(connection, predicates)
    for text, expected in cases.items():
        got = asks.run(text, extended=extended and expected != SEVERAL)
        assert (text, expected) == (text, got.refused or got.rows)
        assert not any(SSN in value for value in got.everything), text


def test_what_others_define_is_found_out(connection: psycopg.Connection[tuple[object, ...]], database: str) -> None:
    """A view that somebody else makes is described before it is asked, and then known: its hidden column is hidden."""
    asks = agent(connection, Predicates.ALLOW)
    assert [(b"1",)] == asks.run("SELECT id FROM customers").rows
    with psycopg.connect(database, autocommit=True) as other:
        other.execute("CREATE VIEW fresh AS SELECT id, ssn AS x FROM customers")
    assert "stale" == asks.run("SELECT * FROM fresh").refused
    asks.known.forget()
    assert [(b"1", b"***")] == asks.run("SELECT * FROM fresh").rows
    with psycopg.connect(database, autocommit=True) as other:
        other.execute("CREATE OR REPLACE VIEW fresh AS SELECT id, name AS x FROM customers")
        other.execute("CREATE VIEW later AS SELECT id, ssn FROM customers")
    asks.time += STALE_SECONDS_MAX + 1
    assert [(b"1", b"ann")] == asks.run("SELECT * FROM fresh").rows
    assert [(b"1", b"***")] == asks.run("SELECT * FROM later").rows
    connection.execute("DROP VIEW fresh, later")
