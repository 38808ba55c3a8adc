"""SCRAM-SHA-256: the RFC's own exchange, both of our sides against each other, and all that is not right."""

from __future__ import annotations

import base64
import struct
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from capd.enforcer.credentials.secret import Secret
from capd.enforcer.sign_in.channel import Channel, end_point
from capd.enforcer.sign_in.errors import SignInError
from capd.enforcer.sign_in.postgresql_server import PostgresqlServer
from capd.enforcer.sign_in.saslprep import password, prepared
from capd.enforcer.sign_in.scram_client import ScramClient
from capd.enforcer.sign_in.scram_keys import ITERATIONS_MAX, ITERATIONS_MIN
from capd.enforcer.sign_in.scram_message import BOUND, MECHANISM, MECHANISM_PLUS, NOT_OFFERED, NOT_SUPPORTED, Binding
from capd.enforcer.sign_in.scram_server import WRONG, ScramServer
from tests.enforcer.sign_in.certificate import signed_with

NONCE = "rOprNGfwEbeRWgbNEkqO"
CHALLENGE = b"r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096"
PROOF = b"c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ="
OUTCOME = b"v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4="
FREE = Binding(header=NOT_SUPPORTED)


def client(binding: Binding = FREE) -> ScramClient:
    """Give the client of RFC 7677 3."""
    return ScramClient(Secret("pencil"), binding, NONCE, "user")


def test_the_exchange_of_the_rfc() -> None:
    """Both sides say what RFC 7677 3 has them say."""
    found = client()
    assert b"n,,n=user,r=rOprNGfwEbeRWgbNEkqO" == found.first()
    assert PROOF == found.final(CHALLENGE)
    found.finish(OUTCOME)
    server = ScramServer(
        "pencil", None, salt=base64.b64decode("W22ZaJ0SNY7soEsUEjb6gQ=="), nonce="%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0"
    )
    assert CHALLENGE == server.first(MECHANISM, b"n,,n=user,r=rOprNGfwEbeRWgbNEkqO")
    assert OUTCOME == server.final(PROOF)


CHALLENGES = [
    ("another nonce", CHALLENGE.replace(b"r=rO", b"r=Ro"), "does not go on"),
    ("no nonce of its own", b"r=" + NONCE.encode() + b",s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096", "does not go on"),
    ("few rounds", CHALLENGE.replace(b"4096", b"%d" % (ITERATIONS_MIN - 1)), "rounds of SCRAM"),
    ("many rounds", CHALLENGE.replace(b"4096", b"%d" % (ITERATIONS_MAX + 1)), "rounds of SCRAM"),
    ("endless rounds", CHALLENGE.replace(b"4096", b"9999999999"), "rounds of SCRAM"),
    ("rounds that overflow", CHALLENGE.replace(b"4096", b"99999999999999999999"), "rounds is none"),
    ("no rounds", CHALLENGE.replace(b"4096", b"0"), "rounds is none"),
    ("rounds below nothing", CHALLENGE.replace(b"4096", b"-1"), "rounds is none"),
    ("no salt", CHALLENGE.replace(b"W22ZaJ0SNY7soEsUEjb6gQ==", b""), "salt"),
    ("a long salt", CHALLENGE.replace(b"W22ZaJ0SNY7soEsUEjb6gQ==", base64.b64encode(bytes(1025))), "salt"),
    ("a salt that is no base64", CHALLENGE.replace(b"W22Z", b"W2!Z"), "no base64"),
    ("an extension that must be known", b"m=x," + CHALLENGE, "no SCRAM"),
    ("an error", b"e=other-error", "no SCRAM"),
    ("no text", b"\xff" + CHALLENGE, "no SCRAM"),
    ("nothing", b"", "no SCRAM"),
    ("too much", CHALLENGE + b",x=" + b"y" * 5000, "more than"),
]


@pytest.mark.parametrize(("challenge", "problem"), [case[1:] for case in CHALLENGES], ids=[case[0] for case in CHALLENGES])
def test_challenges_that_are_refused(challenge: bytes, problem: str) -> None:
    """A server that answers another, wants endless work, or next to none, gets no proof."""
    with pytest.raises(SignInError, match=problem):
        client().final(challenge)


@pytest.mark.parametrize("outcome", [OUTCOME.replace(b"6r", b"7r"), b"v=", b"e=invalid-proof", b"", b"\xff", b"v=!"])
def test_a_server_that_does_not_know_the_password(outcome: bytes) -> None:
    """It cannot pass for the target: its last message proves it."""
    found = client()
    found.final(CHALLENGE)
    with pytest.raises(SignInError) as caught:
        found.finish(outcome)
    assert "pencil" not in str(caught.value)


