"""What `capd verify ID` does: the segments that hold a session or a run are proved, read, and followed from one to the next.

What lives here: which segments those are, and what is asked of them. What must not: hashes and signatures (recording/evidence),
the verdict.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final
from uuid import UUID

from capd.cli.verify_report import Report, Told, jumps_of
from capd.cli.verify_thread import follow
from capd.recording.cursor import sequences
from capd.recording.errors import (
    CorruptSegmentError,
    EncryptedError,
    ExitStatus,
    NewerVersionError,
    StateDirectoryError,
    UnknownSessionError,
)
from capd.recording.evidence.shelf import DirectoryShelf
from capd.recording.record import Record
from capd.recording.segment import SegmentReader
from capd.recording.segment.layout import OPEN_SUFFIX, open_path, sealed_path
from capd.recording.verify import verify_files

if TYPE_CHECKING:
    from capd.recording.archive import Archive
    from capd.recording.rows import SessionRow

Proof = Callable[[DirectoryShelf, frozenset[int]], Iterator[Told]]
"""Checks the evidence on a shelf for the segments of these numbers."""
UNSEALED: Final = "the newest of it is in a segment that is not sealed yet: nobody vouches for that so far"


def check_one(archive: Archive, text: str, report: Report, prove: Proof) -> Iterator[Told]:
    """Check a session or a run, put it into the report, and give each thing that has something to be told.

    Args:
        archive: where it is.
        text: its id, or what else an index finds it by.
        report: what is found is put into it.
        prove: checks hashes and signatures of its segments.

    Raises:
        UnknownSessionError: there is no such session or run.
        CapdError: it cannot be read.
    """
    identity, row = _identity(archive, text)
    numbers = _segments_of(archive, identity)
    sealed = {number: sealed_path(archive.segments, number) for number in numbers}
    report.missing += [f"{path.name} is missing" for path in sealed.values() if not path.exists()]
    paths = [path for path in sealed.values() if path.exists()]
    keys = archive.directory / "keys"
    if paths:
        names = frozenset(path.name for path in paths)
        shelf = DirectoryShelf(archive.segments, only=names, keys=keys if keys.is_dir() else None)
        yield from prove(shelf, frozenset(number for number, path in sealed.items() if path.exists()))
    unsealed = [path for number in sequences(archive.segments) if (path := open_path(archive.segments, number)).exists()]
    for path in [*paths, *unsealed]:  # each by itself: what goes on from one to the next is asked of the session below
        with _unless_sealed_meanwhile(path):
            for checked in verify_files([path], archive.keys):
                yield report.take_content(checked)
    if report.exit_status == ExitStatus.OK:  # damaged frames cannot be read, and were told
        _follow(archive, identity, [*paths, *unsealed], report, row)


@contextmanager
def _unless_sealed_meanwhile(path: Path) -> Iterator[None]:
    """Pass over a segment that was still written when it was looked for, and has another name now."""
    try:
        yield
    except StateDirectoryError as error:
        if error.errno != errno.ENOENT or path.suffix != OPEN_SUFFIX:
            raise


def _identity(archive: Archive, text: str) -> tuple[UUID, SessionRow | None]:
    """Find what is meant; of a session with what the index has of it."""
    try:
        row = archive.index.session(text)
        return row.session, row
    except UnknownSessionError:
        try:
            return archive.index.run(text).run, None
        except UnknownSessionError as error:
            raise UnknownSessionError(text, "session, run or path", expired=error.expired) from None


def _segments_of(archive: Archive, identity: UUID) -> Sequence[int]:
    """Give the sealed segments that hold something of it: those of the index, which nobody signed, and those that say so."""
    known = set(archive.index.segments_of(identity))
    for number in sequences(archive.segments):
        if number not in known and _holds(sealed_path(archive.segments, number), identity):
            known.add(number)
    return sorted(known)


def _holds(path: Path, identity: UUID) -> bool:
    if not path.exists():
        return False
    try:
        with SegmentReader(path) as reader:
            return reader.footer is not None and identity in reader.footer.sessions
    except (CorruptSegmentError, NewerVersionError):
        return False  # `capd verify` without ID names it; what it may have held is missed at the session's end


def _follow(archive: Archive, identity: UUID, paths: Sequence[Path], report: Report, row: SessionRow | None) -> None:
    def records() -> Iterator[Record]:
        for path in paths:
            with _unless_sealed_meanwhile(path), SegmentReader(path, keys=archive.keys) as reader:
                for record in reader.records(identity):
                    if reader.footer is None and UNSEALED not in report.notes:
                        report.notes.append(UNSEALED)
                    yield record

    try:
        if row is None:
            report.missing += jumps_of(records())
            return
        problems, notes = follow(records())
    except EncryptedError as error:
        report.notes.append(f"not read: {error}; --identity FILE opens it")
        return
    gone = archive.index.expired_parts(identity)
    if notes and row.ended_ns is not None:
        problems.append("its end is missing, which the index has")
    report.notes += [*notes, *(part.words() for part in gone)]
    report.missing += () if gone else problems
