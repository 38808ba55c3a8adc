"""PostgreSQL, by the side that signs in: what answers each Authentication message (documentation 55.2.1, 55.7).

What lives here: which ways are taken, and whose turn it is. What must not: framing, SCRAM itself.

Taken is SCRAM-SHA-256, bound to the channel where the server offers that; `md5` and `password` only where the credential allows
them. A server that asks for nothing (`trust`) gets nothing. One that begins with SCRAM has to end it: it proves that it knows
the password too.
"""

from __future__ import annotations

import hashlib
import struct
from base64 import b64encode
from collections.abc import Callable
from typing import Final

from capd.enforcer.credentials.method import WeakMethod
from capd.enforcer.obligations.sign_in import SignIn
from capd.enforcer.sign_in.channel import Channel
from capd.enforcer.sign_in.errors import MethodRefusedError, SignInError
from capd.enforcer.sign_in.postgresql_code import Code
from capd.enforcer.sign_in.scram_client import ScramClient
from capd.enforcer.sign_in.scram_message import (
    BOUND,
    MECHANISM,
    MECHANISM_PLUS,
    NONCE_BYTES,
    NOT_OFFERED,
    NOT_SUPPORTED,
    Binding,
)

_NAMES: Final = {2: "Kerberos", 7: "GSSAPI", 8: "GSSAPI", 9: "SSPI"}
_CODE: Final = struct.Struct("!i")
_SALT_BYTES: Final = 4


class PostgresqlClient:
    """One sign-in.

    Attributes:
        done: whether the server let us in.
    """

    def __init__(self, sign_in: SignIn, user: str, channel: Channel, random: Callable[[int], bytes]) -> None:
        """Prepare.

        Args:
            sign_in: with what.
            user: that the startup message names.
            channel: how the server is reached.
            random: gives random bytes.
        """
        self._sign_in, self._user, self._channel, self._random = sign_in, user, channel, random
        self._scram: ScramClient | None = None
        self._asked = self._proven = False
        self.done = False

    def answer(self, request: bytes) -> bytes | None:
        """Take an Authentication message and give what answers it.

        Args:
            request: content of a message `R`, without type and length.

        Returns:
            Content of a message `p`; None: nothing is sent.

        Raises:
            SignInError: it goes no further.
        """
        if len(request) < _CODE.size or self.done:
            raise SignInError("the target's authentication cannot be followed")
        (code,), content = _CODE.unpack_from(request), request[_CODE.size :]
        match code:
            case Code.OK:
                self._ok()
                return None
            case Code.CLEARTEXT | Code.MD5 | Code.SASL if self._asked:
                raise SignInError("the target asks for a second password")
            case Code.CLEARTEXT:
                return self._cleartext()
            case Code.MD5:
                return self._md5(content)
            case Code.SASL:
                return self._sasl(content)
            case Code.SASL_CONTINUE if self._scram is not None:
                return self._scram.final(content)
            case Code.SASL_FINAL if self._scram is not None and not self._proven:
                self._scram.finish(content)
                self._proven = True
                return None
        raise MethodRefusedError(f"the target wants a way of signing in that capd does not know: {_NAMES.get(code, code)}")

    def _ok(self) -> None:
        if self._scram is not None and not self._proven:
            raise SignInError("the target ended SCRAM without proving that it knows the password")
        self.done = True

    def _cleartext(self) -> bytes:
        if WeakMethod.CLEARTEXT not in self._sign_in.methods:
            raise MethodRefusedError("the target wants the password itself, which the credential does not allow")
        if not self._channel.proven:
            raise MethodRefusedError("the target wants the password itself, and did not prove its name in TLS")
        self._asked = True
        return self._sign_in.secret.reveal().encode("utf-8") + b"\0"

    def _md5(self, salt: bytes) -> bytes:
        if WeakMethod.MD5 not in self._sign_in.methods:
            raise MethodRefusedError("the target wants `md5`, which the credential does not allow")
        if len(salt) != _SALT_BYTES:
            raise SignInError("the target's authentication cannot be followed")
        self._asked = True
        stored = _md5(self._sign_in.secret.reveal().encode("utf-8") + self._user.encode("utf-8"))
        return b"md5" + _md5(stored + salt) + b"\0"

    def _sasl(self, content: bytes) -> bytes:
        self._asked = True
        mechanism, binding = self._chosen(content.split(b"\0"))
        nonce = b64encode(self._random(NONCE_BYTES)).decode("ascii")
        self._scram = ScramClient(self._sign_in.secret, binding, nonce)
        first = self._scram.first()
        return mechanism.encode("ascii") + b"\0" + struct.pack("!i", len(first)) + first

    def _chosen(self, offered: list[bytes]) -> tuple[str, Binding]:
        end_point = self._channel.end_point
        if MECHANISM_PLUS.encode() in offered and end_point is not None:
            return MECHANISM_PLUS, Binding(header=BOUND, data=end_point)
        if MECHANISM.encode() not in offered:
            raise MethodRefusedError("the target offers no way of SASL that can be taken; SCRAM-SHA-256 can")
        return MECHANISM, Binding(header=NOT_SUPPORTED if end_point is None else NOT_OFFERED)


def _md5(data: bytes) -> bytes:
    return hashlib.md5(data, usedforsecurity=False).hexdigest().encode("ascii")
