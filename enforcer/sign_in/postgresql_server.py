"""PostgreSQL, by the side that lets an agent in: unasked, or by a placeholder.

What lives here: the content of the messages `R`, and reading those of `p`. What must not: framing, who the agent is.

capd knows whose socket it is, so nothing has to be proven. Most clients are satisfied with AuthenticationOk at once: libpq,
psycopg, asyncpg, JDBC and node-postgres are, whether they have a password or none. A client that insists
(`channel_binding=require`, `require_auth=scram-sha-256` of libpq) checks that the server knows its password: for those a
credential has a placeholder, which the client holds as its password. A client cannot say beforehand that it insists.
"""

from __future__ import annotations

import struct
from base64 import b64encode
from collections.abc import Callable
from typing import Final

from capd.enforcer.sign_in.channel import Channel
from capd.enforcer.sign_in.errors import SignInError
from capd.enforcer.sign_in.postgresql_code import Code
from capd.enforcer.sign_in.scram_message import NONCE_BYTES
from capd.enforcer.sign_in.scram_server import ScramServer

SALT_BYTES: Final = 16
"""As many as PostgreSQL has."""
_NUMBER: Final = struct.Struct("!i")


class PostgresqlServer:
    """One agent's sign-in.

    Attributes:
        done: whether it is let in.
    """

    def __init__(self, placeholder: str | None, channel: Channel, random: Callable[[int], bytes]) -> None:
        """Prepare.

        Args:
            placeholder: that it has to prove; None: nothing.
            channel: how it reached us, with the certificate that it was shown.
            random: gives random bytes.
        """
        self._scram: ScramServer | None = None
        self._begun = False
        self.done = placeholder is None
        if placeholder is not None:
            nonce = b64encode(random(NONCE_BYTES)).decode("ascii")
            self._scram = ScramServer(placeholder, channel.end_point, salt=random(SALT_BYTES), nonce=nonce)

    def begin(self) -> bytes:
        """Give the content of the first message."""
        if self._scram is None:
            return _NUMBER.pack(Code.OK)
        return _NUMBER.pack(Code.SASL) + b"".join(one.encode("ascii") + b"\0" for one in self._scram.mechanisms) + b"\0"

    def answer(self, message: bytes) -> tuple[bytes, ...]:
        """Take an answer of the agent's.

        Args:
            message: content of a message `p`, without type and length.

        Returns:
            Contents of messages, one after the other; the last one lets it in, when it is `done`.

        Raises:
            SignInError: it is not let in.
        """
        if self._scram is None or self.done:
            raise SignInError("the client answers what it was not asked")
        if not self._begun:
            mechanism, _, rest = message.partition(b"\0")
            if len(rest) < _NUMBER.size or _NUMBER.unpack_from(rest)[0] != len(rest) - _NUMBER.size:
                raise SignInError("the client's first message of SASL cannot be read")
            self._begun = True
            return (_NUMBER.pack(Code.SASL_CONTINUE) + self._scram.first(mechanism.decode("latin-1"), rest[_NUMBER.size :]),)
        final = self._scram.final(message)
        self.done = True
        return (_NUMBER.pack(Code.SASL_FINAL) + final, _NUMBER.pack(Code.OK))
