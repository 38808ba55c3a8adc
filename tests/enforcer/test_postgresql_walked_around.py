"""Ways round the policy that were found by attacking it: statements that a real server reads otherwise than they were judged.

What lives here: what an agent says, and that what it must not read never comes. What must not: single messages, masking.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from contextlib import closing, suppress
from dataclasses import replace

import psycopg
import pytest

from capd.enforcer.credentials.secret import Secret
from capd.enforcer.obligations.obligation import Obligations
from capd.enforcer.obligations.sign_in import SignIn
from capd.enforcer.policy.rule import Mask
from capd.enforcer.proxy.question import Kind, Question, Verdict
from tests.e2e.postgres import PASSWORD
from tests.enforcer.postgresql_model import SYNC, bind, close, execute, messages, parse, query, startup
from tests.enforcer.proxied import ADDRESS
from tests.enforcer.test_postgresql_live import Place, Verdicts, shared  # noqa: F401 - a fixture

SECRET = "kept-from-agents"
TABLES = """
drop schema if exists private cascade; create schema private; drop table if exists public.orders cascade;
create table private.orders (s text); insert into private.orders values ('kept-from-agents');
create table public.orders (s text); insert into public.orders values ('open');
create or replace function peek(orders) returns text language sql as 'select s from private.orders';
create or replace function peeks(anyelement) returns text language sql as 'select s from private.orders';
create or replace function looks(text, int default 1) returns text language sql as 'select s from private.orders';
create or replace function public.kept(varchar) returns text language sql as 'select s from private.orders'
"""
ORDERS = "select * from orders"
TWO_READINGS = r"select '\', (select s from private.orders) --'"
ALTERED = "select lower('x'::varchar)"
"""Of a type for which a function of others fits better than the server's own."""
TURN, BACK = "set search_path to private", "set search_path to public"


def policy(question: Question) -> Verdict:
    """Allow what is known in full and touches nothing private."""
    statement = question.statement
    allowed = question.kind is Kind.SESSION
    if statement is not None and not statement.problems and statement.resources is not None:
        allowed = not any(name.startswith(("private.", "?.")) for name, _ in statement.resources)
    return Verdict(number=question.number, allowed=allowed, reason="" if allowed else "denied", rule="r", policy="1")


@pytest.fixture
def place(shared: Place, monkeypatch: pytest.MonkeyPatch) -> Iterator[Place]:  # noqa: F811 - the fixture
    """Give a server with a table that is kept from agents, and the proxy before it."""
    monkeypatch.setattr(Verdicts, "__call__", lambda _, question: policy(question))
    shared.direct(TABLES)
    yield shared
    assert [] == shared.proxy.mistakes
    assert 0 == shared.proxy.counters.defects


ONE_BY_ONE = {
    "set_config in an argument of EXECUTE": [
        "prepare p (text) as select $1",
        "execute p(set_config('search_path', 'private', false))",
        ORDERS,
    ],
    "back to a savepoint": ["begin", TURN, "savepoint a", BACK, "rollback to a", ORDERS],
    "SET LOCAL without a transaction": [TURN, "set local search_path to public", ORDERS],
    "BEGIN takes what is before it in a message": [TURN, f"{BACK}; begin; rollback", ORDERS],
    "and what is local there": [TURN, "set local search_path to public; begin; commit", ORDERS],
    "a transaction that is undone": [TURN, "begin", BACK, "rollback", ORDERS],
    "a transaction in which a setting was local": [TURN, "begin", "set local search_path to public", "commit", ORDERS],
    "all of it in one message": [TURN, f"begin; savepoint a; {BACK}; rollback to a; {ORDERS}"],
    "a message that fails": [TURN, f"{BACK}; select 1/0", ORDERS],
    "a message that fails within a transaction": ["begin", TURN, "savepoint a", f"{BACK}; select 1/0", "rollback to a", ORDERS],
    "DISCARD": [TURN, BACK, "discard all", TURN, "reset search_path", ORDERS],
    "set_config of a name that is worked out": ["select set_config('search_' || 'path', 'private', false)", ORDERS],
    "set_config of a name that is worked out, in one message": [
        f"select set_config('search_' || 'path', 'private', false); {ORDERS}"
    ],
    "a view that sets": ["update pg_settings set setting = 'private' where name = 'search_path'", ORDERS],
    "a schema that is called otherwise": ["alter schema private rename to open", "select * from open.orders"],
    "a function that is called otherwise": ["alter function public.kept(varchar) rename to lower", ALTERED],
    "and in one message": [f"alter function public.kept(varchar) rename to lower; {ALTERED}"],
    "in one message, and nothing stays": [f"begin; alter function public.kept(varchar) rename to lower; {ALTERED}; rollback"],
}


