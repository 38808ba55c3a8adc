"""A host in miniature: calls of agents as the ring spans and journal blocks that the probes and the daemon would make of them.

What lives here: building blocks, and reading what the assembler made of them. What must not: tests.
"""

from __future__ import annotations

import ipaddress
import itertools
import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import cast
from uuid import UUID

import msgpack

from capd.daemon.assembly.assembler import Assembler
from capd.daemon.assembly.sessions import Origin
from capd.daemon.assembly.snapshot import Snapshot
from capd.probes import layouts
from capd.probes.layouts import Absence, EventKind, Library, Role, Tie
from capd.recording.journal import Block, Position, Source
from capd.recording.record import Kind, Record, Value

HOST, BOOT, EPOCH = UUID(int=0xA), UUID(int=0xB), UUID(int=0xC)
RUN_ID = UUID("01890000-0000-7000-8000-000000000001")
RUN = 7
PID, START = 1234, 5_000
BOOT_WALL_NS = 1_763_000_000_000_000_000
"""Wall time at boot: an event's wall time is this plus its boot time."""
REQUEST, RESPONSE = 0, 1
MS = 1_000_000


def event(kind: EventKind, time_ns: int, body: bytes, *, run: int = RUN, pid: int = PID, start: int = START) -> bytes:
    """Give one ring record with the kernel's header and padding."""
    record = layouts.HEADER.pack(time_ns, run, start, pid, pid, kind, 0, len(body)) + body
    return struct.pack("<II", len(record), 0) + record + bytes(-len(record) % 8)


def moved(
    time_ns: int,
    stream: int,
    direction: int,
    position: int,
    payload: bytes,
    *,
    tls: bool = False,
    socket: int | None = None,
    length: int | None = None,
    tie: int = Tie.NONE,
    absence: int = Absence.NONE,
    library: int = Library.NONE,
    peer: tuple[int, int, bytes] | None = None,
    wire: tuple[int, int] | None = None,
    pid: int = PID,
    start: int = START,
    run: int = RUN,
) -> bytes:
    """Give a data event."""
    of = socket if socket is not None else 0 if tls else stream
    tail = b"" if peer is None else layouts.PEER.pack(*peer)
    tail += b"" if wire is None else layouts.WIRE.pack(*wire)
    size = len(payload) if length is None else length
    head = layouts.DATA.pack(stream, position, of, size, len(payload), direction, tie, absence, library, len(tail))
    kind = EventKind.TLS_DATA if tls else EventKind.SOCKET_DATA
    return event(kind, time_ns, head + tail + payload, pid=pid, start=start, run=run)


def opened(
    time_ns: int,
    socket: int,
    *,
    role: int = Role.CLIENT,
    family: int = 2,
    kind: int = 1,
    protocol: int = 6,
    peer: tuple[str, int] = ("192.0.2.7", 80),
    local: tuple[str, int] = ("192.0.2.1", 40_000),
    mid_stream: int = 0,
    path: bytes = b"",
    pid: int = PID,
    start: int = START,
) -> bytes:
    """Give a SOCKET_OPEN event."""

    def packed(address: str) -> bytes:
        return ipaddress.ip_address(address).packed.ljust(16, b"\0") if address else bytes(16)

    body = layouts.SOCKET_OPEN.pack(
        socket,
        family,
        kind,
        protocol,
        role,
        mid_stream,
        local[1],
        peer[1],
        1,
        packed(local[0]),
        packed(peer[0]),
        len(path),
        path,
    )
    return event(EventKind.SOCKET_OPEN, time_ns, body, pid=pid, start=start)


def closed(time_ns: int, socket: int, request: int, response: int, kernel: tuple[int, int] | None = None) -> bytes:
    """Give a SOCKET_CLOSE event."""
    body = layouts.SOCKET_CLOSE.pack(socket, request, response, *(kernel or (0, 0)), kernel is not None)
    return event(EventKind.SOCKET_CLOSE, time_ns, body)


def tls_opened(time_ns: int, stream: int, socket: int, tie: int = Tie.NESTED) -> bytes:
    """Give a TLS_OPEN event."""
    return event(EventKind.TLS_OPEN, time_ns, layouts.TLS_OPEN.pack(stream, 0xFEED, socket, Library.OPENSSL, tie))


def tls_closed(time_ns: int, stream: int, socket: int, request: int, response: int) -> bytes:
    """Give a TLS_CLOSE event."""
    return event(EventKind.TLS_CLOSE, time_ns, layouts.TLS_CLOSE.pack(stream, socket, request, response))


def executed(time_ns: int, exe: bytes, *argv: bytes, pid: int = PID, start: int = START, uid: int = 1000) -> bytes:
    """Give a PROCESS_EXEC event."""
    arguments = b"".join(part + b"\0" for part in argv)
    head = layouts.EXEC.pack(1, 2, 3, uid, uid, len(exe), len(arguments), len(arguments), exe.rpartition(b"/")[2][:15])
    return event(EventKind.PROCESS_EXEC, time_ns, head + exe + arguments, pid=pid, start=start)


def forked(time_ns: int, child_pid: int, child_start: int, *, pid: int = PID, start: int = START) -> bytes:
    """Give a PROCESS_FORK event."""
    return event(EventKind.PROCESS_FORK, time_ns, layouts.FORK.pack(child_start, child_pid), pid=pid, start=start)


