"""Running digests of what agents say and hear on their connections, as the probes told it, before any of it is hidden.

What lives here: which records count, and what makes a digest worthless. What must not: comparing (matching.py).

A digest cannot be remembered halfway: of a connection that was open when a recorder began, its content is not compared.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final
from uuid import UUID

from capd.daemon.witness.state import Seen
from capd.recording.record import Direction, Kind, Record
from capd.recording.stream_digest import Said, StreamDigest, key_name

WIRE: Final = "wire"


class Digests:
    """Of all open connections. Not thread-safe."""

    def __init__(self, key: Callable[[], bytes]) -> None:
        """Take what gives the host's key; empty: there is none yet."""
        self._find, self._key = key, b""
        self._open: dict[UUID, list[StreamDigest | None]] = {}

    def begin(self, session: UUID) -> None:
        """Begin with a connection of which nothing was said yet."""
        if not self._open:  # nothing hangs on the key that was, and another enforcer may have made a new one
            self._key = self._find()
        if self._key:
            self._open[session] = [StreamDigest(self._key), StreamDigest(self._key)]

    def observe(self, seen: Seen, record: Record) -> None:
        """Take a record of a connection, as the probes told it."""
        streams = self._open.get(record.session)
        if record.kind is Kind.CLOSE:
            seen.said = self._end(record.session)
            return
        if streams is None or record.direction is None or record.body.get("layer") == WIRE:
            return
        stream = streams[record.direction]
        if stream is None:
            return
        payload = record.body.get("payload")
        if record.kind is Kind.DATA and isinstance(payload, bytes) and record.body.get("position") == stream.count:
            stream.take(payload)
        elif record.kind in (Kind.DATA, Kind.GAP):
            streams[record.direction] = None

    def _end(self, session: UUID) -> Said | None:
        streams = self._open.pop(session, None)
        if streams is None:
            return None
        counts = [0 if stream is None else stream.count for stream in streams]
        digests = [None if stream is None else stream.end() for stream in streams]
        request, response = Direction.REQUEST, Direction.RESPONSE
        return Said(
            key=key_name(self._key),
            request_bytes=counts[request],
            request=digests[request],
            response_bytes=counts[response],
            response=digests[response],
        )

    def forget(self, session: UUID) -> None:
        """Let go of a connection."""
        self._open.pop(session, None)
