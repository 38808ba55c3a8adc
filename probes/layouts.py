"""The events that BPF programs put into the rings, byte for byte as in `bpf/events.h`.

What lives here: struct layouts and their parsing. What must not: BPF, files, sessions. A test compiles `events.h` for the host
and compares every size and offset with this page.

A ring record is an `EventHeader`, then the fixed part of its kind, then what has no fixed size. All numbers are little-endian.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from enum import IntEnum
from typing import Final

RING_HEADER_BYTES: Final = 8
"""The kernel's own header before each ring record: length with two flag bits (32 bit), page offset (32 bit)."""
RING_BUSY: Final = 1 << 31
RING_DISCARD: Final = 1 << 30


class EventKind(IntEnum):
    """What an event tells. Numbers are part of the journal format."""

    PROCESS_FORK = 1
    PROCESS_EXEC = 2
    PROCESS_EXIT = 3
    SOCKET_OPEN = 4
    SOCKET_CLOSE = 5
    TLS_OPEN = 6
    TLS_CLOSE = 7
    FILE_MAPPED = 8
    URING_USED = 9
    SOCKET_DATA = 16
    TLS_DATA = 17


class Tie(IntEnum):
    """How sure it is that a TLS stream belongs to a socket."""

    NONE = 0
    NESTED = 1
    """The library called the socket inside the TLS call, on the same thread."""
    CIPHERTEXT = 2
    """The socket carried the very bytes that the library wrote into, or read from, a memory BIO."""


class Absence(IntEnum):
    """Why an event carries fewer payload bytes than the call moved."""

    NONE = 0
    FAULT = 1
    """The agent's memory could not be read: bytes are lost."""
    KERNEL_COPY = 2
    """sendfile or splice: the bytes never were in the agent's memory."""
    CIPHERTEXT = 3
    """Left out on purpose: TLS records whose plaintext is captured at the TLS library."""
    TOO_LARGE = 4
    """Beyond the largest call or vector that the probes copy."""
    URING = 5
    """io_uring: the buffer is not known."""
    RING_FULL = 6
    """The ring had no room: bytes are lost."""
    UNKNOWN_CALL = 7
    """A system call whose buffers the probes do not know, such as a 32-bit one: bytes are lost."""
    OTHER_STACK = 8
    """A TLS call while another one of the thread waits on a lower stack. Its return must not be probed: the length is what it
    was asked to move."""
    PEEKED = 9
    """No part of the stream: bytes that were looked at and left where they were (MSG_PEEK, SSL_peek). Who takes them is told
    of them as of any others; who does not has heard them all the same. Only what goes beyond all earlier looks is told."""


class MidStream(IntEnum):
    """What a socket's first sight says of what it moved before."""

    NO = 0
    MOVED = 1
    """TCP's own counters say that bytes had moved."""
    FOREIGN = 2
    """Nobody counts on such a socket, and it was not made in a run: bytes may have moved."""


class Role(IntEnum):
    """Who opened the connection."""

    UNKNOWN = 0
    CLIENT = 1
    SERVER = 2


class Library(IntEnum):
    """Which TLS library a plaintext comes from."""

    NONE = 0
    OPENSSL = 1
    GNUTLS = 2


HEADER: Final = struct.Struct("<QQQIIHHI")
"""time (boot clock, ns), run, process start (boot clock, ns), pid, tid, kind, flags (0), bytes after this header."""


@dataclass(frozen=True, slots=True)
class EventHeader:
    """What every event starts with.

    Attributes:
        time_ns: CLOCK_BOOTTIME at the call's return.
        run: key of the run, given by the daemon when it selected the process.
        process_start_ns: start of the process on CLOCK_BOOTTIME; with pid and boot id it names a process for ever.
        pid: process id (the kernel's tgid) in the initial pid namespace.
        tid: thread id in the initial pid namespace.
        kind: an `EventKind`.
        size: bytes that follow the header.
    """

    time_ns: int
    run: int
    process_start_ns: int
    pid: int
    tid: int
    kind: int
    size: int


