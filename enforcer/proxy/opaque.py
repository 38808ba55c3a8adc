"""A relay for what is not decoded: bytes go across as they come, each direction for itself.

What lives here: relaying and half-close. What must not: deciding that it may (opening.py).
"""

from __future__ import annotations

from capd.enforcer.proxy.commands import Close, Command, Finish, Send
from capd.enforcer.proxy.events import Data, Ended, Event, Side
from capd.enforcer.proxy.layer import Layer


class OpaqueLayer(Layer):
    """Relays under one decision until both sides have ended."""

    def __init__(self, decision: int) -> None:
        self._decision = decision
        self._ended: set[Side] = set()

    def handle(self, event: Event) -> list[Command]:
        """Relay."""
        if isinstance(event, Data):
            other = event.side.other
            return [Send(other, event.data, self._decision if other is Side.UPSTREAM else 0)]
        if isinstance(event, Ended):
            if not event.clean:
                return [Close(abort=True)]
            self._ended.add(event.side)
            return [Close()] if len(self._ended) == len(Side) else [Finish(event.side.other)]
        return []
