"""`capd verify`: is the record what was written, and whole?

What lives here: the verb. What must not: the checks (recording/verify.py).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING
from uuid import UUID

import click

from capd.cli import moments
from capd.cli.line import Line, Span, Style, line
from capd.cli.options import Verb, as_json, open_archive, reads_recording
from capd.cli.screen import Screen, reader_may_leave, standard_output
from capd.cli.summary import size, to_json
from capd.cli.verify_report import Report, describe, jumps_of
from capd.recording.errors import ExitStatus, NothingRecordedError, UnknownSessionError

if TYPE_CHECKING:
    from capd.recording.archive import Archive
    from capd.recording.verify import FileReport, Finding

SEGMENTS = "segments"


@click.command(
    cls=Verb,
    examples=("capd verify", "capd verify /mnt/evidence/segments --json", "capd verify 0197f3a4-b5c6"),
)
@click.argument("what", metavar="[PATH|ID]", required=False)
@as_json
@reads_recording
def command(*, what: str | None, as_json: bool, config: str | None, state_dir: str | None) -> int:
    """Check that the record is whole.

    Reads segments byte by byte: hashes of frames, footers, and whether records, streams and segments follow each other without
    a hole that the record does not tell. PATH is a segment, a directory of segments or a copied state directory; ID is a
    session or a run, of which those segments are checked that hold it. Without either, everything is checked.

    Exit status: 0 whole, 1 altered or something missing, 6 unreadable for this version of capd.
    """
    status = 0
    with reader_may_leave():
        screen = standard_output()
        report = Report()
        for checked in _reports(what, config, state_dir, report):
            report.take(checked)
            if not as_json:
                screen.write(finding_lines(checked))
        if as_json:
            screen.write_json(to_json(report.as_json(), indent=2))
        else:
            _conclude(screen, report)
        status = report.exit_status
    return status  # noqa: RET504 - the block may end before it is set


def _reports(what: str | None, config: str | None, state_dir: str | None, report: Report) -> Iterator[FileReport]:
    from capd.recording.verify import verify_directory, verify_files  # noqa: PLC0415 - `--help` must not pay for it

    if what is not None and (Path(what).exists() or "/" in what or what.endswith(".seg")):
        place = Path(what)
        if place.is_file():
            yield from verify_files([place])
            return
        directory = place / SEGMENTS if (place / SEGMENTS).is_dir() else place
        if not directory.is_dir():
            raise NothingRecordedError(place)
        yield from verify_directory(directory)
        return
    with open_archive(config, state_dir) as archive:
        if what is None:
            yield from verify_directory(archive.segments)
        else:
            yield from _of_one(archive, _identity(archive, what), report)


def _identity(archive: Archive, text: str) -> UUID:
    try:
        return archive.index.session(text).session
    except UnknownSessionError:
        try:
            return archive.index.run(text).run
        except UnknownSessionError:
            raise UnknownSessionError(text, "session, run or path") from None


def _of_one(archive: Archive, identity: UUID, report: Report) -> Iterator[FileReport]:
    """Check the segments that hold a session or run, each by itself, and that its streams go on from one to the next."""
    from capd.recording.segment.layout import open_path, sealed_path  # noqa: PLC0415 - see above
    from capd.recording.verify import verify_files  # noqa: PLC0415 - see above

    for sequence in archive.index.segments_of(identity):
        path = sealed_path(archive.segments, sequence)
        if path.exists():
            yield from verify_files([path])
        else:
            report.missing.append(f"{path.name} is missing")
    newest = open_path(archive.segments, archive.index.last_segment() + 1)
    if newest.exists():
        yield from verify_files([newest])
    if report.exit_status == ExitStatus.OK:
        # Damaged frames cannot be read, and were told already.
        report.missing += jumps_of(archive.records(identity))


def finding_lines(checked: FileReport) -> Iterator[Line]:
    """Give one line for each damage in a segment, and one for all that is only worth knowing; none when it is as written."""
    name = Span(f"{checked.path.name}  ", Style.STRONG)
    for finding in checked.findings:
        if finding.damage:
            yield (Span(f"{finding.fault.value:<14}", Style.BAD), name, Span(f"{_place(finding)}: {finding.message}"))
    known = Counter(finding.fault.value for finding in checked.findings if not finding.damage)
    for fault, count in known.items():
        yield (Span(f"{fault:<14}", Style.DOUBTFUL), name, Span(f"{count:,} worth knowing, no damage; --json lists them"))


def _place(finding: Finding) -> str:
    return f"byte {finding.offset}" if finding.frame is None else f"frame {finding.frame}, byte {finding.offset}"


def _conclude(screen: Screen, report: Report) -> None:
    screen.write((Span("missing       ", Style.BAD), Span(words)) for words in report.missing)
    period = ""
    if report.first_ns is not None and report.last_ns is not None:
        period = f", {moments.to_second(report.first_ns)} to {moments.to_second(report.last_ns)} UTC"
    screen.write([line(f"{describe(report)}, {report.records:,} records, {size(report.file_bytes)}{period}")])
    if report.exit_status == ExitStatus.OK:
        screen.write([line("WHOLE  nothing was altered, nothing is missing", Style.GOOD)])
    elif report.exit_status == ExitStatus.CORRUPT:
        screen.write([line("UNREADABLE  written by a later capd; check it with that one", Style.BAD)])
    else:
        screen.write([line("NOT WHOLE  what is listed above was altered or is missing", Style.BAD)])
