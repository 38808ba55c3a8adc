"""What is done with a segments directory before it is written again: sealing what a dead writer left open.

What lives here: recovery after a crash. What must not: reading for people, writing of new segments.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from hashlib import sha256
from pathlib import Path
from uuid import UUID

from capd.recording.durable import DIRECTORY_MODE, rename, sync_directory, write_whole
from capd.recording.errors import CorruptSegmentError, on_disk
from capd.recording.position import Position
from capd.recording.segment.footer import Footer, FrameEntry, SessionEntry
from capd.recording.segment.frame_index import FrameIndex
from capd.recording.segment.layout import (
    FILE_HEADER,
    KEY_BLOCK_BYTES_MAX,
    OPEN_SUFFIX,
    SEALED_SUFFIX,
    CutHeaderError,
    FileHeader,
    MalformedSegmentError,
    NewerSegmentError,
    sealed_path,
    sequence_of,
)
from capd.recording.segment.reader import SegmentReader
from capd.recording.segment.trailer import Signer
from capd.recording.segment.writer import FIRST_SEQUENCE


@dataclass(frozen=True, slots=True, kw_only=True)
class Recovery:
    """What recovery found and did.

    Attributes:
        position: everything that the journal holds before it is sealed; None when no segment says so.
        next_sequence: number of the next segment.
        newest: number of the newest sealed segment that can be read; 0 when there is none.
        previous: hash of its footer, which the next one names; None when there is none.
        sealed: files that were sealed now.
        removed: files that held nothing whole.
        quarantined: where files went that are no segments.
        cut_bytes: bytes of unfinished frames that were cut off; the journal still has what they held.
    """

    position: Position | None
    next_sequence: int
    newest: int = 0
    previous: bytes | None = None
    sealed: list[Path] = field(default_factory=list)
    removed: list[Path] = field(default_factory=list)
    quarantined: list[Path] = field(default_factory=list)
    cut_bytes: int = 0


def recover(
    directory: Path, *, clock: Callable[[], int], signer: Signer | None = None, quarantine: Path | None = None
) -> Recovery:
    """Seal what a dead writer left open, so that a new writer may start. May itself be killed at any moment, and be repeated.

    It needs no key of an encrypted segment: what a footer says of a frame is in the frame's index.

    Args:
        directory: the segments; it may be missing.
        clock: wall time in ns since 1970 UTC.
        signer: the host's key; None leaves what is sealed now unsigned.
        quarantine: where open files go that cannot be read at all; None: `quarantine` beside the directory.

    Raises:
        StateDirectoryError: files cannot be read, written or renamed.
        NewerVersionError: a later capd wrote here; nothing newer is touched.
    """
    quarantine = quarantine if quarantine is not None else directory.parent / "quarantine"
    sealed: list[Path] = []
    removed: list[Path] = []
    quarantined: list[Path] = []
    cut_bytes = 0
    for path in _segments(directory, OPEN_SUFFIX):
        sequence = sequence_of(path) or 0
        with on_disk("recover", path):
            if _unborn(path):
                path.unlink()
                removed.append(path)
                continue
        try:
            cut = _seal(path, sealed_path(directory, sequence), clock, signer)
        except CorruptSegmentError:
            quarantined.append(_set_aside(path, quarantine))
            continue
        if cut is None:
            removed.append(path)
        else:
            sealed.append(sealed_path(directory, sequence))
            cut_bytes += cut
    paths = _segments(directory, SEALED_SUFFIX)
    if paths:  # a dead writer may not have come to that
        with on_disk("recover", directory):
            sync_directory(directory)
    # The numbers of what was set aside are free: nothing sealed had them, and a hole would tell of a segment that is missing.
    last = max((sequence_of(path) or 0 for path in paths), default=FIRST_SEQUENCE - 1)
    newest, previous = _newest(directory, last + 1)
    return Recovery(
        position=_last_position(paths),
        next_sequence=last + 1,
        newest=newest,
        previous=previous,
        sealed=sealed,
        removed=removed,
        quarantined=quarantined,
        cut_bytes=cut_bytes,
    )


def _segments(directory: Path, suffix: str) -> list[Path]:
    """Give a directory's segments of one kind, in their order."""
    with on_disk("recover", directory):
        try:
            return sorted(path for path in directory.iterdir() if path.suffix == suffix and sequence_of(path) is not None)
        except FileNotFoundError:
            return []


