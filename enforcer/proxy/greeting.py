"""The first words of TLS: an agent's ClientHello, and the name in it.

What lives here: reading it when it is whole, and the one form of its name. What must not: answering it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from capd.decoders.message import ProtocolError
from capd.decoders.tls import ClientHello, client_hello, hello_wants

HANDSHAKE_SECONDS: Final = 20.0
"""From the first byte of a ClientHello to the end of the agent's handshake; there is no network between."""
HELD_BYTES_MAX: Final = 131_072
"""Of a client that goes on before its ClientHello is answered; twice what a ClientHello may have."""
ALERT_DECODE_ERROR: Final = 50
ALERT_UNRECOGNIZED_NAME: Final = 112
"""RFC 8446 6."""

Normalise = Callable[[str], str]
"""Gives the one form of a name in which it is judged; raises ValueError for what has none."""


class GreetingError(Exception):
    """It is no ClientHello that can be answered.

    Attributes:
        reason: for a person.
        alert: that says so.
    """

    def __init__(self, reason: str, alert: int) -> None:
        super().__init__(reason)
        self.reason, self.alert = reason, alert


def fatal_alert(description: int) -> bytes:
    """Give a fatal alert in clear, as it may stand in the place of a ServerHello (RFC 8446 6.2)."""
    return bytes((21, 3, 3, 0, 2, 2, description))


class Greeting:
    """Of one client.

    Attributes:
        held: what came so far.
        hello: what it said, once that is whole.
        server_name: that it asked for, normalised; None: none.
    """

    def __init__(self, normalise: Normalise) -> None:
        self._normalise = normalise
        self._wanted = 0
        self.held = b""
        self.hello: ClientHello | None = None
        self.server_name: str | None = None

    @property
    def full(self) -> bool:
        """Whether the client should wait."""
        return len(self.held) >= HELD_BYTES_MAX

    def add(self, data: bytes) -> bool:
        """Take bytes; say whether the ClientHello became whole by them.

        Raises:
            GreetingError: it is none.
        """
        self.held += data
        if self.hello is not None or len(self.held) < self._wanted:
            return False
        try:
            hello = client_hello(self.held)
            if hello is None:
                self._wanted = hello_wants(self.held)
                return False
            self.hello = hello
            self.server_name = None if hello.server_name is None else self._normalise(hello.server_name)
        except ProtocolError as error:
            raise GreetingError(error.reason, ALERT_DECODE_ERROR) from error
        except ValueError as error:
            raise GreetingError(str(error), ALERT_UNRECOGNIZED_NAME) from error
        return True

    def take(self) -> bytes:
        """Give what is held, for whoever answers."""
        held, self.held = self.held, b""
        return held

    @property
    def asked_for(self) -> str | None:
        """Give the name as far as it is known, for a person."""
        return self.server_name or (None if self.hello is None else self.hello.server_name)
