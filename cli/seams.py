"""Whether what is read of a session is what was recorded: all of it, and with the verdict that it was recorded with.

What lives here: finding where records do not go on from each other, with a GAP record for each, and where an index is not what
the records say. What must not: what a reader makes of it.

The verdict on a session is of when it was recorded. A segment that was removed since leaves no gap of its own; an index knows
that there was one, but where it was made of what is left, nobody does. Positions tell: they have no holes. The end tells as
well: the index has it, or the record of it. Nobody signs an index, so where it says more than the records it is not believed.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Final

import click

from capd.cli import facts
from capd.cli.facts import Facts
from capd.cli.line import Line, Style, line
from capd.cli.raw_stream import OFF
from capd.recording.holes import EXPIRED, MISSING_SEGMENT
from capd.recording.record import Direction, Kind, Record, Value

if TYPE_CHECKING:
    from capd.recording.rows import SessionRow

GONE: Final = "it was recorded, and is not here any more"
"""Reason of the gap."""
COMPLETE: Final = "complete"
PARTIAL: Final = "partial"
NOT_RECORDED: Final = "not recorded"
"""Begins what a session's end says of a time in which nothing was (daemon/masking/tally.py)."""
VERDICTS: Final = {COMPLETE: 0, PARTIAL: 1, "opaque": 2}
"""The better the lower."""


class Seams:
    """Follows the records of one session from its beginning."""

    def __init__(self, row: SessionRow | None = None) -> None:
        """Begin.

        Args:
            row: what an index, or a catalogue, has of the session; None: nothing is held against it.
        """
        self.missing = False
        """Whether something was recorded that is not here."""
        self.better = ""
        """The verdict of the records, if the one of the index is better."""
        self.ended = False
        """Whether the record of its end was met."""
        self._row = row
        self._verdict: str | None = None
        self._reasons: list[str] = []
        self._messages = 0
        self._jumped = False
        self._let_go = False
        self._off = False
        self._next: dict[Direction, int | None] = dict.fromkeys(Direction, 0)

    @property
    def sound(self) -> bool:
        """Whether all that was recorded is here, and the verdict on it is what was recorded."""
        return not self.missing and not self.better

    def follow(self, records: Iterable[Record], *, to_end: bool = True) -> Iterator[Record]:
        """Give the records, and a gap where one does not go on where those before it ended.

        Args:
            records: of the session, from its first on.
            to_end: whether they are all that there are.
        """
        for record in records:
            if record.kind is Kind.OPEN:
                self._open(record)
            elif record.kind is Kind.MESSAGE:
                self._message(record)
            elif record.kind is Kind.MARKER:
                self._marker(record)
            elif record.kind is Kind.CLOSE:
                yield from self._close(record)
            elif facts.text(record.body, "layer") in {"", "application"}:
                if record.kind is Kind.GAP:
                    self._gap(record)
                elif record.kind is Kind.DATA and record.direction is not None:
                    yield from self._data(record, record.direction)
            yield record
        if to_end and self._row is not None and not (self._let_go or self._row.expired):
            self.hold(self._row)

    def corrected(self, row: SessionRow) -> SessionRow:
        """Give what finds the session with the verdict that its records have, where that is worse."""
        return replace(row, verdict=self.better, reasons=self._reasons) if self.better else row

    def verdict_lines(self) -> list[Line]:
        """Give what stands above the verdict where it does not hold any more."""
        found = []
        if self.missing:
            words = "not all that was recorded is here any more; the verdict is of when it was recorded"
            found.append(line(f"NOT WHOLE HERE  {words}", Style.BAD))
        if self.better:
            words = "what finds it here told a better verdict than its records, and nobody signed that; the verdict is theirs"
            found.append(line(f"NOT AS RECORDED  {words}", Style.BAD))
        return found

    def hold(self, row: SessionRow) -> None:
        """Hold what finds the session, as it is now, against its own records, once these were followed to their end."""
        self.better = ""
        if self._verdict is None:
            self.missing = self.missing or row.ended_ns is not None
        elif VERDICTS.get(row.verdict or "", 0) < VERDICTS.get(self._verdict, 0):
            self.better = self._verdict

    def _marker(self, record: Record) -> None:
        if facts.text(record.body, "name") == "recording":
            if self._off:  # what was said meanwhile was not recorded
                self._next = dict.fromkeys(Direction, None)
            self._off = facts.text(record.body, "level") == OFF
        if facts.text(record.body, "name") == "witness" and facts.flag(record.body, "alarm") and self._verdict == COMPLETE:
            self._verdict, self._reasons = PARTIAL, [facts.text(record.body, "finding")]  # found after its end

    def _message(self, record: Record) -> None:
        ordinal = facts.number(record.body, "ordinal")
        if ordinal is not None:
            self._jumped = self._jumped or ordinal > self._messages
            self._messages = max(self._messages, ordinal + 1)

    def _close(self, record: Record) -> Iterator[Record]:
        """Take the verdict; of a session that was recorded whole the end says what there must be."""
        completeness, moved = facts.mapping(record.body, "completeness"), facts.mapping(record.body, "bytes")
        self._verdict = facts.text(completeness, "verdict") or PARTIAL
        self._reasons = [facts.text_of(reason) for reason in facts.sequence(completeness, "reasons")]
        self.ended = True
        if self._let_go or not is_counted(completeness):
            return
        for direction, at in self._next.items():
            total = facts.number(moved, direction.name.lower())
            if at is not None and total is not None and total > at:
                yield self._lost(record, direction, at, total)
        self.missing = self.missing or self._jumped or (facts.number(record.body, "messages") or 0) > self._messages

    def _lost(self, record: Record, direction: Direction, start: int, end: int) -> Record:
        self.missing = True
        body: dict[str, Value] = {"position": start, "length": end - start, "layer": "application", "reason": GONE}
        self._next[direction] = end
        return Record(Kind.GAP, record.session, record.time_ns, direction, body)

    def _open(self, record: Record) -> None:
        if facts.flag(record.body, "mid_stream"):
            self._next = {direction: at or None for direction, at in self._next.items()}

    def _gap(self, record: Record) -> None:
        position, length = facts.number(record.body, "position"), facts.number(record.body, "length")
        end = None if position is None or length is None else position + length
        for direction in Direction if record.direction is None else (record.direction,):
            self._next[direction] = end
        self.missing = self.missing or facts.number(record.body, MISSING_SEGMENT) is not None
        self._let_go = self._let_go or facts.flag(record.body, EXPIRED)

    def _data(self, record: Record, direction: Direction) -> Iterator[Record]:
        position, expected = facts.number(record.body, "position"), self._next[direction]
        if position is None:
            return
        if expected is not None and position > expected:
            yield self._lost(record, direction, expected, position)
        payload = facts.payload(record.body, "payload")
        end = position + (len(payload) or facts.number(record.body, "length") or 0)
        self._next[direction] = max(end, expected or 0)


def is_counted(completeness: Facts) -> bool:
    """Tell whether the sums of a session's end are those of its records: nothing was lost, and at no time was the level `off`.

    What is masked keeps its length, and so does, without a payload, what the level `metadata` leaves out.
    """
    kept = not any(facts.text_of(words).startswith(NOT_RECORDED) for words in facts.sequence(completeness, "policy"))
    return kept and facts.text(completeness, "verdict") == COMPLETE


def say_unsound(seams: Seams, what: str = "") -> None:
    """Say on standard error what stands in no form for other programs; `what`: of whom it is, in words."""
    for told in seams.verdict_lines():
        click.echo(f"capd: {what}" + "".join(span.text for span in told), err=True)
