"""Connections that the probes told of: found by cookie or ends, and let go of where there are too many.

What lives here: the indexes over the books, and which connection goes first. What must not: which one is meant, and what may be
hidden by letting go (matching.py), what is told of it.

An agent may begin and end more connections than there is room for. Those that are over and of which the enforcer told nothing
wait for its word, and go first: so whoever floods the books pushes out its own, and hardly those of others that go on.
"""

from __future__ import annotations

from typing import Final
from uuid import UUID

from capd.daemon.witness.ends import EndsIndex
from capd.daemon.witness.state import Books, Seen

GIVEN_UP_MAX: Final = 65_536
"""Ids of 16 bytes. Of more, only the newest of those that were let go of is remembered: all from before it may be meant."""


class Connections:
    """All that are in the books. Not thread-safe."""

    def __init__(self, books: Books) -> None:
        """Take those that are remembered; the books change with this."""
        self._all = books
        self._books, self._given_up = books.seen, books.given_up
        self._by_cookie: dict[int, UUID] = {}
        self._by_ends = EndsIndex()
        self._waiting: dict[UUID, None] = {}
        for seen in books.seen.values():
            self._index(seen)

    def __len__(self) -> int:
        return len(self._books)

    def add(self, seen: Seen) -> None:
        """Take one that begins."""
        self._books[seen.session] = seen
        self._index(seen)

    def remove(self, seen: Seen) -> None:
        """Let go of one."""
        self._books.pop(seen.session, None)
        self._waiting.pop(seen.session, None)
        if seen.cookie is not None and self._by_cookie.get(seen.cookie) == seen.session:
            del self._by_cookie[seen.cookie]
        self._by_ends.remove(seen)

    def between_others(self, seen: Seen, local: tuple[str, int] | None, target: tuple[str, int] | None) -> None:
        """Take its ends, if they are told now."""
        self._by_ends.remove(seen)
        seen.local, seen.target = local or seen.local, target or seen.target
        self._by_ends.add(seen)

    def over(self, seen: Seen) -> None:
        """Its end was told."""
        if seen.flow is None:
            self._waiting[seen.session] = None

    def linked(self, seen: Seen) -> None:
        """The enforcer told of it."""
        self._waiting.pop(seen.session, None)

    def of_cookie(self, cookie: int) -> Seen | None:
        """Give the one whose socket has a number."""
        found = self._by_cookie.get(cookie)
        return None if found is None else self._books.get(found)

    def between(self, client: tuple[str, int], destination: tuple[str, int] | None) -> list[Seen]:
        """Give the newest ones between two ends."""
        return [self._books[identity] for identity in self._by_ends.between(client, destination)]

    def first_to_go(self) -> Seen:
        """Give the one to let go of where there is no room: of those that are over and wait the oldest, else of all."""
        return self._books[next(iter(self._waiting or self._books))]

    def give_up(self, seen: Seen) -> None:
        """Remember that an open one was let go of for want of room, until its end says so."""
        if seen.close is None:
            self._given_up.add(seen.session)
        while len(self._given_up) > GIVEN_UP_MAX:
            forgotten = self._given_up.pop()
            self._all.unremembered = max(self._all.unremembered or forgotten, forgotten)

    def was_given_up(self, session: UUID) -> bool:
        """Say, once, whether that was done with one that is not in the books, or may have been: ids are in order of time."""
        found = session in self._given_up
        self._given_up.discard(session)
        return found or (self._all.unremembered is not None and session <= self._all.unremembered)

    def _index(self, seen: Seen) -> None:
        if seen.cookie is not None:
            self._by_cookie[seen.cookie] = seen.session
        self._by_ends.add(seen)
        if seen.closed_ns is not None:
            self.over(seen)
