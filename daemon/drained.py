"""Up to when all that the probes told is in the journal: what the daemon says of it, and the recorder goes by.

What lives here: that word, its file, when it counts. What must not: draining (drain.py), what follows from it (witness/).

A journal in which nothing comes may be that of agents that are silent, of a daemon that is busy, or of none: what the probes
tell then waits in their rings. So nobody takes silence for an answer.
"""

from __future__ import annotations

import json
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

from capd.recording.durable import read_regular, replace_content
from capd.recording.journal import Position

BYTES_MAX: Final = 4096
"""Of the file: three numbers and their names take a hundred."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Drained:
    """All that was in the rings at a time is in the journal before a position, or lost and noted there.

    Attributes:
        realtime_ns: the time, on the wall clock.
        file, offset: the position.
    """

    realtime_ns: int
    file: int
    offset: int

    def read_ns(self, position: Position) -> int:
        """Give up to when all was read by one who has read up to there; 0: nobody knows."""
        return self.realtime_ns if position >= Position(self.file, self.offset) else 0


NEVER: Final = Drained(realtime_ns=0, file=0, offset=0)


def tell(path: Path, drained: Drained) -> None:
    """Write it down. Where that fails the word before stands: what is judged by it is judged later."""
    with suppress(OSError):
        replace_content(path, json.dumps(asdict(drained)).encode(), mode=0o644, sync=False)


def told(path: Path) -> Drained:
    """Read what a daemon said last; never, when nothing can be read."""
    try:
        found = json.loads(read_regular(path, BYTES_MAX))
        return Drained(realtime_ns=int(found["realtime_ns"]), file=int(found["file"]), offset=int(found["offset"]))
    except (OSError, ValueError, KeyError, TypeError):
        return NEVER
