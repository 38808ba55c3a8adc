"""What of one session waits until it is known whether a TLS stream is over, and all that came behind it.

What lives here: the queue and its bounds. What must not: what is waited for (layers.py), for how long (waiting.py).

The end of a TLS stream comes on another ring than the bytes behind it, and may be read many calls later when the host is busy.
Meanwhile nothing of the session goes ahead: neither the other direction nor the TLS stream that the agent begins next.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import Final

from capd.daemon.assembly.streams import Chunk

SUSPENDED_EVENTS_MAX: Final = 4096
"""Of one session: some milliseconds of the busiest agent. The other ring is read in the same turn or the next."""
SUSPENDED_BYTES_MAX: Final = 16 * 1024 * 1024
"""What the daemon takes of the data ring in a turn."""


@dataclass(slots=True)
class Suspense:
    """The chunks of a session that wait, in the order in which they are to be delivered.

    Attributes:
        chunks: the first is the one that cannot be decided; each has a payload of its own.
        held: payload bytes of them.
    """

    chunks: deque[Chunk] = field(default_factory=deque)
    held: int = 0

    def __bool__(self) -> bool:
        """Whether anything waits."""
        return bool(self.chunks)

    @property
    def overdue(self) -> bool:
        """Whether more waits than may."""
        return len(self.chunks) > SUSPENDED_EVENTS_MAX or self.held > SUSPENDED_BYTES_MAX

    def add(self, chunk: Chunk) -> None:
        """Let a chunk wait."""
        self.chunks.append(chunk.kept())
        self.held += chunk.captured

    def take(self) -> Chunk:
        """Give the first and forget it."""
        chunk = self.chunks.popleft()
        self.held -= chunk.captured
        return chunk
