"""The benchmark of SQL runs, its figures mean something, and nothing hostile is dear."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from bench import policy, sql

from capd.enforcer.sql.lexeme import Dialect

SECONDS_MAX = 10
"""Of CPU, on a slow machine that measures at the same time; a fast one takes a fifth of a second."""
MEGABYTES_MAX = 200


@pytest.mark.parametrize("name", sql.POSTGRESQL)
def test_a_short_run_gives_its_figures(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """What is remembered costs less than what is read anew."""
    monkeypatch.setattr(policy, "ROUNDS", 1)
    monkeypatch.setattr(policy, "ROUND_SECONDS", 0.001)
    cost = sql.cost(sql.POSTGRESQL[name], Dialect.POSTGRESQL)
    assert 0 < cost.again_us < cost.first_us
    assert 0 < cost.shape_us


@pytest.mark.parametrize("name", sql.HOSTILE)
def test_hostile_statements_are_bounded(name: str) -> None:
    """No statement that the limits let through takes long."""
    found = sql.worst(sql.HOSTILE[name], memory=False)
    assert found.milliseconds < SECONDS_MAX * 1e3


def test_memory_is_bounded() -> None:
    """The statement that takes most memory takes little."""
    found = sql.worst(sql.HOSTILE["withs"])
    assert found.megabytes is not None
    assert found.megabytes < MEGABYTES_MAX
