"""What the shell needs of the world, and what it counts.

What lives here: the narrow interfaces, each of which a test can give in values. What must not: sockets, deciding.
"""

from __future__ import annotations

import socket
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

from capd.enforcer.entry_form import Form
from capd.enforcer.policy.address_range import address, is_ordinary
from capd.enforcer.proxy.connection import Connection
from capd.enforcer.proxy.events import Side
from capd.enforcer.proxy.flow import Owner, original_destination
from capd.enforcer.proxy.judge import Agent
from capd.enforcer.proxy.layer import Opened
from capd.enforcer.proxy.load import OwnLoad, alone
from capd.enforcer.proxy.question import Destination, Question, Verdict


class Judging(Protocol):
    """Decides; may have to wait."""

    def __call__(self, agent: Agent, question: Question) -> Verdict | Awaitable[Verdict]:
        """Give the verdict, or what will be one."""


class Holding(Protocol):
    """Has a person decide. Cancelled when the client leaves."""

    def __call__(self, agent: Agent, question: Question, held: Verdict, waits: Callable[[str], None], /) -> Awaitable[Verdict]:
        """Give what will be the verdict; `waits` is told the id of the request when a person is asked."""


class Equipping(Protocol):
    """Fetches what the obligations of an allowed request need."""

    def __call__(self, agent: Agent, question: Question, verdict: Verdict, /) -> Awaitable[Verdict]:
        """Give what will be a verdict that can be carried out, or one that denies."""


class Admitting(Protocol):
    """Counts a statement that is allowed under limits, just before that is written down."""

    def __call__(self, agent: Agent, question: Question, verdict: Verdict, /) -> Verdict:
        """Give the verdict, or one that denies."""


def uncounted(_agent: Agent, _question: Question, verdict: Verdict) -> Verdict:
    """Count nothing: whoever has nothing to count with denies."""
    return replace(verdict, allowed=False, reason="cannot_be_counted", message="nothing is there to count it with")


async def unequipped(_agent: Agent, _question: Question, verdict: Verdict) -> Verdict:
    """Fetch nothing: whoever has nothing to fetch it with denies."""
    return replace(verdict, allowed=False, reason="cannot_be_carried_out", message="nothing is there to carry it out with")


async def nobody(_agent: Agent, _question: Question, held: Verdict, _waits: Callable[[str], None]) -> Verdict:
    """Hold nothing: there is nobody to ask."""
    return replace(held, held=None)


class Log(Protocol):
    """Where decisions are written (enforcer/decision_log.py)."""

    @property
    def full(self) -> bool:
        """Whether nothing more can be queued before the next flush."""

    def append(self, entry: Mapping[str, object]) -> None:
        """Queue an entry."""

    def append_filled(self, form: Form, values: Sequence[bytes]) -> None:
        """Queue an entry of which a form has all but some values, packed."""

    def leave_out(self) -> None:
        """Count an entry that has no room."""

    def flush(self) -> None:
        """Write what is queued. Raises OSError."""


@dataclass(frozen=True, kw_only=True)
class Place:
    """Another network namespace than the enforcer's own, which dials from its own all the same.

    Attributes:
        number: the kernel's.
        owner: as the world's, of sockets there.
    """

    number: int
    owner: Callable[[tuple[str, int], tuple[str, int]], Owner | None]


@dataclass(frozen=True, kw_only=True)
class World:
    """What the shell needs of the world.

    Attributes:
        judge: decides.
        log: where decisions are written.
        owner: says whose socket it is, by its own end and the one it believes to be connected to; raises OSError.
        agent: says whose run it is; None: of none.
        connection: makes the core of a connection.
        session: makes an id.
        hold: has a person decide about what is held.
        equip: fetches what obligations need.
        admit: counts statements that have limits.
        destination: says where an accepted connection wanted to go; None: it was not redirected.
        said_key: by which what is said is digested; empty: it is not.
        load: how many connections this worker has, beside others.
    """

    judge: Judging
    log: Log
    owner: Callable[[tuple[str, int], tuple[str, int]], Owner | None]
    agent: Callable[[Owner], Agent | None]
    connection: Callable[[Destination, Opened], Connection]
    session: Callable[[], str]
    hold: Holding = nobody
    equip: Equipping = unequipped
    said_key: bytes = field(default=b"", repr=False)
    admit: Admitting = uncounted
    destination: Callable[[socket.socket], tuple[str, int] | None] = original_destination
    load: OwnLoad = field(default_factory=alone)


def leads_out(text: str) -> bool:
    """Say whether an address means the same in every network namespace of this host, so that one may be dialled for another."""
    found = address(text)
    return found is not None and is_ordinary(found)


@dataclass(kw_only=True)
class Counters:
    """What happened since the start.

    Attributes:
        accepted: connections that were let in.
        turned_away: those that were not, by reason.
        allowed, denied: decisions.
        refused: what the core refused by itself.
        unlogged: decisions that could not be written, and became denials.
        cut_for_room: connections cut because their run kept too many bytes for too long (room.py).
        exceeded: limits that were reached, by name.
        exported_at: when one for exports was, last, by the clock that does not go back.
        defects: connections cut because of a mistake of ours.
        bytes: to the targets, to the agents.
    """

    accepted: int = 0
    turned_away: Counter[str] = field(default_factory=Counter)
    exceeded: Counter[str] = field(default_factory=Counter)
    exported_at: float | None = None
    allowed: int = 0
    denied: int = 0
    refused: int = 0
    unlogged: int = 0
    cut_for_room: int = 0
    defects: int = 0
    bytes: dict[Side, int] = field(default_factory=lambda: dict.fromkeys(Side, 0))

    def reached(self, limit: str, now: float) -> None:
        """Count that a limit was reached."""
        self.exceeded[limit] += 1
        if limit.startswith("export_"):
            self.exported_at = now