@pytest.mark.parametrize("name", ONE_BY_ONE)
def test_one_by_one(place: Place, name: str) -> None:
    """Names are looked for where the server looks for them."""
    with place.connect() as connection:
        for sql in ONE_BY_ONE[name]:
            with suppress(psycopg.Error):
                found = connection.execute(sql, prepare=False)
                assert not found.description or SECRET not in str(found.fetchall())


OFF = "set standard_conforming_strings to off"
PIPELINED = {
    "undone": ["begin", OFF, "rollback", TWO_READINGS],
    "back to a savepoint": ["begin", "savepoint a", OFF, "rollback to a", TWO_READINGS],
    "local": ["begin", "set local standard_conforming_strings to off", "commit", TWO_READINGS],
    "names, local": [TURN, "begin", "set local search_path to public", "commit", ORDERS],
    "names, undone": ["begin", TURN, "savepoint a", BACK, "rollback to a", ORDERS],
}


def pipelined(connection: psycopg.Connection[tuple[object, ...]], statements: list[str]) -> str:
    """Say statements in one pipeline and give all rows that come."""
    asked = []
    with suppress(psycopg.Error), connection.pipeline():
        asked = [connection.execute(sql) for sql in statements]
    return "".join(str(one.fetchall()) for one in asked if one.description)


@pytest.mark.parametrize("name", PIPELINED)
def test_pipelined(place: Place, name: str) -> None:
    """In a pipeline, too, a text is read as the server reads it."""
    with place.connect() as connection:
        assert SECRET not in pipelined(connection, PIPELINED[name])


@pytest.mark.parametrize("ends", ["discard all", "rollback", "rollback to a"])
def test_a_pipeline_behind_a_setting(place: Place, ends: str) -> None:
    """A setting that was made before a pipeline, and is taken back within it, does not count any more."""
    with place.connect() as connection:
        for sql in [OFF] if ends == "discard all" else ["begin", "savepoint a", OFF]:
            connection.execute(sql, prepare=False)
        assert SECRET not in pipelined(connection, [ends, TWO_READINGS])


SIGNED_IN = SignIn(credential="c", user="agent", secret=Secret(PASSWORD), methods=frozenset())
LONG = "a" * 63


def spoken(place: Place, *said: bytes) -> bytes:
    """Say messages, each group when the one before it is answered, and give all that comes."""
    heard = b""
    with socket.create_connection((ADDRESS, place.proxy.port), 10) as client:
        for groups, one in enumerate((startup(b"\0\3\0\0user\0agent\0database\0postgres\0\0"), *said), 1):
            client.sendall(one)
            while heard.count(b"Z\0\0\0\5") < groups:
                data = client.recv(65_536)
                assert data, heard
                heard += data
    assert messages(heard)
    return heard


def signed_in(question: Question) -> SignIn | None:
    """Give as whom capd signs in."""
    return SIGNED_IN if question.kind is Kind.SESSION and question.login is not None and question.login.user else None


@pytest.fixture
def in_clear(place: Place, monkeypatch: pytest.MonkeyPatch) -> Place:
    """Give the place, where capd signs in: so a client may say what it likes at once."""
    monkeypatch.setattr(Verdicts, "__call__", lambda _, question: replace(policy(question), sign_in=signed_in(question)))
    return place


def test_names_that_the_server_cuts(in_clear: Place) -> None:
    """A name of more than 63 bytes is refused: the server would take it for another one that was judged."""
    heard = spoken(
        in_clear,
        parse("select 1", LONG) + SYNC,
        close("S", f"{LONG}z") + SYNC,
        parse("select s from public.orders", f"{LONG}z") + SYNC,
        bind(LONG) + execute() + SYNC,
    )
    assert b"open" not in heard
    assert 2 == heard.count(b"C42622")


DELETES = r"with x as (select '\'), y as (delete from orders returning 1) select 1 --') select 1"
"""With escapes in strings it deletes nothing."""
MAKES = f"prepare a as {DELETES}"
RUNS = bind() + execute()
SAID_FIRST = {
    "one pipeline": [parse(OFF) + RUNS + parse(MAKES) + RUNS + SYNC],
    "one pipeline, the text before": [parse(MAKES, "p") + parse(OFF) + RUNS + bind("p") + execute() + SYNC],
    "a group after": [parse(MAKES, "p") + SYNC, query(OFF), bind("p") + execute() + SYNC],
    "a transaction": [
        query("begin"),
        parse(MAKES, "p") + bind("p", "p") + SYNC,
        query(OFF),
        execute("p") + SYNC,
        query("commit"),
    ],
    "one message": [query(f"{OFF}; {MAKES}")],
    "the setting after it": [parse(MAKES) + RUNS + parse(OFF) + RUNS + SYNC],
}


