"""Clients of PostgreSQL in use, unmodified, as agents behind the enforcer, before a real server.

What they may do arrives byte for byte: their programs print the same as without the enforcer. What they may not is told them in
PostgreSQL's own errors, and the server's log of all statements never has it.

What lives here: what each client sees. What must not: the proxy's inside.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from capd.daemon.trust_environment import variables
from tests.e2e.postgres import PASSWORD, programs
from tests.enforcer import postgresql_programs as scripts
from tests.enforcer.yard import ADDRESSES, AGENT, Yard, yard
from tests.requirements import require, require_command, require_root
from tests.servers.node import node_with

POLICY = """\
rules:
  - id: shop
    match: {protocols: postgresql, hosts: [api.test, "198.51.100.7", "2001:db8::7"]}
    then: allow
    accept_incomplete: true
  - {id: no-secrets, match: {protocols: postgresql, text_regex: secrets}, then: deny, reason: agents read no secrets}
  - {id: no-rows, match: {protocols: postgresql, commands: DELETE}, when: "!sql.has_where", then: deny, reason: not all rows}
  - {id: few-rows, match: {protocols: postgresql, text_regex: few_rows}, then: limit, limit: {rows: 5}}
  - {id: soon, match: {protocols: postgresql, text_regex: soon}, then: limit, limit: {seconds: 1}}
  - {id: run, match: {protocols: postgresql, text_regex: of_run}, then: limit, limit: {run_rows: 12, export_rows: 6}}
"""
TABLE = "create table shown (a int, b text); insert into shown select n, n from generate_series(1, 9) n"
JDBC = Path("/usr/share/java/postgresql.jar")
GO = Path("/usr/share/gocode")
"""Where the distribution keeps what is written in Go."""
SECONDS = 120
COMPILE_SECONDS = 500
"""Of a compiler that has nothing yet, on a busy machine."""


@dataclass(frozen=True, kw_only=True)
class Place:
    """A yard with a server.

    Attributes:
        log: that the server writes every statement to.
        home: of the agents.
    """

    yard: Yard
    log: Path
    home: Path

    def environment(self, *, clear: bool = False) -> dict[str, str]:
        """Give libpq's variables."""
        return {
            "PGHOST": "api.test",
            "PGUSER": "agent",
            "PGPASSWORD": PASSWORD,
            "PGDATABASE": "shop",
            "PGSSLMODE": "disable" if clear else "verify-full",
            "PGSSLROOTCERT": "/dev/null" if clear else str(self.yard.trust / "authority.pem"),
            "HOME": str(self.home),
            "LANG": "C.UTF-8",
        }

    def run(self, *words: str | Path, clear: bool = False, stdin: str = "") -> subprocess.CompletedProcess[str]:
        """Run a client as an agent of the run."""
        environment = {**variables(self.yard.trust, {}), **self.environment(clear=clear)}
        done = self.yard.agent("env", "-C", self.home, *words, variables=environment, stdin=stdin.encode(), seconds=SECONDS)
        return subprocess.CompletedProcess(done.args, done.returncode, done.stdout.decode(), done.stderr.decode())

    def direct(self, *words: str | Path) -> str:
        """Run a client that nothing is between, and give what it prints."""
        trust = {"PGSSLROOTCERT": str(self.yard.certificates.authority), "PATH": os.environ["PATH"]}
        done = subprocess.run(
            [*self.yard.within, *map(str, words)],
            env={**self.environment(), **trust},
            cwd=self.home,
            capture_output=True,
            text=True,
            timeout=SECONDS,
            check=False,
        )
        assert 0 == done.returncode, done.stderr
        return done.stdout

    def heard(self) -> str:
        """Give what the server's log has."""
        return self.log.read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def place() -> Iterator[Place]:
    """Make one for all tests here."""
    require_root()
    require_command("nft", "nsenter", "setpriv", "psql", "pgbench", "pg_dump")
    with TemporaryDirectory(prefix="capd-postgresql-") as name:
        directory = Path(name)
        home = directory / "home"
        home.mkdir()
        os.chown(home, AGENT, AGENT)
        with yard(directory, POLICY) as made:
            (directory / "pg").mkdir()
            log = directory / "pg" / "log"
            _start(made, directory / "pg", log)
            try:
                yield Place(yard=made, log=log, home=home)
            finally:
                _as_postgres(made, programs() / "pg_ctl", "-s", "-D", directory / "pg" / "data", "-m", "immediate", "stop")


