"""`capd verify`: is the record what was written, and whole?

What lives here: the verb. What must not: the checks (recording/evidence, recording/verify.py), the sums (verify_report.py).
"""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING
from uuid import UUID

import click

from capd.cli import moments
from capd.cli.bucket import bucket_at
from capd.cli.line import Line, Span, Style, line
from capd.cli.options import CorrectedUsageError, Verb, as_json
from capd.cli.place import Place, open_archive, reads_recording, state_directory
from capd.cli.screen import Screen, reader_may_leave, standard_output
from capd.cli.summary import size, to_json
from capd.cli.verify_report import Report, Told, describe, jumps_of, told_of_host
from capd.recording.errors import CapdError, ExitStatus, NothingRecordedError, UnknownSessionError

if TYPE_CHECKING:
    from capd.recording.archive import Archive
    from capd.recording.evidence.hosts import Trust
    from capd.recording.evidence.shelf import DirectoryShelf, Shelf
    from capd.recording.verify import FileReport

SEGMENTS = "segments"
KEYS = "keys"


@click.command(
    cls=Verb,
    examples=("capd verify", "capd verify /mnt/evidence --key host.pub --json", "capd verify 0197f3a4-b5c6"),
)
@click.argument("what", metavar="[PATH|ID]", required=False)
@click.option("--records", is_flag=True, help="Read every record as well: do streams and messages go on without a hole? Slow.")
@click.option(
    "--key",
    "keys",
    type=click.Path(dir_okay=False, path_type=Path),
    multiple=True,
    metavar="FILE",
    help="Trust this public key of a host and none other (and those that it vouches for). May be repeated.",
)
@click.option(
    "--pins",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Where to remember keys and newest heads (else $XDG_STATE_HOME/capd/pins.json, ~/.local/state/capd/pins.json).",
)
@as_json
@reads_recording
def command(
    *,
    what: str | None,
    records: bool,
    keys: Sequence[Path],
    pins: Path | None,
    as_json: bool,
    place: Place,
) -> int:
    """Check that the record is whole.

    Needs nothing but public keys: hashes of all bytes, signatures, the chain from segment to segment, the host's signed heads,
    and what this command saw of the host before, which it remembers. PATH is a segment, a directory of segments, a bundle that
    was exported, a copied state directory or a bucket's directory; ID is a session or a run, of which the segments that hold
    it are checked record by record. Without either, everything is checked.

    Exit status: 0 whole, 1 altered, unsigned or something missing, 6 unreadable for this version of capd.
    """
    status = 0
    with reader_may_leave():
        screen = standard_output()
        report = Report()
        for told in _checked(report, what, records=records, keys=keys, pins=pins, place=place):
            if not as_json:
                screen.write(finding_lines(told))
        if as_json:
            screen.write_json(to_json(report.as_json(), indent=2))
        else:
            _conclude(screen, report)
        status = report.exit_status
    return status  # noqa: RET504 - the block may end before it is set


def _checked(
    report: Report,
    what: str | None,
    *,
    records: bool,
    keys: Sequence[Path],
    pins: Path | None,
    place: Place,
) -> Iterator[Told]:
    """Check what was asked for, put it into the report, and give each thing that has something to be told."""
    from capd.cli.verify_bundle import check_bundle  # noqa: PLC0415 - `--help` must not pay for it
    from capd.recording.bundle import read_manifest  # noqa: PLC0415 - as above
    from capd.recording.verify import verify_files  # noqa: PLC0415 - as above

    if what is not None and not (Path(what).exists() or "/" in what or what.endswith(".seg")):
        with open_archive(place) as archive:
            for checked in _of_one(archive, _identity(archive, what), report):
                yield report.take_content(checked)
        return
    if place.bucket is not None:
        yield from _evidence(_bucket(place.bucket, place.config, what, records=records), report, keys, pins)
        return
    directory = state_directory(place) if what is None else Path(what)
    manifest = read_manifest(directory)
    shelf = _shelf(directory)
    only = None if manifest is None else frozenset(manifest.segments)
    yield from _evidence(shelf, report, keys, pins, only=frozenset() if shelf.one else only)
    if manifest is not None:
        report.excerpt = check_bundle(directory, manifest, place.keys())
        report.missing += report.excerpt.problems
    if records:
        paths = [shelf.directory / one.key for host in report.hosts for one in host.segments]
        # Of an excerpt each segment stands for itself: what goes on from one to the next need not be in it.
        for together in [paths] if manifest is None else [[path] for path in paths]:
            for checked in verify_files(together, place.keys()):
                yield report.take_content(checked)


def _bucket(url: str, config: str | None, what: str | None, *, records: bool) -> Shelf:
    """Give the bucket, of which all is checked.

    Raises:
        CorrectedUsageError: more was asked for than a bucket can be asked.
        BucketUrlError: it is none.
    """
    if what is not None or records:
        named = what or "--records"
        raise CorrectedUsageError(
            f"with --bucket all evidence is checked, and {named} cannot be used", f"capd verify --bucket {url}"
        )
    return bucket_at(url, config)


