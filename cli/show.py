"""`capd show`: one session or one run in full, without what was said.

What lives here: the verb. What must not: replay.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

import click

from capd.cli import process_tree, sessions
from capd.cli.facts import Facts, mapping, mapping_of, sequence, text, text_of
from capd.cli.line import EMPTY, Line, Span, Style, line
from capd.cli.moments import rfc3339
from capd.cli.options import Verb, as_json
from capd.cli.place import Place, open_recording, reads_recording
from capd.cli.run_summary import described
from capd.cli.screen import reader_may_leave, standard_output
from capd.cli.seams import Seams
from capd.cli.session_story import Story
from capd.cli.summary import LABEL_COLUMNS, principal, session_head, short_ids, to_json, verdict_lines
from capd.cli.table import lay_out
from capd.recording.errors import ExitStatus, UnknownSessionError
from capd.recording.record import Kind, Record, Value

if TYPE_CHECKING:
    from capd.recording.reading import Readable
    from capd.recording.rows import RunRow, SessionRow


@click.command(cls=Verb, examples=("capd show 0197f3a4-b5c6", "capd show nightly-import --json"))
@click.argument("what", metavar="ID")
@as_json
@reads_recording
def command(*, what: str, as_json: bool, place: Place) -> int:
    """Show a session or a run in short.

    ID is that of a session or a run, or its beginning, or the name of a run. Of a run it shows the tree of its processes and
    its sessions; of a session whom it was with, how TLS became readable, its gaps, and whether its record is whole and if
    not, why.

    Exit status: 1 when not all that was recorded of the session is here any more.
    """
    status = 0
    with reader_may_leave(), open_recording(place) as archive:
        try:
            status = _show_session(archive, archive.index.session(what), as_json=as_json)
        except UnknownSessionError:
            try:
                run = archive.index.run(what)
            except UnknownSessionError as error:
                raise UnknownSessionError(what, "session or run", expired=error.expired, behind=error.behind) from None
            _show_run(archive, run, as_json=as_json)
    return status


def _show_session(archive: Readable, row: SessionRow, *, as_json: bool) -> int:
    story, seams = Story(), Seams(row)
    for record in seams.follow(archive.records(row.session)):
        story.feed(record)
    if seams.better:  # something may have been found after its end, while this was read
        row = archive.index.session(row.session)
        seams.hold(row)
    status = ExitStatus.OK if seams.sound else ExitStatus.NEGATIVE
    screen = standard_output()
    session = seams.corrected(row).to_json()
    if as_json:
        screen.write_json(to_json({**session, **story.as_json(), "whole_here": seams.sound}, indent=2))
        return status
    screen.write(session_head(session))
    screen.write(labels_lines(session))
    screen.write(story.lines())
    screen.write([*seams.verdict_lines(), *verdict_lines(session)])
    screen.write([line(f"next: capd replay {row.session}", Style.FAINT)])
    return status


def _show_run(archive: Readable, row: RunRow, *, as_json: bool) -> None:
    from capd.recording.index_search import SessionFilter  # noqa: PLC0415 - `--help` must not pay for it

    found = archive.index.sessions(SessionFilter(run=row.run), limit=None)
    listed = [session.to_json() for session in reversed(found)]
    run = described(archive.index, row)
    tree = process_tree.gather(archive.records(row.run))
    gaps = coverage_gaps(archive.records(row.run))
    screen = standard_output()
    if as_json:
        whole = {**run, "process_tree": process_tree.as_json(tree), "session_list": listed, "coverage_gaps": gaps}
        screen.write_json(to_json(whole, indent=2))
        return
    screen.write(run_head(run))
    screen.write([EMPTY, line("processes", Style.STRONG), *process_tree.lines(tree)])
    if gaps:
        screen.write([EMPTY, line("not watched: what was said in TLS through these files cannot be read", Style.BAD)])
        screen.write([line(f"  {text(gap, 'path') or 'further files'}: {text(gap, 'reason')}") for gap in gaps])
    screen.write([EMPTY, line("sessions", Style.STRONG), *_session_table(listed, screen.columns), EMPTY])
    screen.write(verdict_lines(run) if listed else [line("no session: nothing was said to anybody", Style.FAINT)])


def coverage_gaps(records: Iterable[Record]) -> list[dict[str, Value]]:
    """Give the files of a run that are not watched, as `show --json` prints them."""
    return [
        {"time": rfc3339(record.time_ns), "path": record.body.get("path"), "reason": record.body.get("reason")}
        for record in records
        if record.kind is Kind.MARKER and record.body.get("name") == "coverage_gap"
    ]


def run_head(run: Facts) -> Iterator[Line]:
    """Give the lines above a run's processes."""
    name = text(run, "name")
    ended = text(run, "ended")
    yield _labelled("run", text(run, "run") + (f"  {name}" if name else ""))
    yield _labelled("for", principal(run.get("principal")) or "nobody known")
    yield _labelled("time", f"{text(run, 'started')} to {ended}" if ended else f"{text(run, 'started')}, still running")
    command_line = " ".join(text_of(word) for word in sequence(run, "command"))
    yield _labelled("command", command_line or ("was already running when capd began" if run.get("adopted") else "unknown"))
    for label in ("cwd", "cgroup", "host"):
        if text(run, label):
            yield _labelled(label, text(run, label))
    yield from labels_lines(run)
    for part in sequence(run, "expired"):
        about = mapping_of(part)
        words = f"{text(about, 'segments')} of its segments, from {text(about, 'first')} to {text(about, 'last')}, by policy"
        yield _labelled("expired", f"{words} {text(about, 'policy')}".rstrip())


def labels_lines(about: Facts) -> Iterator[Line]:
    """Give the labels, if there are any."""
    labels = mapping(about, "labels")
    if labels:
        yield _labelled("labels", ", ".join(f"{key}={text_of(value)}" for key, value in labels.items()))


def _session_table(listed: Sequence[Facts], fit: int | None) -> list[Line]:
    short: Mapping[str, str] = short_ids([text(session, "session") for session in listed])
    return lay_out(sessions.COLUMNS, [sessions.cells(session, short) for session in listed], fit=fit)


def _labelled(label: str, words: str) -> Line:
    return (Span(f"{label:<{LABEL_COLUMNS}}", Style.FAINT), Span(words))
