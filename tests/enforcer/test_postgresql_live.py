"""PostgreSQL through the proxy's shell, before a real server: signing in, cancelling, hiding columns.

What lives here: what a client of libpq sees and what never reaches it. What must not: redirects, the policy.
"""

from __future__ import annotations

import socket
import subprocess
import threading
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from tempfile import TemporaryDirectory

import psycopg
import pytest

from capd.enforcer.credentials.secret import Secret
from capd.enforcer.obligations.obligation import Obligations
from capd.enforcer.obligations.sign_in import SignIn
from capd.enforcer.policy.limit import Limit
from capd.enforcer.policy.rule import Mask, Predicates, Replace
from capd.enforcer.proxy.question import Kind, Question, Verdict
from tests.e2e.certificates import make
from tests.e2e.postgres import PASSWORD, Database, database
from tests.enforcer.proxied import ADDRESS, Proxied, proxied
from tests.requirements import require_root

NEEDLES = ("123-45-6789", "987-65-4321", "31337")
"""What is hidden: in text; the number in binary too."""
MASKS = (("hide", Mask(columns=("public.customers.ssn", "salary"), replace=Replace.PARTIAL)),)
TABLE = """
drop table if exists customers cascade;
create table customers (id int primary key, name text, ssn text unique, salary int);
insert into customers values (1, 'ann', '123-45-6789', 31337), (2, 'bob', '987-65-4321', 31337);
create view people as select id, name, ssn as number from customers
"""


@dataclass
class Verdicts:
    """What the next questions are answered with.

    Attributes:
        sign_in: of sessions.
        masks: of statements.
        denied: of which statement the text is denied.
        estimates: of statements, as they come; None: none is wanted.
    """

    sign_in: SignIn | None = None
    masks: Obligations = field(default_factory=Obligations)
    denied: str = "denied"
    estimates: list[object] | None = None

    def __call__(self, question: Question) -> Verdict:
        """Answer."""
        statement = question.statement
        if self.estimates is not None and statement is not None:
            if statement.estimable:
                return Verdict(number=question.number, allowed=False, body_bytes=1)
            self.estimates.append(statement.shown.get("estimate"))
        allowed = question.kind in {Kind.SESSION, Kind.STATEMENT}
        if statement is not None and self.denied in (statement.text or ""):
            allowed = False
        verdict = Verdict(number=question.number, allowed=allowed, reason="" if allowed else "denied", rule="r", policy="1")
        if question.kind is Kind.SESSION and question.login is not None and question.login.user is not None:
            return replace(verdict, sign_in=self.sign_in)
        return replace(verdict, obligations=self.masks) if statement is not None and allowed else verdict


@dataclass(frozen=True)
class Place:
    """A server, and the proxy before it."""

    server: Database
    proxy: Proxied
    verdicts: Verdicts

    def connect(self, **more: str) -> psycopg.Connection[tuple[object, ...]]:
        """Connect through the proxy, in TLS unless it says otherwise."""
        words = {
            "host": "localhost",
            "hostaddr": ADDRESS,
            "port": str(self.proxy.port),
            "user": "agent",
            "password": PASSWORD,
            "dbname": "postgres",
            "sslmode": "verify-full",
            "sslrootcert": str(self.proxy.trust),
            "client_encoding": "utf8",
            "connect_timeout": "10",
        }
        return psycopg.connect(**{**words, **more}, autocommit=True)  # type: ignore[arg-type] # of libpq's own words

    def direct(self, sql: str) -> str:
        """Run something that nothing is between."""
        environment = {**self.server.environment, "PATH": "/usr/bin:/bin"}
        done = subprocess.run(
            ["psql", "-X", "-q", "-A", "-t", "-c", sql], env=environment, capture_output=True, text=True, check=True
        )
        return done.stdout


@pytest.fixture(scope="module")
def shared() -> Iterator[Place]:
    """Make one for all tests here."""
    require_root()
    with TemporaryDirectory(prefix="capd-postgresql-") as name:
        directory = Path(name)
        directory.chmod(0o755)
        (directory / "tls").mkdir()
        certificates, verdicts = make(directory / "tls"), Verdicts()
        with (
            database(directory / "pg", certificates) as server,
            proxied(directory, server.port, certificates, verdicts) as proxy,
        ):
            yield Place(server, proxy, verdicts)


