"""One redirected connection: layers, backpressure, and the gate that every byte for a target goes through.

What lives here: what is true of every protocol. What must not: any protocol, asyncio (shell.py).
"""

from __future__ import annotations

from collections import deque
from typing import Final

from capd.enforcer.proxy.commands import Ask, Close, Command, Dial, Read, Send
from capd.enforcer.proxy.events import Blocked, Decided, Event, Side
from capd.enforcer.proxy.http1 import Http1Layer
from capd.enforcer.proxy.layer import Layer, Surroundings
from capd.enforcer.proxy.opening import OpeningLayer
from capd.enforcer.proxy.question import Destination
from capd.enforcer.proxy.secured import Contexts, Normalise, TlsLayer

ALLOWED_MAX: Final = 16
"""Latest allowed decisions that bytes may still belong to: a request's, and those of the TLS around it."""


class UndecidedError(Exception):
    """A layer wanted to reach a target without a decision that allows it: a defect of ours. Nothing was sent."""


class Gate:
    """Lets commands pass that reach a target under a decision which was asked for, and allowed."""

    def __init__(self) -> None:
        self._asked: set[int] = set()
        self._allowed: deque[int] = deque(maxlen=ALLOWED_MAX)

    def learn(self, event: Decided) -> None:
        """Take a verdict."""
        verdict = event.verdict
        if verdict.number in self._asked:
            self._asked.discard(verdict.number)
            if verdict.allowed and not verdict.body_bytes:
                self._allowed.append(verdict.number)

    def check(self, command: Command) -> None:
        """Look at a command.

        Raises:
            UndecidedError: it must not be done.
        """
        if isinstance(command, Ask):
            self._asked.add(command.question.number)
            return
        if isinstance(command, Send) and command.side is Side.CLIENT:
            return
        if isinstance(command, Send | Dial) and command.decision not in self._allowed:
            raise UndecidedError(f"decision {command.decision} does not allow it")


class Connection:
    """Events in, commands out."""

    def __init__(self, layer: Layer) -> None:
        """Take the outermost layer."""
        self._layer = layer
        self._gate = Gate()
        self._blocked, self._reading = [False, False], [True, True]
        self.closed = False

    def handle(self, event: Event) -> list[Command]:
        """Take an event and give what is to be done, in order; nothing after the connection was closed.

        Raises:
            UndecidedError: a defect; the connection must be cut.
        """
        if self.closed:
            return []
        if isinstance(event, Blocked):
            self._blocked[event.side] = event.blocked
            return self._readings()
        if isinstance(event, Decided):
            self._gate.learn(event)
        commands = self._layer.handle(event)
        for number, command in enumerate(commands):
            self._gate.check(command)
            if isinstance(command, Close):
                self.closed = True
                return commands[: number + 1]
        readings = self._readings()
        return commands + readings if readings else commands

    def _readings(self) -> list[Command]:
        """Read from a side when the other one takes what comes of it, and the layer has room."""
        wants, blocked, reading = self._layer.wants, self._blocked, self._reading
        client = not blocked[Side.UPSTREAM] and wants(Side.CLIENT)
        upstream = not blocked[Side.CLIENT] and wants(Side.UPSTREAM)
        if client is reading[Side.CLIENT] and upstream is reading[Side.UPSTREAM]:
            return []
        changed = [(Side.CLIENT, client), (Side.UPSTREAM, upstream)]
        commands: list[Command] = [Read(side, now) for side, now in changed if now is not reading[side]]
        self._reading = [client, upstream]
        return commands


def open_connection(destination: Destination, session: str, contexts: Contexts, normalise: Normalise) -> Connection:
    """Give the connection that an agent opened to a destination."""

    def http1(around: Surroundings, dialled: bool) -> Layer:
        return Http1Layer(around, dialled=dialled)

    def inside(around: Surroundings) -> Layer:
        return OpeningLayer(around, {"http1": lambda dialled: http1(around, dialled)})

    around = Surroundings(destination=destination, session=session)
    protocols = {
        "http1": lambda dialled: http1(around, dialled),
        "tls": lambda _dialled: TlsLayer(around, contexts, inside, normalise),
    }
    return Connection(OpeningLayer(around, protocols))
