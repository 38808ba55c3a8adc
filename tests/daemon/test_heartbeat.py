"""A role's signs of life: as often as the service manager wants them, and none where nobody does."""

from __future__ import annotations

import os
from multiprocessing import get_context

import pytest

from capd.daemon.heartbeat import START_SECONDS, Heartbeat
from capd.daemon.pulse import PROCESSES_MAX, Pulse

CASES = [
    pytest.param({}, [], id="nobody wants them"),
    pytest.param({"WATCHDOG_USEC": "8000000"}, [0, 2, 4, 6], id="four times in 8 s"),
    pytest.param({"WATCHDOG_USEC": "8000000", "WATCHDOG_PID": "7"}, [0, 2, 4, 6], id="of this process"),
    pytest.param({"WATCHDOG_USEC": "8000000", "WATCHDOG_PID": "8"}, [], id="of another process"),
    pytest.param({"WATCHDOG_USEC": "much"}, [], id="no number"),
]


@pytest.mark.parametrize(("environment", "expected"), CASES)
def test_it_beats_as_often_as_it_is_wanted(environment: dict[str, str], expected: list[int]) -> None:
    """A loop that goes round ten times a second says so four times in the interval after which it would be ended."""
    now, sent = 0.0, []
    heart = Heartbeat(environment, 7, clock=lambda: now, send=lambda message: sent.append((int(now), message)))
    for tenths in range(80):
        now = tenths / 10
        heart.beat()
    assert [(second, "WATCHDOG=1") for second in expected] == sent


def test_readiness_is_told_in_words() -> None:
    """What systemctl status shows of a role is what it does."""
    sent: list[str] = []
    Heartbeat({}, 7, send=sent.append).ready("recording")
    assert ["READY=1\nSTATUS=recording"] == sent


def test_a_start_that_goes_on_is_given_time_until_it_is_done() -> None:
    """A start under load takes longer than the unit says; one that no longer says so ends as the unit says."""
    now, sent = 0.0, []
    heart = Heartbeat({}, 7, clock=lambda: now, send=lambda message: sent.append((now, message)))
    more = f"EXTEND_TIMEOUT_USEC={START_SECONDS * 1_000_000}"
    for seconds in (0.0, 1.0, START_SECONDS / 2):
        now = seconds
        heart.start_goes_on()
    assert [(0.0, more), (START_SECONDS / 2, more)] == sent
    heart.ready("recording")
    now = START_SECONDS * 2
    heart.start_goes_on()
    assert (START_SECONDS / 2, "READY=1\nSTATUS=recording") == sent[-1]


def _beat(pulse: Pulse) -> None:
    pulse.beat(3)
    pulse.beat(PROCESSES_MAX - 1)


def test_a_parent_sees_the_signs_of_its_children() -> None:
    """What another process does to its place is seen here, and to no other place."""
    pulse = Pulse()
    child = get_context("fork").Process(target=_beat, args=(pulse,))
    child.start()
    child.join()
    assert [0, 1, 0, 1] == [pulse.count(place) for place in (2, 3, 4, PROCESSES_MAX - 1)]
    assert os.getpid() != child.pid
