"""MySQL's and MariaDB's ways of proving a password: known answers, whose turn it is, and what is told to nobody."""

from __future__ import annotations

import base64
import hashlib

import pytest
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from hypothesis import given
from hypothesis import strategies as st

from capd.enforcer.credentials.method import WeakMethod
from capd.enforcer.credentials.secret import Secret
from capd.enforcer.obligations.sign_in import SignIn
from capd.enforcer.sign_in.channel import Channel
from capd.enforcer.sign_in.errors import MethodRefusedError, SignInError
from capd.enforcer.sign_in.mysql_client import KEY_WANTED, MysqlClient
from capd.enforcer.sign_in.mysql_methods import (
    CLEAR,
    ED25519,
    NATIVE,
    SHA2,
    ed25519,
    ed25519_public,
    native,
    sha2,
    sha2_encrypted,
)
from capd.enforcer.sign_in.mysql_server import KNOWN, MysqlServer
from capd.enforcer.sign_in.redis_client import auth, hello

PASSWORD = "correct-horse-battery"
CHALLENGE = bytes(range(1, 21))
PROVEN = Channel(encrypted=True, proven=True)
UNPROVEN = Channel(encrypted=True)
CLEARLY = Channel()


def client(channel: Channel = CLEARLY, *methods: WeakMethod) -> MysqlClient:
    """Give a client with a password."""
    return MysqlClient(SignIn(credential="db", user="u", secret=Secret(PASSWORD), methods=frozenset(methods)), channel)


def switch(plugin: str, challenge: bytes = CHALLENGE + b"\0") -> bytes:
    """Give an AuthSwitchRequest."""
    return b"\xfe" + plugin.encode() + b"\0" + challenge


@given(st.binary(min_size=1, max_size=100), st.binary(min_size=20, max_size=20))
def test_what_a_server_checks(password: bytes, challenge: bytes) -> None:
    """A server that has stored the twofold hash, or the public key, finds each answer right."""
    once = bytes(
        a ^ b
        for a, b in zip(
            native(password, challenge),
            hashlib.sha1(challenge + hashlib.sha1(hashlib.sha1(password).digest()).digest()).digest(),  # noqa: S324 - the protocol's
            strict=True,
        )
    )
    assert hashlib.sha1(password).digest() == once  # noqa: S324 - the protocol's
    stored = hashlib.sha256(hashlib.sha256(password).digest()).digest()
    other = bytes(a ^ b for a, b in zip(sha2(password, challenge), hashlib.sha256(stored + challenge).digest(), strict=True))
    assert hashlib.sha256(password).digest() == other
    Ed25519PublicKey.from_public_bytes(ed25519_public(password)).verify(ed25519(password, challenge), challenge)


def test_what_mariadb_stores() -> None:
    """The public key of a password is the one in MariaDB's own test of its plugin."""
    assert "ZIgUREUg5PVgQ6LskhXmO+eZLS0nC8be6HPjYWR4YJY=" == base64.b64encode(ed25519_public(b"secret")).decode()


def test_no_password_has_no_answer() -> None:
    """As MySQL has it, nothing is sent for no password."""
    assert (b"", b"") == (native(b"", CHALLENGE), sha2(b"", CHALLENGE))


@pytest.mark.parametrize(("plugin", "prove"), [(NATIVE, native), (SHA2, sha2)])
@pytest.mark.parametrize("behind", [b"", b"\0"])
def test_a_greeting(plugin: str, prove: object, behind: bytes) -> None:
    """The challenge of the greeting is answered, with the zero behind it or without; then an OK ends it."""
    found = client()
    assert callable(prove)
    assert (plugin, prove(PASSWORD.encode(), CHALLENGE)) == found.begin(plugin, CHALLENGE + behind)
    if plugin == SHA2:
        assert found.answer(b"\x01\x03") is None
    assert not found.done
    assert found.answer(b"\x00\x00\x00\x02\x00\x00\x00") is None
    assert found.done


@pytest.mark.parametrize("plugin", [ED25519, "dialog", "parsec", "", "sha256_password", CLEAR])
def test_a_greeting_that_names_another(plugin: str) -> None:
    """Nothing of the password is answered to it; the server has to ask for what it wants."""
    found = client(PROVEN, *WeakMethod)
    assert (NATIVE, b"") == found.begin(plugin, CHALLENGE)
    assert native(PASSWORD.encode(), CHALLENGE) == found.answer(switch(NATIVE))


