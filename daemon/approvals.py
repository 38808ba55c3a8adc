"""What a worker of the enforcer does with what a person has to approve: asks, waits, judges anew when the policy changed.

What lives here: that loop. What must not: deciding (enforcer/approvals), the proxy's shell.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Final

from capd.daemon.run_context import RunContext
from capd.enforcer.approvals.hold import Answer, Outcome
from capd.enforcer.approvals.hold_client import Holds
from capd.enforcer.proxy.held import in_short, verdict_of
from capd.enforcer.proxy.judge import Agent
from capd.enforcer.proxy.question import Question, Verdict

JUDGED_AGAIN_MAX: Final = 3
"""Policies that change while a person is asked; one that changes more often lets nothing go."""

Judge = Callable[[Agent, Question], Verdict | Awaitable[Verdict]]


class Approvals:
    """Of one worker."""

    def __init__(self, holds: Holds, context: RunContext, judge: Judge, version: Callable[[], str]) -> None:
        """Prepare.

        Args:
            holds: asks the desk.
            context: what a person is shown beside.
            judge: judges anew.
            version: of the policy in force.
        """
        self._holds, self._context, self._judge, self._version = holds, context, judge, version

    async def hold(self, agent: Agent, question: Question, held: Verdict, waits: Callable[[str], None]) -> Verdict:
        """Have a person decide, as `Holding` says."""
        for _ in range(JUDGED_AGAIN_MAX):
            assert held.held is not None
            asked = replace(held.held, shown={**held.held.shown, **self._context.shown(agent)})
            answer = await self._holds.hold(asked, waits)
            stale = answer.outcome is Outcome.APPROVED and self._version() != held.policy
            if answer.outcome is not Outcome.POLICY_CHANGED and not stale:
                return self._noticed(agent, question, verdict_of(held, answer))
            found = self._judge(agent, question)
            verdict = found if isinstance(found, Verdict) else await found
            if verdict.held is None:
                return verdict
            held = verdict
        return verdict_of(held, Answer(outcome=Outcome.POLICY_CHANGED))

    def notice(self, agent: Agent, question: Question, verdict: Verdict) -> None:
        """Keep a message for the context of later ones."""
        self.notice_short(agent, in_short(question, verdict))

    def notice_short(self, agent: Agent, short: tuple[str, str] | None) -> None:
        """Keep a message that was said in short already; None: there is nothing to keep."""
        if short is not None:
            self._context.notice(agent, *short)

    def _noticed(self, agent: Agent, question: Question, verdict: Verdict) -> Verdict:
        self.notice(agent, question, verdict)
        return verdict

    async def tell_policy(self) -> None:
        """Tell the desk which policy is in force; one that is not there learns it from what it is asked next."""
        await self._holds.change_policy(self._version())

    def stop(self) -> None:
        """This process ends: whoever waits did not leave."""
        self._holds.stopping = True
