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

from capd.decoders.message import ProtocolError
from capd.decoders.tls import ClientHello, client_hello, hello_wants
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
from capd.enforcer.proxy.question import Destination, Kind, Question
from capd.enforcer.tls.endpoint import Endpoint
from capd.enforcer.tls.errors import TlsFailure

HANDSHAKE_SECONDS: Final = 20.0
"""From the first byte of a ClientHello to the end of the agent's handshake; there is no network between."""
HTTP1: Final = "http/1.1"
HTTP2: Final = "h2"
UNSPOKEN: Final = frozenset({"h2c", "h3", "spdy/3", "spdy/3.1"})
"""What the enforcer cannot judge, so it is never agreed on."""
HELD_BYTES_MAX: Final = 131_072
"""Of a client that goes on before its ClientHello is answered; twice what a ClientHello may have."""
ALERT_ACCESS_DENIED: Final = 49
ALERT_DECODE_ERROR: Final = 50
ALERT_UNRECOGNIZED_NAME: Final = 112
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
Normalise = Callable[[str], str]
"""Gives the one form of a name in which it is judged; raises ValueError for what has none."""


def fatal_alert(description: int) -> bytes:
    """Give a fatal alert in clear, as it may stand in the place of a ServerHello (RFC 8446 6.2)."""
    return bytes((21, 3, 3, 0, 2, 2, description))


