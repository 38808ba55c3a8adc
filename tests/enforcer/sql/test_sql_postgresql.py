"""What statements of PostgreSQL do, as their text says."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from capd.enforcer.sql import query
from capd.enforcer.sql.agreement import disagreement
from capd.enforcer.sql.calls import called
from capd.enforcer.sql.effect import Effects
from capd.enforcer.sql.lexeme import MESSAGE_BYTES_MAX, NESTING_MAX, POSTGRESQL_DEFAULT, Dialect
from capd.enforcer.sql.message import MESSAGES_MAX, SHAPES_MAX, Message, Reader
from capd.enforcer.sql.postgresql_scanner import scan
from capd.enforcer.sql.session import Session, new_session
from capd.enforcer.sql.statement import split

READER = Reader()
SESSION = new_session(Dialect.POSTGRESQL).told_schemas(("public",))


def read(sql: str, session: Session = SESSION) -> Message:
    """Give what a message does."""
    return READER.read(sql.encode(), session)


def told(found: Message) -> str:
    """Give what a message does in one line: effects, relations, and ? if that is not all."""
    effects = "unknown" if found.effects is None else ",".join(sorted(found.effects))
    relations = " ".join(f"{name}{'!' if access == 'write' else ''}" for name, access in found.resources or ())
    return f"{effects}: {relations}{'' if found.complete else ' ?'}".rstrip()


CERTAIN = [
    ("SELECT 1", "select:"),
    ("select * from a, s.b", "select: public.a s.b"),
    ('select * from "A" join "we""ird" using (x)', 'select: public.A public.we"ird'),
    ("TABLE a", "select: public.a"),
    ("values (1, 'x'), (2, 'y')", ":"),
    ("select * from pg_class", "select: pg_catalog.pg_class"),
    ("select * from only a where exists (select 1 from b)", "select: public.a public.b"),
    ("select a into temp b from c", "define,insert,select: pg_temp.b! public.c"),
    ("select * from a for update of a", "lock,select: public.a"),
    ("select 'delete from x' -- drop table y\n/* ; drop table z */ from a", "select: public.a"),
    ("select $$;drop table x;$$, $a$ $$ $a$, E'\\'; drop table x' from a", "select: public.a"),
    ("insert into a values (1)", "insert: public.a!"),
    ("insert into a (x) select y from b returning x", "insert,select: public.a! public.b"),
    ("insert into a values (1) on conflict (x) do update set y = 2", "insert,update: public.a!"),
    ("insert into a values (1) on conflict do nothing", "insert: public.a!"),
    ("update a set x = 1 from b where a.i = b.i", "select,update: public.a! public.b"),
    ("delete from a using b where a.i = b.i", "delete,select: public.a! public.b"),
    ("merge into a using b on a.i = b.i when matched then delete", "delete,select: public.a! public.b"),
    ("with x as (delete from a returning *) select * from x", "delete,select: public.a!"),
    ("with t as (select * from t) select * from t", "select: public.t"),
    ("with recursive t as (select 1 union select * from t) select * from t", "select:"),
    ("explain delete from a", "select: public.a"),
    ("explain analyze delete from a", "delete,select: public.a!"),
    ("explain (analyze off, verbose) delete from a", "select: public.a"),
    ("copy a to stdout", "select: public.a"),
    ("copy a (x) from stdin with csv", "insert: public.a!"),
    ("copy a from '/etc/passwd'", "file,insert: public.a!"),
    ("copy (delete from a returning *) to stdout", "delete,select: public.a!"),
    ("truncate a, s.b", "drop: public.a! s.b!"),
    ("create table a (i int primary key, t text default now(), b int references b(i))", "define: public.a! public.b!"),
    ("create table a as select * from b", "define,insert,select: public.a! public.b"),
    ("create view v as select * from a", "define,select: public.a public.v!"),
    ("create index on a (lower(x))", "define: public.a!"),
    ("alter table a drop column x, add column y varchar(10) default 'x'", "define,drop: public.a!"),
    ("alter table a owner to x", "define,grant: public.a!"),
    ("drop table if exists a, s.b", "drop: public.a! s.b!"),
    ("grant select on a to b", "grant: public.a!"),
    ("create role x password 'y'", "define,grant:"),
    ("set role x", "grant,session:"),
    ("begin; update a set x = 1 where y = 2; commit", "session,update: public.a!"),
    ("set search_path to s; select * from a", "select,session: s.a"),
    ("select nextval('s.q')", "select,update: s.q!"),
    ("select pg_read_file('/etc/passwd')", "file,select:"),
    ("select pg_terminate_backend(1)", "code,select:"),
    ("notify a, 'x'", "notify:"),
    ("select pg_notify('a', 'b')", "notify,select:"),
    ("vacuum full a", "maintain: public.a!"),
    ("lock table a in share mode", "lock: public.a"),
    ("declare c cursor for select * from a", "select,session: public.a"),
    ("show search_path", "select:"),
    ("select count(*) filter (where x > 1) over (partition by y) from a tablesample system (1)", "select: public.a"),
    ("select x is distinct from y, extract(year from z) from a", "select: public.a"),
    ("select * from generate_series(1, 2) as g(x)", "select:"),
    ("select a #>> '{x}' from a where b @> '{}' and c ? 'x'", "select: public.a"),
]


@pytest.mark.parametrize(("sql", "expected"), CERTAIN)
def test_effects_are_known(sql: str, expected: str) -> None:
    """Of these statements all is known: what they do, and to which relations."""
    assert expected == told(read(sql))


UNCERTAIN = [
    "do 'begin end'",
    "call p()",
    "execute p",
    "load 'x'",
    "select f(1)",
    "select s.lower('x')",
    'select "F"(1)',
    "select * from f(1)",
    "select * from rows from (f(1)) as t",
    "select query_to_xml('delete from a', true, true, '')",
    "select ts_stat('select 1')",
    "select lo_import('/etc/passwd')",
    "select dblink('x', 'delete from a')",
    "select nextval(x) from a",
    "copy a from program 'sh'",
    "create function f() returns int language sql as 'select 1'",
    "create function f() returns int begin atomic delete from a; select 1; end",
    "create trigger t after insert on a execute function f()",
    "create rule r as on insert to a do also delete from b",
    "create view v as select f(1)",
    "create table a (x int default f(1))",
    "alter table a alter x type int using f(x)",
    "create index on a (f(x))",
    "create extension x",
    "create schema s create table t (a int)",
    "drop table a cascade",
    "truncate a cascade",
    "drop index i",
    "vacuum",
    "reassign owned by a to b",
    "prepare transaction 'x'; select * from a where f(1)",
    "select * from a where x operator(s.=) 1",
    'select U&"\\0061" from a',
    "select 'x",
    "select (1",
    "select 1)",
    "select /* x",
    "select 1a",
    'select ""',
    "select * from d.s.t",
    'select * from "a.b"',
    "select * from " + "a" * 64,
    "select '\0'",
    "select \\",
    "",
    " ; ; ",
    "-- nothing",
    "select 1; do 'x'",
    "set search_path to s, pg_catalog; select lower('x')",
    "wibble",
    "select" + " (" * (NESTING_MAX + 1) + ")" * (NESTING_MAX + 1),
    "select '" + "x" * MESSAGE_BYTES_MAX + "'",
    "select " + "not " * 5_000 + "true",
    "select " + "- " * 15_000 + "1",
]


@pytest.mark.parametrize("sql", UNCERTAIN, ids=range(len(UNCERTAIN)))
def test_what_is_not_known_is_not_complete(sql: str) -> None:
    """What nobody can see through, or capd does not understand, is never called complete."""
    assert () != read(sql).problems


WHERE = [
    ("delete from a", False),
    ("delete from a where true", False),
    ("delete from a where 1 = 1", False),
    ("delete from a where x = 1", True),
    ("update a set x = 1", False),
    ("update a set x = 1 where current of c", True),
    ("truncate a", False),
    ("select * from a", True),
    ("insert into a values (1)", True),
    ("with x as (delete from a returning *) update b set x = 1 where y = 1", False),
    ("delete from a where x = 1; delete from b", False),
    ("delete from a where f(x)", None),
    ("delete from a; select f(1)", False),
]


@pytest.mark.parametrize(("sql", "expected"), WHERE)
def test_where(sql: str, *, expected: bool | None) -> None:
    """It is known whether every UPDATE and DELETE asks for a column."""
    assert expected is read(sql).has_where


SHAPES = [
    ("select * from a where x = 1 and y = 'b'", "select * from a where x = $$c$$ and y = 2.5", True),
    ("select * from a where x in (1, 2)", "SELECT *  FROM a -- x\n WHERE x IN (3,4,-5)", True),
    ("insert into a values (1, 'x')", "insert into a values (2, 'y'), (3, 'z')", True),
    ("select * from a where x = $1", "select * from a where x = 1", True),
    ("select x from a", "select y from a", False),
    ("select x from a", 'select "X" from a', False),
    ('select * from "( ? , ? )"', 'select * from "( ? , ? , ? )"', False),
    ("select x ? 1 from a", "select x 1 from a", False),
]


@pytest.mark.parametrize(("one", "other", "same"), SHAPES)
def test_shape(one: str, other: str, *, same: bool) -> None:
    """Statements that differ in literals only have one shape; others have another."""
    assert same is (read(one).shape == read(other).shape)


def test_sets_are_not_remembered_by_shape() -> None:
    """Where a literal decides what a statement does, another literal is another statement."""
    for sql, expected in (("set search_path to 's'; select * from a", "s.a"), ("set search_path to 't'; table a", "t.a")):
        found = read(sql)
        assert ((expected, "read"),) == found.resources


def test_what_is_remembered_is_bounded() -> None:
    """However many statements there are, as many are remembered as the limits say."""
    reader = Reader()
    for number in range(max(SHAPES_MAX, MESSAGES_MAX) + 10):
        reader.read(f"show a{number}".encode(), SESSION)
    assert (MESSAGES_MAX, SHAPES_MAX) == (len(reader._messages), len(reader._shapes))


CALLED = [
    ("select distinct on (a) f(b) from c", ["f"]),
    ("select 1 operator(pg_catalog.+) f(2)", ["f"]),
    ("select * from a, f(1) as (x int)", ["f"]),
    ("select * from g(1), f(1) as (delete int)", ["f", "g"]),
    ("select not materialized(1)", ["materialized"]),
    ("select s.f(1), f (2), f/* */(3)", ["f", "s.f"]),
    ('select "F"(1), "select"(2)', ["F", "select"]),
    ("select a.b(c.d(1))", ["a.b", "c.d"]),
    ("select x like f(1), like(1), left(1)", ["f", "left", "like"]),
    ("with q (x) as (select 1), r (y) as (values (2)) select * from q", []),
    ("insert into a (b) values (1) on conflict (b) do nothing", []),
    ("select count(*) filter (where x) over (partition by hash(y)) from a b (c, d)", ["count", "hash"]),
    ("select cast(x as varchar(10)), y in (1), exists (select 1), coalesce(z) from (a)", []),
]


@pytest.mark.parametrize(("sql", "expected"), CALLED)
def test_calls_are_found(sql: str, expected: list[str]) -> None:
    """What may be a call is taken for one; what cannot be one is not."""
    (statement,) = split(scan(sql.encode(), POSTGRESQL_DEFAULT), Dialect.POSTGRESQL)
    assert expected == list(called(statement).functions)


def test_the_parsers_calls_are_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    """A call that only the parser sees makes a statement incomplete: two who look see more than one."""
    monkeypatch.setattr(query, "called", lambda _statement: Effects(command=""))
    (statement,) = split(scan(b"select f(1) from a", POSTGRESQL_DEFAULT), Dialect.POSTGRESQL)
    assert ("the parser takes for a call what is none",) == query.query_effects(statement).problems


AGREED = {"select": 1}
DISAGREED = [
    ("select 1 from a", AGREED, {"a"}, True),
    ("select 1 from a", AGREED, set(), False),
    ("select 1 from a", {}, {"a"}, False),
    ("delete from a", {}, {"a"}, False),
    ("delete from a", {"delete": 1}, {"a"}, True),
    ("insert into a values (1)", {"insert": 1}, {"a"}, False),
    ("insert into a values (1) on conflict do nothing", {"insert": 1, "into": 1}, {"a"}, False),
    ("select drop from a", AGREED, {"a"}, False),
    ("select next value for a", AGREED, {"a"}, False),
    ("select 1 from s.a join only b on true", AGREED, {"a", "b"}, True),
    ("select 1 from s.a join only b on true", AGREED, {"a"}, False),
    ("select extract(year from b), b is distinct from c from a", AGREED, {"a"}, True),
]


@pytest.mark.parametrize(("sql", "counts", "named", "agree"), DISAGREED, ids=range(len(DISAGREED)))
def test_the_parser_must_agree(sql: str, counts: dict[str, int], named: set[str], *, agree: bool) -> None:
    """A verb or a relation among the pieces that the parser's tree does not have is found."""
    (statement,) = split(scan(sql.encode(), POSTGRESQL_DEFAULT), Dialect.POSTGRESQL)
    assert agree is (disagreement(statement, counts, named) is None)


WORDS = """
select insert into update delete from where a b s . ( ) [ ] , ; * = 'x' 1 $1 $$ $a$ E'\\'' " "q" -- /* */ with as values
union join on set returning copy to create table do drop
alter explain analyze grant lock declare for prepare cursor index $$x$$ U& N'x' :: : \\
"""
PIECES = st.sampled_from([*WORDS.split(), "\n", " ", "\0", "\xe9"])
SQL = st.lists(PIECES, max_size=30).map(" ".join) | st.lists(PIECES, max_size=30).map("".join) | st.text(max_size=60)


@given(SQL)
def test_reading_never_fails(sql: str) -> None:
    """Whatever is said, something is known of it, or why not; and the same again."""
    found = READER.read(sql.encode("utf-8", "surrogatepass"), SESSION)
    assert (found.effects is not None) or found.problems
    assert found == Reader().read(sql.encode("utf-8", "surrogatepass"), SESSION)
