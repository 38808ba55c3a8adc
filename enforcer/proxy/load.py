"""How many connections each worker of an enforcer has, in memory that all of them share.

What lives here: the counts, and whether a worker leaves the next connection to others. What must not: listeners (door.py), what
one run may have (room.py).

Every worker takes from the listeners of all. Left to the kernel, sixteen connections of a pool may be twelve and four, for as
long as the pool lives: one worker has no processor left then, while another has little to do.
"""

from __future__ import annotations

import mmap
from typing import Final

_COUNT_BYTES: Final = 8
SHARE_OF_MORE: Final = 8
"""One in so many connections is no difference worth waiting for; fewer than eight are divided evenly."""


class Load:
    """Of all workers. Made once, before processes that share it; each writes its own count, whole, so that nobody waits."""

    def __init__(self, workers: int) -> None:
        """Begin without workers: to one that has not begun nothing is left.

        Args:
            workers: how many there may be.
        """
        self._memory = mmap.mmap(-1, workers * _COUNT_BYTES)
        self._memory[:] = b"\xff" * len(self._memory)
        self._counts = memoryview(self._memory).cast("Q")

    def of(self, worker: int) -> OwnLoad:
        """Give one worker's view, which begins anew without connections; `worker`: its number, from 0."""
        return OwnLoad(self._counts, worker)


class OwnLoad:
    """One worker's."""

    def __init__(self, counts: memoryview[int], worker: int) -> None:
        self._counts, self._worker = counts, worker
        self.tell(0)

    def tell(self, connections: int) -> None:
        """Say how many it has now."""
        self._counts[self._worker] = connections

    def gives_way(self) -> bool:
        """Say whether another worker has so much less that the next connection is better left to it."""
        own = self._counts[self._worker]
        return own > 0 and min(self._counts) < own - own // SHARE_OF_MORE


def alone() -> OwnLoad:
    """Give the load of a worker that is the only one."""
    return Load(1).of(0)
