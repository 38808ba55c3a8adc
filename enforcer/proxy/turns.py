"""Whose bytes are looked at next: the time of one turn of the event loop, shared among runs and their connections.

What lives here: queues and the time that is used. What must not: bytes (kept.py), the core.

A connection that was read is looked at at once, as long as its run has time left in this turn. What is left over waits in its
run's queue, unread on. In each turn runs go one after the other, a slice of one connection each, until the turn's time is used;
then all others of the worker are served, and those that have just come. So one run's flood takes one share of the worker,
however many connections it has, and a flood on one connection leaves the run's others their slices.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable
from typing import Final, Protocol

RUN_SECONDS: Final = 0.004
"""Of a turn, for what one run's connections just sent: two slices (kept.py)."""
TURN_SECONDS: Final = 0.008
"""Of a turn, for what is kept, of all runs."""
LITTLE_SECONDS: Final = RUN_SECONDS / 4
"""Used by all together that need not be forgotten at the end of the turn: to see to that costs as much as a small message."""


class Working(Protocol):
    """A connection that may have kept bytes."""

    @property
    def run(self) -> str | None:
        """Whose it is."""

    def work(self, clock: Callable[[], float]) -> bool:
        """Look at one slice; say whether another can be looked at now."""


class Turns:
    """Of one worker."""

    def __init__(self, loop: asyncio.AbstractEventLoop, clock: Callable[[], float] = time.perf_counter) -> None:
        self._loop, self._clock = loop, clock
        self._queues: dict[str | None, deque[Working]] = {}
        self._queued: set[Working] = set()
        self._used: dict[str | None, float] = {}
        self._counted = 0.0
        """By `use`, of all runs, and not forgotten yet."""
        self._scheduled = False

    def come(self, one: Working) -> None:
        """Look at what a connection has kept, now or when it is its turn."""
        if one in self._queued:
            return
        self._schedule()
        run, used = one.run, self._used.get(one.run, 0.0)
        more = True
        if run not in self._queues:
            began = self._clock()
            while more and used < RUN_SECONDS:
                more = one.work(self._clock)
                now = self._clock()
                used, began = used + now - began, now
            self._used[run] = used
        if more:
            self._queue(one)

    def at_once(self, run: str | None) -> bool:
        """Say whether a run has time left in this turn, and none of its connections waits: what comes is looked at as it is."""
        return run not in self._queues and self._used.get(run, 0.0) < RUN_SECONDS

    def use(self, run: str | None, seconds: float) -> None:
        """Count what was looked at so."""
        self._used[run] = self._used.get(run, 0.0) + seconds
        self._counted += seconds
        if self._counted >= LITTLE_SECONDS and not self._scheduled:
            self._schedule()

    def later(self, one: Working) -> None:
        """Look at it in the next turn: its core is just saying something."""
        self._queue(one)
        self._schedule()

    def leave(self, one: Working) -> None:
        """Forget a connection that is over."""
        if one in self._queued:
            self._queued.discard(one)
            self._queues[one.run].remove(one)
            if not self._queues[one.run]:
                del self._queues[one.run]

    def _queue(self, one: Working) -> None:
        if one in self._queued:
            return
        self._queued.add(one)
        self._queues.setdefault(one.run, deque()).append(one)

    def _schedule(self) -> None:
        if not self._scheduled:
            self._scheduled = True
            self._loop.call_soon(self._turn)

    def _turn(self) -> None:
        """Begin a turn: what was used is forgotten, and what is kept is looked at."""
        self._scheduled = False
        self._used.clear()
        self._counted = 0.0
        until = self._clock() + TURN_SECONDS
        while self._queues and self._clock() < until:
            self._next()
        if self._queues:
            self._schedule()

    def _next(self) -> None:
        """Look at one slice of the run whose turn it is."""
        run = next(iter(self._queues))
        queue = self._queues.pop(run)
        one = queue.popleft()
        self._queued.discard(one)
        if queue:
            self._queues[run] = queue
        if one.work(self._clock):
            self._queue(one)
