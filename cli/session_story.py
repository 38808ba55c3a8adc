"""What `capd show` tells of a session besides its head: TLS and ties, gaps, markers, counts.

What lives here: records in, facts and lines out. What must not: what was said.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Final

from capd.cli import facts, moments
from capd.cli.decision import decision_line
from capd.cli.line import Line, Span, Style
from capd.cli.record_json import Json, as_json
from capd.cli.transcript import gap_line, marker_words
from capd.recording.record import Direction, Kind, Record

# More than a person reads; --json has as many.
EVENTS_KEPT_MAX: Final = 1000
EVENTS_SHOWN_MAX: Final = 40


class Story:
    """Gathers what is worth telling from the records of a session. Bounded whatever the session holds."""

    def __init__(self) -> None:
        self._events: list[Record] = []
        self._decisions: list[Record] = []
        self._dropped = 0
        self._ties: Counter[str] = Counter()
        self._wire: Counter[Direction] = Counter()
        self._kinds: Counter[Kind] = Counter()
        self._gaps = 0

    def feed(self, record: Record) -> None:
        """Take the next record."""
        self._kinds[record.kind] += 1
        if record.kind is Kind.DATA and record.direction is not None:
            tie = facts.text(record.body, "tie")
            if tie:
                self._ties[tie] += 1
            if facts.text(record.body, "layer") == "wire":
                self._wire[record.direction] += len(facts.payload(record.body, "payload"))
        if record.kind is Kind.VERDICT and len(self._decisions) < EVENTS_KEPT_MAX:
            self._decisions.append(record)
        if record.kind in {Kind.GAP, Kind.MARKER}:
            self._gaps += record.kind is Kind.GAP
            if len(self._events) < EVENTS_KEPT_MAX:
                self._events.append(record)
            else:
                self._dropped += 1

    def as_json(self) -> dict[str, Json]:
        """Give the facts as `show --json` adds them to a session."""
        return {
            "ties": dict(self._ties),
            "gaps": [as_json(record) for record in self._events if record.kind is Kind.GAP],
            "gaps_total": self._gaps,
            "markers": [as_json(record) for record in self._events if record.kind is Kind.MARKER],
            "decisions": [as_json(record) for record in self._decisions],
            "records": {kind.name.lower(): count for kind, count in self._kinds.items()},
            "wire_bytes": {direction.name.lower(): self._wire[direction] for direction in Direction},
        }

    def _decided(self) -> Iterator[Line]:
        label = "decisions "
        for record in self._decisions[:EVENTS_SHOWN_MAX]:
            yield (
                Span(label, Style.FAINT),
                Span(moments.clock(record.time_ns) + "  ", Style.FAINT),
                *decision_line(record.body),
            )
            label = " " * len(label)
        hidden = self._kinds[Kind.VERDICT] - EVENTS_SHOWN_MAX
        if hidden > 0:
            yield (Span(f"{label}… {hidden:,} more", Style.FAINT),)

    def lines(self) -> Iterator[Line]:
        """Give one line for each gap and marker, in order, and sums."""
        if self._ties:
            ties = ", ".join(f"{count:,} {tie}" for tie, count in self._ties.items())
            yield (Span("ties      ", Style.FAINT), Span(f"{ties} (records of plaintext by how their socket is known)"))
        if self._wire:
            kept = ", ".join(f"{count:,} of the {direction.name.lower()}" for direction, count in self._wire.items())
            yield (Span("wire      ", Style.FAINT), Span(f"{kept} (bytes kept as evidence as they were on the wire)"))
        yield from self._decided()
        label = "events    "
        for record in self._events[:EVENTS_SHOWN_MAX]:
            yield (Span(label, Style.FAINT), Span(moments.clock(record.time_ns) + "  ", Style.FAINT), *_event(record))
            label = " " * len(label)
        hidden = len(self._events) + self._dropped - EVENTS_SHOWN_MAX
        if hidden > 0:
            yield (Span(f"{label}… {hidden:,} more", Style.FAINT),)


def _event(record: Record) -> Line:
    if record.kind is Kind.MARKER and facts.text(record.body, "name") == "witness":
        style = Style.BAD if record.body.get("alarm") is True else Style.DOUBTFUL
        return (Span(f"WITNESS {facts.text(record.body, 'finding')}", style),)
    if record.kind is Kind.GAP:
        return gap_line(record.direction, record.body, layer=facts.text(record.body, "layer"))
    return (Span(marker_words(record.body)),)
