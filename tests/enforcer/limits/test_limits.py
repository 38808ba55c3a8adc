"""Guard rails: counting with time as an argument, and totals that processes share."""

from __future__ import annotations

import os
import random

import pytest

from capd.enforcer.limits.meter import Exceeded, Meter, admitted
from capd.enforcer.limits.shared import FORGOTTEN_SECONDS, SharedTotals
from capd.enforcer.limits.totals import MINUTE_SECONDS, key_of
from capd.enforcer.policy.limit import Limit


def meter(limit: Limit, totals: SharedTotals | None = None) -> Meter:
    """Give a meter with one rule."""
    return Meter(limits=(("r", limit),), totals=totals, run="run")


def test_what_one_statement_may_have() -> None:
    """Exactly as much as the limit passes, and the first beyond it does not, in however many parts it comes."""
    own = meter(Limit(rows=10, bytes=1_000))
    assert [None] * 10 == [own.count(rows=1, size=10, now=0.0) for _ in range(10)]
    assert Exceeded(rule="r", limit="rows", most=10) == own.count(rows=1, size=0, now=0.0)
    assert Exceeded(rule="r", limit="bytes", most=1_000) == meter(Limit(bytes=1_000)).count(rows=0, size=1_001, now=0.0)
    assert "more than bytes 1000 of rule r" == Exceeded(rule="r", limit="bytes", most=1_000).words


def test_what_a_run_may_have() -> None:
    """Its answers count together; when it has had them all, nothing more is admitted. Another run has its own."""
    totals = SharedTotals(64)
    limit = Limit(run_rows=10)
    assert meter(limit, totals).count(rows=6, size=0, now=0.0) is None
    assert admitted((("r", limit),), totals, "run", 0.0) is None
    assert Exceeded(rule="r", limit="run_rows", most=10) == meter(limit, totals).count(rows=6, size=0, now=0.0)
    assert Exceeded(rule="r", limit="run_rows", most=10) == admitted((("r", limit),), totals, "run", 0.0)
    assert admitted((("r", limit),), totals, "another", 0.0) is None
    totals.close()


def test_what_cannot_be_counted_is_exceeded() -> None:
    """Where there are no totals, or no room for one more, limits of runs are closed."""
    full = SharedTotals(4)
    for number in range(4):
        assert 1 == full.add(key_of("x", "r", str(number)), 1, 0.0)
    for totals in (None, full):
        found = meter(Limit(run_bytes=5), totals).count(rows=0, size=1, now=0.0)
        assert found is not None
        assert not found.counted
        assert admitted((("r", Limit(per_minute=5)),), totals, "run", 0.0) is not None
        assert admitted((("r", Limit(run_rows=5)),), totals, "run", 0.0) is not None
    assert admitted((("r", Limit(rows=5)),), None, "run", 0.0) is None
    full.close()


def test_an_export_is_told_of_once() -> None:
    """What goes over its limit passes, and is told of when it does, not again and again."""
    totals = SharedTotals(64)
    told = []
    for _ in range(10):
        one = meter(Limit(export_rows=45), totals)
        assert one.count(rows=10, size=0, now=0.0) is None
        told += one.alarms
    assert [Exceeded(rule="r", limit="export_rows", most=45)] == told
    totals.close()


def test_the_shortest_time_counts() -> None:
    """Of several rules the strictest holds."""
    assert 3 == Meter(limits=(("a", Limit(seconds=9)), ("b", Limit(seconds=3)), ("c", Limit())), totals=None, run="").seconds
    assert meter(Limit()).seconds is None


@pytest.mark.parametrize("seed", range(20))
def test_a_minute_never_has_more(seed: int) -> None:
    """However they come, in no sixty seconds from one full minute on are more said than may be; evenly, all of them are."""
    chance, totals, most = random.Random(seed), SharedTotals(64), 30
    key, now, said = key_of("run", "r", "per_minute"), 0.0, list[float]()
    for _ in range(2_000):
        now += chance.expovariate(1.0)
        if totals.said(key, most, now):
            said.append(now)
    for number in range(int(now // MINUTE_SECONDS) + 1):
        assert len([one for one in said if number * MINUTE_SECONDS <= one < (number + 1) * MINUTE_SECONDS]) <= most
    assert len(said) > 0.8 * most * now / MINUTE_SECONDS
    totals.close()


def test_processes_share_totals() -> None:
    """Every worker adds to the same total, and none is lost; a process that dies with the lock holds nobody up."""
    totals = SharedTotals(64)
    key = key_of("run", "r", "run_rows")
    children = []
    for _ in range(4):
        child = os.fork()
        if not child:
            for _ in range(500):
                totals.add(key, 1, 0.0)
            os._exit(0)
        children.append(child)
    assert [0] * 4 == [os.waitpid(child, 0)[1] for child in children]
    assert 2_000 == totals.add(key, 0, 0.0)
    totals.close()


def test_a_total_of_a_run_that_is_over_makes_room() -> None:
    """What nobody has added to for long is forgotten when room is needed, and not before."""
    totals = SharedTotals(1)
    assert 5 == totals.add(key_of("old", "r", "x"), 5, 0.0)
    assert totals.add(key_of("new", "r", "x"), 1, FORGOTTEN_SECONDS) is None
    assert 1 == totals.add(key_of("new", "r", "x"), 1, FORGOTTEN_SECONDS + 1)
    totals.close()
