"""What a layer wants done in one turn, in order; bytes for one side that follow each other are one write.

What lives here: that. What must not: what is sent.
"""

from __future__ import annotations

from capd.enforcer.proxy.commands import Command, Send
from capd.enforcer.proxy.events import Side


class Outbox:
    """Of one connection."""

    def __init__(self) -> None:
        self._commands: list[Command] = []
        self._to: tuple[Side, int] = (Side.CLIENT, 0)
        self._parts: list[bytes] = []

    def do(self, *commands: Command) -> None:
        """Have commands done behind what was sent before."""
        if self._parts:
            self._flush()
        self._commands += commands

    def send(self, side: Side, data: bytes, decision: int) -> None:
        """Send, joined with what is just being sent to that side: a head and its body are one write.

        Args:
            side: to whom.
            data: nothing is done with none.
            decision: that allows bytes for the target.
        """
        if not data:
            return
        to = (side, decision if side is Side.UPSTREAM else 0)
        if to != self._to:
            if self._parts:
                self._flush()
            self._to = to
        self._parts.append(data)

    def take(self) -> list[Command]:
        """Give all that is to be done."""
        if self._parts:
            self._flush()
        commands, self._commands = self._commands, []
        return commands

    def _flush(self) -> None:
        side, decision = self._to
        self._commands.append(Send(side, b"".join(self._parts), decision))
        self._parts.clear()
