"""Going again the way from a snapshot to the end of the recording, after the recorder's death.

What lives here: the way, finding that it cannot be gone any more, and what is said then. What must not: what is remembered
(recorder_memory.py).
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Mapping
from dataclasses import dataclass
from uuid import UUID

from capd.daemon.assembly.assembler import Assembler
from capd.daemon.assembly.output import Batch
from capd.daemon.masking.stage import Stage
from capd.daemon.recorder_astray import Astray, Told
from capd.daemon.recorder_cycles import Cycle, Cycles
from capd.daemon.recorder_memory import Steps
from capd.daemon.recorder_witness import RecorderWitness
from capd.recording.journal import JournalDamage, Position
from capd.recording.projection import STILL_OPEN
from capd.recording.record import Kind, Record, Value
from capd.recording.rows import SessionRow


@dataclass(frozen=True, slots=True, kw_only=True)
class After:
    """What records went through after the assembler: masking, then the witness."""

    stage: Stage
    witness: RecorderWitness
    astray: Astray

    def take(self, records: list[Record]) -> None:
        """Take records that are stored already."""
        self.astray.watch(records)
        self.witness.watch_again(self.stage.take(self.witness.observe(records)))

    def cut(self) -> None:
        """Masking let go of what it held."""
        self.witness.watch_again(self.stage.cut())


def go_again(
    cycles: Cycles, assembler: Assembler, after: After, steps: Steps, *, start: Position | None, recorded: Position
) -> Position | None:
    """Bring an assembler from where a snapshot left it to where the recording ends; its records are there already.

    Args:
        cycles: of the journal, from the snapshot on.
        assembler: made from the snapshot.
        after: what its records went through.
        steps: how the recorder went then.
        start: where the snapshot was taken; None: at the journal's beginning.
        recorded: everything that the journal holds before it is in segments.

    Returns:
        Where it stands; None when it could not go the same way, because a power cut took some of the journal.
    """
    if start is not None:
        _end_waiting(start, assembler, after, steps)
    cycles.cut = frozenset(steps.cuts | {recorded})
    cuts = sorted(cycles.cut)
    at = start or Position(0, 0)
    while at < recorded:
        cycle = cycles.next() or cycles.rest()
        if not cycle or _differs(cycle, steps, begins=at in (Position(0, 0), steps.begun)):
            return None
        before, at = at, _step(cycle, assembler, after)
        if bisect_left(cuts, at) > bisect_right(cuts, before):
            return None  # a place that was come to is not there any more
        _end_waiting(at, assembler, after, steps)
    cycles.cut = frozenset()
    return at


def mend(assembler: Assembler, after: After, astray: Mapping[UUID, Told]) -> tuple[list[Record], list[Record]]:
    """Make what is known of sessions that went astray fit what is recorded.

    Returns:
        What is to be stored as it is, and what is to go through masking behind that.
    """
    gaps: list[Record] = []
    batch = Batch()
    there = {session.state.id: session for _, session in assembler.table.items()}
    for identity, told in astray.items():
        after.witness.watch_again(after.stage.give_up(identity))
        if identity in there:
            gaps += after.astray.mend(there[identity], told, batch)
    return gaps, batch.records


def abandoned(row: SessionRow) -> Record:
    """Give the end of a session of which only the index knows any more."""
    body: dict[str, Value] = {
        "state": "abandoned",
        "bytes": {"request": row.bytes[0], "response": row.bytes[1]},
        "messages": row.messages,
        "completeness": {
            "verdict": "partial",
            "reasons": [*(reason for reason in row.reasons if reason != STILL_OPEN), "the recorder lost its state"],
        },
    }
    return Record(Kind.CLOSE, row.session, row.last_ns, None, body)


def _end_waiting(at: Position, assembler: Assembler, after: After, steps: Steps) -> None:
    """Do what was done at a position besides taking blocks."""
    if at in steps.settled:
        after.take(assembler.settle().records)
    if at in steps.let_go:
        after.cut()


def _differs(cycle: Cycle, steps: Steps, *, begins: bool) -> bool:
    """Tell whether it was not this that was met then; `begins`: it is the first of the journal."""
    if isinstance(cycle, JournalDamage):
        return (cycle.position, cycle.next) not in steps.damages
    return begins and cycle[0].position != (steps.begun or Position(0, 0))


def _step(cycle: Cycle, assembler: Assembler, after: After) -> Position:
    if isinstance(cycle, JournalDamage):
        after.take(assembler.damaged().records)
        return cycle.next
    for batch in assembler.process(cycle):
        after.take(batch.records)
    return cycle[-1].next