def test_a_switch() -> None:
    """The server may ask for another way once it has seen who comes."""
    found = client()
    found.begin(SHA2, CHALLENGE)
    challenge = bytes(32)
    assert ed25519(PASSWORD.encode(), challenge) == found.answer(switch(ED25519, challenge))


REFUSED = [
    ("a dialogue", switch("dialog", b"Password: "), "dialog"),
    ("a way that tells it", switch(CLEAR, b""), "does not allow"),
    ("a name that could be anything", switch("\x1b[31m" * 3, b""), "unknown"),
    ("the old way", b"\xfe", "before MySQL 4.1"),
    ("a second factor", b"\x02mysql_native_password\0", "second factor"),
    ("a short challenge", switch(NATIVE, CHALLENGE[:8]), "length"),
    ("no challenge", switch(NATIVE, b""), "length"),
    ("a long one", switch(NATIVE, CHALLENGE * 2), "length"),
    ("more, and nothing was asked", b"\x01\x04", "cannot be followed"),
    ("an error", b"\xff\x15\x04#28000Access denied", "refused to let in"),
    ("nothing", b"", "cannot be followed"),
]


@pytest.mark.parametrize(("packet", "problem"), [case[1:] for case in REFUSED], ids=[case[0] for case in REFUSED])
@pytest.mark.parametrize("channel", [PROVEN, CLEARLY], ids=["TLS", "clear"])
def test_what_a_server_is_not_given(packet: bytes, problem: str, channel: Channel) -> None:
    """Another way than those that prove is refused, and its words are not repeated."""
    found = client(channel)
    found.begin(NATIVE, CHALLENGE)
    with pytest.raises(SignInError, match=problem) as caught:
        found.answer(packet)
    assert "\x1b" not in str(caught.value)
    assert "Access denied" not in str(caught.value)
    assert not found.done


def test_a_server_that_changes_its_mind_without_end() -> None:
    """Each switch is one more pair of challenge and answer for who tries passwords."""
    found = client()
    found.begin(SHA2, CHALLENGE)
    found.answer(switch(NATIVE))
    found.answer(switch(SHA2))
    with pytest.raises(SignInError, match="without end"):
        found.answer(switch(NATIVE))


@pytest.mark.parametrize(
    ("channel", "methods", "given"),
    [
        (PROVEN, [WeakMethod.CLEARTEXT], True),
        (PROVEN, [WeakMethod.RSA, WeakMethod.MD5], False),
        (UNPROVEN, [*WeakMethod], False),
        (CLEARLY, [*WeakMethod], False),
    ],
)
def test_the_password_in_clear(channel: Channel, methods: list[WeakMethod], given: bool) -> None:
    """`mysql_clear_password` gets it in proven TLS and if the credential says so; otherwise never."""
    found = client(channel, *methods)
    found.begin(NATIVE, CHALLENGE)
    if given:
        assert PASSWORD.encode() + b"\0" == found.answer(switch(CLEAR, b""))
        with pytest.raises(SignInError):
            found.answer(switch(NATIVE))
    else:
        with pytest.raises(MethodRefusedError):
            found.answer(switch(CLEAR, b""))


def full(channel: Channel, *methods: WeakMethod) -> tuple[MysqlClient, bytes | None]:
    """Have a server want the password by `caching_sha2_password`; give what it gets."""
    found = client(channel, *methods)
    found.begin(SHA2, CHALLENGE)
    return found, found.answer(b"\x01\x04")


def test_full_authentication_in_tls() -> None:
    """A server that does not know the password yet gets it in proven TLS, once."""
    found, answer = full(PROVEN)
    assert PASSWORD.encode() + b"\0" == answer
    with pytest.raises(SignInError):
        found.answer(b"\x01\x04")


@pytest.mark.parametrize(("channel", "methods"), [(UNPROVEN, [*WeakMethod]), (CLEARLY, []), (CLEARLY, [WeakMethod.CLEARTEXT])])
def test_full_authentication_that_is_refused(channel: Channel, methods: list[WeakMethod]) -> None:
    """Without proven TLS, or the credential's word for the server's key, it is not told."""
    with pytest.raises(MethodRefusedError):
        full(channel, *methods)


def pem(key: rsa.RSAPrivateKey) -> bytes:
    """Give a public key as a server sends it."""
    return key.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)


def test_full_authentication_by_rsa() -> None:
    """Where it is allowed the server's key is asked for, and only who has its other half reads the password."""
    key = rsa.generate_private_key(65537, 2048)
    found, answer = full(CLEARLY, WeakMethod.RSA)
    assert KEY_WANTED == answer
    sent = found.answer(b"\x01" + pem(key))
    assert sent is not None
    opened = key.decrypt(sent, padding.OAEP(padding.MGF1(hashes.SHA1()), hashes.SHA1(), None))  # noqa: S303 - the protocol's
    assert PASSWORD.encode() + b"\0" == bytes(one ^ CHALLENGE[at % 20] for at, one in enumerate(opened))
    with pytest.raises(SignInError):
        found.answer(b"\x01" + pem(key))