def _shelf(place: Path) -> DirectoryShelf:
    """Find segments, and the keys that belong to them.

    Raises:
        NothingRecordedError: there is nothing.
    """
    from capd.recording.evidence.shelf import DirectoryShelf, is_key, name_of  # noqa: PLC0415 - see above

    directory, only = (place.parent, place.name) if place.is_file() else (place, None)
    if not directory.is_dir():
        raise NothingRecordedError(place)
    beside = directory.parent / KEYS
    shelf = DirectoryShelf(directory, only=only, keys=beside if beside.is_dir() else None)
    if not (directory / SEGMENTS).is_dir() and all(is_key(name_of(item.key)) for item in shelf.list()):
        raise NothingRecordedError(place)
    return shelf


def _evidence(
    shelf: Shelf, report: Report, keys: Sequence[Path], pins: Path | None, *, only: frozenset[int] | None = None
) -> Iterator[Told]:
    """Check what is on a shelf; `only`: numbers of the segments that are asked for, where others may be missing."""
    from capd.recording.evidence import pins as memory  # noqa: PLC0415 - see above
    from capd.recording.evidence.hosts import Trust, verify_shelf  # noqa: PLC0415 - see above
    from capd.recording.keys import read_public  # noqa: PLC0415 - see above

    path = pins or _pins_file()
    seen = memory.load(path)
    now_ns = time.time_ns()
    trust = Trust(pins=seen, keys=[read_public(key) for key in keys], now_ns=now_ns)
    learned = dict(seen)
    for host in verify_shelf(shelf, trust if only is None else _excerpt(trust, only)):
        report.hosts.append(host)
        yield told_of_host(host)
        yield from (Told(name=Path(one.key).name, findings=one.findings) for one in host.segments)
        pin = host.next_pin(now_ns)
        if host.host is not None and pin is not None and only is None:
            learned[host.host] = pin
    if learned != seen:
        try:
            memory.save(path, learned)
        except CapdError as error:
            click.echo(f"capd: what was seen is not remembered: {error}", err=True)


def _excerpt(trust: Trust, only: frozenset[int]) -> Trust:
    """Give what is trusted for some segments of many: the keys, not how far the host had come."""
    from dataclasses import replace  # noqa: PLC0415 - a rare case

    return replace(trust, only=only, pins={host: replace(pin, sequence=0, head=0) for host, pin in trust.pins.items()})


def _pins_file() -> Path:
    state = os.environ.get("XDG_STATE_HOME", "")
    return (Path(state) if state.startswith("/") else Path.home() / ".local" / "state") / "capd" / "pins.json"


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
            yield from verify_files([path], archive.keys)
        else:
            report.missing.append(f"{path.name} is missing")
    newest = open_path(archive.segments, archive.index.last_segment() + 1)
    if newest.exists():
        yield from verify_files([newest], archive.keys)
    if report.exit_status == ExitStatus.OK and (archive.opens or not archive.index.withholds):
        # Damaged frames cannot be read, and were told already; closed ones cannot either, and their hashes were checked.
        report.missing += jumps_of(archive.records(identity))


def finding_lines(told: Told) -> Iterator[Line]:
    """Give one line for each damage, and one for all that is only worth knowing; none when it is as written."""
    name = Span(f"{told.name}  ", Style.STRONG)
    for finding in told.findings:
        if finding.damage:
            place = "" if finding.frame is None and not finding.offset else f"byte {finding.offset}: "
            place = place if finding.frame is None else f"frame {finding.frame}, {place}"
            yield (Span(f"{finding.fault.value:<14}", Style.BAD), name, Span(f"{place}{finding.message}"))
    known = [finding for finding in told.findings if not finding.damage]
    for fault, count in Counter(finding.fault.value for finding in known).items():
        words = next(finding.message for finding in known if finding.fault.value == fault)
        more = f"{words}, and {count - 1:,} more like it" if count > 1 else words
        yield (Span(f"{fault:<14}", Style.DOUBTFUL), name, Span(f"{more}; no damage"))


def _conclude(screen: Screen, report: Report) -> None:
    screen.write((Span("missing       ", Style.BAD), Span(words)) for words in report.missing)
    period = ""
    if report.first_ns is not None and report.last_ns is not None:
        period = f", {moments.to_second(report.first_ns)} to {moments.to_second(report.last_ns)} UTC"
    screen.write(line(words) for words in report.host_words(time.time_ns()))
    if report.excerpt is not None:
        screen.write(line(f"note: {words}", Style.DOUBTFUL) for words in report.excerpt.notes)
        screen.write([line(report.excerpt.words(), Style.DOUBTFUL)])
    screen.write([line(f"{describe(report)}, {report.records:,} records, {size(report.file_bytes)}{period}")])
    if report.exit_status == ExitStatus.OK:
        screen.write([line("WHOLE  nothing was altered, nothing is missing", Style.GOOD)])
    elif report.exit_status == ExitStatus.CORRUPT:
        screen.write([line("UNREADABLE  written by a later capd; check it with that one", Style.BAD)])
    elif report.verdict == "unsigned":
        screen.write([line("UNSIGNED  nothing contradicts itself, and nobody vouches for it", Style.BAD)])
    else:
        screen.write([line("NOT WHOLE  what is listed above was altered or is missing", Style.BAD)])
