"""A client whose request waits for a person: the interim answers that it is sent meanwhile.

What lives here: writing them, and when the next one is due. What must not: which clients are told (interim.py).
"""

from __future__ import annotations

from collections.abc import Iterator

from capd.enforcer.proxy.commands import Arm, Command, Send
from capd.enforcer.proxy.events import Expired, Held, Side, Timer
from capd.enforcer.proxy.http1.fields import written
from capd.enforcer.proxy.http1.request import Incoming
from capd.enforcer.proxy.interim import Interim, pace


class Patience:
    """Of the client of one connection."""

    def __init__(self, told: Interim) -> None:
        """Take who is told."""
        self._told = told
        self._number = 0
        self._answer = b""
        self._due: Iterator[float] = iter(())
        self._tells = False

    def hear(self, event: Held | Expired, number: int, incoming: Incoming) -> list[Command]:
        """Take that a person is asked about a request, or that it is time for the next interim answer.

        Args:
            event: which of the two.
            number: of the question about the request that is judged.
            incoming: that request.
        """
        if isinstance(event, Held):
            return self._held(event, incoming) if event.number == number else []
        return self._tell() if self._tells and self._number == number else []

    def _held(self, event: Held, incoming: Incoming) -> list[Command]:
        """A client of HTTP/1.0 knows no interim answers; one that opens a WebSocket takes the next answer for the final one."""
        again, self._number = event.number == self._number, event.number
        self._answer = written("HTTP/1.1 102 Processing", [("x-capd-approval", event.approval)])
        if again:  # under another id, as after a change of the policy: the next answer says so
            return []
        speaks = not incoming.old and incoming.request.upgrade is None
        agents = [value for name, value in incoming.request.fields if name.lower() == "user-agent"]
        self._due = iter(pace(self._told, agents, lone=not incoming.nominates) if speaks else ())
        self._tells = next(self._due, None) is not None
        return self._tell() if self._tells else []  # the pause of an earlier request may still run: it says nothing

    def _tell(self) -> list[Command]:
        after = next(self._due, None)
        later: list[Command] = [] if after is None else [Arm(Timer.STILL, after)]
        return [Send(Side.CLIENT, self._answer), *later]
