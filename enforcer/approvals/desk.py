"""The desk: where actions wait, and persons decide.

What lives here: the ledger and its store put together, who waits for what, when they are told. What must not: sockets, who
a person is, where the time comes from.

Nothing is told before it is on disk. When the store cannot be written, nothing goes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Final

import msgpack

from capd.enforcer.approvals import limits
from capd.enforcer.approvals.action_hash import fingerprint, shape
from capd.enforcer.approvals.entry import Entry
from capd.enforcer.approvals.errors import ApprovalsDamagedError, ApprovalsUnwritableError
from capd.enforcer.approvals.hold import Answer, Hold, Outcome
from capd.enforcer.approvals.ledger import Ledger
from capd.enforcer.approvals.listing import via
from capd.enforcer.approvals.moment import NS_PER_SECOND, Deadline, Moment
from capd.enforcer.approvals.request import Asked, Person, Request
from capd.enforcer.approvals.state import State
from capd.enforcer.approvals.store import KEY, Store
from capd.enforcer.policy.rule import ApprovalScope

RETRY_SECONDS: Final = 5.0
"""Between two tries to write down that something lapsed, while the disk takes nothing."""
_OUTCOMES: Final = {
    State.DENIED: Outcome.DENIED,
    State.EXPIRED: Outcome.EXPIRED,
    State.CANCELLED: Outcome.UNAVAILABLE,
    State.USED: Outcome.UNAVAILABLE,
    State.POLICY_CHANGED: Outcome.POLICY_CHANGED,
}


@dataclass(slots=True, eq=False)
class Waiter:
    """A client that waits.

    Attributes:
        hold: what for.
        answer: tells its proxy.
        until: when it is told to come again.
        request: which request it waits for; None: it has its last answer.
    """

    hold: Hold
    answer: Callable[[Answer], None]
    until: Deadline
    request: str | None = None


class Desk:
    """All of a host. Not thread-safe."""

    def __init__(self, store: Store, clock: Callable[[], Moment], new_id: Callable[[], str], new_key: bytes) -> None:
        """Take up what the store has.

        Args:
            store: its files.
            clock: the time.
            new_id: makes ids, each another.
            new_key: random bytes, for a store that has no key yet.

        Raises:
            CapdError: the store cannot be used.
        """
        self._store, self._clock, self._new_id = store, clock, new_id
        self._ledger = Ledger()
        self._waiters: dict[str, list[Waiter]] = {}
        self.problem = ""
        """Why the last write failed; "" when it did not."""
        self.damage = self._load()
        self._key = store.key(KEY, new_key)

    def _load(self) -> ApprovalsDamagedError | None:
        entries, damage = self._store.read()
        now = self._clock()
        for number, entry in enumerate(entries):
            try:
                self._ledger.take([entry])
            except (ValueError, KeyError, TypeError) as error:
                damage = ApprovalsDamagedError(self._store.path, number, f"an entry tells of what cannot be: {error}")
                break
        if damage is not None:
            self._ledger.take(self._ledger.distrust(now))
            self._store.set_aside()
        self._ledger.take((*self._ledger.lapse(now), *self._ledger.settle(now)))
        self._store.rewrite(self._ledger.kept())
        self._store.drop_bodies(self._waiting())
        return damage

    def _waiting(self) -> list[str]:
        return [one.id for one in self._ledger.requests.values() if one.state is State.PENDING]

    def _commit(self, entries: Sequence[Entry]) -> None:
        """Write entries, then let them count.

        Raises:
            ApprovalsUnwritableError: they do not.
        """
        if not entries:
            return
        try:
            if self._store.broken or self._store.large:
                self._store.rewrite(self._ledger.kept())
            self._store.append(entries)
        except ApprovalsUnwritableError as error:
            self.problem = str(error)
            raise
        self.problem = ""
        waited = set(self._waiting())
        self._ledger.take(entries)
        if waited - set(self._waiting()):
            self._store.drop_bodies(self._waiting())

    # -- proxies ---------------------------------------------------------------------------------------------------------------

    def hold(self, hold: Hold, answer: Callable[[Answer], None]) -> Waiter:
        """Take an action that a rule wants approved; `answer` is called at once or later, once for each answer."""
        waiter = Waiter(hold=hold, answer=answer, until=Deadline(since=self._clock(), seconds=hold.hold_seconds))
        self._try(waiter)
        return waiter

    def _try(self, waiter: Waiter) -> None:
        try:
            self._place(waiter)
        except ApprovalsUnwritableError as error:
            self._finish(waiter, Answer(outcome=Outcome.UNAVAILABLE, reason=str(error)))

    def _place(self, waiter: Waiter) -> None:
        """Let go, refuse, or seat."""
        hold, now = waiter.hold, self._clock()
        if len(hold.body) > limits.BODY_BYTES_MAX or sha256(hold.body).digest() != hold.bound.body_sha256:
            self._finish(waiter, Answer(outcome=Outcome.UNAVAILABLE, reason="the body is not what the approval would be for"))
            return
        asked = self._asked(hold, now)
        found = self._ledger.find(asked, now)
        if found.request is None:
            self._finish(waiter, Answer(outcome=Outcome.TOO_MANY, reason=found.refusal))
            return
        if found.state is State.APPROVED:
            self._commit(found.entries)
            self._finish(waiter, self._told(self._ledger.requests[found.request], Outcome.APPROVED))
            return
        if found.state is State.DENIED:
            self._finish(waiter, self._told(self._ledger.requests[found.request], Outcome.DENIED))
            return
        if found.entries:
            self._store.put_body(asked.id, hold.body)
            if hold.exact:
                self._store.put_exact(asked.id, hold.exact)
            self._commit(found.entries)
        self._seat(waiter, found.request)

    def _seat(self, waiter: Waiter, request: str) -> None:
        seated = self._waiters.setdefault(request, [])
        if len(seated) >= limits.WAITERS_PER_REQUEST_MAX:
            self._finish(
                waiter, Answer(outcome=Outcome.TOO_MANY, id=request, reason=f"{len(seated)} clients wait for the same")
            )
            return
        seated.append(waiter)
        if waiter.request != request:
            waiter.request = request
            waiter.answer(Answer(outcome=Outcome.WAITING, id=request))

    def _asked(self, hold: Hold, now: Moment) -> Asked:
        bound = hold.bound
        assert 1 <= len(hold.demands) <= limits.RULES_MAX
        shown = dict(hold.shown)
        if max(len(msgpack.packb(facts)) for facts in (shown, hold.exact)) > limits.SHOWN_BYTES_MAX:
            raise ValueError("more is to be shown than there is room for")
        return Asked(
            id=self._new_id(),
            fingerprint=fingerprint(self._key, bound),
            shape=shape(self._key, bound, hold.body, is_json=hold.is_json, likeness=hold.likeness),
            since=now,
            wait_seconds=max(hold.hold_seconds, hold.ttl_seconds),
            ttl_seconds=hold.ttl_seconds,
            scope=hold.scope,
            demands=hold.demands,
            run=bound.run,
            uid=bound.uid,
            principal=None if bound.principal is None else bound.principal[:2],
            policy=bound.policy,
            shown=shown,
        )

    def leave(self, waiter: Waiter) -> None:
        """A client left while it waited: when it was the last, what it wanted is cancelled."""
        request = waiter.request
        if request is None:
            return
        self.lose(waiter)
        if request not in self._waiters:
            self._commit_or_note(self._ledger.cancel(self._ledger.requests[request], self._clock()))

    def lose(self, waiter: Waiter) -> None:
        """A proxy ended: its client cannot be told, and may come again."""
        request, waiter.request = waiter.request, None
        if request is not None:
            self._waiters[request].remove(waiter)
            if not self._waiters[request]:
                del self._waiters[request]

    def change_policy(self, version: str) -> None:
        """A proxy has another policy: what others asked for is void."""
        self._commit_or_note(self._ledger.change_policy(version, self._clock()))
        self._settle()

    # -- persons ---------------------------------------------------------------------------------------------------------------

    def approve(self, text: str, person: Person, scope: ApprovalScope) -> Request:
        """Take a yes; those that wait go on.

        Raises:
            CapdError: it does not count.
        """
        request = self._ledger.named(text)
        self._commit(self._ledger.approve(request, person, scope, self._clock()))
        self._settle()
        return self._ledger.requests[request.id]

    def deny(self, text: str, person: Person, reason: str) -> Request:
        """Take a no; those that wait are told.

        Raises:
            CapdError: it does not count.
        """
        request = self._ledger.named(text)
        self._commit(self._ledger.deny(request, person, reason, self._clock()))
        self._settle()
        return self._ledger.requests[request.id]

    def named(self, text: str) -> tuple[Request, bytes | None]:
        """Give a request and, while it waits, its body.

        Raises:
            UnknownRequestError, AmbiguousRequestError: there is none, or more than one.
        """
        request = self._ledger.named(text)
        return request, self._store.body(request.id) if request.state is State.PENDING else None

    def exact(self, request: Request) -> Mapping[str, object]:
        """Give what is masked in the facts of a request as it is, while it waits; empty: nothing is, or it is over."""
        return self._store.exact(request.id) if request.state is State.PENDING else {}

    def requests(self) -> list[Request]:
        """Give all, the latest last."""
        return sorted(self._ledger.requests.values(), key=lambda one: one.asked.since.wall_ns)

    def clients(self, request: Request) -> int:
        """Say how many wait for a request now."""
        return len(self._waiters.get(request.id, ()))

    # -- time ------------------------------------------------------------------------------------------------------------------

    def tick(self) -> float | None:
        """Do what is due; give seconds until something is again, None: nothing will be."""
        now = self._clock()
        self._commit_or_note(self._ledger.lapse(now))
        self._settle()
        for waiter in [one for seated in self._waiters.values() for one in seated if one.until.over(now)]:
            self._send_away(waiter)
        left = [one.until.left_ns(now) / NS_PER_SECOND for seated in self._waiters.values() for one in seated]
        lapsing = self._ledger.seconds_left(now)
        if lapsing is not None:
            left.append(lapsing or RETRY_SECONDS)
        return min(left, default=None)

    def _send_away(self, waiter: Waiter) -> None:
        """Tell a client to come again."""
        assert waiter.request is not None
        request = self._ledger.requests[waiter.request]
        try:
            self._commit(self._ledger.told(request))
        except ApprovalsUnwritableError as error:
            self._finish(waiter, Answer(outcome=Outcome.UNAVAILABLE, reason=str(error)))
            return
        self._finish(waiter, Answer(outcome=Outcome.PENDING, id=request.id))

    def _commit_or_note(self, entries: Sequence[Entry]) -> None:
        """Write what ends by itself; when that fails `problem` says so, and whatever looks at a deadline sees it is over."""
        try:
            self._commit(entries)
        except ApprovalsUnwritableError:
            assert self.problem

    def _settle(self) -> None:
        """Tell those that wait for what is decided, the first come first."""
        now = self._clock()
        for request in [self._ledger.requests[one] for one in self._waiters]:
            if request.state is State.PENDING and not request.deadline.over(now):
                continue
            for waiter in self._waiters.pop(request.id, []):
                if request.state is State.APPROVED:
                    self._try(waiter)
                else:
                    outcome = Outcome.EXPIRED if request.open else _OUTCOMES[request.state]
                    self._finish(waiter, self._told(request, outcome))

    def _told(self, request: Request, outcome: Outcome) -> Answer:
        names = [request.by.name] if request.by is not None else [vote.person.name for vote in request.votes]
        return Answer(outcome=outcome, id=request.id, by=", ".join(names), reason=request.reason, via=via(request))

    def _finish(self, waiter: Waiter, answer: Answer) -> None:
        """Give a last answer."""
        seated = self._waiters.get(waiter.request or "", [])
        if waiter in seated:
            seated.remove(waiter)
            if not seated:
                del self._waiters[waiter.request or ""]
        waiter.request = None
        waiter.answer(answer)
