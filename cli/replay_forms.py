"""The forms of a replay: text for people, json for programs, raw for byte-exact work, and those that other tools read.

What lives here: the loops that read records and write them out. What must not: options, layout.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import click

from capd.cli import facts
from capd.cli.line import EMPTY, Style, line
from capd.cli.options import CorrectedUsageError
from capd.cli.payload import BRIEF, FULL
from capd.cli.playback import Choice, Playback
from capd.cli.raw_stream import Hole, RawStream
from capd.cli.record_json import as_json, words_of
from capd.cli.safe_text import visible
from capd.cli.screen import Screen, standard_output
from capd.cli.seams import GONE, Seams, say_unsound
from capd.cli.summary import session_head, to_json, verdict_lines
from capd.cli.transcript import Block, Transcript
from capd.recording.errors import CapdError, EncryptedError, ExitStatus
from capd.recording.record import Direction, Kind, Record

if TYPE_CHECKING:
    from capd.recording.reading import Readable
    from capd.recording.rows import SessionRow

Records = Callable[[Callable[[], None]], Iterator[Record]]

Writer = Callable[["Readable", "SessionRow", "Request"], int]

POLL_SECONDS: Final = 0.1
UNRECORDED: Final = "recording level off"
"""Ends what is told of a session of which nothing, or not all, was recorded."""
# A session may have slept for hours; nobody wants to sleep with it.
PAUSE_SECONDS_MAX: Final = 5.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Request:
    """What is to be replayed, and how.

    Attributes:
        choice: which messages.
        from_ns, until_ns: from_ns <= time < until_ns; None for no bound.
        follow: whether to wait for more until the session closes.
        speed: how many times faster than it happened; None for at once.
        full: whether nothing is cut.
        force: whether raw bytes may go to a terminal.
    """

    choice: Choice
    from_ns: int | None = None
    until_ns: int | None = None
    follow: bool = False
    speed: float | None = None
    full: bool = False
    force: bool = False

    @property
    def reads_all(self) -> bool:
        """Whether the session is read from its first record to its last."""
        return self.from_ns is None and self.until_ns is None


class Pace:
    """Waits between two moments of the recording as long as they were apart."""

    def __init__(self, speed: float | None, sleep: Callable[[float], None] = time.sleep) -> None:
        self._speed = speed
        self._sleep = sleep
        self._last_ns: int | None = None

    def keep(self, time_ns: int, before_waiting: Callable[[], None]) -> None:
        """Wait until it is this moment's turn."""
        if self._speed is None:
            return
        last_ns, self._last_ns = self._last_ns, time_ns
        pause = 0.0 if last_ns is None else (time_ns - last_ns) / 1e9 / self._speed
        if pause > 0:
            before_waiting()
            self._sleep(min(pause, PAUSE_SECONDS_MAX))


def write_text(archive: Readable, row: SessionRow, request: Request) -> int:
    """Write the transcript; gives the exit status."""
    screen = standard_output()
    session = row.to_json()
    screen.write([*session_head(session), *verdict_lines(session), EMPTY])
    if request.choice.at:
        screen.write([line(f"… what was said before #{request.choice.at} is not shown", Style.FAINT)])
    screen.flush()
    playback = Playback(request.choice, FULL if request.full else BRIEF)
    seams = Seams(row)
    _play(_records_of(archive, row, request, seams), row, request, screen=screen, playback=playback)
    newest = _held(archive, row, request, seams)
    screen.write([EMPTY, *seams.verdict_lines(), *verdict_lines(seams.corrected(newest).to_json())])
    return _found(row, request.choice, playback) or _soundness(seams)


def _play(records: Records, row: SessionRow, request: Request, *, screen: Screen, playback: Playback) -> None:
    # A pattern must find what a preview would have cut.
    limits = FULL if request.full or request.choice.pattern is not None else BRIEF
    transcript = Transcript(limits, protocol=row.protocol)
    pace = Pace(request.speed)

    def show(blocks: Iterable[Block]) -> None:
        for block in blocks:
            lines = playback.lines(block)
            if lines:
                pace.keep(block.time_ns, screen.flush)
                screen.write(lines)

    def idle() -> None:
        show(transcript.pending())
        screen.flush()

    try:
        for record in records(idle):
            show(transcript.feed(record))
    except EncryptedError:  # nothing is wrong with it
        idle()
        raise
    except CapdError as error:
        idle()
        screen.write([line(f"! the recording is damaged from here on: {error}", Style.BAD)])
        screen.write([line("  the verdict above was drawn when it was recorded, and does not hold", Style.BAD)])
        screen.flush()
        raise
    except KeyboardInterrupt:
        if not request.follow:
            raise
    idle()


def _found(row: SessionRow, choice: Choice, playback: Playback) -> int:
    if choice.at is not None and choice.at >= row.messages and not playback.shown:
        click.echo(f"capd: there is no message #{choice.at}; the session has {row.messages} so far, counted from #0", err=True)
        return ExitStatus.NEGATIVE
    if choice.pattern is not None and not playback.shown:
        click.echo("capd: nothing matches", err=True)
        return ExitStatus.NEGATIVE
    return ExitStatus.OK


