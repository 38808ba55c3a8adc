"""The benchmark of the enforcer runs and its figures mean something."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from bench.enforcer import Plan, compare, figures, table

from tests.requirements import require_command


def test_the_enforcer_is_measured_beside_a_relay() -> None:
    """Requests go through both without an error, on a connection that stays and on new ones; each has its line and figures."""
    require_command("wrk", "curl")
    found = compare(Plan(seconds=1, rounds=1, connections=(2,), kinds=("TLS",), large_bytes=1 << 20, beside=False))
    asked = {("TLS", count, who) for count in (0, 2) for who in ("direct", "relay", "enforcer")}
    assert asked == set(found.results)
    assert all(result.requests > 10 and result.median_ms > 0 and not result.errors for result in found.results.values())
    assert {"direct", "relay", "enforcer"} == {who for _, who in found.bulk}
    assert all(speed > 0 for speed in found.bulk.values())
    assert len(list(table(found))) == 2 + len(asked) + 3 + 1
    assert len(figures(found)) == len(asked) + 3 + 1
