"""Whether a session is all there: its records followed from first to last, and held against the sums that its end names.

What lives here: following. What must not: where records come from, signatures.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from capd.cli import facts
from capd.cli.seams import is_counted
from capd.cli.verify_report import jumps_of
from capd.recording.record import Direction, Kind, Record


def follow(records: Iterable[Record]) -> tuple[list[str], list[str]]:
    """Give what is wrong with a session, and what is worth knowing and not wrong, in words.

    Raises:
        CapdError: the records cannot be read.
    """
    thread = Thread()
    jumps = jumps_of(thread.follow(records))
    return [*jumps, *thread.problems()], [] if thread.closed else ["it had not ended"]


class Thread:
    """Follows the records of one session from its beginning to its end."""

    def __init__(self) -> None:
        self.closed = False
        self._begun = False
        self._whole = False
        self._ends = dict.fromkeys(Direction, 0)
        self._messages = 0
        self._jumped: list[str] = []
        self._said: list[str] = []

    def follow(self, records: Iterable[Record]) -> Iterator[Record]:
        """Give the records on, and look at them."""
        for record in records:
            if not self._begun and record.kind is not Kind.OPEN:
                self._said.append("its beginning is missing")
            self._begun = True
            self._take(record)
            yield record

    def problems(self) -> Sequence[str]:
        """Give what is wrong, in words."""
        if not self._begun:
            return ["nothing of it is here"]
        return [*self._said, *(self._jumped if self._whole else ())]

    def _take(self, record: Record) -> None:
        body = record.body
        if record.kind in {Kind.DATA, Kind.GAP} and facts.text(body, "layer") in {"", "application"}:
            start = facts.number(body, "position")
            length = len(facts.payload(body, "payload")) or facts.number(body, "length") or 0
            if start is not None and record.direction is not None:
                self._ends[record.direction] = max(self._ends[record.direction], start + length)
        elif record.kind is Kind.MESSAGE:
            ordinal = facts.number(body, "ordinal")
            if ordinal is not None and ordinal != self._messages:
                self._jumped.append(f"messages {self._messages} to {ordinal - 1} are missing")
            self._messages = self._messages + 1 if ordinal is None else ordinal + 1
        elif record.kind is Kind.CLOSE:
            self._close(record)

    def _close(self, record: Record) -> None:
        """Hold what came against the sums of the end, where the session was recorded whole: it says what there must be."""
        self.closed = True
        completeness = facts.mapping(record.body, "completeness")
        self._whole = is_counted(completeness)
        moved = facts.mapping(record.body, "bytes")
        for direction, end in self._ends.items():
            total = facts.number(moved, direction.name.lower())
            if total is not None and total != end:
                self._jumped.append(f"{direction.name.lower()}: {end:,} bytes of {total:,} are here")
        messages = facts.number(record.body, "messages")
        if messages is not None and messages != self._messages:
            self._jumped.append(f"{self._messages:,} messages of {messages:,} are here")
