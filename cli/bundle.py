"""What goes into a bundle: evidence, the catalogue's rows, the page, and a file of each form that fits.

What lives here: putting it together. What must not: the layout (recording/bundle.py), options.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final
from uuid import UUID

from capd.cli import moments
from capd.cli.forms.cast import output_of
from capd.cli.forms.spoken import Spoken, suits
from capd.cli.forms.writing import SUFFIXES, pieces
from capd.cli.payload import Limits
from capd.cli.summary import json_array
from capd.cli.veil import veiled_record
from capd.daemon.version import VERSION
from capd.recording.bundle import BundleWriter
from capd.recording.errors import CorruptSegmentError, EncryptedError
from capd.recording.record import Record

if TYPE_CHECKING:
    from capd.recording.catalogue.rows import Gathering
    from capd.recording.reading import Readable
    from capd.recording.segment.cipher import Keys

PAGE: Final = "replay.html"
FORMS: Final = ("har", "sql", "cast", "pcap")


@dataclass(slots=True, kw_only=True)
class Bundled:
    """What came of it, for whoever asked.

    Attributes:
        segments, missing: numbers of segments that are in it, and of those that should be.
        others: how many other sessions and runs the segments hold something of.
        unread: why there are no pages, forms and rows; empty where there are.
        encrypted: whether any segment is.
        rows: how many the catalogue has.
    """

    segments: list[int] = field(default_factory=list)
    missing: list[int] = field(default_factory=list)
    others: set[UUID] = field(default_factory=set)
    unread: str = ""
    encrypted: bool = False
    rows: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What is to be bundled.

    Attributes:
        title: as it was asked for.
        runs: the run, if it is one.
        sessions: the session, or those of the run.
    """

    title: str
    runs: Sequence[UUID]
    sessions: Sequence[Spoken]

    @property
    def identities(self) -> list[UUID]:
        """Whose records belong to it."""
        return [*self.runs, *(spoken.row.session for spoken in self.sessions)]


def bundle(directory: Path, archive: Readable, keys: Keys, wanted: Wanted, limits: Limits) -> Bundled:
    """Write a bundle into an empty directory.

    Raises:
        CapdError: the recording cannot be read.
        OSError: the directory cannot be written.
    """
    from capd.recording.catalogue.rows import Gathering  # noqa: PLC0415 - `--help` must not pay for it

    writer = BundleWriter(directory)
    done = Bundled()
    found = archive.excerpt(wanted.identities)
    done.segments, done.missing = sorted(found.segments), found.missing
    paths = [writer.add(found.segments[sequence].name, found.segments[sequence].read()) for sequence in done.segments]
    for piece in found.others:
        writer.add(piece.name, piece.read())
    gathering = Gathering(find_session=archive.index.find_session)
    for path in paths:
        _gather(gathering, path, keys, wanted, done)
    _rows(writer, gathering, wanted, done)
    if not done.unread:
        try:
            _forms(writer, wanted, limits)
        except EncryptedError as error:
            done.unread = str(error)
    writer.finish(
        {
            "capd": VERSION,
            "created": moments.rfc3339(time.time_ns()),
            "host": next((str(spoken.row.host) for spoken in wanted.sessions if spoken.row.host), None),
            "sessions": [str(spoken.row.session) for spoken in wanted.sessions],
            "runs": [str(run) for run in wanted.runs],
            "segments": done.segments,
            "missing_segments": done.missing,
            "open_sessions": [str(spoken.row.session) for spoken in wanted.sessions if spoken.row.ended_ns is None],
            "other_sessions": len(done.others),
            "encrypted": done.encrypted,
            "unread": done.unread,
        }
    )
    return done


def _forms(writer: BundleWriter, wanted: Wanted, limits: Limits) -> None:
    """Write the page, and of each session the forms that fit it."""
    writer.add(PAGE, pieces("page", wanted.sessions, limits, title=f"capd: {wanted.title}"))
    for spoken in wanted.sessions:
        for form in FORMS:
            if suits(spoken.row, form) and (form != "cast" or output_of(spoken) is not None):
                with suppress(CorruptSegmentError):  # the page says where the damage begins, `capd verify` what it is
                    writer.add(f"sessions/{spoken.row.session}{SUFFIXES[form]}", pieces(form, [spoken], limits))


def _rows(writer: BundleWriter, gathering: Gathering, wanted: Wanted, done: Bundled) -> None:
    """Write the catalogue's rows of what is bundled: JSON, and Parquet where its library is installed."""
    mine = {str(one) for one in wanted.identities}
    for table, rows in gathering.tables().items():
        kept = [row for row in rows if {row.get("session"), row.get("run")} & mine or table == "segments"]
        done.rows += len(kept)
        writer.add(f"catalogue/{table}.json", [json_array(kept).encode("ascii"), b"\n"])
        try:
            from capd.recording.catalogue.schema import pack  # noqa: PLC0415 - the fleet extra may be missing
        except ModuleNotFoundError:
            continue
        first, last = (done.segments[0], done.segments[-1]) if done.segments else (0, 0)
        writer.add(f"catalogue/{table}.parquet", [pack(table, kept, first=first, last=last)])


def _gather(gathering: Gathering, path: Path, keys: Keys, wanted: Wanted, done: Bundled) -> None:
    """Take the records of one segment that are of what is bundled, without credentials."""
    from capd.recording.segment import SegmentReader  # noqa: PLC0415 - as above

    with SegmentReader(path, keys=keys) as reader:
        footer = reader.footer
        assert footer is not None, "only sealed segments are in an excerpt"
        done.others |= footer.sessions.keys() - set(wanted.identities)
        done.encrypted = done.encrypted or bool(reader.header.key_block)
        records: list[Record] | None
        try:
            records = [veiled_record(record) for one in wanted.identities for record in reader.records(one)]
        except EncryptedError as error:
            records, done.unread = None, str(error)
        except CorruptSegmentError:
            records = None
        gathering.receive(footer, reader.file_bytes, records)


def told(done: Bundled, target: str) -> Iterator[str]:
    """Give what whoever exported has to know, a line each."""
    count = len(done.segments)
    yield f"written: {target}, {count} segment{'' if count == 1 else 's'}; check it with: capd verify {target}"
    if done.missing:
        yield f"missing: segments {', '.join(map(str, done.missing))} are not where it was read from"
    if done.others:
        kept = "encrypted" if done.encrypted else "in clear"
        yield f"mind: the segments also hold parts of {len(done.others)} other sessions and runs, {kept}"
    if done.unread:
        yield f"without page, forms and messages: {done.unread}; --identity FILE opens it"
