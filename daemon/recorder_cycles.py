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
    does.
    """

    def __init__(self, reader: JournalReader) -> None:
        """Begin where the reader is."""
        self._reader = reader
        self.cut: frozenset[Position] = frozenset()
        """Positions at which a cycle has to end, because it ended there before."""
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
                    self._ahead = found
                    return self.rest()
                return found
            if self._held and not self._continues(found):
                self._ahead = found
                return self.rest()
            self._held.append(found)
            self._held_bytes += len(found.payload)
            if found.next in self.cut:
                return self.rest()

    def rest(self) -> list[Block]:
        """Give what is held back, whole or not."""
        held, self._held, self._held_bytes = self._held, [], 0
        return held

    def _continues(self, block: Block) -> bool:
        if self._held_bytes + len(block.payload) > CYCLE_BYTES_MAX:
            return False
        before = self._held[-1].source
        if block.source is Source.DATA:
            return True
        return before is Source.NOTE
