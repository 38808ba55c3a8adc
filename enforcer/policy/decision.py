"""What is decided about an action.

What lives here: the decision and its public form. What must not: deciding.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from enum import StrEnum

from capd.enforcer.policy.limit import Limit
from capd.enforcer.policy.rule import Approval, Injection, Mask
from capd.enforcer.policy.scope import Mode, Recording


class Outcome(StrEnum):
    """What happens to the message."""

    ALLOW = "allow"
    APPROVE = "approve"
    DENY = "deny"


@dataclass(frozen=True, slots=True, kw_only=True)
class Judgement:
    """What a set of rules makes of an action.

    Attributes:
        outcome: what happens.
        rules: ids of the rules that decided, sorted; none: the default did, or two injections that contradict each other.
        reason: why, in words for the agent.
    """

    outcome: Outcome
    rules: tuple[str, ...]
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """What is decided.

    Attributes:
        carried_out: what happens.
        judged: what would happen were everything in force: scopes that only observe, and rules that are only observed.
        mode: whether decisions about this action are carried out.
        approvals: of the outcome approve: each rule, with what it asks for; all of it must be met.
        masks, injections: what is hidden and put in before the message goes on; by rule.
        limits: guard rails; by rule.
        logs: rules that want it logged.
        recording: how much is recorded; None: the configuration decides.
        problems: why capd could not read all of the action.
        policy: version of the policy.
    """

    carried_out: Judgement
    judged: Judgement
    mode: Mode
    approvals: tuple[tuple[str, Approval], ...] = ()
    masks: tuple[tuple[str, Mask], ...] = ()
    injections: tuple[tuple[str, Injection], ...] = ()
    limits: tuple[tuple[str, Limit], ...] = ()
    logs: tuple[str, ...] = ()
    recording: Recording | None = None
    problems: tuple[str, ...] = ()
    policy: str

    @property
    def outcome(self) -> Outcome:
        """What happens to the message."""
        return self.carried_out.outcome

    @property
    def would_deny(self) -> bool:
        """Whether it is let through now, and would be denied were everything in force."""
        return self.judged.outcome is Outcome.DENY and self.outcome is not Outcome.DENY

    def to_json(self) -> dict[str, object]:
        """Give the public form (docs/json.md)."""
        return {
            "outcome": self.outcome.value,
            "rules": list(self.carried_out.rules),
            "reason": self.carried_out.reason,
            "mode": self.mode.value,
            "would": self.judged.outcome.value,
            "would_rules": list(self.judged.rules),
            "would_deny": self.would_deny,
            "approvals": [{"rule": rule, **asdict(approval)} for rule, approval in self.approvals],
            "masks": [{"rule": rule, **{key: one for key, one in asdict(mask).items() if one}} for rule, mask in self.masks],
            "injections": [{"rule": rule, **asdict(injection)} for rule, injection in self.injections],
            "limits": [
                {"rule": rule, **{key: one for key, one in asdict(limit).items() if one}} for rule, limit in self.limits
            ],
            "logs": list(self.logs),
            "recording": None if self.recording is None else self.recording.value,
            "problems": list(self.problems),
            "policy": self.policy,
        }
