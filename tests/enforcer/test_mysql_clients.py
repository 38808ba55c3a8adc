"""Clients of MySQL and MariaDB in use, unmodified, as agents behind the enforcer, before a real server.

What they may do arrives byte for byte: their programs print the same as without the enforcer. What they may not is told them in
MySQL's own errors, and the server's log of all statements never has it.

What lives here: what each client sees. What must not: the proxy's inside.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from capd.daemon.trust_environment import variables
from tests.enforcer import mysql_programs as scripts
from tests.enforcer.mysql_line import command_line as own_line
from tests.enforcer.yard import AGENT, Yard, yard
from tests.requirements import require, require_command, require_root
from tests.servers.mariadb import PASSWORD, MariaDb, mariadb
from tests.servers.mysql import mysql
from tests.servers.node import node_with

POLICY = """\
rules:
  - id: shop
    match: {protocols: mysql, hosts: [api.test, "198.51.100.7", "2001:db8::7"]}
    then: allow
  - {id: no-secrets, match: {protocols: mysql, text_regex: secrets}, then: deny, reason: agents read no secrets}
  - {id: no-rows, match: {protocols: mysql, commands: DELETE}, when: "!sql.has_where", then: deny, reason: not all rows}
  - {id: few-rows, match: {protocols: mysql, text_regex: few_rows}, then: limit, limit: {rows: 5}}
  - {id: soon, match: {protocols: mysql, text_regex: soon}, then: limit, limit: {seconds: 1}}
  - {id: run, match: {protocols: mysql, text_regex: of_run}, then: limit, limit: {run_rows: 12, export_rows: 6}}
"""
JDBC = Path("/usr/share/java/mariadb-java-client.jar")
SERVERS = {"mariadb": mariadb, "mysql": mysql}
SECONDS = 60
PYTHON = (sys.executable, "-P", "-c")
SETUP = (
    "use shop",
    "create table shown (a int primary key, b varchar(20))",
    "insert into shown with recursive n (a) as (select 1 union all select a + 1 from n where a < 9) select a, 'n' from n",
    "update shown set b = concat('n', a)",
    "create table big (b longtext)",
    "insert into big values (repeat('y', 3000000))",
)


@dataclass(frozen=True, kw_only=True)
class Place:
    """A yard with a server.

    Attributes:
        home: of the agents.
        log: that the server writes every statement to.
    """

    yard: Yard
    server: MariaDb
    home: Path
    log: Path

    def environment(self, *, trust: Path | None) -> dict[str, str]:
        """Give the programs' variables."""
        found = {
            "DB_HOST": "api.test",
            "DB_PASSWORD": PASSWORD,
            "MYSQL_PWD": PASSWORD,
            "LANG": "C.UTF-8",
            "HOME": str(self.home),
        }
        return found if trust is None else {**found, "DB_CA": str(trust)}

    def run(self, *words: str | Path, clear: bool = False, stdin: str = "") -> subprocess.CompletedProcess[str]:
        """Run a client as an agent of the run."""
        trust = None if clear else self.yard.trust / "authority.pem"
        environment = {**variables(self.yard.trust, {}), **self.environment(trust=trust)}
        done = self.yard.agent("env", "-C", self.home, *words, variables=environment, stdin=stdin.encode(), seconds=SECONDS)
        return subprocess.CompletedProcess(done.args, done.returncode, done.stdout.decode(), done.stderr.decode())

    def direct(self, *words: str | Path, clear: bool = False, stdin: str = "") -> str:
        """Run a client that nothing is between, and give what it prints."""
        trust = None if clear else self.yard.certificates.authority
        done = subprocess.run(
            [*self.yard.within, *map(str, words)],
            env={**self.environment(trust=trust), "PATH": os.environ["PATH"]},
            cwd=self.home,
            input=stdin,
            capture_output=True,
            text=True,
            timeout=SECONDS,
            check=False,
        )
        assert 0 == done.returncode, done.stderr
        return done.stdout

    def heard(self) -> str:
        """Give what the server's log has."""
        return self.log.read_text(encoding="utf-8", errors="replace")


@pytest.fixture(scope="module", params=SERVERS)
def place(request: pytest.FixtureRequest) -> Iterator[Place]:
    """Make one of each server for all tests here."""
    serve = SERVERS[request.param]
    require_root()
    require_command("nft", "nsenter", "setpriv", "mariadb", "mariadb-dump")
    with TemporaryDirectory(prefix="capd-mysql-") as name:
        directory = Path(name)
        home = directory / "home"
        home.mkdir()
        os.chown(home, AGENT, AGENT)
        with yard(directory, POLICY) as made:
            options = ["--general-log=1", "--general-log-file={directory}/general.log", "--local-infile=1"]
            with serve(options, tls=made.certificates, within=made.within, address="*", port=3306) as server:
                server.administer(*SETUP)
                yield Place(yard=made, server=server, home=home, log=server.directory / "general.log")


