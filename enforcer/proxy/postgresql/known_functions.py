"""Functions that hide a server's own, as sessions of this worker were told; and when that was of another time.

What lives here: a bounded memory, and the stamps of databases, which all workers share. What must not: asking. The question
takes a server some milliseconds of a new session, and its answer is the same for all of one database.

Whoever runs a statement that may define something gives the database another stamp: when it is sent, when it is done, when more
is sent in its transaction, and when that ends. A session whose stamp is not the database's any more asks again before it
believes a call. When the server came to it nobody here can say, as long as its word is not read: so within KNOWN_SECONDS of a
stamp nothing is remembered, nor while such a message is under way, however long that goes on. What nobody here was told of,
because it was said elsewhere than through this host's enforcer, is found after KNOWN_SECONDS, between transactions.
"""

from __future__ import annotations

import mmap
import zlib
from collections import Counter, OrderedDict
from typing import Final

KNOWN_SECONDS: Final = 30.0
DATABASES_MAX: Final = 256
"""An agent chooses names; the oldest go."""
STAMPS: Final = 4_096
"""Databases beyond share one: then they ask more often."""
WORKERS_MAX: Final = 64
"""Of one host's enforcer, as its configuration has it."""
UNDER_WAY_SECONDS_MAX: Final = 3_600.0
"""How long a message is believed to be under way of which nobody says that it ended, as where its worker did."""
GONE_SECONDS: Final = 300.0
"""How long a server is believed to go on with what a client said that has left."""
_STAMP_BYTES: Final = 8
_NANOSECONDS: Final = 1e9

Place = tuple[str, int, str]
"""Address, port, database."""


class Stamps:
    """Of all databases: when something may last have been defined, in nanoseconds of a clock that does not go back; 0: never.

    And for each worker until when something may be defined there at any moment. Made once, before processes that share it;
    written whole, and each part of the second by one worker alone, so that nobody waits.
    """

    def __init__(self) -> None:
        self._memory = mmap.mmap(-1, STAMPS * _STAMP_BYTES)
        self._stamps = memoryview(self._memory).cast("Q")
        self._marks = mmap.mmap(-1, WORKERS_MAX * STAMPS * _STAMP_BYTES)
        self._until = memoryview(self._marks).cast("d")

    @staticmethod
    def slot(place: Place) -> int:
        """Say where the stamp of a database is: the same whichever of its addresses a server is reached by."""
        _, port, database = place
        return zlib.crc32(f"{port}\0{database}".encode("utf-8", "surrogateescape")) % STAMPS

    def of(self, slot: int) -> int:
        """Give a stamp."""
        return self._stamps[slot]

    def renew(self, slot: int, at: float) -> None:
        """Make it another one."""
        self._stamps[slot] = max(self._stamps[slot] + 1, int(at * _NANOSECONDS))

    def is_fresh(self, slot: int, at: float) -> bool:
        """Say whether it was made so lately that the server may not have come to what was said."""
        stamp = self._stamps[slot]
        return stamp > 0 and at - stamp / _NANOSECONDS < KNOWN_SECONDS

    def mark(self, worker: int, slot: int, until: float) -> None:
        """Say until when something may be under way in a worker; 0: nothing is."""
        self._until[slot * WORKERS_MAX + worker] = until

    def marked(self, slot: int, at: float, *, but: int) -> bool:
        """Say whether something may be under way in a worker, but for one."""
        first = slot * WORKERS_MAX
        found = self._until[first : first + WORKERS_MAX]
        return found != _NONE and any(until > at and worker != but for worker, until in enumerate(found))


_NONE: Final = memoryview(bytes(WORKERS_MAX * _STAMP_BYTES)).cast("d")


class KnownFunctions:
    """Of one worker."""

    def __init__(self, stamps: Stamps | None = None, worker: int = 0) -> None:
        """Take what is shared with other workers, and this one's number."""
        self.stamps, self._worker = stamps or Stamps(), worker % WORKERS_MAX
        self.known: OrderedDict[Place, tuple[float, int, frozenset[str]]] = OrderedDict()
        self._under_way = Counter[int]()
        self._gone: dict[int, float] = {}

    def at(self, place: Place) -> KnownHere:
        """Give what is known of one database."""
        return KnownHere(self, place)

    def begins(self, slot: int, at: float) -> None:
        """Take that a session of this worker said what may define."""
        self._under_way[slot] += 1
        self.stamps.mark(self._worker, slot, at + UNDER_WAY_SECONDS_MAX)

    def ends(self, slot: int, gone: float = 0.0) -> None:
        """Take that it was answered; or that nobody hears the answer, so that it may go on until `gone`."""
        self._under_way[slot] -= 1
        self._gone[slot] = max(gone, self._gone.get(slot, 0.0))
        if not self._under_way[slot]:
            del self._under_way[slot]
            self.stamps.mark(self._worker, slot, self._gone[slot])

    def is_under_way(self, slot: int, at: float, *, own: int) -> bool:
        """Say whether others than `own` of this worker's sessions may define something now."""
        here = self._under_way.get(slot, 0) > own or self._gone.get(slot, 0.0) > at
        return here or self.stamps.marked(slot, at, but=self._worker)


class KnownHere:
    """Of one database, for one session."""

    def __init__(self, all_: KnownFunctions, place: Place) -> None:
        self._all, self._stamps, self._place = all_, all_.stamps, place
        self._slot = Stamps.slot(place)
        self._begun = False

    @property
    def stamp(self) -> int:
        """What tells whether something may have been defined since."""
        return self._stamps.of(self._slot)

    def is_fresh(self, at: float) -> bool:
        """Say whether what was just asked may be old already: something was defined lately, or may be at any moment."""
        return self._stamps.is_fresh(self._slot, at) or self._all.is_under_way(self._slot, at, own=int(self._begun))

    def of(self, at: float) -> tuple[int, frozenset[str]] | None:
        """Give the names, and the stamp of then; None: they have to be asked for, now."""
        found, stamp = self._all.known.get(self._place), self.stamp
        if found is not None and at - found[0] < KNOWN_SECONDS and found[1] == stamp and not self.is_fresh(at):
            return found[1:]
        return None

    def learn(self, at: float, stamp: int, names: frozenset[str]) -> None:
        """Take what a server said to all; and the stamp that was before it was asked."""
        known = self._all.known
        known.pop(self._place, None)
        known[self._place] = (at, stamp, names)
        if len(known) > DATABASES_MAX:
            known.popitem(last=False)

    def defines(self, at: float) -> None:
        """Something may be defined there now, or was."""
        self._stamps.renew(self._slot, at)

    def begins(self, at: float) -> None:
        """From now on something may be defined by this session."""
        self.defines(at)
        if not self._begun:
            self._begun = True
            self._all.begins(self._slot, at)

    def ends(self, gone: float = 0.0) -> None:
        """It is done; or the session is over, and it may go on until then."""
        if self._begun:
            self._begun = False
            self._all.ends(self._slot, gone)
