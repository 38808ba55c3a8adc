"""Connections by their two ends, of which an agent may use a port again and again, thousands of times a second.

What lives here: finding them. What must not: which one is meant (matching.py).
"""

from __future__ import annotations

from itertools import islice
from typing import Final
from uuid import UUID

from capd.daemon.witness.state import Seen

NEWEST_MAX: Final = 256
"""Of the connections between two ends that are looked at: more than one process begins while the other writes a line."""

Ends = tuple[tuple[str, int], tuple[str, int]]
"""Client and destination."""


class EndsIndex:
    """Sessions by ends. Not thread-safe."""

    def __init__(self) -> None:
        self._sessions: dict[Ends, dict[UUID, None]] = {}
        """In the order in which they were added, each taken out without a look at the others."""

    def add(self, seen: Seen) -> None:
        """Take a connection, if its ends are known."""
        if seen.local is not None and seen.target is not None:
            self._sessions.setdefault((seen.local, seen.target), {})[seen.session] = None

    def remove(self, seen: Seen) -> None:
        """Let go of one, before its ends change."""
        if seen.local is None or seen.target is None:
            return
        ends = (seen.local, seen.target)
        sessions = self._sessions.get(ends, {})
        sessions.pop(seen.session, None)
        if not sessions:
            self._sessions.pop(ends, None)

    def between(self, client: tuple[str, int], destination: tuple[str, int] | None) -> list[UUID]:
        """Give the newest sessions between two ends, of which only the last can be open."""
        if destination is None:
            return []
        return list(islice(reversed(self._sessions.get((client, destination), {})), NEWEST_MAX))
