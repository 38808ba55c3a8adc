"""The benchmark of what becomes of a recording runs, small: every part gives figures that mean something."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

pytest.importorskip("duckdb", reason="the fleet extra is not installed")

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from bench.evidence import SMALL, measured


def test_every_part_gives_its_figures(tmp_path: Path) -> None:
    """Written, verified, replayed from disk and bucket, searched; the fleet's day is read without its other days."""
    found = measured(tmp_path, SMALL)
    assert all(value > 0 for figures in found.values() for value in figures.values())
    assert 1.5 < found["store"]["ratio"] < 3
    assert found["replay"]["bucket_bytes"] < SMALL.raw_bytes / 4
    assert found["fleet"]["one_day_requests"] < found["fleet"]["all_days_requests"]
