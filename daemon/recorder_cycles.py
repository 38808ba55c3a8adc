"""Journal blocks put together as the daemon drained them.

What lives here: where one drain turn ends and the next begins. What must not: what blocks hold.

A turn is notes, then control, then data, then late notes (drain.py). A cycle is one turn as far as it can be seen: it ends
where control or notes follow data, and where control follows control.
"""

from __future__ import annotations

from typing import Final

from capd.recording.journal import Block, JournalDamage, JournalReader, Position, Source

CYCLE_BYTES_MAX: Final = 32 * 1024 * 1024
"""Payload of one cycle, so that a backlog is worked off in pieces."""

Cycle = list[Block] | JournalDamage


class Cycles:
    """Reads a journal cycle by cycle.

    The last cycle is held back until something follows it, because more of its turn may come; `rest` gives it when nothing
    does. If more of its turn comes after all, that is a cycle of its own, and `parted` says so: what the parts give together is
    not what the whole would have given, so whoever goes this way again has to part the turn at the same place.
    """

    def __init__(self, reader: JournalReader) -> None:
        """Begin where the reader is, which may be within a turn."""
        self._reader = reader
        self.cut: frozenset[Position] = frozenset()
        """Positions at which a cycle has to end, because it ended there before."""
        self.parted: Position | None = None
        """Where the cycle begins that was given last, if it may be more of a turn of which a part was given before."""
        self._start = reader.position
        self._part: Block | None = None
        """The last block of the cycle that was given last, if nothing followed it then."""
        self._held: list[Block] = []
        self._held_bytes = 0
        self._ahead: Block | JournalDamage | None = None

    @property
    def waiting(self) -> bool:
        """Whether a cycle is held back."""
        return bool(self._held)

    def next(self) -> Cycle | None:
        """Give the next whole cycle, damage, or None when there is nothing more for now."""
        while True:
            found = self._ahead or self._reader.read()
            self._ahead = None
            if found is None:
                return None
            if isinstance(found, JournalDamage):
                if self._held:
                    return self._before(found)
                self._part = None
                return found
            if self._held and not self._continues(found):
                return self._before(found)
            if not self._held:
                self.parted = self._joint(found)
            self._held.append(found)
            self._held_bytes += len(found.payload)
            if found.next in self.cut:
                return self.rest()

    def rest(self) -> list[Block]:
        """Give what is held back, whole or not."""
        held, self._held, self._held_bytes = self._held, [], 0
        self._part = held[-1].without_payload() if held else None
        return held

    def _before(self, found: Block | JournalDamage) -> list[Block]:
        """Give what is held back, whole, because what was found next is not of its turn."""
        self._ahead = found
        cycle = self.rest()
        self._part = None
        return cycle

    def _joint(self, block: Block) -> Position | None:
        """Give where what comes is joined to what was given, if both may be of one turn."""
        start, self._start = self._start, None
        if self._part is None:
            return start
        return self._part.next if _follows(self._part, block) else None

    def _continues(self, block: Block) -> bool:
        return self._held_bytes + len(block.payload) <= CYCLE_BYTES_MAX and _follows(self._held[-1], block)


def _follows(before: Block, block: Block) -> bool:
    """Tell whether a block can be of the same turn as the one before it."""
    return block.source is Source.DATA or before.source is Source.NOTE
