"""Authentication on both sides of a session, until the server lets it in.

What lives here: who says what to whom, in packets' contents. What must not: proofs (enforcer/sign_in), frames, the greeting.

With a credential of a rule the client is let in whatever it answers, and capd signs in to the server. Without one the client's
own goes across: it was given the server's scramble, so its proof is one for the server. A server may ask for the password
itself only in TLS, which capd ends on both sides and which the server proved its name in.
"""

from __future__ import annotations

from typing import Final

from capd.decoders.mysql.wire import EOF, ERR, OK
from capd.enforcer.obligations.sign_in import SignIn
from capd.enforcer.sign_in.channel import Channel
from capd.enforcer.sign_in.errors import SignInError
from capd.enforcer.sign_in.mysql_client import MysqlClient

_MORE: Final = 1
_KNOWN: Final = b"\x01\x03"
"""Of caching_sha2_password: it is not answered."""
_CLEAR: Final = frozenset({b"mysql_clear_password", b"dialog"})
_PASSED_ON: Final = frozenset(
    {b"mysql_native_password", b"caching_sha2_password", b"sha256_password", b"client_ed25519", b"parsec", *_CLEAR}
)
"""Ways of clients that may be asked for."""


class SigningIn:
    """Of one session.

    Attributes:
        done: whether the server let it in.
        refused: whether it did not.
        asked: whether the client has to answer.
    """

    def __init__(self, sign_in: SignIn | None, channel: Channel) -> None:
        self._client = None if sign_in is None else MysqlClient(sign_in, channel)
        self._channel = channel
        self.done = self.refused = self.asked = False

    def begin(self, plugin: str, scramble: bytes, own: tuple[str, bytes]) -> tuple[str, bytes]:
        """Give plugin and proof of the login.

        Args:
            plugin: of the greeting.
            scramble: of the greeting.
            own: plugin and proof of the client.
        """
        return own if self._client is None else self._client.begin(plugin, scramble)

    def server_says(self, body: bytes) -> tuple[bytes | None, bytes | None]:
        """Take a packet; give what goes to the client, and what answers the server.

        Raises:
            SignInError: it goes no further.
        """
        if body[:1] == bytes([ERR]):
            self.refused = True
            return (body, None) if self._client is None else self._fail()
        if self._client is not None:
            answer = self._client.answer(body)
            self.done = self._client.done
            return None, answer
        return self._relayed(body), None

    @staticmethod
    def _fail() -> tuple[bytes | None, bytes | None]:
        raise SignInError("the target refused to let in the user of the credential")

    def _relayed(self, body: bytes) -> bytes | None:
        first = body[0] if body else None
        if first == OK:
            self.done = True
            return None
        if first == EOF:
            name = body[1:].partition(b"\0")[0]
            if name not in _PASSED_ON:
                raise SignInError("the target wants a way of signing in that capd does not pass on")
            if name in _CLEAR and not self._channel.encrypted:
                raise SignInError("the target wants the password itself, without TLS")
        elif first != _MORE:
            raise SignInError("the target wants a second factor, or a way of signing in that capd does not pass on")
        self.asked = body != _KNOWN
        return body

    def client_answers(self) -> None:
        """Take that the client answers; it goes to the server as it is.

        Raises:
            SignInError: it was not asked.
        """
        if not self.asked:
            raise SignInError("the client answers what it was not asked")
        self.asked = False
