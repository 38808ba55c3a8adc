"""What statements of PostgreSQL do, as their text says."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from capd.enforcer.sql import query
from capd.enforcer.sql.agreement import disagreement
from capd.enforcer.sql.calls import called
from capd.enforcer.sql.effect import ROLE, Effects
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
    (
        "select * from a left join (select 1 from b) c on true natural join (d cross join e)",
        "select: public.a public.b public.d public.e",
    ),
    ("select 1 from a group by (x), rollup (y, z), grouping sets (cube (x), (y)) order by (x)", "select: public.a"),
    ("merge into a using b on a.i = b.i when not matched then insert (i) values (b.i)", "insert,select: public.a! public.b"),
    ("insert into a (b[1:2], c.d[(1)].e) values (1, 2)", "insert: public.a!"),
    ("select x.i from a join b using (i) as x", "select: public.a public.b"),
    (
        "with recursive t as (select 1 from a) search depth first by x, y set z cycle x set i to 1 default 2 using p table t",
        "select: public.a",
    ),
    ("with t as (insert into a values (1)) values (2)", "insert,select: public.a!"),
    ("select xmlroot(xmlparse(document x), version '1', standalone no value) from a", "select: public.a"),
    ("select xmlserialize(content x as text), xmlpi(name y, 'z'), collation for (x) from a", "select: public.a"),
    ("select substring(x similar 'a' escape '#') from a tablesample bernoulli (x + 1) repeatable (2)", "select: public.a"),
    ("select json_object('{}'), 3 = any ('{1}') from a", "select: public.a"),
    ("select x like y escape '$'::bytea, currtid2('b'::text, z) from a", "select: public.a public.b"),
    ("alter foreign table a add column b integer options (c 'd')", "define: public.a!"),
    ("create statistics s (mcv) on x, (y + 1) from a", "define: public.a!"),
    ("select xmlexists('x' passing by ref y) from a where oid::regtype[] = z", "select: public.a"),
    (
        "select b.* from a, xmltable('/x' || e passing c columns d int path f || 'g' default (select 1 from h))",
        "select: public.a public.h",
    ),
    (
        "merge into a using b join c on d = e on a.d = e when matched then delete",
        "delete,select: public.a! public.b public.c",
    ),
    ("select 'a' is nfkc normalized b, path '[(0,0)]' from c", "select: public.c"),
    ("select * from current_user, current_date as a", "select:"),
    ("select a.relname from pg_catalog.pg_class a, generate_series(1, 2)", "select: pg_catalog.pg_class"),
    ("alter type a.b set (storage = plain)", "define:"),
    ("select a::oid[], b::tid from c", "select: public.c"),
    (
        "with recursive t as (select 1 from a) cycle x set i to point '(1,1)' default point '(0,0)' using path table t",
        "select: public.a",
    ),
    ("select b.* from a, xmltable('/x' passing c columns d for ordinality, e int path '@e' not null) b", "select: public.a"),
    ("select lo_unlink(1)", "delete,select: pg_catalog.pg_largeobject!"),
    ("select lo_import('/etc/passwd')", "file,insert,select: pg_catalog.pg_largeobject!"),
    ("create policy p on a using (x in (select y from b))", "define,grant: public.a! public.b"),
    ("create schema s create table t (a int)", "define: public.t! s.t!"),
    ("create publication p for table a, s.b (c) where (length(d) > 1)", "define,grant: public.a! s.b!"),
    ("alter table a no inherit b, add check (x > 0) no inherit", "define: public.a! public.b!"),
    ("alter table a set (fillfactor = 10), alter b reset (n_distinct)", "define: public.a!"),
    ("create table a partition of b (x default 1) for values in (1)", "define: public.a! public.b!"),
    ("alter trigger t on a rename to u", "define: public.a!"),
    ("alter index i rename to j", "define: public.i! public.j!"),
    ("alter table a rename to b", "define: public.a! public.b!"),
    ("alter table s.a rename to b", "define: s.a! s.b!"),
    ("alter view a set schema s", "define: public.a! s.a!"),
    ("alter table a rename b to c", "define: public.a!"),
    ("create sequence a owned by none.b", "define: public.a! public.none!"),
    ("alter sequence a owned by none", "define: public.a!"),
    ("create table a (b int generated always as identity (sequence name s.c start 1))", "define: public.a! s.c!"),
    ("alter table a add b int generated by default as identity (start 1 sequence name c)", "define: public.a! public.c!"),
    ("alter table s.a add b int generated always as identity (sequence name c)", "define: s.a! s.c!"),
    ("create table s.a (b int generated always as identity (sequence name c))", "define: s.a! s.c!"),
    ("create table a (sequence name, b int)", "define: public.a!"),
    ("comment on constraint a on domain.b is 'x'", "define: domain.b!"),
    ("comment on constraint a on domain is 'x'", "define: public.domain!"),
    ("comment on constraint a on domain b is 'x'", "define:"),
    ("grant select on type.a to b", "grant: type.a!"),
    ("set schema.a to 's'; select * from b", "select,session: public.b"),
    ("set schema 's'; select * from b", "select,session: s.b"),
    ("select xmlroot((select c from a, version b), version '1')", "select: public.a public.version"),
    ("with convert as (select 1) insert into convert (a) select b from convert", "insert,select: public.convert!"),
    ("with xmlroot as (select 1) insert into s.xmlroot (a) select b from xmlroot", "insert,select: s.xmlroot!"),
    (
        "with xmlparse as (select 1) insert into xmlparse (content, a) select b, c from xmlparse",
        "insert,select: public.xmlparse!",
    ),
    ('create collation c from "C"', "define:"),
    ("create text search configuration c (copy = simple)", "define:"),
    ("cluster i on a", "maintain: public.a!"),
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
    "select cube(1)",
    "select rollup(1) from a group by b order by 1, rollup(2)",
    "select 1 from a group by b, f(cube(1))",
    "select 1 from a group by (select 1 order by b, cube(c))",
    "select case when not matched then insert(1) end from a",
    "alter table a alter b type int using case when not matched then insert(1) end",
    "select set(1), set(2)",
    "alter table a alter b set default set(1)",
    "insert into a (b[(select 1 from c)]) values (1)",
    "insert into a (b[f(1)]) values (1)",
    "select * from a tablesample system ((select 1 from b))",
    "select xmlparse(content f(1))",
    "select all (f(1))",
    "select capd_call(1)",
    "with convert as (select 1) insert into capd_call (a) select b from convert",
    "create table a (x int check (x between options(1) and 2))",
    "alter type t add attribute x int cascade",
    "create statistics s on f(x) from a",
    'select "any"(1)',
    "alter publication p set table a",
    "create publication p for all tables",
    "create type t as range (subtype = int, subtype_diff = f)",
    "alter domain d set not null",
    "alter event trigger e enable",
    "alter index i attach partition j",
    "alter system set schema = a",
    "select dblink('x', 'delete from a')",
    "select nextval(x) from a",
    "copy a from program 'sh'",
    "copy () to stdout",
    "create function f() returns int language sql as 'select 1'",
    "create function f() returns int begin atomic delete from a; select 1; end",
    "create trigger t after insert on a execute function f()",
    "create rule r as on insert to a do also delete from b",
    "create view v as select f(1)",
    "create table a (x int default f(1))",
    "alter table a alter x type int using f(x)",
    "create index on a (f(x))",
    "create extension x",
    "create schema authorization current_role create table t (a int)",
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
    "-- nothing",
    "select 1; do 'x'",
    "set search_path to s, pg_catalog; select lower('x')",
    "wibble",
    "select ('/x'::text).pg_read_file",
    "select (a.b).lo_unlink from a",
    "select $1.ts_stat",
    "select a[1].pg_read_file from a",
    "select (a).b.pg_sleep from a",
    "select lower.pg_read_file from lower('/x')",
    "select x.pg_read_file from a, lateral lower(b) x",
    "select x.pg_read_file from unnest(b) x",
    "select x.pg_read_file from current_user x",
    "select set_config('search_' || 'path', 's', false)",
    "select set_config('search_path'::text, 's', false)",
    "select set_config(name, 's', false) from pg_settings",
    "select set_config(name, 's', false) from pg_settings where name = 'a' or name = 'b'",
    "select set_config(name, 's', false) from pg_settings where name = e'a'",
    "select 'a', 'work_mem', set_config(name, 's', false) from pg_settings",
    "update pg_settings set setting = 's' where name = 'search_path'",
    "with x as (update pg_catalog.pg_settings set setting = 's' returning 1) select * from x",
    "insert into pg_proc select * from pg_catalog.pg_proc",
    "copy pg_catalog.pg_proc from stdin",
    "alter function f(text) set schema pg_catalog",
    "alter schema s rename to r",
    "alter function f(text) rename to lower; select lower('x')",
    "alter routine s.lower(text) set schema public; select lower('x')",
    "alter aggregate f(text) rename to max; select max('x')",
    "alter operator s.+ (int, int) set schema public; select 1 + 1",
    "alter type s.t set schema public; select 'x'::t",
    "commit prepared 'x'; select lower('x')",
    "commit prepared 'x'",
    "rollback prepared 'x'",
    "begin; drop function lower(varchar); rollback; select lower('x')",
    "begin; savepoint a; drop cast (int as text); rollback to a; insert into a select 1",
    "select" + " (" * (NESTING_MAX + 1) + ")" * (NESTING_MAX + 1),
    "select '" + "x" * MESSAGE_BYTES_MAX + "'",
    "select treat('/etc/passwd'::text as pg_read_file)",
    "select 'a' similar to second('b')",
    "select 1 from a where 'a' not similar to second('b')",
    "select sum(x) over (order by x range columns(5) preceding) from a",
    "select nextval('s'::text || 'ecret')",
    "select setval('s'::text::regclass + 1, 5)",
    "select table_to_xml('s'::text || 'ecret', true, true, '')",
    "select pg_sequence_last_value(oid) from pg_class",
    "alter table a add column z text default set_config('search_path', 's', false)",
    "create view v as select pg_catalog.set_config('search_path', 's', false)",
    "create domain d as text default set_config('search_path', 's', false)",
    "alter table a set schema pg_catalog",
    "drop database d",
    "drop extension e",
    "drop subscription s",
    "create database d template e",
    "select 1 from values b",
    "select 1 from a, values b",
    "select 1 from values",
    "select 1 from values *",
    "create database d encoding utf8 template = e",
    "select " + "not " * 5_000 + "true",
    "select " + "- " * 15_000 + "1",
    "merge into " * 8_000 + "a",
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


@pytest.mark.parametrize("before", ["select 'x'.pg_read_file", "select 1.5 .pg_read_file", "select $1.pg_read_file"])
def test_no_literal_is_remembered_for_another(before: str) -> None:
    """What was said of a statement that the server refuses is not believed of one of its shape that it runs."""
    reader = Reader()
    reader.read(before.encode(), SESSION)
    found = reader.read(b"select $1.pg_read_file", SESSION)
    assert (frozenset({"file", "select"}), False) == (found.effects, found.complete)


def test_what_is_remembered_is_bounded() -> None:
    """However many statements there are, as many are remembered as the limits say."""
    reader = Reader()
    for number in range(max(SHAPES_MAX, MESSAGES_MAX) + 10):
        reader.read(f"show a{number}".encode(), SESSION)
    assert (MESSAGES_MAX, SHAPES_MAX) == (len(reader._messages), len(reader._shapes))


LONG = ["[1].b", "[1][2]", ", rollup (b)", ", cube (b)", " collate c", ", a.b.c", " || f(a)"]
SECONDS_MAX = 2.5
"""Of processor time. Of these, one took 68 s, one 16 and two 3.5, which are at 0.4 now."""


@pytest.mark.parametrize("again", LONG)
def test_a_long_statement_takes_no_minutes(again: str) -> None:
    """What one agent says keeps no worker from the others: its time does not grow with the square of a text's length."""
    began = time.process_time()
    Reader().read(f"select a{again * 1_500}".encode(), SESSION)
    assert time.process_time() - began < SECONDS_MAX


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


def test_a_setting_that_the_row_names() -> None:
    """pg_dump changes a setting where the server has it: which one stands behind its `where`."""
    asked = "SELECT set_config(name, 'view, foreign-table', false) FROM pg_settings WHERE name = '{}'"
    for setting, known in (("restrict_nonsystem_relation_kind", "restrict_nonsystem_relation_kind"), ("role", ROLE)):
        found = read(asked.format(setting))
        assert ((), [known]) == (found.problems, [one.setting for one in found.statements[0].changes])
