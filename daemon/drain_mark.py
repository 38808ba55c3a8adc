"""What the drain is doing, in memory that outlives it: so that the next daemon tells nothing twice and leaves nothing out.

What lives here: the mark, and what follows from one that a killed daemon left. What must not: draining.

A block is appended to the journal, then its room in the ring is given back. Killed between the two, a daemon leaves a span that
is in the journal and in the ring; killed while it appends, half a block. The mark says which span was on its way to where.
"""

from __future__ import annotations

import mmap
import os
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Final, Protocol

from capd.recording.journal import Position, Source, tail

FILE: Final = "drain"
_NOTHING: Final = 0
_WHAT: Final = struct.Struct("<Q")
_WHERE: Final = struct.Struct("<QQQQ")
"""Ring position before and behind the span, file and offset in the journal."""
_BYTES: Final = _WHAT.size + _WHERE.size


class Ring(Protocol):
    """What has to be known of a ring; `capd.probes.ring` has the real one."""

    @property
    def position(self) -> int:
        """Give where the next span begins."""

    def skip_to(self, position: int) -> None:
        """Give room back up to there."""


class DrainMark:
    """The mark of this daemon.

    Args:
        path: of its file, which is made anew.

    Raises:
        OSError: it cannot be made.
    """

    def __init__(self, path: Path) -> None:
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        try:
            os.write(fd, bytes(mmap.PAGESIZE))  # now, for later there may be no room
            self._page = mmap.mmap(fd, mmap.PAGESIZE)
        finally:
            os.close(fd)

    def begin(self, source: Source, start: int, end: int, position: Position) -> None:
        """A block is about to be appended.

        Args:
            source: where it comes from.
            start: where it begins in that ring.
            end: where it ends there.
            position: of the journal.
        """
        _WHERE.pack_into(self._page, _WHAT.size, start, end, position.file, position.offset)
        _WHAT.pack_into(self._page, 0, source)

    def done(self) -> None:
        """It was, and the ring has its room back; or it was not, and nothing of it is there."""
        _WHAT.pack_into(self._page, 0, _NOTHING)

    def close(self) -> None:
        """Unmap it; the file stays."""
        self._page.close()


def left(path: Path) -> bytes | None:
    """Read the mark that an earlier daemon left; None when there is none, and then nobody knows."""
    try:
        content = path.read_bytes()[:_BYTES]
    except OSError:
        return None
    return content if len(content) == _BYTES else None


def settle(mark: bytes, journal: Path, rings: Mapping[Source, Ring]) -> None:
    """Bring journal and rings to where the killed daemon would have brought them. To be called before anything is written.

    Args:
        mark: as `left` gave it.
        journal: where the journal is.
        rings: that were taken over, by what comes from them.

    Raises:
        StateDirectoryError: the journal cannot be read or cut.
    """
    (what,) = _WHAT.unpack_from(mark)
    if what == _NOTHING:
        return
    start, end, file, offset = _WHERE.unpack_from(mark, _WHAT.size)
    ring = rings.get(what)
    if tail.settle(journal, Position(file, offset)) and ring is not None and ring.position == start:
        ring.skip_to(end)
