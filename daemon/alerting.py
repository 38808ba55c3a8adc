"""When an alert begins and when it ends, from one judgement to the next.

What lives here: the rule, as a function from what was known and what is judged now. What must not: judging (health.py), where
it is told (alert_log.py, alert_files.py), clocks: the time comes in.

What comes and goes is told once: a cause must have been there for `begin_seconds` without a break, and be gone for
`end_seconds` without a break. While the daemon does not answer nobody knows of the other causes, so none of them ends.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from capd.daemon.alert_kinds import Alert
from capd.daemon.health import Health, Verdict
from capd.daemon.reason import Reason


@dataclass(frozen=True, kw_only=True)
class Active:
    """An alert that was told and has not ended.

    Attributes:
        since: wall time of its first sight, in seconds.
        reason: as it was judged last.
    """

    since: float
    reason: Reason


@dataclass(frozen=True, kw_only=True)
class Change:
    """An alert begins or ends, and has to be told.

    Attributes:
        begins: which of the two.
        active: the alert.
        seconds: how long it has lasted.
    """

    begins: bool
    active: Active
    seconds: float


@dataclass(frozen=True, kw_only=True)
class Alerts:
    """What is known between two judgements.

    Attributes:
        active: what was told.
        seen: monotonic and wall time of the first sight of what was not told yet.
        gone: monotonic time since when something of `active` is gone.
    """

    active: Mapping[Alert, Active] = field(default_factory=dict)
    seen: Mapping[Alert, tuple[float, float]] = field(default_factory=dict)
    gone: Mapping[Alert, float] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Patience:
    """How long something must be so before it is told, in seconds."""

    begin_seconds: float
    end_seconds: float


def follow(alerts: Alerts, health: Health, patience: Patience, *, now: float, wall: float) -> tuple[Alerts, tuple[Change, ...]]:
    """Give what is known after a judgement, and what is to be told.

    Args:
        alerts: what was known.
        health: the judgement.
        patience: how long something must be so.
        now: monotonic time in seconds.
        wall: wall time in seconds.
    """
    reasons = {reason.alert: reason for reason in health.reasons}
    seen = {alert: alerts.seen.get(alert, (now, wall)) for alert in reasons if alert not in alerts.active}
    begun = {
        alert: Active(since=since, reason=reasons[alert])
        for alert, (first, since) in seen.items()
        if now - first >= patience.begin_seconds
    }
    unknown = health.verdict is Verdict.DOWN
    gone = {alert: alerts.gone.get(alert, now) for alert in alerts.active if alert not in reasons and not unknown}
    over = {alert for alert, since in gone.items() if now - since >= patience.end_seconds}
    kept = {
        alert: replace(active, reason=reasons.get(alert, active.reason))
        for alert, active in alerts.active.items()
        if alert not in over
    }
    changes = (
        *(Change(begins=True, active=active, seconds=max(0.0, wall - active.since)) for active in begun.values()),
        *(_ended(alerts.active[alert], wall) for alert in alerts.active if alert in over),
    )
    after = Alerts(
        active={**kept, **begun},
        seen={alert: first for alert, first in seen.items() if alert not in begun},
        gone={alert: since for alert, since in gone.items() if alert not in over},
    )
    return after, changes


def _ended(active: Active, wall: float) -> Change:
    return Change(begins=False, active=active, seconds=max(0.0, wall - active.since))
