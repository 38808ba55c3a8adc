"""What of the runs' TLS cannot be read: files that have no probes, and for which run that is a gap.

What lives here: what is remembered of them, bounded; how long files of one owner may be looked through. What must not: looking
(probes), the notes that go into the record (notes.py), clocks: the time comes in.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import Final

GAPS_PER_RUN_MAX: Final = 64
"""Files named for one run; an agent can make any number of them."""
LOOKING_SECONDS: Final = 60.0
LOOKING_SECONDS_MAX: Final = 10.0
"""Of any so many seconds, for the files of one owner: who makes files that take long to look through waits, and nobody else."""
LOOKS_REMEMBERED_MAX: Final = 1_000


@dataclass(frozen=True, kw_only=True)
class Gap:
    """A file that cannot be watched for a run.

    Attributes:
        uid: whose run it is; None for a run that a selector made.
        text: which file, why, and of which run.
    """

    uid: int | None
    text: str


@dataclass
class _RunGaps:
    named: dict[tuple[int, int], Gap] = field(default_factory=dict)
    untold: int = 0


class Coverage:
    """The gaps of live runs. One thread calls it."""

    def __init__(self) -> None:
        self._runs: dict[int, _RunGaps] = {}
        self._looks: dict[str, deque[tuple[float, float]]] = {}

    def add(self, run: int, file: tuple[int, int], gap: Gap) -> bool:
        """Remember a gap.

        Args:
            run: key of the run.
            file: device and inode.
            gap: what there is to say.

        Returns:
            Whether the record has to be told: the first time for each file of a run, as long as they are named.
        """
        gaps = self._runs.setdefault(run, _RunGaps())
        if file in gaps.named:
            return False
        if len(gaps.named) >= GAPS_PER_RUN_MAX:
            gaps.untold += 1
            return gaps.untold == 1
        gaps.named[file] = gap
        return True

    def named(self, run: int) -> int:
        """Give how many gaps of a run are named; the next one is told without its name when it is `GAPS_PER_RUN_MAX`."""
        return len(self._runs[run].named) if run in self._runs else 0

    def keep(self, live: set[int]) -> None:
        """Forget the gaps of runs that are over: their record has them."""
        for run in self._runs.keys() - live:
            del self._runs[run]

    def gaps(self) -> list[Gap]:
        """Give all that is named, and for each run with more how many there were."""
        found: list[Gap] = []
        for gaps in self._runs.values():
            found += gaps.named.values()
            if gaps.untold:
                owner = next(iter(gaps.named.values()))
                found.append(Gap(uid=owner.uid, text=f"{gaps.untold} mappings of further files that are not watched"))
        return found

    def looked(self, owner: str, now: float, seconds: float) -> None:
        """Note how long a file of an owner took, at a time in seconds."""
        looks = self._looks.setdefault(owner, deque(maxlen=LOOKS_REMEMBERED_MAX))
        looks.append((now, seconds))
        if len(self._looks) > LOOKS_REMEMBERED_MAX:
            del self._looks[next(iter(self._looks))]

    def exhausted(self, owner: str, now: float) -> bool:
        """Say whether the files of an owner took so long lately that no further one is looked at for now."""
        looks = self._looks.get(owner, deque())
        while looks and looks[0][0] < now - LOOKING_SECONDS:
            looks.popleft()
        return sum(seconds for _at, seconds in looks) > LOOKING_SECONDS_MAX
