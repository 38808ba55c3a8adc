"""caching_sha2_password through the core of MySQL's proxy, against a model of its server: MariaDB does not have it.

What lives here: its exchanges, relayed and signed in with a credential. What must not: proofs in themselves (sign_in).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import pytest

from capd.decoders.mysql.login import login
from capd.enforcer.credentials.secret import Secret
from capd.enforcer.obligations.sign_in import SignIn
from capd.enforcer.proxy.question import NOBODY, Kind, Question, Verdict
from capd.enforcer.sign_in.mysql_methods import sha2
from tests.decoders import mysql_bytes as my
from tests.enforcer.mysql_model import Server, outline
from tests.enforcer.mysql_talk import Talk, by_text

SHA2 = "caching_sha2_password"
KNOWN, FULL, ASKED = b"\1\3", b"\1\4", b"\2"
KEY = b"\1-----BEGIN PUBLIC KEY-----"
ENCRYPTED = bytes(range(256))


@dataclass
class Sha2Server(Server):
    """One that says what it is told to, turn by turn, before it lets in; it keeps what it heard then."""

    turns: tuple[bytes, ...] = ()
    proofs: tuple[bytes, ...] = ()
    _sequence: int = 0

    def greets(self) -> bytes:
        """Greet with this way."""
        return my.greeting(self.capabilities, version="8.0.36", plugin=SHA2)

    def hears(self, data: bytes) -> bytes:
        """Take a packet of the sign-in, or a command."""
        if self.login and not self.turns:
            return super().hears(data)
        if not self.login:
            self.login = data[4:]
            self._wanted = int.from_bytes(data[4:8], "little")
        else:
            self.proofs += (data[4:],)
        self._sequence = data[3]
        said = b""
        while self.turns:
            turn, self.turns = self.turns[0], self.turns[1:]
            self._sequence += 1
            said += my.ok(self._sequence) if turn == b"ok" else my.packet(self._sequence, turn)
            if turn not in (KNOWN, b"ok"):
                break
        return said


def sha2_login() -> bytes:
    """A login by this way."""
    said = my.login().replace(b"mysql_native_password", SHA2.encode())
    return (len(said) - 4).to_bytes(3, "little") + said[3:]


def says(*proofs: bytes) -> list[bytes]:
    """Give the client's packets behind its login, each two further than the one before."""
    return [my.packet(3 + 2 * number, proof) for number, proof in enumerate(proofs)]


@pytest.mark.parametrize("step", [0, 1])
@pytest.mark.parametrize(
    ("turns", "proofs", "client"),
    [
        ((KNOWN, b"ok"), (), "2.o"),
        ((FULL, KEY, b"ok"), (ASKED, ENCRYPTED), "2.4.6o"),
    ],
)
def test_the_clients_own(step: int, turns: tuple[bytes, ...], proofs: tuple[bytes, ...], client: str) -> None:
    """What the server asks goes to the client, and what that answers goes to the server, as they are."""
    server = Sha2Server(turns=turns)
    talk = Talk(step=step, server=server).dial()
    talk.new()
    talk.says(my.login(), *says(*proofs))
    assert (client, my.SECRET, proofs) == (outline(talk.new()), login(server.login).response, server.proofs)
    talk.says(my.query("select 1"))
    assert ["select 1"] == [sql for sql, _ in talk.server.ran]


def test_a_credential() -> None:
    """The client hears that its proof was right, whatever it was; the server gets that of the credential."""

    def judge(question: Question) -> Verdict:
        own = question.kind is Kind.SESSION and question.login != NOBODY
        return replace(
            by_text(question), sign_in=SignIn(credential="c", user="boss", secret=Secret("hunter2")) if own else None
        )

    talk = Talk(judge=judge, server=Sha2Server(turns=(KNOWN, b"ok"))).dial()
    talk.new()
    talk.says(sha2_login())
    said = login(talk.server.login)
    assert ("boss", SHA2, sha2(b"hunter2", my.SCRAMBLE)) == (said.user, said.plugin, said.response)
    told = talk.new()
    assert ("2.o", KNOWN) == (outline(told), told[4:6])


def test_a_credential_is_not_told_in_clear() -> None:
    """A server that wants the password itself, without TLS, does not get it; the client reads that nobody is let in."""

    def judge(question: Question) -> Verdict:
        own = question.kind is Kind.SESSION and question.login != NOBODY
        return replace(
            by_text(question), sign_in=SignIn(credential="c", user="boss", secret=Secret("hunter2")) if own else None
        )

    server = Sha2Server(turns=(FULL, KEY, b"ok"))
    talk = Talk(judge=judge, server=server).dial()
    talk.new()
    talk.says(sha2_login())
    assert () == server.proofs
    assert talk.run.closed is not None
    assert b"hunter2" not in talk.run.upstream + talk.run.client
