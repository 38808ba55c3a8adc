"""Passwords in the text of SQL: hidden however they are written, and nothing else is."""

from __future__ import annotations

import time

import psycopg
import pytest
from hypothesis import given
from hypothesis import strategies as st
from psycopg.conninfo import make_conninfo

from capd.decoders.message import Direction
from capd.enforcer.masking.rules import Choice, Rules
from capd.enforcer.masking.sql_secrets import MYSQL, POSTGRESQL, hidden, hidden_in_error, places, places_in_error
from capd.enforcer.masking.values import Values
from tests.e2e import postgres
from tests.enforcer.judging import pieces, postgresql_shown
from tests.enforcer.sign_in.conftest import Server
from tests.enforcer.test_masking_postgresql import BEGIN, message, query

RULES = Rules(Choice())
PASSWORD = "hunter2-hunter2"
STARS = "*" * len(PASSWORD)
POSTGRESQL_STATEMENTS = [
    "CREATE USER u PASSWORD '{}'",
    "CREATE USER u WITH ENCRYPTED PASSWORD E'{}' VALID UNTIL '2030-01-01'",
    "alter role u password $${}$$",
    "ALTER ROLE u PASSWORD $tag${}$tag$; DROP TABLE evidence",
    "ALTER ROLE u PASSWORD U&'{}'",
    "ALTER ROLE u PASSWORD/* /* c */ ' */'{}'",
    "ALTER ROLE u PASSWORD -- it's\n'{}'",
    "ALTER ROLE u PASSWORD'{}'",
    "SELECT 'it''s'; ALTER ROLE u PASSWORD '{}'; SELECT 'this'",
    "SELECT E'\\''; ALTER ROLE u PASSWORD '{}'",
    "CREATE USER MAPPING FOR u SERVER s OPTIONS (user 'a', \"password\" '{}')",
    "ALTER USER MAPPING FOR u SERVER s OPTIONS (SET password '{}')",
    "SET LOCAL my.password TO '{}'",
    "SELECT set_config('my.password', '{}', false), 'this'",
    "SELECT dblink_connect('c', 'host=h password=''{}'' user=u')",
    "SELECT dblink_connect(E'host=h password=\\'{}\\'')",
    "DO $$ BEGIN EXECUTE 'ALTER ROLE u PASSWORD ''{}'''; PERFORM 'this'; END $$",
    "UPDATE u SET password = crypt('{}', gen_salt('{}')), name = 'this'",
    "SELECT pgp_sym_encrypt('{}', '{}'), 'this'",
    "INSERT INTO u (name, \"password\", age) VALUES ('this', '{}', 1), ('that', '{}', 2) RETURNING 'this'",
    "UPDATE u SET (name, password) = ('this', '{}') WHERE id IN ('a', 'b')",
]
MYSQL_STATEMENTS = [
    "CREATE USER 'u'@'h' IDENTIFIED BY '{}'",
    'CREATE USER u IDENTIFIED BY "{}"',
    "CREATE USER u IDENTIFIED BY PASSWORD '{}'",
    "CREATE USER u IDENTIFIED WITH mysql_native_password BY '{}'",
    "CREATE USER u IDENTIFIED VIA ed25519 USING PASSWORD('{}')",
    "CREATE USER u IDENTIFIED/**/BY/*!50000 '{}' */",
    "CREATE USER u IDENTIFIED BY # it's\n'{}'",
    "ALTER USER u IDENTIFIED BY '{}' REPLACE '{}'; SELECT 'this'",
    "GRANT ALL ON *.* TO 'u'@'h' IDENTIFIED BY '{}'",
    "SET PASSWORD = '{}'",
    "SET PASSWORD FOR u = PASSWORD('{}'); SELECT 'this'",
    'SET PASSWORD = OLD_PASSWORD("{}")',
    "CHANGE MASTER TO MASTER_USER='u', MASTER_PASSWORD='{}'",
    "UPDATE mysql.user SET authentication_string=PASSWORD('{}') WHERE user = 'this'",
    "PREPARE s FROM 'SET PASSWORD = ''{}'''",
    "SET @s = CONCAT('ALTER USER u IDENTIFIED BY ''{}''')",
    "REPLACE INTO u (password) VALUE (SHA1('{}'))",
    "SELECT AES_ENCRYPT('{}', '{}'), 'this'",
    "SELECT \"it's\", 'a\\'', `it's`; SET PASSWORD = '{}'",
]
CASES = [(POSTGRESQL, text) for text in POSTGRESQL_STATEMENTS] + [(MYSQL, text) for text in MYSQL_STATEMENTS]


