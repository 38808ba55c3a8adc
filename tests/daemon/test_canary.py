"""What a canary's attempts mean: a table of outcomes and findings."""

from __future__ import annotations

import pytest

from capd.daemon.canary import judge

FORCED = {"redirected": "done", "redirected6": "done", "direct": "ECONNREFUSED", "datagram": "EPERM"}
CASES = [
    ({}, True, "forced", ""),
    ({"redirected6": "EADDRNOTAVAIL"}, True, "forced", ""),
    ({"redirected": "ECONNREFUSED"}, True, "closed", "IPv4: the enforcer does not listen"),
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


def test_silence_is_no_finding() -> None:
    """A canary that said nothing proves neither, and an attempt that it left out counts as not refused."""
    assert ("unknown", "it gave no answer") == (judge({}, enforced=True).result, judge({}, enforced=True).unknown)
    assert "open" == judge({"redirected": "done", "redirected6": "done"}, enforced=True).result
