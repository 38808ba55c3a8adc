"""Secrets and numbers with a checksum in results: found in any column that can hold one, and nothing else is touched.

What lives here: rules with identifiers and formats, with and without hidden columns. What must not: what each of them finds.
"""

from __future__ import annotations

import json
from collections.abc import Iterator

import psycopg
import pytest

from capd.enforcer.masking.rows.judgement import COPY_FORM
from capd.enforcer.policy.rule import Mask
from tests.enforcer.rows.mysql_agent import MysqlAgent, connected
from tests.enforcer.rows.postgresql_agent import Agent
from tests.servers.mariadb import MariaDb

CARD = "4111111111111111"
TOKEN = "ghp_" + "a1B2" * 9
CARD_NUMBER = int(CARD)
MASK = Mask(identifiers=("card", "iban"), formats=True)
BOTH = Mask(identifiers=("card",), columns=("hidden",))
TEXTS = {
    f"'paid with {CARD} today'": f"paid with {'*' * 16} today",
    f"'{CARD}x'": f"{CARD}x",
    f"'token {TOKEN}'": f"token {'*' * len(TOKEN)}",
    f"ARRAY['a', '{CARD}']": f"{{a,{'*' * 16}}}",
    f'\'{{"card": "{CARD}"}}\'::jsonb': f'{{"card": "{"*" * 16}"}}',
    f"'{{\"card\": {CARD}}}'::json": '"***"',
    f"{CARD}::int8": "0",
    f"{CARD}::numeric": "0",
    f"{CARD}.5::numeric": f"{CARD}.5",
    "'plain'": "plain",
    "NULL": None,
}
Connection = psycopg.Connection[tuple[object, ...]]


@pytest.fixture(scope="module")
def connection(database: str) -> Iterator[Connection]:
    """Give a connection to a database."""
    with psycopg.connect(database, autocommit=True) as found:
        found.execute("CREATE TABLE cards (id int, hidden text, note text)")
        found.execute("INSERT INTO cards VALUES (1, 'a', %s), (2, 'b', 'none')", (f"card {CARD}",))
        yield found


def test_values_are_looked_into(connection: Connection) -> None:
    """Numbers and secrets in texts become stars, in numbers and JSON a constant; what is like one and is none stays."""
    agent = Agent(connection, (("seek", MASK),))
    for expression, expected in TEXTS.items():
        (row,) = agent.run(f"SELECT {expression}").rows
        assert (expression, expected) == (expression, None if row[0] is None else row[0].decode())


def test_values_in_binary_are_looked_into(connection: Connection) -> None:
    """In binary the same is found in texts, arrays, JSON and whole numbers, and lengths stay right."""
    agent = Agent(connection, (("seek", MASK),))
    run = f"SELECT '{CARD}', ARRAY['a', '{CARD}'], '{{\"a\": {CARD}}}'::jsonb, {CARD}::int8, 7"
    (row,) = agent.run(run, extended=True, binary=True).rows
    text, array, document, number, seven = row
    assert (b"*" * 16, bytes(8), (7).to_bytes(4, "big")) == (text, number, seven)
    assert (array or b"").endswith(b"\0\0\0\x10" + b"*" * 16)
    assert json.loads((document or b"")[1:]) == "***"


def test_columns_and_forms_are_hidden_together(connection: Connection) -> None:
    """A rule may hide columns and look for numbers in all others, in rows and in COPY."""
    agent = Agent(connection, (("both", BOTH),))
    hidden = f"card {'*' * 16}".encode()
    assert [(b"1", None, hidden), (b"2", None, b"none")] == agent.run("SELECT * FROM cards ORDER BY id").rows
    assert [b"1\t\\N\t" + hidden + b"\n", b"2\t\\N\tnone\n"] == agent.run("COPY cards TO STDOUT").said
    assert [b'7,"' + b"*" * 16 + b'"\n'] == agent.run(f"COPY (SELECT 7, '{CARD}') TO STDOUT CSV").said
    assert COPY_FORM == agent.run(f"COPY (SELECT '{CARD}') TO STDOUT (FORMAT binary)").refused


def test_without_columns_nothing_is_refused(connection: Connection) -> None:
    """Where a rule hides no columns, statements that capd does not understand are answered, and looked into all the same."""
    agent = Agent(connection, (("seek", MASK),))
    connection.execute("CREATE OR REPLACE FUNCTION own() RETURNS text LANGUAGE sql AS $$ SELECT '4111111111111111' $$")
    assert [(b"*" * 16,)] == agent.run("SELECT own()").rows


def test_values_of_mysql_are_looked_into(mariadb: MariaDb) -> None:
    """In MariaDB the same is found, in text and prepared, of whatever column."""
    with connected(mariadb, "mysql") as connection:
        agent = MysqlAgent(connection, "mysql", (("seek", MASK),))
        text = f"SELECT 'card {CARD}', {CARD}, {CARD} + 0.0, 'plain', 7"
        (row,) = agent.run(text).rows
        (prepared,) = agent.run(text, prepared=True).rows
        assert (f"card {'*' * 16}".encode(), b"0", f"{CARD}.0".encode(), b"plain", b"7") == row
        assert (f"card {'*' * 16}".encode(), bytes(8), f"{CARD}.0".encode(), b"plain") == prepared[:4]