@pytest.fixture
def place(shared: Place) -> Iterator[Place]:
    """Give it with nothing masked, and nobody signed in for; no mistake of ours was made."""
    shared.verdicts.sign_in, shared.verdicts.masks, shared.verdicts.estimates = None, Obligations(), None
    yield shared
    assert [] == shared.proxy.mistakes
    assert 0 == shared.proxy.counters.defects


@pytest.mark.parametrize("sslmode", ["verify-full", "disable"])
def test_the_clients_own_password(place: Place, sslmode: str) -> None:
    """In clear SCRAM goes across; in TLS capd signs in with the password that the client gave it. A wrong one is refused."""
    with place.connect(sslmode=sslmode) as connection:
        assert (1,) == connection.execute("select 1").fetchone()
        tls = "select ssl from pg_stat_ssl where pid = pg_backend_pid()"
        assert (sslmode != "disable",) == connection.execute(tls).fetchone()
    with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
        place.connect(sslmode=sslmode, password="wrong")


@pytest.mark.parametrize("placeholder", [None, "a placeholder"])
def test_a_credential_of_a_rule(place: Place, placeholder: str | None) -> None:
    """The agent has no password, or a placeholder; the server sees the credential's user, by SCRAM bound to its certificate."""
    if "other" not in place.direct("select rolname from pg_roles"):
        place.direct("create role other login password 'its own'")
    place.verdicts.sign_in = SignIn(credential="c", user="other", secret=Secret("its own"), placeholder=placeholder)
    with place.connect(
        password=placeholder or "", require_auth="none" if placeholder is None else "scram-sha-256"
    ) as connection:
        assert ("other",) == connection.execute("select current_user::text").fetchone()
    if placeholder is not None:
        with pytest.raises(psycopg.OperationalError, match="placeholder"):
            place.connect(password="another")


def test_a_credential_that_the_server_refuses(place: Place) -> None:
    """The agent reads that it could not be signed in, and nothing of the secret."""
    place.verdicts.sign_in = SignIn(credential="c", user=None, secret=Secret("no such password"))
    with pytest.raises(psycopg.OperationalError) as caught:
        place.connect(password="")
    assert "no such password" not in str(caught.value)


@pytest.mark.parametrize("prepare", [False, True])
@pytest.mark.parametrize("sslmode", ["verify-full", "disable"])
def test_a_limit_where_columns_are_hidden(place: Place, sslmode: str, prepare: bool) -> None:
    """What went before the limit was hidden, and that is written down with the limit."""
    place.direct(TABLE)
    place.verdicts.masks = Obligations(masks=MASKS, limits=(("rails", Limit(rows=1)),))
    before = len(place.proxy.log.entries)
    with place.connect(sslmode=sslmode) as connection:
        assert ("****6789",) == connection.execute("select ssn from customers where id = 1", prepare=prepare).fetchone()
        with pytest.raises(psycopg.Error, match="more than rows 1 of rule rails") as caught:
            connection.execute("select ssn from customers", prepare=prepare)
        assert "54000" == caught.value.sqlstate
    entries = place.proxy.log.entries[before:]
    assert ["rows"] == [entry["limit"] for entry in entries if entry["kind"] == "exceeded"]
    assert [{"hide": 1}, {"hide": 1}] == [entry["masked"] for entry in entries if entry["kind"] == "carried_out"]


@pytest.mark.parametrize("sslmode", ["verify-full", "disable"])
def test_cancel(place: Place, sslmode: str) -> None:
    """A statement that runs is cancelled by the client's key, which is not the server's."""
    over = threading.Event()
    with place.connect(sslmode=sslmode) as connection:

        def cancel() -> None:
            while not over.wait(0.2):  # one that comes before the statement runs cancels nothing
                connection.cancel_safe()

        canceller = threading.Thread(target=cancel)
        canceller.start()
        try:
            with pytest.raises(psycopg.errors.QueryCanceled):
                connection.execute("select pg_sleep(60)")
        finally:
            over.set()
            canceller.join()
        assert (1,) == connection.execute("select 1").fetchone()


def test_estimates(place: Place) -> None:
    """The server's planner says how much a statement is about, and nothing of it is done or locked for that."""
    place.direct("drop table if exists many; create table many as select n from generate_series(1, 1000) n; analyze many")
    place.verdicts.estimates = []
    with place.connect() as connection:
        connection.execute("delete from many where n <= 1000 -- all of them;")
        connection.execute("select count(*) from many")
        connection.execute("insert into many select n from generate_series(1, 7) n")
        with connection.transaction():
            connection.execute("select n from many")
    rows = [None if one is None else one["rows"] for one in place.verdicts.estimates if one is None or isinstance(one, dict)]
    assert [1000, 1, 7, None, None, None] == rows
    assert "7" == place.direct("select count(*) from many").strip()


