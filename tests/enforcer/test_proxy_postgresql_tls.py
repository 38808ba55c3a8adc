"""PostgreSQL in TLS, of both forms, without sockets: what is asked, what the target proves, what it is sent.

What lives here: TLS from the first byte (ALPN `postgresql`, PostgreSQL 17) and TLS that is asked for. What must not: OpenSSL
alone (test_proxy_tls.py, test_proxy_in_band_tls.py).
"""

from __future__ import annotations

import pytest

from capd.enforcer.proxy.events import Data, Side
from capd.enforcer.proxy.question import Kind
from tests.enforcer.postgresql_model import error_fields, messages, startup
from tests.enforcer.rehearsal import Rehearsal, allow
from tests.enforcer.test_proxy_tls import HERE, Talk, World, talk, world

assert world is not None  # the fixture

LET_IN = b"R\0\0\0\x08\0\0\0\0S\0\0\0\x19client_encoding\0UTF8\0" + b"Z\0\0\0\5I"
SSL = bytes.fromhex("0000000804d2162f")


def test_tls_from_the_first_byte(world: World) -> None:
    """The session is asked about with the name; the target proves it, agrees on `postgresql`, and gets the startup packet."""
    found = talk(world, alpn=["postgresql"], target_alpn="postgresql").says(startup())
    question = found.run.questions[-1]
    assert (Kind.SESSION, "postgresql", "api.test", True) == (
        question.kind,
        question.protocol,
        question.server_name,
        question.inspected,
    )
    assert "postgresql" == found.client.application_protocol
    assert bytes(found.heard[Side.UPSTREAM]).endswith(b"\0\3\0\0user\0agent\0database\0shop\0\0")
    found.answers(LET_IN)
    assert b"capd" in bytes(found.heard[Side.UPSTREAM])


@pytest.mark.parametrize("target_alpn", [None, "http/1.1"])
def test_a_target_that_speaks_something_else(world: World, target_alpn: str | None) -> None:
    """One that does not agree on the protocol is sent nothing, and the client reads why."""
    found = talk(world, alpn=["postgresql"], target_alpn=target_alpn).says(startup())
    ((code, body),) = messages(bytes(found.heard[Side.CLIENT]))
    assert ("E", "08001") == (code, error_fields(body)["C"])
    assert "target_not_verified" in error_fields(body)["M"]
    assert b"" == bytes(found.heard[Side.UPSTREAM])


def test_tls_within_tls(world: World) -> None:
    """Inside of TLS nobody is given TLS once more."""
    found = talk(world, alpn=["postgresql"]).says(SSL)
    assert "within TLS" in error_fields(messages(bytes(found.heard[Side.CLIENT]))[0][1])["M"]
    assert [] == found.run.dials


@pytest.mark.parametrize("answer", [b"N", b"E", b"S\x16\x03\x01", b"x"])
def test_a_target_that_does_not_grant_tls(world: World, answer: bytes) -> None:
    """No, an error, or bytes behind its yes that were never in TLS: the client in TLS reads that the target is not one."""
    run = Rehearsal(judge=allow, contexts=world.contexts, destination=HERE)
    run.says(SSL)
    assert b"S" == run.client
    found = talk_after(world, run)
    found.says(startup())
    assert run.upstream == SSL
    run.tell(Data(Side.UPSTREAM, answer))
    found.go()
    ((code, body),) = messages(bytes(found.heard[Side.CLIENT]))
    assert ("E", True) == (code, "target_not_verified" in error_fields(body)["M"])
    assert (SSL, True) == (run.upstream, run.closed is not None)


def talk_after(world: World, run: Rehearsal) -> Talk:
    """Begin the client's TLS once it was granted."""
    from capd.enforcer.tls.endpoint import Endpoint  # noqa: PLC0415 - for this alone

    client = Endpoint(world.client(), server_side=False, server_name="api.test")
    found = Talk(world, client, run)
    found.taken[Side.CLIENT] = 1
    return found.go()
