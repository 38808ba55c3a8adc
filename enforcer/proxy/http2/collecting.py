"""Bodies of requests that a verdict needs: held until they are whole, or enough.

What lives here: counting them, of a stream and of the connection. What must not: asking again (layer.py).
"""

from __future__ import annotations

from capd.enforcer.proxy.http2.limits import COLLECTED_BYTES_MAX
from capd.enforcer.proxy.http2.peer import Peer
from capd.enforcer.proxy.http2.stream import Stage, Stream


class Collecting:
    """Of one connection."""

    def __init__(self, client: Peer) -> None:
        self._client = client
        self._bytes = 0

    def begin(self, stream: Stream) -> bool:
        """Hold a body from now on; say whether what came of it is enough."""
        stream.stage = Stage.COLLECTING
        if stream.expects:
            stream.expects = False
            self._client.head(stream.id, [(":status", "100")], ends=False)
        self._client.took(stream.id, stream.body.forgive())
        return self._count(stream, stream.body.count)

    def add(self, stream: Stream, data: bytes) -> bool:
        """Hold more; say whether it is enough."""
        self._client.took(stream.id, len(data))
        stream.body.put(data, 0)
        return self._count(stream, len(data))

    def _count(self, stream: Stream, count: int) -> bool:
        assert stream.verdict is not None
        stream.collected += count
        self._bytes += count
        return stream.said_all or stream.collected > stream.verdict.body_bytes or self._bytes > COLLECTED_BYTES_MAX

    def release(self, stream: Stream) -> None:
        """The verdict does not need the body any more."""
        self._bytes -= stream.collected
        stream.collected = 0
