"""The decision log: what was decided, on disk before what was decided happens.

What lives here: the files (docs/formats/decisions.md), their bounds, reading them back. What must not: deciding, the recorder.

One writer each; files `<writer>-<number>.log`. An entry is there for every reader once `flush` returns, whatever becomes of
this process; a power cut may take the last seconds, as it may of the journal. What cannot be written must not happen: `flush`
raises, and the caller denies. Closed files go, the oldest first, when a writer has too many; the numbers of entries say so.
"""

from __future__ import annotations

import os
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final, cast

import msgpack

from capd.recording.durable import read_regular, sync_directory
from capd.recording.errors import on_disk

MAGIC: Final = b"capddec1"
FILE_BYTES_MAX: Final = 16 << 20
"""Freed by whole files; one holds some 50,000 decisions."""
FILES_MAX: Final = 32
"""Of one writer: half a gigabyte, until the recorder takes them away."""
ENTRY_BYTES_MAX: Final = 65_536
"""Host and rule are bounded far below; a reader takes more for damage."""
QUEUE_MAX: Final = 4_096
"""Entries of one turn of the event loop; each connection asks for one at a time."""
_FRAME_BYTES: Final = 8
_MODE: Final = 0o640


class DecisionLog:
    """Writes entries. Not thread-safe."""

    def __init__(self, directory: Path, writer: str) -> None:
        """Begin a new file after those that are there.

        Args:
            directory: exists, and belongs to this process.
            writer: letters and digits; the only process of that name here.

        Raises:
            StateDirectoryError: the file cannot be made.
        """
        self._directory, self._writer = directory, writer
        self._queue: list[bytes] = []
        self._descriptor = -1
        self._written = 0
        self.sequence = 0
        self.removed = 0
        """Files that went unread for want of room."""
        numbers = [_number(path) for path in directory.glob(f"{writer}-*.log")]
        self._number = max(numbers, default=0)
        with on_disk("begin", directory):
            self._begin()

    @property
    def full(self) -> bool:
        """Whether nothing more can be queued before the next flush."""
        return len(self._queue) >= QUEUE_MAX

    def append(self, entry: Mapping[str, object]) -> None:
        """Queue an entry; it gets the next number."""
        self.sequence += 1
        body = msgpack.packb({"sequence": self.sequence, **entry})
        assert len(body) <= ENTRY_BYTES_MAX
        self._queue.append(len(body).to_bytes(4, "little") + zlib.crc32(body).to_bytes(4, "little") + body)

    def flush(self) -> None:
        """Write what is queued.

        Raises:
            OSError: it was not written, or only in part; the queue is empty, and the next flush begins a new file.
        """
        if not self._queue:
            return
        content, self._queue = b"".join(self._queue), []
        try:
            if self._descriptor < 0 or self._written + len(content) > FILE_BYTES_MAX:
                self._begin()
            written = os.write(self._descriptor, content)
            if written != len(content):
                raise OSError(28, "no room for a whole entry")
        except OSError:
            self._close()
            raise
        self._written += written

    def close(self) -> None:
        """Write what is queued, and bring it to the disk."""
        try:
            self.flush()
            if self._descriptor >= 0:
                os.fsync(self._descriptor)
        finally:
            self._close()

    def _begin(self) -> None:
        self._close()
        self._number += 1
        path = self._directory / f"{self._writer}-{self._number:08d}.log"
        self._descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC, _MODE)
        self._written = os.write(self._descriptor, MAGIC)
        sync_directory(self._directory)
        files = sorted(self._directory.glob(f"{self._writer}-*.log"), key=_number)
        for old in files[:-FILES_MAX]:
            old.unlink(missing_ok=True)
            self.removed += 1

    def _close(self) -> None:
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)


def read_entries(path: Path) -> Iterator[dict[str, object]]:
    """Give the entries of a file; a last one that is not whole, which a crash leaves, ends it.

    Raises:
        ValueError: it is no such file, or an entry before the last is damaged.
        OSError: it cannot be read.
    """
    data = read_regular(path, FILE_BYTES_MAX + ENTRY_BYTES_MAX)
    if not data.startswith(MAGIC):
        raise ValueError(f"{path} is no decision log")
    at = len(MAGIC)
    while at + _FRAME_BYTES <= len(data):
        length = int.from_bytes(data[at : at + 4], "little")
        body = data[at + _FRAME_BYTES : at + _FRAME_BYTES + length]
        checksum = int.from_bytes(data[at + 4 : at + _FRAME_BYTES], "little")
        if length > ENTRY_BYTES_MAX or (len(body) == length and zlib.crc32(body) != checksum):
            raise ValueError(f"{path} is damaged at byte {at}")
        if len(body) < length:
            return
        yield cast("dict[str, object]", msgpack.unpackb(body))
        at += _FRAME_BYTES + length


def _number(path: Path) -> int:
    text = path.stem.rpartition("-")[2]
    return int(text) if text.isascii() and text.isdigit() else 0
