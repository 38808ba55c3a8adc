"""Reading the journal while it is written.

What lives here: following files from block to block, over rotation, unfinished blocks and damage. What must not: writing.
"""

from __future__ import annotations

import os
from pathlib import Path
from types import TracebackType
from typing import Self

import zstandard

from capd.recording.durable import open_regular
from capd.recording.errors import NewerVersionError, on_disk, state_error
from capd.recording.journal.block import (
    HEADER_BYTES,
    VERSION,
    Block,
    BlockHeader,
    JournalDamage,
    MalformedBlockError,
    NewerBlockError,
    file_number,
    file_path,
    payload_of,
)
from capd.recording.journal.cipher import JournalKeys
from capd.recording.journal.numbering import reserved
from capd.recording.position import Position


class JournalReader:
    """Gives the blocks of a journal in order, and goes on when it grows.

    An unfinished block at the end of the newest file is not there yet. In any other file its writer is dead: it is passed over
    and told as JournalDamage. So is a block whose payload is damaged; a damaged header costs the rest of its file, because what
    follows could be an agent's bytes made up to look like a block.
    """

    def __init__(
        self, directory: Path, position: Position | None, keys: JournalKeys | None = None, *, after: int | None = None
    ) -> None:
        """Start at a position; None starts at the oldest block there is. The directory may still be missing.

        Args:
            directory: the journal.
            position: where to start.
            keys: who opens encrypted blocks; those that stay closed are told as damage.
            after: sequence of the block before the position; None: it is not known.
        """
        self._directory = directory
        self._keys = keys
        self._position = position
        self._decompressor = zstandard.ZstdDecompressor()
        self._fd = -1
        self._fd_number = -1
        self._before: tuple[Position, int | None] | None = None if position is None or after is None else (position, after)
        """Where what was given last ends, and the sequence of that block; None for what was passed over."""
        self._sequence = 0

    @property
    def position(self) -> Position | None:
        """Where the next block is, or will be; None when nothing was found yet."""
        return self._position

    @property
    def freed(self) -> bool:
        """Whether the oldest files of this journal are not there any more."""
        return self._numbers()[:1] > [0]

    def read(self) -> Block | JournalDamage | None:
        """Give the next block, the damage in its place, or None when there is nothing whole yet.

        Raises:
            NewerVersionError: a later capd wrote it.
            StateDirectoryError: the journal cannot be read.
        """
        while True:
            if self._fd < 0:
                damage = self._open()
                if damage is not None or self._fd < 0:
                    return damage
            found = self._block()
            if found is not None:
                return self._advance(found)
            following = self._following()
            if following is None:
                return None
            # The writer moved on before we looked: it may have finished a block after our first look.
            found = self._block()
            if found is not None:
                return self._advance(found)
            damage = self._leave(following)
            if damage is not None:
                return damage

    def lag_bytes(self) -> int:
        """Give how many bytes of the journal, as stored, lie after the position."""
        lag = 0
        position = self._position
        for number in self._numbers():
            try:
                size = file_path(self._directory, number).stat().st_size
            except FileNotFoundError:
                continue
            if position is None or number > position.file:
                lag += size
            elif number == position.file:
                lag += max(0, size - position.offset)
        return lag

    def close(self) -> None:
        """Close the file that is read. The reader may be used again and opens it again."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def _numbers(self) -> list[int]:
        try:
            names = [path.name for path in self._directory.iterdir()]
        except FileNotFoundError:
            return []
        except OSError as error:
            raise state_error("read", self._directory, error) from error
        return sorted(number for name in names if (number := file_number(name)) is not None)

    def _following(self) -> int | None:
        """Give the number of the file after the current one; None when the current one is the newest."""
        return next((number for number in self._numbers() if number > self._fd_number), None)

    def _open(self) -> JournalDamage | None:
        """Open the file of the position. Without result and without a file open there is nothing to read yet."""
        wanted = self._position
        numbers = self._numbers()
        if not numbers:
            return None
        if wanted is None:
            wanted = self._position = Position(numbers[0], 0)
        if wanted.file in numbers:
            path = file_path(self._directory, wanted.file)
            try:
                self._fd = open_regular(path)
                self._fd_number = wanted.file
                return None
            except FileNotFoundError:
                numbers = self._numbers()
            except OSError as error:
                raise state_error("read", path, error) from error
        later = [number for number in numbers if number > wanted.file]
        if not later and reserved(self._directory) > wanted.file:
            return None  # what is here was read, what is wanted was lost with the power, and higher numbers will come
        later = later or numbers
        if not later:
            return None
        self._position = Position(later[0], 0)
        self._before = (self._position, None)
        return JournalDamage(
            position=wanted,
            next=self._position,
            bytes=None,
            reason=f"journal file {wanted.file} was removed before it was read",
        )

    def _block(self) -> Block | JournalDamage | None:
        """Give the block at the position, its damage, or None when no whole header and payload are there."""
        position = self._position
        assert position is not None
        with on_disk("read", file_path(self._directory, position.file)):
            head = os.pread(self._fd, HEADER_BYTES, position.offset)
            try:
                header = BlockHeader.parse(head)
            except NewerBlockError as error:
                path = file_path(self._directory, position.file)
                raise NewerVersionError(path, error.version, VERSION) from error
            except MalformedBlockError:
                return None
            self._sequence = header.sequence
            start = position.offset + HEADER_BYTES
            if os.fstat(self._fd).st_size < start + header.stored_bytes:
                return None
            stored = _pread_whole(self._fd, header.stored_bytes, start)
            following = Position(position.file, start + header.stored_bytes)
            try:
                payload = payload_of(header, stored, self._decompressor, self._keys)
            except MalformedBlockError as error:
                if os.pread(self._fd, HEADER_BYTES, position.offset) != head:
                    return None  # a writer that found the disk full took its block back, and wrote another, while we read
                size = HEADER_BYTES + header.stored_bytes
                return JournalDamage(position=position, next=following, bytes=size, reason=str(error))
        return Block(
            source=header.source,
            sequence=header.sequence,
            boottime_ns=header.boottime_ns,
            realtime_ns=header.realtime_ns,
            count=header.count,
            payload=payload,
            position=position,
            next=following,
        )

    def _advance(self, found: Block | JournalDamage) -> Block | JournalDamage:
        before, self._before = self._before, (found.next, self._sequence)
        if before is not None and found.position != before[0] and self._sequence not in (0, _following(before[1])):
            self._before = None  # it is given next
            reason = f"block {self._sequence} of its start comes next, and is not the next one: what was between is gone"
            return JournalDamage(position=before[0], next=found.position, bytes=None, reason=reason)
        self._position = found.next
        return found

    def _leave(self, following: int) -> JournalDamage | None:
        """Go on with the next file, and tell what of this one could not be read."""
        position = self._position
        assert position is not None
        size = os.fstat(self._fd).st_size
        self.close()
        self._position = Position(following, 0)
        missing = 0 if self._begins(following) else following - position.file - 1
        rest = max(0, size - position.offset)
        if size < position.offset:
            self._before = (self._position, None)
            words = f"the file has {size} bytes: what was behind them is gone"
            return JournalDamage(position=position, next=self._position, bytes=None, reason=words)
        if not rest and not missing:
            return None
        self._before = (self._position, None)
        reason = f"{rest} bytes of an unfinished or damaged block" if rest else f"{missing} journal files were removed unread"
        return JournalDamage(position=position, next=self._position, bytes=None if missing else rest, reason=reason)

    def _begins(self, number: int) -> bool:
        """Tell whether a start of the writer begins with a file: its numbers are far behind those of the start before."""
        path = file_path(self._directory, number)
        with on_disk("read", path):
            try:
                with os.fdopen(open_regular(path), "rb") as file:
                    return BlockHeader.parse(file.read(HEADER_BYTES)).sequence == 0
            except FileNotFoundError:
                return False
            except MalformedBlockError:
                return True  # nothing is in it yet, or what is in it is told as damage of its own


def _following(sequence: int | None) -> int | None:
    return None if sequence is None else sequence + 1


def _pread_whole(fd: int, size: int, offset: int) -> bytes:
    """Read exactly `size` bytes, or fewer where the file ends: the kernel gives at most 2 GiB, and often less, in one call."""
    data = os.pread(fd, size, offset)
    if len(data) == size:
        return data
    parts = [data]
    while data:
        offset += len(data)
        size -= len(data)
        data = os.pread(fd, size, offset)
        parts.append(data)
    return b"".join(parts)
