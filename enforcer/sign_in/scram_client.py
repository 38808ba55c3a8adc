"""SCRAM-SHA-256 by the side that proves a password (RFC 5802, RFC 7677).

What lives here: its three steps. What must not: which mechanism is taken (postgresql_client.py), keys.
"""

from __future__ import annotations

import hmac

from capd.enforcer.credentials.secret import Secret
from capd.enforcer.sign_in.errors import SignInError
from capd.enforcer.sign_in.scram_keys import Keys, keys_of
from capd.enforcer.sign_in.scram_message import Binding, attributes, binary, encoded, escaped, joined, nonce_of, number_of


class ScramClient:
    """One sign-in: `first`, `final`, `finish`, each once and in this order."""

    def __init__(self, secret: Secret, binding: Binding, nonce: str, user: str = "") -> None:
        """Prepare.

        Args:
            secret: the password.
            binding: what is said of the channel, and proven.
            nonce: of chance, printable, without a comma.
            user: as whom; PostgreSQL has it from the startup message, and its clients say none here.
        """
        self._secret, self._binding, self._nonce = secret, binding, nonce_of(nonce)
        self._bare = f"n={escaped(user)},r={nonce}"
        self._keys: Keys | None = None
        self._said = b""

    def first(self) -> bytes:
        """Give the first message."""
        return (self._binding.header + self._bare).encode("utf-8")

    def final(self, challenge: bytes) -> bytes:
        """Give the proof.

        Args:
            challenge: the server's first message.

        Raises:
            SignInError: it is none, is an answer to another client, or wants more work than is done.
        """
        if self._keys is not None:
            raise SignInError("the target asks for a second proof")
        nonce, salt, rounds = attributes(challenge, "rsi")
        if not nonce.startswith(self._nonce) or nonce_of(nonce) == self._nonce:
            raise SignInError("the target's nonce does not go on from ours")
        keys = keys_of(self._secret.reveal(), binary(salt), number_of(rounds))
        without = f"c={self._binding.proven},r={nonce}"
        self._said = joined([self._bare, challenge.decode("utf-8"), without])
        self._keys = keys
        return f"{without},p={encoded(keys.proof(self._said))}".encode("ascii")

    def finish(self, outcome: bytes) -> None:
        """Check that the server knows the password too.

        Args:
            outcome: the server's last message.

        Raises:
            SignInError: it does not, or says that the proof is wrong.
        """
        if outcome.startswith(b"e="):
            raise SignInError("the target did not take the proof of the password")
        (signature,) = attributes(outcome, "v")
        if self._keys is None or not hmac.compare_digest(binary(signature), self._keys.signature(self._said)):
            raise SignInError("the target does not prove that it knows the password: it may be another one")
