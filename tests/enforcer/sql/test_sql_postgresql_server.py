"""What capd says of statements is what a real PostgreSQL does."""

from __future__ import annotations

import os
from pathlib import Path

import psycopg
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from psycopg.pq import ExecStatus

from capd.enforcer.sql import postgresql_scanner
from capd.enforcer.sql.lexeme import POSTGRESQL_DEFAULT, Dialect, Reading
from capd.enforcer.sql.statement import split
from tests.enforcer.sql import postgresql_corpus as corpus
from tests.enforcer.sql import postgresql_regression as regression
from tests.enforcer.sql.postgresql_regression import statements_in
from tests.enforcer.sql.postgresql_truth import Truth

Connection = psycopg.Connection[tuple[object, ...]]
MADE = int(os.environ.get("CAPD_SQL_MADE", "400"))
"""Statements; ten thousand take some minutes."""
SHARE_MIN = 0.98
"""Of statements that call nothing that capd cannot know."""


def tried(connection: Connection, texts: list[bytes], *, keep: bool = True) -> Truth:
    """Try statements; give what came of it."""
    connection.execute("SET statement_timeout = '10s'")
    truth = Truth(connection)
    for text in texts:
        truth.try_(text, keep=keep)
    return truth


def test_capd_is_never_sure_and_wrong(connection: Connection) -> None:
    """Statements of every kind write and read the relations that capd says, or are not complete."""
    connection.execute(corpus.SCHEMA.encode())
    truth = tried(connection, list(statements_in(corpus.BY_HAND)))
    assert [] == truth.verdicts.wrong
    assert truth.verdicts.counts["complete"] > 90, truth.verdicts.counts


def test_made_statements_are_told_rightly(connection: Connection) -> None:
    """Of statements made at random none is told wrongly, and almost all that call nothing unknown are complete."""
    connection.execute(corpus.SCHEMA.encode())
    texts = [text.encode() for text in corpus.Maker(7).statements(MADE)]
    counts = tried(connection, [text for text in texts if b"writes(" in text], keep=False)
    known = tried(connection, [text for text in texts if b"writes(" not in text], keep=False)
    assert [] == [*counts.verdicts.wrong, *known.verdicts.wrong]
    complete, incomplete = (known.verdicts.counts[word] for word in ("complete", "incomplete"))
    assert complete > MADE / 2, known.verdicts.counts
    assert complete / (complete + incomplete) >= SHARE_MIN, (known.verdicts.why, known.verdicts.examples)
    assert 0 == counts.verdicts.counts["complete"]


REGRESSION = r"""
\set kept :abs_srcdir '/kept.data'
CREATE TABLE a (x int PRIMARY KEY);
COPY a FROM stdin;
1
\.
INSERT INTO a SELECT length(:'kept');
CREATE FUNCTION own() RETURNS int LANGUAGE sql AS $$
  SELECT 1;

  SELECT 2;
$$;
SELECT own() \gset
CREATE VIEW v AS SELECT * FROM a;
DROP TABLE a CASCADE;
SELECT * FROM nowhere;
BEGIN;
"""


def test_the_servers_own_tests_are_counted(postgresql: str, tmp_path: Path) -> None:
    """Of a file for psql each statement is tried; shares are told of all, and of those whose code is in their text."""
    (tmp_path / "sql").mkdir()
    for name, text in {"test_setup": "CREATE TABLE made (x int);", "one": REGRESSION, "two": "SELECT * FROM made;"}.items():
        (tmp_path / "sql" / f"{name}.sql").write_text(text, encoding="utf-8")
    found = regression.all_tried(tmp_path, regression.names(tmp_path), postgresql)
    assert ([], []) == (found.wrong, found.lost)
    counted = {"complete": 5, "incomplete": 3, "code is elsewhere": 2, "refused by the server": 1, "steers the transaction": 1}
    assert counted == {name: found.counts[name] for name in counted}
    assert (5 / 8, 5 / 6) == (found.share, found.share_of_readable)
    assert "of 8 statements 62.50% are complete, 0 of them told wrongly" in found.report()


PIECES = st.sampled_from(
    [
        *("select 1", "select 'a;b'", "select E'\\';'", "select 'a\\'", "select $$;$$", "select $a$ $$;' $a$", "select"),
        *('select 1 as ";"', 'select 1 as "a"";"', "select 'a' /* ; */", "select 1 -- ;\n", "/* /* ; */ ; */ select 1"),
        *("select 'a'\n'b;'", "select U&'\\0061;'", "select E'a'\n'\\';'", "select N';'", "select B'1'", "select 1+-1"),
        *("select 1.5e3", "select (1)", "select 1$a", "select a$b$ from (select 1 as a$b$) q"),
        *(";", " ", "\n", ";;", "--\r", "'", "$$", '"', "\\"),
    ]
)
MESSAGES = st.lists(PIECES, max_size=8).map(";".join) | st.lists(PIECES, max_size=8).map("".join)


def results(connection: Connection, message: str) -> int | None:
    """Give how many statements the server sees in a message; None: it takes it for none."""
    connection.pgconn.send_query(message.encode())
    found: int | None = 0
    while (result := connection.pgconn.get_result()) is not None:
        status = ExecStatus(result.status)
        if status is ExecStatus.FATAL_ERROR:
            found = None
        elif status is not ExecStatus.EMPTY_QUERY and found is not None:
            found += 1
    return found


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=150)
@given(message=MESSAGES, standard=st.booleans())
def test_statements_are_split_as_the_server_does(connection: Connection, message: str, *, standard: bool) -> None:
    """A message that the server takes has as many statements for capd as for the server, or capd does not trust its reading."""
    connection.execute(f"SET standard_conforming_strings = {'on' if standard else 'off'}".encode())
    told = results(connection, message)
    reading = Reading(dialect=Dialect.POSTGRESQL, plain_backslash=standard)
    scanned = postgresql_scanner.scan(message.encode(), reading)
    statements = split(scanned, Dialect.POSTGRESQL)
    sure = not scanned.problems and not any(one.problems for one in statements)
    if told is not None and sure:
        assert told == len(statements)


LITERALS = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=12)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=100)
@given(LITERALS, LITERALS.filter(bool))
def test_literals_and_names_are_read_as_the_server_does(connection: Connection, value: str, name: str) -> None:
    """What stands in quotes is one literal, one name, for the server and for capd."""
    name = name.encode()[:60].decode(errors="ignore") or "x"
    quoted = value.replace("'", "''")
    message = f"""SELECT '{quoted}' AS "{name.replace('"', '""')}", $q${value.replace("$", "")}$q$"""
    cursor = connection.execute(message.encode(), binary=False)
    assert cursor.description is not None
    assert (value, name) == ((cursor.fetchone() or ("",))[0], cursor.description[0].name)
    lexemes = postgresql_scanner.scan(message.encode(), POSTGRESQL_DEFAULT).lexemes
    assert ["select", f"'{quoted}'", "as", name, ",", f"$q${value.replace('$', '')}$q$"] == [one.text for one in lexemes]
