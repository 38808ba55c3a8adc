"""Values for tests of approvals: an action, persons, a clock that stands still until it is told.

What lives here: making them. What must not: expectations.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from hashlib import sha256
from itertools import count
from pathlib import Path
from typing import Any

from capd.enforcer.approvals.action_hash import Bound
from capd.enforcer.approvals.desk import Desk
from capd.enforcer.approvals.hold import Answer, Hold
from capd.enforcer.approvals.moment import NS_PER_SECOND, Moment
from capd.enforcer.approvals.request import Demand, Person
from capd.enforcer.approvals.store import Store
from capd.enforcer.policy.rule import ApprovalScope

KEY = b"k" * 32
BODY = b'{"amount": 5, "to": "bob"}'
ANN = Person(uid=1001, name="ann", groups=("approvers", "finance"))
BEN = Person(uid=1002, name="ben", groups=("approvers",))
AGENT = 2000


@dataclass
class Clock:
    """Two clocks that only a test moves."""

    wall_ns: int = 1_800_000_000 * NS_PER_SECOND
    boot_ns: int = 1_000 * NS_PER_SECOND
    boot: str = "first"

    def __call__(self) -> Moment:
        """Give the time."""
        return Moment(wall_ns=self.wall_ns, boot_ns=self.boot_ns, boot=self.boot)

    def pass_seconds(self, seconds: float) -> None:
        """Let time pass."""
        self.wall_ns += int(seconds * NS_PER_SECOND)
        self.boot_ns += int(seconds * NS_PER_SECOND)


def bound(body: bytes = BODY, **other: Any) -> Bound:  # noqa: ANN401 - any fact
    """Give an action."""
    facts: dict[str, Any] = {
        "principal": ("unit", "agents.slice", "unverified"),
        "run": "run-1",
        "uid": AGENT,
        "host": "api.test",
        "port": 443,
        "address": "192.0.2.1",
        "tls": "inspected",
        "protocol": "http",
        "operation": "POST",
        "path": "/pay",
        "query": "n=1",
        "fields": (("Content-Type", "application/json"), ("Authorization", "Bearer x")),
        "body_sha256": sha256(body).digest(),
        "policy": "p1",
    }
    return Bound(**{**facts, **other})


def hold(body: bytes = BODY, *, scope: ApprovalScope = ApprovalScope.ONCE, quorum: int = 1, **other: Any) -> Hold:  # noqa: ANN401 - as above
    """Give an action that waits for 55 seconds, with approvals good for 900."""
    groups = other.pop("groups", ())
    return Hold(
        bound=bound(body, **other),
        body=body,
        is_json=True,
        hold_seconds=55,
        ttl_seconds=900,
        scope=scope,
        demands=(Demand(rule="pay", quorum=quorum, groups=groups),),
        shown={"method": "POST"},
    )


@dataclass
class Scene:
    """A desk over a directory, which can be left and taken up again."""

    directory: Path
    clock: Clock = field(default_factory=Clock)
    ids: Any = field(default_factory=count)

    def desk(self) -> Desk:
        """Open the desk, as after a start."""
        return Desk(Store(self.directory), self.clock, lambda: f"req{next(self.ids):07d}", KEY)


class Client:
    """Keeps what it was told."""

    def __init__(self, desk: Desk, wanted: Hold) -> None:
        self.answers: list[Answer] = []
        self.waiter = desk.hold(wanted, self.answers.append)

    @property
    def last(self) -> Answer:
        """Give the latest."""
        return self.answers[-1]

    @property
    def outcomes(self) -> list[str]:
        """Give the outcomes in their order."""
        return [answer.outcome.value for answer in self.answers]
