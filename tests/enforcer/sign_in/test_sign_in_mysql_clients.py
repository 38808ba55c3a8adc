"""Agents that have no password, behind the whole enforcer, before a real MariaDB: capd signs in for them.

What lives here: what unmodified clients get, and what they never see. What must not: the proxy's inside.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from capd.daemon.trust_environment import variables
from tests.enforcer.yard import Yard, yard
from tests.on_disk import content
from tests.requirements import require_command, require_root
from tests.servers.mariadb import MariaDb, mariadb

POLICY = """\
rules:
  - {id: shop, match: {protocols: mysql, hosts: [api.test, "198.51.100.7", "2001:db8::7"]}, then: allow}
  - id: signed-in
    match: {protocols: mysql, hosts: [api.test, "198.51.100.7", "2001:db8::7"], ports: [3306]}
    then: inject
    inject: {credential: reader}
"""
CREDENTIALS = """
[credentials.reader]
file = "{directory}/reader"
user = "reader"
hosts = ["api.test"]
ports = [3306]
databases = ["shop"]
"""
SECRET = "the-first-secret-word"
SECONDS = 60
PYMYSQL = """\
import os, pymysql
password, trusted = os.environ.get("DB_PASSWORD", ""), os.environ["DB_CA"]
c = pymysql.connect(host="api.test", user="x", password=password, database="shop", ssl_ca=trusted)
with c.cursor() as cursor:
    cursor.execute("select current_user()")
    print(cursor.fetchone()[0])
"""
WHO = """\
import os, pymysql, sys
database, sql, tls = sys.argv[1:]
trusted = {"ssl_ca": os.environ["DB_CA"]} if tls else {"ssl_disabled": True}
with pymysql.connect(host="api.test", user="nobody-special", database=database, **trusted) as c, c.cursor() as cursor:
    cursor.execute(sql)
    cursor.execute("select current_user(), database()")
    print(*cursor.fetchone())
"""
CONNECTOR = """\
import os, mysql.connector
c = mysql.connector.connect(host="api.test", user="x", password=os.environ.get("DB_PASSWORD", ""), database="shop",
                            ssl_ca=os.environ["DB_CA"], ssl_verify_cert=True, use_pure=True)
cursor = c.cursor()
cursor.execute("select current_user()")
print(cursor.fetchone()[0])
"""


@dataclass(frozen=True, kw_only=True)
class Place:
    """A yard with a server."""

    yard: Yard
    server: MariaDb

    def run(self, *words: str | Path, **environment: str) -> subprocess.CompletedProcess[str]:
        """Run a client as an agent."""
        known = {"DB_CA": str(self.yard.trust / "authority.pem"), "HOME": "/", "LANG": "C.UTF-8", **environment}
        done = self.yard.agent(*words, variables={**variables(self.yard.trust, {}), **known}, seconds=SECONDS)
        return subprocess.CompletedProcess(done.args, done.returncode, done.stdout.decode(), done.stderr.decode())

    def who(self, database: str = "shop", sql: str = "select 1", *, clear: bool = False) -> str:
        """Give whom PyMySQL is in as, and where, after a statement; or what it is told."""
        done = self.run(sys.executable, "-P", "-c", WHO, database, sql, "" if clear else "tls")
        return done.stdout.strip() or done.stderr.strip()

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
    require_command("nft", "nsenter", "setpriv")
    with TemporaryDirectory(prefix="capd-sign-in-") as name:
        directory = Path(name)
        with yard(directory, POLICY, CREDENTIALS.format(directory=directory), _with_secret) as made:
            tls = [f"--ssl-cert={made.certificates.certificate}", f"--ssl-key={made.certificates.key}"]
            with mariadb(tls, within=made.within, address="*", port=3306) as server:
                server.administer(
                    "CREATE DATABASE payroll",
                    f"CREATE USER reader IDENTIFIED BY '{SECRET}'",
                    "GRANT ALL ON *.* TO reader",
                )
                yield Place(yard=made, server=server)


def _with_secret(made: Yard) -> None:
    path = made.directory / "reader"
    path.touch(mode=0o600)
    path.write_text(SECRET, encoding="ascii")


def test_an_agent_without_a_password(place: Place) -> None:
    """It is in as the credential's user, whoever it says that it is."""
    assert "reader@% shop" == place.who()


@pytest.mark.parametrize("program", [PYMYSQL, CONNECTOR], ids=["PyMySQL", "Connector"])
@pytest.mark.parametrize("held", ["", "of-the-agent"])
def test_other_clients(place: Place, program: str, held: str) -> None:
    """So are others, with a password of their own or without."""
    done = place.run(sys.executable, "-P", "-c", program, DB_PASSWORD=held)
    assert "reader@%\n" == done.stdout, done.stderr


def test_the_credential_is_bound(place: Place) -> None:
    """Another database is refused at once, and later; and so is a way to the target that proves nothing.

    MariaDB's own client names no server in TLS, so nobody can prove that name to it, and it gets no credential either.
    """
    assert "the credential reader is not for the database payroll" in place.who("payroll")
    assert "Error" in place.who(sql="use payroll")
    assert "a credential goes only through TLS" in place.who(clear=True)


def test_a_secret_that_is_replaced(place: Place) -> None:
    """The next session has the new one; while server and file differ, nobody is in."""
    place.server.administer("ALTER USER reader IDENTIFIED BY 'the-second-secret'")
    told = place.who()
    assert "Error" in told
    assert SECRET not in told
    place.keep("the-second-secret")
    assert "reader@% shop" == place.who()


def test_nothing_on_disk_has_it(place: Place) -> None:
    """After all that the secret is in no file but the credential's own."""
    for secret in (SECRET, "the-second-secret"):
        kept = [path for path in place.yard.directory.rglob("*") if path.is_file()]
        assert [] == [path for path in kept if path.name != "reader" and secret.encode() in content(path)]
