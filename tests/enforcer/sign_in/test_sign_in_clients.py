"""Agents that have no password, behind the whole enforcer, before a real PostgreSQL: capd signs in for them.

What lives here: what unmodified clients get, and what they never see. What must not: the proxy's inside.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from capd.daemon.trust_environment import variables
from tests.daemon.conftest import wait_until
from tests.e2e.postgres import programs
from tests.enforcer.yard import ADDRESSES, Yard, yard
from tests.on_disk import content
from tests.requirements import require, require_command, require_root

POLICY = """\
rules:
  - id: all
    match: {protocols: postgresql, hosts: [api.test, other.test, "198.51.100.7", "2001:db8::7"]}
    then: allow
    accept_incomplete: true
  - id: signed-in
    match: {protocols: postgresql, hosts: [api.test, "198.51.100.7", "2001:db8::7"], ports: [5432]}
    then: inject
    inject: {credential: reader}
  - id: asked
    match: {protocols: postgresql, hosts: [other.test], ports: [5432]}
    then: inject
    inject: {credential: asked}
"""
CREDENTIALS = """
[credentials.reader]
file = "{directory}/reader"
user = "reader"
hosts = ["api.test"]
ports = [5432]
databases = ["shop", "templ*"]
[credentials.asked]
file = "{directory}/reader"
user = "reader"
hosts = ["other.test"]
ports = [5432]
placeholder = "no-secret"
"""
SECRET = "the-first-secret-word"
WHO = ("-X", "-A", "-t", "-c", "select current_user || ' in ' || current_database()")
SECONDS = 60
WAYS = "local all all trust\nhost all all all {}\n"
"""Of pg_hba.conf."""
PSYCOPG = "import psycopg, sys; c = psycopg.connect(sys.argv[1]); print(c.execute('select current_user').fetchone()[0])"


@dataclass(frozen=True, kw_only=True)
class Place:
    """A yard with a server, whose only way in is SCRAM.

    Attributes:
        data: of the server.
    """

    yard: Yard
    data: Path

    def run(self, *words: str | Path, **environment: str) -> subprocess.CompletedProcess[str]:
        """Run a client as an agent, which names itself and has no password unless it is given one."""
        known = {
            "PGHOST": "api.test",
            "PGUSER": "nobody-special",
            "PGDATABASE": "shop",
            "PGSSLMODE": "verify-full",
            "PGSSLROOTCERT": str(self.yard.trust / "authority.pem"),
            "HOME": "/",
            "LANG": "C.UTF-8",
            **environment,
        }
        done = self.yard.agent(*words, variables={**variables(self.yard.trust, {}), **known}, seconds=SECONDS)
        return subprocess.CompletedProcess(done.args, done.returncode, done.stdout.decode(), done.stderr.decode())

    def who(self, **environment: str) -> str:
        """Give whom psql is in as, and where; or what it is told."""
        done = self.run("psql", *WHO, **environment)
        return done.stdout.strip() or done.stderr.strip()

    def administer(self, sql: str) -> None:
        """Let the server's administrator do something."""
        _as_postgres(self.yard, "psql", "-X", "-q", "-h", self.data.parent, "-U", "postgres", "postgres", "-c", sql)

    def keep(self, secret: str) -> None:
        """Put another value into the credential's file."""
        new = self.yard.directory / "new"
        new.touch(mode=0o600)
        new.write_text(secret, encoding="ascii")
        new.replace(self.yard.directory / "reader")


@pytest.fixture(scope="module")
def place() -> Iterator[Place]:
    """Make one for all tests here."""
    require_root()
    require_command("nft", "nsenter", "setpriv", "psql")
    with TemporaryDirectory(prefix="capd-sign-in-") as name:
        directory = Path(name)
        with yard(directory, POLICY, CREDENTIALS.format(directory=directory), _with_secret) as made:
            (directory / "pg").mkdir()
            place = Place(yard=made, data=directory / "pg" / "data")
            _start(made, place.data)
            try:
                for sql in (
                    "create database shop template template0",
                    "create database payroll template template0",
                    f"create user reader password '{SECRET}'",
                ):
                    place.administer(sql)
                yield place
            finally:
                _as_postgres(made, programs() / "pg_ctl", "-s", "-D", place.data, "-m", "immediate", "stop")


def _with_secret(made: Yard) -> None:
    path = made.directory / "reader"
    path.touch(mode=0o600)
    path.write_text(SECRET, encoding="ascii")


def _as_postgres(made: Yard, *words: str | Path) -> None:
    command = [*made.within, "runuser", "-u", "postgres", "--", *map(str, words)]
    subprocess.run(command, check=True, cwd="/", env={"PATH": os.environ["PATH"], "LANG": "C"}, stdout=subprocess.DEVNULL)


def _start(made: Yard, data: Path) -> None:
    bin_ = programs()
    shutil.chown(data.parent, "postgres")
    _as_postgres(made, bin_ / "initdb", "-D", data, "-U", "postgres", "-A", "trust", "--no-sync", "-E", "UTF8")
    for source, name in ((made.certificates.key, "server.key"), (made.certificates.certificate, "server.crt")):
        shutil.copy(source, data / name)
        shutil.chown(data / name, "postgres")
        (data / name).chmod(0o600)
    (data / "pg_hba.conf").write_text(WAYS.format("scram-sha-256"), encoding="ascii")
    options = f"-c listen_addresses={','.join(ADDRESSES)} -c unix_socket_directories={data.parent} -c ssl=on -c fsync=off"
    _as_postgres(made, bin_ / "pg_ctl", "-s", "-w", "-D", data, "-l", data.parent / "log", "-o", options, "start")


