"""`capd verify`: is the record what was written, and whole?

What lives here: the verb. What must not: the checks (recording/evidence, recording/verify.py), the sums (verify_report.py).
"""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from capd.cli import moments
from capd.cli.bucket import bucket_at
from capd.cli.line import Line, Span, Style, line
from capd.cli.options import CorrectedUsageError, Verb, as_json
from capd.cli.place import Place, open_archive, reads_recording, state_directory
from capd.cli.screen import Screen, reader_may_leave, standard_output
from capd.cli.summary import size, to_json
from capd.cli.verify_report import Report, Told, describe, told_of_host
from capd.recording.errors import CapdError, ExitStatus, NothingRecordedError, NothingSealedError, on_disk

if TYPE_CHECKING:
    from capd.recording.bucket import Bucket
    from capd.recording.evidence.host_report import Trust
    from capd.recording.evidence.shelf import DirectoryShelf, Shelf

SEGMENTS = "segments"
KEYS = "keys"


@click.command(
    cls=Verb,
    examples=(
        "capd verify",
        "capd verify /mnt/evidence --key host.pub --json",
        "capd verify s3://recordings",
        "capd verify 0197f3a4-b5c6",
    ),
)
@click.argument("what", metavar="[PATH|BUCKET|ID]", required=False)
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
    was exported, a copied state directory or a bucket's directory; BUCKET is a URL, as for --bucket; ID is a session or a run,
    of which the segments that hold it are checked, record by record as well. Without any of them, everything is checked.

    Exit status: 0 whole, 1 altered, unsigned or something missing, 5 nothing is there, 6 unreadable for this version of capd.
    """
    status = 0
    if what is not None and "://" in what:
        if place.bucket not in {None, what}:
            raise CorrectedUsageError("two buckets are given", f"capd verify --bucket {what}")
        what, place = None, replace(place, bucket=what)
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
    from capd.cli.verify_one import check_one  # noqa: PLC0415 - as above
    from capd.recording.bundle import read_manifest  # noqa: PLC0415 - as above
    from capd.recording.verify import verify_files  # noqa: PLC0415 - as above

    if what is not None and not ((what and Path(what).exists()) or "/" in what or what.endswith(".seg")):
        with open_archive(place) as archive:
            yield from check_one(archive, what, report, lambda shelf, only: _evidence(shelf, report, keys, pins, only=only))
        return
    if place.bucket is not None:
        bucket = _bucket(place.bucket, place.config, what, records=records)
        yield from _evidence(bucket, report, keys, pins, bucket=str(bucket))
        if not report.says_anything:
            raise NothingRecordedError(str(bucket))
        return
    directory = state_directory(place) if what is None else Path(what)
    bucket_url = _url_of_bucket(directory, pins)
    # Neither a host's own recording nor a bucket is an excerpt: a manifest put there would explain away what is missing.
    whole = (what is None and place.state_dir is None) or bool(bucket_url)
    manifest = None if whole else read_manifest(directory)
    shelf = _shelf(directory)
    only = None if manifest is None else frozenset(manifest.segments)
    yield from _evidence(shelf, report, keys, pins, only=frozenset() if shelf.partial else only, bucket=bucket_url)
    if manifest is None and not report.says_anything:
        raise NothingSealedError(directory)
    if manifest is not None:
        report.excerpt = check_bundle(directory, manifest, place.keys())
        report.missing += report.excerpt.problems
    if records:
        paths = [shelf.directory / one.key for host in report.hosts for one in host.segments]
        # Of an excerpt each segment stands for itself: what goes on from one to the next need not be in it.
        for together in [paths] if manifest is None else [[path] for path in paths]:
            for checked in verify_files(together, place.keys()):
                yield report.take_content(checked)


def _bucket(url: str, config: str | None, what: str | None, *, records: bool) -> Bucket:
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


def _url_of_bucket(directory: Path, pins: Path | None) -> str:
    """Give the URL of a directory in which a bucket's folders are, or were when it was looked at before; else nothing."""
    from capd.recording.evidence import pins as memory  # noqa: PLC0415 - see above

    url = directory.absolute().as_uri()
    known = any(url in pin.buckets for pin in memory.load(pins or _pins_file()).values())
    with on_disk("read", directory):
        return url if known or any(directory.glob("host=*/date=*/")) else ""