SHORT = rsa.generate_private_key(65537, 1024)  # noqa: S505 - a key that is refused


@pytest.mark.parametrize(
    "key",
    [b"", b"x" * 10_000, b"-----BEGIN PUBLIC KEY-----\n-----END PUBLIC KEY-----\n", pem(SHORT)],
    ids=["nothing", "long", "empty", "short"],
)
def test_keys_that_are_none(key: bytes) -> None:
    """A key that is none, or that somebody could factor, gets nothing."""
    with pytest.raises(SignInError, match="no RSA key"):
        sha2_encrypted(PASSWORD.encode(), CHALLENGE, key)


@given(st.lists(st.binary(max_size=64), max_size=6))
def test_whatever_a_server_says(packets: list[bytes]) -> None:
    """In clear no packets get the password, in any order; the only error is the one for it."""
    found = client()
    try:
        said = [found.begin(NATIVE, CHALLENGE)[1], *(found.answer(packet) for packet in packets)]
    except SignInError:
        return
    assert all(PASSWORD.encode() not in (one or b"") for one in said)


LET_IN = [
    (NATIVE, NATIVE, bytes(20), ()),
    (NATIVE, NATIVE, b"", ()),
    (NATIVE, None, b"", ()),
    ("dialog", None, b"", ()),
    (SHA2, SHA2, bytes(32), (KNOWN,)),
    (SHA2, SHA2, b"", ()),
    (SHA2, SHA2, b"\0", ()),
    (SHA2, None, bytes(32), (KNOWN,)),
]
ASKED = [
    (NATIVE, CLEAR, NATIVE, ()),
    (NATIVE, "dialog", NATIVE, ()),
    (SHA2, ED25519, NATIVE, ()),
    (NATIVE, SHA2, SHA2, (KNOWN,)),
    (ED25519, SHA2, SHA2, (KNOWN,)),
    (SHA2, NATIVE, NATIVE, ()),
]


@pytest.mark.parametrize(("greeted", "named", "response", "packets"), LET_IN)
def test_an_agent_is_let_in(greeted: str, named: str | None, response: bytes, packets: tuple[bytes, ...]) -> None:
    """Whatever its client has for a password is right, and it hears what its way has it wait for."""
    server = MysqlServer(greeted, CHALLENGE)
    assert packets == server.begin(named, response)
    assert server.done
    with pytest.raises(SignInError):
        server.answer(bytes(20))


@pytest.mark.parametrize(("greeted", "named", "asked", "packets"), ASKED)
def test_an_agent_that_names_another_way(greeted: str, named: str, asked: str, packets: tuple[bytes, ...]) -> None:
    """It is asked for that one, or for the common one where nobody could go along."""
    server = MysqlServer(greeted, CHALLENGE)
    assert (switch(asked),) == server.begin(named, b"anything")
    before = server.done
    assert packets == server.answer(bytes(20))
    assert [False, True] == [before, server.done]
    long = MysqlServer(NATIVE, CHALLENGE)
    long.begin("dialog", b"")
    with pytest.raises(SignInError):
        long.answer(bytes(1000))


@pytest.mark.parametrize("challenge", [bytes(20), CHALLENGE[:19], CHALLENGE + b"x"])
def test_challenges_that_are_none(challenge: bytes) -> None:
    """A zero would end it for the client."""
    with pytest.raises(ValueError, match="20 bytes"):
        MysqlServer(NATIVE, challenge)


@pytest.mark.parametrize(
    ("user", "named", "words"),
    [
        (None, None, (b"AUTH", b"s3cr3t-value")),
        (None, "ann", (b"AUTH", b"ann", b"s3cr3t-value")),
        ("reader", "ann", (b"AUTH", b"reader", b"s3cr3t-value")),
    ],
)
def test_redis(user: str | None, named: str | None, words: tuple[bytes, ...]) -> None:
    """The credential's user goes before the agent's; without either there is one password."""
    sign_in = SignIn(credential="r", user=user, secret=Secret("s3cr3t-value"))
    assert words == auth(sign_in, named)
    assert (b"HELLO", b"3", b"AUTH", words[-2] if len(words) > 2 else b"default", words[-1]) == hello(sign_in, named, 3)
