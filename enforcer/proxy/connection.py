"""One redirected connection: layers, backpressure, and the gate that every byte for a target goes through.

What lives here: what is true of every protocol. What must not: any protocol, asyncio (shell.py).
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from secrets import token_bytes
from typing import Final

from capd.enforcer.limits.totals import Totals
from capd.enforcer.proxy.commands import Ask, Close, Command, Dial, Over, Read, Secure, Send, Unsent, Withdraw
from capd.enforcer.proxy.events import Blocked, Decided, Event, Side
from capd.enforcer.proxy.greeting import Normalise
from capd.enforcer.proxy.http1.layer import Http1Layer
from capd.enforcer.proxy.http2 import Http2Layer
from capd.enforcer.proxy.in_band_tls import InBandTls
from capd.enforcer.proxy.interim import Interim
from capd.enforcer.proxy.layer import Layer, Opened, Surroundings
from capd.enforcer.proxy.mysql.layer import MysqlLayer
from capd.enforcer.proxy.opening import OpeningLayer, Protocols
from capd.enforcer.proxy.postgresql.cancelling import SECRET_BYTES, Cancels
from capd.enforcer.proxy.postgresql.layer import PostgresqlLayer
from capd.enforcer.proxy.postgresql.shared import Shared
from capd.enforcer.proxy.question import Destination
from capd.enforcer.proxy.redis.layer import RedisLayer
from capd.enforcer.proxy.secured import HTTP2, Contexts, TlsLayer

ALLOWED_MAX: Final = 256
"""Latest allowed decisions that bytes may still belong to: a request's, and those of the TLS around it. More than the streams
that may be over since the latest of them was begun, with which goes what belongs to no stream."""


_NO_COMMANDS: Final[list[Command]] = []
"""Given where there are none; nobody adds to it."""


class UndecidedError(Exception):
    """A layer wanted to reach a target without a decision that allows it: a defect of ours. Nothing was sent."""


class Gate:
    """Lets commands pass that reach a target under a decision which was asked for, and allowed."""

    def __init__(self) -> None:
        self._asked: dict[int, bool] = {}
        """Number, and whether it is one of several that stand side by side."""
        self._allowed: deque[int] = deque(maxlen=ALLOWED_MAX)
        self._standing: dict[int, bool] = {}
        """Those until they are said to be over, and whether the target was dialled or sent anything under them."""
        self._idle: set[int] = set()
        """Of these, those under which nothing was sent yet."""
        self.idle_over: list[int] = []
        """What was over without anything sent under it, and is to be told of."""

    def learn(self, event: Decided) -> None:
        """Take a verdict."""
        verdict = event.verdict
        several = self._asked.pop(verdict.number, None)
        if several is None or not verdict.allowed or verdict.body_bytes:
            return
        if several:
            self._standing[verdict.number] = False
            self._idle.add(verdict.number)
        else:
            self._allowed.append(verdict.number)

    def unsent(self, *, closed: bool) -> list[Command]:
        """Tell what is over without anything sent under it; `closed`: so is all that stands."""
        if closed:
            self.idle_over += sorted(self._idle)
            self._idle.clear()
        if not self.idle_over:
            return []
        told: list[Command] = [Unsent(number) for number in self.idle_over]
        self.idle_over.clear()
        return told

    def check(self, command: Command) -> None:
        """Look at a command.

        Raises:
            UndecidedError: it must not be done.
        """
        if isinstance(command, Send):  # most are one of the first three
            if command.side is not Side.CLIENT:
                self._check(command.decision, sends=True)
        elif isinstance(command, Ask):
            self._asked[command.question.number] = command.question.exchange is not None
        elif isinstance(command, Over):
            self._is_over(command.number)
        elif isinstance(command, Dial):
            self._check(command.decision, sends=False)
        elif isinstance(command, Withdraw):
            self._asked.pop(command.number, None)
        elif isinstance(command, Secure):
            raise UndecidedError("nobody is there to begin TLS, and what follows would be in clear")

    def _is_over(self, decision: int) -> None:
        if self._standing.pop(decision, False):
            self._allowed.append(decision)
        if decision in self._idle:
            self._idle.discard(decision)
            self.idle_over.append(decision)

    def _check(self, decision: int, *, sends: bool) -> None:
        allowed = self._allowed
        if allowed and allowed[-1] == decision and not self._standing:
            return  # mostly the latest: no search then
        if decision in self._standing:
            self._standing[decision] = True
            if sends:
                self._idle.discard(decision)
        elif decision not in allowed:
            raise UndecidedError(f"decision {decision} does not allow it")


class Connection:
    """Events in, commands out."""

    def __init__(self, layer: Layer) -> None:
        """Take the outermost layer."""
        self._layer = layer
        self._gate = Gate()
        self._blocked, self._reading = [False, False], [True, True]
        self._flows = True
        """Whether neither side is blocked and both are read."""
        self.closed = False

    def handle(self, event: Event) -> list[Command]:
        """Take an event and give what is to be done, in order; nothing after the connection was closed.

        Raises:
            UndecidedError: a defect; the connection must be cut.
        """
        if self.closed:
            return []
        if isinstance(event, Blocked):
            self._blocked[event.side], self._flows = event.blocked, False
            return self._readings()
        if isinstance(event, Decided):
            self._gate.learn(event)
        layer, gate = self._layer, self._gate
        commands = layer.handle(event)
        for number, command in enumerate(commands):
            if isinstance(command, Send) and command.side is Side.CLIENT:
                continue  # nothing to be decided
            gate.check(command)
            if isinstance(command, Close):
                self.closed = True
                return [*commands[:number], *gate.unsent(closed=True), command]
        if layer.reads_on and self._flows and not gate.idle_over:
            return commands
        self._layer = layer.successor()
        readings, unsent = self._readings(), gate.unsent(closed=False)
        return [*commands, *unsent, *readings] if readings or unsent else commands

    def plain_bytes(self, side: Side) -> int:
        """Say how many of the next bytes of a side go on in one piece whatever they are."""
        return self._layer.plain_bytes(side)

    def waiting_bytes(self) -> int:
        """Say how many bytes its layers keep."""
        return self._layer.waiting_bytes()

    def _readings(self) -> list[Command]:
        """Read from a side when the other one takes what comes of it, and the layer has room."""
        layer, reading = self._layer, self._reading
        client_blocked, upstream_blocked = self._blocked
        client = not upstream_blocked and layer.wants(Side.CLIENT)
        if client_blocked:
            client, upstream = client and not layer.replies(), False
        else:
            upstream = layer.wants(Side.UPSTREAM)
        if client is reading[0] and upstream is reading[1]:
            self._flows = client and upstream and not client_blocked and not upstream_blocked
            return _NO_COMMANDS
        changed = [(Side.CLIENT, client), (Side.UPSTREAM, upstream)]
        commands: list[Command] = [Read(side, now) for side, now in changed if now is not reading[side]]
        self._reading = [client, upstream]
        self._flows = client and upstream and not client_blocked and not upstream_blocked
        return commands


@dataclass(frozen=True, slots=True, kw_only=True)
class Means:
    """What the connections of one process share.

    Attributes:
        contexts: of TLS.
        normalise: gives names their one form.
        postgresql: what its sessions share.
        mask_key: for hashes of what is hidden in answers, the same as long as hashes are to be.
        totals: counts what runs have had.
        interim: which clients of HTTP/1.1 are told while they wait.
    """

    contexts: Contexts
    normalise: Normalise
    postgresql: Shared = field(default_factory=lambda: Shared(cancels=Cancels(token_bytes(SECRET_BYTES))))
    mask_key: bytes = field(default_factory=lambda: token_bytes(SECRET_BYTES), repr=False)
    totals: Totals | None = None
    interim: Interim = Interim.KNOWN


def open_connection(destination: Destination, opened: Opened, means: Means) -> Connection:
    """Give the connection that an agent opened to a destination."""
    contexts, normalise, shared = means.contexts, means.normalise, means.postgresql

    def inside(around: Surroundings, agreed: str | None) -> Layer:
        if agreed == HTTP2:
            return Http2Layer(around, dialled=False)
        protocols: Protocols = {
            "http1": lambda dialled: Http1Layer(around, dialled=dialled),
            "postgresql": lambda dialled: PostgresqlLayer(around, shared, dialled=dialled),
            "redis": lambda dialled: RedisLayer(around, dialled=dialled),
        }
        return OpeningLayer(around, protocols)

    def postgresql(dialled: bool) -> Layer:
        return InBandTls(around, contexts, lambda within: PostgresqlLayer(within, shared, dialled=dialled), normalise)

    def mysql(_dialled: bool) -> Layer:
        return InBandTls(around, contexts, MysqlLayer, normalise)

    around = Surroundings(
        destination=destination,
        session=opened.session,
        run=opened.run,
        wake=opened.wake,
        transcript=opened.transcript,
        mask_key=means.mask_key,
        totals=means.totals,
        interim=means.interim,
    )
    protocols: Protocols = {
        "http1": lambda dialled: Http1Layer(around, dialled=dialled),
        "http2": lambda dialled: Http2Layer(around, dialled=dialled),
        "tls": lambda _dialled: TlsLayer(around, contexts, inside, normalise),
        "postgresql": postgresql,
        "mysql": mysql,
        "redis": lambda dialled: RedisLayer(around, dialled=dialled),
    }
    return Connection(OpeningLayer(around, protocols))
