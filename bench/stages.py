"""Where the recorder's time goes: the same journals as recorder.py, stage by stage, the best of several rounds.

A round is short and the best of many is told, so that a machine which is busy elsewhere gives nearly the same figures.

Run: PYTHONPATH=src:. python -P bench/stages.py [http|postgresql] [rounds]
"""

from __future__ import annotations

import gc
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final, TypeVar
from uuid import UUID

from bench.recorder import PG_READY, PG_START, conversations, http, postgresql, write_journal

from capd.daemon.assembly.assembler import Assembler
from capd.daemon.assembly.sessions import Origin
from capd.daemon.recorder_cycles import Cycles
from capd.daemon.recorder_role import COLLECT_AFTER
from capd.decoders.message import NEED_DATA, Direction
from capd.decoders.registry import decoder_for
from capd.recording.index import Index
from capd.recording.journal import Block, JournalReader
from capd.recording.projection import Projection
from capd.recording.record import Kind
from capd.recording.segment.writer import SegmentWriter
from tests.assembly.world import HOST

EXCHANGES: Final = 4_000
ROUNDS: Final = 10
GREETINGS: Final = {"http": None, "postgresql": (PG_START, PG_READY)}
PROTOCOLS: Final = {"http": (http, 80, "http1"), "postgresql": (postgresql, 5432, "postgresql")}
Result = TypeVar("Result")


class Stages:
    """CPU seconds of this thread by stage."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    def timed(self, stage: str, work: Callable[..., Result], *arguments: object) -> Result:
        """Do something and count its time."""
        began = time.thread_time()
        result = work(*arguments)
        self.seconds[stage] = self.seconds.get(stage, 0.0) + time.thread_time() - began
        return result


def decode(name: str) -> None:
    """Only decode what the journal's sessions say, as one session."""
    exchange, _, protocol = PROTOCOLS[name]
    decoder = decoder_for(protocol)
    assert decoder is not None, "a case is of a protocol that is decoded"
    greeting = GREETINGS[name]
    pairs = [greeting] if greeting else []
    pairs += [exchange(number) for number in range(EXCHANGES)]
    for pair in pairs:
        for direction in Direction:
            decoder.receive(direction, pair[direction])
            while decoder.next_event() is not NEED_DATA:
                pass


def cycles(journal: Path) -> Iterator[list[Block]]:
    """Give a journal's cycles."""
    found = Cycles(JournalReader(journal, None))
    while cycle := found.next():
        assert isinstance(cycle, list), "nobody damaged the journal"
        yield cycle
    yield found.rest()


def one_round(name: str, journal: Path, directory: Path) -> tuple[dict[str, float], int]:
    """Work a journal off. Gives seconds by stage and the number of messages."""
    stages, messages = Stages(), 0
    stages.timed("decoding", decode, name)
    assembler = Assembler(origin=Origin(host=HOST, boot=UUID(int=1)), history=lambda _: iter(()), user_name=lambda _: None)
    writer = SegmentWriter(directory / "segments", host=HOST, clock=time.time_ns)
    with Index.open(directory / "index.db") as index:
        projection = Projection(load_session=index.find_session, load_run=index.find_run)
        for cycle in cycles(journal):
            batches = assembler.process(cycle)
            while batch := stages.timed("assembly, with decoding", next, batches, None):
                stages.timed("packing", writer.append, batch.records)
                stages.timed("rows", projection.receive, batch.records)
                messages += sum(record.kind is Kind.MESSAGE for record in batch.records)
            stages.timed("compression, files", writer.flush, cycle[-1].next)
            changes = stages.timed("rows", projection.changes)
            stages.timed("index", index.apply, changes)
            stages.timed("index", index.commit)
    writer.close()
    return stages.seconds, messages


def measure(name: str, rounds: int) -> None:
    """Print microseconds of one core for each message."""
    exchange, port, _ = PROTOCOLS[name]
    root = Path(tempfile.mkdtemp(prefix="capd-bench-"))
    events = conversations(exchange, port, GREETINGS[name], exchanges=EXCHANGES)
    write_journal(root / "journal", events)
    gc.freeze()
    gc.set_threshold(*COLLECT_AFTER)
    best: dict[str, float] = {}
    messages = 0
    for number in range(rounds):
        seconds, messages = one_round(name, root / "journal", root / str(number))
        best = {stage: min(value, best.get(stage, value)) for stage, value in seconds.items()}
    shutil.rmtree(root)
    decoding = best.pop("decoding")
    print(f"{name}: {sum(best.values()) / messages * 1e6:.1f} µs a message; decoding alone {decoding / messages * 1e6:.1f}")
    for stage, value in best.items():
        print(f"  {stage:24} {value / messages * 1e6:6.1f}")


if __name__ == "__main__":
    for case in sys.argv[1:2] or PROTOCOLS:
        measure(case, int(sys.argv[2]) if len(sys.argv) > 2 else ROUNDS)
