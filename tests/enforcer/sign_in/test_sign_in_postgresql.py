"""PostgreSQL: real servers are signed in to, and real clients are let in."""

from __future__ import annotations

import struct
from typing import Any

import psycopg
import pytest

from capd.enforcer.credentials.method import WeakMethod
from capd.enforcer.credentials.secret import Secret
from capd.enforcer.obligations.sign_in import SignIn
from capd.enforcer.sign_in.channel import Channel
from capd.enforcer.sign_in.errors import MethodRefusedError, SignInError
from capd.enforcer.sign_in.postgresql_client import PostgresqlClient
from capd.enforcer.sign_in.postgresql_code import Code
from capd.enforcer.sign_in.scram_server import WRONG
from tests.e2e.certificates import Certificates
from tests.enforcer.sign_in.conftest import PASSWORD, Server
from tests.enforcer.sign_in.postgresql_wire import letting_in, sign_in

EVERY = frozenset(WeakMethod)
PLACEHOLDER = "no-secret"


def made(user: str, *methods: WeakMethod, secret: str = PASSWORD) -> SignIn:
    """Give what a user is signed in with."""
    return SignIn(credential="db", user=user, secret=Secret(secret), methods=frozenset(methods))


@pytest.mark.parametrize("tls", [True, False], ids=["TLS", "clear"])
@pytest.mark.parametrize(
    ("user", "methods"), [("scram-sha-256", []), ("md5", [WeakMethod.MD5]), ("trust", [])], ids=["scram", "md5", "trust"]
)
def test_a_server_lets_us_in(postgresql: Server, user: str, methods: list[WeakMethod], tls: bool) -> None:
    """By SCRAM, bound to the channel in TLS, by md5 where it is allowed, and where nothing is asked."""
    client, behind = sign_in(postgresql.port, made(user, *methods), tls=postgresql.certificates if tls else None)
    assert (True, b"S") == (client.done, behind)


def test_the_password_itself(postgresql: Server) -> None:
    """A server that wants it in clear gets it in proven TLS, where the credential allows that, and otherwise never."""
    wanted = made("password", WeakMethod.CLEARTEXT)
    assert sign_in(postgresql.port, wanted, tls=postgresql.certificates)[0].done
    for one, tls, prove in (
        (made("password"), postgresql.certificates, True),
        (wanted, postgresql.certificates, False),
        (wanted, None, True),
        (made("md5", WeakMethod.CLEARTEXT, WeakMethod.RSA), postgresql.certificates, True),
    ):
        with pytest.raises(MethodRefusedError):
            sign_in(postgresql.port, one, tls=tls, prove=prove)


@pytest.mark.parametrize("user", ["scram-sha-256", "md5", "password"])
def test_a_wrong_password(postgresql: Server, user: str) -> None:
    """The server's error comes, and nobody is in."""
    client, behind = sign_in(postgresql.port, made(user, *EVERY, secret="another-word"), tls=postgresql.certificates)
    assert (False, b"E") == (client.done, behind)


def test_in_tls_it_is_bound_to_the_channel(postgresql: Server) -> None:
    """The better mechanism is taken, and PostgreSQL itself finds out who shows another certificate than its own."""
    shown = _other(postgresql.certificates)
    client, behind = sign_in(postgresql.port, made("scram-sha-256"), tls=postgresql.certificates, shown=shown)
    assert (False, b"E") == (client.done, behind)
    client = PostgresqlClient(
        made("scram-sha-256"), "u", Channel(encrypted=True, certificate=_other(postgresql.certificates)), bytes
    )
    offer = struct.pack("!i", Code.SASL) + b"SCRAM-SHA-256-PLUS\0SCRAM-SHA-256\0\0"
    answer = client.answer(offer)
    assert answer is not None
    assert answer.startswith(b"SCRAM-SHA-256-PLUS\0")
    assert b"p=tls-server-end-point,,n=,r=" in answer


def _other(certificates: Certificates) -> bytes:
    import ssl  # noqa: PLC0415 - for this one

    return ssl.PEM_cert_to_DER_cert(certificates.authority.read_text(encoding="ascii"))


def code(number: int, content: bytes = b"") -> bytes:
    """Give the content of an Authentication message."""
    return struct.pack("!i", number) + content


