"""How many connections, and bytes that wait, one worker keeps: of each run, and in all.

What lives here: the limits, counting, and who is to stop. What must not: sockets, what the bytes are.

Limits of one connection alone let thousands of them take all memory. A run above its budget is not read any more where a
connection keeps more than SMALL_BYTES, and gets no new ones, until it has fallen to LOW_SHARE of it. What it keeps may wait for
something that is not read, such as the end of a body that a rule wants to see; so when that does not happen within
STUCK_SECONDS its connection that keeps most is cut, one a second. Others' budgets are theirs: only where all runs together are
above a worker's, those go first that have more than an equal share.
"""

from __future__ import annotations

import resource
from dataclasses import dataclass, field
from typing import Final, Generic, Protocol, TypeVar

CONNECTIONS_MAX: Final = 4_096
"""Of one process: each has two descriptors and some tens of KiB beside the bytes below."""
CONNECTIONS_PER_RUN_MAX: Final = 512
"""Of one process: one run cannot take all of them; what agents do in earnest stays below a hundred."""
RUN_BYTES_MAX: Final = 64 << 20
"""What waits of one run: sixty bodies of 1 MiB that persons look at, or eight connections of HTTP/2 that take no answers."""
WORKER_BYTES_MAX: Final = 256 << 20
"""The same of all runs: four of them at their worst."""
SMALL_BYTES: Final = 65_536
"""A connection may always keep that much, which all that a run may have make 32 MiB."""
LOW_SHARE: Final = 0.75
"""Of a budget, below which a run goes on: not at once, or it would stop and go with each read."""
STUCK_SECONDS: Final = 5.0
RESERVED_DESCRIPTORS: Final = 512
"""For the log, status, listeners, other network namespaces and lookups."""
DESCRIPTORS_EACH: Final = 2


class Occupant(Protocol):
    """A connection."""

    @property
    def run(self) -> str | None:
        """Whose it is."""

    def heed(self) -> None:
        """See whether it may be read."""


Kind = TypeVar("Kind", bound=Occupant)


@dataclass(slots=True)
class _Share(Generic[Kind]):
    """Of one run."""

    connections: dict[Kind, int] = field(default_factory=dict)
    bytes: int = 0
    over: bool = False
    stuck: float = 0.0
    """When something is to be cut."""


class Room(Generic[Kind]):
    """Of one worker.

    Attributes:
        bytes: that wait, of all.
    """

    def __init__(self, connections: int = CONNECTIONS_MAX) -> None:
        """Take how many connections there may be."""
        self.bytes = 0
        self._connections_max = connections
        self._connections = 0
        self._shares: dict[str | None, _Share[Kind]] = {}

    @property
    def over(self) -> int:
        """How many runs are above their budget."""
        return sum(share.over for share in self._shares.values())

    def refusal(self, run: str | None) -> str | None:
        """Say why a run may have no further connection; None: it may."""
        share = self._shares.get(run)
        if self._connections >= self._connections_max:
            return "too many connections"
        if share is not None and len(share.connections) >= CONNECTIONS_PER_RUN_MAX:
            return "too many connections of one run"
        if share is not None and share.over:
            return "too many bytes of one run wait"
        return None

    def enter(self, one: Kind) -> None:
        """Take a connection."""
        self._connections += 1
        self._shares.setdefault(one.run, _Share()).connections[one] = 0

    def leave(self, one: Kind, now: float) -> None:
        """Give its room to others."""
        self.weigh(one, 0, now)
        share = self._shares[one.run]
        del share.connections[one]
        self._connections -= 1
        if not share.connections:
            del self._shares[one.run]

    def may_read(self, one: Kind) -> bool:
        """Say whether more of a connection can be kept."""
        share = self._shares[one.run]
        return not share.over or share.connections[one] <= SMALL_BYTES

    def plenty(self, one: Kind) -> bool:
        """Say whether as much of a connection can be read as goes on: its run is within its budget."""
        return not self._shares[one.run].over

    def weigh(self, one: Kind, weight: int, now: float) -> None:
        """Take how many bytes a connection keeps.

        Args:
            one: the connection.
            weight: bytes.
            now: seconds, which never go back.
        """
        share = self._shares[one.run]
        change = weight - share.connections[one]
        share.connections[one] = weight
        share.bytes += change
        self.bytes += change
        self._judge(share, now)

    def review(self, now: float) -> list[Kind]:
        """Judge all runs again; give what is to be cut: of each run that is stuck the connection that keeps most."""
        for share in self._shares.values():
            self._judge(share, now)
        return [
            max(share.connections, key=share.connections.__getitem__)
            for share in self._shares.values()
            if share.over and now >= share.stuck
        ]

    def _judge(self, share: _Share[Kind], now: float) -> None:
        limit = self._limit()
        if not share.over and share.bytes > limit:
            share.over, share.stuck = True, now + STUCK_SECONDS
        elif share.over and share.bytes <= limit * LOW_SHARE:
            share.over = False
        else:
            return
        for one in share.connections:
            one.heed()

    def kept_by_those_over(self) -> list[Kind]:
        """Give the connections of runs that are above their budget, to be weighed again: what is sent tells nobody."""
        return [one for share in self._shares.values() if share.over for one in share.connections]

    def _limit(self) -> int:
        if self.bytes <= WORKER_BYTES_MAX:
            return RUN_BYTES_MAX
        return min(RUN_BYTES_MAX, WORKER_BYTES_MAX // len(self._shares))


def connections_for(descriptors: int) -> int:
    """Give how many connections a process has descriptors for."""
    if descriptors == resource.RLIM_INFINITY:
        return CONNECTIONS_MAX
    return max(1, min(CONNECTIONS_MAX, (descriptors - RESERVED_DESCRIPTORS) // DESCRIPTORS_EACH))