@pytest.mark.parametrize(("dialect", "text"), CASES, ids=[text.split("{}")[0][:60] for _, text in CASES])
def test_passwords_are_hidden_and_nothing_else(dialect: str, text: str) -> None:
    """Every byte of the password, and no byte of what else is said; an empty password has nothing to hide."""
    shown = hidden(text.replace("{}", PASSWORD), dialect)
    assert PASSWORD not in shown
    assert text.replace("{}", STARS) == shown
    assert text.replace("{}", "") == hidden(text.replace("{}", ""), dialect)


ERRORS = [
    (MYSQL, "You have an error; check the manual for the right syntax to use near 'USR u IDENTIFIED BY \"{}\"' at line 1"),
    (MYSQL, "You have an error in your SQL syntax near 'PASSWORD FOR u = '{}'' at line 1"),
    (POSTGRESQL, 'SQL statement "ALTER ROLE u PASSWORD $x${}$x$"\nPL/pgSQL function f() line 1 at EXECUTE'),
    (POSTGRESQL, "ALTER ROLE u PASSWORD '{}'"),
]


@pytest.mark.parametrize(("dialect", "text"), ERRORS)
def test_errors_repeat_no_password(dialect: str, text: str) -> None:
    """What an error repeats of a statement has its password hidden."""
    assert PASSWORD not in hidden_in_error(text.replace("{}", PASSWORD), dialect)


