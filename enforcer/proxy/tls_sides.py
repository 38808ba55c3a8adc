"""The two ends of a connection in TLS, as a layer inside sees them: in clear.

What lives here: ciphertext to plaintext and back, and what becomes of the ends of either. What must not: when TLS begins, and
with what names: of TLS from the first byte secured.py has that, of TLS that a protocol asks for in_band_tls.py.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from capd.enforcer.proxy.commands import Close, Command, Dial, Finish, Secure, Send
from capd.enforcer.proxy.events import Data, DialFailed, Ended, Event, Side
from capd.enforcer.proxy.layer import Layer
from capd.enforcer.proxy.transcript import Transcript
from capd.enforcer.tls.endpoint import Endpoint
from capd.enforcer.tls.errors import TlsFailure

CIPHERTEXT_BYTES_MAX: Final = 131_072
"""Looked at in one go: eight records, or if a peer makes them as short as can be 5,700, which take some 5 ms."""
CUT: Final = "the connection was closed during the handshake"


class TlsSides:
    """Both ends.

    Attributes:
        inside: the layer that sees plaintext; set before anything is given to it.
        clear: ends without TLS: their bytes cross as they are.
        decision: the latest under which the target was dialled, or sent anything.
    """

    def __init__(
        self,
        established: Callable[[Side], list[Command]],
        transcript: Transcript,
        secure: Callable[[Secure], list[Command]] | None = None,
    ) -> None:
        """Take what is done after a handshake, what notes what is said, and what is done when the layer inside wants TLS."""
        self._transcript = transcript
        self.inside: Layer | None = None
        self.clear: set[Side] = set()
        self.decision = 0
        self._endpoints: list[Endpoint | None] = [None, None]
        self._established, self._secure = established, secure

    def begin(self, side: Side, endpoint: Endpoint) -> None:
        """Have an end speak TLS; `flush` gives what is due to it."""
        self._endpoints[side] = endpoint
        self.clear.discard(side)

    def endpoint(self, side: Side) -> Endpoint | None:
        """Give an end's TLS."""
        return self._endpoints[side]

    def plain_bytes(self, side: Side) -> int:
        """Say how many of the next bytes of a side cost little: ciphertext is never shorter than what it holds."""
        assert self.inside is not None
        plain = self.inside.plain_bytes(side)
        return plain if side in self.clear else min(plain, CIPHERTEXT_BYTES_MAX)

    def handle(self, event: Event) -> list[Command]:
        """Give the layer inside what it would see if there were no TLS."""
        match event:
            case Data() if event.side not in self.clear:
                return self._decrypt(event)
            case Ended() if event.side not in self.clear:
                return self._ciphertext_ended(event)
            case DialFailed():
                self._endpoints[Side.UPSTREAM] = None
        return self.tell(event)

    def tell(self, event: Event) -> list[Command]:
        """Give the layer inside an event."""
        assert self.inside is not None
        if isinstance(event, Data) and event.side is Side.CLIENT:
            self._transcript.read_inside(event.data)
        return self.wrap(self.inside.handle(event))

    def fail(self, reason: str, *, unverified: bool) -> list[Command]:
        """Tell the layer inside that the target is not one."""
        self._endpoints[Side.UPSTREAM] = None
        return self.tell(DialFailed(reason, refused=unverified))

    def _decrypt(self, event: Data) -> list[Command]:
        endpoint = self._speaking(event.side)
        if endpoint is None:
            return []
        shaking = not endpoint.established
        try:
            plaintext = endpoint.receive(event.data)
        except TlsFailure as error:
            return self._broken(event.side, error, shaking=shaking)
        commands: list[Command] = []
        if shaking and endpoint.established:
            commands += self._established(event.side)
            if self._endpoints[event.side] is None:
                return commands
        if plaintext:
            commands += self.tell(Data(event.side, plaintext))
        if endpoint.ended:
            commands += self.tell(Ended(event.side))
        return commands + self.flush()

    def _ciphertext_ended(self, event: Ended) -> list[Command]:
        endpoint = self._speaking(event.side)
        if endpoint is None:
            return []
        if not endpoint.established:
            return self._broken(event.side, TlsFailure(CUT), shaking=True)
        return self.tell(Ended(event.side, clean=False))

    def _speaking(self, side: Side) -> Endpoint | None:
        """Give an end's TLS unless it has said that it will say no more."""
        endpoint = self._endpoints[side]
        return None if endpoint is None or endpoint.ended else endpoint

    def _broken(self, side: Side, error: TlsFailure, *, shaking: bool) -> list[Command]:
        """A side's TLS failed: before the target's was established, the layer inside can still say so."""
        commands = self.flush()
        if side is Side.UPSTREAM and shaking:
            return commands + self.fail(f"TLS of the target failed: {error.reason}", unverified=error.unverified)
        return commands + self.tell(Ended(side, clean=False))

    def wrap(self, commands: list[Command]) -> list[Command]:
        """Encrypt what the layer inside sends."""
        wrapped: list[Command] = []
        for command in commands:
            match command:
                case Send():
                    wrapped += self._encrypt(command)
                case Finish():
                    wrapped += self._finish(command.side)
                case Close(abort=False):
                    for side in Side:
                        wrapped += self._finish(side, alone=False)
                    wrapped.append(command)
                case Dial():
                    self.decision = command.decision
                    self._endpoints[Side.UPSTREAM] = None
                    wrapped.append(command)
                case Secure() if self._secure is not None:
                    wrapped += self._secure(command)
                case _:
                    wrapped.append(command)
        return wrapped

    def _encrypt(self, command: Send) -> list[Command]:
        if command.side in self.clear:
            return [command]
        endpoint = self._endpoints[command.side]
        if endpoint is None:
            return []
        if command.side is Side.UPSTREAM:
            self.decision = command.decision
        else:
            self._transcript.written_inside(command.data)
        try:
            endpoint.send(command.data)
        except TlsFailure:
            return [Close(abort=True)]
        return self.flush()

    def _finish(self, side: Side, *, alone: bool = True) -> list[Command]:
        if side in self.clear:
            return [Finish(side)] if alone else []
        endpoint = self._endpoints[side]
        if endpoint is None:
            return []
        endpoint.close()
        return [*self.flush(), *([Finish(side)] if alone else [])]

    def flush(self) -> list[Command]:
        """Send the ciphertext that is due."""
        commands: list[Command] = []
        client, upstream = self._endpoints
        if client is not None and client.due:
            commands.append(Send(Side.CLIENT, client.take()))
        if upstream is not None and upstream.due:
            commands.append(Send(Side.UPSTREAM, upstream.take(), self.decision))
        return commands
