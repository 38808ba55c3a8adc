"""Writing segments: records become frames, frames a file, the file is sealed.

What lives here: the one writer of a segments directory. What must not: layouts, reading, the meaning of records.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path
from typing import Final
from uuid import UUID

import zstandard

from capd.recording.age import wrap
from capd.recording.durable import DIRECTORY_MODE, FILE_MODE, sync_directory, write_whole
from capd.recording.errors import RecordTooLargeError, on_disk, state_error
from capd.recording.position import Position
from capd.recording.record import Record, pack
from capd.recording.segment.cipher import TAG_BYTES, FrameCipher, new_data_key
from capd.recording.segment.footer import Footer, FrameEntry, SessionEntry
from capd.recording.segment.frame_index import FrameIndex, Tally
from capd.recording.segment.layout import (
    RECORD_BYTES_MAX,
    FileHeader,
    Preamble,
    finish_frame,
    frame_head,
    open_path,
    sealed_path,
    sequence_of,
)
from capd.recording.segment.trailer import Signer

FRAME_RAW_BYTES: Final = 1 << 20
"""A flush of more than this becomes several frames, so that reading one session does not unpack much of the others."""
SEGMENT_RAW_BYTES: Final = 8 << 20
SEGMENT_AGE_NS: Final = 5_000_000_000
"""A segment is due for sealing at this size or this long after its first record: what a lost disk or host can cost."""
LEVEL: Final = 1
"""zstd level: a quarter of the recorder's budget per core at text, for nearly the size of higher levels."""
FIRST_SEQUENCE: Final = 1


def _keep_nothing(_header: FileHeader, _data_key: bytes) -> None:
    return None


@dataclass(frozen=True, slots=True, kw_only=True)
class Sealing:
    """How segments are closed against change and against readers.

    Attributes:
        signer: the host's key; None leaves them unsigned, which every verification tells.
        recipients: age recipients that can read; none: no encryption.
        keep: is given the key of each encrypted segment before a frame of it is on disk.
    """

    signer: Signer | None = None
    recipients: Sequence[str] = ()
    keep: Callable[[FileHeader, bytes], None] = _keep_nothing