def _shelf(place: Path) -> DirectoryShelf:
    """Find segments, and the keys that belong to them.

    Raises:
        NothingRecordedError: there is nothing.
    """
    from capd.recording.evidence.shelf import DirectoryShelf, is_key, name_of  # noqa: PLC0415 - see above

    directory, only = (place.parent, frozenset({place.name})) if place.is_file() else (place, None)
    if not directory.is_dir():
        raise NothingRecordedError(place)
    beside = directory.parent / KEYS
    shelf = DirectoryShelf(directory, only=only, keys=beside if beside.is_dir() else None)
    if not (directory / SEGMENTS).is_dir() and all(is_key(name_of(item.key)) for item in shelf.list()):
        raise NothingRecordedError(place)
    return shelf


def _evidence(
    shelf: Shelf,
    report: Report,
    keys: Sequence[Path],
    pins: Path | None,
    *,
    only: frozenset[int] | None = None,
    bucket: str = "",
) -> Iterator[Told]:
    """Check what is on a shelf.

    Args:
        shelf: where it is.
        report: what is found is put into it.
        keys: whom to trust.
        pins: where that is remembered; None: in the usual place.
        only: numbers of the segments that are asked for, where others may be missing; None: all that there are.
        bucket: URL of the bucket that the shelf is; empty where it is none.
    """
    from capd.recording.evidence import pins as memory  # noqa: PLC0415 - see above
    from capd.recording.evidence.host_report import Trust  # noqa: PLC0415 - see above
    from capd.recording.evidence.hosts import verify_shelf  # noqa: PLC0415 - see above
    from capd.recording.keys import read_public  # noqa: PLC0415 - see above

    path = pins or _pins_file()
    seen = memory.load(path)
    now_ns = time.time_ns()
    trust = Trust(pins=seen, keys=[read_public(key) for key in keys], now_ns=now_ns, bucket=bucket)
    learned = dict(seen)
    for host in verify_shelf(shelf, trust if only is None else _excerpt(trust, only)):
        report.hosts.append(host)
        yield told_of_host(host)
        yield from (Told(name=Path(one.key).name, findings=one.findings) for one in host.segments)
        pin = host.next_pin(now_ns, bucket)
        if host.host is not None and pin is not None and only is None:
            learned[host.host] = pin
    if learned != seen:
        try:
            memory.save(path, learned)
        except CapdError as error:
            click.echo(f"capd: what was seen is not remembered: {error}", err=True)


def _excerpt(trust: Trust, only: frozenset[int]) -> Trust:
    """Give what is trusted for some segments of many: the keys, not how far the host had come."""
    return replace(trust, only=only, pins={host: replace(pin, sequence=0, head=0, first=0) for host, pin in trust.pins.items()})


def _pins_file() -> Path:
    state = os.environ.get("XDG_STATE_HOME", "")
    return (Path(state) if state.startswith("/") else Path.home() / ".local" / "state") / "capd" / "pins.json"


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
    screen.write(line(f"note: {words}", Style.DOUBTFUL) for words in report.notes)
    if report.excerpt is not None:
        screen.write(line(f"note: {words}", Style.DOUBTFUL) for words in report.excerpt.notes)
        screen.write([line(report.excerpt.words(), Style.DOUBTFUL)])
    screen.write([line(f"{describe(report)}, {report.records:,} records, {size(report.file_bytes)}{period}")])
    if report.exit_status == ExitStatus.OK:
        there = "" if report.begins_at_first else " from the first segment here on"
        screen.write([line(f"WHOLE {there} nothing was altered, nothing is missing", Style.GOOD)])
    elif report.exit_status == ExitStatus.CORRUPT:
        screen.write([line("UNREADABLE  written by a later capd; check it with that one", Style.BAD)])
    elif report.verdict == "unsigned":
        screen.write([line("UNSIGNED  nothing contradicts itself, and nobody vouches for it", Style.BAD)])
    else:
        screen.write([line("NOT WHOLE  what is listed above was altered or is missing", Style.BAD)])
