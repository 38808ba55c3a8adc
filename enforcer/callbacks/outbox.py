"""What has still to be told to whom: a bounded queue for each webhook, and what each was told last.

What lives here: that, tries and their times. What must not: clocks, chance, sockets, files; forms.

A webhook is told of a request when it is asked and when it ends. What was told is kept over restarts, so that nothing is told
anew, and what happened meanwhile is. Where nothing is kept, what had ended before is not told.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from capd.enforcer.approvals import limits
from capd.enforcer.callbacks.notice import ASKED, event_of

QUEUE_MAX: Final = limits.PENDING_MAX
"""Of one webhook: as much as can wait for persons. Above it the oldest goes, and is counted."""
TOLD_MAX: Final = limits.PENDING_MAX + limits.ENDED_MAX
"""Of one webhook: as many as the desk lists, so that none of them is told anew."""
FIRST_SECONDS: Final = 1.0
LONGEST_SECONDS: Final = 60.0
"""Between two tries; each is a random part, from half on, of what doubles from the first to the longest."""
GIVE_UP_SECONDS: Final = 600.0
"""After that nobody wants to know of an end any more. Of a new request one is told for as long as it waits."""


@dataclass(kw_only=True, eq=False)
class Delivery:
    """One message to one webhook.

    Attributes:
        webhook: its name.
        request: id of the request.
        event: what happened.
        until: monotonic time after which it is given up.
        tries: how often it was tried.
        due: monotonic time of the next try.
    """

    webhook: str
    request: str
    event: str
    until: float
    tries: int = 0
    due: float = 0.0


@dataclass(kw_only=True)
class Tally:
    """What became of a webhook's messages since the start.

    Attributes:
        delivered: taken by the receiver.
        retried: tries that failed and were, or will be, repeated.
        failed: given up: refused by the receiver, or too late.
        dropped: not sent for want of room.
        last_error: of the latest failure; "" once something was delivered after it.
        failing_since: wall time of the first failure after the last success; None: none.
    """

    delivered: int = 0
    retried: int = 0
    failed: int = 0
    dropped: int = 0
    last_error: str = ""
    failing_since: float | None = None


@dataclass(kw_only=True)
class _Box:
    waiting: deque[Delivery] = field(default_factory=deque)
    told: dict[str, str] = field(default_factory=dict)
    tally: Tally = field(default_factory=Tally)


class Outbox:
    """Of all webhooks. Not thread-safe."""

    def __init__(self, webhooks: Iterable[str], told: Mapping[str, Mapping[str, str]] | None) -> None:
        """Begin.

        Args:
            webhooks: their names.
            told: what `told` gave before; None: nothing is known.
        """
        known = told or {}
        self._boxes = {name: _Box(told=dict(known.get(name, {}))) for name in webhooks}
        self._strange = {name for name in self._boxes if name not in known}
        """Of which nothing is known: what ended before is none of theirs."""

    def take(self, changes: Sequence[Mapping[str, Any]], now: float) -> None:
        """Take requests that changed.

        Args:
            changes: as the desk tells them: `id`, `state`, `seconds_left`, `webhooks`.
            now: monotonic time.
        """
        for change in changes:
            for webhook in change["webhooks"]:
                if webhook in self._boxes:
                    self._take(webhook, change, now)

    def settle(self) -> None:
        """All that was there at the start has been taken."""
        self._strange.clear()

    def _take(self, webhook: str, change: Mapping[str, Any], now: float) -> None:
        box, event, request = self._boxes[webhook], event_of(change["state"]), str(change["id"])
        if box.told.get(request) == event:
            return
        box.told[request] = event
        while len(box.told) > TOLD_MAX:
            del box.told[next(iter(box.told))]
        if event != ASKED and webhook in self._strange:
            return
        for waiting in [one for one in box.waiting if one.request == request]:
            box.waiting.remove(waiting)  # it is no news any more
        if len(box.waiting) >= QUEUE_MAX:
            box.waiting.popleft()
            box.tally.dropped += 1
        seconds = change["seconds_left"] if event == ASKED else GIVE_UP_SECONDS
        box.waiting.append(Delivery(webhook=webhook, request=request, event=event, until=now + seconds, due=now))

    def next(self, webhook: str, now: float) -> Delivery | None:
        """Give what is due to be tried now; it stays until `delivered`, `failed`, or its time is over."""
        box = self._boxes[webhook]
        while box.waiting and box.waiting[0].until <= now:
            late = box.waiting.popleft()
            box.tally.failed += 1
            box.tally.last_error = box.tally.last_error or f"{late.request}: it was too late"
        return box.waiting[0] if box.waiting and box.waiting[0].due <= now else None

    def delivered(self, delivery: Delivery) -> None:
        """The receiver took it."""
        box = self._boxes[delivery.webhook]
        self._remove(box, delivery)
        box.tally.delivered += 1
        box.tally.last_error, box.tally.failing_since = "", None

    def outdated(self, delivery: Delivery) -> None:
        """The request is not any more as it was: what follows is told instead."""
        self._remove(self._boxes[delivery.webhook], delivery)

    def failed(self, delivery: Delivery, error: str, *, final: bool, due: float, wall: float) -> None:
        """A try failed.

        Args:
            delivery: which.
            error: why, in words.
            final: whether it is of no use to repeat it.
            due: monotonic time of the next try.
            wall: wall time in seconds since 1970.
        """
        box = self._boxes[delivery.webhook]
        delivery.tries += 1
        delivery.due = due
        tally = box.tally
        tally.failed += final
        tally.retried += not final
        tally.last_error = error
        tally.failing_since = wall if tally.failing_since is None else tally.failing_since
        if final:
            self._remove(box, delivery)

    def tallies(self) -> dict[str, tuple[Tally, int]]:
        """Give, by webhook, what became of its messages and how many wait."""
        return {name: (box.tally, len(box.waiting)) for name, box in self._boxes.items()}

    def told(self) -> dict[str, dict[str, str]]:
        """Give what is to be kept: by webhook, the latest event of each request that it was told, or that was given up.

        What still waits is not in it: it is told after a restart.
        """
        kept = {}
        for name, box in self._boxes.items():
            waiting = {one.request for one in box.waiting}
            kept[name] = {request: event for request, event in box.told.items() if request not in waiting}
        return kept

    @staticmethod
    def _remove(box: _Box, delivery: Delivery) -> None:
        if delivery in box.waiting:  # a later event may have taken its place while it was on its way
            box.waiting.remove(delivery)


def pause_seconds(tries: int, chance: float, asked: float | None = None) -> float:
    """Give how long to wait for the next try.

    Args:
        tries: how many failed before.
        chance: from 0 to 1, to spread those who wait.
        asked: what the receiver asked for (RFC 9110 10.2.3), None: nothing.
    """
    grown = min(FIRST_SECONDS * 2.0 ** min(tries, 16), LONGEST_SECONDS)
    return max(grown * (0.5 + chance / 2), min(asked or 0.0, LONGEST_SECONDS))