DATA: Final = struct.Struct("<QQQIIBBBBI")
"""stream, position, socket, length, captured, direction, tie, absence, library, peer_bytes."""

PEER: Final = struct.Struct("<HH16s4x")
"""family, port (host order), address (IPv4 in the first four bytes)."""

WIRE: Final = struct.Struct("<QQ8x")
"""Where SOCKET_DATA has its peer, TLS_DATA has the ciphertext that the call sent on the event's socket and that no event of its
own tells: position and bytes in the socket's stream, left out (`Absence.CIPHERTEXT`). 0 bytes: none."""


@dataclass(frozen=True, slots=True)
class DataEvent:
    """SOCKET_DATA or TLS_DATA: bytes that moved in one direction.

    Attributes:
        stream: SOCKET_DATA: the socket's id. TLS_DATA: the TLS stream's id.
        position: bytes that moved in this direction of this stream before; a jump from one event to the next is a loss.
        socket: id of the socket; 0 for TLS_DATA whose socket is not known yet.
        length: bytes that moved. 0 is the end of the direction (SOCKET_DATA, response only) or an empty datagram.
        captured: bytes of them that follow, from the first on.
        direction: 0 agent to peer, 1 peer to agent.
        tie: a `Tie`.
        absence: an `Absence`, why captured < length.
        library: a `Library`.
        peer: for datagrams (family, port, 16 address bytes); None else.
        payload: the captured bytes.
        wire: for TLS_DATA (position, bytes) of the ciphertext that it stands for, as `WIRE` says; None else.
    """

    stream: int
    position: int
    socket: int
    length: int
    captured: int
    direction: int
    tie: int
    absence: int
    library: int
    peer: tuple[int, int, bytes] | None
    payload: memoryview
    wire: tuple[int, int] | None = None


SOCKET_OPEN: Final = struct.Struct("<QHHHBBHHI16s16sI108s")
"""socket, family, type, protocol, role, mid_stream, local port, peer port, netns, local address, peer address, path
bytes, path."""


@dataclass(frozen=True, slots=True)
class SocketOpenEvent:
    """A socket of a run was seen for the first time, or connected.

    Attributes:
        socket: its id: the kernel's socket cookie; of unix sockets, and in the classic tier, inode number with bit 62 set.
        family: AF_UNIX 1, AF_INET 2, AF_INET6 10.
        type: SOCK_STREAM 1, SOCK_DGRAM 2, SOCK_SEQPACKET 5.
        protocol: IPPROTO_TCP 6, IPPROTO_UDP 17, 0 for unix.
        role: a `Role`.
        mid_stream: a `MidStream`.
        local, peer: (port, 16 address bytes); IPv4 in the first four; zeros when not connected.
        netns: inode number of its network namespace.
        path: for unix sockets the peer's or the own name; a leading NUL byte means an abstract name.
    """

    socket: int
    family: int
    type: int
    protocol: int
    role: int
    mid_stream: int
    local: tuple[int, bytes]
    peer: tuple[int, bytes]
    netns: int
    path: bytes


SOCKET_CLOSE: Final = struct.Struct("<QQQQQB7x")
"""socket, position request, position response, kernel bytes request, kernel bytes response, kernel_known."""


@dataclass(frozen=True, slots=True)
class SocketCloseEvent:
    """The last descriptor of a socket is gone, or its connection is.

    Attributes:
        socket: its id.
        position: bytes that the probes saw move: (request, response).
        kernel: bytes that TCP says the processes wrote and read: (request, response); None where the kernel does not count.
    """

    socket: int
    position: tuple[int, int]
    kernel: tuple[int, int] | None


TLS_OPEN: Final = struct.Struct("<QQQBB6x")
"""tls stream, library's pointer, socket, library, tie."""


@dataclass(frozen=True, slots=True)
class TlsOpenEvent:
    """A TLS stream got its socket: what came before with this stream id belongs there too."""

    stream: int
    pointer: int
    socket: int
    library: int
    tie: int