class TlsLayer(Layer):
    """Opens TLS, or relays it unread where a rule says so."""

    def __init__(self, around: Surroundings, contexts: Contexts, inside: Inside, normalise: Normalise) -> None:
        self._around, self._contexts, self._make_inside, self._normalise = around, contexts, inside, normalise
        self._hello = ClientHello()
        self._held = b""
        self._wanted = 0
        self._asked = 0
        self._client: Endpoint | None = None
        self._upstream: Endpoint | None = None
        self._inside: Layer | None = None
        self._decision = 0
        self._agreed: str | None = None
        self._unread: OpaqueLayer | None = None

    def wants(self, side: Side) -> bool:
        """Ask the layer inside; before there is one, a client that has said enough waits."""
        if self._inside is not None:
            return self._inside.wants(side)
        return side is Side.UPSTREAM or len(self._held) < HELD_BYTES_MAX

    def replies(self) -> bool:
        """Ask the layer inside."""
        return self._inside is not None and self._inside.replies()

    def handle(self, event: Event) -> list[Command]:
        """Take an event."""
        if self._unread is not None:
            return self._unread.handle(event)
        return self._before(event) if self._inside is None else self._within(event)

    def _before(self, event: Event) -> list[Command]:
        """Take an event before the agent's side is established."""
        match event:
            case Data(side=Side.CLIENT):
                self._held += event.data
                return self._greet() if self._client is None else self._shake_hands()
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

    def _greet(self) -> list[Command]:
        """Read the ClientHello and ask whether it may pass unread."""
        if self._asked or len(self._held) < self._wanted:
            return []
        try:
            hello = client_hello(self._held)
            if hello is None:
                self._wanted = hello_wants(self._held)
                return []
            name = None if hello.server_name is None else self._normalise(hello.server_name)
        except ProtocolError as error:
            return self._refuse(error.reason, ALERT_DECODE_ERROR)
        except ValueError as error:
            return self._refuse(str(error), ALERT_UNRECOGNIZED_NAME)
        self._hello = hello
        self._around = replace(self._around, server_name=name)
        if hello.encrypted:
            return self._open()
        self._asked = next(self._around.numbers)
        question = Question(
            number=self._asked,
            kind=Kind.PASSTHROUGH,
            destination=self._around.destination,
            protocol="tls",
            server_name=name,
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
        held, self._held = self._held, b""
        return self._unread.handle(Data(Side.CLIENT, held))

    def _open(self) -> list[Command]:
        """Answer the agent in the target's name."""
        offered = self._hello.alpn
        speakable = [protocol for protocol in offered if protocol.isascii() and protocol.lower() not in UNSPOKEN]
        if offered and not speakable:
            reason = f"the client speaks {', '.join(offered)} only, which cannot be judged"
            return self._refuse(reason, ALERT_NO_APPLICATION_PROTOCOL)
        name = self._host
        self._agreed = self._agree(speakable)
        try:
            self._client = Endpoint(self._contexts.leaf(name, self._agreed), server_side=True)
        except ValueError as error:
            return self._refuse(str(error), ALERT_UNRECOGNIZED_NAME)
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

    def _shake_hands(self) -> list[Command]:
        assert self._client is not None
        held, self._held = self._held, b""
        try:
            plaintext = self._client.receive(held)
        except TlsFailure as error:
            reason = f"the client ended the TLS handshake: {error.reason}; does it trust capd's authority?"
            return [*self._flush(), Refused(next(self._around.numbers), reason, self._name), Close()]
        commands = self._flush()
        if not self._client.established:
            return commands
        self._inside = self._make_inside(replace(self._around, inspected=True), self._agreed)
        commands += [Arm(Timer.DEADLINE, None), *self._wrap(self._inside.handle(Started()))]
        if plaintext:
            commands += self._wrap(self._inside.handle(Data(Side.CLIENT, plaintext)))
        if self._client.ended:
            commands += self._wrap(self._inside.handle(Ended(Side.CLIENT)))
        return commands

    def _refuse(self, reason: str, alert: int) -> list[Command]:
        refused = Refused(next(self._around.numbers), reason, self._name)
        return [refused, Send(Side.CLIENT, fatal_alert(alert)), Close()]

    @property
    def _name(self) -> str:
        return f"TLS to {self._around.server_name or self._hello.server_name or self._around.destination.address}"

    # -- after it --------------------------------------------------------------------------------------------------------------

    def _within(self, event: Event) -> list[Command]:
        """Give the layer inside what it would see if there were no TLS."""
        match event:
            case Data():
                return self._decrypt(event)
            case Ended():
                return self._ciphertext_ended(event)
            case Dialled() if self._decision:
                return self._begin_upstream()
            case DialFailed():
                self._upstream = None
        return self._wrap(self._inner(event))

    def _inner(self, event: Event) -> list[Command]:
        assert self._inside is not None
        return self._inside.handle(event)

    def _decrypt(self, event: Data) -> list[Command]:
        endpoint = self._speaking(event.side)
        if endpoint is None:
            return []
        shaking = self._shaking(event.side)
        try:
            plaintext = endpoint.receive(event.data)
        except TlsFailure as error:
            return self._broken(event.side, shaking, error)
        commands: list[Command] = []
        if shaking and not self._shaking(event.side):
            commands += self._proven()
            if self._upstream is None:
                return commands
        if plaintext:
            commands += self._wrap(self._inner(Data(event.side, plaintext)))
        if endpoint.ended:
            commands += self._wrap(self._inner(Ended(event.side)))
        return commands + self._flush()

    def _ciphertext_ended(self, event: Ended) -> list[Command]:
        endpoint = self._speaking(event.side)
        if endpoint is None:
            return []
        if self._shaking(event.side):
            return self._broken(event.side, True, TlsFailure("the connection was closed during the handshake"))
        return self._wrap(self._inner(Ended(event.side, clean=False)))

    def _speaking(self, side: Side) -> Endpoint | None:
        """Give a side's endpoint unless it has said that it will say no more."""
        endpoint = self._client if side is Side.CLIENT else self._upstream
        return None if endpoint is None or endpoint.ended else endpoint

    def _shaking(self, side: Side) -> bool:
        """Say whether the handshake of a side is under way."""
        endpoint = self._client if side is Side.CLIENT else self._upstream
        return endpoint is not None and not endpoint.established

    def _broken(self, side: Side, shaking: bool, error: TlsFailure) -> list[Command]:
        """A side's TLS failed: before it was established, the layer inside can still say so."""
        commands = self._flush()
        if side is Side.UPSTREAM and shaking:
            self._upstream = None
            reason = f"TLS of the target failed: {error.reason}"
            return commands + self._wrap(self._inner(DialFailed(reason, refused=error.unverified)))
        return commands + self._wrap(self._inner(Ended(side, clean=False)))

    def _begin_upstream(self) -> list[Command]:
        name = self._around.server_name
        offered = [HTTP2, HTTP1] if self._agreed == HTTP2 else [self._agreed] if self._agreed else []
        context = self._contexts.upstream(offered, name)
        self._upstream = Endpoint(context, server_side=False, server_name=name or self._around.destination.address)
        return self._flush()

    def _proven(self) -> list[Command]:
        """The target's handshake is done."""
        assert self._upstream is not None
        agreed = self._upstream.application_protocol
        if self._agreed == HTTP2:
            self._contexts.learn(self._host, self._around.destination, http2=agreed == HTTP2)
        elif self._agreed not in (agreed, HTTP1):
            self._upstream = None
            return self._wrap(self._inner(DialFailed(f"the target does not speak {self._agreed}", refused=True)))
        return self._wrap(self._inner(Dialled(agreed)))

    def _wrap(self, commands: list[Command]) -> list[Command]:
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
                    self._decision = command.decision
                    self._upstream = None
                    wrapped.append(command)
                case _:
                    wrapped.append(command)
        return wrapped

    def _encrypt(self, command: Send) -> list[Command]:
        endpoint = self._client if command.side is Side.CLIENT else self._upstream
        if endpoint is None:
            return []
        if command.side is Side.UPSTREAM:
            self._decision = command.decision
        try:
            endpoint.send(command.data)
        except TlsFailure:
            return [Close(abort=True)]
        return self._flush()

    def _finish(self, side: Side, *, alone: bool = True) -> list[Command]:
        endpoint = self._client if side is Side.CLIENT else self._upstream
        if endpoint is None:
            return []
        endpoint.close()
        return [*self._flush(), *([Finish(side)] if alone else [])]

    def _flush(self) -> list[Command]:
        """Send the ciphertext that is due."""
        commands: list[Command] = []
        if self._client is not None and (due := self._client.take()):
            commands.append(Send(Side.CLIENT, due))
        if self._upstream is not None and (due := self._upstream.take()):
            commands.append(Send(Side.UPSTREAM, due, self._decision))
        return commands
