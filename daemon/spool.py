"""The journal as the daemon uses it: bounded, freed behind the recorder, and honest about when it cannot take more.

What lives here: the decision to stop and to go on. What must not: rings, notes, what is in a block.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from capd.daemon.units import MIB
from capd.recording.errors import StateDirectoryError, StorageFullError
from capd.recording.journal import JournalKey, JournalWriter, Position, Source
from capd.recording.journal.numbering import NUMBERS_MAX

if TYPE_CHECKING:  # its library is to stay out of a role (settled.py)
    from capd.daemon.configuration import JournalSection

POSITION_BYTES_MAX: Final = 4096
"""Two numbers; root reads no more of a file that an unprivileged process wrote."""
FILES_PER_JOURNAL: Final = 8
"""Space is freed by whole files, so a small journal needs small ones."""
FILE_BYTES_MAX: Final = 64 * MIB


@dataclass(frozen=True, kw_only=True)
class Stoppage:
    """Why nothing is written at the moment.

    Attributes:
        cause: "journal full", "disk low" or "disk error".
        detail: one line for the operator.
    """

    cause: str
    detail: str


class Spool:
    """The journal with its bounds. Not thread-safe: the drain thread owns it; others read `stoppage` and the numbers."""

    def __init__(
        self,
        directory: Path,
        position_file: Path,
        section: JournalSection,
        *,
        group: int | None,
        disk: Callable[[], str | None],
        key: JournalKey | None = None,
    ) -> None:
        """Open the journal.

        Args:
            directory: where the journal files are.
            position_file: the recorder's position, up to which everything is in sealed segments.
            section: the bounds.
            group: group that may read the files.
            disk: says why there is no room to write, or None.
            key: what payloads are encrypted with; None leaves them as they are.

        Raises:
            StateDirectoryError: the directory cannot be used.
        """
        self._position_file = position_file
        self._section = section
        self._disk = disk
        sealed = read_position(position_file)
        self._writer = JournalWriter(
            directory,
            group=group,
            key=key,
            number_min=sealed.file + 1 if sealed and sealed.file < NUMBERS_MAX else 0,
            file_bytes_max=min(FILE_BYTES_MAX, section.bytes_max // FILES_PER_JOURNAL),
            **({} if section.compression == "zstd" else {"level": None}),
        )
        self.stoppage: Stoppage | None = None
        self.refused = False
        """Whether the disk had no room for a block since `refresh`."""
        self.sealed: Position | None = None
        self.blocks = 0
        self.refresh()

    def follow(self, section: JournalSection) -> None:
        """Go by other bounds from now on. May be called by another thread; how files are compressed stays."""
        self._section = section

    @property
    def bytes_max(self) -> int:
        """Say how much may wait."""
        return self._section.bytes_max

    @property
    def backlog_bytes(self) -> int:
        """Say how much of the journal is not in sealed segments yet."""
        return self._writer.bytes_total() - (self._writer.bytes_before(self.sealed) if self.sealed else 0)

    @property
    def position(self) -> Position:
        """Say where the next block goes."""
        return self._writer.position

    def append(self, source: Source, payload: bytes | memoryview, *, count: int, boottime_ns: int, realtime_ns: int) -> bool:
        """Write a block.

        Returns:
            False if it was not written, because the journal is full or the disk refused it; the caller keeps the payload.
        """
        if self.stoppage is not None:
            return False
        try:
            self._writer.append(source, payload, count=count, boottime_ns=boottime_ns, realtime_ns=realtime_ns)
        except StorageFullError as error:
            self.refused = True
            self.stoppage = Stoppage(cause="disk low", detail=str(error))
            return False
        except StateDirectoryError as error:
            self.stoppage = Stoppage(cause="disk error", detail=str(error))
            return False
        self.blocks += 1
        if self.backlog_bytes >= self._section.bytes_max:
            self.stoppage = self._full()
        return True

    def refresh(self) -> None:
        """Free what the recorder has sealed, then decide anew whether to write. To be called about every second."""
        self.refused = False
        position = read_position(self._position_file)
        if position is not None and position <= self._writer.position:
            self.sealed = position
        try:
            if self.sealed is not None:
                self._writer.remove_before(self.sealed)
        except StateDirectoryError as error:
            self.stoppage = Stoppage(cause="disk error", detail=str(error))
            return
        self.stoppage = None
        if self.backlog_bytes >= self._section.bytes_max:
            self.stoppage = self._full()
        elif (detail := self._disk()) is not None:
            self.stoppage = Stoppage(cause="disk low", detail=detail)

    def close(self) -> None:
        """Close the file that is written."""
        self._writer.close()

    def _full(self) -> Stoppage:
        return Stoppage(
            cause="journal full",
            detail=f"{self.backlog_bytes // MIB} MiB wait for the recorder, "
            f"journal.bytes_max is {self._section.bytes_max // MIB} MiB",
        )


def read_position(path: Path) -> Position | None:
    """Read the recorder's position; None if there is none, or nothing that can be one.

    The recorder is not trusted: the file is opened so that neither a link nor a pipe in its place does harm.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            return None
        content = os.read(descriptor, POSITION_BYTES_MAX)
        return Position.from_bytes(content)
    except (OSError, ValueError):
        return None
    finally:
        os.close(descriptor)
