"""Signing in to a real MariaDB and a real MySQL through the proxy's shell: with a credential of capd's, and without.

What lives here: mysql_native_password, which Debian's MariaDB has, and caching_sha2_password, which MySQL 9 has. What must not:
the ways themselves (sign_in).
"""

from __future__ import annotations

import socket
import ssl
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import mysql.connector
import pymysql
import pytest

from capd.enforcer.credentials.method import WeakMethod
from capd.enforcer.credentials.secret import Secret
from capd.enforcer.obligations.sign_in import SignIn
from capd.enforcer.policy.glob import Glob
from capd.enforcer.proxy.question import NOBODY, Kind, Question, Verdict
from tests.e2e.certificates import make
from tests.enforcer.proxied import ADDRESS, TARGET, Proxied, proxied
from tests.servers.mariadb import DATABASE, PASSWORD, USER, MariaDb, mariadb
from tests.servers.mysql import mysql as real_mysql

SERVERS = {"mariadb": mariadb, "mysql": real_mysql}
RSA = frozenset({WeakMethod.RSA})
MYSQL = pytest.mark.parametrize("place", ["mysql"], indirect=True)


@dataclass
class Judge:
    """Allows everything; what it puts in is set by each test."""

    sign_in: SignIn | None = None
    asked: list[Question] = field(default_factory=list)

    def __call__(self, question: Question) -> Verdict:
        """Judge."""
        self.asked.append(question)
        opens = question.kind is Kind.SESSION and question.login != NOBODY
        return Verdict(number=question.number, allowed=True, policy="1", sign_in=self.sign_in if opens else None)


class Naming(ssl.SSLContext):
    """Names the server in TLS, as clients do that were given a name."""

    def wrap_socket(self, sock: socket.socket, **_: object) -> ssl.SSLSocket:  # type: ignore[override] # as PyMySQL calls it
        """Speak TLS."""
        return super().wrap_socket(sock, server_hostname="api.test")


@dataclass(frozen=True, slots=True)
class Place:
    """A proxy before a server."""

    proxy: Proxied
    judge: Judge
    server: MariaDb

    def connect(self, user: str, password: str, *, tls: bool) -> pymysql.connections.Connection[pymysql.cursors.Cursor]:
        """Connect; in TLS the leaf that capd shows has to be one of its authority."""
        trust = Naming(ssl.PROTOCOL_TLS_CLIENT)
        trust.load_verify_locations(self.proxy.trust)
        found: pymysql.connections.Connection[pymysql.cursors.Cursor] = pymysql.connect(
            host=ADDRESS,
            port=self.proxy.port,
            database=DATABASE,
            user=user,
            password=password,
            read_timeout=60,
            ssl=trust if tls else None,
            ssl_disabled=not tls,
        )
        return found


