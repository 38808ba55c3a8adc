"""TLS that a protocol asks for after some bytes in clear, on either side: around the layer of that protocol.

What lives here: both handshakes, names, verification. What must not: how a protocol asks (its layer says `Secure`, once what
asks, or grants, is sent), ALPN: a protocol that asks by itself needs none.

The agent is shown a leaf for the name in its ClientHello, or for the address. The target has to prove the name that the layer
says. Where an agent's TLS was opened, that is the agent's name: what one side has, the other has, and the layer sees to it.

Nothing in clear is taken for what came through TLS: bytes behind the request for it are the layer's to refuse, or to hand over
with `Secure` as the ciphertext that they are (CVE-2021-23214, CVE-2021-23222).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from capd.enforcer.proxy.commands import Close, Command, Refused, Secure, Send
from capd.enforcer.proxy.events import Data, Dialled, Ended, Event, Secured, Side
from capd.enforcer.proxy.greeting import ALERT_UNRECOGNIZED_NAME, Greeting, GreetingError, Normalise, fatal_alert
from capd.enforcer.proxy.layer import Layer, Surroundings
from capd.enforcer.proxy.secured import Contexts
from capd.enforcer.proxy.tls_sides import TlsSides
from capd.enforcer.tls.contexts import LeafContext
from capd.enforcer.tls.endpoint import Endpoint
from capd.enforcer.tls.errors import TlsFailure


class InBandTls(Layer):
    """Begins in clear on both sides."""

    def __init__(
        self, around: Surroundings, contexts: Contexts, inside: Callable[[Surroundings], Layer], normalise: Normalise
    ) -> None:
        """Take what makes the layer inside; `inspected` is said to it by `Secured`."""
        self._around, self._contexts, self._normalise = around, contexts, normalise
        self._inside = inside(around)
        self._sides = TlsSides(self._established, around.transcript, self._secure)
        self._sides.inside = self._inside
        self._sides.clear = set(Side)
        self._greeting: Greeting | None = None
        self._shown: bytes | None = None

    def wants(self, side: Side) -> bool:
        """Ask the layer inside; a client in its ClientHello that has said enough waits."""
        if self._greeting is not None and side is Side.CLIENT:
            return not self._greeting.full
        return self._inside.wants(side)

    def replies(self) -> bool:
        """Ask the layer inside."""
        return self._inside.replies()

    def waiting_bytes(self) -> int:
        """Ask the layer inside, and count a ClientHello."""
        return self._inside.waiting_bytes() + (0 if self._greeting is None else len(self._greeting.held))

    def successor(self) -> Layer:
        """Give the layer inside, once it is certain that there will be no TLS."""
        clear = self._greeting is None and len(self._sides.clear) == len(Side)
        return self._inside.successor() if clear and self._inside.settled else self

    def handle(self, event: Event) -> list[Command]:
        """Take an event."""
        if self._greeting is not None and isinstance(event, Data | Ended) and event.side is Side.CLIENT:
            return self._shake_hands(event)
        if isinstance(event, Dialled):
            self._sides.clear.add(Side.UPSTREAM)
        return self._sides.handle(event)

    def _secure(self, command: Secure) -> list[Command]:
        if command.side is Side.CLIENT:
            self._greeting = Greeting(self._normalise)
            return self._greeted(command.data)
        name, self._sides.decision = command.server_name, command.decision
        context = self._contexts.upstream([], name)
        endpoint = Endpoint(context, server_side=False, server_name=name or self._around.destination.address)
        self._sides.begin(Side.UPSTREAM, endpoint)
        return self._sides.flush()

    # -- the agent's handshake -------------------------------------------------------------------------------------------------

    def _shake_hands(self, event: Data | Ended) -> list[Command]:
        if isinstance(event, Data):
            return self._greeted(event.data)
        return self._failed("it was closed")

    def _greeted(self, data: bytes) -> list[Command]:
        assert self._greeting is not None
        try:
            self._greeting.add(data)
        except GreetingError as error:
            return self._refuse(error.reason, error.alert)
        if self._greeting.hello is None:
            return []
        client = self._sides.endpoint(Side.CLIENT)
        if client is None:
            self._around = replace(self._around, server_name=self._greeting.server_name)
            try:
                client = self._leaf()
            except ValueError as error:
                return self._refuse(str(error), ALERT_UNRECOGNIZED_NAME)
        return self._receive(client)

    def _leaf(self) -> Endpoint:
        name = self._around.server_name or self._around.destination.address
        context = self._contexts.leaf(name, None)
        self._shown = context.certificate if isinstance(context, LeafContext) else None
        client = Endpoint(context, server_side=True)
        self._sides.begin(Side.CLIENT, client)
        return client

    def _receive(self, client: Endpoint) -> list[Command]:
        assert self._greeting is not None
        try:
            plaintext = client.receive(self._greeting.take())
        except TlsFailure as error:
            return self._failed(f"{error.reason}; does it trust capd's authority?")
        commands = self._sides.flush()
        if not client.established:
            return commands
        self._greeting = None
        commands += self._established(Side.CLIENT)
        if plaintext:
            commands += self._sides.tell(Data(Side.CLIENT, plaintext))
        if client.ended:
            commands += self._sides.tell(Ended(Side.CLIENT))
        return commands

    def _established(self, side: Side) -> list[Command]:
        if side is Side.CLIENT:
            return self._sides.tell(Secured(side, self._around.server_name, self._shown))
        target = self._sides.endpoint(side)
        return self._sides.tell(Secured(side, certificate=None if target is None else target.certificate))

    def _failed(self, why: str) -> list[Command]:
        """The agent's handshake came to nothing: that is written down, and nothing was asked for or dialled in its name."""
        return [*self._sides.flush(), self._refused(f"the client ended the TLS handshake: {why}"), Close()]

    def _refuse(self, reason: str, alert: int) -> list[Command]:
        return [self._refused(reason), Send(Side.CLIENT, fatal_alert(alert)), Close()]

    def _refused(self, reason: str) -> Refused:
        asked = None if self._greeting is None else self._greeting.asked_for
        return Refused(next(self._around.numbers), reason, f"TLS to {asked or self._around.destination.address}")
