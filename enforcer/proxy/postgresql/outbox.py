"""What is to be done after an event, put together: bytes for either side in one piece each.

What lives here: the order. What must not: what is sent.
"""

from __future__ import annotations

from capd.enforcer.proxy.commands import Command, Send
from capd.enforcer.proxy.events import Side


class Outbox:
    """Of one connection.

    Attributes:
        decision: number of the latest decision that allowed something: what is sent to the server goes under it, with what was
            allowed before and is not sent yet.
    """

    def __init__(self) -> None:
        self.decision = 0
        self._sends: list[Command] = []
        self._others: list[Command] = []
        self._up: list[bytes] = []
        self._down: list[bytes] = []

    def allow(self, number: int) -> None:
        """Send under another decision from here on; what was allowed before goes under its own."""
        self._flush_up()
        self.decision = number

    def join(self, number: int) -> None:
        """Send under another decision from here on, with what was allowed before and is not sent yet."""
        self.decision = number

    def up(self, data: bytes) -> None:
        """Send to the server."""
        self._up.append(data)

    def down(self, data: bytes) -> None:
        """Send to the client."""
        if data:
            self._down.append(data)

    def do(self, *commands: Command) -> None:
        """Do something after what is sent."""
        self._others += commands

    def in_order(self, command: Command) -> None:
        """Do something that must stand between what is sent before and after it."""
        self._flush_up()
        self._flush_down()
        self._sends.append(command)

    def take(self, *, later: bool = False) -> list[Command]:
        """Give all, once; what is for the server stays behind if it may go `later`, with what follows at once."""
        if self._up and not later:
            self._flush_up()
        if self._down:
            self._flush_down()
        commands, self._sends = self._sends, []
        if self._others:
            commands += self._others
            self._others = []
        return commands

    def _flush_up(self) -> None:
        if self._up:
            data = self._up[0] if len(self._up) == 1 else b"".join(self._up)
            self._sends.append(Send(Side.UPSTREAM, data, self.decision))
            self._up = []

    def _flush_down(self) -> None:
        if self._down:
            data = self._down[0] if len(self._down) == 1 else b"".join(self._down)
            self._sends.append(Send(Side.CLIENT, data))
            self._down = []
