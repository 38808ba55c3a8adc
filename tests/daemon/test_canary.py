"""What a canary's attempts mean: a table of outcomes and findings."""

from __future__ import annotations

import pytest

from capd.daemon.canary import AGAIN_SECONDS, Findings, Pace, judge

FORCED = {"redirected": "done", "redirected6": "done", "direct": "ECONNREFUSED", "datagram": "EPERM"}
CASES = [
    ({}, True, "forced", ""),
    ({"redirected6": "EADDRNOTAVAIL"}, True, "forced", ""),
    ({"redirected": "ECONNREFUSED"}, True, "closed", "IPv4: the enforcer does not listen"),
    ({"redirected": "ECONNRESET", "redirected6": "ECONNRESET"}, True, "forced", ""),
    ({"direct": "ECONNRESET"}, True, "open", "a connection that is not redirected is not refused: ECONNRESET"),
    ({"redirected": "timeout"}, True, "closed", "IPv4: a connection does not reach it: timeout"),
    ({"redirected": "ENETUNREACH"}, True, "closed", "IPv4"),
    ({"datagram": "done"}, True, "open", "a datagram is not refused: done"),
    ({"datagram": "timeout"}, True, "open", "a datagram is not refused"),
    ({"direct": "done"}, True, "open", "a connection that is not redirected is not refused: done"),
    ({"direct": "done", "redirected": "ECONNREFUSED"}, True, "open", "a connection that is not redirected"),
    ({"direct": "done", "datagram": "done"}, False, "forced", ""),
]


@pytest.mark.parametrize(("changes", "enforced", "result", "words"), CASES)
def test_outcomes_are_judged(changes: dict[str, str], enforced: bool, result: str, words: str) -> None:
    """Whatever is let through is open, whatever keeps agents from the enforcer is closed, and only both right is forced."""
    found = judge({**FORCED, **changes}, enforced=enforced)
    assert result == found.result
    assert words in " ".join((*found.open, *found.closed))


ELSEWHERE = [
    ({}, "forced"),
    ({"redirected": "ENETUNREACH", "direct": "ENETUNREACH", "datagram": "ENETUNREACH"}, "closed"),
    ({"direct": "timeout", "datagram": "EINVAL"}, "forced"),
    ({"direct": "done"}, "open"),
    ({"direct": "ECONNRESET"}, "open"),
    ({"datagram": "done"}, "open"),
]


@pytest.mark.parametrize(("changes", "result"), ELSEWHERE)
def test_in_anothers_namespace_only_what_succeeds_is_a_way_around(changes: dict[str, str], result: str) -> None:
    """Its root can make attempts fail in any way, and must not be able to keep runs out by that; what succeeds is an alarm."""
    assert result == judge({**FORCED, **changes}, enforced=True, elsewhere=True).result


def test_silence_is_no_finding() -> None:
    """A canary that said nothing proves neither, and an attempt that it left out counts as not refused."""
    assert ("unknown", "it gave no answer") == (judge({}, enforced=True).result, judge({}, enforced=True).unknown)
    assert "open" == judge({"redirected": "done", "redirected6": "done"}, enforced=True).result


def test_what_is_wrong_is_tried_again_soon_and_then_more_seldom() -> None:
    """An enforcer that was started after the rules is seen within seconds; one that stays away costs little."""
    pace, closed = Pace(30), Findings(closed=("it does not listen",))
    assert [AGAIN_SECONDS, 2 * AGAIN_SECONDS, 4 * AGAIN_SECONDS] == [pace.after(closed) for _ in range(3)]
    assert 30 == max(pace.after(closed) for _ in range(5)) == pace.after(closed)
    assert 30 == pace.after(Findings())
    assert AGAIN_SECONDS == pace.after(closed)
