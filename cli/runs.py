"""`capd runs`: which agents ran, for whom, and whether the record of what they did is whole.

What lives here: the verb. What must not: queries.
"""

from __future__ import annotations

from collections.abc import Mapping

import click

from capd.cli import summary
from capd.cli.facts import Facts, mapping, sequence, text, text_of
from capd.cli.line import Span, Style
from capd.cli.options import Moment, Verb, as_json, moment
from capd.cli.place import Place, open_recording, reads_recording
from capd.cli.run_summary import described
from capd.cli.screen import reader_may_leave, standard_output
from capd.cli.sessions import tell_behind
from capd.cli.summary import json_array, short_ids
from capd.cli.table import Cell, Column, lay_out

COLUMNS = (
    Column(name="RUN", rigid=True),
    Column(name="NAME"),
    Column(name="STARTED (UTC)", rigid=True),
    Column(name="ENDED (UTC)", rigid=True),
    Column(name="PRINCIPAL"),
    Column(name="COMMAND"),
    Column(name="PROCESSES", right=True, rigid=True),
    Column(name="SESSIONS", right=True, rigid=True),
    Column(name="COMPLETENESS"),
)


@click.command(cls=Verb, examples=("capd runs --since 1d", "capd runs --json"))
@click.option("--since", type=Moment(), help="Only runs that were alive at or after this time, such as 07:24 or 2h (ago).")
@click.option("--limit", type=click.IntRange(min=1), default=100, show_default=True, help="At most so many, the latest.")
@as_json
@reads_recording
def command(*, since: str | None, limit: int, as_json: bool, place: Place) -> None:
    """List runs.

    The latest comes last. Times are UTC. A run is as complete as the worst of its sessions; with anything lost that is in none
    of them it is partial. `capd show ID` tells more.
    """
    with reader_may_leave(), open_recording(place) as archive:
        rows = reversed(archive.index.runs(limit=limit))
        since_ns = moment(since)
        chosen = [row for row in rows if since_ns is None or row.ended_ns is None or row.ended_ns >= since_ns]
        runs = [described(archive.index, row) for row in chosen]
        screen = standard_output()
        if as_json:
            screen.write_json(json_array(runs))
        elif runs:
            short = short_ids([text(run, "run") for run in runs])
            screen.write(lay_out(COLUMNS, [_cells(run, short) for run in runs], fit=screen.columns))
        else:
            click.echo("capd: no run fits; `capd run -- COMMAND` makes one", err=True)
        if not runs:
            tell_behind(archive.index.behind_words())


def _cells(run: Facts, short: Mapping[str, str]) -> list[Cell]:
    ended = text(run, "ended")[:19].replace("T", " ")
    return [
        Span(short[text(run, "run")], Style.STRONG),
        text(run, "name"),
        text(run, "started")[:19].replace("T", " "),
        Span(ended or "running", Style.PLAIN if ended else Style.GOOD),
        summary.principal(run.get("principal")),
        " ".join(text_of(word) for word in sequence(run, "command")),
        text(run, "processes"),
        text(run, "sessions"),
        summary.verdict(run) if mapping(run, "completeness") else Span("no session", Style.FAINT),
    ]
