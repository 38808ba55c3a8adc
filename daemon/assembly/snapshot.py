"""What the recorder remembers over its own end: the core's state as plain values.

What lives here: the form and its check. What must not: files; the role writes it beside its position.

A snapshot is not part of the recording and promises nothing to other versions: one of another version, or a damaged one, is not
read, and the recorder begins at the oldest journal file instead.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, is_dataclass
from typing import Final, cast
from uuid import UUID

import msgpack

from capd.daemon.assembly.losses import LossTable
from capd.daemon.assembly.processes import Process, Run
from capd.daemon.assembly.session import History, Session
from capd.daemon.assembly.sessions import Origin, SocketEnd
from capd.daemon.assembly.state import SessionState
from capd.daemon.assembly.streams import Channel, Chunk
from capd.daemon.assembly.typed import read
from capd.daemon.assembly.waiting import Waiting
from capd.decoders.message import Gap
from capd.probes.layouts import SocketCloseEvent, SocketOpenEvent

VERSION: Final = 8

SavedChunk = tuple[
    int, int, int, int, int, bool, int, int, int, int, int, int, int, int, int, tuple[int, int, bytes] | None, bytes
]
"""The fields of a `Chunk`, in order."""


class UnreadableSnapshotError(Exception):
    """The bytes are not a snapshot of this version."""


@dataclass(slots=True, kw_only=True)
class SavedSession:
    """An open session.

    Attributes:
        state: its facts and counts.
        channels: TLS or not, stream, direction, expected position, chunks that wait.
        ends: TLS or not, stream, positions of its end.
        closing, closed_ns, waits_ns: as in `Session`.
        pending: what waits for detection: direction, bytes; or direction, None, length and reason of a gap.
        decided: whether its protocol is decided.
        spoken: TLS streams that carried plaintext.
        continues: whether the next TLS stream goes on with the same conversation.
        counted: whether streams that are met for the first time begin at 0.
        undecided: what may be the beginning of a ClientHello.
        suspended: what waits for the end of a TLS stream.
        decoder, writer: state of the decoder and behind it, if it cannot be had by decoding again what is recorded.
    """

    state: SessionState
    channels: list[tuple[bool, int, int, int | None, list[SavedChunk]]]
    ends: list[tuple[bool, int, tuple[int, int]]]
    closing: SocketCloseEvent | str | None
    closed_ns: int
    waits_ns: int
    pending: list[tuple[int, bytes | None, int | None, str]]
    decided: bool
    spoken: set[int]
    continues: bool
    counted: bool
    undecided: list[SavedChunk]
    suspended: list[SavedChunk]
    decoder: bytes | None = None
    writer: bytes | None = None


@dataclass(slots=True, kw_only=True)
class Snapshot:
    """Everything that is open."""

    origin: Origin
    wall_ns: int
    runs: list[Run]
    processes: list[Process]
    sessions: list[SavedSession]
    waiting: Waiting
    sockets: list[SocketOpenEvent]
    ends: list[SocketEnd]
    held: list[SavedChunk]
    losses: LossTable
    total: int
    unrecorded: str | None = None


def saved_session(session: Session) -> SavedSession:
    """Give what a snapshot keeps of a session."""
    pending: list[tuple[int, bytes | None, int | None, str]] = [
        (direction, data, None, "") if isinstance(data, bytes) else (direction, None, data.length, data.reason)
        for direction, data in session.decoding.pending
    ]
    decoder = session.decoding.save()
    return SavedSession(
        state=session.state,
        channels=[
            (*key, channel.expected, [saved_chunk(chunk) for chunk in channel.early])
            for key, channel in session.channels.items()
        ],
        ends=[(*key, positions) for key, positions in session.ends.items()],
        closing=session.closing,
        closed_ns=session.closed_ns,
        waits_ns=session.waits_ns,
        pending=pending,
        decided=session.decoding.decided,
        spoken=session.spoken,
        continues=session.continues,
        counted=session.counted,
        undecided=[saved_chunk(chunk) for chunk in session.layers.undecided],
        suspended=[saved_chunk(chunk) for chunk in session.suspense.chunks],
        decoder=decoder,
        writer=None if decoder is None else session.writer.save(),
    )


def restored_session(saved: SavedSession, history: History) -> Session:
    """Give a session as a snapshot kept it; its decoder is rebuilt when it is first needed."""
    session = Session(saved.state, history)
    session.channels = {
        (tls, stream, direction): Channel(expected, [Chunk(*chunk) for chunk in early])
        for tls, stream, direction, expected, early in saved.channels
    }
    session.ends = {(tls, stream): positions for tls, stream, positions in saved.ends}
    session.closing, session.closed_ns, session.waits_ns = saved.closing, saved.closed_ns, saved.waits_ns
    pending = [
        (direction, data if data is not None else Gap(length, reason)) for direction, data, length, reason in saved.pending
    ]
    session.decoding.remember(pending, decided=saved.decided)
    session.decoding.saved = saved.decoder
    if saved.writer is not None:
        session.writer.restore(saved.writer)
    session.spoken, session.continues, session.counted = saved.spoken, saved.continues, saved.counted
    session.stale = saved.decided
    session.layers.undecided = [Chunk(*chunk) for chunk in saved.undecided]
    for chunk in saved.suspended:
        session.suspense.add(Chunk(*chunk))
    return session


def saved_chunk(chunk: Chunk) -> SavedChunk:
    """Give what a snapshot keeps of plaintext that waits for its socket."""
    return cast(SavedChunk, tuple(getattr(chunk, name) for name in Chunk.__slots__))


def pack(snapshot: Snapshot) -> bytes:
    """Give the bytes of a snapshot."""
    return cast(bytes, msgpack.packb((VERSION, snapshot), default=_plain))


def unpack(data: bytes) -> Snapshot:
    """Read a snapshot.

    Raises:
        UnreadableSnapshotError: it is damaged, or of another version.
    """
    try:
        version, values = msgpack.unpackb(data, strict_map_key=False, use_list=False)
        if version != VERSION:
            raise UnreadableSnapshotError(f"a snapshot of version {version}")
        return cast(Snapshot, read(Snapshot, values))
    except (ValueError, TypeError, msgpack.UnpackException) as error:
        raise UnreadableSnapshotError(f"not a snapshot: {error}") from error


def _plain(value: object) -> object:
    if isinstance(value, UUID):
        return value.bytes
    if isinstance(value, set | frozenset):
        return list(value)
    if is_dataclass(value):
        return {field.name: getattr(value, field.name) for field in fields(value)}
    raise TypeError(f"a snapshot cannot hold a {type(value).__name__}")
