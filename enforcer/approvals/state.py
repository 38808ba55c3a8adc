"""The states of a request, as a table.

What lives here: states, what changes them. What must not: who may change them (eligibility.py), when (ledger.py).

What the policy denies never becomes a request, so that `denied` here always means: by a person.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Final


class State(StrEnum):
    """Where a request is."""

    PENDING = "pending"
    """It waits for persons."""
    APPROVED = "approved"
    """Enough said yes; not used yet, or good for more than one use."""
    USED = "used"
    """It was good for one use, and had it."""
    DENIED = "denied"
    """A person said no, or took a yes back."""
    EXPIRED = "expired"
    """Nobody decided in time, or what was approved was not used in time."""
    CANCELLED = "cancelled"
    """The client left while it waited."""
    POLICY_CHANGED = "policy_changed"
    """The policy is another one now: it has to be asked anew, by that one."""


class Change(StrEnum):
    """What happens to a request; each is an entry of the store."""

    APPROVE = "approve"
    DENY = "deny"
    USE = "use"
    EXPIRE = "expire"
    CANCEL = "cancel"
    CHANGE_POLICY = "change_policy"


TRANSITIONS: Final[dict[State, dict[Change, State]]] = {
    State.PENDING: {
        Change.APPROVE: State.APPROVED,
        Change.DENY: State.DENIED,
        Change.EXPIRE: State.EXPIRED,
        Change.CANCEL: State.CANCELLED,
        Change.CHANGE_POLICY: State.POLICY_CHANGED,
    },
    State.APPROVED: {
        Change.USE: State.USED,
        Change.DENY: State.DENIED,
        Change.EXPIRE: State.EXPIRED,
        Change.CHANGE_POLICY: State.POLICY_CHANGED,
    },
    State.USED: {},
    State.DENIED: {},
    State.EXPIRED: {},
    State.CANCELLED: {},
    State.POLICY_CHANGED: {},
}
"""What is not here cannot happen. Nothing leads out of an end, and nothing leads from an end to `approved`."""

OPEN: Final = frozenset(state for state, changes in TRANSITIONS.items() if changes)


def after(state: State, change: Change) -> State | None:
    """Give the state that follows; None: that cannot happen."""
    return TRANSITIONS[state].get(change)
