"""What is known of a session, and what statements make of it."""

from __future__ import annotations

import pytest

from capd.enforcer.sql.lexeme import Dialect
from capd.enforcer.sql.message import Reader
from capd.enforcer.sql.session import TEMPORARY_MAX, Session, new_session

READER = Reader()
KNOWN = new_session(Dialect.POSTGRESQL).told_schemas(("public",))
MYSQL = new_session(Dialect.MYSQL).told_schemas(("d",))


def after(session: Session, *messages: str, succeeded: bool | None = True) -> Session:
    """Give the session after some messages."""
    for message in messages:
        for done in READER.read(message.encode(), session).statements:
            session = session.after(done, succeeded=succeeded)
    return session


def names(session: Session, sql: str = "table t") -> tuple[str, ...]:
    """Give what a name without a schema may be."""
    return tuple(name for name, _ in READER.read(sql.encode(), session).resources or ())


PATHS = [
    ([], ("public.t",)),
    (["set search_path to s"], ("s.t",)),
    (["set search_path to s, public"], ("public.t", "s.t")),
    (["set schema 's'"], ("s.t",)),
    (['set search_path to "$user", public'], ("?.t",)),
    (["select set_config('search_path', 's', false)"], ("?.t",)),
    (["reset search_path"], ("?.t",)),
    (["reset all"], ("?.t",)),
    (["discard all"], ("?.t",)),
    (["set role x"], ("?.t",)),
    (["create schema x"], ("?.t",)),
    (["do 'x'"], ("?.t",)),
    (["select f(1)"], ("?.t",)),
    (["set timezone to 'x'"], ("public.t",)),
    (["begin", "set search_path to s", "rollback"], ("?.t",)),
    (["begin", "set search_path to s", "commit"], ("?.t",)),
    (["begin", "set local search_path to s"], ("s.t",)),
    (["begin", "set local search_path to s", "commit"], ("?.t",)),
    (["begin", "set search_path to s", "set local search_path to r", "end"], ("?.t",)),
    (["begin", "savepoint a", "set search_path to s", "rollback to a"], ("?.t",)),
    (["begin", "rollback and chain", "set search_path to s", "rollback"], ("?.t",)),
    (["begin", "savepoint a", "rollback to a", "rollback"], ("public.t",)),
    (["create temp table t (i int)"], ("pg_temp.t", "public.t")),
    (["create temp table t as select 1"], ("pg_temp.t", "public.t")),
    (["select 1 as i into temp t"], ("pg_temp.t", "public.t")),
    (["create table pg_temp.t (i int)"], ("pg_temp.t", "public.t")),
    (["create temp table u (i int)", "create view t as select * from u"], ("pg_temp.t", "public.t")),
    (["create temp table u (i int)", "alter table u rename to t"], ("pg_temp.t", "public.t")),
    (["create view t as select 1"], ("public.t",)),
    (["set search_path to pg_temp, public"], ("?.t",)),
    (["declare c cursor for select set_config('search_path', 's', false)", "set search_path to s", "fetch c"], ("?.t",)),
    (["declare c cursor for select 1", "set search_path to s", "fetch c"], ("s.t",)),
    (['reset "role"'], ("?.t",)),
    (["create temp table u (i int)"], ("public.t",)),
]


@pytest.mark.parametrize(("messages", "expected"), PATHS, ids=range(len(PATHS)))
def test_names_are_followed(messages: list[str], expected: tuple[str, ...]) -> None:
    """After these messages a name without a schema may be these relations, and no others."""
    assert expected == names(after(KNOWN, *messages))


def test_a_statement_that_failed_changes_nothing() -> None:
    """What failed leaves the session as it was; where that is not known, what it would have changed is not known."""
    assert KNOWN == after(KNOWN, "set search_path to s", succeeded=False)
    assert ("?.t",) == names(after(KNOWN, "set search_path to s", succeeded=None))
    assert ("public.t",) == names(after(KNOWN, "set search_path to public", succeeded=None))


def test_the_servers_word_counts() -> None:
    """What the server says of itself is known again, whatever was not understood before."""
    session = after(KNOWN, "select f(1)").told_schemas(("s",), ("t",))
    assert ("pg_temp.t", "s.t") == names(session)


READINGS = [
    (KNOWN, ["set standard_conforming_strings to off"], "select 'a\\'; drop table b; --' from t", ("public.t",)),
    (
        KNOWN,
        ["set standard_conforming_strings to off", "set standard_conforming_strings to on"],
        "select 'a\\' from t",
        ("public.t",),
    ),
    (MYSQL, ["set sql_mode = 'ANSI_QUOTES'"], 'select * from "t"', ("d.t",)),
    (MYSQL, ["set sql_mode = 'NO_BACKSLASH_ESCAPES'"], "select 'a\\' from t", ("d.t",)),
    (MYSQL, ["set @@`sql_mode` = 'ANSI_QUOTES'"], 'select * from "t"', ("d.t",)),
    (MYSQL, ["use e"], "select * from t", ("e.t",)),
    (MYSQL, ["set names utf8mb4"], "select * from t", ("d.t",)),
]


