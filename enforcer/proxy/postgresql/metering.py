"""Which limits the answers to a statement are counted against, in one session.

What lives here: limits that stay with cursors and prepared statements. What must not: counting (enforcer/limits).

FETCH and EXECUTE name a cursor or a statement, not what is in it: a rule about a relation, or a text, does not see them. So
whatever limits what they may stand for limits them.
"""

from __future__ import annotations

from typing import Final

from capd.enforcer.limits.counting import Counting
from capd.enforcer.limits.meter import Limits, Meter
from capd.enforcer.policy.limit import Limit
from capd.enforcer.proxy.commands import Exceed
from capd.enforcer.proxy.layer import Surroundings
from capd.enforcer.proxy.postgresql.metered import Metered
from capd.enforcer.proxy.postgresql.names import Names, Portal
from capd.enforcer.proxy.postgresql.outbox import Outbox
from capd.enforcer.proxy.postgresql.rewriting import Rewriting
from capd.enforcer.proxy.question import Verdict
from capd.enforcer.sql.message import SEPARATOR, Message

_KEEPS: Final = frozenset({"DECLARE", "PREPARE"})
_GIVES: Final = frozenset({"FETCH", "EXECUTE"})


class Metering:
    """Of one session."""

    def __init__(self, around: Surroundings, outbox: Outbox) -> None:
        self._around, self._outbox = around, outbox
        self._kept: dict[str, Limit] = {}
        """By rule: as many as a policy has."""

    def of(self, verdict: Verdict, message: Message, portals: Names[Portal], inner: Rewriting | None = None) -> Metered | None:
        """Give what counts the answers to a statement; None: nobody does.

        Args:
            verdict: about it.
            message: what it does.
            portals: that it may fetch from.
            inner: what its answers go through besides.
        """
        limits: Limits = verdict.obligations.limits
        if not limits and not any(word in message.command for word in _GIVES):
            return None  # most statements
        commands = frozenset(message.command.split(SEPARATOR))
        if limits and (message.problems or commands & _KEEPS):
            self._kept.update(limits)
        if commands & _GIVES:
            limits = self._with_others(limits, portals)
        if not limits:
            return None
        around, number = self._around, verdict.number
        meter = Meter(limits=limits, totals=around.totals, run=around.run)
        counting = Counting(meter, around.now, lambda exceeded: self._outbox.do(Exceed(number, exceeded)))
        return Metered(counting, inner)

    def _with_others(self, limits: Limits, portals: Names[Portal]) -> Limits:
        """Add limits of what the statement may stand for; of a rule that has both, its own are those in force."""
        found = dict(self._kept)
        for portal in portals.all():
            found.update(() if portal.metered is None else portal.metered.limits)
        return tuple((found | dict(limits)).items())
