"""Webhooks as the desk knows them: what each serves, and for whom it speaks.

What lives here: that. What must not: addresses and secrets, which the process that sends alone has.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from capd.enforcer.approvals.request import Request


@dataclass(frozen=True, slots=True, kw_only=True)
class Webhook:
    """One of them.

    Attributes:
        name: how it is called.
        approver: name of the user for whom its links speak; None: it has none, and only tells.
        users: by the chat tool's id of a user, the name of the user of this host whom his presses speak for.
        rules: ids of rules whose requests are told; none: all.
        groups: groups for whose decision requests are told; none: all.
    """

    name: str
    approver: str | None = None
    users: Mapping[str, str] = field(default_factory=dict)
    rules: tuple[str, ...] = ()
    groups: tuple[str, ...] = ()

    def serves(self, request: Request) -> bool:
        """Say whether a request is told to it: some demand has one of its rules, and of its groups."""
        return any(
            (not self.rules or demand.rule in self.rules)
            and (not self.groups or not set(self.groups).isdisjoint(demand.groups))
            for demand in request.asked.demands
        )
