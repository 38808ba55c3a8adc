"""What health hangs on of what the enforcer says.

What lives here: the facts. What must not: finding them (status.py), judging (health.py).
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class EnforcerFacts:
    """What the enforcer says of itself.

    Attributes:
        running: whether its process lives.
        seconds: age of its status; None if there is none.
        unlogged: decisions that could not be written down since its start.
        exported_seconds: since a run was last given more than a rule's limit for exports; None: none was.
        policy_problem: why the policy on disk is not in force, or None.
        approvals_problem: why nobody can be asked to approve anything, or None.
        callbacks_problem: why somebody beyond this host is not told what waits, or None.
        failure: why it did not start, and what to do, in its own words; None: it did, or did not say.
    """

    running: bool
    seconds: float | None
    unlogged: int
    policy_problem: str | None
    approvals_problem: str | None = None
    callbacks_problem: str | None = None
    exported_seconds: float | None = None
    failure: tuple[str, str] | None = None
