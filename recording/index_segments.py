"""An index from segments: made anew, or brought up to date after a crash.

What lives here: taking in sealed segments, putting a new index in the place of an old one. What must not: rows' SQL (index.py),
how rows come about (projection.py).
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

from capd.recording.age import NoKeys
from capd.recording.durable import sync_directory
from capd.recording.errors import CorruptSegmentError, EncryptedError, IndexUnusableError, on_disk
from capd.recording.index import Index
from capd.recording.index_schema import remove_database
from capd.recording.projection import Projection
from capd.recording.record import Kind, Record
from capd.recording.rows import SegmentRow
from capd.recording.segment import SegmentReader
from capd.recording.segment.cipher import Keys
from capd.recording.segment.footer import Footer
from capd.recording.segment.layout import SEALED_SUFFIX, sequence_of

_NO_KEYS: Final = NoKeys()


def open_whole(path: Path, segments: Path, keys: Keys = _NO_KEYS) -> Index:
    """Open an index for writing, with everything that is sealed and nothing else; one that cannot be used is made anew.

    Raises:
        NewerVersionError: a later capd made it.
        StateDirectoryError: a file cannot be used.
    """
    try:
        index = Index.open(path)
        index.remove_unsealed()
        catch_up(index, segments, keys)
    except IndexUnusableError:
        rebuild(path, segments, keys)
        index = Index.open(path)
    return index


def catch_up(index: Index, segments: Path, keys: Keys = _NO_KEYS, *, said: bool = False) -> list[Path]:
    """Take in the sealed segments that are newer than the index, as there are after a crash.

    Args:
        index: open for writing.
        segments: where they are.
        keys: who opens encrypted ones; of those that stay closed only their numbers, sessions' ids and ends are taken.
        said: whether the text of encrypted ones is taken; never into an index that stays beside them.

    Returns:
        Those that are damaged: they were taken in as far as they can be read.
    """
    projection = Projection(load_session=index.find_session, load_run=index.find_run)
    last = index.last_segment()
    missing = [path for path in _sealed(segments) if (sequence_of(path) or 0) > last]
    return [path for path in missing if not _take_in(index, path, projection, keys, said=said)]


def rebuild(path: Path, segments: Path, keys: Keys = _NO_KEYS, *, said: bool = False) -> list[Path]:
    """Make an index anew from the sealed segments alone, and put it in the place of the old one.

    Args:
        path: the index.
        segments: where they are.
        keys: who opens encrypted ones.
        said: whether the text of encrypted ones is taken.

    Returns:
        Segments that are damaged: they were taken in as far as they can be read.

    Raises:
        StateDirectoryError: it cannot be written.
    """
    temporary = path.with_name(f".{path.name}.new")
    with on_disk("remove", temporary):
        remove_database(temporary)
    with Index.open(temporary) as index:
        index.carry_over(path)
        damaged = catch_up(index, segments, keys, said=said)
    with on_disk("replace", path):
        remove_database(path)
        temporary.rename(path)
        sync_directory(path.parent)
    return damaged


def _take_in(index: Index, path: Path, projection: Projection, keys: Keys, *, said: bool) -> bool:
    """Take in one sealed segment; False when it is damaged."""
    whole = True
    try:
        reader = SegmentReader(path, keys=keys)
    except CorruptSegmentError:
        whole = False
        try:
            reader = SegmentReader(path, sealed=False, keys=keys)
        except CorruptSegmentError:
            return False
    with reader:
        projection.metadata_only = bool(reader.header.key_block) and not said
        if projection.metadata_only:
            index.withhold()
        try:
            for frame in reader.frames():
                projection.receive(frame.records())
                index.apply(projection.changes(), reader.header.sequence)
        except CorruptSegmentError:
            whole = False
        except EncryptedError:
            index.withhold()
            projection.receive(_ends(index, reader.footer))
            index.apply(projection.changes(), reader.header.sequence)
        if reader.footer is not None:
            index.upsert_segment(SegmentRow.from_footer(reader.footer, reader.file_bytes))
    index.commit()
    return whole


def _ends(index: Index, footer: Footer | None) -> list[Record]:
    """Give what is said of the ends of known sessions in the footer of an encrypted segment, which is in the clear."""
    if footer is None:
        return []
    at_ns = footer.last_ns or footer.sealed_ns
    return [
        Record(Kind.CLOSE, session, at_ns, None, {"completeness": entry.completeness})
        for session, entry in footer.sessions.items()
        if entry.completeness is not None and index.find_session(session) is not None
    ]


def _sealed(segments: Path) -> list[Path]:
    with on_disk("read", segments):
        try:
            return sorted(path for path in segments.iterdir() if path.suffix == SEALED_SUFFIX and sequence_of(path) is not None)
        except FileNotFoundError:
            return []