def _last_position(paths: list[Path]) -> Position | None:
    """Give the position of the newest segment whose footer can be read: damage to it costs reading the journal again."""
    for path in reversed(paths):
        try:
            with SegmentReader(path) as reader:
                if reader.footer is not None:
                    return reader.footer.position
        except CorruptSegmentError:
            continue
    return None


def _newest(directory: Path, before: int) -> tuple[int, bytes | None]:
    """Give the newest sealed segment before a number that can be read, and the hash of its footer: what comes next names it."""
    for path in reversed(_segments(directory, SEALED_SUFFIX)):
        if (sequence_of(path) or 0) < before:
            try:
                with SegmentReader(path) as reader:
                    return reader.header.sequence, reader.footer_digest
            except CorruptSegmentError:
                continue
    return 0, None


def _unborn(path: Path) -> bool:
    """Tell whether the writer died before the first byte of a frame."""
    with path.open("rb") as file:
        data = file.read(FILE_HEADER.size + KEY_BLOCK_BYTES_MAX)
    try:
        return path.stat().st_size <= FileHeader.parse(data).size
    except CutHeaderError:
        return True
    except (MalformedSegmentError, NewerSegmentError):
        return False


def _seal(path: Path, target: Path, clock: Callable[[], int], signer: Signer | None) -> int | None:
    """Seal an open file with its whole flushes.

    Returns:
        Bytes that were cut off; None when nothing whole was in it and it was removed.

    Raises:
        CorruptSegmentError: the file header is damaged.
    """
    if _finished(path):
        with on_disk("recover", path):
            rename(path, target)
        return 0
    footer, end = _whole(path, clock)
    sequence = sequence_of(path) or 0
    with on_disk("recover", path):
        if footer is None:
            path.unlink()
            return None
        size = path.stat().st_size
        fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
        try:
            os.ftruncate(fd, end)
            write_whole(fd, [replace(footer, previous=_newest(path.parent, sequence)[1]).pack(signer)[0]], end)
            os.fsync(fd)
        finally:
            os.close(fd)
        rename(path, target)
    return size - end


def _finished(path: Path) -> bool:
    """Tell whether the writer died between its footer and the renaming, and all is as it wrote it: then renaming is enough.

    Of what is not, as when the disk changed it meanwhile, the journal still has what is behind the damage.
    """
    try:
        with SegmentReader(path, sealed=True) as reader:
            entries = enumerate(reader.entries())
            if any(sha256(reader.stored(number)).digest() != entry.sha256 for number, entry in entries):
                return False
    except CorruptSegmentError:
        return False
    with on_disk("recover", path):
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)
    return True


def _whole(path: Path, clock: Callable[[], int]) -> tuple[Footer | None, int]:
    """Read the whole flushes at the start of an open file, up to the first damage.

    Returns:
        The footer that they need, None when there are none; and where they end.
    """
    frames: list[FrameEntry] = []
    sessions: dict[UUID, SessionEntry] = {}
    position = Position(0, 0)
    flush: list[tuple[FrameIndex, FrameEntry]] = []
    with SegmentReader(path, sealed=False) as reader:
        try:
            for number, entry in enumerate(reader.entries()):
                header, index = reader.index(number)
                flush.append((index, _entry(index, entry, reader.stored(number))))
                if header.continued:
                    continue
                for held, held_entry in flush:
                    for session, tally in held.sessions.items():
                        sessions.setdefault(session, SessionEntry()).add(tally, len(frames))
                    frames.append(held_entry)
                position = index.preamble.position
                flush = []
        except CorruptSegmentError:
            pass  # the damaged flush and what follows is still in the journal
        header_found = reader.header
    if not frames:
        return None, header_found.size
    footer = Footer(
        header=header_found,
        sealed_ns=clock(),
        frames=frames,
        sessions=sessions,
        position=position,
        losses={},
        recovered=True,
    )
    return footer, frames[-1].offset + frames[-1].length


def _entry(index: FrameIndex, entry: FrameEntry, stored: bytes) -> FrameEntry:
    return replace(entry, sha256=sha256(stored).digest(), first_ns=index.preamble.first_ns, last_ns=index.preamble.last_ns)


def _set_aside(path: Path, quarantine: Path) -> Path:
    """Move a file that is no segment out of the way, without losing it."""
    with on_disk("quarantine", path):
        quarantine.mkdir(mode=DIRECTORY_MODE, parents=True, exist_ok=True)
        target = quarantine / path.name
        number = 1
        while target.exists():
            target = quarantine / f"{path.name}.{number}"
            number += 1
        path.rename(target)
        sync_directory(quarantine)
        sync_directory(path.parent)
    return target