def _as_postgres(made: Yard, *words: str | Path) -> None:
    command = [*made.within, "runuser", "-u", "postgres", "--", *map(str, words)]
    subprocess.run(command, check=True, cwd="/", env={"PATH": os.environ["PATH"], "LANG": "C"}, stdout=subprocess.DEVNULL)


def _start(made: Yard, directory: Path, log: Path) -> None:
    bin_, data = programs(), directory / "data"
    shutil.chown(directory, "postgres")
    password = directory / "password"
    password.write_text(PASSWORD, encoding="ascii")
    words = f"-U agent -A scram-sha-256 --pwfile={password} --no-sync -E UTF8".split()
    _as_postgres(made, bin_ / "initdb", "-D", data, *words)
    for source, name in ((made.certificates.key, "server.key"), (made.certificates.certificate, "server.crt")):
        shutil.copy(source, data / name)
        shutil.chown(data / name, "postgres")
        (data / name).chmod(0o600)
    with (data / "pg_hba.conf").open("a", encoding="ascii") as hba:
        hba.write("host all all all scram-sha-256\n")
    settings = (f"listen_addresses={','.join(ADDRESSES)}", f"unix_socket_directories={directory}", "ssl=on", "fsync=off")
    options = " ".join(f"-c {one}" for one in (*settings, "log_statement=all"))
    _as_postgres(made, bin_ / "pg_ctl", "-s", "-w", "-D", data, "-l", log, "-o", options, "start")
    for name, sql in (("postgres", "create database shop template template0"), ("shop", TABLE)):
        words = ["env", f"PGPASSWORD={PASSWORD}", "psql", "-X", "-q", "-h", str(directory), "-U", "agent", name, "-c", sql]
        _as_postgres(made, *words)


PYTHON = (sys.executable, "-P", "-c")


@pytest.mark.parametrize("clear", [False, True])
def test_psql(place: Place, clear: bool) -> None:
    """A session of psql, in TLS and in clear: what it may, what it may not, and that it goes on."""
    words = ["psql", "-X"]
    for sql in ("select * from shown order by a limit 2", "select * from secrets", "delete from shown", "select 1; select 2"):
        words += ["-c", sql]
    done = place.run(*words, "-c", "\\d shown", clear=clear)
    assert ["ERROR:  capd: agents read no secrets", "ERROR:  capd: not all rows"] == [
        line for line in done.stderr.splitlines() if line.startswith("ERROR")
    ]
    assert place.direct("psql", "-X", "-c", "select * from shown order by a limit 2") in done.stdout
    assert 'Table "public.shown"' in done.stdout


BEYOND = {
    "simple": "select n as few_rows from generate_series(1, 1000000) n;",
    "several": "select n as few_rows from generate_series(1, 3) n\\; select 1\\; select n from generate_series(1, 9) n;",
    "cursor": "begin; declare few_rows cursor for select generate_series(1, 9); fetch 9 from few_rows;",
    "cursor by name": "begin; declare c cursor for select generate_series(1, 9) as few_rows; fetch 3 from c; fetch 6 from c;",
    "prepared": "prepare p as select generate_series(1, 9) as few_rows; execute p;",
    "copy": "copy (select n as few_rows from generate_series(1, 1000000) n) to stdout;",
}


def exceeded(place: Place, rule: str) -> list[object]:
    """Give limits of a rule that the decision log has."""
    return [one["limit"] for one in place.yard.entries() if one["kind"] == "exceeded" and one["rule"] == rule]


def see_exceeded(place: Place, rule: str, expected: list[object]) -> None:
    """Wait until the decision log has limits of a rule, and no others: it is written behind what the client reads."""
    deadline = time.monotonic() + SECONDS
    while len(exceeded(place, rule)) < len(expected):
        assert time.monotonic() < deadline, (exceeded(place, rule), expected)
        time.sleep(0.05)
    assert expected == exceeded(place, rule)


