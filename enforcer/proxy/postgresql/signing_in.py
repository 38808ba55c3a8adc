"""Authentication on both sides of a session, until the server lets it in.

What lives here: who says what to whom. What must not: SCRAM and its like (enforcer/sign_in), framing, startup.

With a credential of a rule, the client is let in by its placeholder or unasked, and capd signs in to the server. Without one,
the client's own goes across: in clear as it is. In TLS it could not: SCRAM of today's clients is bound to the certificate that
they see, or to there being none to see. So the client is asked for its password, inside TLS, and capd signs in with it: by
SCRAM, bound to the server's own certificate, or as the server asks.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from capd.enforcer.credentials.method import WeakMethod
from capd.enforcer.credentials.secret import Secret
from capd.enforcer.obligations.sign_in import SignIn
from capd.enforcer.proxy.postgresql import messages
from capd.enforcer.sign_in.channel import Channel
from capd.enforcer.sign_in.errors import SignInError
from capd.enforcer.sign_in.postgresql_client import PostgresqlClient
from capd.enforcer.sign_in.postgresql_code import Code
from capd.enforcer.sign_in.postgresql_server import PostgresqlServer

PASSWORD_BYTES_MAX: Final = 65_536
"""Longer than what any server takes."""
_OWN_METHODS: Final = frozenset(WeakMethod)
"""With the client's own password a server may ask for it as it likes, as it could without capd."""
_RELAYED: Final = frozenset({Code.CLEARTEXT, Code.MD5, Code.SASL, Code.SASL_CONTINUE})
"""Answered by the client."""
_UNANSWERED: Final = frozenset({Code.OK, Code.SASL_FINAL})


class SigningIn:
    """Of one session.

    Attributes:
        to_client, to_server: messages that are due.
        done: whether the server let it in.
    """

    def __init__(self, sign_in: SignIn | None, user: str, channel: Channel, random: Callable[[int], bytes]) -> None:
        """Prepare.

        Args:
            sign_in: with what; None: with what the client has.
            user: of the server, as the startup message names it.
            channel: how the server is reached.
            random: gives random bytes.
        """
        self._user, self._channel, self._random = user, channel, random
        self._client = None if sign_in is None else PostgresqlClient(sign_in, user, channel, random)
        self._asked: bytes | None = None
        self._relays = False
        self.done = False
        self.to_client: list[bytes] = []
        self.to_server: list[bytes] = []

    def server_asks(self, request: bytes) -> None:
        """Take an Authentication message.

        Raises:
            SignInError: it goes no further.
        """
        if self._client is not None:
            self._answer(self._client, request)
        elif self._channel.encrypted and int.from_bytes(request[:4], "big") != Code.OK:
            self._asked = request
            self.to_client.append(messages.frame(b"R", messages.ASK_PASSWORD))
        else:
            self._relay(request)

    def _answer(self, client: PostgresqlClient, request: bytes) -> None:
        given = client.answer(request)
        if given is not None:
            self.to_server.append(messages.frame(b"p", given))
        if client.done:
            self._let_in()

    def _let_in(self) -> None:
        self.done = True
        self.to_client.append(messages.frame(b"R", messages.OK))

    def _relay(self, request: bytes) -> None:
        code = int.from_bytes(request[:4], "big")
        if len(request) < len(messages.OK) or code not in _RELAYED | _UNANSWERED:
            raise SignInError("the target wants a way of signing in that capd does not pass on")
        self._relays = code in _RELAYED
        if code == Code.OK:
            self._let_in()
        else:
            self.to_client.append(messages.frame(b"R", request))

    def client_answers(self, answer: bytes) -> None:
        """Take the content of a message `p`.

        Raises:
            SignInError: it goes no further.
        """
        if self._asked is not None:
            request, self._asked = self._asked, None
            own = SignIn(credential="", user=None, secret=Secret(self._password(answer)), methods=_OWN_METHODS)
            self._client = PostgresqlClient(own, self._user, self._channel, self._random)
            self._answer(self._client, request)
        elif self._relays:
            self._relays = False
            self.to_server.append(messages.frame(b"p", answer))
        else:
            raise SignInError("the client answers what it was not asked")

    def _password(self, answer: bytes) -> str:
        if len(answer) > PASSWORD_BYTES_MAX or answer[-1:] != b"\0" or b"\0" in answer[:-1]:
            raise SignInError("the client's password cannot be read")
        try:
            return answer[:-1].decode("utf-8")
        except UnicodeDecodeError as error:
            raise SignInError("the client's password is not UTF-8") from error


class LettingIn:
    """The client's side, where a rule's credential is put in: before the server is dialled.

    Attributes:
        done: whether it may go on; what lets it in is said by the server's own word.
    """

    def __init__(self, sign_in: SignIn, channel: Channel, random: Callable[[int], bytes]) -> None:
        self._server = PostgresqlServer(sign_in.placeholder, channel, random)
        self.done = self._server.done

    def begin(self) -> list[bytes]:
        """Give the messages to begin with."""
        return [] if self.done else [messages.frame(b"R", self._server.begin())]

    def client_answers(self, answer: bytes) -> list[bytes]:
        """Take the content of a message `p` and give the messages that answer it.

        Raises:
            SignInError: it is not let in.
        """
        given = self._server.answer(answer)
        self.done = self._server.done
        return [messages.frame(b"R", one) for one in given if one != messages.OK]
