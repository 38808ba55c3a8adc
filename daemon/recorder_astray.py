"""Sessions whose decoder could not be brought to where it was, on the way that a dead recorder went: it gave other messages.

What lives here: finding them, and making what is known of them fit what is recorded. What must not: the way
(recorder_resumption.py), how a decoder is built anew (assembly/).

What is recorded of a session may be out of reach: its local copies are released, their keys gone, or it said too much to read
it all again. Its decoder then finds its place again, as it says. Where that happens behind the end of the recording, all is
well. Before that, other messages come of the bytes than those that are recorded, and masking holds and gives other bytes than
it did. Nobody can say what the dead recorder held. So all that is not recorded is told as missing, the decoder finds its place
where the recording ends, and messages go on behind those that are recorded.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, cast
from uuid import UUID

from capd.daemon.assembly.assembler import Assembler
from capd.daemon.assembly.output import Batch
from capd.daemon.assembly.recorded import APPLICATION
from capd.daemon.assembly.session import Session
from capd.daemon.masking.stage import Stage
from capd.recording.errors import CorruptSegmentError, EncryptedError
from capd.recording.record import SIDES, Kind, Record, Value
from capd.recording.segment import SegmentReader
from capd.recording.segment.cipher import Keys
from capd.recording.segment.layout import SEALED_SUFFIX, sequence_of

RESTARTED: Final = "the recorder was restarted"
"""Reason of the gap."""
RESUMED: Final = "resumed"
Stream = tuple[int, str]
"""Direction and layer."""


@dataclass(slots=True)
class Told:
    """What some records tell of a session.

    Attributes:
        begins, ends: positions of the first and behind the last of the bytes and gaps, by stream.
        first: ordinal of the first message; None: there is none.
        messages: ordinal behind the last.
        exchange: the highest.
        resumed: where the decoder found its place by itself for the first time; None: it did not.
        gaps: how many.
        left: those that an earlier restart left.
    """

    begins: dict[Stream, int] = field(default_factory=dict)
    ends: dict[Stream, int] = field(default_factory=dict)
    first: int | None = None
    messages: int = 0
    exchange: int = -1
    resumed: list[object] | None = None
    gaps: int = 0
    left: list[tuple[int, int]] = field(default_factory=list)

    def take(self, record: Record) -> None:
        """Take the next record of the session."""
        body = record.body
        if record.kind is Kind.MESSAGE and isinstance(ordinal := body.get("ordinal"), int):
            self.first = ordinal if self.first is None else self.first
            self.messages = max(self.messages, ordinal + 1)
            self.exchange = max(self.exchange, exchange if isinstance(exchange := body.get("exchange"), int) else -1)
        elif record.kind is Kind.MARKER and body.get("name") == RESUMED and self.resumed is None:
            self.resumed = list(cast("Iterable[object]", body.get("base") or ()))
        elif record.kind in (Kind.DATA, Kind.GAP) and record.direction is not None:
            self._moved(record, int(record.direction))

    def _moved(self, record: Record, direction: int) -> None:
        body, payload = record.body, record.body.get("payload")
        length = body.get("length", len(payload) if isinstance(payload, bytes) else None)
        position, size = body.get("position"), length if isinstance(length, int) else 0
        if not isinstance(position, int):
            return
        stream = direction, str(body.get("layer", APPLICATION))
        self.begins.setdefault(stream, position)
        self.ends[stream] = max(self.ends.get(stream, 0), position + size)
        if record.kind is Kind.GAP:
            self.gaps += 1
            if body.get("reason") == RESTARTED:
                self.left.append((direction, size))


class Astray:
    """Watches the sessions on the way."""

    def __init__(self, assembler: Assembler, stage: Stage) -> None:
        """Begin where the snapshot was taken."""
        self._stage = stage
        self._met: dict[UUID, Told] = {}
        """What is not recorded at the snapshot, and what the way gives."""
        self._messages: dict[UUID, int] = {}
        self._gaps: dict[UUID, int] = {}
        """How many are recorded at the snapshot."""
        for state in (session.state for _, session in assembler.table.items()):
            identity = state.id
            self.watch(stage.held(identity))
            told = self._met.get(identity)
            held = None if told is None else told.first
            self._messages[identity] = state.messages if held is None else held
            self._gaps[identity] = state.gaps - (0 if told is None else told.gaps)

    def watch(self, records: Iterable[Record]) -> None:
        """Take what the way gives, before masking."""
        for record in records:
            self._met.setdefault(record.session, Told()).take(record)

    def found(self, segments: Path, sequence: int, keys: Keys) -> dict[UUID, Told]:
        """Give the sessions that went astray, each with what is recorded of it from a segment on."""
        resumed = {identity: told.resumed for identity, told in self._met.items() if told.resumed is not None}
        found = {identity: Told() for identity in resumed}
        for record in _recorded(segments, sequence, keys, resumed.keys()):
            found[record.session].take(record)
        return {identity: told for identity, told in found.items() if told.resumed != resumed[identity]}

    def mend(self, session: Session, told: Told, batch: Batch) -> list[Record]:
        """Make what is known of a session fit what is recorded.

        Args:
            session: that went astray.
            told: what is recorded of it.
            batch: gets what the decoder has to say from here on.

        Returns:
            The gaps where bytes are not recorded; masking knows the bytes already.
        """
        state, met = session.state, self._met[session.state.id]
        state.messages = told.messages or self._messages.get(state.id, 0)
        state.exchange_last = max(state.exchange_last, told.exchange)
        for direction, size in told.left:
            state.lose(RESTARTED, direction, size)
        state.gaps = self._gaps.get(state.id, 0) + told.gaps
        gaps = []
        for stream, end in met.ends.items() if self._stage.stores(state.id) else ():
            direction, layer = stream
            begin = told.ends.get(stream, met.begins[stream])
            if begin < end:
                state.lose(RESTARTED, direction, end - begin)
                body: dict[str, Value] = {"position": begin, "length": end - begin, "layer": layer, "reason": RESTARTED}
                gaps.append(Record(Kind.GAP, state.id, state.last_ns, SIDES[direction], body))
        session.find_place(state.last_ns, batch)
        return gaps


def _recorded(segments: Path, sequence: int, keys: Keys, sessions: Iterable[UUID]) -> Iterator[Record]:
    """Give the records of sessions in the segments from a number on. What is damaged is passed over."""
    wanted = set(sessions)
    for path in sorted(segments.iterdir()) if wanted else ():
        if path.suffix == SEALED_SUFFIX and (sequence_of(path) or 0) >= sequence:
            with suppress(CorruptSegmentError, EncryptedError), SegmentReader(path, keys=keys) as reader:
                yield from (record for record in reader.records() if record.session in wanted)
