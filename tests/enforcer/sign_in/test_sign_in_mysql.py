"""MySQL and MariaDB: real servers are signed in to, and real clients are let in."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator

import pymysql
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from capd.enforcer.credentials.secret import Secret
from capd.enforcer.masking.sql_secrets import MYSQL, places
from capd.enforcer.obligations.sign_in import SignIn
from capd.enforcer.sign_in.errors import SignInError
from capd.enforcer.sign_in.mysql_methods import ED25519, NATIVE, SHA2, ed25519, ed25519_public
from tests.e2e.certificates import Certificates
from tests.enforcer.sign_in.mysql_wire import letting_in, sign_in
from tests.enforcer.sign_in.postgresql_wire import SECONDS_MAX
from tests.requirements import require_command
from tests.servers.mariadb import PASSWORD, MariaDb, mariadb

GREETED = [NATIVE, SHA2, ED25519]
"""By the target; the last one is no way to greet with."""
HELD = ["", "anything at all"]


@pytest.mark.parametrize("greeted", GREETED)
@pytest.mark.parametrize("held", HELD, ids=["no password", "a password"])
@pytest.mark.parametrize("way", [None, NATIVE, SHA2, ED25519])
def test_mariadb_s_client_is_let_in(greeted: str, held: str, way: str | None) -> None:
    """Whatever it has for a password, and whichever way it prefers."""
    require_command("mariadb")
    options = [] if way is None else [f"--default-auth={way}"]
    with letting_in(greeted) as (port, outcomes):
        command = [
            "mariadb",
            "--no-defaults",
            "-h",
            "127.0.0.1",
            f"--port={port}",
            "--user=ann",
            f"--password={held}",
            *options,
        ]
        done = subprocess.run([*command, "-e", "DO 1"], capture_output=True, timeout=SECONDS_MAX, check=False)
    assert (0, b"") == (done.returncode, done.stderr)
    assert [f"ann by {way or (greeted if greeted == SHA2 else NATIVE)}"] == outcomes


@pytest.mark.parametrize("greeted", GREETED)
@pytest.mark.parametrize("held", HELD, ids=["no password", "a password"])
def test_pymysql_is_let_in(greeted: str, held: str) -> None:
    """The same of another client."""
    with letting_in(greeted) as (port, outcomes):
        pymysql.connect(host="127.0.0.1", port=port, user="ann", password=held, read_timeout=SECONDS_MAX).close()
    assert 1 == len(outcomes)


@pytest.fixture(scope="module")
def server(trusted: Certificates) -> Iterator[MariaDb]:
    """A MariaDB with TLS and a user who is let in by `mysql_native_password`."""
    for path in (trusted.key, trusted.certificate):
        path.chmod(0o644)
    options = [f"--ssl-cert={trusted.certificate}", f"--ssl-key={trusted.key}"]
    with mariadb(options) as made:
        made.administer(f"CREATE USER native@'127.0.0.1' IDENTIFIED BY '{PASSWORD}'")
        yield made


def made(user: str, secret: str = PASSWORD) -> SignIn:
    """Give what a user is signed in with."""
    return SignIn(credential="db", user=user, secret=Secret(secret))


@pytest.mark.parametrize("tls", [True, False], ids=["TLS", "clear"])
def test_mariadb_lets_us_in(server: MariaDb, trusted: Certificates, tls: bool) -> None:
    """By the challenge of its greeting."""
    client, asked, behind = sign_in(server.port, made("native"), tls=trusted if tls else None)
    assert client.done
    assert [NATIVE] == asked
    assert b"native@127.0.0.1" in behind


@pytest.mark.parametrize("user", ["native", "nobody"])
def test_mariadb_does_not_let_us_in(server: MariaDb, user: str) -> None:
    """With another password, or as nobody, its error ends it."""
    with pytest.raises(SignInError, match="refused to let in"):
        sign_in(server.port, made(user, "another-word"), tls=None)


def test_mariadb_s_ed25519(server: MariaDb, trusted: Certificates) -> None:
    """A server that asks for it gets a signature that it takes; where its plugin is not there, its public key says the same."""
    try:
        server.administer(
            "INSTALL SONAME 'auth_ed25519'",
            f"CREATE USER signer@'127.0.0.1' IDENTIFIED VIA ed25519 USING PASSWORD('{PASSWORD}')",
        )
    except pymysql.Error:  # Debian has it in the package with the service, which the environment is without
        challenge = bytes(range(32))
        public = Ed25519PublicKey.from_public_bytes(ed25519_public(PASSWORD.encode()))
        public.verify(ed25519(PASSWORD.encode(), challenge), challenge)
        return
    client, asked, behind = sign_in(server.port, made("signer"), tls=trusted)
    assert client.done
    assert [NATIVE, ED25519] == asked
    assert b"signer@127.0.0.1" in behind


@pytest.mark.parametrize("secret", ["it''s", "a\\\\b", "a;b", 'd"q', "-- x", "/* x", "# x", "ünï"])
@pytest.mark.parametrize("form", ["IDENTIFIED BY '{}'", "IDENTIFIED VIA mysql_native_password USING PASSWORD('{}')"])
def test_mariadb_takes_the_same_for_the_password(server: MariaDb, form: str, secret: str) -> None:
    """The server reads the password where it is hidden in a recording: who signs in with what stood there gets in."""
    text = f"CREATE OR REPLACE USER tried@'127.0.0.1' {form.replace('{}', secret)}"
    server.administer(text)
    ((value,),) = server.administer(f"SELECT '{secret}'")
    assert sign_in(server.port, made("tried", str(value)), tls=None)[0].done
    data = text.encode()
    (place,) = places(data, 0, MYSQL)
    assert secret.encode() == data[place.start : place.end]
