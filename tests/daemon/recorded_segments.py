"""Segments as a recorder leaves them, for the shipper.

What lives here: making them. What must not: cases.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from pathlib import Path
from uuid import UUID, uuid4

from capd.recording.journal import Position
from capd.recording.record import Direction, Kind, Record, Value
from capd.recording.segment.trailer import Signer
from capd.recording.segment.writer import Sealing, SegmentWriter

HOST = UUID("018f0000-0000-7000-8000-00000000c0de")


def seal(
    directory: Path,
    *,
    first: int = 1,
    count: int = 1,
    size: int = 2000,
    host: UUID = HOST,
    clock: Callable[[], int] = time.time_ns,
    seed: int = 0,
    signer: Signer | None = None,
) -> list[Path]:
    """Seal so many segments of about so many bytes that do not compress, the first with a given number."""
    directory.mkdir(parents=True, exist_ok=True)
    bytes_of = random.Random(f"{seed} {first}")
    position = Position(0, first * 1000)
    made = []
    writer = SegmentWriter(directory, host=host, clock=clock, sequence=first, position=position, sealing=Sealing(signer=signer))
    for number in range(first, first + count):
        body: dict[str, Value] = {"position": 0, "layer": "application", "payload": bytes_of.randbytes(size)}
        writer.append([Record(Kind.DATA, uuid4(), clock(), Direction.REQUEST, body)])
        writer.flush(Position(0, number * 1000 + 1))
        path = writer.seal({})
        assert path is not None
        made.append(path)
    writer.close()
    return made
