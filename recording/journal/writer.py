"""Appending to the journal.

What lives here: files of the journal as their writer sees them: creation, rotation, removal. What must not: reading.
"""

from __future__ import annotations

import os
import zlib
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from capd.recording.durable import DIRECTORY_MODE, FILE_MODE, write_whole
from capd.recording.errors import on_disk
from capd.recording.journal.block import (
    RAW_BYTES_MAX,
    BlockHeader,
    Source,
    file_number,
    file_path,
)
from capd.recording.journal.cipher import OVERHEAD_BYTES, JournalKey
from capd.recording.journal.compression import LEVEL, Compression
from capd.recording.journal.numbering import reserve
from capd.recording.position import Position

FILE_BYTES_MAX: Final = 64 << 20
"""A file is closed before it would grow beyond this, so that removal of what is sealed frees space in steps of this size."""


class JournalWriter:
    """Appends blocks. One at a time may write into a directory; the daemon's lock sees to that.

    A new writer starts a new file with a number higher than any there, and never touches older ones, so that a block that a
    killed writer left unfinished stays what it is: the unfinished end of a file.

    What was appended survives the death of any process at any moment. It does not survive a power cut before the kernel has
    written it back: a sync per block would cost more than the journal, which is short-lived, is worth. But what earlier writers
    wrote is synced before a new one begins: where a start's last blocks are missing nothing tells it, as a lower sequence does
    within a start, and a recorder would take what is left for what it has recorded.
    """

    def __init__(
        self,
        directory: Path,
        *,
        group: int | None = None,
        file_bytes_max: int = FILE_BYTES_MAX,
        level: int | None = LEVEL,
        key: JournalKey | None = None,
        number_min: int | None = None,
    ) -> None:
        """Prepare to write.

        Args:
            directory: made if it is missing (0750).
            group: group that may read: the recorder's.
            file_bytes_max: when a file is rotated; one block may be larger and then has a file of its own.
            level: zstd level; None never compresses.
            key: what payloads are encrypted with; None leaves them as they are.
            number_min: the first file's number is at least this, and higher than any that was ever reserved, whatever a power
                cut took; None: one more than the highest that is there.

        Raises:
            StateDirectoryError: the directory cannot be used.
        """
        self._directory = directory
        self._group = group
        self._file_bytes_max = file_bytes_max
        self._compression = Compression(level)
        self._key = key
        self._sequence = 0
        self._fd = -1
        self._size = 0
        with on_disk("prepare", directory):
            directory.mkdir(mode=DIRECTORY_MODE, parents=True, exist_ok=True)
            if group is not None:
                os.chown(directory, -1, group)
            self._sizes = _sizes(directory)
        _sync(directory, self._sizes)
        self._number = max(self._sizes, default=-1)
        if number_min is not None:
            self._number = reserve(directory, max(self._number + 1, number_min), group=group) - 1
        self._start_file()

    @property
    def position(self) -> Position:
        """Where the next block goes, unless it starts a new file."""
        return Position(self._number, self._size)

    def append(self, source: Source, payload: bytes | memoryview, *, count: int, boottime_ns: int, realtime_ns: int) -> None:
        """Write one block. When this returns, the payload may be overwritten, and a reader sees the block.

        Args:
            source: where the payload comes from.
            payload: at most RAW_BYTES_MAX bytes; not copied unless compression pays.
            count: records in it.
            boottime_ns: CLOCK_BOOTTIME at the drain.
            realtime_ns: wall time at the same moment.

        Raises:
            StorageFullError: no room; nothing of the block is in the journal, and the call may be repeated.
            StateDirectoryError: the file cannot be written; nothing of the block is in the journal.
            ValueError: the payload is too large.
        """
        if len(payload) > RAW_BYTES_MAX:
            raise ValueError(f"a payload of {len(payload)} bytes is over the limit of {RAW_BYTES_MAX}")
        codec, stored = self._compression.store(payload)
        facts = BlockHeader(
            source=source,
            codec=codec,
            sequence=self._sequence,
            raw_bytes=len(payload),
            stored_bytes=len(stored) + (OVERHEAD_BYTES if self._key else 0),
            boottime_ns=boottime_ns,
            realtime_ns=realtime_ns,
            count=count,
            stored_crc=0 if self._key else zlib.crc32(stored),
            key=self._key.id if self._key else 0,
        )
        header = facts.pack()
        if self._key is not None:
            stored = self._key.encrypt(stored, facts.bound)
        if self._size and self._size + len(header) + len(stored) > self._file_bytes_max:
            self._start_file()
        with on_disk("write", file_path(self._directory, self._number)):
            self._size += write_whole(self._fd, (header, stored), self._size)
        self._sizes[self._number] = self._size
        self._sequence += 1

    def bytes_total(self) -> int:
        """Give the size of all journal files together."""
        return sum(self._sizes.values())

    def bytes_before(self, position: Position) -> int:
        """Give how much of the file of a position lies before it: no more than the file has, whatever the position says."""
        return min(position.offset, self._sizes.get(position.file, 0))

    def remove_before(self, position: Position) -> int:
        """Remove the files that lie wholly before a position; the file that is written stays.

        Returns:
            Bytes freed.
        """
        freed = 0
        for number in [number for number in self._sizes if number < min(position.file, self._number)]:
            path = file_path(self._directory, number)
            with on_disk("remove", path):
                path.unlink(missing_ok=True)
            freed += self._sizes.pop(number)
        return freed

    def close(self) -> None:
        """Close the file. The journal stays."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def _start_file(self) -> None:
        number = self._number + 1
        path = file_path(self._directory, number)
        with on_disk("create", path):
            fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, FILE_MODE)
            os.fchmod(fd, FILE_MODE)
            if self._group is not None:
                os.fchown(fd, -1, self._group)
        self.close()
        self._fd, self._number, self._size = fd, number, 0
        self._sizes[number] = 0


def _sync(directory: Path, numbers: Iterable[int]) -> None:
    """Make files survive a power cut, as far as the disk does it."""
    for path in [directory, *(file_path(directory, number) for number in numbers)]:
        with suppress(OSError):
            fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            try:
                os.fsync(fd)
            finally:
                os.close(fd)


def _sizes(directory: Path) -> dict[int, int]:
    """Give the size of each journal file by number, in order."""
    sizes = {}
    with os.scandir(directory) as entries:
        for entry in entries:
            number = file_number(entry.name)
            if number is not None:
                sizes[number] = entry.stat().st_size
    return dict(sorted(sizes.items()))
