"""Health: a table of facts and verdicts."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from capd.daemon import health
from capd.daemon.health import DaemonFacts, Facts, Verdict

DAEMON = DaemonFacts(
    stopped=None, lost_bytes=0, lost_records={}, lost_ns=None, attach_failures=0, backlog_bytes=0, backlog_bytes_max=1000
)
GOOD = Facts(
    daemon=DAEMON,
    unreachable="",
    recorder_running=True,
    recorder_seconds=0.5,
    recorder_state="running",
    free_bytes=10_000,
    free_bytes_min=1000,
    state_dir="/state",
    now_ns=10**15,
)


def with_daemon(**changes: Any) -> Facts:  # noqa: ANN401 - a table of fields
    """Change the daemon's facts."""
    return replace(GOOD, daemon=replace(DAEMON, **changes))


CASES = [
    (GOOD, Verdict.HEALTHY, ""),
    (replace(GOOD, daemon=None, unreachable="nobody answers"), Verdict.DOWN, "nobody answers"),
    (with_daemon(stopped="journal full: 8 MiB"), Verdict.DEGRADED, "not draining: journal full"),
    (with_daemon(lost_bytes=7, lost_ns=10**15 - 10**9), Verdict.DEGRADED, "7 bytes of agents' streams lost, the last 1 s ago"),
    (with_daemon(lost_bytes=7, lost_ns=10**15 - health.LOSS_NS_RECENT), Verdict.HEALTHY, ""),
    (with_daemon(lost_records={"map_full": 3}, lost_ns=10**15), Verdict.DEGRADED, "map_full 3"),
    (with_daemon(attach_failures=2), Verdict.DEGRADED, "2 TLS libraries cannot be watched"),
    (with_daemon(backlog_bytes=500), Verdict.HEALTHY, ""),
    (with_daemon(backlog_bytes=501), Verdict.DEGRADED, "behind"),
    (replace(GOOD, recorder_running=False), Verdict.DEGRADED, "the recorder does not run"),
    (replace(GOOD, recorder_seconds=None), Verdict.DEGRADED, "has never reported"),
    (replace(GOOD, recorder_seconds=11.0), Verdict.DEGRADED, "for 11 s not reported"),
    (replace(GOOD, recorder_state="disk full"), Verdict.DEGRADED, "the recorder says: disk full"),
    (replace(GOOD, free_bytes=1999), Verdict.DEGRADED, "/state has 0 MiB free"),
    (replace(GOOD, free_bytes=None), Verdict.HEALTHY, ""),
]


@pytest.mark.parametrize(("facts", "verdict", "words"), CASES)
def test_verdict(facts: Facts, verdict: Verdict, words: str) -> None:
    """Each fact that is not as it should be gives its verdict, a reason in words, and a next step."""
    found = health.judge(facts)
    assert verdict is found.verdict
    assert words in " ".join(reason.reason for reason in found.reasons)
    assert (verdict is Verdict.HEALTHY) == (found.reasons == ())
    assert all(reason.next_step for reason in found.reasons)


def test_all_reasons_are_told() -> None:
    """Several things that are wrong are all told."""
    bad = replace(with_daemon(stopped="x", attach_failures=1), recorder_running=False, free_bytes=1)
    assert 4 == len(health.judge(bad).reasons)
