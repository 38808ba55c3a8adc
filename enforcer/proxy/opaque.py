"""A relay for what is not decoded: bytes go across as they come, each direction for itself.

What lives here: relaying and half-close. What must not: deciding that it may (opening.py).

A server of MySQL says what it is before its client says anything, whatever that has said already: such a conversation is judged
statement by statement, and none that began otherwise is relayed.
"""

from __future__ import annotations

from typing import Final

from capd.decoders.detect import candidates, detect
from capd.enforcer.proxy.commands import Close, Command, Finish, Refused, Send
from capd.enforcer.proxy.events import Data, Ended, Event, Side
from capd.enforcer.proxy.layer import UNBOUNDED, Layer, Surroundings

MYSQL: Final = "mysql"
UNJUDGED: Final = "the server speaks MySQL, whose statements would not be judged here"


class OpaqueLayer(Layer):
    """Relays under one decision until both sides have ended."""

    def __init__(self, decision: int, around: Surroundings | None = None) -> None:
        """Begin.

        Args:
            decision: that lets it go on.
            around: of a connection in which nothing may be said that is judged one by one; None: it is not looked at.
        """
        self._decision, self._around = decision, around
        self._ended: set[Side] = set()
        self._first = b""

    def plain_bytes(self, side: Side) -> int:
        """Nothing is looked at but what a server says first."""
        return 0 if side is Side.UPSTREAM and self._around is not None else UNBOUNDED

    def handle(self, event: Event) -> list[Command]:
        """Relay."""
        if isinstance(event, Data):
            around = self._around
            if event.side is Side.UPSTREAM and around is not None and self._is_judged(event.data):
                return [Refused(next(around.numbers), UNJUDGED, ""), Close(abort=True)]
            other = event.side.other
            return [Send(other, event.data, self._decision if other is Side.UPSTREAM else 0)]
        if isinstance(event, Ended):
            if not event.clean:
                return [Close(abort=True)]
            self._ended.add(event.side)
            return [Close()] if len(self._ended) == len(Side) else [Finish(event.side.other)]
        return []

    def _is_judged(self, data: bytes) -> bool:
        """Look at what the server says first, as long as that can tell something."""
        self._first += data
        if MYSQL not in candidates(b"", self._first):
            self._around = None
        return detect(b"", self._first, None, ended=True) == MYSQL
