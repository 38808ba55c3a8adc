"""A WebSocket between an agent and a target, both ways.

What lives here: the life of the connection behind its handshake. What must not: frames (relay.py), whether it may be one.
"""

from __future__ import annotations

from typing import Final

from capd.decoders.websocket.frames import KEY_BYTES, Opcode
from capd.enforcer.proxy.broken_peer import BrokenPeerError
from capd.enforcer.proxy.commands import Arm, Close, Command, Finish, Refused, Send
from capd.enforcer.proxy.events import Data, Ended, Event, Expired, Side, Timer
from capd.enforcer.proxy.layer import Layer, Surroundings
from capd.enforcer.proxy.websocket.relay import Relay, frame

LINGER_SECONDS: Final = 2.0
"""How long a peer that broke the protocol has to read that it did."""


class WebsocketLayer(Layer):
    """Passes frames under one decision until both sides have ended."""

    def __init__(self, around: Surroundings, decision: int) -> None:
        self._around, self._decision = around, decision
        self._relays = {side: Relay(from_client=side is Side.CLIENT, random=around.random) for side in Side}
        self._ended: set[Side] = set()
        self._broken = False

    def waiting_bytes(self) -> int:
        """Count what waits for the rest of its frame."""
        return sum(relay.held for relay in self._relays.values())

    def handle(self, event: Event) -> list[Command]:
        """Take an event."""
        match event:
            case Data() if not self._broken:
                return self._data(event)
            case Ended():
                return self._over(event)
            case Expired() if self._broken:
                return [Close()]
        return []

    def _data(self, event: Data) -> list[Command]:
        goes_on, error = self._relays[event.side].receive(event.data)
        commands: list[Command] = [self._send(event.side.other, goes_on)] if goes_on else []
        return commands if error is None else commands + self._break(event.side, error)

    def _send(self, side: Side, data: bytes) -> Send:
        return Send(side, data, self._decision if side is Side.UPSTREAM else 0)

    def _break(self, side: Side, error: BrokenPeerError) -> list[Command]:
        """Tell both why it ends, and let them read it."""
        self._broken = True
        who = "the client" if side is Side.CLIENT else "the target"
        commands: list[Command] = [
            Refused(next(self._around.numbers), f"{who} breaks WebSocket: {error.reason}", ""),
        ]
        for one in Side:
            if one is side and self._relays[side.other].closed:
                continue  # it was told already
            key = self._around.random(KEY_BYTES) if one is Side.UPSTREAM else b""
            said = frame(Opcode.CLOSE, error.code.to_bytes(2, "big"), final=True, key=key)
            commands += [self._send(one, said)]
        return [*commands, Finish(Side.CLIENT), Finish(Side.UPSTREAM), Arm(Timer.DEADLINE, LINGER_SECONDS)]

    def _over(self, event: Ended) -> list[Command]:
        if not event.clean:
            return [Close(abort=True)]
        self._ended.add(event.side)
        if self._broken:
            return [Close()] if event.side is Side.CLIENT else []
        return [Close()] if len(self._ended) == len(Side) else [Finish(event.side.other)]
