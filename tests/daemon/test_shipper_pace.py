"""How fast the shipper goes: tables of times that come in."""

from __future__ import annotations

import pytest

from capd.daemon.shipper_pace import Backoff, DiskTrend, Throttle


def test_waits_double_up_to_their_limit_and_start_again() -> None:
    """Without luck the waits are 1, 2, 4, ... seconds, never above the limit, also after thousands; a success forgives all."""
    backoff = Backoff(60.0, lambda: 0.0)
    assert [1, 2, 4, 8, 16, 32, 60, 60] == [backoff.failed() for _ in range(8)]
    assert {60.0} == {backoff.failed() for _ in range(5000)}
    backoff.succeeded()
    assert 1.0 == backoff.failed()


def test_waits_differ_by_chance() -> None:
    """A wait is between half of and the whole of its length."""
    assert 0.5 < Backoff(60.0, lambda: 0.999).failed() < 0.51
    assert 0.75 == Backoff(60.0, lambda: 0.5).failed()


def test_limit_holds_over_several_moves() -> None:
    """A thousand bytes at 100 a second cost ten seconds from their start; idle time is not saved."""
    throttle = Throttle(100)
    throttle.moved(1000, started=0.0)
    assert (10.0, 4.0, 0.0) == (throttle.wait(0.0), throttle.wait(6.0), throttle.wait(50.0))
    throttle.moved(1000, started=100.0)
    throttle.moved(500, started=110.0)
    assert 5.0 == throttle.wait(110.0)


def test_no_limit_never_waits() -> None:
    """Zero means none."""
    throttle = Throttle(0)
    throttle.moved(10**12, started=0.0)
    assert 0.0 == throttle.wait(0.0)


def trend(*samples: tuple[float, int]) -> DiskTrend:
    """Make a trend of samples."""
    made = DiskTrend()
    for now, free in samples:
        made.sample(now, free)
    return made


@pytest.mark.parametrize(
    ("samples", "seconds"),
    [
        ([], None),
        ([(0, 1000)], None),
        ([(0, 1000), (29, 0)], None),
        ([(0, 1000), (100, 900)], 800.0),
        ([(0, 1000), (50, 2000), (100, 900)], 800.0),
        ([(0, 1000), (100, 1000)], None),
        ([(0, 1000), (100, 2000)], None),
        ([(0, 200), (100, 50)], 0.0),
        ([(0, 10**9), (650, 1000), (700, 900)], 300.0 + 100.0),
    ],
)
def test_time_until_the_disk_is_full(samples: list[tuple[float, int]], seconds: float | None) -> None:
    """It is what is left above the reserve of 100 at the rate of the last ten minutes, and unknown while that is."""
    assert seconds == trend(*samples).seconds_until(100)


def test_trend_is_bounded_and_spans_its_window() -> None:
    """A sample each second for hours keeps few samples, which reach back about ten minutes."""
    made = trend(*((float(second), 10**6 - second) for second in range(7200)))
    assert pytest.approx(1.0) == made.bytes_per_second()
    assert 100 <= len(made._samples) <= 160
    assert 590 <= made._samples[-1][0] - made._samples[0][0] <= 600