@pytest.fixture(scope="module", params=SERVERS)
def place(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    """Make one for all tests here, of each server."""
    directory: Path = tmp_path_factory.mktemp("signed-in")
    certificates, judge = make(directory), Judge()
    with SERVERS[request.param](tls=certificates) as server, proxied(directory, server.port, certificates, judge) as proxy:
        yield Place(proxy, judge, server)
        assert [] == proxy.mistakes


def who(connection: pymysql.connections.Connection[pymysql.cursors.Cursor]) -> tuple[str, bool]:
    """Give as whom the server has a session, and whether in TLS."""
    with closing(connection), connection.cursor() as cursor:
        cursor.execute("select current_user()")
        ((user,),) = cursor.fetchall()
        cursor.execute("show status like 'Ssl_cipher'")
        ((_, cipher),) = cursor.fetchall()
    return user.split("@")[0], bool(cipher)


@pytest.mark.parametrize("tls", [False, True])
def test_a_credential(place: Place, tls: bool) -> None:
    """The client has no password, or a wrong one, and is who the credential says; what one side has of TLS the other has."""
    place.judge.sign_in = SignIn(credential="c", user=USER, secret=Secret(PASSWORD), databases=(Glob("shop"),), methods=RSA)
    for wrong in ("", "wrong"):
        assert (USER, tls) == who(place.connect("nobody", wrong, tls=tls))
    assert ("nobody", DATABASE) == (place.judge.asked[-3].login.user, DATABASE)  # type: ignore[union-attr] # of a session
    assert PASSWORD not in repr(place.proxy.log.entries)


@pytest.mark.parametrize("tls", [False, True])
def test_the_clients_own(place: Place, tls: bool) -> None:
    """Without a credential the client's own password is what counts."""
    place.judge.sign_in = None
    assert (USER, tls) == who(place.connect(USER, PASSWORD, tls=tls))
    with pytest.raises(pymysql.err.OperationalError) as error:
        place.connect(USER, "wrong", tls=tls)
    assert 1045 == error.value.args[0]


def test_a_credential_that_is_wrong(place: Place) -> None:
    """The client reads that nobody is let in, and nothing of the secret."""
    place.judge.sign_in = SignIn(credential="c", user=USER, secret=Secret("not-" + PASSWORD))
    with pytest.raises(pymysql.err.OperationalError) as error:
        place.connect("nobody", "", tls=False)
    assert 1045 == error.value.args[0]
    assert PASSWORD not in str(error.value)
    assert TARGET not in str(error.value)


WAYS = ["caching_sha2_password", "sha256_password"]
"""Of users of MySQL 9; it greets with the first, so the second is one that it goes over to."""


@MYSQL
@pytest.mark.parametrize("tls", [False, True])
@pytest.mark.parametrize("way", WAYS)
def test_ways_of_mysql(place: Place, way: str, tls: bool) -> None:
    """The client gives its password itself, in TLS or for the server's key; then what the server remembers is enough."""
    user = f"{way[:6]}_{tls:d}"
    made_user(place, user, way)
    place.judge.sign_in = None
    for _ in range(2):
        assert (user, tls) == who(place.connect(user, PASSWORD, tls=tls))
    refused(place, user, "not it", tls=tls)


@MYSQL
def test_what_a_server_remembers(place: Place) -> None:
    """A password itself is given in TLS, or where the credential allows the server's key; without, once the server knows it."""
    made_user(place, "known", WAYS[0])
    place.judge.sign_in = SignIn(credential="c", user="known", secret=Secret(PASSWORD))
    assert "the credential does not allow `rsa`" in refused(place, "nobody", "", tls=False)
    for tls in (True, False, True):
        assert ("known", tls) == who(place.connect("nobody", "", tls=tls))
    place.server.administer("FLUSH PRIVILEGES")
    refused(place, "nobody", "", tls=False)
    place.judge.sign_in = replace(place.judge.sign_in, methods=RSA)
    for _ in range(2):
        assert ("known", False) == who(place.connect("nobody", "", tls=False))


def made_user(place: Place, user: str, way: str) -> None:
    """Make a user whose password the server does not remember yet."""
    made = f"CREATE USER {user} IDENTIFIED WITH {way} BY '{PASSWORD}'"
    place.server.administer(made, f"GRANT ALL ON *.* TO {user}", "FLUSH PRIVILEGES")


def refused(place: Place, user: str, password: str, *, tls: bool) -> str:
    """See that somebody is not let in, and give what they are told."""
    with pytest.raises(pymysql.err.OperationalError) as error:
        place.connect(user, password, tls=tls)
    assert 1045 == error.value.args[0]
    return str(error.value)


@MYSQL
def test_what_is_not_followed_is_not_agreed_on(place: Place) -> None:
    """Attributes of queries: a client can do them, the server offers them, capd does not, and the client says so."""
    place.judge.sign_in = None
    place.connect(USER, PASSWORD, tls=False).close()
    how: dict[str, Any] = {"host": ADDRESS, "port": place.proxy.port, "user": USER, "password": PASSWORD, "ssl_disabled": True}
    with mysql.connector.connect(**how, use_pure=True, read_timeout=60) as connection, connection.cursor() as cursor:
        cursor.add_attribute("one", 1)
        with pytest.warns(Warning, match="does not support Query Attributes"):
            cursor.execute("select 'x', 2")
        assert [("x", 2)] == cursor.fetchall()