def command_line(*words: str, clear: bool = False, trust: Path | None = None) -> tuple[str, ...]:
    """Give the command line of one of MariaDB's own clients."""
    tls = ("--skip-ssl",) if clear else (f"--ssl-ca={trust}", "--ssl-verify-server-cert")
    return (words[0], "--no-defaults", "--host=api.test", "--port=3306", "--user=agent", *tls, *words[1:])


@pytest.mark.parametrize("clear", [True, False])
@pytest.mark.parametrize("program", ["PYMYSQL", "CONNECTOR", "SQLALCHEMY"])
def test_python(place: Place, program: str, clear: bool) -> None:
    """Text, prepared, streamed, several statements, procedures, transactions: the same as without anybody between."""
    script = scripts.CONNECT + getattr(scripts, program)
    done = place.run(*PYTHON, script, clear=clear)
    assert 0 == done.returncode, done.stderr
    assert place.direct(*PYTHON, script, clear=clear) == done.stdout


@pytest.mark.parametrize("clear", [True, False])
def test_python_is_denied(place: Place, clear: bool) -> None:
    """It reads 1142, and its session and its transaction go on as they were."""
    done = place.run(*PYTHON, scripts.CONNECT + scripts.PYMYSQL_DENIED, clear=clear)
    assert 0 == done.returncode, done.stderr
    lines = done.stdout.splitlines()
    denied = "1142 capd: agents read no secrets"
    assert [denied, denied, "1142 capd: not all rows", denied, "(('fifty',),)", "((0,),)"] == lines[:6]
    assert "1142" == lines[7]
    assert "(('goes on',),)" == lines[8]
    assert 9 == len(lines)


def test_mariadb(place: Place) -> None:
    """The command line: what it may, what it may not, and that it goes on; with its looking for names of columns."""
    sql = "select * from shown order by a limit 2; select * from secrets; select 1; delete from shown; show tables like 'sh%';"
    words = command_line("mariadb", "--force", "--auto-rehash", "--batch", "shop", clear=True)
    done = place.run(*words, clear=True, stdin=sql)
    told = [line.split(" [")[0] for line in done.stderr.splitlines() if line.startswith("ERROR")]
    assert [
        "ERROR 1142 (42000) at line 1: capd: agents read no secrets",
        "ERROR 1142 (42000) at line 1: capd: not all rows",
    ] == told
    assert "a\tb\n1\tn1\n2\tn2\n1\n1\nTables_in_shop (sh%)\nshown\n" == done.stdout


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


@pytest.mark.parametrize("quick", [(), ("--quick",)])
def test_mariadb_beyond_a_limit(place: Place, quick: tuple[str, ...]) -> None:
    """The command line reads which limit, at the row that is beyond it; the decision log has it."""
    before = exceeded(place, "few-rows")
    words = command_line("mariadb", "--batch", *quick, "shop", clear=True)
    done = place.run(*words, clear=True, stdin="select a as few_rows from shown;")
    assert "ERROR 1226 (42000) at line 1: capd: more than rows 5 of rule few-rows" in done.stderr
    assert 0 != done.returncode
    assert len(done.stdout.splitlines()) <= 6
    see_exceeded(place, "few-rows", [*before, "rows"])


LIMITED = "1226 capd: more than rows 5 of rule few-rows"
LOST = "2013 Lost connection to MySQL server during query"
"""MySQL's connector passes over an ERR among rows of an execution, and waits for more until the connection ends."""


@pytest.mark.parametrize(("program", "second"), [("PYMYSQL", LIMITED), ("CONNECTOR", LOST)])
def test_python_beyond_a_limit(place: Place, program: str, second: str) -> None:
    """Text, streamed and prepared: an error is raised, and never a short result."""
    done = place.run(*PYTHON, scripts.CONNECT + getattr(scripts, f"{program}_LIMITED"))
    assert 0 == done.returncode, done.stderr
    assert [LIMITED, second] == done.stdout.splitlines()


def test_mariadb_takes_too_long(place: Place) -> None:
    """It reads that a statement took too long."""
    words = command_line("mariadb", "--batch", "shop", clear=True)
    done = place.run(*words, clear=True, stdin="select sleep(20) as soon;")
    assert "ERROR 1226 (42000) at line 1: capd: a statement took longer than a rule allows" in done.stderr