@pytest.mark.parametrize("clear", [False, True])
@pytest.mark.parametrize("name", BEYOND)
def test_psql_beyond_a_limit(place: Place, name: str, clear: bool) -> None:
    """It reads which limit, and never takes what came before for the whole; the decision log has it."""
    before = exceeded(place, "few-rows")
    done = place.run("psql", "-X", "-A", "-t", "-v", "ON_ERROR_STOP=1", clear=clear, stdin=BEYOND[name])
    assert "capd ends the session: more than rows 5 of rule few-rows" in done.stderr
    assert 0 != done.returncode
    assert len(done.stdout.splitlines()) <= 8
    see_exceeded(place, "few-rows", [*before, "rows"])


def test_psycopg_beyond_a_limit(place: Place) -> None:
    """In binary, prepared, in a pipeline, with a server cursor, in COPY: it reads 54000."""
    done = place.run(*PYTHON, scripts.PSYCOPG_LIMITED)
    assert 0 == done.returncode, done.stderr
    lines = done.stdout.splitlines()
    assert 5 == len(lines)
    assert all(line.startswith("54000") and "more than rows 5 of rule few-rows" in line for line in lines), lines


@pytest.mark.parametrize("clear", [False, True])
def test_psql_takes_too_long(place: Place, clear: bool) -> None:
    """The client is told, and the server does not go on: it was told to cancel."""
    done = place.run("psql", "-X", "-c", "select count(pg_sleep(0.01)) as soon from generate_series(1, 60000)", clear=clear)
    assert "capd ends the session: a statement took longer than a rule allows" in done.stderr
    running = "select count(*) from pg_stat_activity where query like '%pg_sleep%' and pid <> pg_backend_pid()"
    deadline = time.monotonic() + SECONDS
    while (left := place.direct("psql", "-X", "-A", "-t", "-c", running)) != "0\n":
        assert time.monotonic() < deadline, left


def test_a_run_has_so_many_rows(place: Place) -> None:
    """Over all its connections: the one that goes over it is cut, then statements are denied; its alarm was told once."""
    sql, told = "select n as of_run from generate_series(1, 5) n", []
    for _ in range(4):
        done = place.run("psql", "-X", "-A", "-t", "-c", sql)
        told.append((done.returncode, "run_rows 12 of rule run" in done.stderr))
    assert [(0, False), (0, False), (2, True), (1, True)] == told
    see_exceeded(place, "run", ["export_rows", "run_rows"])
    assert 3 == place.heard().count(f"statement: {sql}")


def test_psycopg(place: Place) -> None:
    """Text, binary, prepared, pipelines, cursors, COPY both ways, savepoints, notifications."""
    done = place.run(*PYTHON, scripts.PSYCOPG)
    assert 0 == done.returncode, done.stderr
    assert place.direct(*PYTHON, scripts.PSYCOPG) == done.stdout


def test_psycopg_is_denied(place: Place) -> None:
    """In every mode it reads 42501, its transaction is where it would be after an error, and what a pipeline did is undone."""
    done = place.run(*PYTHON, scripts.PSYCOPG_DENIED)
    assert 0 == done.returncode, done.stderr
    lines = done.stdout.splitlines()
    assert ["42501"] * 7 == [line[:5] for line in lines if line[:1] == "4"], lines
    assert ["(None,)", "('goes on',)", "('still there',)"] == [line for line in lines if line[:1] == "("]


def test_asyncpg(place: Place) -> None:
    """It prepares everything under names, in binary."""
    done = place.run(*PYTHON, scripts.ASYNCPG)
    assert 0 == done.returncode, done.stderr
    expected = place.direct(*PYTHON, scripts.ASYNCPG).replace("UndefinedTableError", "InsufficientPrivilegeError")
    assert expected == done.stdout


