"""`capd export`: a session or a run as a bundle with its proof, or as a file for other tools.

What lives here: the verb, its options, where it writes. What must not: the forms (capd.cli.forms).
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from shutil import rmtree
from tempfile import mkdtemp
from typing import IO, TYPE_CHECKING, Final
from uuid import UUID

import click

from capd.cli.bundle import Wanted, bundle, told
from capd.cli.forms.spoken import Spoken
from capd.cli.forms.writing import BINARY, SUFFIXES, pieces
from capd.cli.options import CorrectedUsageError, Verb
from capd.cli.payload import BRIEF, FULL, Limits
from capd.cli.place import Place, open_recording, reads_recording
from capd.cli.safe_text import visible
from capd.cli.seams import Seams, say_unsound
from capd.recording.errors import CapdError, ExitStatus, UnknownSessionError

if TYPE_CHECKING:
    from capd.recording.reading import Readable
    from capd.recording.record import Record
    from capd.recording.rows import SessionRow

STANDARD_OUTPUT: Final = "-"
FILE_MODE: Final = 0o600
"""What agents said, for whoever exported it and nobody else on the machine."""


class ExportTargetError(CapdError):
    """What is to be exported cannot be written to where it should go."""

    exit_status = ExitStatus.USAGE
    hint = "give another name with -o; nothing that exists is overwritten"


@click.command(
    cls=Verb,
    examples=(
        "capd export 0197f3a4-b5c6",
        "capd export 0197f3a4-b5c6 --format har -o said.har",
        "capd export nightly-import --format sql",
        "capd export 0197f3a4-b5c6 --format pcap -o - | tcpdump -nr -",
    ),
)
@click.argument("wanted", metavar="ID")
@click.option(
    "--format",
    "form",
    type=click.Choice(["bundle", *SUFFIXES]),
    default="bundle",
    show_default=True,
    help="bundle: a directory with all of it and its proof. har: HTTP. sql: statements. cast: a terminal. "
    "pcap: packets made of it. page: HTML that replays it.",
)
@click.option("-o", "--output", metavar="DIR|FILE", help="Where to; - is standard output.  [default: named after ID, here]")
@click.option("--full", is_flag=True, help="Cut nothing: all rows, and bodies up to 8 MiB.")
@reads_recording
def command(*, wanted: str, form: str, output: str | None, full: bool, place: Place) -> int:
    """Give a session or a run to others.

    ID is that of a session or a run, or its beginning, or the name of a run; of a run all sessions that fit are written.
    Credentials that `replay` does not show, and what was masked, are not in what is written.

    Exit status: 1 when not all that was recorded is here any more; what is here is written.
    """
    if form in BINARY and output == STANDARD_OUTPUT and sys.stdout.isatty():
        raise CorrectedUsageError("packets do not belong on a terminal", f"capd export {wanted} --format {form} -o FILE")
    limits = FULL if full else BRIEF
    with open_recording(place) as archive:
        followed: dict[UUID, Seams] = {}
        runs, sessions = found(archive, wanted, followed)
        if form == "bundle":
            missing = _bundle(archive, place, Wanted(title=wanted, runs=runs, sessions=sessions), output, limits)
            return _status(followed, missing=missing)
        parts = pieces(form, sessions, limits, title=f"capd: {wanted}")
        name = Path(output or f"{name_for(runs, sessions)}{SUFFIXES[form]}")
        if output == STANDARD_OUTPUT:
            for part in parts:
                sys.stdout.buffer.write(part)
            sys.stdout.buffer.flush()
            return _status(followed)
        with created(name) as file:
            for part in parts:
                file.write(part)
    click.echo(f"written: {visible(str(name))}")
    return _status(followed)


def _status(followed: Mapping[UUID, Seams], *, missing: bool = False) -> int:
    """Say which sessions are not what was recorded, and give the exit status."""
    for session, seams in followed.items():
        say_unsound(seams, f"session {session}: ")
    return ExitStatus.NEGATIVE if missing or not all(seams.sound for seams in followed.values()) else ExitStatus.OK


def name_for(runs: Sequence[UUID], sessions: Sequence[Spoken]) -> str:
    """Give what a file or directory is called that was not named."""
    return f"capd-{runs[0] if runs else sessions[0].row.session}"


def _bundle(archive: Readable, place: Place, wanted: Wanted, output: str | None, limits: Limits) -> bool:
    """Write a bundle; gives whether segments of it are missing."""
    if output == STANDARD_OUTPUT:
        raise CorrectedUsageError("a bundle is a directory", f"capd export {wanted.title} -o DIR")
    target = Path(output or name_for(wanted.runs, wanted.sessions))
    with created_directory(target) as directory:
        done = bundle(directory, archive, place.keys(), wanted, limits)
    for line in told(done, str(target)):
        click.echo(visible(line), err=not line.startswith("written"))
    return bool(done.missing)


def found(archive: Readable, wanted: str, followed: dict[UUID, Seams]) -> tuple[list[UUID], list[Spoken]]:
    """Give the run, if it is one, and the session, or those of the run, the earliest first.

    Args:
        archive: where they are.
        wanted: id or name.
        followed: is filled with what followed the records of each that was read.

    Raises:
        UnknownSessionError: there is neither.
    """
    from capd.recording.index_search import SessionFilter  # noqa: PLC0415 - `--help` must not pay for it

    runs: list[UUID] = []
    try:
        rows = [archive.index.session(wanted)]
    except UnknownSessionError:
        try:
            run = archive.index.run(wanted)
        except UnknownSessionError as error:
            raise UnknownSessionError(wanted, "session or run", expired=error.expired, behind=error.behind) from None
        runs = [run.run]
        rows = archive.index.sessions(SessionFilter(run=run.run), limit=None)[::-1]
    return runs, [Spoken(row=row, records=partial(_records, archive, row, followed)) for row in rows]


def _records(archive: Readable, row: SessionRow, followed: dict[UUID, Seams]) -> Iterator[Record]:
    seams, before = Seams(row), followed.get(row.session)
    if before is None or before.sound:  # a form may read only the beginning
        followed[row.session] = seams
    return seams.follow(archive.records(row.session))


@contextmanager
def created_directory(path: Path) -> Iterator[Path]:
    """Give a new directory, which appears under its name when it is whole, and not at all when it is not.

    Raises:
        ExportTargetError: there is something of that name, or it cannot be written.
    """
    try:
        if path.exists() or path.is_symlink():
            raise ExportTargetError(f"{path} exists")
        temporary = Path(mkdtemp(prefix=f".{path.name}.", dir=path.parent))
        try:
            yield temporary
            temporary.rename(path)
        finally:
            rmtree(temporary, ignore_errors=True)
    except OSError as error:
        raise ExportTargetError(f"cannot write {path}: {error.strerror or error}") from error


@contextmanager
def created(path: Path) -> Iterator[IO[bytes]]:
    """Give a new file, which appears under its name when it is whole, and not at all when it is not.

    Raises:
        ExportTargetError: there is one of that name, or it cannot be written.
    """
    temporary = path.with_name(f".{path.name}.part")
    try:
        if path.exists():
            raise ExportTargetError(f"{path} exists")
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, FILE_MODE)
        try:
            with os.fdopen(descriptor, "wb") as file:
                yield file
            os.link(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)
    except OSError as error:
        raise ExportTargetError(f"cannot write {path}: {error.strerror or error}") from error
