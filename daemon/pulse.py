"""Signs of life that processes of one role give to their parent, in memory that they share.

What lives here: the memory. What must not: what follows from silence. No disk and no clock is asked, so that neither a full one
nor one that jumps looks like a process that hangs.
"""

from __future__ import annotations

import mmap
import struct
from typing import Final

PROCESSES_MAX: Final = 256
WORKERS_MAX: Final = 64
"""Of an enforcer, which has a handful of others beside them. It is here and not with its key: a daemon that enforces wants it
without the library that the keys are written in, which is 10 MB."""
_COUNT: Final = struct.Struct("=Q")
_MASK: Final = (1 << 64) - 1


class Pulse:
    """One count for each process. Made once, before the processes that share it."""

    def __init__(self) -> None:
        self._memory = mmap.mmap(-1, PROCESSES_MAX * _COUNT.size)

    def beat(self, place: int) -> None:
        """Give a sign; each place has one process that does."""
        _COUNT.pack_into(self._memory, place * _COUNT.size, (self.count(place) + 1) & _MASK)

    def count(self, place: int) -> int:
        """Give how many signs there were at a place."""
        return int(_COUNT.unpack_from(self._memory, place * _COUNT.size)[0])
