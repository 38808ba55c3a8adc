"""The benchmark of masked rows runs, and its figures mean something."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from bench import policy, rows


def test_a_short_run_gives_its_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every kind of row and statement has a cost, and a row in which nothing is hidden costs least."""
    monkeypatch.setattr(policy, "ROUNDS", 1)
    monkeypatch.setattr(policy, "ROUND_SECONDS", 0.001)
    found = rows.main()
    assert len(rows.HIDDEN) * 7 + len(rows.STATEMENTS) == len(found)
    assert rows.postgresql("nothing", binary=False).row_us < rows.postgresql("all columns, constant", binary=False).row_us
