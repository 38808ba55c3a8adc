"""Totals in memory that all workers of the enforcer share.

What lives here: the table and its lock. What must not: what is counted.

The parent makes it before it starts workers, so it outlives each of them; it does not outlive the parent. The lock is the
kernel's (fcntl), which takes it back from a process that dies. A total that finds no room is not counted, and whoever asks is
told so.
"""

from __future__ import annotations

import fcntl
import mmap
import os
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from capd.enforcer.limits.totals import KEY_BYTES, Minute

SLOTS: Final = 65_536
"""Totals at a time: of 10,000 runs with six each."""
PROBES_MAX: Final = 64
"""Slots that are looked at for one key."""
FORGOTTEN_SECONDS: Final = 7 * 86_400.0
"""A total that nobody has added to for so long is of a run that is over."""
TOTAL_MAX: Final = (1 << 63) - 1
_SLOT: Final = struct.Struct(f"<{KEY_BYTES}sdQQQ")
_FREE: Final = bytes(KEY_BYTES)


class SharedTotals:
    """One table. Made once, before processes that share it."""

    def __init__(self, slots: int = SLOTS) -> None:
        self._slots = slots
        self._file = os.memfd_create("capd-totals", os.MFD_CLOEXEC)
        os.ftruncate(self._file, slots * _SLOT.size)
        self._memory = mmap.mmap(self._file, slots * _SLOT.size)

    def close(self) -> None:
        """Let go of it."""
        self._memory.close()
        os.close(self._file)

    def add(self, key: bytes, amount: int, now: float) -> int | None:
        """Add to a total and give it; None: it cannot be counted."""
        try:
            with self._locked():
                at, (total, _, _) = self._find(key, now)
                total = min(total + amount, TOTAL_MAX)
                _SLOT.pack_into(self._memory, at, key, now, total, 0, 0)
        except (OSError, LookupError):
            return None
        return total

    def said(self, key: bytes, most: int, now: float) -> bool:
        """Count one more of a minute, if there may be; False: there may not, or it cannot be counted."""
        try:
            with self._locked():
                at, (number, current, before) = self._find(key, now)
                minute = Minute(number=number, current=current, before=before).one_more(most, now)
                if minute is not None:
                    _SLOT.pack_into(self._memory, at, key, now, minute.number, minute.current, minute.before)
        except (OSError, LookupError):
            return False
        return minute is not None

    @contextmanager
    def _locked(self) -> Iterator[None]:
        fcntl.lockf(self._file, fcntl.LOCK_EX)
        try:
            yield
        finally:
            fcntl.lockf(self._file, fcntl.LOCK_UN)

    def _find(self, key: bytes, now: float) -> tuple[int, tuple[int, int, int]]:
        """Give the slot of a key and what is in it; that of a new key is free, or was forgotten.

        Raises:
            LookupError: there is no room.
        """
        first = int.from_bytes(key[:8], "big")
        room: int | None = None
        for probe in range(min(PROBES_MAX, self._slots)):
            at = (first + probe) % self._slots * _SLOT.size
            there, last, *counted = _SLOT.unpack_from(self._memory, at)
            if there == key:
                return at, (counted[0], counted[1], counted[2])
            if there == _FREE or now - last > FORGOTTEN_SECONDS:
                room = at if room is None else room
            if there == _FREE:
                break
        if room is None:
            raise LookupError("no room for one more total")
        return room, (0, 0, 0)
