"""A request for approval: what is asked, who may decide, what they said.

What lives here: the values. What must not: what changes them (ledger.py), how they are stored (entry.py) or shown.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from capd.enforcer.approvals.moment import Deadline, Moment
from capd.enforcer.approvals.state import OPEN, State
from capd.enforcer.policy.rule import ApprovalScope

WIDTH = {ApprovalScope.ONCE: 0, ApprovalScope.SHAPE: 1, ApprovalScope.RUN: 2}
"""How much one approval is good for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Channel:
    """How a person spoke who did not come to the socket of approvals.

    Attributes:
        webhook: through which he was asked, by name.
        link: id of the link or button that he used.
        user: what the chat tool calls him; "": he used a link.
    """

    webhook: str
    link: str
    user: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Person:
    """Who decides, as the operating system says.

    Attributes:
        uid: of the process that spoke for the person.
        name: of that user.
        groups: that the user is in, by name.
        login_uid: of whoever logged in (/proc/PID/loginuid), which sudo does not change; None: nobody did.
        in_run: whether the process is part of a run: then it is an agent, and no person.
        has_runs: whether agents run as that user now.
        channel: how he spoke; None: at the socket of approvals.
    """

    uid: int
    name: str
    groups: tuple[str, ...] = ()
    login_uid: int | None = None
    in_run: bool = False
    has_runs: bool = False
    channel: Channel | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Demand:
    """What one rule asks for.

    Attributes:
        rule: its id.
        quorum: how many persons must say yes.
        groups: of which they must be, each in at least one; none: every approver may.
    """

    rule: str
    quorum: int = 1
    groups: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What is asked, which never changes.

    Attributes:
        id: of the request.
        fingerprint: of the action (action_hash.py).
        shape: of its shape.
        since: when.
        wait_seconds: how long it waits for persons.
        ttl_seconds: how long an approval is good, and how long a denial is not asked again.
        scope: the widest that an approval may be good for.
        demands: all of which must be met.
        run: id of the run.
        uid: of the process that asks; None where it is not known.
        principal: kind and name of whom it acts for.
        policy: version of the policy.
        shown: facts for the person, as JSON has them (docs/json.md).
    """

    id: str
    fingerprint: bytes
    shape: bytes
    since: Moment
    wait_seconds: int
    ttl_seconds: int
    scope: ApprovalScope
    demands: tuple[Demand, ...]
    run: str | None
    uid: int | None
    principal: tuple[str, str] | None
    policy: str
    shown: Mapping[str, object] = field(default_factory=dict)

    @property
    def rules(self) -> tuple[str, ...]:
        """Give the rules that want it."""
        return tuple(demand.rule for demand in self.demands)


@dataclass(frozen=True, slots=True, kw_only=True)
class Vote:
    """A yes.

    Attributes:
        person: whose.
        scope: what for.
        at: when.
    """

    person: Person
    scope: ApprovalScope
    at: Moment


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """A request as it stands.

    Attributes:
        asked: what is asked.
        state: where it is.
        votes: yeses, of different persons.
        told: whether a client was told to come again: then none waits, and none can leave.
        changed: when the state became what it is.
        by: the person who denied it.
        reason: why it ended, in words.
    """

    asked: Asked
    state: State = State.PENDING
    votes: tuple[Vote, ...] = ()
    told: bool = False
    changed: Moment
    by: Person | None = None
    reason: str = ""

    @property
    def id(self) -> str:
        """Give its id."""
        return self.asked.id

    @property
    def open(self) -> bool:
        """Whether anything can still happen to it."""
        return self.state in OPEN

    @property
    def scope(self) -> ApprovalScope:
        """Give what it is approved for: what the most careful of those who said yes meant."""
        return min((vote.scope for vote in self.votes), key=WIDTH.__getitem__, default=ApprovalScope.ONCE)

    @property
    def deadline(self) -> Deadline:
        """Give when it ends by itself, or, when it was denied, may be asked again."""
        if self.state is State.PENDING:
            return Deadline(since=self.asked.since, seconds=self.asked.wait_seconds)
        return Deadline(since=self.changed, seconds=self.asked.ttl_seconds)

    def spoken(self) -> tuple[Person, ...]:
        """Give those who said something that counts."""
        return (*(vote.person for vote in self.votes), *(() if self.by is None else (self.by,)))

    def missing(self) -> tuple[Demand, ...]:
        """Give the demands that are not met."""
        return tuple(one for one in self.asked.demands if self.yeses(one) < one.quorum)

    def yeses(self, demand: Demand) -> int:
        """Count the yeses that count for a demand."""
        return sum(may_meet(vote.person, demand) for vote in self.votes)


def may_meet(person: Person, demand: Demand) -> bool:
    """Say whether a person's yes counts for a demand."""
    return not demand.groups or not set(demand.groups).isdisjoint(person.groups)
