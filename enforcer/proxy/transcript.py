"""What the agent and the enforcer said to each other on one connection, in digests: the second witness has the same.

What lives here: which bytes count. What must not: the digest (recording/stream_digest.py), comparing (daemon/witness).

On a connection that begins with TLS which capd opens, what is inside counts, and nothing of the handshake; on any other, all
that crosses the agent's socket.
"""

from __future__ import annotations

from capd.recording.stream_digest import StreamDigest, key_name


class Transcript:
    """Of one connection."""

    __slots__ = ("_key", "_opened", "_request", "_response")

    def __init__(self, key: bytes) -> None:
        """Begin with the host's key; empty: nothing is digested."""
        self._key, self._opened = key, False
        self._begin()

    def _begin(self) -> None:
        self._request = StreamDigest(self._key) if self._key else None
        self._response = StreamDigest(self._key) if self._key else None

    def open(self) -> None:
        """Begin anew: what crossed so far was a handshake, and from here on what is inside counts."""
        self._opened = True
        self._begin()

    def read(self, data: bytes) -> None:
        """Take what was read from the agent's socket."""
        if not self._opened and self._request is not None:
            self._request.take(data)

    def written(self, data: bytes) -> None:
        """Take what is written into it."""
        if not self._opened and self._response is not None:
            self._response.take(data)

    def read_inside(self, data: bytes) -> None:
        """Take what the agent said in TLS."""
        if self._opened and self._request is not None:
            self._request.take(data)

    def written_inside(self, data: bytes) -> None:
        """Take what it is told in TLS."""
        if self._opened and self._response is not None:
            self._response.take(data)

    def end(self) -> dict[str, object] | None:
        """Give what is written down; None: nothing was digested."""
        if self._request is None or self._response is None:
            return None
        return {
            "key": key_name(self._key),
            "request": [self._request.count, self._request.end()],
            "response": [self._response.count, self._response.end()],
        }
