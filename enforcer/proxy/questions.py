"""The questions of one session: those that wait for an answer or for a person, and those that what goes on stands on.

What lives here: asking the judge, waiting, withdrawing, asking again when the policy changed. What must not: sockets, the core.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable
from dataclasses import dataclass, field, replace
from typing import Final, Protocol

from capd.enforcer.approvals.hold import Answer, Outcome
from capd.enforcer.obligations.obligation import NOTHING, Obligations
from capd.enforcer.proxy.commands import Refused
from capd.enforcer.proxy.entry import Entry, held_entry
from capd.enforcer.proxy.held import verdict_of
from capd.enforcer.proxy.judge import Agent
from capd.enforcer.proxy.question import Kind, Question, Verdict
from capd.enforcer.proxy.world import World

LEFT: Final = "the client left while a person was asked"
CHANGED: Final = "the policy changed while this was decided, and does not allow it any more"
HELD_MAX: Final = 16
"""Of one session, that persons are asked about at once: as many as the desk takes of a whole run."""
JUDGED_MAX: Final = 8
"""Of one session, that wait for something other than a person, such as a name's lookup; further ones wait for these."""


class Asking(Protocol):
    """The session that asks."""

    id: str
    agent: Agent

    @property
    def listening(self) -> bool:
        """Whether its client is there to be told."""

    def found(self, question: Question, verdict: Verdict) -> None:
        """Take a verdict, to be written down and told."""

    def revoked(self, question: Question) -> None:
        """Take that what was allowed is not any more."""

    def waits(self, question: Question, approval: str) -> None:
        """Take that a person is asked, by the id of the request."""

    def left(self) -> None:
        """The client left while a person was asked."""

    def refused(self, command: Refused) -> None:
        """Write down a refusal."""

    def write(self, entry: Entry) -> None:
        """Write down anything else."""

    def failed(self) -> None:
        """Count a mistake of ours."""


