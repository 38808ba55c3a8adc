"""Which cgroup a number is: paths below the parents of runs, found by walking them.

What lives here: the walk and its memory. What must not: what a run is.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

CGROUPS_MAX: Final = 50_000
"""Looked at in one walk. A run that makes more of its own is not known by those beyond, and what it asks for is refused."""
WALK_SECONDS_MIN: Final = 0.2
"""From one walk for a number that nobody knows to the next: who asks with such must not keep the enforcer busy."""


class CgroupPaths:
    """Paths by number. One thread calls it."""

    def __init__(self, root: Path, parents: Sequence[str], clock: Callable[[], float]) -> None:
        """Take where to look.

        Args:
            root: mount point of the hierarchy.
            parents: paths below it.
            clock: monotonic time.
        """
        self._root = root
        self._parents = tuple(parents)
        self._clock = clock
        self._known: dict[int, str] = {}
        self._walk_due = 0.0

    def path_of(self, number: int) -> str | None:
        """Give the path of a cgroup below one of the parents; None if it is none of them, or gone."""
        if number not in self._known and self._clock() >= self._walk_due:
            self._walk_due = self._clock() + WALK_SECONDS_MIN
            self._known = self._walk()
        return self._known.get(number)

    def _walk(self) -> dict[int, str]:
        found: dict[int, str] = {}
        for parent in self._parents:
            for directory, _below, _files in os.walk(self._root / parent.lstrip("/")):
                if len(found) >= CGROUPS_MAX:
                    return found
                try:
                    number = Path(directory).stat().st_ino
                except OSError:
                    continue  # it ended during the walk
                found[number] = f"/{Path(directory).relative_to(self._root)}"
        return found
