"""Memory that a role does not need any more, given back to the kernel.

What lives here: when to ask the allocator, and asking it. What must not: who needs how much.

glibc keeps what was freed for the next time, and the more it was once the more it keeps: after a ring's worth of small messages
that was a third of what the recorder had resident.
"""

from __future__ import annotations

import ctypes
from contextlib import suppress
from typing import Final

WORK_MIN: Final = 10_000
"""Records after which there is something to give back; asking takes milliseconds, and a host at rest has none to spare."""


class FreedMemory:
    """Gives back what is free, after work that was worth it."""

    def __init__(self) -> None:
        self._done = 0

    def give_back(self, done: int) -> bool:
        """Give back the pages that hold nothing, where enough was done since the last time; say whether it was.

        Args:
            done: how much work was done so far, in records.
        """
        if done - self._done < WORK_MIN:
            return False
        self._done = done
        with suppress(AttributeError, OSError):  # another C library than glibc has no such call
            ctypes.CDLL(None).malloc_trim(0)
        return True
