"""`capd search`: who said this, when, and how to see it in its context.

What lives here: the verb. What must not: the search itself.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from uuid import UUID

import click

from capd.cli.arrows import ARROWS, NO_ARROW
from capd.cli.facts import Facts, number, sequence, sequence_of, text
from capd.cli.line import EMPTY, Line, Span, Style
from capd.cli.options import Moment, Verb, as_json, moment
from capd.cli.place import Place, open_recording, reads_recording
from capd.cli.screen import reader_may_leave, standard_output
from capd.cli.sessions import tell_behind, tell_expired
from capd.cli.summary import json_array, short_ids, target
from capd.recording.errors import ExitStatus
from capd.recording.record import Direction

WITHHELD = (
    "capd: what was said is encrypted, so the index here has no text of it, and nothing in it is found\n"
    "  give `--identity FILE` with the age identity of a recipient, here or where the segments are copied to"
)

NOT_IN_CATALOGUE = (
    "capd: what was said is encrypted, so the catalogue has no text of it, and nothing in it is found\n"
    "  `capd export ID --bucket URL -o COPY` makes a copy, which `capd search --state-dir COPY --identity FILE TEXT` searches"
)


@click.command(
    cls=Verb, examples=("capd search 'customers' --since 1d", "capd search '\"drop table\"' --protocol postgresql --json")
)
@click.argument("words", metavar="TEXT...", nargs=-1, required=True)
@click.option("--run", metavar="ID", help="Only in sessions of this run.")
@click.option("--protocol", metavar="NAME", help="Only in sessions of this protocol.")
@click.option(
    "--target", metavar="TEXT", help="Only in sessions with this target: an address, a name, or a domain that it ends with."
)
@click.option("--principal", metavar="NAME", help="Only in sessions of runs that acted for this name.")
@click.option(
    "--host",
    metavar="ID",
    type=click.UUID,
    help="Only in sessions that this installation recorded (of interest with --bucket).",
)
@click.option("--since", type=Moment(), help="Only what was said at or after this time, such as 07:24 or 2h (ago).")
@click.option("--until", type=Moment(), help="Only what was said before this time.")
@click.option("--limit", type=click.IntRange(min=1), default=20, show_default=True, help="At most so many hits, the latest.")
@as_json
@reads_recording
def command(
    *,
    words: Sequence[str],
    run: str | None,
    protocol: str | None,
    target: str | None,
    principal: str | None,
    host: UUID | None,
    since: str | None,
    until: str | None,
    limit: int,
    as_json: bool,
    place: Place,
) -> int:
    """Find what was said.

    Gives the messages that hold all the words, the latest first, each with the command that shows it in its context. Words in
    double quotes must follow each other; `word*` finds all that begins so. Exit status 1 when nothing was found.
    """
    from capd.recording.index_search import SessionFilter  # noqa: PLC0415 - `--help` must not pay for it

    with reader_may_leave(), open_recording(place, searched=True) as archive:
        index = archive.index
        chosen = SessionFilter(
            run=None if run is None else index.run(run).run,
            protocol=protocol,
            target=target,
            principal=principal,
            host=host,
            from_ns=moment(since),
            until_ns=moment(until),
        )
        found = index.search(" ".join(words), chosen, limit=limit)
        hits = [hit.to_json() for hit in found]
        rows = {hit.session: index.find_session(hit.session) for hit in found}
        sessions = {str(session): row.to_json() for session, row in rows.items() if row is not None}
        screen = standard_output()
        if as_json:
            screen.write_json(json_array([{**hit, "replay": replay_command(hit, text(hit, "session"))} for hit in hits]))
        else:
            screen.write(hit_lines(hits, sessions))
            if not hits:
                click.echo("capd: nothing found; `capd sessions` lists what was recorded", err=True)
        if place.bucket is None or not hits:
            tell_expired(index.expired_words(from_ns=chosen.from_ns))
        if not hits:
            tell_behind(index.behind_words())
        if index.withholds:
            click.echo(WITHHELD if place.bucket is None else NOT_IN_CATALOGUE, err=True)
    return ExitStatus.OK if hits else ExitStatus.NEGATIVE


def replay_command(hit: Facts, session: str) -> str:
    """Give the command that shows a hit in its context."""
    return f"capd replay {session} --at {number(hit, 'message') or 0}"


def hit_lines(hits: Sequence[Facts], sessions: Mapping[str, Facts]) -> Iterator[Line]:
    """Give three lines for each hit: where it is, what it says, what to run next."""
    short = short_ids([text(hit, "session") for hit in hits])
    for hit in hits:
        identity = text(hit, "session")
        arrow = {direction.name.lower(): sign for direction, sign in ARROWS.items()}.get(text(hit, "direction"), NO_ARROW)
        where = target(sessions.get(identity, {}))
        yield (
            Span(text(hit, "time")[:23].replace("T", " ") + " ", Style.FAINT),
            Span(f"{arrow} ", Style.REQUEST if text(hit, "direction") == Direction.REQUEST.name.lower() else Style.RESPONSE),
            Span(f"{text(hit, 'protocol')} {where}  "),
            Span(f"{text(hit, 'type')} #{text(hit, 'message')}", Style.FAINT),
        )
        yield (Span("  "), *marked(text(hit, "snippet"), hit))
        yield (Span(f"  {replay_command(hit, short[identity])}", Style.FAINT),)
        yield EMPTY


def marked(snippet: str, hit: Facts) -> Iterator[Span]:
    """Give the snippet with the found words set apart."""
    at = 0
    for match in sequence(hit, "matches"):
        start, end = (place if isinstance(place, int) else at for place in (*sequence_of(match), at, at)[:2])
        if at <= start <= end:
            yield Span(snippet[at:start])
            yield Span(snippet[start:end], Style.STRONG)
            at = end
    yield Span(snippet[at:])
