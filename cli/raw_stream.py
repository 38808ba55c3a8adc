"""The exact application bytes of one direction, and what is missing from them.

What lives here: records in, bytes and holes out. What must not: output, decoding.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from capd.cli import facts
from capd.recording.record import Direction, Kind, Record

APPLICATION: Final = frozenset({"", "application"})
OFF: Final = "off"
"""The level at which nothing is recorded of a session but that."""
LEFT_OUT: Final = "not recorded: recording level metadata"
"""Said of bytes whose record has a length and no payload."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Hole:
    """Bytes that belong into the stream and are not there.

    Attributes:
        words: what is missing, where and why.
        by_level: whether the recording level left them out, which is no loss.
    """

    words: str
    by_level: bool = False


class RawStream:
    """Follows one direction of a session record by record.

    A hole is told whether a GAP record says it or the positions of the data do: a missing record must not go unnoticed either.
    """

    def __init__(self, direction: Direction, *, from_start: bool) -> None:
        self._direction = direction
        self._expected: int | None = 0 if from_start else None
        self._judges_start = from_start
        self._off = False
        self.masked = 0
        """Bytes that were hidden before they were stored."""

    def feed(self, record: Record) -> list[bytes | Hole]:
        """Take the next record; give what it adds to the stream."""
        if record.kind is Kind.OPEN:
            late = self._judges_start and facts.flag(record.body, "mid_stream")
            self._judges_start = self._judges_start and not late
            return [Hole(words="what was said before capture began is missing")] if late else []
        if record.kind is Kind.MARKER and facts.text(record.body, "name") == "recording":
            self._level(facts.text(record.body, "level"))
            return []
        if record.direction not in {None, self._direction} or facts.text(record.body, "layer") not in APPLICATION:
            return []
        if record.kind is Kind.GAP:
            return [self._gap(record)]
        if record.kind is Kind.MASKED:
            spans = [facts.sequence_of(place) for place in facts.sequence(record.body, "places")]
            self.masked += sum(span[-1] for span in spans if span and isinstance(span[-1], int))
            return []
        return self._data(record) if record.kind is Kind.DATA and record.direction is self._direction else []

    def _level(self, level: str) -> None:
        """Behind a time in which nothing was recorded nobody knows where it goes on."""
        self._expected = None if self._off else self._expected
        self._off = level == OFF

    def _gap(self, record: Record) -> Hole:
        position, length = facts.number(record.body, "position"), facts.number(record.body, "length")
        self._expected = None if length is None or position is None else position + length
        missing = "an unknown number of bytes" if length is None else f"{length:,} bytes"
        place = "" if position is None else f" at byte {position:,}"
        return Hole(words=f"{missing} missing{place}: {facts.text(record.body, 'reason') or 'unknown'}")

    def _data(self, record: Record) -> list[bytes | Hole]:
        payload = facts.payload(record.body, "payload")
        position = facts.number(record.body, "position")
        left_out = facts.number(record.body, "length")
        expected = self._expected
        if left_out and not payload:
            self._expected = None if position is None else position + left_out
            hole = Hole(words=f"{left_out:,} bytes {LEFT_OUT}", by_level=True)
            jumps = position is not None and expected is not None and position > expected
            return [self._jump(expected or 0, position or 0), hole] if jumps else [hole]
        if position is None or expected is None or position == expected:
            start = expected if position is None else position
            self._expected = None if start is None else start + len(payload)
            return [payload] if payload else []
        jump = self._jump(expected, position)
        # What is told twice is written once.
        fresh = payload[max(expected - position, 0) :]
        self._expected = max(expected, position + len(payload))
        return [jump, fresh] if fresh else [jump]

    @staticmethod
    def _jump(expected: int, position: int) -> Hole:
        return Hole(words=f"the recording jumps from byte {expected:,} to byte {position:,} and does not say why")
