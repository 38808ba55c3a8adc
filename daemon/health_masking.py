"""Did masking fail? A judgement over facts, as health.py makes others.

What lives here: this rule. What must not: finding the facts (status.py), masking (masking/).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from capd.daemon.alert_kinds import Alert
from capd.daemon.reason import LOSS_NS_RECENT, Reason


@dataclass(frozen=True, kw_only=True)
class MaskingFacts:
    """What the recorder says of masking.

    Attributes:
        failed: sessions in which it failed, in total.
        latest: where it did last, in words.
        latest_ns: wall time of that, None: it never did.
    """

    failed: int = 0
    latest: str = ""
    latest_ns: int | None = None


def masking_reasons(facts: MaskingFacts, now_ns: int) -> Iterator[Reason]:
    """Give what is wrong."""
    if facts.latest_ns is not None and now_ns - facts.latest_ns < LOSS_NS_RECENT:
        yield Reason(
            alert=Alert.MASKING_FAILED,
            reason=f"masking failed, what was said from there on is not recorded, of {facts.failed} sessions: {facts.latest}",
            next_step="this is a defect of capd: report that line; such sessions are recorded as partial",
        )