@pytest.mark.parametrize(("session", "messages", "sql", "expected"), READINGS, ids=range(len(READINGS)))
def test_quotes_are_followed(session: Session, messages: list[str], sql: str, expected: tuple[str, ...]) -> None:
    """How text is read follows what the session set."""
    found = READER.read(sql.encode(), after(session, *messages))
    assert ((), expected) == (found.problems, tuple(name for name, _ in found.resources or ()))


REFUSED = [
    (KNOWN, "set client_encoding to 'SJIS'"),
    (KNOWN, "set names 'BIG5'"),
    (KNOWN, "set client_encoding to default"),
    (KNOWN, "set standard_conforming_strings to default"),
    (KNOWN, "set search_path to s, pg_catalog"),
    (MYSQL, "set names gbk"),
    (MYSQL, "set character_set_client = sjis"),
    (MYSQL, "set sql_mode = @x"),
    (MYSQL, "call p()"),
    (MYSQL, "set sql_mode = concat('ANSI', '_QUOTES')"),
    (MYSQL, "set sql_mode = 0x414E53495F51554F544553"),
    (MYSQL, "set sql_mode = 4"),
    (MYSQL, "set sql_mode = 'MSSQL'"),
    (MYSQL, "set @@`sql_mode` = @x"),
    (MYSQL, "set @@`character_set_client` = gbk"),
]


@pytest.mark.parametrize(("session", "sql"), REFUSED, ids=range(len(REFUSED)))
def test_what_changes_the_meaning_of_text_is_refused(session: Session, sql: str) -> None:
    """After these statements nothing is complete, until the server says what is so."""
    assert not READER.read(b"select 'x'", after(session, sql)).complete


def test_what_the_server_reports_is_believed() -> None:
    """An encoding, or a way to read backslashes, that the server reports is known from then on."""
    lost = after(KNOWN, "set client_encoding to 'SJIS'")
    assert READER.read(b"select 'x'", lost.reported("client_encoding", "UTF8")).complete
    assert not READER.read(b"select 'x'", KNOWN.reported("client_encoding", "GBK")).complete
    assert not READER.read(b"select 'a\\'", KNOWN.reported("standard_conforming_strings", "off")).complete


def test_names_in_other_encodings_are_not_known() -> None:
    """What a byte beyond ASCII means in a name is known of UTF-8 alone: of others a name is another one, or a byte a blank."""
    for session, encoding in ((KNOWN, "KOI8R"), (KNOWN, "LATIN1"), (KNOWN, "SQL_ASCII"), (MYSQL, "latin1"), (MYSQL, "cp1251")):
        setting = "client_encoding" if session is KNOWN else "character_set_client"
        narrow = session.reported(setting, encoding)
        quote = b'"' if session is KNOWN else b"`"
        assert READER.read(b"select '\xe9' from a", narrow).complete
        for text in (b"select * from a x\xa0join\xa0b", b"table " + quote + b"\xe9" + quote, b"select @\xa0 from a"):
            assert not READER.read(text, narrow).complete, text


def test_what_a_transaction_ends_with_is_not_remembered_for_another() -> None:
    """Behind COMMIT names are looked for where this session's own path leads, whatever another session's said."""
    message = "commit; table t"
    assert ("public.t",) == names(KNOWN, message)
    turned = after(new_session(Dialect.POSTGRESQL).told_schemas(("secret",)), "begin", "set local search_path to public")
    assert (KNOWN.names.schemas, ("?.t",)) == (turned.names.schemas, names(turned, message))


def test_remembered_names_are_bounded() -> None:
    """Beyond so many temporary relations any name may be one."""
    session = after(KNOWN, *(f"create temp table t{number} (i int)" for number in range(TEMPORARY_MAX + 1)))
    assert ("?.x",) == names(session, "table x")


def test_a_function_that_hides_the_servers_is_not_known() -> None:
    """Where the server has another function by the name of one of its own, a call by that name is not complete."""
    session = KNOWN.told_functions(["lower"])
    assert READER.read(b"select lower('x')", KNOWN).complete
    assert not READER.read(b"select lower('x')", session).complete
    assert READER.read(b"select upper('x')", session).complete
    hidden = KNOWN.told_functions(["substring", "overlay"])
    for text in (b"select substring('x', 1)", b"select overlay('x', 'y', 1)"):
        assert READER.read(text, KNOWN).complete
        assert not READER.read(text, hidden).complete
