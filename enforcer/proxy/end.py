"""One transport's events, told to its session.

What lives here: asyncio's callbacks. What must not: what follows from them (shell.py).
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final, cast

from capd.enforcer.proxy.events import Side
from capd.enforcer.proxy.kept import PLAIN_BYTES_MAX
from capd.enforcer.proxy.socket_options import borrowed_socket, keep_alive

if TYPE_CHECKING:  # it makes ends
    from capd.enforcer.proxy.session import Session

READ_BYTES: Final = 65_536
"""At once; what comes of it may wait in a connection, and as much may be read of each."""
_LARGE: Final = memoryview(bytearray(PLAIN_BYTES_MAX))
"""Of all: it is read into and taken from in one go of the event loop. All of it only for what goes on at once."""
_BUFFER: Final = _LARGE[:READ_BYTES]


class End(asyncio.BufferedProtocol):
    """One transport's events."""

    def __init__(self, session: Session, side: Side) -> None:
        self.session, self.side = session, side
        self.ended = False
        self._full = False
        """Whether the last read filled what it was given: more may be there."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take the transport."""
        if self.side is Side.UPSTREAM:
            with borrowed_socket(transport) as connection:
                keep_alive(connection)
        self.session.connected(self, cast("asyncio.Transport", transport))

    def get_buffer(self, sizehint: int) -> memoryview:  # noqa: ARG002 - asyncio's signature
        """Give room to read into."""
        if not self._full:
            return _BUFFER
        return _LARGE[: max(READ_BYTES, self.session.goes_on(self.side))]

    def buffer_updated(self, nbytes: int) -> None:
        """Tell of bytes."""
        self._full = nbytes >= READ_BYTES
        if self.side is Side.CLIENT:
            self.session.heard.count += nbytes
        if self.session.current(self):
            self.session.received(self.side, bytes(_LARGE[:nbytes]))

    def eof_received(self) -> bool:
        """Tell of the end; the transport stays open for the other direction."""
        self.ended = True
        if self.side is Side.CLIENT:
            self.session.heard.ended = True
        if self.session.current(self):
            self.session.ended(self.side, clean=True)
        return True

    def pause_writing(self) -> None:
        """Tell that enough waits."""
        if self.session.current(self):
            self.session.blocked(self.side, blocked=True)

    def resume_writing(self) -> None:
        """Tell that it does not any more."""
        if self.session.current(self):
            self.session.blocked(self.side, blocked=False)

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell that it is closed."""
        self.session.gone(self, exc)