@pytest.mark.parametrize("piece", [b"near 'password ", b"'password ''x'' ' ", b"(password, ", b"crypt(", b"''password"])
def test_time_is_linear(piece: bytes) -> None:
    """Whatever a peer repeats, ten times as much of it takes about ten times as long."""

    def least_seconds(size: int) -> float:
        took = []
        for _ in range(3):
            began = time.process_time()
            places_in_error(piece * (size // len(piece)), 0, POSTGRESQL)
            took.append(time.process_time() - began)
        return min(took)

    assert least_seconds(40_000) < 40 * least_seconds(4_000) + 0.05


def test_other_errors_stay() -> None:
    """An error that only speaks of passwords is shown."""
    for text in ('password authentication failed for user "ann"', "Your password does not satisfy the policy 'strong'"):
        assert [text] * 2 == [hidden_in_error(text, dialect) for dialect in (POSTGRESQL, MYSQL)]


NO_PASSWORDS = [
    (POSTGRESQL, "SELECT password = f('DROP TABLE evidence'), my.crypt('DROP TABLE evidence')"),
    (POSTGRESQL, "DO $$ BEGIN password := ''; DROP TABLE evidence; x := ''; END $$"),
    (POSTGRESQL, "INSERT INTO u (password) SELECT f('DROP TABLE evidence')"),
    (POSTGRESQL, "SELECT 'password', name FROM users WHERE id = 'x'"),
    (POSTGRESQL, "CREATE FUNCTION f(password text) RETURNS text LANGUAGE sql AS $$ DROP TABLE evidence $$"),
    (POSTGRESQL, "CREATE FUNCTION password() RETURNS password AS $$ DROP TABLE evidence $$ LANGUAGE sql"),
    (POSTGRESQL, "SELECT password($$DROP TABLE evidence$$)"),
    (POSTGRESQL, "CREATE USER u PASSWORD NULL; DROP TABLE evidence; SELECT 'x'"),
    (POSTGRESQL, "SELECT identified, 'evidence' FROM t; SELECT 'more'"),
    (POSTGRESQL, "-- PASSWORD 'x'\nSELECT 'y'"),
    (POSTGRESQL, "SELECT 'PASSWORD ', 'y'"),
    (MYSQL, "SELECT identified, 'evidence' FROM t"),
    (MYSQL, "CREATE USER u IDENTIFIED BY ''; DROP TABLE evidence; SELECT 'x'"),
    (MYSQL, "ALTER USER u PASSWORD EXPIRE INTERVAL 90 DAY; SELECT 'x'"),
]


@pytest.mark.parametrize(("dialect", "text"), NO_PASSWORDS, ids=[text[:50] for _, text in NO_PASSWORDS])
def test_what_is_no_password_stays(dialect: str, text: str) -> None:
    """Nobody hides code, or what else he does, behind the word."""
    assert text == hidden(text, dialect)


@given(st.text(max_size=80), st.sampled_from([POSTGRESQL, MYSQL]))
def test_any_text(text: str, dialect: str) -> None:
    """No text raises, or becomes longer or shorter; only what is in a literal changes."""
    for said in (text, f"ALTER USER u PASSWORD {text}", f"{text} IDENTIFIED BY '{text}", f"CREATE {text} identified by {text}"):
        data = said.encode("utf-8", "surrogatepass")
        for place in places(data, 0, dialect):
            assert 0 <= place.start < place.end <= len(data)
        assert len(data) == len(hidden(said, dialect).encode("utf-8", "replace"))


SECRETS = ["it''s", "a\\\\b", "a;b", "$$", "-- x", "/* x", '"x"', "ünï"]


@pytest.mark.parametrize("secret", SECRETS)
@pytest.mark.parametrize("form", ["'{}'", "E'{}'", "$q${}$q$", "'x'\n'{}'"])
def test_postgresql_takes_the_same_for_the_password(postgresql: Server, form: str, secret: str) -> None:
    """The server reads the password where it was hidden: who signs in with what stood there gets in."""
    if "$$" in secret and form.startswith("$"):
        secret = "$ $"
    written = form.replace("{}", secret)
    text = f"ALTER USER tried PASSWORD {written}"
    known = f"host=localhost hostaddr=127.0.0.1 port={postgresql.port} dbname=postgres sslmode=disable"
    with psycopg.connect(make_conninfo(known, user="agent", password=postgres.PASSWORD), autocommit=True) as admin:
        admin.execute("DROP USER IF EXISTS tried")
        admin.execute("CREATE USER tried")
        admin.execute(text.encode())
        (value,) = admin.execute(f"SELECT {written}".encode()).fetchone() or (b"",)  # bytes: the server was made with LANG=C
    psycopg.connect(make_conninfo(known, user="tried", password=bytes(value).decode())).close()
    data = text.encode()
    found = places(data, 0, POSTGRESQL)
    assert secret.encode() not in b"".join(
        data[a:b] for a, b in zip([0, *(one.end for one in found)], [*(one.start for one in found), len(data)], strict=True)
    )
    assert secret.encode() == data[found[-1].start : found[-1].end]


@pytest.mark.parametrize("size", [0, 1, 7])
@pytest.mark.parametrize("extended", [False, True])
def test_a_recording_does_not_have_them(size: int, extended: bool) -> None:
    """In the bytes of Query and Parse they are hidden, however those arrive; a statement behind it stays."""
    text = f"ALTER USER u PASSWORD E'\\'{PASSWORD}'; SELECT 'this'"
    said = message(b"P", b"name'\0" + text.encode() + b"\0\0\0") if extended else query(text)
    shown = postgresql_shown(RULES, pieces([*BEGIN, (Direction.REQUEST, said)], size))[0]
    assert PASSWORD.encode() not in shown
    assert b"ALTER USER u PASSWORD E'" + b"*" * 2 + STARS.encode() + b"'; SELECT 'this'" in shown


def test_connection_strings_are_for_the_other_rules() -> None:
    """What is inside of a literal is found as in any text."""
    text = f"SELECT dblink_connect('host=a password={PASSWORD}')"
    assert PASSWORD not in Values(RULES).text(text)
