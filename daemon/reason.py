"""One thing that is wrong with capd, and what to do about it.

What lives here: the value. What must not: judging (health.py).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from capd.daemon.alert_kinds import KINDS, Alert, Severity

REPORT_SECONDS_STALE: Final = 10.0
"""Roles write their status every second; a segment's fsync on a slow disk may hold the recorder up for some."""
LOSS_NS_RECENT: Final = 600_000_000_000
"""A loss counts against health for ten minutes; it stays in the record, and in the totals, for ever."""


@dataclass(frozen=True, kw_only=True)
class Reason:
    """One thing that is wrong.

    Attributes:
        alert: the name of the cause; no two reasons of one judgement have the same.
        reason: what.
        next_step: what to do.
    """

    alert: Alert
    reason: str
    next_step: str

    @property
    def severity(self) -> Severity:
        """How grave the cause is."""
        return KINDS[self.alert].severity
