"""Any session as packets in a pcapng file, for the tools that read those.

What lives here: which packets a session would have been. What must not: their layout (frames).

capd does not see packets; it sees what programs sent and received. The packets are made of that: connection, order, times,
bytes and sequence numbers are what was recorded, everything else (window, TTL, how bytes were cut) is not. Where bytes are
missing, their sequence numbers are: the tools say that they were not captured. Credentials are filled with `*`, byte by byte.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Final

from capd.cli import facts
from capd.cli.forms.frames import (
    ACK,
    FIN,
    PSH,
    SYN,
    Address,
    End,
    interface,
    packet_block,
    section,
    tcp_packet,
    udp_packet,
)
from capd.cli.forms.spoken import HTTP, Spoken, head_words
from capd.cli.line import plain
from capd.cli.raw_stream import LEFT_OUT
from capd.cli.transcript import gap_line, masked_line
from capd.cli.veil import StreamVeil, credential_spans
from capd.daemon.version import VERSION
from capd.recording.record import Direction, Kind, Record
from capd.recording.rows import Endpoint

PAYLOAD_BYTES: Final = 1400
"""Of one packet: fits every path, and every tool's idea of a packet."""
AGENT: Final = IPv4Address("192.0.2.1")
PEER: Final = IPv4Address("192.0.2.2")
"""Stand for ends that have no address, such as those of unix sockets (RFC 5737)."""
PORT_MAX: Final = 65_535
APPLICATION: Final = frozenset({"", "application"})
COMMENT: Final = (
    "Made by capd from what programs sent and received, not captured: bytes, order and times are recorded, packets are not. "
    "Plaintext of TLS stands where its ciphertext went. Missing sequence numbers are bytes that are missing in the record; "
    "credentials are filled with *."
)


def pcap(sessions: Iterable[Spoken]) -> Iterator[bytes]:
    """Give the pieces of one file with the packets of some sessions, one session after the other."""
    yield section(f"capd {VERSION}", COMMENT)
    yield interface("capd")
    for spoken in sessions:
        yield from _Packets(spoken).blocks()


@dataclass(slots=True)
class _Side:
    """One direction: where it is in its stream, and what may be shown of it."""

    veil: StreamVeil
    position: int = 0
    shift: int = 0
    """How many holes of unknown length there were: each has one sequence number, so that it shows."""
    sent: int = 0
    """The highest sequence number so far, relative to the first byte: what the other side acknowledges."""
    comments: list[str] = field(default_factory=list)