@pytest.mark.parametrize("name", SAID_FIRST)
def test_what_was_prepared_is_read_as_it_was_then(place: Place, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """EXECUTE does what its PREPARE was read as, however the session reads text by then."""

    def keeps(question: Question) -> Verdict:
        statement = question.statement
        allowed = statement is None or (not statement.problems and "delete" not in (statement.effects or ()))
        return Verdict(number=question.number, allowed=allowed, reason="", rule="r", policy="1", sign_in=signed_in(question))

    monkeypatch.setattr(Verdicts, "__call__", lambda _, question: keeps(question))
    spoken(place, *SAID_FIRST[name], query("execute a"))
    assert "open\n" == place.direct("select s from public.orders")


def test_questions_of_capd_leave_the_unnamed_statement(in_clear: Place) -> None:
    """What a client prepared without a name is there when it is run, though the server was asked something in between."""
    moved = parse(BACK, "x") + bind("x") + execute() + SYNC
    heard = spoken(in_clear, parse(ORDERS) + SYNC, moved, bind() + execute() + SYNC)
    assert b"open" in heard
    assert b"C26000" not in heard


@pytest.mark.parametrize("gives_up", ["deallocate all", "discard all"])
def test_the_unnamed_statement_is_not_given_up(in_clear: Place, gives_up: str) -> None:
    """Whoever gives up all prepared statements keeps the one without a name, as the server does."""
    named = parse(gives_up, "x") + bind("x") + execute() + SYNC
    heard = spoken(in_clear, parse("select s from public.orders") + SYNC, named, bind() + execute() + SYNC, bind("x") + SYNC)
    assert b"open" in heard
    assert 1 == heard.count(b"C26000")


@pytest.mark.parametrize(
    "sql",
    [
        "select orders.peek from orders",
        "select (orders).peek from orders",
        "select public.orders.peek from orders",
        "select o.peeks from orders o",
        "select 1 from orders o where o.peek = 'x'",
        "update orders set s = orders.peek",
        "select ('x'::text).looks",
        "select (o.s).looks from orders o",
        "select (array['x'::text])[1].looks",
        "select x.looks from lower('x'::text) x",
        "select x.looks from orders, lateral lower(s) as x",
        "select x.looks from unnest(array['x'::text]) x",
        "select x.looks from current_user x",
        "select ('/etc/hostname'::text).pg_read_file",
        "select lower.pg_read_file from lower('/etc/hostname'::text)",
    ],
)
def test_a_column_that_is_a_function(place: Place, sql: str) -> None:
    """A name behind a dot may call a function, whose doing nobody knows; other names behind dots are columns."""
    with place.connect() as connection:
        with pytest.raises(psycopg.Error, match="denied"):
            connection.execute(sql, prepare=False)
        assert [("open",)] == connection.execute("select o.s from public.orders o", prepare=False).fetchall()


def test_a_parameter_that_calls(place: Place) -> None:
    """`$1.f` calls f, also where something of the same shape was said before that calls nothing."""
    with place.connect() as connection:
        connection.pgconn.exec_(b"select 'x'.pg_read_file")
        said = connection.pgconn.exec_params(b"select $1.pg_read_file", [b"PG_VERSION"], [psycopg.postgres.types["text"].oid])
        assert b"denied" in said.error_message


DEFINES = "create function {}(orders) returns text language sql as 'select s from private.orders'"


@pytest.fixture
def defining(place: Place, monkeypatch: pytest.MonkeyPatch) -> Place:
    """Give the place, where an agent may define functions, but not call what it did not show."""

    def may_define(question: Question) -> Verdict:
        verdict = policy(question)
        said = set() if question.statement is None else set(question.statement.operation.split("; "))
        defines = bool(said) and said <= {"CREATE", "BEGIN", "COMMIT"}
        return replace(verdict, allowed=True, reason="") if defines else verdict

    monkeypatch.setattr(Verdicts, "__call__", lambda _, question: may_define(question))
    return place


CALLS = "select o.{} from orders o"
WAYS = {"alone": [DEFINES], "transaction": ["begin", DEFINES, "commit"], "message": [f"begin; {DEFINES}; commit"]}


@pytest.mark.parametrize("name", WAYS)
def test_a_function_that_another_session_made(defining: Place, name: str) -> None:
    """What one session defines, no other takes for a column: not within the seconds for which names are remembered."""
    calls = CALLS.format(f"by_{name}")
    with defining.connect() as caller, defining.connect() as definer:
        with pytest.raises(psycopg.errors.UndefinedColumn):
            caller.execute(calls, prepare=False)
        for sql in WAYS[name]:
            definer.execute(sql.format(f"by_{name}"), prepare=False)
        with pytest.raises(psycopg.errors.InsufficientPrivilege, match="denied"):
            caller.execute(calls, prepare=False)
        assert [("open",)] == caller.execute("select o.s from orders o", prepare=False).fetchall()


def test_a_function_that_the_same_pipeline_made(defining: Place) -> None:
    """Behind what defines a function, in one pipeline, where the server cannot be asked, no name is taken for a column."""
    with defining.connect() as connection:
        said = ["begin", DEFINES.format("newer"), "select o.newer from public.orders o", "commit"]
        assert SECRET not in pipelined(connection, said)


def test_a_function_that_an_older_snapshot_does_not_show(defining: Place) -> None:
    """A transaction that is shown the functions of its begin calls those of now: these are not known there."""
    calls = CALLS.format("by_snapshot")
    with defining.connect() as caller, defining.connect() as definer, defining.connect() as other:
        caller.execute("begin isolation level repeatable read", prepare=False)
        caller.execute("select o.s from orders o", prepare=False)
        definer.execute(DEFINES.format("by_snapshot"), prepare=False)
        with pytest.raises(psycopg.errors.InsufficientPrivilege, match="denied"):
            caller.execute(calls, prepare=False)
        with pytest.raises(psycopg.errors.InsufficientPrivilege, match="denied"):
            other.execute(calls, prepare=False)


CASTS = """
drop table if exists public.words; create table public.words (w varchar); insert into public.words values ('a');
create or replace function lower(varchar) returns text language sql as 'select s from private.orders'
"""
LOWER = "select lower(w.w) from public.words w"


@pytest.fixture
def hiding(defining: Place) -> Iterator[Place]:
    """Give the place, with a function of others that hides one of the server's own."""
    defining.direct(CASTS)
    yield defining
    defining.direct("drop function if exists lower(varchar)")


def test_what_was_hidden_before_is_judged_anew(hiding: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """While columns are hidden, a statement that is not known in full any more is refused, though it went on before."""
    hiding.direct("drop function lower(varchar)")
    hides = Obligations(masks=(("hide", Mask(columns=("private.orders.s",))),))

    def masks(question: Question) -> Verdict:
        said = "" if question.statement is None else question.statement.text or ""
        obligations = hides if LOWER == said else Obligations()
        return Verdict(
            number=question.number, allowed=question.kind.value != "tls", rule="r", policy="1", obligations=obligations
        )

    monkeypatch.setattr(Verdicts, "__call__", lambda _, question: masks(question))
    with hiding.connect() as caller, hiding.connect() as definer:
        caller.execute("begin isolation level repeatable read", prepare=False)
        assert [("a",)] == caller.execute(LOWER, prepare=False).fetchall()
        definer.execute(CASTS.rpartition(";")[2], prepare=False)
        with pytest.raises(psycopg.errors.InsufficientPrivilege, match="does not know all"):
            caller.execute(LOWER, prepare=False)


@pytest.mark.parametrize("begins", [True, False])
def test_a_server_that_is_given_no_time_to_answer(hiding: Place, begins: bool) -> None:
    """Where the client's settings let capd's own question fail, nothing is believed of what it was about."""
    hiding.direct("drop function lower(varchar)")
    with hiding.connect() as definer, closing(hiding.connect()) as former:
        former.execute("set statement_timeout = 1", prepare=False)
        definer.execute(DEFINES.format(f"in_no_time_{begins}"), prepare=False)  # so the server has to be asked anew
        hiding.direct(CASTS)
        with hiding.connect(options="-c statement_timeout=1") if begins else former as connection:
            for _ in range(10):
                with suppress(psycopg.errors.InsufficientPrivilege, psycopg.errors.QueryCanceled):
                    assert SECRET not in str(connection.execute(LOWER, prepare=False).fetchall())


RENAMES = "alter function public.lower(varchar) rename to lowers"
UNDONE = {
    "a savepoint": ["begin", "savepoint a", "drop function public.lower(varchar)", LOWER, "rollback to a"],
    "a transaction": ["begin", "drop function public.lower(varchar)", LOWER, "rollback"],
    "a name at a savepoint": ["begin", "savepoint a", RENAMES, LOWER, "rollback to a"],
    "a name in a transaction": ["begin", RENAMES, LOWER, "rollback"],
}


@pytest.mark.parametrize("name", UNDONE)
def test_what_a_transaction_undoes_counts_in_it_alone(hiding: Place, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """What the server says in a transaction of functions is for nobody else, nor for what comes when it is undone."""
    policy_ = Verdicts.__call__

    def may_drop(verdicts: Verdicts, question: Question) -> Verdict:
        drops = question.statement is not None and question.statement.operation in {"DROP", "SAVEPOINT", "ROLLBACK"}
        verdict = policy_(verdicts, question)
        return replace(verdict, allowed=True, reason="") if drops else verdict

    monkeypatch.setattr(Verdicts, "__call__", may_drop)
    with hiding.connect() as connection, hiding.connect() as other:
        connection.execute(DEFINES.format(f"before_{name.replace(' ', '_')}"), prepare=False)
        for sql in UNDONE[name][:-1]:
            connection.execute(sql, prepare=False)
        for one in (other, connection):
            if one is connection:
                one.execute(UNDONE[name][-1], prepare=False)
            with pytest.raises(psycopg.errors.InsufficientPrivilege, match="denied"):
                one.execute(LOWER, prepare=False)


def test_what_a_transaction_defines_is_known_in_it(defining: Place) -> None:
    """What others were told of functions, who do not see those of an open transaction, is nothing for that one."""
    calls = CALLS.format("by_itself")
    with defining.connect() as caller, defining.connect() as other:
        caller.execute("begin", prepare=False)
        caller.execute(DEFINES.format("by_itself"), prepare=False)
        with pytest.raises(psycopg.errors.UndefinedColumn):
            other.execute(calls, prepare=False)
        with pytest.raises(psycopg.errors.InsufficientPrivilege, match="denied"):
            caller.execute(calls, prepare=False)


def test_a_function_that_a_message_made_which_goes_on(defining: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a message defines and commits is known while it goes on, and nobody heard of its commit yet."""
    may_define = Verdicts.__call__

    def may_sleep(verdicts: Verdicts, question: Question) -> Verdict:
        sleeps = question.statement is not None and "pg_sleep" in (question.statement.text or "")
        verdict = may_define(verdicts, question)
        return replace(verdict, allowed=True, reason="") if sleeps else verdict

    monkeypatch.setattr(Verdicts, "__call__", may_sleep)
    calls = CALLS.format("by_going_on")
    with defining.connect() as caller, closing(defining.connect()) as definer:
        made = DEFINES.format("by_going_on")
        definer.pgconn.send_query(f"begin; select pg_sleep(0.5); {made}; commit; select pg_sleep(60)".encode())
        definer.pgconn.flush()
        with suppress(psycopg.errors.UndefinedColumn, psycopg.errors.InsufficientPrivilege):  # before it is there, mostly
            caller.execute(calls, prepare=False)
        while not defining.direct("select 1 from pg_proc where proname = 'by_going_on'"):
            time.sleep(0.1)
        with pytest.raises(psycopg.errors.InsufficientPrivilege, match="denied"):
            caller.execute(calls, prepare=False)


def test_a_schema_that_another_session_made(defining: Place) -> None:
    """A schema of the search path that was not there before counts from then on: `"$user"` is before `public`."""
    with defining.connect() as caller, defining.connect() as definer:
        assert [("open",)] == caller.execute(ORDERS, prepare=False).fetchall()
        definer.execute("create schema agent", prepare=False)
        try:
            named = [name for name, _ in resources(caller, ORDERS)]
        finally:
            defining.direct("drop schema agent")
    assert ["agent.orders", "public.orders"] == named


def resources(connection: psycopg.Connection[tuple[object, ...]], sql: str) -> tuple[tuple[str, str], ...]:
    """Run a statement and give what it was judged to be about."""
    found: list[tuple[tuple[str, str], ...]] = []
    decide = Verdicts.__call__

    def notes(verdicts: Verdicts, question: Question) -> Verdict:
        if question.statement is not None:
            found.append(question.statement.resources or ())
        return decide(verdicts, question)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(Verdicts, "__call__", notes)
        connection.execute(sql, prepare=False)
    return found[-1]
