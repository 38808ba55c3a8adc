"""The end of a journal whose writer was killed while it wrote a block.

What lives here: whether that block is whole, and cutting it off when it is not. What must not: payloads.
"""

from __future__ import annotations

import os
from pathlib import Path

from capd.recording.errors import on_disk
from capd.recording.journal.block import HEADER_BYTES, BlockHeader, MalformedBlockError, file_path
from capd.recording.position import Position


def settle(directory: Path, position: Position) -> bool:
    """Say whether the block that was being written is whole; if not, nothing of it is left, and no reader tells it as damage.

    To be called before another writer begins.

    Args:
        directory: of the journal.
        position: where the block was to go, unless it began a new file.

    Raises:
        StateDirectoryError: the file cannot be read or cut.
    """
    return any(
        _settled(file_path(directory, number), offset) for number, offset in ((position.file + 1, 0), position.to_fields())
    )


def _settled(path: Path, offset: int) -> bool:
    with on_disk("read", path):
        try:
            fd = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
        except FileNotFoundError:
            return False
        try:
            size = os.fstat(fd).st_size
            try:
                header = BlockHeader.parse(os.pread(fd, HEADER_BYTES, offset))
            except MalformedBlockError:
                whole = False
            else:
                whole = size >= offset + HEADER_BYTES + header.stored_bytes
            if not whole and size > offset:
                os.ftruncate(fd, offset)
            return whole
        finally:
            os.close(fd)
