"""Run a policy against a recording: session by session, message by message.

What lives here: counting and keeping what came out. What must not: judging, how records become actions, layout.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Final

from capd.enforcer.policy.decision import Judgement, Outcome
from capd.enforcer.policy.policy import Policy
from capd.enforcer.policy.protocol import TLS
from capd.enforcer.policy.recorded_action import Missing, Recorded, recorded_actions, unjudged
from capd.recording.index_search import SessionFilter
from capd.recording.reading import Readable
from capd.recording.rows import SessionRow, rfc3339

UNREAD: Final = "TLS sessions whose content was not recorded; enforcing would open them and judge that"


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
        missing: places in judged sessions at which messages may be that were not judged, by reason.
        kept: messages to print, the earliest session last.
        left_out: how many more there are.
    """

    outcomes: Counter[str] = field(default_factory=Counter)
    incomplete: int = 0
    sessions: int = 0
    partial: int = 0
    passed_over: Counter[str] = field(default_factory=Counter)
    missing: Counter[str] = field(default_factory=Counter)
    kept: list[Judged] = field(default_factory=list)
    left_out: int = 0

    def to_json(self, policy: str) -> dict[str, object]:
        """Give the public form."""
        return {
            "policy": policy,
            "sessions": self.sessions,
            "partial_sessions": self.partial,
            "passed_over": dict(self.passed_over),
            "missing": dict(self.missing),
            "allowed": self.outcomes[Outcome.ALLOW],
            "held": self.outcomes[Outcome.APPROVE],
            "denied": self.outcomes[Outcome.DENY],
            "incomplete": self.incomplete,
            "messages": [one.to_json() for one in self.kept],
            "messages_left_out": self.left_out,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """What is tried.

    Attributes:
        policy: what judges, as if all of it were in force.
        span: which messages are judged.
        keep: how many are kept to be printed.
        everything: whether those that are allowed are kept too.
    """

    policy: Policy
    span: Span = Span()
    keep: int
    everything: bool = False


def replayed(trial: Trial, archive: Readable, chosen: SessionFilter) -> Replayed:
    """Judge what was recorded in the sessions that pass a filter."""
    found = Replayed()
    for row in archive.index.sessions(chosen, limit=None):
        reason = unjudged(row)
        if reason is None and not _judge_session(trial, archive, row, found):
            reason = UNREAD
        if reason is not None:
            found.passed_over[reason] += 1
            continue
        found.sessions += 1
        found.partial += row.verdict != "complete"
    return found


def _judge_session(trial: Trial, archive: Readable, row: SessionRow, found: Replayed) -> bool:
    """Judge the messages of a session; give whether that could be done."""
    for recorded in recorded_actions(row, archive.records(row.session)):
        if recorded.time_ns not in trial.span:
            continue
        if isinstance(recorded, Missing):
            found.missing[recorded.reason] += 1
            continue
        judged = Judged(row=row, recorded=recorded, judgement=trial.policy.judge(recorded.action).judged)
        if _unread(trial.policy, judged):
            return False
        _count(found, judged, trial)
    return True


def _unread(policy: Policy, judged: Judged) -> bool:
    """Say whether what was said decides, and was not recorded. A rule that denies the target decides anyway."""
    action, judgement = judged.recorded.action, judged.judgement
    if action.protocol != TLS or policy.passes_through(action.target):
        return False
    return not (judgement.outcome is Outcome.DENY and judgement.rules)


def _count(found: Replayed, judged: Judged, trial: Trial) -> None:
    outcome = judged.judgement.outcome
    found.outcomes[outcome] += 1
    found.incomplete += not judged.recorded.action.complete
    if outcome is Outcome.ALLOW and not trial.everything:
        return
    if len(found.kept) < trial.keep:
        found.kept.append(judged)
    else:
        found.left_out += 1