SASL = code(Code.SASL, b"SCRAM-SHA-256\0\0")
REFUSED: list[tuple[str, list[bytes]]] = [
    ("it ends SCRAM before its proof", [SASL, code(Code.OK)]),
    ("it wants the password after SCRAM", [SASL, code(Code.CLEARTEXT)]),
    ("it wants md5 after SCRAM", [SASL, code(Code.MD5, b"salt")]),
    ("it wants SCRAM twice", [SASL, SASL]),
    ("it wants the password twice", [code(Code.CLEARTEXT), code(Code.CLEARTEXT)]),
    ("it goes on where nothing began", [code(Code.SASL_CONTINUE, b"r=x,s=y,i=4096")]),
    ("it ends where nothing began", [code(Code.SASL_FINAL, b"v=x")]),
    ("it offers nothing that can be taken", [code(Code.SASL, b"OAUTHBEARER\0\0")]),
    ("Kerberos", [code(2)]),
    ("GSSAPI", [code(7)]),
    ("SSPI", [code(9)]),
    ("a way that is not known", [code(99)]),
    ("a short salt", [code(Code.MD5, b"x")]),
    ("half a number", [b"\0\0"]),
    ("it goes on after the end", [code(Code.OK), code(Code.OK)]),
]


@pytest.mark.parametrize("messages", [case[1] for case in REFUSED], ids=[case[0] for case in REFUSED])
def test_servers_that_do_not_play_fair(messages: list[bytes]) -> None:
    """Whatever else it says, it gets nothing more, even if everything is allowed."""
    client = PostgresqlClient(made("u", *EVERY), "u", Channel(encrypted=True, proven=True), bytes)
    for one in messages[:-1]:
        client.answer(one)
    with pytest.raises(SignInError) as caught:
        client.answer(messages[-1])
    assert PASSWORD not in str(caught.value)


def connect(port: int, certificates: Certificates, **options: Any) -> None:  # noqa: ANN401 - of libpq
    """Connect with libpq."""
    given = {"password": PLACEHOLDER, "sslmode": "verify-full", "sslrootcert": str(certificates.authority), **options}
    psycopg.connect(host="localhost", hostaddr="127.0.0.1", port=port, user="u", dbname="d", **given).close()


LIBPQ: list[tuple[str, str | None, dict[str, Any], bool]] = [
    ("nothing is asked", None, {}, True),
    ("nothing is asked, no password", None, {"password": None}, True),
    ("nothing is asked, in clear", None, {"sslmode": "disable"}, True),
    ("nothing is asked, and it insists on binding", None, {"channel_binding": "require"}, False),
    ("nothing is asked, and it insists on SCRAM", None, {"require_auth": "scram-sha-256"}, False),
    ("it may not be asked", None, {"require_auth": "none"}, True),
    ("asked", PLACEHOLDER, {}, True),
    ("asked in clear", PLACEHOLDER, {"sslmode": "disable"}, True),
    ("asked, and it insists on binding", PLACEHOLDER, {"channel_binding": "require"}, True),
    ("asked, and it does not bind", PLACEHOLDER, {"channel_binding": "disable"}, True),
    ("asked, and it insists on SCRAM", PLACEHOLDER, {"require_auth": "scram-sha-256"}, True),
    ("asked, without a password", PLACEHOLDER, {"password": None}, False),
    ("asked, with another password", PLACEHOLDER, {"password": "a real one"}, False),
]


@pytest.mark.parametrize(("placeholder", "options", "in_"), [case[1:] for case in LIBPQ], ids=[case[0] for case in LIBPQ])
def test_libpq_is_let_in(trusted: Certificates, placeholder: str | None, options: dict[str, Any], in_: bool) -> None:
    """Unasked all are content but those that insist; those hold the placeholder, and it works bound to the channel too."""
    with letting_in(placeholder, trusted) as (port, outcomes):
        if in_:
            connect(port, trusted, **options)
        else:
            with pytest.raises(psycopg.OperationalError):
                connect(port, trusted, **options)
    assert ("in" in outcomes) is (in_ or placeholder is None)
    if options.get("password") == "a real one":
        assert [WRONG] == outcomes
