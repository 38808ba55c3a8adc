"""The decision log: what was decided, on disk before what was decided happens.

What lives here: the files (docs/formats/decisions.md), their bounds, reading them back. What must not: deciding, the recorder.

One writer each; files `<writer>-<number>.log`. An entry is there for every reader once `flush` returns, whatever becomes of
this process; a power cut may take the last seconds, as it may of the journal. What cannot be written must not happen: `flush`
raises, and the caller denies. Closed files go, the oldest first, when a writer has too many; the numbers of entries say so.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from struct import Struct
from typing import Final, cast
from zlib import crc32

import msgpack

from capd.enforcer.entry_form import SEQUENCE, Form
from capd.recording.durable import read_regular, sync_directory
from capd.recording.errors import on_disk

MAGIC: Final = b"capddec1"
FILE_BYTES_MAX: Final = 16 << 20
"""Freed by whole files; one holds some 50,000 decisions."""
KEPT_BYTES_MAX: Final = 512 << 20
"""Of one writer, until the recorder takes them away. By bytes: who makes a worker end again and again, or the disk full, gets
many small files, and must not thereby push out what was written before."""
FILES_MAX: Final = 8_192
"""Of one writer: at a start each second, more than two hours of them."""
ENTRY_BYTES_MAX: Final = 65_536
"""Host and rule are bounded far below; a reader takes more for damage."""
QUEUE_MAX: Final = 4_096
"""Entries of one turn of the event loop; each connection asks for one at a time."""
_FRAME: Final = Struct("<II")
_FRAME_BYTES: Final = _FRAME.size
_MODE: Final = 0o640


class DamagedFrameError(Exception):
    """Bytes are no frame.

    Attributes:
        at: where they begin.
    """

    def __init__(self, at: int) -> None:
        super().__init__(f"damaged at byte {at}")
        self.at = at


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
        self._put(msgpack.packb({SEQUENCE: self.sequence, **entry}))

    def append_filled(self, form: Form, values: Sequence[bytes]) -> None:
        """Queue an entry of which a form has all but some values, which are packed already; it gets the next number."""
        self.sequence += 1
        self._put(form.filled(self.sequence, values))

    def _put(self, body: bytes) -> None:
        assert len(body) <= ENTRY_BYTES_MAX
        self._queue.append(_FRAME.pack(len(body), crc32(body)) + body)

    def leave_out(self) -> None:
        """Count an entry that has no room: whoever reads the log finds its number missing."""
        self.sequence += 1

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

    def let_go(self, names: Collection[str]) -> None:
        """Remove files of this writer that their reader has done with; never the one that is written."""
        current = self._path(self._number).name
        for path in self._directory.glob(f"{self._writer}-*.log"):
            if path.name in names and path.name != current:
                path.unlink(missing_ok=True)

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
        path = self._path(self._number)
        self._descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC, _MODE)
        try:
            self._written = os.write(self._descriptor, MAGIC)
            sync_directory(self._directory)
        except OSError:
            path.unlink(missing_ok=True)
            raise
        self._remove_oldest()

    def _remove_oldest(self) -> None:
        kept_bytes = 0
        newest_first = sorted(self._directory.glob(f"{self._writer}-*.log"), key=_number, reverse=True)
        for place, path in enumerate(newest_first):
            kept_bytes += path.stat().st_size
            if place and (kept_bytes > KEPT_BYTES_MAX or place >= FILES_MAX):
                path.unlink(missing_ok=True)
                self.removed += 1

    def _path(self, number: int) -> Path:
        return self._directory / f"{self._writer}-{number:08d}.log"

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
    try:
        for _at, body in frames(data, len(MAGIC)):
            yield cast("dict[str, object]", msgpack.unpackb(body))
    except DamagedFrameError as error:
        raise ValueError(f"{path} is damaged at byte {error.at}") from error


def frames(data: bytes, at: int) -> Iterator[tuple[int, bytes]]:
    """Give the frames from a place on: where each ends, and its body. A last one that is not whole ends it.

    Raises:
        DamagedFrameError: what is there is none.
    """
    while at + _FRAME_BYTES <= len(data):
        length = int.from_bytes(data[at : at + 4], "little")
        body = data[at + _FRAME_BYTES : at + _FRAME_BYTES + length]
        checksum = int.from_bytes(data[at + 4 : at + _FRAME_BYTES], "little")
        if length > ENTRY_BYTES_MAX or (len(body) == length and crc32(body) != checksum):
            raise DamagedFrameError(at)
        if len(body) < length:
            return
        at += _FRAME_BYTES + length
        yield at, body


def _number(path: Path) -> int:
    text = path.stem.rpartition("-")[2]
    return int(text) if text.isascii() and text.isdigit() else 0
