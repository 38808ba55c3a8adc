"""`capd replay`: what was said in a session, as a transcript, as records, or as the exact bytes.

What lives here: the verb, its options and what they exclude. What must not: how each form is written (replay_forms).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from capd.cli.options import CorrectedUsageError, Moment, Verb, moment
from capd.cli.pattern import Pattern
from capd.cli.place import Place, open_recording, reads_recording
from capd.cli.playback import Choice
from capd.cli.replay_forms import Request, Writer, write_form, write_json, write_raw, write_text
from capd.cli.screen import reader_may_leave
from capd.recording.record import Direction

if TYPE_CHECKING:
    from capd.recording.reading import Readable
    from capd.recording.rows import SessionRow

FORMS = ("har", "sql", "cast")
WRITERS: dict[str, Writer] = {
    "text": write_text,
    "json": write_json,
    "raw": write_raw,
    **{form: write_form(form) for form in FORMS},
}
EXAMPLES = (
    "capd replay 0197f3a4-b5c6",
    "capd replay 0197f3a4-b5c6 --follow",
    "capd replay 0197f3a4-b5c6 --from 07:24 --grep 'customers|orders'",
    "capd replay 0197f3a4-b5c6 --format raw --direction response > answer.bin",
)


@click.command(cls=Verb, examples=EXAMPLES)
@click.argument("session", metavar="ID")
@click.option(
    "--format",
    "form",
    type=click.Choice(list(WRITERS)),
    default="text",
    show_default=True,
    help="text: a transcript to read. json: one record a line. raw: the exact bytes of one direction and nothing else. "
    "har, sql, cast: for other tools, as `capd export` writes them.",
)
@click.option(
    "--direction", type=click.Choice(["request", "response"]), help="Only what the agent said, or only what it heard."
)
@click.option("--from", "start", type=Moment(), help="Begin at this time: 07:24:11 (UTC), or 90s after the session's start.")
@click.option("--until", type=Moment(), help="End before this time, given like --from.")
@click.option(
    "--at", type=click.IntRange(min=0), metavar="N", help="Begin with message #N, as `capd search` and the transcript count."
)
@click.option(
    "--grep", metavar="RE", help="Only messages in which this Python regular expression matches a line (of at most 64 KiB)."
)
@click.option("--follow", is_flag=True, help="Go on with what is said now, until the session closes or Ctrl-C.")
@click.option(
    "--speed", type=click.FloatRange(min=0.01, max=1000), metavar="X", help="Take the time that it took, divided by X."
)
@click.option("--full", is_flag=True, help="Cut nothing: all rows, headers, bodies and bookkeeping of the protocol.")
@click.option("--force", is_flag=True, help="Write raw bytes even to a terminal, which they can take over.")
@reads_recording
def command(
    *,
    session: str,
    form: str,
    direction: str | None,
    start: str | None,
    until: str | None,
    at: int | None,
    grep: str | None,
    follow: bool,
    speed: float | None,
    full: bool,
    force: bool,
    place: Place,
) -> int:
    """Show what was said in a session.

    ID is that of a session, or its beginning. What is missing from the record stands in the transcript where it is missing, and
    the verdict on the whole above and below it. Nothing recorded reaches the terminal as an escape sequence, except with
    `--format raw`, which for that reason does not write to a terminal.

    Exit status: 1 when nothing matches, when not all that was recorded is here any more (NOT WHOLE HERE), when what finds the
    session tells a better verdict than its records, and when raw bytes have a hole.
    """
    refuse_contradictions(session, form=form, chosen={"--at": at, "--grep": grep, "--speed": speed}, follow=follow, until=until)
    if form in FORMS and (direction is not None or follow):
        raise CorrectedUsageError(
            f"--format {form} gives both directions of what is recorded so far", f"capd replay {session} --format {form}"
        )
    status = 0
    pattern = None if grep is None else Pattern(grep)
    with reader_may_leave(), open_recording(place) as archive:
        row = archive.index.session(session)
        request = Request(
            choice=Choice(direction=None if direction is None else Direction[direction.upper()], at=at, pattern=pattern),
            from_ns=_begin(archive, row, start, at),
            until_ns=moment(until, origin_ns=row.started_ns),
            follow=follow,
            speed=speed,
            full=full,
            force=force,
        )
        status = WRITERS[form](archive, row, request)
    return status  # noqa: RET504 - the block may end before it is set


def _begin(archive: Readable, row: SessionRow, start: str | None, at: int | None) -> int | None:
    """Give where to begin reading; with --at that is where the message's exchange began, to spare reading all before it."""
    if start is not None or at is None:
        return moment(start, origin_ns=row.started_ns)
    return archive.index.exchange_start(row.session, at)


def refuse_contradictions(identity: str, *, form: str, chosen: dict[str, object], follow: bool, until: str | None) -> None:
    """Refuse options that cannot both hold.

    Raises:
        CorrectedUsageError: they cannot.
    """
    given = [name for name, value in chosen.items() if value is not None]
    if form in {"raw", *FORMS} and given:
        what = "gives bytes and knows no messages" if form == "raw" else "gives all that was said"
        raise CorrectedUsageError(
            f"{' and '.join(given)} cannot be used with --format {form}, which {what}",
            f"capd replay {identity} {given[0]} {chosen[given[0]]}",
        )
    if follow and until is not None:
        raise CorrectedUsageError(
            "--follow goes on until the session closes, --until ends before", f"capd replay {identity} --follow"
        )
