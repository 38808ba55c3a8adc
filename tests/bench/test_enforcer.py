"""The benchmark of the enforcer runs and its figures mean something."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from bench import enforcer


def test_the_enforcer_is_measured_beside_a_relay() -> None:
    """Requests go through both, in clear and in TLS, on one connection and on many; the table has a line for each."""
    found = enforcer.compare(seconds=0.1)
    assert {f"{kind} {count} {who}" for kind in ("clear", "TLS") for count in (1, 16) for who in ("relay", "enforcer")} == set(
        found
    )
    assert all(result.requests > 10 and result.median_ms > 0 for result in found.values())
    assert 9 == len(list(enforcer.table(found)))