def _held(archive: Readable, row: SessionRow, request: Request, seams: Seams) -> SessionRow:
    """Give what finds the session by now: its end, or a finding after that, may have come while it was read."""
    if request.reads_all and not seams.ended:
        return row  # what ended since is not called complete: the end of it was not shown
    newest = archive.index.session(row.session)
    if seams.better:
        seams.hold(newest)
    return newest


def _soundness(seams: Seams) -> int:
    return ExitStatus.OK if seams.sound else ExitStatus.NEGATIVE


def write_json(archive: Readable, row: SessionRow, request: Request) -> int:
    """Write one JSON object a record; gives the exit status."""
    screen = standard_output()
    pace = Pace(request.speed)
    choice = request.choice
    begun = choice.at is None
    shown = 0
    seams = Seams(row)
    try:
        for record in _records_of(archive, row, request, seams)(screen.flush):
            begun = begun or (record.kind is Kind.MESSAGE and (facts.number(record.body, "ordinal") or 0) >= (choice.at or 0))
            if record.kind is not Kind.GAP and not (begun and _chosen(record, choice)):
                continue
            pace.keep(record.time_ns, screen.flush)
            screen.write_json(to_json(as_json(record)))
            shown += record.kind is not Kind.GAP
    except KeyboardInterrupt:
        if not request.follow:
            raise
    _held(archive, row, request, seams)
    say_unsound(seams)
    if not shown and (choice.pattern is not None or choice.at is not None):
        return ExitStatus.NEGATIVE
    return _soundness(seams)


def _chosen(record: Record, choice: Choice) -> bool:
    if choice.direction is not None and record.direction not in {None, choice.direction}:
        return False
    return choice.pattern is None or bool(
        choice.pattern.found(part for word in words_of(record.body) for part in word.split("\n"))
    )


def write_raw(archive: Readable, row: SessionRow, request: Request) -> int:
    """Write the application bytes of one direction and nothing else; gives the exit status, 1 if a byte is missing."""
    direction = _only_direction(row, request)
    if sys.stdout.isatty() and not request.force:
        raise CorrectedUsageError(
            "raw bytes can take over a terminal; write them to a file or a pipe, or add --force",
            f"capd replay {row.session} --format raw --direction {direction.name.lower()} > {direction.name.lower()}.bin",
        )
    output = sys.stdout.buffer
    stream, seams = RawStream(direction, from_start=request.from_ns is None), Seams(row)
    holes = 0
    try:
        for record in _records_of(archive, row, request, seams)(output.flush):
            if record.body.get("reason") == GONE:
                continue  # the stream finds where it jumps, and names both ends
            for part in stream.feed(record):
                if isinstance(part, Hole):
                    holes += 1
                    click.echo(visible(f"capd: not whole: {part.words}"), err=True)
                else:
                    output.write(part)
    except KeyboardInterrupt:
        if not request.follow:
            raise
    output.flush()
    if stream.masked:
        words = f"{stream.masked:,} byte{'' if stream.masked == 1 else 's'} masked before they were stored, written as *"
        click.echo(f"capd: not exact: {words}", err=True)
    for words in (words for words in row.policy if words.endswith(UNRECORDED)):
        click.echo(f"capd: not whole: {words}", err=True)
        holes += 1
    if row.verdict == "opaque":
        reasons = "; ".join(row.reasons) or "what was said could not be read"
        click.echo(visible(f"capd: not whole: {reasons}"), err=True)
        holes += 1
    _held(archive, row, request, seams)
    say_unsound(seams)
    return ExitStatus.NEGATIVE if holes else _soundness(seams)


def write_form(form: str) -> Writer:
    """Give what writes a session in a form for other tools."""

    def write(archive: Readable, row: SessionRow, request: Request) -> int:
        from capd.cli.forms.spoken import Spoken  # noqa: PLC0415 - who reads a transcript must not pay for it
        from capd.cli.forms.writing import pieces  # noqa: PLC0415 - as above

        seams = Seams(row)

        def records() -> Iterator[Record]:
            found = archive.records(row.session, from_ns=request.from_ns, until_ns=request.until_ns)
            return found if request.from_ns is not None else seams.follow(found, to_end=request.until_ns is None)

        spoken = Spoken(row=row, records=records)
        for piece in pieces(form, [spoken], FULL if request.full else BRIEF):
            sys.stdout.buffer.write(piece)
        sys.stdout.buffer.flush()
        _held(archive, row, request, seams)
        say_unsound(seams)
        return _soundness(seams)

    return write


def _only_direction(row: SessionRow, request: Request) -> Direction:
    if request.choice.direction is not None:
        return request.choice.direction
    spoken = [direction for direction in Direction if row.bytes[direction]]
    if len(spoken) == 1:
        return spoken[0]
    raise CorrectedUsageError(
        "--format raw writes one direction; say which",
        f"capd replay {row.session} --format raw --direction response  (or request)",
    )


def _records_of(archive: Readable, row: SessionRow, request: Request, seams: Seams) -> Records:
    """Give what reads the session's records, calling a function whenever nothing more is there for now."""

    def read(idle: Callable[[], None]) -> Iterator[Record]:
        def wait() -> bool:
            idle()
            time.sleep(POLL_SECONDS)
            return True

        records = archive.records(
            row.session, follow=request.follow, poll=wait, from_ns=request.from_ns, until_ns=request.until_ns
        )
        # What is before the time that is asked for is not read.
        if request.from_ns is not None:
            return records
        return seams.follow(records, to_end=request.until_ns is None)

    return read
