"""From a session's application bytes to its protocol's messages.

What lives here: detection, the decoder of one session, building it anew after a restart. What must not: records, how messages
are put together for a reader.

Directions outside are the agent's (0 request, 1 response); a decoder's are those of the connection. They differ where the peer
opened the connection, and `SessionState.swapped` says so.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final, cast

import msgpack

from capd.daemon.assembly.state import DIRECTIONS, REQUEST, RESPONSE, SessionState
from capd.decoders.detect import detect
from capd.decoders.http2.frames import PREFACE
from capd.decoders.message import NEED_DATA, Decoder, Direction, Gap, Message, ProtocolError, Restorable, Skipped
from capd.decoders.registry import decoder_for
from capd.probes.layouts import Role

PREFIX_BYTES: Final = 4096
"""Bytes of each direction that detection looks at; with that many and no answer the protocol is unknown."""
PENDING_MAX: Final = 4096
"""Pieces that may wait for detection: one byte at a time is the worst case."""
UNKNOWN: Final = "unknown"
DATAGRAM_PROTOCOLS: Final = {53: "dns", 123: "ntp", 443: "quic"}
"""Names by port, for datagrams, whose bytes capd does not look into yet."""
BEGUN: Final = frozenset({"http2"})
"""Protocols that say that they begin, and can be followed from later on."""
SWITCHED: Final = {"h2c": "http2", "websocket": "websocket"}
"""Protocols that an exchange of HTTP/1 may go over to (RFC 9110 section 7.8), by the name in its Upgrade field."""
SWITCHING: Final = 101
STARTED_BEFORE: Final = "the connection began before capture"
OVER_TLS: Final = frozenset({"postgresql", "smtp", "imap", "ldap", "mysql"})
"""Protocols that turn into TLS in mid-conversation and go on with their own state. After any other preamble (a proxy's CONNECT,
say) what is inside TLS is a conversation of its own."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """The decoder gave up one direction.

    Attributes:
        direction: the decoder's.
        offset: the decoder's offset in it.
        reason: what is wrong there.
        ours: True when the decoder itself failed, which is a defect of capd.
    """

    direction: Direction
    offset: int
    reason: str
    ours: bool = False


Decoded = Message | Skipped | Failure
_DIRECTIONS: Final = tuple(Direction)


@dataclass(slots=True)
class Decoding:
    """The decoder of one session, from undecided to decided.

    Attributes:
        state: the session; `protocol`, `swapped` and `base` in it are written here.
        decoder: None while undecided, and for protocols that capd labels but does not decode.
        decided: whether the protocol is decided.
        pending: what waits for detection, in order.
        saved: state of the decoder, from a snapshot.
    """

    state: SessionState
    decoder: Decoder | None = None
    decided: bool = False
    saved: bytes | None = None
    pending: list[tuple[int, bytes | Gap]] = field(default_factory=list)
    _prefixes: list[bytearray] = field(default_factory=lambda: [bytearray(), bytearray()])
    _switching: list[Message] = field(default_factory=list)
    """What came of a protocol that HTTP/1 went over to, until nothing more of HTTP/1 comes."""
    _agreed: str = ""
    """Extensions of WebSocket that the latest answer named."""
    _asked: bool = True
    """Whether the latest request came to its end."""
    _fed: list[int] = field(default_factory=lambda: [0, 0])
    """How far the decoder got in each direction, from the base on."""

    @property
    def wants(self) -> bool:
        """Whether it makes sense to feed it."""
        return self.decoder is not None or not self.decided

    def feed(self, direction: int, data: bytes | Gap) -> Iterator[Decoded]:
        """Take the next application bytes of a direction, a gap, or `b""` for its end, and give what became whole.

        Everything must be taken from the result before the next call.
        """
        if self.decoder is not None:
            return self._decode(direction, data)
        if not self.decided:
            self.pending.append((direction, data))
            if isinstance(data, bytes):
                prefix = self._prefixes[direction]
                prefix += data[: PREFIX_BYTES - len(prefix)]
            # Bytes that are missing before any that are there say nothing; behind some, what is there is all that will tell.
            lost = isinstance(data, Gap) and any(self._prefixes)
            if self._decide(last=not data or lost or len(self.pending) >= PENDING_MAX):
                return self._catch_up()
        return iter(())

    def finish(self) -> Iterator[Decoded]:
        """The session is over: decide at last, and tell the decoder that the directions which did not end have ended now."""
        if not self.decided and self.pending and self._decide(last=True):
            yield from self._catch_up()
        if self.decoder is not None:
            for direction in DIRECTIONS:
                if not self.state.ended[direction]:
                    yield from self._decode(direction, b"")

    @property
    def goes_on_over_tls(self) -> bool:
        """Whether what comes from inside TLS continues the conversation before it."""
        return self.decided and self.state.protocol in OVER_TLS

    def restart(self) -> None:
        """Forget the protocol; what follows is a conversation of its own."""
        self.state.protocol = None
        self.state.begin_decoder(list(self.state.application))
        self.decoder = None
        self.decided = False
        self._prefixes = [bytearray(), bytearray()]
        self._fed = [0, 0]
        self._asked, self._agreed = True, ""
        self.pending = []

    def label_datagrams(self, peer: tuple[int, int, bytes] | None) -> None:
        """Datagrams are kept raw: give their protocol the name that the port suggests."""
        if self.decided:
            return
        self.decided = True
        target = self.state.target
        port = peer[1] if peer else target.get("port") if target else None
        self.state.protocol = DATAGRAM_PROTOCOLS.get(port, UNKNOWN) if isinstance(port, int) else UNKNOWN

    def resume(self) -> bool:
        """Take up the protocol that a snapshot names. True: the decoder is where it was, and not one that has seen nothing."""
        saved, self.saved = self.saved, None
        self._fed = [0, 0]
        if self.state.protocol is not None:
            self.decoder = decoder_for(self.state.protocol)
        if saved is None or not isinstance(self.decoder, Restorable):
            return False
        self.decoder.restore(cast("Sequence[object]", msgpack.unpackb(saved, use_list=False)))
        return True

    @property
    def rereads(self) -> bool:
        """Whether a decoder is brought to where it was by reading what is recorded.

        Not one that can be saved: what is masked in the recording is missing in its header table.
        """
        return not isinstance(self.decoder, Restorable)

    def save(self) -> bytes | None:
        """Give the state of the decoder, if it cannot be had otherwise. It holds what was said."""
        if not isinstance(self.decoder, Restorable):
            return self.saved
        return cast("bytes", msgpack.packb(self.decoder.save()))

    def remember(self, pending: list[tuple[int, bytes | Gap]], *, decided: bool) -> None:
        """Take what a snapshot kept; with a decided protocol, `resume` gives the decoder."""
        self.decided = decided
        self.pending = pending
        for direction, data in pending:
            if isinstance(data, bytes):
                prefix = self._prefixes[direction]
                prefix += data[: PREFIX_BYTES - len(prefix)]

    def _decide(self, *, last: bool) -> bool:
        state = self.state
        full = any(len(prefix) >= PREFIX_BYTES for prefix in self._prefixes)
        name = self._detect(swapped=state.role == Role.SERVER, ended=last or full)
        if name is None:
            return False
        self.decided = True
        state.protocol = name
        self.decoder = decoder_for(name)
        return True

    def _detect(self, *, swapped: bool, ended: bool) -> str | None:
        """Ask who speaks; where it is not known who opened the connection, ask both ways."""
        state = self.state
        request, response = (bytes(prefix) for prefix in self._prefixes)
        ours = (response, request) if swapped else (request, response)
        end = state.local if swapped else state.target
        port = end.get("port") if end else None
        name = detect(*ours, port if isinstance(port, int) else None, ended=ended)
        state.swapped = swapped
        if state.role == Role.UNKNOWN and not swapped and name == UNKNOWN:
            other = self._detect(swapped=True, ended=ended)
            if other not in (None, UNKNOWN):
                return other
            state.swapped = False
        return name

    def _catch_up(self) -> Iterator[Decoded]:
        pending, self.pending = self.pending, []
        midway = self.state.protocol in BEGUN and self.state.mid_stream and not self._begins()
        self._prefixes = [bytearray(), bytearray()]
        if midway:
            for direction in DIRECTIONS:
                yield from self._decode(direction, Gap(None, STARTED_BEFORE))
        if self.decoder is not None:
            for direction, data in pending:
                yield from self._decode(direction, data)

    def _begins(self) -> bool:
        """Whether the conversation is seen from its first byte on, as far as its bytes tell."""
        return any(prefix.startswith(PREFACE) for prefix in self._prefixes)

    def _decode(self, direction: int, data: bytes | Gap) -> Iterator[Decoded]:
        decoder = self.decoder
        if decoder is None:
            return
        self._fed[direction] += (data.length or 0) if isinstance(data, Gap) else len(data)
        try:
            decoder.receive(_DIRECTIONS[direction ^ self.state.swapped], data)
        except Exception as error:  # noqa: BLE001  # a defect in one decoder must not stop the recording of everything else
            self.decoder = None
            yield self._defect(direction, error)
            return
        next_event = decoder.next_event
        while True:
            try:
                event = next_event()
            except ProtocolError as error:
                yield Failure(direction=error.direction, offset=error.offset, reason=error.reason)
                continue
            except Exception as error:  # noqa: BLE001  # as above
                self.decoder = None
                yield self._defect(direction, error)
                return
            if event is NEED_DATA:
                break
            if isinstance(event, Message) and self._switches(event):
                self._switching.append(event)
            else:
                yield event
        if self._switching:
            yield from self._switch()

    def _switches(self, message: Message) -> bool:
        """Whether a message is of a protocol that has a decoder of its own, in both directions."""
        if message.type != "tunnel":
            if message.direction is Direction.REQUEST:
                self._asked = message.type == "end"
            elif message.fields.get("status") == SWITCHING:
                self._agreed = _extensions(message)
            return False
        return str(message.fields.get("protocol")).lower() in SWITCHED and (
            self._asked or message.direction is Direction.REQUEST
        )

    def _switch(self) -> Iterator[Decoded]:
        """Go on with the decoder of the protocol that HTTP/1 went over to; of it nothing was looked at yet."""
        state, waiting = self.state, self._switching
        self._switching = []
        begins = [base + fed for base, fed in zip(state.base, self._fed, strict=True)]
        for message in reversed(waiting):
            direction = message.direction ^ state.swapped
            begins[direction] = state.base[direction] + message.start
        state.begin_decoder(begins)
        state.protocol = SWITCHED[str(waiting[0].fields["protocol"]).lower()]
        # The request that asked for it is the first stream (RFC 7540 section 3.2).
        state.exchange_base = state.exchange_last - 1
        self.decoder = decoder_for(state.protocol, self._agreed)
        self._fed = [0, 0]
        for message in waiting:
            yield from self._decode(message.direction ^ state.swapped, message.content)

    def _defect(self, direction: int, error: Exception) -> Failure:
        offset = self.state.application[direction] - self.state.base[direction]
        reason = f"the decoder failed: {type(error).__name__}: {error}"
        return Failure(direction=Direction(direction ^ self.state.swapped), offset=offset, reason=reason, ours=True)


def _extensions(answer: Message) -> str:
    headers = cast("Sequence[Sequence[str]]", answer.fields.get("headers", ()))
    return ",".join(value for name, value in headers if name.lower() == "sec-websocket-extensions")


def opener(state: SessionState) -> int:
    """Give the direction in which the side that opened the connection speaks."""
    return RESPONSE if state.role == Role.SERVER else REQUEST
