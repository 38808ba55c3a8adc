"""The begin of a conversation: who speaks first, and what.

What lives here: telling protocols apart and asking whether they may go on. What must not: the protocols.

The client's first bytes say what it is. Some servers speak first (MySQL, SMTP, SSH), and their clients wait; so after a short
silence it is asked whether a session with MySQL may be opened there by anybody, and if not, whether what is not decoded may
pass to this target. If either may, the target is dialled, and who speaks first then decides: the server, and its bytes say
whether it is MySQL; any other is relayed, if that may be; the client, and it is told by its bytes as before. If nothing may,
the client may just be slow: it is waited for a while longer.
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
from capd.enforcer.proxy.question import NOBODY, Kind, Question, Verdict

SILENCE_SECONDS: Final = 0.1
"""A client that speaks first does so within a round trip to this host, which is nothing."""
OPENING_SECONDS: Final = 30.0
"""Until the first bytes have said what they are: a client may be stopped in a debugger, not for ever."""
BLANKS: Final = frozenset({b"\r", b"\n", b" ", b"\t"})
REDIS: Final = "redis"
REDIS_ARRAY: Final = b"*"
"""How every command of Redis begins that is no line."""
REDIS_PORT: Final = 6379
HELD_BYTES_MAX: Final = 65_536
"""Bytes of a client that wait for a decision or for the target; then it is left to wait."""

MYSQL: Final = "mysql"
MYSQL_PORT: Final = 3306
MYSQL_SILENCE_SECONDS: Final = 0.01
"""At its port nobody is expected to speak first; who does nevertheless is judged by that, only later."""
NOT_ALLOWED: Final = b"\xff\x6a\x04capd: no session may be opened here: %s"
"""ERR 1130, as servers say it in the place of a greeting."""

NOT_ALLOWED_BYTES_MAX: Final = 256

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
        self._in_silence = self._tentative = 0
        self._session: Verdict | None = None
        self._denied: Verdict | None = None
        self._greeting = b""
        """What the server said, as long as it is not told what it is, or may be passed on."""

    def wants(self, side: Side) -> bool:
        """Leave the client to wait when it has said enough."""
        if self._next is not None:
            return self._next.wants(side)
        return side is Side.UPSTREAM or len(self._held) < HELD_BYTES_MAX

    def replies(self) -> bool:
        """Ask the layer in its place."""
        return self._next is not None and self._next.replies()

    def plain_bytes(self, side: Side) -> int:
        """Ask the layer in its place."""
        return 0 if self._next is None else self._next.plain_bytes(side)

    def waiting_bytes(self) -> int:
        """Count what is not told apart yet, or ask the layer in its place."""
        return len(self._held) + len(self._greeting) if self._next is None else self._next.waiting_bytes()

    def successor(self) -> Layer:
        """Give the layer in its place."""
        return self if self._next is None else self._next.successor()

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
        at_mysql = self._around.destination.port == MYSQL_PORT and MYSQL in self._protocols
        silence = MYSQL_SILENCE_SECONDS if at_mysql else SILENCE_SECONDS
        return [Arm(Timer.SILENCE, silence), Arm(Timer.DEADLINE, OPENING_SECONDS)]

    def _client_did(self, event: Data | Ended) -> list[Command]:
        if isinstance(event, Data):
            self._held += event.data
        elif event.clean:
            self._client_ended = True
        else:
            return [Close(abort=True)]
        return self._look()

    def _server_did(self, event: Data | Ended) -> list[Command]:
        if isinstance(event, Ended) or (self._opaque is None and self._session is None):
            return [Close(abort=True)]
        if self._opaque is not None:
            commands = self._relay()
            assert self._next is not None
            return [*commands, *self._next.handle(event)]
        self._greeting += event.data
        return self._greeted()

    def _greeted(self) -> list[Command]:
        """See what the server is that spoke first."""
        if self._asked is not None:
            return []
        # Whatever the client has said meanwhile: what a server of MySQL greets is a session with it.
        protocol = detect(b"", self._greeting, None, ended=bool(self._held) or len(self._greeting) > HELD_BYTES_MAX)
        if protocol is None:
            return []
        if protocol != MYSQL:
            return self._ask_opaque(protocol)
        greeting, self._greeting = self._greeting, b""
        commands = [Arm(Timer.SILENCE, None), *self._become(self._protocols[MYSQL](True))]
        assert self._next is not None
        return [*commands, *self._next.handle(Data(Side.UPSTREAM, greeting))]

    def _look(self) -> list[Command]:
        """See what the client's bytes are, unless an answer is waited for."""
        if self._asked is not None or (self._may_dial and not self._dialled):
            return []
        if self._greeting:
            return self._greeted()
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
            return REDIS if found not in self._protocols and self._may_be_redis else found
        possible = candidates(self._held, b"") & self._protocols.keys()
        if possible == {REDIS} and self._held[:1] != REDIS_ARRAY:
            # A line may be any protocol's; only its answer would tell, and there is none before it is sent.
            return REDIS if self._may_be_redis else UNKNOWN
        return None if possible else REDIS if self._may_be_redis else UNKNOWN

    @property
    def _may_be_redis(self) -> bool:
        """Redis takes any line for a command, answers with an error, and goes on; and arrays of other lengths for none."""
        at_its_port = self._around.destination.port == REDIS_PORT
        return REDIS in self._protocols and (at_its_port or self._held[:1] == REDIS_ARRAY)

    def _nothing_said(self) -> list[Command]:
        """The client only listens."""
        if self._dialled:
            return [Finish(Side.UPSTREAM)]
        return [Close(abort=True)] if self._in_silence or self._tentative else self._ask_in_silence()

    @property
    def _may_dial(self) -> bool:
        return self._opaque is not None or self._session is not None

    def _become(self, layer: Layer) -> list[Command]:
        """Put a layer in place and give it what was held."""
        self._next = layer
        # From now on it is that layer: every event is asked and told there without a detour.
        self.handle, self.wants, self.replies = layer.handle, layer.wants, layer.replies  # type: ignore[method-assign] # as said
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
        if asked.number == self._tentative:
            return self._decided_tentatively(verdict)
        if verdict.allowed:
            self._opaque = verdict
            if self._greeting:
                greeting, self._greeting = self._greeting, b""
                commands = self._relay()
                assert self._next is not None
                return [*commands, *self._next.handle(Data(Side.UPSTREAM, greeting))]
            return self._was_dialled() if self._dialled else [Dial(verdict.number)]
        if asked.number == self._in_silence and not self._held and self._around.destination.port == MYSQL_PORT:
            return self._refuse_mysql()
        return self._look() if asked.number == self._in_silence else [Close(abort=True)]

    def _refuse_mysql(self) -> list[Command]:
        """Tell a client that waits at the port of MySQL, where it may open nothing, what a server would tell it."""
        denied = self._denied
        words = b"" if denied is None else (denied.message or denied.reason).encode("utf-8", "replace")[:NOT_ALLOWED_BYTES_MAX]
        body = NOT_ALLOWED % words
        return [Send(Side.CLIENT, len(body).to_bytes(3, "little") + b"\0" + body), Close()]

    def _decided_tentatively(self, verdict: Verdict) -> list[Command]:
        """Take whether a session with MySQL may be opened by anybody."""
        if self._held:
            return self._look()
        if verdict.allowed:
            self._session = verdict
            return [Dial(verdict.number)]
        self._denied = verdict
        return self._ask_opaque_in_silence()

    def _was_dialled(self) -> list[Command]:
        if not self._may_dial:
            return []
        self._dialled = True
        if self._opaque is None:
            return self._look()
        if not self._held:
            return [Arm(Timer.DEADLINE, None), *(self._nothing_said() if self._client_ended else [])]
        spoken = self._spoken()
        if spoken is None or spoken in self._protocols or self._held[:1] in BLANKS:
            return self._look()
        return self._relay()

    def _relay(self) -> list[Command]:
        assert self._opaque is not None
        relay = OpaqueLayer(self._opaque.number, self._around)
        return [Arm(Timer.SILENCE, None), Arm(Timer.DEADLINE, None), *self._become(relay)]

    def _expired(self, timer: Timer) -> list[Command]:
        if timer is Timer.DEADLINE and self._session is not None and self._dialled and not self._held + self._greeting:
            # Neither side says anything, which is no session of MySQL.
            return [] if self._asked is not None or self._in_silence else self._ask_opaque_in_silence()
        if timer is Timer.DEADLINE:
            reason = "nothing was said that tells what it is"
            return [Refused(next(self._around.numbers), reason, ""), Close(abort=True)]
        return [] if self._held or self._in_silence or self._tentative else self._ask_in_silence()

    def _ask_in_silence(self) -> list[Command]:
        if MYSQL not in self._protocols:
            return self._ask_opaque_in_silence()
        self._tentative = next(self._around.numbers)
        self._asked = Question(
            number=self._tentative,
            kind=Kind.SESSION,
            destination=self._around.destination,
            protocol=MYSQL,
            server_name=self._around.server_name,
            inspected=self._around.inspected,
            login=NOBODY,
            carries_out=True,
        )
        return [Ask(self._asked)]

    def _ask_opaque_in_silence(self) -> list[Command]:
        commands = self._ask_opaque(UNKNOWN)
        assert self._asked is not None
        self._in_silence = self._asked.number
        return commands
