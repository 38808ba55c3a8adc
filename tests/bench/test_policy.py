"""The benchmark of policies runs, and its figures mean something."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from bench import policy


@pytest.mark.parametrize("one_host", [True, False])
@pytest.mark.parametrize("conditions", [True, False])
def test_a_short_run_gives_its_figures(monkeypatch: pytest.MonkeyPatch, *, one_host: bool, conditions: bool) -> None:
    """Policies of each shape load, and decisions by them take some time."""
    monkeypatch.setattr(policy, "ROUNDS", 1)
    monkeypatch.setattr(policy, "ROUND_SECONDS", 0.001)
    cost = policy.cost(3, one_host=one_host, conditions=conditions)
    assert min(cost.load_ms, cost.allowed_us, cost.denied_us, cost.incomplete_us) > 0
