"""MySQL and MariaDB, by the side that lets an agent in: whatever its client answers, until that is content.

What lives here: what is said before the OK. What must not: packets' frames, who the agent is.

capd knows whose socket it is, so nothing has to be proven. No client of these protocols checks what the server knows: the OK
may come at once, but for `caching_sha2_password`, whose clients wait to hear that their answer was known. A client that names
another way than it was greeted with waits to be asked for it; for ways that nobody can go along with it is asked for
`mysql_native_password`, which all of them have that know no other.
"""

from __future__ import annotations

from typing import Final

from capd.enforcer.sign_in.errors import SignInError
from capd.enforcer.sign_in.mysql_methods import CHALLENGE_BYTES, NATIVE, SHA2

KNOWN: Final = b"\x01\x03"
"""AuthMoreData: the fast way of `caching_sha2_password` succeeded."""
GREETED: Final = frozenset({NATIVE, SHA2})
"""Ways that a greeting may name: their challenges have the same length."""
ANSWER_BYTES_MAX: Final = 256
"""An answer has 32 at most."""
_NOTHING: Final = frozenset({b"", b"\0"})
"""Answers of a client that has no password."""


class MysqlServer:
    """One agent's sign-in.

    Attributes:
        plugin: that the greeting names.
        challenge: of the greeting, without the zero behind it.
        done: whether it is let in: an OK is to follow.
    """

    def __init__(self, plugin: str, challenge: bytes) -> None:
        """Prepare.

        Args:
            plugin: that the target's greeting names; one that cannot be greeted with becomes `mysql_native_password`.
            challenge: CHALLENGE_BYTES of chance, none of them zero.
        """
        if len(challenge) != CHALLENGE_BYTES or 0 in challenge:
            raise ValueError("a challenge has 20 bytes that are not zero")
        self.plugin, self.challenge = plugin if plugin in GREETED else NATIVE, challenge
        self._asked: str | None = None
        self.done = False

    def begin(self, plugin: str | None, response: bytes) -> tuple[bytes, ...]:
        """Take the handshake response.

        Args:
            plugin: that it names; None: none, of a client that knows none.
            response: its answer.

        Returns:
            Contents of packets to send. When it is `done` an OK follows them; otherwise an answer of the client's.
        """
        if not plugin or plugin == self.plugin:
            return self._content(self.plugin, response)
        self._asked = plugin if plugin in GREETED else NATIVE
        return (b"\xfe" + self._asked.encode("ascii") + b"\0" + self.challenge + b"\0",)

    def answer(self, packet: bytes) -> tuple[bytes, ...]:
        """Take the client's answer to what `begin` asked.

        Raises:
            SignInError: it was asked for nothing, or answers what nobody can.
        """
        if self._asked is None or self.done or len(packet) > ANSWER_BYTES_MAX:
            raise SignInError("the client's authentication cannot be followed")
        return self._content(self._asked, packet)

    def _content(self, plugin: str, answer: bytes) -> tuple[bytes, ...]:
        self.done = True
        return (KNOWN,) if plugin == SHA2 and answer not in _NOTHING else ()