def test_sqlalchemy(place: Place) -> None:
    """It looks into the catalogue, streams, and is told 42501."""
    done = place.run(*PYTHON, scripts.SQLALCHEMY)
    assert 0 == done.returncode, done.stderr
    assert place.direct(*PYTHON, scripts.SQLALCHEMY).replace("42P01", "42501") == done.stdout


def test_jdbc(place: Place) -> None:
    """Java's driver: batches, prepared statements on the server, a cursor by fetch size."""
    require_command("javac")
    require(JDBC.exists(), f"needs {JDBC}")
    program = place.home / "Main.java"
    program.write_text(scripts.JDBC, encoding="ascii")
    words = ("java", "-cp", JDBC, program)
    done = place.run(*words)
    assert 0 == done.returncode, done.stderr
    assert place.direct(*words).replace("42P01", "42501") == done.stdout


@pytest.mark.parametrize("clear", [False, True])
def test_node(place: Place, clear: bool) -> None:
    """node-postgres: values of all kinds, statements under names, rows by the piece, transactions, a pool."""
    words = (*node_with("pg"), "-e", scripts.NODE)
    done = place.run(*words, clear=clear)
    assert 0 == done.returncode, done.stderr
    expected = place.direct(*words)
    assert 3 == expected.count("42P01")
    assert expected.replace("42P01", "42501") == done.stdout


@pytest.fixture(scope="module")
def pgx(place: Place) -> Path:
    """Give a program that uses pgx, compiled."""
    require_command("go")
    require((GO / "src/github.com/jackc/pgx/v4").exists(), "needs pgx, of golang-github-jackc-pgx-v4-dev")
    source = place.home / "main.go"
    source.write_text(scripts.PGX, encoding="ascii")
    with TemporaryDirectory(prefix="capd-go-") as cache:
        told = {
            "PATH": os.environ["PATH"],
            "HOME": cache,
            "GOPATH": str(GO),
            "GO111MODULE": "off",
            "GOFLAGS": "-buildvcs=false",
        }
        subprocess.run(["go", "build", "-o", place.home / "pgx", source], check=True, env=told, timeout=COMPILE_SECONDS)
    return place.home / "pgx"


@pytest.mark.parametrize("clear", [False, True])
def test_pgx(place: Place, pgx: Path, clear: bool) -> None:
    """Go's pgx: all in binary, batches, COPY, what it prepares by itself, transactions, what it gives up, a pool."""
    done = place.run(pgx, clear=clear)
    assert 0 == done.returncode, done.stderr
    expected = place.direct(pgx)
    assert 6 == expected.count("42P01")
    assert expected.startswith("500 <nil>\n[[0 0 [0 0]")
    assert expected.replace("42P01", "42501") == done.stdout


def test_pg_dump(place: Place) -> None:
    """A dump is the same to the byte, and one of what is denied ends."""
    dumped = place.run("pg_dump", "-t", "shown")
    assert 0 == dumped.returncode, dumped.stderr
    assert _lines(place.direct("pg_dump", "-t", "shown")) == _lines(dumped.stdout)


def _lines(dump: str) -> list[str]:
    """Leave out what is random in each dump."""
    return [line for line in dump.splitlines() if "restrict" not in line]


@pytest.mark.parametrize("protocol", ["simple", "extended", "prepared"])
def test_pgbench(place: Place, protocol: str) -> None:
    """It makes its tables, and its transactions run in each protocol."""
    made = place.run("pgbench", "-i", "-q", "-I", "dtGp", "-s", "1")
    assert 0 == made.returncode, made.stderr
    done = place.run("pgbench", "-n", "-c", "4", "-t", "20", "-M", protocol)
    assert "number of failed transactions: 0" in done.stdout, done.stdout + done.stderr
    assert "80/80" in done.stdout


def test_the_server_never_heard_of_it(place: Place) -> None:
    """After all that: nothing denied is in the server's log of statements, and all else is."""
    place.run("psql", "-X", "-c", "select 'the last one' from secrets", "-c", "select 'the last one that may'")
    heard = place.heard()
    through = heard.split("/* capd */")
    assert len(through) > 1
    assert "the last one that may" in heard
    assert "the last one' from" not in heard
