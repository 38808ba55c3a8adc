"""Holding agents back while there is no room to record what they would do.

What lives here: what each action does to the cgroups of runs, and undoing it. What must not: when (storage.py), how a
connection is refused (probes/refusal.py).

`stop` outlives the daemon on purpose: agents that were stopped because nothing can be recorded do not go on because the
recorder died too. The file that names them lets the next daemon take them up.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Final, Literal

from capd.daemon.cgroups import Hierarchy
from capd.probes.refusal import Refusal
from capd.recording.durable import read_regular, replace_content

Action = Literal["continue", "refuse", "stop"]
FROZEN_BYTES_MAX: Final = 4 << 20
"""Of the file that names stopped cgroups: thousands of long paths."""


class Holding:
    """Holds the cgroups that it is told, in the configured way. One thread calls it."""

    def __init__(self, action: Action, hierarchy: Hierarchy, frozen_file: Path) -> None:
        """Take up what an earlier daemon stopped.

        Args:
            action: what is done to runs.
            hierarchy: has their cgroups.
            frozen_file: names those that are stopped.
        """
        self.action = action
        self._hierarchy = hierarchy
        self._frozen_file = frozen_file
        self._refusal = Refusal()
        self._frozen = _read(frozen_file)
        self.problems: list[str] = []
        """What could not be done the last time."""

    @property
    def held(self) -> int:
        """How many cgroups are held back."""
        return len(self._refusal) + len(self._frozen)

    @property
    def refused(self) -> int:
        """How many calls were refused so far."""
        return self._refusal.refused

    def apply(self, cgroups: Mapping[int, str], *, stopped: Mapping[int, str] = MappingProxyType({})) -> None:
        """Hold these cgroups back and no others.

        Args:
            cgroups: paths below the hierarchy's root, by the kernel's number; empty: hold nobody.
            stopped: such as are stopped whatever is configured, because nothing else keeps them from the network.
        """
        self.problems = []
        if self.action == "refuse" and cgroups:
            self.problems += self._refusal.hold({number: self._hierarchy.directory(path) for number, path in cgroups.items()})
        else:
            self._refusal.release()
        wanted = {*(cgroups.values() if self.action == "stop" else ()), *stopped.values()}
        if wanted != self._frozen:
            self._freeze(wanted)

    def close(self) -> int:
        """Refuse nothing any more. Gives how many cgroups stay stopped, for the next daemon to take up."""
        self._refusal.release()
        return len(self._frozen)

    def _freeze(self, wanted: set[str]) -> None:
        # What is about to be stopped is written down before, what goes on again afterwards: no one is ever forgotten.
        self._remember(self._frozen | wanted)
        for path in wanted - self._frozen:
            if self._set(path, frozen=True):
                self._frozen.add(path)
        for path in self._frozen - wanted:
            if self._set(path, frozen=False):
                self._frozen.discard(path)
        self._remember(self._frozen)

    def _set(self, path: str, *, frozen: bool) -> bool:
        try:
            self._hierarchy.freeze(path, frozen=frozen)
        except FileNotFoundError:
            return not frozen  # it ended
        except OSError as error:
            verb = "stopped" if frozen else "let go on"
            self.problems.append(f"{path} cannot be {verb}: {error.strerror or error}")
            return False
        return True

    def _remember(self, paths: set[str]) -> None:
        try:
            content = json.dumps(sorted(paths), ensure_ascii=True).encode("ascii")
            replace_content(self._frozen_file, content, mode=0o600, sync=False)
        except OSError as error:
            self.problems.append(f"{self._frozen_file} cannot be written: {error.strerror or error}")


def _read(path: Path) -> set[str]:
    try:
        found = json.loads(read_regular(path, FROZEN_BYTES_MAX))
    except (OSError, ValueError):
        return set()
    return {item for item in found if isinstance(item, str)} if isinstance(found, list) else set()