def test_a_target_without_tls(place: Place, tmp_path: Path) -> None:
    """A client in TLS reaches no server that does not speak it."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = int(listener.getsockname()[1])

        def refuse() -> None:
            with suppress(OSError):
                while True:
                    peer, _ = listener.accept()
                    with peer:
                        peer.recv(8)
                        peer.sendall(b"N")
                        peer.recv(1)

        thread = threading.Thread(target=refuse, daemon=True)
        thread.start()
        (tmp_path / "tls").mkdir()
        with proxied(tmp_path, port, make(tmp_path / "tls"), place.verdicts) as proxy:
            other = Place(place.server, proxy, place.verdicts)
            with pytest.raises(psycopg.OperationalError, match="target_not_verified"):
                other.connect()
        listener.shutdown(socket.SHUT_RDWR)
        thread.join(180)


STATEMENTS = (
    "select * from customers",
    "select id, ssn as x, salary from customers where id = 1",
    "select c.ssn, d.name from customers c join customers d on c.id = d.id",
    "select * from people",
    "select number from people",
    "select upper(ssn) from customers",
    "select ssn || '' from customers",
    "select row_to_json(c) from customers c",
    "select array_agg(ssn) from customers",
    "select (select ssn from customers where id = 1)",
    "select ssn from customers union all select name from customers",
    "with a as (select id, ssn from customers) select * from a",
    "select customers from customers",
    "select max(salary) from customers",
    "select * from customers order by salary",
    "update customers set name = 'ann' where id = 1 returning *",
    "insert into customers values (9, 'x', '123-45-6789', 1)",
    "select ssn::int from customers",
    "select 1 from customers where ssn like '123%'",
    "select c.row_to_json from customers c",
    "create table copied as select * from customers",
    "explain analyze select * from customers where ssn = '123-45-6789'",
    "select * from pg_stats where tablename = 'customers'",
    "copy customers to stdout",
    "copy customers (ssn, id) to stdout (format csv)",
    "copy (select ssn from customers) to stdout",
    "do $$ begin raise notice '%', (select ssn from customers limit 1); end $$",
)


@pytest.mark.parametrize("way", ["simple", "extended", "binary", "prepared", "pipeline", "cursor"])
def test_hidden_columns(place: Place, way: str) -> None:
    """In every way of the protocol: no hidden value reaches the client, whatever is asked, and what is not hidden does."""
    place.direct(TABLE)
    place.direct("analyze customers")
    place.verdicts.masks = Obligations(masks=MASKS)
    shown: list[object] = []
    with place.connect() as connection:
        connection.prepare_threshold = 0 if way == "prepared" else None
        connection.add_notice_handler(lambda notice: shown.append((notice.message_primary, notice.message_detail)))
        for sql in STATEMENTS:
            try:
                shown.append(_asked(connection, sql, way))
            except psycopg.Error as error:
                shown.append((str(error), error.diag.message_detail, error.diag.context))
        assert ("ann", "****6789", 0) == connection.execute("select name, ssn, salary from customers where id = 1").fetchone()
    text = repr(shown)
    for needle in NEEDLES:
        assert needle not in text
        assert needle.encode() not in text.encode()
    assert repr((31337).to_bytes(4, "big")) not in text
    assert "'bob'" in text or "bob" in text
    assert 2 == int(place.direct("select count(*) from customers where ssn in ('123-45-6789', '987-65-4321')"))
    assert "copied" not in place.direct("select relname from pg_class")


@pytest.mark.parametrize(
    "sql",
    [
        "select id from customers c where c.row_to_json::text like '%123%'",
        "select id from customers c order by c.to_jsonb",
        "select id from customers c where exists (select c.quote_literal)",
    ],
)
def test_a_row_behind_a_dot(place: Place, sql: str) -> None:
    """A function that takes a whole row is called by a dot as well: it may not be compared by."""
    place.direct(TABLE)
    place.verdicts.masks = Obligations(masks=MASKS)
    with place.connect() as connection, pytest.raises(psycopg.Error, match="as a whole row"):
        connection.execute(sql)


@pytest.mark.parametrize(
    "sql",
    [
        "select c.row_to_json from customers c, named n",
        "select upper(c.quote_literal), n.quote_literal from customers c join named n on true",
        "declare k cursor with hold for select customers.row_to_json from customers, named",
    ],
)
@pytest.mark.parametrize("predicates", Predicates)
def test_a_row_behind_a_dot_beside_a_column_of_that_name(place: Place, sql: str, predicates: Predicates) -> None:
    """That another relation has a column which is called like a function makes it none of this one's."""
    place.direct("drop table if exists named; create table named (row_to_json text, quote_literal text);" + TABLE)
    place.direct("insert into named values ('x', 'y')")
    place.verdicts.masks = Obligations(masks=(("hide", replace(MASKS[0][1], predicates=predicates)),))
    with place.connect() as connection:
        with pytest.raises(psycopg.Error, match=r"as a whole row|is computed, and may be made of a hidden one"):
            connection.execute(sql)
        if predicates is Predicates.ALLOW:
            shown = connection.execute("select n.row_to_json, ssn from customers, named n where id = 1").fetchone()
            assert ("x", "****6789") == shown


