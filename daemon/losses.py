"""What the kernel counts as lost, and how much of that is in the journal already.

What lives here: the difference between the two, as notes; the totals for `status`. What must not: when a note is written, and
where (drain.py). All of it is for the drain thread, but `totals`, which others may read.

The probes count a loss before anything that follows it gets into a ring. So whoever has read an event from a ring, and then
asks here, is told all that was lost before that event.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final, Protocol

from capd.daemon import notes
from capd.daemon.loss_log import LossLog, Noted
from capd.probes.capture import LAYER_CONTROL, Loss
from capd.probes.counters import LOST

FORGET_ABOVE: Final = 4_096
"""Streams that lost something and are remembered, before those that are over are forgotten; the kernel has room for 65,536."""
SKIPPED: Final = "programs_skipped"


class Counted(Protocol):
    """What the kernel counts; `capd.probes.capture.Capture` has it."""

    def counters(self) -> dict[str, int]:
        """Give all counters."""

    def lost(self) -> tuple[int, ...]:
        """Give those that count losses; without a system call."""

    def programs_skipped(self) -> int:
        """Give how often a program did not run."""

    def losses(self) -> list[Loss]:
        """Give what each stream lost."""

    def forget_losses(self, told: Callable[[Loss], bool]) -> list[Loss]:
        """Forget and give those of streams that are over, if they were told."""


@dataclass(frozen=True, kw_only=True)
class Totals:
    """What was lost since the probes began.

    Attributes:
        counters: totals by name.
        bytes: of all streams.
        streams: how many lost something.
        changed_ns: wall time when they last grew; None: never.
    """

    counters: Mapping[str, int]
    bytes: int = 0
    streams: int = 0
    changed_ns: int | None = None


StreamKey = tuple[int, int, int, int, int]
"""Stream, layer, direction, cause, run."""


class LossBook:
    """What was noted, beside what is counted."""

    def __init__(
        self,
        counted: Counted,
        *,
        clock: Callable[[], tuple[int, int]],
        log: LossLog | None = None,
        before: Noted | None = None,
    ) -> None:
        """Begin.

        Args:
            counted: the kernel's counts.
            clock: gives CLOCK_BOOTTIME and wall time, in ns.
            log: where to remember what was noted, for the next daemon.
            before: what an earlier daemon noted of the same counts; None: nothing is noted.
        """
        self._counted = counted
        self._clock = clock
        self._log = log
        self._lost: tuple[int, ...] = ()
        """The counters as they were noted last."""
        self._skipped = self._skipped_noted = 0
        self._noted: dict[StreamKey, int] = {}
        self._news: tuple[tuple[int, ...], int, list[Loss], Totals] | None = None
        self.totals = Totals(counters={})
        if before is not None:
            self._go_on(before)

    def refresh(self) -> None:
        """Ask for what costs more; to be called about every second."""
        self._skipped = self._counted.programs_skipped()
        if len(self._noted) > FORGET_ABOVE:
            forgotten = self._counted.forget_losses(lambda loss: self._noted.get(_key(loss)) == loss.amount)
            for loss in forgotten:
                del self._noted[_key(loss)]
            if forgotten:
                self._remember({_key(loss): 0 for loss in forgotten})
        self.totals = Totals(
            counters=self._counters(),
            bytes=self.totals.bytes,
            streams=self.totals.streams,
            changed_ns=self.totals.changed_ns,
        )

    def news(self) -> notes.Note | None:
        """Give a note of what was lost and is not noted; None when there is nothing. `noted` has to say that it was written."""
        lost = self._counted.lost()
        if (lost == self._lost or not (any(lost) or self._lost)) and self._skipped == self._skipped_noted:
            return None
        grown = [loss for loss in self._counted.losses() if loss.amount != self._noted.get(_key(loss))]
        boottime_ns, realtime_ns = self._clock()
        rows = [(*_key(loss)[:4], loss.amount - self._noted.get(_key(loss), 0), loss.run) for loss in grown]
        streams = [row for row in rows if row[1] != LAYER_CONTROL]
        first = sum(1 for loss in grown if loss.layer != LAYER_CONTROL and _key(loss) not in self._noted)
        totals = Totals(
            counters=self._counters(),
            bytes=self.totals.bytes + sum(row[4] for row in streams),
            streams=self.totals.streams + first,
            changed_ns=realtime_ns,
        )
        self._news = (lost, self._skipped, grown, totals)
        return notes.losses(totals.counters, rows, boottime_ns)

    def noted(self) -> None:
        """The note that `news` gave last is in the journal."""
        if self._news is not None:
            self._lost, self._skipped_noted, grown, self.totals = self._news
            rows = {_key(loss): loss.amount for loss in grown}
            self._noted.update(rows)
            self._news = None
            self._remember(rows)

    def _go_on(self, before: Noted) -> None:
        """Take what was noted, but for streams that the kernel has forgotten since: if they come again, they count anew."""
        counted = {_key(loss): loss.amount for loss in self._counted.losses()}
        self._noted = {key: amount for key, amount in before.amounts.items() if 0 < amount <= counted.get(key, 0)}
        self._lost, self._skipped_noted = before.lost, before.skipped
        self._skipped = max(before.skipped, self._counted.programs_skipped())
        self.totals = Totals(
            counters=self._counters(), bytes=before.bytes, streams=before.streams, changed_ns=before.changed_ns
        )

    def _remember(self, rows: Mapping[StreamKey, int]) -> None:
        if self._log is None:
            return
        totals = self.totals
        noted = Noted(
            lost=self._lost,
            skipped=self._skipped_noted,
            amounts=self._noted,
            bytes=totals.bytes,
            streams=totals.streams,
            changed_ns=totals.changed_ns,
        )
        self._log.add(noted, rows)

    def _counters(self) -> dict[str, int]:
        return {**self._counted.counters(), SKIPPED: self._skipped}


def counted_as_lost(counters: Mapping[str, int]) -> dict[str, int]:
    """Pick the counters that count what is lost, not what was moved."""
    return {name: count for name, count in counters.items() if count and name in LOST}


def _key(loss: Loss) -> StreamKey:
    return loss.stream, loss.layer, loss.direction, loss.cause, loss.run
