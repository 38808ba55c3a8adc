"""The probes that stand between two daemons: their descriptors at the service manager, their description in a file.

What lives here: the file, and when it says that nothing may be taken over. What must not: what is in the description
(probes/standing.py).

A daemon that goes on with another's probes goes on with its record, too: same epoch, same journal. So the file also says how
far the journal's numbers were reserved: another daemon that started in between, of whatever version, has reserved more.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from uuid import UUID

from capd.daemon import descriptor_store
from capd.recording.durable import read_regular, replace_content
from capd.recording.journal.numbering import reserved

FILE: Final = "probes.json"
FILE_BYTES_MAX: Final = 4 << 20
"""A description of as many libraries as may have probes has less than half of it."""
FORM: Final = 1
"""Of the file, and of those beside it."""


@dataclass(frozen=True, kw_only=True)
class Remembered:
    """What the file says.

    Attributes:
        epoch: of the daemon that loaded the probes.
        description: of them.
    """

    epoch: UUID
    description: Mapping[str, Any]


class ProbeStore:
    """Keeps probes for the next daemon, as `capd.probes.standing.Store`.

    Args:
        directory: for the file; only root may enter it.
        journal: where the journal is.
    """

    def __init__(self, directory: Path, journal: Path) -> None:
        self._file = directory / FILE
        self._journal = journal
        self._epoch = UUID(int=0)
        self._began = False
        self._description: Mapping[str, object] | None = None
        self._spoiled: str | None = None

    @property
    def unkept(self) -> str | None:
        """Say why the next daemon could not go on, or None."""
        return self._spoiled or (None if self._description is not None else "they are too many to be kept")

    def keep(self, name: str, descriptors: Sequence[int]) -> None:
        """Have descriptors kept."""
        descriptor_store.keep(name, descriptors)

    def let_go(self, name: str) -> None:
        """Have them kept no longer."""
        descriptor_store.let_go(name)

    def describe(self, description: Mapping[str, object] | None) -> None:
        """Write the file, or remove it. Before this daemon's journal has begun, what an earlier one wrote is as good."""
        self._description = description
        if description is None or self._spoiled is not None:
            self._file.unlink(missing_ok=True)
        elif self._began:
            self._write(description)

    def begin(self, epoch: UUID) -> None:
        """This daemon's journal has begun, under an epoch: from here on the next daemon can go on."""
        self._epoch, self._began = epoch, True
        self.describe(self._description)

    def spoil(self, reason: str) -> None:
        """What the next daemon needs beside the probes could not be written down: it must not go on."""
        self._spoiled = self._spoiled or reason
        self._file.unlink(missing_ok=True)

    def _write(self, description: Mapping[str, object]) -> None:
        content = {"form": FORM, "epoch": self._epoch.hex, "numbers": reserved(self._journal), "probes": description}
        try:
            replace_content(self._file, json.dumps(content).encode("ascii"), mode=0o600, sync=False)
        except OSError as error:
            self.spoil(f"{self._file}: {error.strerror}")
        if self._spoiled is not None:  # or meanwhile, by the drain thread, which has removed what was there before
            self._file.unlink(missing_ok=True)


def remembered(directory: Path, journal: Path) -> Remembered | None:
    """Read what an earlier daemon wrote; None: nothing, or another daemon was there since.

    Args:
        directory: of the file.
        journal: where the journal is.
    """
    with suppress(OSError, ValueError, KeyError, TypeError):
        found = json.loads(read_regular(directory / FILE, FILE_BYTES_MAX))
        if found["form"] == FORM and found["numbers"] == reserved(journal):
            return Remembered(epoch=UUID(hex=found["epoch"]), description=found["probes"])
    return None
