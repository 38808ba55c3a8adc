"""Run a policy against a recording: session by session, message by message.

What lives here: counting and keeping what came out. What must not: judging, how records become actions, layout.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from capd.enforcer.policy.decision import Judgement, Outcome
from capd.enforcer.policy.policy import Policy
from capd.enforcer.policy.recorded_action import Recorded, recorded_actions, unjudged
from capd.recording.index_search import SessionFilter
from capd.recording.reading import Readable
from capd.recording.rows import SessionRow, rfc3339


@dataclass(frozen=True, slots=True, kw_only=True)
class Span:
    """The time in which messages are judged, in ns since 1970; None: no limit."""

    from_ns: int | None = None
    until_ns: int | None = None

    def __contains__(self, time_ns: int) -> bool:
        return (self.from_ns is None or time_ns >= self.from_ns) and (self.until_ns is None or time_ns < self.until_ns)


@dataclass(frozen=True, slots=True, kw_only=True)
class Judged:
    """A message, and what would have become of it."""

    row: SessionRow
    recorded: Recorded
    judgement: Judgement

    def to_json(self) -> dict[str, object]:
        """Give the public form."""
        action = self.recorded.action
        return {
            "session": str(self.row.session),
            "message": self.recorded.ordinal,
            "time": rfc3339(self.recorded.time_ns),
            "protocol": action.protocol,
            "operation": action.operation,
            "host": action.target.host,
            "port": action.target.port,
            "summary": self.recorded.summary,
            "outcome": self.judgement.outcome.value,
            "rules": list(self.judgement.rules),
            "reason": self.judgement.reason,
            "problems": list(action.problems),
        }


@dataclass(slots=True)
class Replayed:
    """What came out.

    Attributes:
        outcomes: messages by outcome.
        incomplete: how many messages could not be read in full.
        sessions: how many were judged.
        partial: how many of them are not recorded completely: what is missing was not judged.
        passed_over: sessions that a policy does not judge, by reason.
        kept: messages to print, the earliest session last.
        left_out: how many more there are.
    """

    outcomes: Counter[str] = field(default_factory=Counter)
    incomplete: int = 0
    sessions: int = 0
    partial: int = 0
    passed_over: Counter[str] = field(default_factory=Counter)
    kept: list[Judged] = field(default_factory=list)
    left_out: int = 0

    def to_json(self, policy: str) -> dict[str, object]:
        """Give the public form."""
        return {
            "policy": policy,
            "sessions": self.sessions,
            "partial_sessions": self.partial,
            "passed_over": dict(self.passed_over),
            "allowed": self.outcomes[Outcome.ALLOW],
            "held": self.outcomes[Outcome.APPROVE],
            "denied": self.outcomes[Outcome.DENY],
            "incomplete": self.incomplete,
            "messages": [one.to_json() for one in self.kept],
            "messages_left_out": self.left_out,
        }


def replayed(policy: Policy, archive: Readable, chosen: SessionFilter, span: Span, *, keep: int, everything: bool) -> Replayed:
    """Judge what was recorded, as if all of the policy were in force.

    Args:
        policy: what judges.
        archive: what was recorded.
        chosen: which sessions.
        span: which messages of them.
        keep: how many messages are kept to be printed.
        everything: whether those that are allowed are kept too.
    """
    found = Replayed()
    for row in archive.index.sessions(chosen, limit=None):
        reason = unjudged(row)
        if reason is not None:
            found.passed_over[reason] += 1
            continue
        found.sessions += 1
        found.partial += row.verdict != "complete"
        for recorded in recorded_actions(row, archive.records(row.session)):
            if recorded.time_ns in span:
                _count(
                    found, Judged(row=row, recorded=recorded, judgement=policy.decide(recorded.action).judged), keep, everything
                )
    return found


def _count(found: Replayed, judged: Judged, keep: int, everything: bool) -> None:
    outcome = judged.judgement.outcome
    found.outcomes[outcome] += 1
    found.incomplete += not judged.recorded.action.complete
    if outcome is Outcome.ALLOW and not everything:
        return
    if len(found.kept) < keep:
        found.kept.append(judged)
    else:
        found.left_out += 1
