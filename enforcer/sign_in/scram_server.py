"""SCRAM-SHA-256 by the side that is signed in to (RFC 5802 5, RFC 7677): for agents' clients that insist on being asked.

What lives here: its two steps. What must not: real passwords: what agents hold is a placeholder, which is no secret.

The proof is checked all the same: a client with another password would not take the signature that is made with this one, and
would not say why.
"""

from __future__ import annotations

import hmac
from typing import Final

from capd.enforcer.sign_in.errors import SignInError
from capd.enforcer.sign_in.scram_keys import ITERATIONS_MIN, keys_of
from capd.enforcer.sign_in.scram_message import (
    BOUND,
    MECHANISM,
    MECHANISM_PLUS,
    NOT_OFFERED,
    NOT_SUPPORTED,
    Binding,
    attributes,
    binary,
    encoded,
    joined,
    nonce_of,
)

WRONG: Final = "the client's password is not the placeholder of the credential"
_HEADERS: Final = (NOT_SUPPORTED, NOT_OFFERED, BOUND)


class ScramServer:
    """One sign-in: `first`, `final`, each once and in this order."""

    def __init__(self, password: str, end_point: bytes | None, *, salt: bytes, nonce: str) -> None:
        """Prepare.

        Args:
            password: that the client has to prove.
            end_point: what the client can bind to: of the certificate that it was shown (channel.py); None: nothing.
            salt: of chance.
            nonce: of chance, printable, without a comma.
        """
        self._password, self._end_point, self._salt, self._nonce = password, end_point, salt, nonce_of(nonce)
        self._binding: Binding | None = None
        self._bare = self._challenge = ""

    @property
    def mechanisms(self) -> tuple[str, ...]:
        """What is offered, the best first."""
        return (MECHANISM,) if self._end_point is None else (MECHANISM_PLUS, MECHANISM)

    def first(self, mechanism: str, message: bytes) -> bytes:
        """Give the challenge.

        Args:
            mechanism: that the client chose.
            message: its first.

        Raises:
            SignInError: it is none, or not what was offered.
        """
        if mechanism not in self.mechanisms or self._binding is not None:
            raise SignInError("the client chose what it was not offered")
        try:
            text = message.decode("utf-8")
        except UnicodeDecodeError:
            raise SignInError("what the client says is no SCRAM") from None
        header = next((one for one in _HEADERS if text.startswith(one)), None)
        if header is None or (header == BOUND) != (mechanism == MECHANISM_PLUS):
            raise SignInError("the client binds to a channel in a way that it was not offered")
        if header == NOT_OFFERED and self._end_point is not None:
            raise SignInError("the client was not told that channel binding is offered: somebody is between")
        self._bare = text.removeprefix(header)
        _, nonce = attributes(self._bare, "nr")
        self._binding = Binding(header=header, data=(self._end_point or b"") if header == BOUND else b"")
        self._challenge = f"r={nonce_of(nonce)}{self._nonce},s={encoded(self._salt)},i={ITERATIONS_MIN}"
        return self._challenge.encode("ascii")

    def final(self, message: bytes) -> bytes:
        """Give the signature.

        Args:
            message: the client's last.

        Raises:
            SignInError: the proof is wrong, or bound to another channel.
        """
        bound, nonce, *_ = attributes(message, "cr")
        without, _, proof = message.decode("utf-8").rpartition(",p=")
        if self._binding is None or f"r={nonce}" != self._challenge.partition(",")[0]:
            raise SignInError("the client's last message is of another exchange")
        if not hmac.compare_digest(binary(bound), binary(self._binding.proven)):
            raise SignInError("the client is bound to another channel: somebody is between")
        said = joined([self._bare, self._challenge, without])
        keys = keys_of(self._password, self._salt, ITERATIONS_MIN)
        if not keys.proves(binary(proof), said):
            raise SignInError(WRONG)
        return f"v={encoded(keys.signature(said))}".encode("ascii")