def test_a_proof_is_given_once() -> None:
    """A second challenge gets nothing, and an outcome before the proof is none."""
    found = client()
    with pytest.raises(SignInError):
        found.finish(OUTCOME)
    found.final(CHALLENGE)
    with pytest.raises(SignInError, match="second proof"):
        found.final(CHALLENGE)


def exchange(held: str, known: str, binding: Binding, offered: bytes | None, *, mechanism: str | None = None) -> None:
    """Let both sides speak; raises SignInError where one of them does not want to."""
    one = ScramClient(Secret(held), binding, "client+nonce")
    other = ScramServer(known, offered, salt=b"0123456789abcdef", nonce="server/nonce")
    chosen = mechanism or (MECHANISM_PLUS if binding.header == BOUND else MECHANISM)
    one.finish(other.final(one.final(other.first(chosen, one.first()))))


@given(st.text(min_size=1), st.one_of(st.none(), st.binary(min_size=1, max_size=64)))
def test_both_sides_agree(text: str, offered: bytes | None) -> None:
    """Whatever the password is, a client and a server that have it agree, bound to a channel or not."""
    exchange(text, text, FREE if offered is None else Binding(header=BOUND, data=offered), offered)


@given(st.text(alphabet="abcé", min_size=1), st.text(alphabet="abcé", min_size=1))
def test_another_password_is_not_let_in(held: str, known: str) -> None:
    """The server says why, and the client would not have believed it."""
    if password(held) != password(known):
        with pytest.raises(SignInError, match=WRONG):
            exchange(held, known, FREE, None)


BETWEEN = [
    ("another certificate", Binding(header=BOUND, data=b"theirs"), b"ours", None),
    ("bound where nothing is offered", Binding(header=BOUND, data=b"theirs"), None, None),
    ("bound, and says it is not", Binding(header=BOUND, data=b"ours"), b"ours", MECHANISM),
    ("not bound, and says it is", FREE, b"ours", MECHANISM_PLUS),
    ("the offer was taken away", Binding(header=NOT_OFFERED), b"ours", None),
]


@pytest.mark.parametrize(("binding", "offered", "mechanism"), [case[1:] for case in BETWEEN], ids=[case[0] for case in BETWEEN])
def test_somebody_between(binding: Binding, offered: bytes | None, mechanism: str | None) -> None:
    """Who ends TLS between the two, or takes the better mechanism away, is found out."""
    with pytest.raises(SignInError):
        exchange("pencil", "pencil", binding, offered, mechanism=mechanism)


@given(st.binary(max_size=200), st.binary(max_size=200))
def test_whatever_a_client_says(first: bytes, final: bytes) -> None:
    """Bytes of any kind are refused with one kind of error, and let nobody in."""
    server = PostgresqlServer("pencil", Channel(), bytes)
    for message in (first, b"SCRAM-SHA-256\0" + struct.pack("!i", len(first)) + first, final):
        with pytest.raises(SignInError):
            server.answer(message)
    assert not server.done


@given(st.binary(min_size=1, max_size=200))
def test_whatever_a_server_says(said: bytes) -> None:
    """Bytes of any kind are refused with one kind of error."""
    for message in (said, CHALLENGE + said[:1] + said):
        found = client()
        try:
            found.final(message)
        except SignInError:
            continue
        with pytest.raises(SignInError):
            found.finish(OUTCOME)


PREPARED = [
    ("I\u00adX", "IX"),
    ("user", "user"),
    ("USER", "USER"),
    ("\u00aa", "a"),
    ("\u2168", "IX"),
    ("\u0007", None),
    ("\u0627\u0031", None),
    ("a\u00a0b", "a b"),
    ("\u0627\u0031\u0628", "\u0627\u0031\u0628"),
    ("\u0221", None),
    ("\u00ad", None),
    ("", None),
]


@pytest.mark.parametrize(("text", "expected"), PREPARED, ids=[ascii(case[0]) for case in PREPARED])
def test_saslprep(text: str, expected: str | None) -> None:
    """The examples of RFC 4013 3, blanks of other kinds, letters that go both ways, and code points of after Unicode 3.2."""
    assert expected == prepared(text)
    assert (text if expected is None else expected).encode() == password(text)


@pytest.mark.parametrize(
    ("digest", "expected"),
    [("sha1", "sha256"), ("sha256", "sha256"), ("sha384", "sha384"), ("sha512", "sha512"), ("ed25519", None)],
)
def test_what_binds_to_a_certificate(tmp_path: Path, digest: str, expected: str | None) -> None:
    """The hash is the one of its signature, SHA-256 for those that are weak, and none where the signature has none."""
    made = signed_with(tmp_path, digest)
    found = end_point(made)
    if expected is None:
        assert found is None
    else:
        import hashlib  # noqa: PLC0415 - for this one

        assert hashlib.new(expected, made).digest() == found
    assert end_point(b"no certificate") is None
