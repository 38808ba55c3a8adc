"""One transport's events, told to its session.

What lives here: asyncio's callbacks. What must not: what follows from them (shell.py).
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, cast

from capd.enforcer.proxy.events import Blocked, Data, Ended, Side
from capd.enforcer.proxy.socket_options import borrowed_socket, keep_alive

if TYPE_CHECKING:  # it makes ends
    from capd.enforcer.proxy.shell import Session


class End(asyncio.Protocol):
    """One transport's events."""

    def __init__(self, session: Session, side: Side) -> None:
        self._session, self.side = session, side
        self.ended = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take the transport."""
        if self.side is Side.UPSTREAM:
            with borrowed_socket(transport) as connection:
                keep_alive(connection)
        self._session.connected(self, cast("asyncio.Transport", transport))

    def data_received(self, data: bytes) -> None:
        """Tell of bytes."""
        if self.side is Side.CLIENT:
            self._session.heard.count += len(data)
        if self._session.current(self):
            self._session.feed(Data(self.side, data))

    def eof_received(self) -> bool:
        """Tell of the end; the transport stays open for the other direction."""
        self.ended = True
        if self.side is Side.CLIENT:
            self._session.heard.ended = True
        if self._session.current(self):
            self._session.feed(Ended(self.side))
        return True

    def pause_writing(self) -> None:
        """Tell that enough waits."""
        if self._session.current(self):
            self._session.feed(Blocked(self.side, True))

    def resume_writing(self) -> None:
        """Tell that it does not any more."""
        if self._session.current(self):
            self._session.feed(Blocked(self.side, False))

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell that it is closed."""
        self._session.gone(self, exc)
