"""The begin of a conversation: who speaks first, and what.

What lives here: telling protocols apart and asking whether they may go on. What must not: the protocols.

The client's first bytes say what it is. Some servers speak first (MySQL, SMTP, SSH), and their clients wait; so after a short
silence it is asked whether what is not decoded may pass to this target. If it may, the target is dialled, and who speaks first
then decides: the server, and it is relayed; the client, and it is told by its bytes as before. If it may not, the client may
just be slow: it is waited for a while longer.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from capd.decoders.detect import UNKNOWN, candidates, detect
from capd.enforcer.proxy.commands import Arm, Ask, Close, Command, Dial, Finish, Refused, Send
from capd.enforcer.proxy.events import (
    Data,
    Decided,
    DialFailed,
    Dialled,
    Ended,
    Event,
    Expired,
    Side,
    Started,
    Timer,
)
from capd.enforcer.proxy.layer import Layer, Surroundings
from capd.enforcer.proxy.opaque import OpaqueLayer
from capd.enforcer.proxy.question import Kind, Question, Verdict

SILENCE_SECONDS: Final = 0.1
"""A client that speaks first does so within a round trip to this host, which is nothing."""
OPENING_SECONDS: Final = 30.0
"""Until the first bytes have said what they are: a client may be stopped in a debugger, not for ever."""
BLANKS: Final = frozenset({b"\r", b"\n", b" ", b"\t"})
HELD_BYTES_MAX: Final = 65_536
"""Bytes of a client that wait for a decision or for the target; then it is left to wait."""

Protocols = dict[str, Callable[[bool], Layer]]
"""Name that `detect` gives, and what makes its layer; told whether the target is dialled already."""


class OpeningLayer(Layer):
    """Finds out what is spoken and puts that layer in its place."""

    def __init__(self, around: Surroundings, protocols: Protocols) -> None:
        self._around, self._protocols = around, protocols
        self._next: Layer | None = None
        self._held = b""
        self._client_ended = self._dialled = False
        self._asked: Question | None = None
        self._opaque: Verdict | None = None
        self._in_silence = 0

    def wants(self, side: Side) -> bool:
        """Leave the client to wait when it has said enough."""
        if self._next is not None:
            return self._next.wants(side)
        return side is Side.UPSTREAM or len(self._held) < HELD_BYTES_MAX

    def replies(self) -> bool:
        """Ask the layer in its place."""
        return self._next is not None and self._next.replies()

    def handle(self, event: Event) -> list[Command]:
        """Take an event."""
        if self._next is not None:
            return self._next.handle(event)
        match event:
            case Data(side=Side.CLIENT) | Ended(side=Side.CLIENT):
                return self._client_did(event)
            case Data(side=Side.UPSTREAM) | Ended(side=Side.UPSTREAM):
                return self._server_did(event)
            case Decided():
                return self._decided(event.verdict)
            case Dialled():
                return self._was_dialled()
            case DialFailed():
                return [Close(abort=True)]
            case Expired():
                return self._expired(event.timer)
        return [Arm(Timer.SILENCE, SILENCE_SECONDS), Arm(Timer.DEADLINE, OPENING_SECONDS)]

    def _client_did(self, event: Data | Ended) -> list[Command]:
        if isinstance(event, Data):
            self._held += event.data
        elif event.clean:
            self._client_ended = True
        else:
            return [Close(abort=True)]
        return self._look()

    def _server_did(self, event: Data | Ended) -> list[Command]:
        if isinstance(event, Ended) or self._opaque is None:
            return [Close(abort=True)]
        return [Send(Side.CLIENT, event.data), *self._relay()]

    def _look(self) -> list[Command]:
        """See what the client's bytes are, unless an answer is waited for."""
        if self._asked is not None or (self._opaque is not None and not self._dialled):
            return []
        if not self._held:
            return self._nothing_said() if self._client_ended else []
        protocol = self._spoken()
        if protocol is None:
            return []
        make = self._protocols.get(protocol)
        if make is not None:
            return [Arm(Timer.SILENCE, None), Arm(Timer.DEADLINE, None), *self._become(make(self._dialled))]
        if self._held[:1] in BLANKS:
            # Servers of HTTP pass over them (RFC 9112 2.2), and would take for a request what nobody judged as one.
            return [Refused(next(self._around.numbers), "it begins with an empty line or a blank", ""), Close(abort=True)]
        return self._ask_opaque(protocol)

    def _spoken(self) -> str | None:
        """Name what the client speaks; None: with more bytes it could still be something that is decoded."""
        found = detect(self._held, b"", None, ended=self._client_ended)
        if found is not None:
            return found
        return UNKNOWN if candidates(self._held, b"").isdisjoint(self._protocols) else None

    def _nothing_said(self) -> list[Command]:
        """The client only listens."""
        if self._dialled:
            return [Finish(Side.UPSTREAM)]
        return [Close(abort=True)] if self._in_silence else self._ask_in_silence()

    def _become(self, layer: Layer) -> list[Command]:
        """Put a layer in place and give it what was held."""
        self._next = layer
        held, self._held = self._held, b""
        commands = layer.handle(Started())
        if held:
            commands += layer.handle(Data(Side.CLIENT, held))
        if self._client_ended:
            commands += layer.handle(Ended(Side.CLIENT))
        return commands

    def _ask_opaque(self, protocol: str) -> list[Command]:
        self._asked = Question(
            number=next(self._around.numbers),
            kind=Kind.OPAQUE,
            destination=self._around.destination,
            protocol=protocol,
            server_name=self._around.server_name,
            inspected=self._around.inspected,
        )
        return [Ask(self._asked)]

    def _decided(self, verdict: Verdict) -> list[Command]:
        asked, self._asked = self._asked, None
        if asked is None or verdict.number != asked.number:
            return []
        if verdict.allowed:
            self._opaque = verdict
            return self._was_dialled() if self._dialled else [Dial(verdict.number)]
        return self._look() if asked.number == self._in_silence else [Close(abort=True)]

    def _was_dialled(self) -> list[Command]:
        if self._opaque is None:
            return []
        self._dialled = True
        if not self._held:
            return [Arm(Timer.DEADLINE, None), *(self._nothing_said() if self._client_ended else [])]
        spoken = self._spoken()
        if spoken is None or spoken in self._protocols or self._held[:1] in BLANKS:
            return self._look()
        return self._relay()

    def _relay(self) -> list[Command]:
        assert self._opaque is not None
        return [Arm(Timer.SILENCE, None), Arm(Timer.DEADLINE, None), *self._become(OpaqueLayer(self._opaque.number))]

    def _expired(self, timer: Timer) -> list[Command]:
        if timer is Timer.DEADLINE:
            reason = "nothing was said that tells what it is"
            return [Refused(next(self._around.numbers), reason, ""), Close(abort=True)]
        return [] if self._held or self._in_silence else self._ask_in_silence()

    def _ask_in_silence(self) -> list[Command]:
        commands = self._ask_opaque(UNKNOWN)
        assert self._asked is not None
        self._in_silence = self._asked.number
        return commands