@pytest.mark.parametrize(
    "sql",
    [
        "update customers c set name = c.row_to_json::text",
        "update customers set name = public.customers.to_jsonb::text",
        "update customers c set name = c.quote_literal where id = 1",
        "update customers c set name = 'x' where c.row_to_json::text like '%123%'",
        "delete from customers c where c.row_to_json::text like '%123%'",
        "insert into customers (id) values (1) on conflict (id) do update set name = customers.row_to_json::text",
        "update customers c set name = concat(c.*)",
        "update customers set name = (public.customers.*)::text returning customers.*",
        "delete from customers c where row(c.*)::text like '%123%'",
        "insert into customers (id) values (1) on conflict (id) do update set name = to_jsonb(customers.*)::text",
    ],
)
@pytest.mark.parametrize("predicates", Predicates)
def test_a_row_behind_a_dot_is_not_copied(place: Place, sql: str, predicates: Predicates) -> None:
    """Nor is it to be found in a column that nobody hides."""
    place.direct(TABLE)
    place.verdicts.masks = Obligations(masks=(("hide", replace(MASKS[0][1], predicates=predicates)),))
    with place.connect() as connection, pytest.raises(psycopg.Error, match="is used in what is set or asked for"):
        connection.execute(sql)
    assert "ann\nbob\n" == place.direct("select name from customers order by id")


ABOUT = "select id from customers where ssn::int > 0"
LATE = {
    "MOVE": [f"declare c cursor for {ABOUT}", "move all c"],
    "FETCH": [f"declare c cursor for {ABOUT}", "fetch c"],
    "COMMIT": [f"declare c cursor with hold for {ABOUT}", "commit"],
    "several": [f"declare c cursor with hold for {ABOUT}", "select 1; commit"],
    "ALTER": [f"declare c cursor with hold for {ABOUT}", "alter sequence counts restart; commit"],
}


@pytest.mark.parametrize("prepare", [False, True])
@pytest.mark.parametrize("name", LATE)
def test_an_error_of_a_cursor(place: Place, name: str, *, prepare: bool) -> None:
    """What a cursor's query repeats comes with the statement that goes on with it, or with the end of its transaction."""
    place.direct(TABLE + "; create sequence if not exists counts")
    place.verdicts.masks = Obligations(masks=(("hide", replace(MASKS[0][1], predicates=Predicates.ALLOW)),))
    with place.connect() as connection:
        declares, goes_on = LATE[name]
        connection.execute("begin")
        connection.execute(declares, prepare=prepare)
        with pytest.raises(psycopg.errors.InvalidTextRepresentation, match="hidden by capd"):
            connection.execute(goes_on, prepare=prepare and ";" not in goes_on)


def test_an_error_of_a_cursor_at_the_end_of_a_pipeline(place: Place) -> None:
    """It is the Sync that ends the transaction, and answers."""
    place.direct(TABLE)
    place.verdicts.masks = Obligations(masks=(("hide", replace(MASKS[0][1], predicates=Predicates.ALLOW)),))
    with place.connect() as connection:
        said = connection.pgconn.exec_params(f"declare c cursor with hold for {ABOUT}".encode(), [])
    assert b"22P02" == said.error_field(ord("C"))
    assert b"hidden by capd" in said.error_message


def test_a_relation_that_others_have_just_made(place: Place) -> None:
    """What was made since the server was asked is asked for, and hidden where a rule says so."""
    place.direct(TABLE)
    place.verdicts.masks = Obligations(masks=MASKS)
    with place.connect() as connection:
        connection.execute("select id from customers")
        place.direct("drop table if exists wages; create table wages as select 7 as id, 31337 as salary")
        assert (7, 0) == connection.execute("select * from wages").fetchone()
        assert [(1,), (2,)] == connection.execute("select id from customers order by id").fetchall()


