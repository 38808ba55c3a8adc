"""What agents say in a case, as the journal blocks that a daemon would make of it.

What lives here: conversations, whole ones and ones that go on over many turns of the drain. What must not: roles, faults.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final
from uuid import UUID

from hpack import Encoder

from capd.probes.layouts import Library, Tie
from capd.recording.journal import Block
from tests.assembly.test_snapshot import http_events
from tests.assembly.world import (
    MS,
    REQUEST,
    RESPONSE,
    Daemon,
    closed,
    executed,
    moved,
    opened,
    tls_closed,
    tls_opened,
)
from tests.decoders import http2_bytes as h2

FORM: Final = 2
"""Of the notes that a daemon of today writes; 1 had none of `drained`."""
TURN_NS: Final = 400 * MS
"""Long enough that within some turns all patience of the assembler ends."""
HTTP2: Final = 0.3
"""Share of conversations that go on over many turns that are HTTP/2."""
LOST: Final = 0.03
"""Share of events that did not find room in the ring."""


@dataclass(slots=True, kw_only=True)
class Conversation:
    """One that is going on."""

    socket: int
    stream: int
    """Of TLS; 0: it is in clear."""
    untied: bool
    """The probes did not see at once which socket the stream belongs to."""
    pieces: Iterator[tuple[int, bytes]]
    said: list[int] = field(default_factory=lambda: [0, 0])

    def piece(self, time_ns: int, *, tied: bool) -> bytes | None:
        """Give the event of what is said next; None at the end."""
        direction, payload = next(self.pieces, (0, b""))
        if not payload:
            return None
        at = self.said[direction]
        self.said[direction] += len(payload)
        if not self.stream:
            return moved(time_ns, self.socket, direction, at, payload)
        socket = self.socket if tied else 0
        tie = Tie.NESTED if tied else Tie.NONE
        return moved(time_ns, self.stream, direction, at, payload, tls=True, socket=socket, tie=tie, library=Library.OPENSSL)

    def end(self, time_ns: int) -> list[bytes]:
        """Give the events of its end."""
        if not self.stream:
            return [closed(time_ns, self.socket, self.said[0], self.said[1])]
        return [
            tls_closed(time_ns, self.stream, self.socket, *self.said),
            closed(time_ns + 1, self.socket, 0, 0),
        ]


class Agents:
    """The agents of a host, and the daemon that hears them."""

    def __init__(self, chance: random.Random, boot: UUID) -> None:
        self._chance = chance
        self._daemon = Daemon()
        self._form = chance.choice([None, FORM, FORM])
        self._time_ns, self._socket = 10 * MS, 1_000
        self._open: list[Conversation] = []
        self.begin = self.started(1, boot)

    def started(self, time_ns: int | None, boot: UUID) -> list[Block]:
        """Give what a daemon writes when it starts (boot clock; None: now)."""
        now_ns = self._time_ns if time_ns is None else time_ns
        self._open.clear()
        started = self._daemon.started(now_ns, epoch=UUID(int=self._chance.getrandbits(128)), boot=boot, form=self._form)
        return started + self._daemon.run_started(now_ns + 1)

    def chapter(self) -> Iterator[Block]:
        """Some conversations, whole, each in several drains."""
        control = [executed(self._time_ns, b"/bin/agent", b"agent")]
        for _ in range(self._chance.randint(1, 4)):
            self._socket += 1
            events, ends = http_events(self._time_ns, self._socket)
            cut = self._chance.randint(1, len(events) - 1)
            self._time_ns += MS
            control.append(opened(self._time_ns - MS, self._socket))
            yield from self._daemon.cycle(self._time_ns, control=control, data=events[:cut])
            yield from self._daemon.cycle(self._time_ns + MS, data=events[cut:])
            self._time_ns += 2 * MS
            yield from self._daemon.cycle(self._time_ns, control=[closed(self._time_ns, self._socket, *ends)])
            yield from self._drained()
            self._time_ns += MS
            control = []

    def turn(self) -> Iterator[Block]:
        """One turn of the drain: conversations begin, go on and end, in any order."""
        chance, began_ns = self._chance, self._time_ns
        control: list[bytes] = []
        data: list[tuple[int, bytes]] = []
        if not self._open or chance.random() < 0.3:
            self._open.append(self._new())
            self._announce(self._open[-1], control)
        if chance.random() < 0.3:
            name = chance.choice([b"/bin/agent", b"/bin/other"])
            control.append(executed(self._moment(), name, name))
        ends = False
        for conversation in list(self._open):
            if not self._speak(conversation, data) or chance.random() < 0.1:
                self._open.remove(conversation)
                if not conversation.stream and chance.random() < 0.5:
                    end_ns = began_ns + TURN_NS - 4
                    data += [(end_ns, moved(end_ns, conversation.socket, *at, b"")) for at in enumerate(conversation.said)]
                control += conversation.end(began_ns + TURN_NS - 2)
                ends = True
        self._time_ns = began_ns + TURN_NS
        yield from self._daemon.cycle(
            self._time_ns,
            control=control,
            data=[event for _, event in sorted(data)],
        )
        if ends:
            yield from self._drained()

    def _moment(self) -> int:
        return self._time_ns + self._chance.randrange(TURN_NS)

    def _new(self) -> Conversation:
        self._socket += 1
        secret = self._chance.random() < 0.4
        return Conversation(
            socket=self._socket,
            stream=self._socket + 1_000_000 if secret else 0,
            untied=self._chance.random() < 0.5,
            pieces=_pieces(self._chance),
        )

    def _announce(self, conversation: Conversation, control: list[bytes]) -> None:
        """A connection is there; often it is told with a time at which something was said already."""
        control.append(opened(self._moment(), conversation.socket))
        if conversation.stream:
            control.append(tls_opened(self._moment(), conversation.stream, conversation.socket))

    def _speak(self, conversation: Conversation, data: list[tuple[int, bytes]]) -> bool:
        """Say some of what there is to say. False: that was all."""
        chance = self._chance
        for time_ns in sorted(self._moment() for _ in range(chance.randint(0, 6))):
            event = conversation.piece(time_ns, tied=not conversation.untied or chance.random() < 0.5)
            if event is None:
                return False
            if chance.random() >= LOST:
                data.append((time_ns, event))
        return True

    def _drained(self) -> list[Block]:
        return self._daemon.drained(self._time_ns) if self._form == FORM else []


def _pieces(chance: random.Random) -> Iterator[tuple[int, bytes]]:
    """What both sides say in pieces, each with its direction."""
    for direction, payload in _http2(chance) if chance.random() < HTTP2 else _http1(chance):
        size = chance.choice([7, 40, 200])
        for at in range(0, len(payload), size):
            yield direction, payload[at : at + size]


def _http1(chance: random.Random) -> Iterator[tuple[int, bytes]]:
    """Exchanges, one after the other."""
    for number in range(chance.randint(1, 12)):
        body = _body(chance, number)
        yield (
            REQUEST,
            b"POST /a/%d HTTP/1.1\r\nHost: api.example.org\r\nContent-Length: %d\r\n\r\n" % (number, len(body)) + body,
        )
        yield RESPONSE, b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body


def _http2(chance: random.Random) -> Iterator[tuple[int, bytes]]:
    """Exchanges, some of them open at the same time; tables of header compression that only grow."""
    asking, answering = Encoder(), Encoder()
    yield REQUEST, h2.OPENING
    yield RESPONSE, h2.SETTINGS + h2.ACKED
    streams = range(1, 2 * chance.randint(1, 12), 2)
    waiting: list[tuple[int, bytes]] = []
    for stream in streams:
        body = _body(chance, stream)
        fields = ((":method", "POST"), (":scheme", "https"), (":path", f"/b/{stream}"), (":authority", "api.example.org"))
        yield REQUEST, h2.headers(stream, h2.block(asking, fields), cut=chance.choice([0, 9])) + h2.data(stream, body, end=True)
        waiting.append((stream, body))
        while waiting and (stream == streams[-1] or chance.random() < 0.5):
            answered, content = waiting.pop(chance.randrange(len(waiting)))
            yield RESPONSE, h2.headers(answered, h2.block(answering, h2.OK)) + h2.data(answered, content, end=True)


def _body(chance: random.Random, number: int) -> bytes:
    """Some hold a number that masking has to wait for."""
    return b'{"card": "4111111111111111", "n": %d}' % number if chance.random() < 0.5 else b"n" * chance.randint(1, 300)