def test_an_agent_without_a_password(place: Place) -> None:
    """It is in as the credential's user, whoever it says that it is; a password that it has is not looked at."""
    assert "reader in shop" == place.who()
    assert "reader in shop" == place.who(PGUSER="postgres", PGPASSWORD="of-the-agent")


def test_the_credential_is_bound(place: Place) -> None:
    """Another database is refused, and so is a way to the target that proves nothing; the server hears of neither."""
    heard = (place.data.parent / "log").read_text(encoding="utf-8")
    assert "the credential reader is not for the database payroll" in place.who(PGDATABASE="payroll")
    assert "a credential goes only through TLS" in place.who(PGSSLMODE="disable")
    assert heard == (place.data.parent / "log").read_text(encoding="utf-8")


INSISTING = [
    ("channel_binding=require require_auth=scram-sha-256 password=no-secret", "reader"),
    ("channel_binding=prefer password=no-secret", "reader"),
    ("channel_binding=disable password=no-secret", "reader"),
    ("channel_binding=require password=another", "the client's password is not the placeholder of the credential"),
    ("channel_binding=prefer", "password"),
]


@pytest.mark.parametrize(("options", "expected"), INSISTING)
def test_clients_that_insist(place: Place, options: str, expected: str) -> None:
    """With a placeholder they prove it, and capd proves that it knows it, bound to the certificate that they see."""
    done = place.run(sys.executable, "-P", "-c", PSYCOPG, options, PGHOST="other.test")
    assert expected in done.stdout + done.stderr


def test_clients_that_insist_need_a_placeholder(place: Place) -> None:
    """One that is not asked, and insists, goes away by itself."""
    done = place.run(sys.executable, "-P", "-c", PSYCOPG, "channel_binding=require password=no-secret")
    assert "channel binding required" in done.stderr


ASYNCPG = """\
import asyncio, asyncpg, os, ssl
async def talk():
    trusted = ssl.create_default_context(cafile=os.environ["PGSSLROOTCERT"])
    c = await asyncpg.connect(password=os.environ.get("PGPASSWORD"), ssl=trusted)
    print(await c.fetchval("select current_user"))
    await c.close()
asyncio.run(talk())
"""
JAVA = """\
public class Main {
    public static void main(String[] a) throws Exception {
        var to = "jdbc:postgresql://" + a[0] + "/shop?user=x&sslmode=verify-full&sslrootcert=" + a[1] + a[2];
        try (var c = java.sql.DriverManager.getConnection(to); var s = c.createStatement()) {
            var r = s.executeQuery("select current_user");
            r.next();
            System.out.println(r.getString(1));
        }
    }
}
"""
JDBC = Path("/usr/share/java/postgresql.jar")
HELD = [("api.test", ""), ("other.test", "no-secret")]
"""Targets, and what clients of theirs have for a password."""


@pytest.mark.parametrize(("host", "password"), HELD)
def test_asyncpg(place: Place, host: str, password: str) -> None:
    """Asyncpg is in, asked or not."""
    held = {"PGPASSWORD": password} if password else {}
    done = place.run(sys.executable, "-P", "-c", ASYNCPG, PGHOST=host, **held)
    assert ("reader\n", "") == (done.stdout, done.stderr)


@pytest.mark.parametrize(("host", "password"), HELD)
def test_jdbc(place: Place, host: str, password: str) -> None:
    """So is Java's driver."""
    require_command("javac")
    require(JDBC.exists(), f"needs {JDBC}")
    program = place.yard.directory / "Main.java"
    program.write_text(JAVA, encoding="ascii")
    held = f"&password={password}" if password else ""
    done = place.run("java", "-cp", JDBC, program, host, place.yard.trust / "authority.pem", held)
    assert "reader\n" == done.stdout, done.stderr


def test_a_secret_that_is_replaced(place: Place) -> None:
    """The next session has the new one; while server and file differ, nobody is in, and the agent is not told why in full."""
    place.administer("alter user reader password 'the-second-secret'")
    told = place.who()
    assert "reader in" not in told
    assert SECRET not in told
    place.keep("the-second-secret")
    assert "reader in shop" == place.who()


WEAK = {
    "md5": "wants `md5`, which the credential does not allow",
    "password": "wants the password itself, which the credential",
}


@pytest.mark.parametrize("way", WEAK)
def test_weak_ways_are_refused(place: Place, way: str) -> None:
    """A target that wants md5, or the password itself, gets nothing where the credential does not allow that."""
    place.administer("set password_encryption = md5; alter user reader password 'the-second-secret'")
    (place.data / "pg_hba.conf").write_text(WAYS.format(way), encoding="ascii")
    place.administer("select pg_reload_conf()")
    wait_until(lambda: WEAK[way] in place.who(), "the server goes by its file")


def test_nothing_on_disk_has_it(place: Place) -> None:
    """After all that the secret is in no file but the credential's own, and in the server's as what SCRAM keeps of it."""
    for secret in (SECRET, "the-second-secret"):
        kept = [path for path in place.yard.directory.rglob("*") if path.is_file() and "pg/" not in str(path)]
        assert [] == [path for path in kept if path.name != "reader" and secret.encode() in content(path)]
