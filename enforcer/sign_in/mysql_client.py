"""MySQL and MariaDB, by the side that signs in: what answers the greeting, and each packet behind it.

What lives here: which ways are taken, and whose turn it is. What must not: packets' frames, the rest of the handshake response.

The server says which way it wants, and may change its mind (auth switch). Only ways that prove a password without telling it
are taken unasked; what tells it needs TLS in which the server proved its name, or the credential's word.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import IntEnum
from typing import Final

from capd.enforcer.credentials.method import WeakMethod
from capd.enforcer.obligations.sign_in import SignIn
from capd.enforcer.sign_in.channel import Channel
from capd.enforcer.sign_in.errors import MethodRefusedError, SignInError
from capd.enforcer.sign_in.mysql_methods import (
    CHALLENGE_BYTES,
    CLEAR,
    ED25519,
    ED25519_CHALLENGE_BYTES,
    NATIVE,
    SHA2,
    ed25519,
    native,
    sha2,
    sha2_encrypted,
)


class First(IntEnum):
    """First bytes of the packets that a server sends here."""

    OK = 0x00
    MORE = 0x01
    SWITCH = 0xFE
    ERR = 0xFF


FAST, FULL = b"\x03", b"\x04"
"""Of `caching_sha2_password`: the server knew the password already, or has to be given it."""
KEY_WANTED: Final = b"\x02"
NAME_CHARACTERS_MAX: Final = 64
"""Of a plugin, that is shown."""
SWITCHES_MAX: Final = 2
"""A server changes its mind once."""
_PROVES: Final[dict[str, tuple[int, Callable[[bytes, bytes], bytes]]]] = {
    NATIVE: (CHALLENGE_BYTES, native),
    SHA2: (CHALLENGE_BYTES, sha2),
    ED25519: (ED25519_CHALLENGE_BYTES, ed25519),
}


class MysqlClient:
    """One sign-in.

    Attributes:
        done: whether the server let us in.
    """

    def __init__(self, sign_in: SignIn, channel: Channel) -> None:
        """Prepare.

        Args:
            sign_in: with what.
            channel: how the server is reached; in TLS where that is had before the handshake response.
        """
        self._sign_in, self._channel = sign_in, channel
        self._plugin, self._challenge = "", b""
        self._waits_for_key = self._told = False
        self._switches = 0
        self.done = False

    def begin(self, plugin: str, challenge: bytes) -> tuple[str, bytes]:
        """Give what stands in the handshake response.

        Args:
            plugin: that the greeting names.
            challenge: of the greeting.

        Returns:
            The plugin, and its answer. Of one that is not taken another one's name: the server will ask for what it wants.
        """
        if plugin not in {NATIVE, SHA2}:
            # The challenge of a greeting has as many bytes as these two have, whatever it is for.
            self._plugin = NATIVE
            return NATIVE, b""
        return plugin, self._prove(plugin, challenge)

    def answer(self, packet: bytes) -> bytes | None:
        """Take a packet behind the handshake response.

        Args:
            packet: its content. An ERR is for the caller to show, as far as it shows such.

        Returns:
            Content of the packet that answers; None: nothing is sent.

        Raises:
            SignInError: it goes no further.
        """
        if not packet or self.done:
            raise SignInError("the target's authentication cannot be followed")
        match packet[0]:
            case First.OK:
                self.done = True
                return None
            case First.MORE:
                return self._more(packet[1:])
            case First.SWITCH:
                return self._switch(packet[1:])
            case First.ERR:
                raise SignInError("the target refused to let in the user of the credential")
        raise MethodRefusedError("the target wants a second factor, or a way of signing in that capd does not know")

    def _switch(self, content: bytes) -> bytes:
        self._switches += 1
        if not content:
            raise MethodRefusedError("the target wants the passwords of before MySQL 4.1")
        if self._switches > SWITCHES_MAX or self._told:
            raise SignInError("the target changes its mind without end")
        name, _, challenge = content.partition(b"\0")
        plugin = name.decode("ascii", "replace")
        if plugin == CLEAR:
            return self._clear()
        if plugin not in _PROVES:
            known = plugin if plugin.isprintable() and len(plugin) <= NAME_CHARACTERS_MAX else "unknown"
            raise MethodRefusedError(f"the target wants a way of signing in that is not taken: {known}")
        return self._prove(plugin, challenge)

    def _prove(self, plugin: str, challenge: bytes) -> bytes:
        length, prove = _PROVES[plugin]
        self._waits_for_key = False
        if len(challenge) == length + 1 and challenge.endswith(b"\0"):
            challenge = challenge[:length]
        if len(challenge) != length:
            raise SignInError("the target's challenge has no length that can be")
        self._plugin, self._challenge = plugin, challenge
        return prove(self._password, challenge)

    def _clear(self) -> bytes:
        if WeakMethod.CLEARTEXT not in self._sign_in.methods:
            raise MethodRefusedError("the target wants the password itself, which the credential does not allow")
        if not self._channel.proven:
            raise MethodRefusedError("the target wants the password itself, and did not prove its name in TLS")
        return self._tell(self._password + b"\0")

    def _more(self, content: bytes) -> bytes | None:
        if self._plugin != SHA2 or self._told:
            raise SignInError("the target's authentication cannot be followed")
        if self._waits_for_key:
            self._waits_for_key = False
            return self._tell(sha2_encrypted(self._password, self._challenge, content))
        if content == FAST:
            return None
        if content != FULL:
            raise SignInError("the target's authentication cannot be followed")
        if self._channel.proven:
            return self._tell(self._password + b"\0")
        if self._channel.encrypted:
            raise MethodRefusedError("the target wants the password itself, and did not prove its name in TLS")
        if WeakMethod.RSA not in self._sign_in.methods:
            raise MethodRefusedError("the target wants the password itself, without TLS; the credential does not allow `rsa`")
        self._waits_for_key = True
        return KEY_WANTED

    def _tell(self, answer: bytes) -> bytes:
        """Give what has the password in it; it is given once."""
        self._told = True
        return answer

    @property
    def _password(self) -> bytes:
        return self._sign_in.secret.reveal().encode("utf-8")
