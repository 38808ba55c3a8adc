"""TLS in the middle: two connections of TLS, and between them a layer that sees the plaintext.

What lives here: the ClientHello, handshakes, ALPN, close_notify. What must not: certificates (enforcer/tls/), what is inside.

The agent's side is answered at once, with a leaf for the name that it asks for; the target is dialled, and its certificate
verified for that name, when the layer inside wants it: after a decision. So nothing that is refused, or held for approval, was
ever seen by the target; and why a target was not believed can be told in the agent's own protocol.

The target is offered what was agreed on with the agent, and nothing else: if it does not speak that, it is not believed to
understand what follows. HTTP/2 alone can be translated: with it goes HTTP/1.1. A target that chose that is remembered, and
agents that offer both are then given the same; so they get HTTP/2 where the target has it, and no target is asked before a
decision.

An Encrypted Client Hello is rejected in its protocol's own way (RFC 9849 7.1): the agent's side sees the outer name's
certificate, and a client that meant another name gives up. Without opening TLS nobody can tell whether it means one, hence no
passthrough for it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from ssl import SSLContext
from typing import Final, Protocol

from capd.enforcer.proxy.commands import Arm, Ask, Close, Command, Dial, Refused, Send
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
from capd.enforcer.proxy.greeting import (
    ALERT_DECODE_ERROR,
    ALERT_UNRECOGNIZED_NAME,
    HANDSHAKE_SECONDS,
    Greeting,
    GreetingError,
    Normalise,
    fatal_alert,
)
from capd.enforcer.proxy.layer import Layer, Surroundings
from capd.enforcer.proxy.opaque import OpaqueLayer
from capd.enforcer.proxy.question import Destination, Kind, Question
from capd.enforcer.proxy.tls_sides import TlsSides
from capd.enforcer.tls.endpoint import Endpoint
from capd.enforcer.tls.errors import TlsFailure

HTTP1: Final = "http/1.1"
HTTP2: Final = "h2"
UNSPOKEN: Final = frozenset({"h2c", "h3", "spdy/3", "spdy/3.1"})
"""What the enforcer cannot judge, so it is never agreed on."""
ALERT_ACCESS_DENIED: Final = 49
ALERT_NO_APPLICATION_PROTOCOL: Final = 120
"""RFC 8446 6."""


class Contexts(Protocol):
    """Where contexts of OpenSSL come from (enforcer/tls/contexts.py)."""

    def leaf(self, name: str, application_protocol: str | None) -> SSLContext:
        """Give what to show to an agent. Raises ValueError: the name cannot stand in a certificate."""

    def upstream(self, application_protocols: Sequence[str], name: str | None) -> SSLContext:
        """Give what to verify a target with."""

    def speaks_http2(self, name: str, destination: Destination) -> bool:
        """Say whether a target may speak HTTP/2, as far as it is known."""

    def learn(self, name: str, destination: Destination, *, http2: bool) -> None:
        """Remember what a target chose."""


Inside = Callable[[Surroundings, str | None], Layer]
"""Makes the layer inside, for the application protocol that was agreed on."""


class TlsLayer(Layer):
    """Opens TLS, or relays it unread where a rule says so."""

    def __init__(self, around: Surroundings, contexts: Contexts, inside: Inside, normalise: Normalise) -> None:
        self._around, self._contexts, self._make_inside = around, contexts, inside
        self._greeting = Greeting(normalise)
        self._asked = 0
        self._decision = 0
        self._sides = TlsSides(self._proven, around.transcript)
        self._agreed: str | None = None
        self._unread: OpaqueLayer | None = None

    def wants(self, side: Side) -> bool:
        """Ask the layer inside; before there is one, a client that has said enough waits."""
        if self._sides.inside is not None:
            return self._sides.inside.wants(side)
        return side is Side.UPSTREAM or not self._greeting.full

    def replies(self) -> bool:
        """Ask the layer inside."""
        return self._sides.inside is not None and self._sides.inside.replies()

    def plain_bytes(self, side: Side) -> int:
        """Ask who has the bytes next."""
        if self._unread is not None:
            return self._unread.plain_bytes(side)
        return 0 if self._sides.inside is None else self._sides.plain_bytes(side)

    def waiting_bytes(self) -> int:
        """Ask the layer inside; before there is one, count the ClientHello."""
        return len(self._greeting.held) if self._sides.inside is None else self._sides.inside.waiting_bytes()

    def handle(self, event: Event) -> list[Command]:
        """Take an event."""
        if self._unread is not None:
            return self._unread.handle(event)
        if self._sides.inside is None:
            return self._before(event)
        if isinstance(event, Dialled) and self._sides.decision:
            return self._begin_upstream()
        return self._sides.handle(event)

    def _before(self, event: Event) -> list[Command]:
        """Take an event before the agent's side is established."""
        match event:
            case Data(side=Side.CLIENT):
                return self._greeted(event.data)
            case Decided():
                return self._decided(event)
            case Dialled() if self._decision:
                return self._relay_unread()
            case DialFailed():
                return [Send(Side.CLIENT, fatal_alert(ALERT_ACCESS_DENIED)), Close()]
            case Expired(timer=Timer.DEADLINE):
                return self._refuse("the TLS handshake took too long", ALERT_DECODE_ERROR)
            case Ended():
                return [Close(abort=True)]
        return [Arm(Timer.DEADLINE, HANDSHAKE_SECONDS)]

    # -- before the handshake --------------------------------------------------------------------------------------------------

    def _greeted(self, data: bytes) -> list[Command]:
        """Read the ClientHello and ask whether it may pass unread."""
        try:
            whole = self._greeting.add(data)
        except GreetingError as error:
            return self._refuse(error.reason, error.alert)
        if self._client is not None:
            return self._shake_hands()
        hello = self._greeting.hello
        if not whole or hello is None:
            return []
        self._around = replace(self._around, server_name=self._greeting.server_name)
        if hello.encrypted:
            return self._open()
        self._asked = next(self._around.numbers)
        question = Question(
            number=self._asked,
            kind=Kind.PASSTHROUGH,
            destination=self._around.destination,
            protocol="tls",
            server_name=self._around.server_name,
        )
        return [Ask(question)]

    def _decided(self, event: Decided) -> list[Command]:
        if not self._asked or self._decision or event.verdict.number != self._asked:
            return []
        if event.verdict.allowed:
            self._decision = self._asked
            return [Arm(Timer.DEADLINE, None), Dial(self._asked)]
        return self._open()

    def _relay_unread(self) -> list[Command]:
        self._unread = OpaqueLayer(self._decision)
        return self._unread.handle(Data(Side.CLIENT, self._greeting.take()))

    def _open(self) -> list[Command]:
        """Answer the agent in the target's name."""
        assert self._greeting.hello is not None
        offered = self._greeting.hello.alpn
        speakable = [protocol for protocol in offered if protocol.isascii() and protocol.lower() not in UNSPOKEN]
        if offered and not speakable:
            reason = f"the client speaks {', '.join(offered)} only, which cannot be judged"
            return self._refuse(reason, ALERT_NO_APPLICATION_PROTOCOL)
        self._agreed = self._agree(speakable)
        try:
            endpoint = Endpoint(self._contexts.leaf(self._host, self._agreed), server_side=True)
        except ValueError as error:
            return self._refuse(str(error), ALERT_UNRECOGNIZED_NAME)
        self._around.transcript.open()
        self._sides.begin(Side.CLIENT, endpoint)
        return self._shake_hands()

    def _agree(self, speakable: Sequence[str]) -> str | None:
        """Choose what to speak: HTTP/2 before HTTP/1.1, unless the target was found to have only that."""
        if HTTP2 in speakable:
            known = self._contexts.speaks_http2(self._host, self._around.destination)
            return HTTP2 if known or HTTP1 not in speakable else HTTP1
        return HTTP1 if HTTP1 in speakable else next(iter(speakable), None)

    @property
    def _host(self) -> str:
        return self._around.server_name or self._around.destination.address

    @property
    def _client(self) -> Endpoint | None:
        return self._sides.endpoint(Side.CLIENT)

    def _shake_hands(self) -> list[Command]:
        client, sides = self._client, self._sides
        assert client is not None
        try:
            plaintext = client.receive(self._greeting.take())
        except TlsFailure as error:
            reason = f"the client ended the TLS handshake: {error.reason}; does it trust capd's authority?"
            return [*sides.flush(), Refused(next(self._around.numbers), reason, self._name), Close()]
        commands = sides.flush()
        if not client.established:
            return commands
        sides.inside = self._make_inside(replace(self._around, inspected=True), self._agreed)
        commands += [Arm(Timer.DEADLINE, None), *sides.tell(Started())]
        if plaintext:
            commands += sides.tell(Data(Side.CLIENT, plaintext))
        if client.ended:
            commands += sides.tell(Ended(Side.CLIENT))
        return commands

    def _refuse(self, reason: str, alert: int) -> list[Command]:
        refused = Refused(next(self._around.numbers), reason, self._name)
        return [refused, Send(Side.CLIENT, fatal_alert(alert)), Close()]

    @property
    def _name(self) -> str:
        return f"TLS to {self._greeting.asked_for or self._around.destination.address}"

    # -- after it --------------------------------------------------------------------------------------------------------------

    def _begin_upstream(self) -> list[Command]:
        name = self._around.server_name
        offered = [HTTP2, HTTP1] if self._agreed == HTTP2 else [self._agreed] if self._agreed else []
        context = self._contexts.upstream(offered, name)
        endpoint = Endpoint(context, server_side=False, server_name=name or self._around.destination.address)
        self._sides.begin(Side.UPSTREAM, endpoint)
        return self._sides.flush()

    def _proven(self, side: Side) -> list[Command]:
        """The target's handshake is done."""
        upstream = self._sides.endpoint(side)
        assert side is Side.UPSTREAM
        assert upstream is not None
        agreed = upstream.application_protocol
        if self._agreed == HTTP2:
            self._contexts.learn(self._host, self._around.destination, http2=agreed == HTTP2)
        elif self._agreed not in (agreed, HTTP1):
            return self._sides.fail(f"the target does not speak {self._agreed}", unverified=True)
        return self._sides.tell(Dialled(agreed, upstream.certificate))
