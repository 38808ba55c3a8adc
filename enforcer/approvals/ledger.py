"""All requests, and what may become of them: decides what is to be written down, then takes it in.

What lives here: matching an action with what was approved, limits, votes, ends. What must not: files, clocks, who waits.

Every method that changes something gives entries; they count only once they are on disk, when `take` is told of them.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace

from capd.enforcer.approvals import limits
from capd.enforcer.approvals.eligibility import check_yes
from capd.enforcer.approvals.entry import (
    Entry,
    apply_entry,
    ask_entry,
    change_entry,
    keep_entry,
    tell_entry,
    vote_entry,
)
from capd.enforcer.approvals.errors import AlreadyDecidedError, AmbiguousRequestError, UnknownRequestError
from capd.enforcer.approvals.moment import NS_PER_SECOND, Deadline, Moment
from capd.enforcer.approvals.request import Asked, Person, Request, Vote, may_meet
from capd.enforcer.approvals.state import Change, State
from capd.enforcer.policy.rule import ApprovalScope

POLICY_CHANGED = "the policy changed"
DAMAGED = "the store was damaged, so that nobody knows whether it was used"
ID_LETTERS_MIN = 3
"""Of a shortened id."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """What is to be done with an action.

    Attributes:
        state: APPROVED: it may go, once `entries` are written. DENIED: a person said no. PENDING: it has to wait.
        request: which request says so; None: too much waits, and the action is denied.
        entries: to be written first.
        refusal: why there is no request.
    """

    state: State
    request: str | None
    entries: tuple[Entry, ...] = ()
    refusal: str = ""


@dataclass(slots=True)
class Ledger:
    """The requests of a host."""

    requests: dict[str, Request] = field(default_factory=dict)
    _asked: dict[str | None, deque[Moment]] = field(default_factory=dict)

    def take(self, entries: Iterable[Entry]) -> None:
        """Take in what is on disk.

        Raises:
            ValueError, KeyError, TypeError: it is nothing that can happen.
        """
        for entry in entries:
            apply_entry(self.requests, entry)
        ended = [request.id for request in self.requests.values() if not request.open]
        if len(ended) > limits.ENDED_MAX:
            ended.sort(key=lambda one: self.requests[one].changed.wall_ns)
            for one in ended[: len(ended) - limits.ENDED_MAX]:
                del self.requests[one]

    # -- actions ---------------------------------------------------------------------------------------------------------------

    def find(self, asked: Asked, now: Moment) -> Found:
        """Say what is to be done with an action that a rule wants approved.

        Args:
            asked: as it would be asked anew.
            now: the time.
        """
        for request in self.requests.values():
            if request.state is State.APPROVED and covers(request, asked, now):
                once = request.scope is ApprovalScope.ONCE
                uses = (change_entry(request.id, Change.USE, now),) if once else ()
                return Found(state=State.APPROVED, request=request.id, entries=uses)
        same = [one for one in self.requests.values() if one.asked.fingerprint == asked.fingerprint]
        for request in reversed(same):
            if request.state in (State.PENDING, State.DENIED) and not request.deadline.over(now):
                return Found(state=request.state, request=request.id)
        refusal = self._full(asked, now)
        if refusal:
            return Found(state=State.DENIED, request=None, refusal=refusal)
        self._asked.setdefault(asked.run, deque()).append(now)
        return Found(state=State.PENDING, request=asked.id, entries=(ask_entry(asked),))

    def _full(self, asked: Asked, now: Moment) -> str:
        """Say why no more can be asked, or nothing."""
        waits = [one.asked for one in self.requests.values() if one.state is State.PENDING]
        pending = Counter(one.run for one in waits)
        if (of_user := sum(one.uid == asked.uid for one in waits)) >= limits.PENDING_PER_USER_MAX:
            return f"{of_user} requests of this user wait already"
        if pending[asked.run] >= limits.PENDING_PER_RUN_MAX:
            return f"{pending[asked.run]} requests of this run wait already"
        if pending.total() >= limits.PENDING_MAX:
            return f"{pending.total()} requests wait already"
        # Of runs that asked nothing lately nothing is kept.
        self._asked = {run: times for run, times in self._asked.items() if not _over(times[-1], now)}
        lately = self._asked.get(asked.run, deque())
        while lately and _over(lately[0], now):
            lately.popleft()
        if len(lately) >= limits.ASKED_PER_RUN_MAX:
            return f"this run asked {len(lately)} times in the last {limits.ASKED_SECONDS // 60} minutes"
        return ""

    def told(self, request: Request) -> tuple[Entry, ...]:
        """Note that a client was told to come again."""
        return () if request.told or request.state is not State.PENDING else (tell_entry(request.id),)

    def cancel(self, request: Request, now: Moment) -> tuple[Entry, ...]:
        """Note that the last client that waited left; one that was told to come again may still come."""
        if request.told or request.state is not State.PENDING:
            return ()
        return (change_entry(request.id, Change.CANCEL, now, reason="the client left while it waited"),)

    # -- persons ---------------------------------------------------------------------------------------------------------------

    def named(self, text: str) -> Request:
        """Give the request of an id, or of its beginning.

        Raises:
            UnknownRequestError, AmbiguousRequestError: there is none, or more than one.
        """
        text = text.lower()
        found = [one for one in self.requests if one == text or (len(text) >= ID_LETTERS_MIN and one.startswith(text))]
        if not found:
            raise UnknownRequestError(text)
        if len(found) > 1 and text not in found:
            raise AmbiguousRequestError(text, sorted(found)[:8])
        return self.requests[text if text in found else found[0]]

    def approve(self, request: Request, person: Person, scope: ApprovalScope, now: Moment) -> tuple[Entry, ...]:
        """Take a yes.

        Raises:
            CapdError: it does not count; nothing changes.
        """
        _check_waits(request, now)
        check_yes(person, request.asked, scope)
        if any(vote.person.uid == person.uid for vote in request.votes):
            raise AlreadyDecidedError(request.id, request.state, f", and {person.name} has approved it")
        if not any(may_meet(person, demand) for demand in request.missing()):
            raise AlreadyDecidedError(request.id, request.state, ", and needs nobody more of these groups")
        vote = Vote(person=_of_interest(person, request.asked), scope=scope, at=now)
        entries = [vote_entry(request.id, vote)]
        after = {request.id: request}
        apply_entry(after, entries[0])
        if not after[request.id].missing():
            entries.append(change_entry(request.id, Change.APPROVE, now))
        return tuple(entries)

    def deny(self, request: Request, person: Person, reason: str, now: Moment) -> tuple[Entry, ...]:
        """Take a no: to what waits, or to what was approved and can still be used.

        Raises:
            AlreadyDecidedError: it is over.
        """
        if not request.open or request.deadline.over(now):
            _refuse_ended(request, now)
        by = _of_interest(person, request.asked)
        return (change_entry(request.id, Change.DENY, now, by=by, reason=reason[: limits.REASON_CHARACTERS_MAX]),)

    # -- time and policy -------------------------------------------------------------------------------------------------------

    def lapse(self, now: Moment) -> tuple[Entry, ...]:
        """End what has waited, or was good, for long enough."""
        over = [one for one in self.requests.values() if one.open and one.deadline.over(now)]
        return tuple(change_entry(one.id, Change.EXPIRE, now, reason=_why_expired(one)) for one in over)

    def seconds_left(self, now: Moment) -> float | None:
        """Give how long until something lapses; None: nothing will."""
        left = [one.deadline.left_ns(now) for one in self.requests.values() if one.open]
        return min(left) / NS_PER_SECOND if left else None

    def change_policy(self, version: str, now: Moment) -> tuple[Entry, ...]:
        """End what another policy asked for."""
        return self._end(lambda one: one.asked.policy != version, Change.CHANGE_POLICY, now, POLICY_CHANGED)

    def distrust(self, now: Moment) -> tuple[Entry, ...]:
        """End what has its yeses: the end of the store is missing, and a use may have stood there."""
        return self._end(lambda one: not one.missing(), Change.EXPIRE, now, DAMAGED)

    def settle(self, now: Moment) -> tuple[Entry, ...]:
        """Approve what has its yeses: a crash may have come between the last of them and what follows from it."""
        met = [one for one in self.requests.values() if one.state is State.PENDING and one.votes and not one.missing()]
        return tuple(change_entry(one.id, Change.APPROVE, now) for one in met if not one.deadline.over(now))

    def _end(self, which: Callable[[Request], bool], change: Change, now: Moment, reason: str) -> tuple[Entry, ...]:
        chosen = [one for one in self.requests.values() if one.open and which(one)]
        return tuple(change_entry(one.id, change, now, reason=reason) for one in chosen)

    def kept(self) -> Sequence[Entry]:
        """Give entries from which all requests can be made anew."""
        return [keep_entry(one) for one in self.requests.values()]


def covers(request: Request, asked: Asked, now: Moment) -> bool:
    """Say whether an approved request lets an action go.

    All that one approval is ever good for has the same policy, run, user, principal and rules: the fingerprint and the shape
    contain the first four, and are compared all the same.
    """
    given = request.asked
    alike = (given.policy, given.run, given.uid, given.principal, given.demands)
    if alike != (asked.policy, asked.run, asked.uid, asked.principal, asked.demands) or request.deadline.over(now):
        return False
    if given.fingerprint == asked.fingerprint:
        return True
    if request.scope is ApprovalScope.SHAPE:
        return given.shape == asked.shape
    return request.scope is ApprovalScope.RUN and given.run is not None


def _of_interest(person: Person, asked: Asked) -> Person:
    """Give a person with the groups that the rules ask for: what is kept is bounded by the rules."""
    wanted = {group for demand in asked.demands for group in demand.groups}
    return replace(person, groups=tuple(group for group in person.groups if group in wanted))


def _over(since: Moment, now: Moment) -> bool:
    return Deadline(since=since, seconds=limits.ASKED_SECONDS).over(now)


def _check_waits(request: Request, now: Moment) -> None:
    if request.state is not State.PENDING or request.deadline.over(now):
        _refuse_ended(request, now)


def _refuse_ended(request: Request, now: Moment) -> None:
    state = State.EXPIRED if request.open and request.deadline.over(now) else request.state
    by = "" if request.by is None else f", by {request.by.name}"
    raise AlreadyDecidedError(request.id, state, by)


def _why_expired(request: Request) -> str:
    if request.state is State.PENDING:
        return f"nobody decided within {request.asked.wait_seconds} seconds"
    return f"it was approved, and its {request.asked.ttl_seconds} seconds are over"