class _Packets:
    """Makes the packets of one session."""

    def __init__(self, spoken: Spoken) -> None:
        self._spoken = spoken
        row = spoken.row
        http = row.protocol in HTTP
        spans = credential_spans(spoken.records())
        self._sides = {direction: _Side(StreamVeil(http=http, spans=spans[direction])) for direction in Direction}
        self._ends = dict(zip(Direction, ends(row.local, row.target), strict=True))
        self._udp = row.transport == "udp"
        self._opener = Direction.RESPONSE if row.role == "server" else Direction.REQUEST
        self._begun = self._over = False

    def blocks(self) -> Iterator[bytes]:
        """Give the blocks of all its packets."""
        for record in self._spoken.records():
            if not self._begun:
                yield from self._begin(record)
            direction = record.direction
            layered = facts.text(record.body, "layer") in APPLICATION
            if record.kind is Kind.DATA and direction is not None and layered:
                yield from self._data(direction, record)
            elif record.kind is Kind.GAP and layered:
                yield from self._gap(record)
            elif record.kind is Kind.MASKED:
                yield from self._remark(
                    record.time_ns, direction or Direction.REQUEST, plain(masked_line(direction, record.body))
                )
            elif record.kind is Kind.CLOSE and not (self._udp or self._over) and facts.text(record.body, "state") == "closed":
                self._over = True  # a second one only tells what was found later
                yield from self._end(record.time_ns)

    def _begin(self, record: Record) -> Iterator[bytes]:
        """Give the handshake, unless capture began later; the first packet says what this is."""
        self._begun = True
        words = "\n".join(head_words(self._spoken.row))
        late = record.kind is not Kind.OPEN or facts.flag(record.body, "mid_stream")
        if self._udp or late:
            self._sides[self._opener].comments.append(words)
            return
        client, server = self._opener, Direction(1 - self._opener)
        for direction, flags, comment in ((client, SYN, words), (server, SYN | ACK, ""), (client, ACK, "")):
            yield self._block(record.time_ns, direction, flags, comment=comment)

    def _data(self, direction: Direction, record: Record) -> Iterator[bytes]:
        side = self._sides[direction]
        payload = facts.payload(record.body, "payload")
        position = facts.number(record.body, "position")
        if position is not None and position + side.shift != side.position:
            side.position = position + side.shift
            side.veil.hole()
        left_out = facts.number(record.body, "length")
        if left_out and not payload:
            side.veil.hole()
            side.position += left_out
            side.sent = max(side.sent, side.position)
            yield from self._remark(record.time_ns, Direction(1 - direction), f"{left_out:,} bytes {LEFT_OUT}")
            return
        shown = side.veil.filled(payload, side.position - side.shift)
        if self._udp:
            yield self._datagram(direction, record, shown)
            side.position += len(shown)
            return
        for start in range(0, len(shown), PAYLOAD_BYTES):
            part = shown[start : start + PAYLOAD_BYTES]
            last = start + PAYLOAD_BYTES >= len(shown)
            yield self._block(record.time_ns, direction, ACK | (PSH if last else 0), part)
            side.position += len(part)
            side.sent = max(side.sent, side.position)

    def _datagram(self, direction: Direction, record: Record, payload: bytes) -> bytes:
        side, ends_now = self._sides[direction], dict(self._ends)
        named = facts.mapping(record.body, "peer")
        if named:
            peer = Endpoint(host=facts.text(named, "host") or None, port=facts.number(named, "port"))
            ends_now = dict(zip(Direction, ends(self._spoken.row.local, peer), strict=True))
        packet = udp_packet(ends_now[direction], ends_now[Direction(1 - direction)], payload)
        return packet_block(record.time_ns, packet, _taken(side))

    def _gap(self, record: Record) -> Iterator[bytes]:
        words = plain(gap_line(record.direction, record.body, layer=facts.text(record.body, "layer")))
        length, position = facts.number(record.body, "length"), facts.number(record.body, "position")
        for direction in Direction if record.direction is None else (record.direction,):
            side = self._sides[direction]
            side.veil.hole()
            if record.direction is not None and position is not None:
                side.position = position + side.shift
            if record.direction is None or length is None:
                side.shift += 1
                side.position += 1
            else:
                side.position += max(length, 0)
            side.sent = max(side.sent, side.position)
            # The other side acknowledges what nobody saw: that is how tools tell a hole in a capture from a loss on the way.
            yield from self._remark(record.time_ns, Direction(1 - direction), words)

    def _remark(self, time_ns: int, direction: Direction, words: str) -> Iterator[bytes]:
        """Say something: with an acknowledgement of this direction, or with its next datagram."""
        self._sides[direction].comments.append(words)
        if not self._udp:
            yield self._block(time_ns, direction, ACK)

    def _end(self, time_ns: int) -> Iterator[bytes]:
        first, second = self._opener, Direction(1 - self._opener)
        yield self._block(time_ns, first, FIN | ACK)
        self._sides[first].sent += 1
        self._sides[first].position = self._sides[first].sent
        yield self._block(time_ns, second, FIN | ACK)
        self._sides[second].sent += 1
        self._sides[second].position = self._sides[second].sent
        yield self._block(time_ns, first, ACK)

    def _block(self, time_ns: int, direction: Direction, flags: int, payload: bytes = b"", comment: str = "") -> bytes:
        side, other = self._sides[direction], self._sides[Direction(1 - direction)]
        if comment:
            side.comments.append(comment)
        words = _taken(side)
        source, target = self._ends[direction], self._ends[Direction(1 - direction)]
        # The first byte of a stream has number 1: number 0 is that of its SYN.
        sequence = 0 if flags & SYN else side.position + 1 if payload else side.sent + 1
        acknowledged = other.sent + 1 if flags & ACK else 0
        packet = tcp_packet(source, target, sequence=sequence, acknowledged=acknowledged, flags=flags, payload=payload)
        return packet_block(time_ns, packet, words)


def _taken(side: _Side) -> str:
    words = "\n".join(side.comments)
    side.comments.clear()
    return words


def ends(local: Endpoint, target: Endpoint) -> tuple[End, End]:
    """Give both ends with addresses of one family, whatever is known of them: the agent's, then its peer's."""
    agent, peer = _address(local.host, AGENT), _address(target.host, PEER)
    if agent.version != peer.version:
        agent, peer = _mapped(agent), _mapped(peer)
    return End(address=agent, port=_port(local.port)), End(address=peer, port=_port(target.port))


def _address(host: str | None, instead: Address) -> Address:
    try:
        found = ip_address((host or "").partition("%")[0])
    except ValueError:
        return instead
    return found


def _mapped(address: Address) -> IPv6Address:
    return address if isinstance(address, IPv6Address) else IPv6Address(f"::ffff:{address}")


def _port(port: int | None) -> int:
    return port if port is not None and 0 <= port <= PORT_MAX else 0