def test_a_run_has_so_many_rows(place: Place) -> None:
    """Over all its connections: the one that goes over it is cut, then statements are denied; its alarm was told once."""
    told, sql = [], "select a as of_run from shown limit 5"
    for _ in range(4):
        done = place.run(*command_line("mariadb", "--batch", "shop", clear=True), clear=True, stdin=f"{sql};")
        told += [line[: len("ERROR 1226")] for line in done.stderr.splitlines() if line.startswith("ERROR")] or [""]
        assert bool(done.returncode) is ("run_rows 12 of rule run" in done.stderr)
    assert ["", "", "ERROR 1226", "ERROR 1142"] == told
    see_exceeded(place, "run", ["export_rows", "run_rows"])
    assert 3 == place.heard().count(sql)


def test_mariadb_dump(place: Place) -> None:
    """A dump is the same to the byte."""
    words = command_line("mariadb-dump", "--skip-dump-date", "shop", clear=True)
    done = place.run(*words, clear=True)
    assert 0 == done.returncode, done.stderr
    assert place.direct(*words, clear=True) == done.stdout


OWN_SERVER = pytest.mark.parametrize("place", ["mysql"], indirect=True)
"""MySQL's own clients are tried with it."""


def told(place: Place, *words: str, clear: bool, stdin: str = "") -> tuple[str, str]:
    """Give what one of MySQL's own clients prints behind the enforcer, and what it prints with nobody between."""
    trusts = place.yard.trust / "authority.pem", place.yard.certificates.authority
    behind, alone = (own_line(*words, trust=None if clear else trust) for trust in trusts)
    done = place.run(*behind, clear=clear, stdin=stdin)
    assert 0 == done.returncode, done.stderr
    return done.stdout, place.direct(*alone, clear=clear, stdin=stdin)


@OWN_SERVER
@pytest.mark.parametrize("clear", [True, False])
def test_mysqldump(place: Place, clear: bool) -> None:
    """A dump by MySQL's own program is the same to the byte: comments that the server executes are read as what they are."""
    words = ["mysqldump", "--skip-dump-date", "--no-tablespaces", "--routines", "--hex-blob", "shop"]
    found, expected = told(place, *words, clear=clear)
    assert "CREATE TABLE `shown`" in found
    assert expected == found


OWN = """
select * from shown order by a limit 2; select version() is not null, connection_id() > 0, @@session.sql_mode;
query_attributes one two
select 'with attributes';
create table vectors (v vector(3), j json); insert into vectors values (to_vector('[1,2,3]'), '{"a": [1, "x"]}');
select vector_to_string(v), j->>'$.a[1]', json_schema_valid('{}', j) from vectors; select hex(v) from vectors;
explain format=tree select * from shown where a = 3; explain format=json select * from shown; table shown;
select json_arrayagg(a) from shown; with recursive n (i) as (select 1 union all select i + 1 from n where i < 4) table n;
use mysql; select database(); use shop; select * from nothing; show warnings; drop table vectors;
set names latin1; select 'x'; set session sql_mode = 'ANSI_QUOTES'; select "a" from shown limit 1;
"""


@OWN_SERVER
@pytest.mark.parametrize("clear", [True, False])
@pytest.mark.parametrize("options", [(), ("--compression-algorithms=zstd,uncompressed",), ("--column-type-info",)])
def test_mysql(place: Place, options: tuple[str, ...], clear: bool) -> None:
    """MySQL's own command line: attributes of queries, vectors, JSON, plans, other databases, ways to read text."""
    words = ["mysql", "--force", "--batch", *options, "shop"]
    found, expected = told(place, *words, clear=clear, stdin=OWN)
    assert expected == found


def test_jdbc(place: Place) -> None:
    """Java's driver: batches, statements prepared on the server, pipelines, a cursor by fetch size."""
    require_command("javac")
    require(JDBC.exists(), f"needs {JDBC}")
    program = place.home / "Main.java"
    program.write_text(scripts.JDBC, encoding="ascii")
    words = ("java", "-cp", JDBC, program)
    done = place.run(*words, clear=True)
    assert 0 == done.returncode, done.stderr
    assert place.direct(*words, clear=True) == done.stdout


@pytest.mark.parametrize("clear", [True, False])
def test_node(place: Place, clear: bool) -> None:
    """mysql2: values of all kinds, statements prepared on the server, several at once, transactions, a pool."""
    words = (*node_with("mysql2"), "-e", scripts.NODE)
    done = place.run(*words, clear=clear)
    assert 0 == done.returncode, done.stderr
    assert 3 == done.stdout.count("denied")
    assert place.direct(*words, clear=clear) == done.stdout


def test_the_server_never_heard_of_it(place: Place) -> None:
    """After all that: nothing denied is in the server's log of statements, and all else is."""
    sql = "select 'the last one' from secrets; select 'the last one that may';"
    place.run(*command_line("mariadb", "--force", "shop", clear=True), clear=True, stdin=sql)
    heard = place.heard()
    assert "/* capd */" in heard
    assert "the last one that may" in heard
    assert "the last one' from" not in heard
