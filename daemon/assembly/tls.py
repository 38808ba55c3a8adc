"""TLS as the recorder sees it: where a conversation turns into it, and plaintext whose socket is not known yet.

What lives here: recognising a ClientHello and the name in it (RFC 8446, section 4.1.2; RFC 6066, section 3), the hold for
untied plaintext. What must not: decoding of TLS, sessions.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from capd.daemon.assembly.streams import Chunk

RECORD_HEADER_BYTES: Final = 5
HANDSHAKE: Final = 22
CONTENT_TYPES: Final = range(20, 24)
VERSION_MAJOR: Final = 3
VERSION_MINOR_MAX: Final = 4
CLIENT_HELLO: Final = 1
HELLO_HEAD_BYTES: Final = RECORD_HEADER_BYTES + 1
"""So many bytes tell a ClientHello from anything else."""
RECORD_BYTES_MAX: Final = (1 << 14) + 2048
"""Largest TLSCiphertext of any version (RFC 5246, section 6.2.3)."""
SERVER_NAME: Final = 0
HOST_NAME: Final = 0

HELD_BYTES_MAX: Final = 32 * 1024 * 1024
"""Plaintext that may wait for its socket, all streams together: two of the largest single calls that are promised, and room."""
HELD_STREAM_BYTES_MAX: Final = 16 * 1024 * 1024
"""The same for one stream, so that one cannot push out all others."""
HELD_NS_MAX: Final = 30_000_000_000
"""Event time after which a stream without a socket becomes a session of its own."""


def begins_client_hello(payload: bytes | memoryview) -> bool:
    """Say whether bytes begin with a TLS ClientHello: a record header, and the first byte of the handshake."""
    return len(payload) >= HELLO_HEAD_BYTES and _fits_client_hello(payload)


def may_begin_client_hello(payload: bytes | memoryview) -> bool:
    """Say whether bytes are the first part of what begins a ClientHello, and too few to tell."""
    return 0 < len(payload) < HELLO_HEAD_BYTES and _fits_client_hello(payload)


def _fits_client_hello(payload: bytes | memoryview) -> bool:
    if payload[0] != HANDSHAKE:
        return False
    size = len(payload)
    checks = (
        payload[1] == VERSION_MAJOR if size > 1 else True,
        payload[2] <= VERSION_MINOR_MAX if size > 2 else True,  # noqa: PLR2004  # offsets in the header
        int.from_bytes(payload[3:5], "big") <= RECORD_BYTES_MAX if size >= RECORD_HEADER_BYTES else True,
        payload[5] == CLIENT_HELLO if size > RECORD_HEADER_BYTES else True,
    )
    return all(checks)


def begins_record(payload: bytes | memoryview) -> bool:
    """Say whether the bytes of one call look like the start of any TLS record: for conversations that began before capture."""
    return (
        len(payload) >= RECORD_HEADER_BYTES
        and payload[0] in CONTENT_TYPES
        and payload[1] == VERSION_MAJOR
        and payload[2] <= VERSION_MINOR_MAX
        and 0 < int.from_bytes(payload[3:5], "big") <= RECORD_BYTES_MAX
    )


def server_name(hello: bytes) -> str | None:
    """Give the host name (SNI) of a ClientHello that starts with its record header, or None if there is none in these bytes."""
    try:
        return _server_name(hello)
    except IndexError:
        return None


def _server_name(hello: bytes) -> str | None:
    at = RECORD_HEADER_BYTES + 4 + 2 + 32  # handshake header, version, random
    at += 1 + hello[at]  # session id
    at += 2 + int.from_bytes(hello[at : at + 2], "big")  # cipher suites
    at += 1 + hello[at]  # compression methods
    end = at + 2 + int.from_bytes(hello[at : at + 2], "big")
    at += 2
    while at + 4 <= min(end, len(hello)):
        kind, size = int.from_bytes(hello[at : at + 2], "big"), int.from_bytes(hello[at + 2 : at + 4], "big")
        if kind == SERVER_NAME:
            name_size = int.from_bytes(hello[at + 7 : at + 9], "big")
            name = hello[at + 9 : at + 9 + name_size]
            whole = hello[at + 6] == HOST_NAME and len(name) == name_size > 0
            return name.decode("ascii", "backslashreplace") if whole else None
        at += 4 + size
    return None


@dataclass(slots=True)
class Untied:
    """Plaintext of one TLS stream whose socket is not known.

    Attributes:
        since_ns: boot clock of its first event.
        chunks: what waits, in order.
        held: payload bytes of it.
    """

    since_ns: int
    chunks: list[Chunk] = field(default_factory=list)
    held: int = 0


class Hold:
    """All plaintext that waits for a socket. Bounded; nothing in it is ever dropped, it is released as a session of its own."""

    def __init__(self) -> None:
        self._streams: dict[int, Untied] = {}
        self._held = 0

    def __len__(self) -> int:
        return len(self._streams)

    def __contains__(self, stream: int) -> bool:
        return stream in self._streams

    def add(self, chunk: Chunk) -> list[int]:
        """Let a chunk wait.

        Returns:
            Streams that have to be released now, because a limit is reached.
        """
        untied = self._streams.get(chunk.stream)
        if untied is None:
            untied = self._streams[chunk.stream] = Untied(chunk.time_ns)
        untied.chunks.append(chunk.kept())
        untied.held += chunk.captured
        self._held += chunk.captured
        if untied.held > HELD_STREAM_BYTES_MAX:
            return [chunk.stream]
        return [next(iter(self._streams))] if self._held > HELD_BYTES_MAX else []

    def release(self, stream: int) -> list[Chunk]:
        """Give and forget what waits in a stream."""
        untied = self._streams.pop(stream, None)
        if untied is None:
            return []
        self._held -= untied.held
        return untied.chunks

    def expired(self, now_ns: int) -> list[int]:
        """Give the streams that have waited long enough (boot clock)."""
        return [stream for stream, untied in self._streams.items() if untied.since_ns + HELD_NS_MAX < now_ns]

    def of_process(self, pid: int, start_ns: int) -> list[int]:
        """Give the streams of a process."""
        return [
            stream
            for stream, untied in self._streams.items()
            if (untied.chunks[0].pid, untied.chunks[0].process_start_ns) == (pid, start_ns)
        ]

    def of_run(self, run: int) -> list[int]:
        """Give the streams of a run."""
        return [stream for stream, untied in self._streams.items() if untied.chunks[0].run == run]

    def streams(self) -> list[int]:
        """Give all streams that wait."""
        return list(self._streams)

    def all(self) -> list[Chunk]:
        """Give all that waits, for a snapshot."""
        return [chunk for untied in self._streams.values() for chunk in untied.chunks]