TLS_CLOSE: Final = struct.Struct("<QQQQ")
"""tls stream, socket (0 unknown), position request, position response."""


@dataclass(frozen=True, slots=True)
class TlsCloseEvent:
    """The library freed the TLS stream."""

    stream: int
    socket: int
    position: tuple[int, int]


FORK: Final = struct.Struct("<QI4x")
"""child start, child pid."""


@dataclass(frozen=True, slots=True)
class ForkEvent:
    """The header's process made a child."""

    child_start_ns: int
    child_pid: int


EXEC: Final = struct.Struct("<QQQIIIII4x16s")
"""exe device (kernel form, major << 20 | minor), exe inode, cgroup, uid, gid, filename bytes, argv bytes, argv bytes
before cutting, comm."""


@dataclass(frozen=True, slots=True)
class ExecEvent:
    """The header's process runs a new program.

    Attributes:
        device, inode: of the executable file (device in the kernel's form: major << 20 | minor).
        cgroup: cgroup id.
        uid, gid: real ids in the initial user namespace.
        argv_bytes_total: length before it was cut.
        comm: the kernel's name of the process.
        filename: the path as execve got it.
        argv: arguments, each ended by a NUL byte, perhaps cut.
    """

    device: int
    inode: int
    cgroup: int
    uid: int
    gid: int
    argv_bytes_total: int
    comm: bytes
    filename: bytes
    argv: bytes


EXIT: Final = struct.Struct("<I4x")
"""wait status as in wait(2)."""


@dataclass(frozen=True, slots=True)
class ExitEvent:
    """The header's process ended with its last thread."""

    status: int


FILE_MAPPED: Final = struct.Struct("<QQ")
"""device (kernel form, major << 20 | minor), inode."""


@dataclass(frozen=True, slots=True)
class FileMappedEvent:
    """The header's process mapped a file for execution that no process of a run had mapped before."""

    device: int
    inode: int


@dataclass(frozen=True, slots=True)
class UringUsedEvent:
    """The header's process uses io_uring, and this tier cannot see what it moves; told once for each process."""


Body = (
    DataEvent
    | SocketOpenEvent
    | SocketCloseEvent
    | TlsOpenEvent
    | TlsCloseEvent
    | ForkEvent
    | ExecEvent
    | ExitEvent
    | FileMappedEvent
    | UringUsedEvent
)


class MalformedEventError(Exception):
    """A ring span does not hold what this version of the probes writes."""


def events(span: memoryview) -> Iterator[tuple[EventHeader, Body]]:
    """Walk a ring span (as `ring.Ring.drain` gives it and the journal keeps it) and parse its events in order.

    Args:
        span: whole ring records, each with the kernel's 8-byte header, padded to 8 bytes; discarded records are passed over.

    A TLS call's ciphertext that is told beside its plaintext comes as an event of its own, before the plaintext's.

    Raises:
        MalformedEventError: a record is cut or of an unknown kind.
    """
    offset = 0
    end = len(span)
    while offset + RING_HEADER_BYTES <= end:
        length = int.from_bytes(span[offset : offset + 4], "little")
        start = offset + RING_HEADER_BYTES
        size = length & ~(RING_BUSY | RING_DISCARD)
        if start + size > end:
            raise MalformedEventError(f"ring record at {offset} is cut")
        if not length & RING_DISCARD:
            header, body = parse(span[start : start + size])
            if isinstance(body, DataEvent) and body.wire is not None:
                yield replace(header, kind=EventKind.SOCKET_DATA, size=DATA.size), _ciphertext(body, *body.wire)
            yield header, body
        offset = start + (size + 7 & ~7)


def parse(record: memoryview) -> tuple[EventHeader, Body]:
    """Parse one ring record.

    Raises:
        MalformedEventError: it is too short for its kind, or of an unknown kind.
    """
    try:
        time_ns, run, start_ns, pid, tid, kind, _flags, size = HEADER.unpack_from(record)
        parser = _PARSERS[kind]
        body = parser(record[HEADER.size : HEADER.size + size])
    except (struct.error, KeyError) as error:
        raise MalformedEventError(f"event of {len(record)} bytes: {error}") from error
    return EventHeader(time_ns, run, start_ns, pid, tid, kind, size), body


