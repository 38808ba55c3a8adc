"""One redirected connection: layers, backpressure, and the gate that every byte for a target goes through.

What lives here: what is true of every protocol. What must not: any protocol, asyncio (shell.py).
"""

from __future__ import annotations

from collections import deque
from typing import Final

from capd.enforcer.proxy.commands import Ask, Close, Command, Dial, Over, Read, Send, Withdraw
from capd.enforcer.proxy.events import Blocked, Decided, Event, Side
from capd.enforcer.proxy.http1 import Http1Layer
from capd.enforcer.proxy.http2 import Http2Layer
from capd.enforcer.proxy.layer import Layer, Surroundings
from capd.enforcer.proxy.opening import OpeningLayer, Protocols
from capd.enforcer.proxy.question import Destination
from capd.enforcer.proxy.secured import HTTP2, Contexts, Normalise, TlsLayer

ALLOWED_MAX: Final = 256
"""Latest allowed decisions that bytes may still belong to: a request's, and those of the TLS around it. More than the streams
that may be over since the latest of them was begun, with which goes what belongs to no stream."""


class UndecidedError(Exception):
    """A layer wanted to reach a target without a decision that allows it: a defect of ours. Nothing was sent."""


class Gate:
    """Lets commands pass that reach a target under a decision which was asked for, and allowed."""

    def __init__(self) -> None:
        self._asked: dict[int, bool] = {}
        """Number, and whether it is one of several that stand side by side."""
        self._allowed: deque[int] = deque(maxlen=ALLOWED_MAX)
        self._standing: dict[int, bool] = {}
        """Those until they are said to be over, and whether anything was sent under them."""

    def learn(self, event: Decided) -> None:
        """Take a verdict."""
        verdict = event.verdict
        several = self._asked.pop(verdict.number, None)
        if several is None or not verdict.allowed or verdict.body_bytes:
            return
        if several:
            self._standing[verdict.number] = False
        else:
            self._allowed.append(verdict.number)

    def check(self, command: Command) -> None:
        """Look at a command.

        Raises:
            UndecidedError: it must not be done.
        """
        if isinstance(command, Ask):
            self._asked[command.question.number] = command.question.exchange is not None
        elif isinstance(command, Withdraw):
            self._asked.pop(command.number, None)
        elif isinstance(command, Over):
            if self._standing.pop(command.number, False):
                self._allowed.append(command.number)
        elif isinstance(command, Send | Dial):
            self._check(command)

    def _check(self, command: Send | Dial) -> None:
        if isinstance(command, Send) and command.side is Side.CLIENT:
            return
        if command.decision in self._standing:
            self._standing[command.decision] = True
        elif command.decision not in self._allowed:
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
        client = client and not (blocked[Side.CLIENT] and self._layer.replies())
        upstream = not blocked[Side.CLIENT] and wants(Side.UPSTREAM)
        if client is reading[Side.CLIENT] and upstream is reading[Side.UPSTREAM]:
            return []
        changed = [(Side.CLIENT, client), (Side.UPSTREAM, upstream)]
        commands: list[Command] = [Read(side, now) for side, now in changed if now is not reading[side]]
        self._reading = [client, upstream]
        return commands


def open_connection(destination: Destination, session: str, contexts: Contexts, normalise: Normalise) -> Connection:
    """Give the connection that an agent opened to a destination."""

    def inside(around: Surroundings, agreed: str | None) -> Layer:
        if agreed == HTTP2:
            return Http2Layer(around, dialled=False)
        return OpeningLayer(around, {"http1": lambda dialled: Http1Layer(around, dialled=dialled)})

    around = Surroundings(destination=destination, session=session)
    protocols: Protocols = {
        "http1": lambda dialled: Http1Layer(around, dialled=dialled),
        "http2": lambda dialled: Http2Layer(around, dialled=dialled),
        "tls": lambda _dialled: TlsLayer(around, contexts, inside, normalise),
    }
    return Connection(OpeningLayer(around, protocols))