@dataclass(slots=True)
class Questions:
    """Those of one session.

    Attributes:
        held: what persons are asked about, by number.
        standing: what was allowed and may still be under way, by number.
    """

    world: World
    tasks: asyncio.TaskGroup
    session: Asking
    held: dict[int, Question] = field(default_factory=dict)
    standing: dict[int, Question] = field(default_factory=dict)
    _waiting: dict[int, asyncio.Task[None]] = field(default_factory=dict)
    _obliged: dict[int, Obligations] = field(default_factory=dict)
    """What is done to what stands: a policy that wants something else done does not allow it as it goes on."""
    _queued: dict[int, Question] = field(default_factory=dict)
    _open: dict[int, int] = field(default_factory=dict)
    """What was asked, and neither answered nor withdrawn; with the count of policies at the time that it was judged."""
    _policies: int = 0
    """How often the policy has changed."""

    def ask(self, question: Question) -> None:
        """Have a question judged, now or when there is room."""
        self._open[question.number] = self._policies
        if not self._waiting or len(self._waiting) - len(self.held) < JUDGED_MAX:
            self._ask(question)
        else:
            self._queued[question.number] = question

    def _ask(self, question: Question) -> None:
        verdict = self.world.judge(self.session.agent, question)
        of_statement = question.kind is Kind.STATEMENT  # which lacks nothing
        if isinstance(verdict, Verdict) and verdict.held is None and (of_statement or not _lacks(question, verdict)):
            self._settled(question, verdict)
            return
        task = self.tasks.create_task(self._wait(question, verdict), name=f"judge {self.session.id}")
        self._waiting[question.number] = task
        task.add_done_callback(lambda _: self._answered(question.number))

    def _answered(self, number: int) -> None:
        """One does not wait any more: others may."""
        self._waiting.pop(number, None)
        self._go_on()

    def _go_on(self) -> None:
        while self._queued and len(self._waiting) - len(self.held) < JUDGED_MAX:
            question = self._queued.pop(next(iter(self._queued)))
            self._judged_now(question)
            self._ask(question)

    def withdraw(self, number: int) -> None:
        """Nobody waits for an answer any more."""
        self._open.pop(number, None)
        self._queued.pop(number, None)
        task = self._waiting.pop(number, None)
        if self.held.pop(number, None) is not None:
            self.session.refused(Refused(number, LEFT, ""))
        if task is not None:
            task.cancel()

    def answered(self, question: Question, verdict: Verdict) -> bool:
        """Take that a decision is written down; say whether somebody still waits for it."""
        judged = self._open.pop(question.number, None)
        if judged is None:
            return False
        if verdict.allowed:
            self._stands(question, verdict)
            if judged != self._policies:
                self.tasks.create_task(self._reconsider(question), name=f"judge {self.session.id} again")
        return True

    def _stands(self, question: Question, verdict: Verdict) -> None:
        """Remember what goes on: of a protocol with one exchange at a time the latest, else each until it is over.

        The session that a statement is said in stands beside it, as long as the connection does.
        """
        if question.exchange is None and question.kind is not Kind.STATEMENT:
            self.standing.clear()
            self._obliged.clear()
        elif question.exchange is None and self.standing:
            for number, one in list(self.standing.items()):
                if one.kind is not Kind.SESSION:
                    self.over(number)
        self.standing[question.number] = question
        self._obliged[question.number] = verdict.obligations

    def over(self, number: int) -> None:
        """Nothing more goes on under a decision."""
        self.standing.pop(number, None)
        self._obliged.pop(number, None)

    def close(self) -> None:
        """Wait for nothing any more."""
        self._queued.clear()
        self._open.clear()
        current = asyncio.current_task()
        for task in list(self._waiting.values()):
            if task is not current:
                task.cancel()
        self.held.clear()

    def leave(self) -> bool:
        """The client left; say whether a person was asked about anything."""
        for number in self.held:
            self.session.refused(Refused(number, LEFT, ""))
        return bool(self.held)

    def reconsider(self) -> None:
        """The policy has changed: ask again about what stands; what is just being answered is asked about once it stands."""
        self._policies += 1
        for question in list(self.standing.values()):
            self.tasks.create_task(self._reconsider(question), name=f"judge {self.session.id} again")

    async def _reconsider(self, question: Question) -> None:
        found = self.world.judge(self.session.agent, question)
        verdict = found if isinstance(found, Verdict) else await self._found(question, found)
        changes = question.request is not None and question.request.upgrade is not None
        obliged = self._obliged.get(question.number, NOTHING)
        if not verdict.allowed or (changes and not verdict.upgrade) or verdict.obligations != obliged:
            self.session.revoked(question)

    async def _wait(self, question: Question, verdict: Verdict | Awaitable[Verdict]) -> None:
        found = verdict if isinstance(verdict, Verdict) else await self._found(question, verdict)
        self._judged_now(question)
        if found.held is not None and len(self.held) >= HELD_MAX:
            found = verdict_of(found, Answer(outcome=Outcome.TOO_MANY, reason=f"{HELD_MAX} of this connection wait"))
        if found.held is not None:
            self.held[question.number] = question
            self._go_on()
            if not self.session.listening:
                self.session.left()
                return

            told = set[str]()

            def waits(approval: str) -> None:
                self.session.write(held_entry(self.session.id, question, approval, time.time_ns()))
                if approval not in told:
                    told.add(approval)
                    self.session.waits(question, approval)

            found = await self._found(question, self.world.hold(self.session.agent, question, found, waits))
            self.held.pop(question.number, None)
            self._judged_now(question)
        if _lacks(question, found):
            found = await self._equipped(question, found)
        assert found.held is None
        self._settled(question, found)

    def _settled(self, question: Question, verdict: Verdict) -> None:
        """Count what has limits, and have the verdict written down."""
        if verdict.allowed and verdict.obligations.limits:
            verdict = self.world.admit(self.session.agent, question, verdict)
        self.session.found(question, verdict)

    def _judged_now(self, question: Question) -> None:
        """Remember that the policy in force has judged it."""
        if question.number in self._open:
            self._open[question.number] = self._policies

    async def _equipped(self, question: Question, verdict: Verdict) -> Verdict:
        """Fetch what obligations need; a policy that came meanwhile has to want the same."""
        found = await self._found(question, self.world.equip(self.session.agent, question, verdict))
        if not found.allowed or self._open.get(question.number) == self._policies:
            return found
        judged = self.world.judge(self.session.agent, question)
        again = judged if isinstance(judged, Verdict) else await self._found(question, judged)
        self._judged_now(question)
        if again.allowed and again.obligations == verdict.obligations:
            return found
        denied = replace(found, allowed=False, reason="policy_changed", message=CHANGED)
        return replace(denied, obligations=NOTHING, provision=None, sign_in=None)

    async def _found(self, question: Question, verdict: Awaitable[Verdict]) -> Verdict:
        """Wait for a verdict; one that cannot be found is a denial."""
        try:
            return await verdict
        except Exception as error:  # noqa: BLE001 - whatever it was, nothing is allowed by it
            if not isinstance(error, OSError | TimeoutError):
                self.session.failed()
            return Verdict(number=question.number, allowed=False, reason="not_decided", message=str(error))


def _lacks(question: Question, verdict: Verdict) -> bool:
    """Say whether what obligations need is still to be fetched."""
    if not verdict.allowed or question.kind is Kind.STATEMENT:  # a session has signed in before anything is said in it
        return False
    if question.kind is Kind.SESSION:  # nobody signs in before it is known as whom
        known = question.login is not None and question.login.user is not None
        return known and bool(verdict.obligations.injections) and verdict.sign_in is None
    return bool(verdict.obligations) and verdict.provision is None
