"""What a configuration would hide in bytes that somebody has in a file.

What lives here: the way through the same decoder, records and stage as in the recorder. What must not: another way.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final
from uuid import UUID

from capd.daemon.assembly.decoding import Decoding
from capd.daemon.assembly.messages import MessageWriter
from capd.daemon.assembly.output import Batch
from capd.daemon.assembly.state import SessionState
from capd.daemon.masking.levels import Levels
from capd.daemon.masking.stage import Stage
from capd.decoders.registry import decoder_for
from capd.enforcer.masking.place import Place
from capd.enforcer.masking.rules import Rules
from capd.recording.record import Direction, Kind, Record, Value

PIECE_BYTES: Final = 64 * 1024
NOBODY: Final = UUID(int=0)


def trial(data: bytes, *, rules: Rules, direction: Direction, protocol: str | None) -> tuple[str, list[Place]]:
    """Give the protocol that the bytes were taken for, and what would be masked in them: all of them, where masking fails.

    Args:
        data: one direction of a conversation, from its beginning.
        rules: of a configuration.
        direction: who says it.
        protocol: which protocol it is; None: find out.
    """
    state = SessionState(id=NOBODY, socket=1, stream=0, run=1, started_ns=0, last_ns=0, active_ns=0, process=(1, 1))
    stage = Stage(rules, Levels())
    places: list[Place] = []
    close: dict[str, Value] = {"state": "closed", "completeness": {"verdict": "complete", "reasons": []}}
    for records in (*_records(data, state, direction, protocol), [Record(Kind.CLOSE, NOBODY, 0, None, close)]):
        places += [found for stored in stage.take(records) for found in _places(stored)]
    if stage.failures.count:  # nothing that was said is stored of such a session
        places = [Place(0, len(data), "undecided", "masking failed, a defect of capd; please report it with this file's form")]
    return state.protocol or "unknown", places


def _records(data: bytes, state: SessionState, direction: Direction, protocol: str | None) -> Iterator[list[Record]]:
    """Give the records of each piece together, as those of a cycle are."""
    decoding, writer = Decoding(state), MessageWriter(state)
    records = [Record(Kind.OPEN, NOBODY, 0, None, {})]
    if protocol is not None:
        state.protocol, decoding.decided, decoding.decoder = protocol, True, decoder_for(protocol)
        records.append(_known(protocol))
    told = state.protocol
    for at in [*range(0, len(data), PIECE_BYTES), len(data)]:
        piece = data[at : at + PIECE_BYTES]
        if piece:
            records.append(Record(Kind.DATA, NOBODY, 0, direction, {"position": at, "payload": piece}))
        batch = Batch()
        for decoded in [*decoding.feed(direction, piece), *(decoding.finish() if not piece else ())]:
            writer.take(decoded, 0, batch)
        writer.flush(batch)
        if state.protocol != told:
            told = state.protocol
            records.append(_known(told))
        yield [*records, *batch.records]
        records = []


def _known(protocol: str | None) -> Record:
    return Record(Kind.MARKER, NOBODY, 0, None, {"name": "protocol", "protocol": protocol})


def _places(record: Record) -> Iterator[Place]:
    if record.kind is not Kind.MASKED:
        return
    kind, rule, spans = (record.body.get(name) for name in ("kind", "rule", "places"))
    for span in spans if isinstance(spans, list) else ():
        position, length = span
        yield Place(position, position + length, str(kind), str(rule))