ENDED_EARLY = """
drop table if exists odd; create table odd (lock text, procedure text, "window" int); insert into odd values ('-', '-', 1);
"""


@pytest.mark.parametrize("predicates", Predicates)
@pytest.mark.parametrize(
    "sql",
    [
        "select mode() within group (order by ssn) from customers",
        "select percentile_disc(0.5) within group (order by salary) from customers",
        "select mode() within group (order by c::text) from customers c",
        "select name || lock || ssn from customers, odd",
        "select name || procedure || (c::text) from customers c, odd",
        "select case when true then lock || c::text end from customers c, odd",
    ],
)
def test_a_list_does_not_end_before_it_ends(place: Place, sql: str, predicates: Predicates) -> None:
    """Words that end what is shown elsewhere stand in expressions, too, or are columns: what is behind them is looked at."""
    place.direct(ENDED_EARLY + TABLE)
    place.verdicts.masks = Obligations(masks=(("hide", replace(MASKS[0][1], predicates=predicates)),))
    with place.connect() as connection:
        with pytest.raises(psycopg.errors.InsufficientPrivilege, match="capd: "):
            connection.execute(sql)
        shown = "select percentile_disc(0.5) within group (order by id), max(name || lock) from customers, odd"
        assert (1, "bob-") == connection.execute(shown).fetchone()


DEFERRED = """;
create table notes (ssn text references customers (ssn) deferrable initially deferred);
insert into notes values ('123-45-6789');
"""


@pytest.mark.parametrize("prepare", [False, True])
@pytest.mark.parametrize("last", ["commit", "set constraints all immediate", "end"])
def test_what_a_transaction_says_at_its_end(place: Place, last: str, *, prepare: bool) -> None:
    """A constraint that was put off repeats the row that breaks it when it is looked at: not here."""
    place.direct("drop table if exists notes;" + TABLE + DEFERRED)
    place.verdicts.masks = Obligations(masks=MASKS)
    with place.connect() as connection:
        connection.execute("begin")
        connection.execute("delete from customers where id = 1", prepare=prepare)
        with pytest.raises(psycopg.errors.ForeignKeyViolation) as raised:
            connection.execute(last, prepare=prepare)
    assert (None, "notes") == (raised.value.diag.message_detail, raised.value.diag.table_name)
    assert "123-45-6789" not in str(raised.value)
    place.direct("drop table notes")


def test_what_a_session_hears_that_only_listens(place: Place) -> None:
    """What a trigger notifies of, nobody knows."""
    place.verdicts.masks = Obligations(masks=MASKS)
    with place.connect() as connection:
        connection.execute("listen changes")
        place.direct("notify changes, '123-45-6789'")
        heard = next(connection.notifies(timeout=5))
    assert ("changes", "hidden by capd") == (heard.channel, heard.payload)


def _asked(connection: psycopg.Connection[tuple[object, ...]], sql: str, way: str) -> object:
    if sql.startswith("copy"):
        with connection.cursor().copy(sql) as copy:
            return [bytes(part) for part in copy]
    if way == "simple":
        result = connection.pgconn.exec_(sql.encode())
        if result.status not in {1, 2}:
            return result.error_message, [result.error_field(one) for one in b"DHWq"]
        return [result.get_value(row, column) for row in range(result.ntuples) for column in range(result.nfields)]
    if way == "pipeline":
        with connection.pipeline() as pipeline:
            first, second = connection.execute("select 1"), connection.execute(sql)
            pipeline.sync()
            return first.fetchall(), second.fetchall() if second.description else second.statusmessage
    if way == "cursor" and sql.startswith("select"):
        with connection.transaction(), connection.cursor("named") as cursor:
            cursor.execute(sql)
            return cursor.fetchall()
    done = connection.execute(sql, binary=way == "binary")
    return done.fetchall() if done.description else done.statusmessage


def test_a_name_that_the_clients_encoding_lacks(place: Place) -> None:
    """Where capd cannot ask about a column in the encoding of the session, COPY is refused, and the session goes on."""
    place.direct('drop table if exists named; create table named ("имя" text); insert into named values (31337)')
    place.verdicts.masks = Obligations(masks=(("hide", Mask(columns=("named.*",))),))
    with place.connect(client_encoding="sql_ascii") as connection:
        for _ in range(2):
            assert b"42501" == connection.pgconn.exec_(b"copy named to stdout").error_field(ord("C"))
