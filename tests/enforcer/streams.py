"""HTTP/2 around the proxy's core without sockets: a client and a target of the h2 library, and what each sees.

What lives here: carrying bytes between the three. What must not: what is expected.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

import h2.config
import h2.connection
import h2.events
from hyperframe.frame import Frame

from capd.enforcer.proxy.events import Side
from capd.enforcer.proxy.question import Question, Verdict
from tests.enforcer.rehearsal import Rehearsal, allow

Fields = list[tuple[str, str]]


def head(method: str = "GET", path: str = "/x", *more: tuple[str, str], host: str = "api.test") -> Fields:
    """Give the fields of a request in clear."""
    return [(":method", method), (":scheme", "http"), (":authority", host), (":path", path), *more]


def connection(*, client: bool, strict: bool = True) -> h2.connection.H2Connection:
    """Give one end; `strict`: it sends nothing that is wrong."""
    return h2.connection.H2Connection(
        h2.config.H2Configuration(
            client_side=client,
            header_encoding="latin-1",
            validate_outbound_headers=strict,
            normalize_outbound_headers=strict,
        )
    )


@dataclass
class Seen:
    """What one end saw of one stream."""

    fields: list[Fields] = field(default_factory=list)
    body: bytearray = field(default_factory=bytearray)
    trailers: Fields | None = None
    ended: bool = False
    reset: int | None = None

    def __getitem__(self, name: str) -> str | None:
        return dict(self.fields[-1]).get(name) if self.fields else None


@dataclass
class Streams:
    """A conversation.

    Attributes:
        run: the proxy's core between the two.
        taking: which ends give back windows for what they got.
    """

    run: Rehearsal
    client: h2.connection.H2Connection
    target: h2.connection.H2Connection
    taking: set[Side] = field(default_factory=lambda: set(Side))
    seen: dict[Side, dict[int, Seen]] = field(default_factory=lambda: {side: {} for side in Side})
    goaway: dict[Side, tuple[int, int]] = field(default_factory=dict)
    taken: dict[Side, int] = field(default_factory=lambda: dict.fromkeys(Side, 0))
    broken: set[Side] = field(default_factory=set)

    def go(self) -> Streams:
        """Carry bytes until nobody has anything to say."""
        moved = True
        while moved:
            moved = False
            for side, end in ((Side.CLIENT, self.client), (Side.UPSTREAM, self.target)):
                there = self.run.closed is None and (side is Side.CLIENT or self.run.dials)
                if there and (said := end.data_to_send()):
                    self._tell(side, said)
                    moved = True
                if new := bytes(self.run.sent[side][self.taken[side] :]):
                    self.taken[side] += len(new)
                    self._hear(side, end, new)
                    moved = True
        return self

    def _tell(self, side: Side, said: bytes) -> None:
        (self.run.says if side is Side.CLIENT else self.run.answers)(said)

    def _hear(self, side: Side, end: h2.connection.H2Connection, data: bytes) -> None:
        """Take bytes; a GOAWAY is kept from the library, which would take nothing behind it."""
        at = len(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n") if data.startswith(b"PRI ") else 0
        if at:
            end.receive_data(data[:at])
        while at < len(data):
            frame, length = Frame.parse_frame_header(memoryview(data[at : at + 9]))
            raw, at = data[at : at + 9 + length], at + 9 + length
            if frame.type == 7:
                self.goaway[side] = (int.from_bytes(raw[9:13], "big"), int.from_bytes(raw[13:17], "big"))
                continue
            for event in end.receive_data(raw):
                self._see(side, end, event)

    def _see(self, side: Side, end: h2.connection.H2Connection, event: h2.events.Event) -> None:
        number = getattr(event, "stream_id", None)
        if not number:
            return
        seen = self.seen[side].setdefault(number, Seen())
        match event:
            case h2.events.TrailersReceived():
                seen.trailers = [(str(name), str(value)) for name, value in event.headers]
            case h2.events.DataReceived():
                seen.body += event.data
                if side in self.taking and event.flow_controlled_length:
                    end.acknowledge_received_data(event.flow_controlled_length, number)
            case h2.events.StreamEnded():
                seen.ended = True
            case h2.events.StreamReset():
                seen.reset = int(event.error_code)
            case h2.events.RequestReceived() | h2.events.ResponseReceived() | h2.events.InformationalResponseReceived():
                seen.fields.append([(str(name), str(value)) for name, value in event.headers])

    def asks(self, fields: Fields, body: bytes | None = None, *, ends: bool = True) -> int:
        """Have the client ask something; give the stream's number."""
        number = self.client.get_next_available_stream_id()
        self.client.send_headers(number, fields, end_stream=ends and body is None)
        if body is not None:
            self.client.send_data(number, body, end_stream=ends)
        self.go()
        return number

    def answers(self, number: int, status: str = "200", body: bytes = b"ok", *more: tuple[str, str]) -> Streams:
        """Have the target answer a stream of its own numbers."""
        self.target.send_headers(number, [(":status", status), *more], end_stream=not body)
        if body:
            self.target.send_data(number, body, end_stream=True)
        return self.go()

    def decide(self, number: int, verdict: Callable[[Question], Verdict] = allow) -> Streams:
        """Answer the question about a stream of the client."""
        for question in list(self.run.asked):
            if question.exchange == number:
                self.run.asked.remove(question)
                self.run.asked.appendleft(question)
                self.run.decide(verdict)
                return self.go()
        raise AssertionError(number, self.run.asked)

    def at_client(self, number: int) -> Seen:
        """Give what the client saw of a stream."""
        return self.seen[Side.CLIENT].get(number, Seen())

    def at_target(self, number: int) -> Seen:
        """Give what the target saw of a stream of its own numbers."""
        return self.seen[Side.UPSTREAM].get(number, Seen())

    @property
    def asked(self) -> Iterable[int]:
        """Give the streams that the target saw."""
        return list(self.seen[Side.UPSTREAM])


def streams(run: Rehearsal | None = None, *, strict: bool = True) -> Streams:
    """Begin one."""
    client, target = connection(client=True, strict=strict), connection(client=False, strict=strict)
    client.initiate_connection()
    target.initiate_connection()
    return Streams(run or Rehearsal(), client, target).go()


def facts(seen: Seen) -> dict[str, str]:
    """Give what a refusal says."""
    found = json.loads(bytes(seen.body))
    assert isinstance(found, dict)
    return found


def goaway(last: int, code: int = 0) -> bytes:
    """Write a GOAWAY."""
    return bytes([0, 0, 8, 7, 0, 0, 0, 0, 0]) + last.to_bytes(4, "big") + code.to_bytes(4, "big")