def exited(time_ns: int, *, pid: int = PID, start: int = START, status: int = 0) -> bytes:
    """Give a PROCESS_EXIT event."""
    return event(EventKind.PROCESS_EXIT, time_ns, layouts.EXIT.pack(status), pid=pid, start=start)


@dataclass
class Daemon:
    """Writes blocks as the daemon does, with positions that only grow."""

    numbers: Iterator[int] = field(default_factory=itertools.count)

    def block(self, source: Source, payload: bytes, time_ns: int) -> Block:
        """Give a block drained at a boot time."""
        number = next(self.numbers)
        return Block(
            source=source,
            sequence=number,
            boottime_ns=time_ns,
            realtime_ns=BOOT_WALL_NS + time_ns,
            count=0,
            payload=memoryview(payload),
            position=Position(1, number),
            next=Position(1, number + 1),
        )

    def note(self, time_ns: int, **fields: Value) -> list[Block]:
        """Give a cycle that is one note."""
        return [self.block(Source.NOTE, msgpack.packb({"boottime_ns": time_ns, **fields}), time_ns)]

    def cycle(self, time_ns: int, *, control: Iterable[bytes] = (), data: Iterable[bytes] = ()) -> list[Block]:
        """Give the blocks of one drain."""
        spans = ((Source.CONTROL, b"".join(control)), (Source.DATA, b"".join(data)))
        return [self.block(source, span, time_ns) for source, span in spans if span]

    def started(self, time_ns: int = 1, *, epoch: UUID = EPOCH, boot: UUID = BOOT, form: int | None = None) -> list[Block]:
        """Give the first block after a start; notes of form 1 do not name it."""
        facts: dict[str, Value] = {"epoch": epoch.bytes, "boot": boot.bytes, "host": HOST.bytes}
        facts |= {"tier": "modern", "version": "0.1.0"} | ({} if form is None else {"form": form})
        return self.note(time_ns, note="start", **facts)

    def lost(self, time_ns: int, *grown: tuple[int, int, int, int], run: int = RUN, **counters: int) -> list[Block]:
        """Give the note of losses: stream, layer, direction, how much more of each."""
        rows: list[Value] = [[*row[:3], int(Absence.RING_FULL), row[3], run] for row in grown]
        return self.note(time_ns, note="losses", counters=cast("dict[str, Value]", counters), grown=rows)

    def drained(self, time_ns: int) -> list[Block]:
        """Give the note that all up to a time is in the journal."""
        return self.note(time_ns, note="drained")

    def run_started(self, time_ns: int = 2, *, key: int = RUN, run: UUID = RUN_ID) -> list[Block]:
        """Give the note of a run."""
        principal: dict[str, Value] = {"kind": "user", "name": "ann", "uid": 1000, "verified": False}
        facts: dict[str, Value] = {"key": key, "run": run.bytes, "name": "nightly", "labels": {"team": "data"}}
        return self.note(time_ns, note="run_started", principal=principal, **facts)


def assembler(snapshot: Snapshot | None = None, history: dict[UUID, list[Record]] | None = None) -> Assembler:
    """Give an assembler; `history` is what is on disk, by session."""
    known = history if history is not None else {}
    return Assembler(
        origin=Origin(host=HOST, boot=BOOT),
        history=lambda session: iter(known.get(session, [])),
        user_name=lambda uid: "ann" if uid == 1000 else None,
        snapshot=snapshot,
    )


def assemble(cycles: Iterable[list[Block]], *, into: Assembler | None = None) -> list[Record]:
    """Give all records of cycles, settled at the end."""
    made = into or assembler()
    batches = [batch for blocks in cycles for batch in made.process(blocks)]
    batches.append(made.settle())
    return [record for batch in batches for record in batch.records]


def of_kind(records: Iterable[Record], kind: Kind) -> list[Record]:
    """Give the records of a kind."""
    return [record for record in records if record.kind is kind]


def stream(records: Iterable[Record], direction: int, layer: str = "application") -> bytes:
    """Give the payload of one direction; a gap of known length is as many "?"."""
    parts = []
    for record in records:
        if record.direction != direction or record.body.get("layer", "application") != layer:
            continue
        if record.kind is Kind.DATA:
            parts.append(record.body["payload"])
        elif record.kind is Kind.GAP:
            parts.append(b"?" * (record.body["length"] or 0))  # type: ignore[operator]
    return b"".join(parts)  # type: ignore[arg-type]


def gaps(records: Iterable[Record]) -> list[tuple[int | None, object, object, object]]:
    """Give direction, position, length and reason of every gap."""
    found = of_kind(records, Kind.GAP)
    return [(record.direction, record.body["position"], record.body["length"], record.body["reason"]) for record in found]


def verdicts(records: Iterable[Record]) -> list[tuple[str, list[str]]]:
    """Give verdict and reasons of every CLOSE."""
    found = []
    for record in of_kind(records, Kind.CLOSE):
        completeness = record.body["completeness"]
        assert isinstance(completeness, dict)
        found.append((completeness["verdict"], completeness["reasons"]))
    return found


def sessions(records: Iterable[Record]) -> dict[UUID, list[Record]]:
    """Give the records of each session that has an OPEN."""
    by_session: dict[UUID, list[Record]] = {}
    for record in records:
        by_session.setdefault(record.session, []).append(record)
    return {session: found for session, found in by_session.items() if any(r.kind is Kind.OPEN for r in found)}