def _data(body: memoryview, *, tls: bool) -> DataEvent:
    stream, position, socket, length, captured, direction, tie, absence, library, peer_bytes = DATA.unpack_from(body)
    start = DATA.size + peer_bytes
    if start + captured > len(body):
        raise struct.error(f"{captured} payload bytes announced, {len(body) - start} there")
    payload = body[start : start + captured]
    event = DataEvent(stream, position, socket, length, captured, direction, tie, absence, library, None, payload)
    # The classic tier's slots have room for a peer or for ciphertext also where there is none.
    if tls:
        wire = WIRE.unpack_from(body, DATA.size) if peer_bytes else (0, 0)
        return replace(event, wire=wire) if wire[1] else event
    peer = PEER.unpack_from(body, DATA.size) if peer_bytes else (0,)
    return replace(event, peer=peer) if peer[0] else event


def _ciphertext(event: DataEvent, position: int, size: int) -> DataEvent:
    tie, absence = Tie.NESTED, Absence.CIPHERTEXT
    return DataEvent(event.socket, position, event.socket, size, 0, event.direction, tie, absence, 0, None, memoryview(b""))


def _socket_open(body: memoryview) -> SocketOpenEvent:
    (socket, family, type_, protocol, role, mid_stream, local_port, peer_port, netns, local, peer, path_bytes, path) = (
        SOCKET_OPEN.unpack_from(body)
    )
    return SocketOpenEvent(
        socket,
        family,
        type_,
        protocol,
        role,
        mid_stream,
        (local_port, local),
        (peer_port, peer),
        netns,
        _unix_name(path[:path_bytes]),
    )


def _unix_name(path: bytes) -> bytes:
    """Give a unix socket's name: an abstract one as it is, a path without the NUL bytes that the kernel may keep behind it."""
    return path if path[:1] == b"\0" else path.rstrip(b"\0")


def _socket_close(body: memoryview) -> SocketCloseEvent:
    socket, request, response, kernel_request, kernel_response, known = SOCKET_CLOSE.unpack_from(body)
    return SocketCloseEvent(socket, (request, response), (kernel_request, kernel_response) if known else None)


def _tls_close(body: memoryview) -> TlsCloseEvent:
    stream, socket, request, response = TLS_CLOSE.unpack_from(body)
    return TlsCloseEvent(stream, socket, (request, response))


def _exec(body: memoryview) -> ExecEvent:
    device, inode, cgroup, uid, gid, filename_bytes, argv_bytes, argv_total, comm = EXEC.unpack_from(body)
    text = bytes(body[EXEC.size :])
    return ExecEvent(
        device,
        inode,
        cgroup,
        uid,
        gid,
        argv_total,
        comm.rstrip(b"\0"),
        text[:filename_bytes].rstrip(b"\0"),
        text[filename_bytes : filename_bytes + argv_bytes],
    )


_PARSERS: Final[dict[int, Callable[[memoryview], Body]]] = {
    EventKind.PROCESS_FORK: lambda body: ForkEvent(*FORK.unpack_from(body)),
    EventKind.PROCESS_EXEC: _exec,
    EventKind.PROCESS_EXIT: lambda body: ExitEvent(*EXIT.unpack_from(body)),
    EventKind.SOCKET_OPEN: _socket_open,
    EventKind.SOCKET_CLOSE: _socket_close,
    EventKind.TLS_OPEN: lambda body: TlsOpenEvent(*TLS_OPEN.unpack_from(body)),
    EventKind.TLS_CLOSE: _tls_close,
    EventKind.FILE_MAPPED: lambda body: FileMappedEvent(*FILE_MAPPED.unpack_from(body)),
    EventKind.URING_USED: lambda _body: UringUsedEvent(),
    EventKind.SOCKET_DATA: lambda body: _data(body, tls=False),
    EventKind.TLS_DATA: lambda body: _data(body, tls=True),
}