class SegmentWriter:
    """Writes segments one after the other. One at a time may write into a directory; `recover` comes before it.

    Records are buffered by `append`, written by `flush`, and final with `seal`. Only `flush` and `seal` touch the disk; when
    they raise, nothing is lost: what was appended is kept, and the call may be repeated.
    """

    def __init__(
        self,
        directory: Path,
        *,
        host: UUID,
        clock: Callable[[], int],
        sequence: int | None = None,
        previous: bytes | None = None,
        position: Position = Position(0, 0),  # noqa: B008 - a frozen value
        sealing: Sealing = Sealing(),
        level: int = LEVEL,
        raw_bytes_max: int = SEGMENT_RAW_BYTES,
        age_max_ns: int = SEGMENT_AGE_NS,
        frame_raw_bytes: int = FRAME_RAW_BYTES,
    ) -> None:
        """Prepare to write; the first file appears with the first flush of records.

        Args:
            directory: made if it is missing (0750).
            host: the installation.
            clock: wall time in ns since 1970 UTC.
            sequence: number of the next segment, as `recover` gives it; None looks at the directory.
            previous: hash of the footer of the segment before that, as `recover` gives it.
            position: where in the journal what is appended starts.
            sealing: who signs, and who may read.
            level: zstd level.
            raw_bytes_max: size from which on a segment is due for sealing.
            age_max_ns: age of its first record from which on it is.
            frame_raw_bytes: size at which a flush is divided into frames.

        Raises:
            StateDirectoryError: the directory cannot be used.
        """
        self._directory = directory
        self._host = host
        self._clock = clock
        self._sealing = sealing
        self._previous = previous
        self._compressor = zstandard.ZstdCompressor(level=level)
        self._raw_bytes_max = raw_bytes_max
        self._age_max_ns = age_max_ns
        self._frame_raw_bytes = frame_raw_bytes
        self._position = self._pending_position = position
        with on_disk("prepare", directory):
            directory.mkdir(mode=DIRECTORY_MODE, parents=True, exist_ok=True)
            self._sequence = sequence if sequence is not None else next_sequence(directory)
        self._buffer: list[bytes] = []
        self._buffer_bytes = 0
        self._buffer_times: list[int] = []
        self._tallies: dict[UUID, Tally] = {}
        self._unsettled = False
        self._begin()

    def _begin(self) -> None:
        """Forget the segment before."""
        self._fd = -1
        self._size = 0
        self._raw_bytes = 0
        self._header: FileHeader | None = None
        self._cipher: FrameCipher | None = None
        self._begun_ns: int | None = None
        self._asked = False
        self._frames: list[FrameEntry] = []
        self._sessions: dict[UUID, SessionEntry] = {}
        self._pending: list[bytes] = []
        self._pending_frames: list[FrameEntry] = []

    @property
    def sequence(self) -> int:
        """Number of the segment that is written, or will be next."""
        return self._sequence

    @property
    def position(self) -> Position:
        """Everything that the journal holds before it has been flushed."""
        return self._position

    @property
    def previous(self) -> bytes | None:
        """Hash of the footer of the segment that was sealed last; None before the first."""
        return self._previous

    @property
    def empty(self) -> bool:
        """Whether nothing was appended since the last seal: then the position is as safe as a sealed one."""
        return self._begun_ns is None

    @property
    def raw_bytes(self) -> int:
        """Size of this segment before compression, with what is not flushed yet."""
        return self._raw_bytes + self._buffer_bytes

    @property
    def file_bytes(self) -> int:
        """Size of this segment's file so far."""
        return self._size

    def append(self, records: Iterable[Record]) -> None:
        """Take records in their order. They are in memory only, until they are flushed.

        Raises:
            RecordTooLargeError: a record is over RECORD_BYTES_MAX; it and those after it were not taken.
        """
        session: UUID | None = None  # that `tally` is of: neighbours are mostly of one session, and looking a UUID up is dear
        tally = Tally()
        for record in records:
            packed = pack(record)
            size = len(packed)
            if size > RECORD_BYTES_MAX:
                raise RecordTooLargeError(size, RECORD_BYTES_MAX)
            if self._begun_ns is None:
                self._begun_ns = self._clock()
            if self._buffer_bytes + size > self._frame_raw_bytes and self._buffer:
                self._end_frame(self._pending_position, continued=True)
                session = None
            self._buffer.append(packed)
            self._buffer_times.append(record.time_ns)
            self._buffer_bytes += size
            if record.session is not session:
                session = record.session
                tally = self._tallies.get(session) or self._tallies.setdefault(session, Tally())
            tally.take(record)

    def flush(self, position: Position) -> None:
        """Write what was appended; when this returns, readers see it, and the death of any process cannot take it away.

        Args:
            position: everything that the journal holds before it has been appended.

        Raises:
            StorageFullError: no room; nothing of this flush is in the file, everything is kept for the next call.
            StateDirectoryError: the file cannot be written; as above.
        """
        if self._buffer:
            self._end_frame(position, continued=False)
        self._pending_position = position
        if self._pending and self._header is not None:
            path = open_path(self._directory, self._sequence)
            with on_disk("write", path):
                if self._fd < 0:
                    self._create(path)
                self._write_pending(self._header)
        self._position = position

    def ask_seal(self) -> None:
        """Make the segment due for sealing as soon as it holds a record."""
        self._asked = True

    def should_seal(self, now_ns: int) -> bool:
        """Tell whether the segment is due for sealing; `now_ns` is of the same clock as the writer's."""
        if self._begun_ns is None:
            return False
        age_ns = now_ns - self._begun_ns
        old = age_ns >= self._age_max_ns or age_ns < 0  # a clock that was set back says nothing about age
        return self._asked or old or self.raw_bytes >= self._raw_bytes_max

    def seal(self, losses: Mapping[str, int]) -> Path | None:
        """Make the segment final: footer, sync, rename. The next record starts the next segment.

        Records that were appended and not flushed are flushed with the position that was given last. That the new name survives
        a power cut, `settle` sees to: the segment is sealed whether or not that can be done now.

        Args:
            losses: counters of what was lost on the host since capd's start, by cause.

        Returns:
            The sealed file; None when there was nothing to seal.

        Raises:
            StorageFullError: no room; the segment stays open as it was, and the call may be repeated.
            StateDirectoryError: the file cannot be sealed; as above.
        """
        self.flush(self._pending_position)
        if self._fd < 0 or self._header is None:
            return None
        source = open_path(self._directory, self._sequence)
        target = sealed_path(self._directory, self._sequence)
        footer, digest = Footer(
            header=self._header,
            sealed_ns=self._clock(),
            frames=self._frames,
            sessions=self._sessions,
            position=self._position,
            losses=losses,
            recovered=False,
            previous=self._previous,
        ).pack(self._sealing.signer)
        with on_disk("seal", source):
            try:
                write_whole(self._fd, [footer], self._size)
                os.fsync(self._fd)
                source.rename(target)
            except OSError:
                os.ftruncate(self._fd, self._size)  # so that frames may follow, and a later footer ends the file
                raise
        self.close()
        self._sequence += 1
        self._previous = digest
        self._begin()
        self._unsettled = True
        return target

    def settle(self) -> None:
        """Make the names of sealed segments survive a power cut: before that the journal must not be freed, nor a head said.

        Raises:
            StorageFullError, StateDirectoryError: that could not be made sure of; the call may be repeated.
        """
        if self._unsettled:
            with on_disk("seal", self._directory):
                sync_directory(self._directory)
            self._unsettled = False

    def close(self) -> None:
        """Close the file without sealing it: what was flushed is for `recover` to seal."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def _create(self, path: Path) -> None:
        sealed = sealed_path(self._directory, self._sequence)
        if sealed.exists():
            raise state_error("write again", sealed, FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST)))
        self._fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, FILE_MODE)
        os.fchmod(self._fd, FILE_MODE)

    def _begin_file(self) -> FileHeader:
        """Fix the file header: frames are bound to it."""
        header = FileHeader(host=self._host, sequence=self._sequence, created_ns=self._clock())
        if self._sealing.recipients:
            data_key = new_data_key()
            header = replace(header, key_block=wrap(data_key, self._sealing.recipients))
            self._sealing.keep(header, data_key)  # may fail: then nothing is fixed yet, and nothing can be written in clear
            self._cipher = FrameCipher(data_key, header.digest)
        self._header = header
        return header

    def _end_frame(self, position: Position, *, continued: bool) -> None:
        """Compress what is buffered into a frame that waits to be written."""
        header = self._header or self._begin_file()
        before = self._pending_frames[-1:] or self._frames[-1:]
        offset = before[0].offset + before[0].length if before else header.size
        number = len(self._frames) + len(self._pending_frames)
        first_ns, last_ns = min(self._buffer_times, default=0), max(self._buffer_times, default=0)
        preamble = Preamble(number=number, position=position, first_ns=first_ns, last_ns=last_ns)
        index = FrameIndex(preamble=preamble, sessions=self._tallies).pack()
        raw = b"".join(self._buffer)
        stored = self._compressor.compress(raw)
        head = frame_head(
            number=number,
            continued=continued,
            raw_bytes=len(raw),
            index_bytes=len(index),
            stored_bytes=len(stored) + (TAG_BYTES if self._cipher else 0),
        )
        if self._cipher is not None:
            stored = self._cipher.encrypt(number, head + index, stored)
        start = finish_frame(head, index, stored)
        digest = sha256(start)
        digest.update(stored)
        self._pending += [start, stored]
        self._pending_frames.append(
            FrameEntry(
                offset=offset,
                length=len(start) + len(stored),
                raw=len(raw),
                sha256=digest.digest(),
                first_ns=first_ns,
                last_ns=last_ns,
            )
        )
        for session, tally in self._tallies.items():
            self._sessions.setdefault(session, SessionEntry()).add(tally, number)
        self._tallies = {}
        self._raw_bytes += len(raw)
        self._buffer = []
        self._buffer_times = []
        self._buffer_bytes = 0

    def _write_pending(self, header: FileHeader) -> None:
        head = [] if self._size else [header.pack()]
        self._size += write_whole(self._fd, head + self._pending, self._size)
        self._frames += self._pending_frames
        self._pending = []
        self._pending_frames = []


def next_sequence(directory: Path) -> int:
    """Give the number after the highest of a directory's segments, open ones included.

    Raises:
        OSError: the directory cannot be read.
    """
    numbers = [number for path in directory.iterdir() if (number := sequence_of(path)) is not None]
    return max(numbers, default=FIRST_SEQUENCE - 1) + 1
