"""`capd sessions`: what the agents talked to, and whether the record of it is whole.

What lives here: the verb. What must not: queries, layout of single cells.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from uuid import UUID

import click

from capd.cli import summary
from capd.cli.facts import Facts, mapping, number, text
from capd.cli.line import Span, Style
from capd.cli.options import Moment, Verb, as_json, moment
from capd.cli.place import Place, open_recording, reads_recording
from capd.cli.screen import reader_may_leave, standard_output
from capd.cli.summary import json_array, short_ids
from capd.cli.table import Cell, Column, lay_out

COLUMNS = (
    Column(name="SESSION", rigid=True),
    Column(name="STARTED (UTC)", rigid=True),
    Column(name="PROTOCOL", rigid=True),
    Column(name="TARGET"),
    Column(name="PROCESS"),
    Column(name="SENT", right=True, rigid=True),
    Column(name="RECEIVED", right=True, rigid=True),
    Column(name="MSGS", right=True, rigid=True),
    Column(name="STATE", rigid=True),
    Column(name="COMPLETENESS"),
)


@click.command(
    cls=Verb, examples=("capd sessions --protocol postgresql --since 2h", "capd sessions --target db.internal --json")
)
@click.option("--run", metavar="ID", help="Only sessions of this run; the beginning of its id is enough.")
@click.option("--protocol", metavar="NAME", help="Only this protocol, such as http1 or postgresql.")
@click.option("--target", metavar="TEXT", help="Only with this target: an address, a name, or a domain that it ends with.")
@click.option("--principal", metavar="NAME", help="Only sessions of runs that acted for this name.")
@click.option(
    "--host", metavar="ID", type=click.UUID, help="Only sessions that this installation recorded (of interest with --bucket)."
)
@click.option("--since", type=Moment(), help="Only sessions that were active at or after this time, such as 07:24 or 2h (ago).")
@click.option("--until", type=Moment(), help="Only sessions that started before this time.")
@click.option("--state", type=click.Choice(["open", "closed", "abandoned"]), help="Only sessions in this state.")
@click.option("--completeness", type=click.Choice(["complete", "partial", "opaque"]), help="Only sessions with this verdict.")
@click.option("--limit", type=click.IntRange(min=1), default=100, show_default=True, help="At most so many, the latest.")
@as_json
@reads_recording
def command(
    *,
    run: str | None,
    protocol: str | None,
    target: str | None,
    principal: str | None,
    host: UUID | None,
    since: str | None,
    until: str | None,
    state: str | None,
    completeness: str | None,
    limit: int,
    as_json: bool,
    place: Place,
) -> None:
    """List sessions.

    These are the conversations of all runs, the latest last. Times are UTC.
    """
    from capd.recording.index_search import SessionFilter  # noqa: PLC0415 - `--help` must not pay for it

    with reader_may_leave(), open_recording(place) as archive:
        index = archive.index
        chosen = SessionFilter(
            run=None if run is None else index.run(run).run,
            protocol=protocol,
            target=target,
            principal=principal,
            host=host,
            from_ns=moment(since),
            until_ns=moment(until),
            state=state,
            verdict=completeness,
        )
        rows = index.sessions(chosen, limit=limit)
        _print([row.to_json() for row in reversed(rows)], as_json=as_json)
        if place.bucket is None or not rows:
            tell_expired(index.expired_words(from_ns=chosen.from_ns))
        if not rows:
            tell_behind(index.behind_words())


def tell_expired(words: str) -> None:
    """Say on standard error what cannot be among what was found, because it expired; nothing when there is nothing to say."""
    if words:
        click.echo(
            f"capd: {words}: what only they held is not here any more; `capd verify` shows the records of that", err=True
        )


def tell_behind(words: str) -> None:
    """Say on standard error what may be recorded and cannot be among what was found yet; nothing when there is nothing."""
    if words:
        click.echo(f"capd: {words}", err=True)


def _print(sessions: Sequence[Facts], *, as_json: bool) -> None:
    """Print sessions, given as their public objects, as a table or as a JSON array."""
    screen = standard_output()
    if as_json:
        screen.write_json(json_array(sessions))
        return
    if not sessions:
        click.echo("capd: no session fits; `capd runs` lists what was recorded", err=True)
        return
    short = short_ids([text(session, "session") for session in sessions])
    screen.write(lay_out(COLUMNS, [cells(session, short) for session in sessions], fit=screen.columns))


def cells(session: Facts, short: Mapping[str, str]) -> list[Cell]:
    """Give the row of a session."""
    sizes = mapping(session, "bytes")
    state = text(session, "state")
    return [
        Span(short[text(session, "session")], Style.STRONG),
        text(session, "started")[:19].replace("T", " "),
        text(session, "protocol"),
        summary.target(session),
        summary.process(session),
        summary.size(number(sizes, "request")),
        summary.size(number(sizes, "response")),
        text(session, "messages"),
        Span(state, Style.GOOD if state == "open" else Style.PLAIN),
        summary.verdict(session),
    ]
