"""What is remembered of a session while it is open: plain values, so that a snapshot can hold them.

What lives here: the fields and small sums over them. What must not: records, decoders, rules.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final
from uuid import UUID

from capd.daemon.assembly.facts import Facts
from capd.daemon.assembly.processes import ProcessKey
from capd.daemon.assembly.streams import LOST, UNRECORDED
from capd.daemon.assembly.wire import Ciphertext

REQUEST: Final = 0
RESPONSE: Final = 1
DIRECTIONS: Final = (REQUEST, RESPONSE)
DIRECTION_WORDS: Final = ("request", "response")

Pair = list[int]
"""One number for each direction."""


def zeros() -> Pair:
    """Give a pair to count in."""
    return [0, 0]


@dataclass(slots=True, kw_only=True)
class Loss:
    """Gaps of one reason.

    Attributes:
        gaps: how many.
        bytes: how many bytes are known to be missing, for each direction.
        unknown: whether some gap has no known length.
    """

    gaps: int = 0
    bytes: Pair = field(default_factory=zeros)
    unknown: bool = False


@dataclass(slots=True, kw_only=True)
class SessionState:
    """One open session.

    Attributes:
        id: its UUIDv7.
        socket: id of its socket; 0 for TLS plaintext without one.
        stream: id of its TLS stream when it has no socket; 0 else.
        run: key of its run.
        started_ns, last_ns: wall time of its first and latest event.
        active_ns: boot clock of its latest event.
        opened: whether an OPEN record was written.
        transport: "tcp", "udp", "unix"; None while unknown.
        role: a `layouts.Role`.
        local, target: addresses as in the OPEN record; None while unknown.
        name: what the peer is called: SNI, Host header, database.
        process: key of the first user.
        users: keys of living processes that use it or may have inherited it.
        mid_stream: bytes may have moved before capture.
        encrypted: TLS was seen on the socket: what the socket carries is no application data any more.
        tls_streams: TLS streams tied to it, oldest first; the last one carries the application data.
        tls_processes: who said the first bytes of each.
        ciphertext: what the wire tells.
        tie, library: of the latest TLS stream, `layouts.Tie` and `layouts.Library`.
        application: position in each application stream.
        wire: position in each wire stream.
        wire_kept: payload bytes of layer "wire" that were recorded.
        wire_left: wire bytes left out on purpose.
        plaintext: application bytes that came from a TLS library.
        ended: whether the end of each direction was seen.
        losses: gaps by reason.
        gaps: how many were recorded, of both layers.
        peeked: up to where each (TLS, stream) of the response was looked at, taken or not.
        ring_lost: bytes that GAP records tell as lost in the ring, by (TLS, stream, direction).
        protocol: as detected; None while undecided.
        swapped: the decoder's request direction is the response stream: the peer opened the connection.
        base: position in each application stream where the decoder began.
        base_gaps: how many gaps were recorded before that: one whose length nobody knows has no place of its own.
        exchange_base: added to the decoder's exchange numbers.
        exchange_last: the highest exchange number used; -1 before any.
        messages: MESSAGE records written; the next ordinal.
        orphaned_ns: boot clock when its last user ended; None while it has one.
        uring: a user of it uses io_uring, which the classic tier does not see.
        unrecorded: nothing was written for some time of it, because there was no room.
        reasons: further reasons why it is not complete, in order.
    """

    id: UUID
    socket: int
    stream: int
    run: int
    started_ns: int
    last_ns: int
    active_ns: int
    process: ProcessKey
    opened: bool = False
    transport: str | None = None
    role: int = 0
    local: Facts | None = None
    target: Facts | None = None
    name: str | None = None
    users: set[ProcessKey] = field(default_factory=set)
    mid_stream: bool = False
    encrypted: bool = False
    tls_streams: list[int] = field(default_factory=list)
    tls_processes: dict[int, ProcessKey] = field(default_factory=dict)
    ciphertext: Ciphertext = field(default_factory=Ciphertext)
    tie: int = 0
    library: int = 0
    application: Pair = field(default_factory=zeros)
    wire: Pair = field(default_factory=zeros)
    wire_kept: Pair = field(default_factory=zeros)
    wire_left: Pair = field(default_factory=zeros)
    plaintext: Pair = field(default_factory=zeros)
    ended: list[bool] = field(default_factory=lambda: [False, False])
    losses: dict[str, Loss] = field(default_factory=dict)
    gaps: int = 0
    peeked: dict[tuple[bool, int], int] = field(default_factory=dict)
    ring_lost: dict[tuple[bool, int, int], int] = field(default_factory=dict)
    protocol: str | None = None
    swapped: bool = False
    base: Pair = field(default_factory=zeros)
    base_gaps: int = 0
    exchange_base: int = 0
    exchange_last: int = -1
    messages: int = 0
    orphaned_ns: int | None = None
    uring: bool = False
    unrecorded: bool = False
    reasons: list[str] = field(default_factory=list)

    @property
    def lost_reason(self) -> str:
        """Why whole events of it are missing."""
        return UNRECORDED if self.unrecorded else LOST

    def begin_decoder(self, base: Pair) -> None:
        """Note that a decoder begins, at a position in each application stream."""
        self.base, self.base_gaps = base, self.gaps

    def lose(self, reason: str, direction: int, length: int | None) -> None:
        """Count a gap; `length` None: nobody knows how many bytes."""
        loss = self.losses.setdefault(reason, Loss())
        loss.gaps += 1
        loss.bytes[direction] += length or 0
        loss.unknown = loss.unknown or length is None
        self.gaps += 1

    def left_tls(self, process: ProcessKey, time_ns: int) -> None:
        """Note that a process has no TLS streams any more (boot clock)."""
        for stream, owner in self.tls_processes.items():
            if owner == process:
                self.ciphertext.ended_ns.setdefault(stream, time_ns)

    def moment(self, wall_ns: int) -> int:
        """Give the time for the session's next record: that of its event, but never before the record ahead of it.

        An event may be recorded after a later one: plaintext waits for its socket, a body for its last piece.
        """
        self.last_ns = max(self.last_ns, wall_ns)
        return self.last_ns
