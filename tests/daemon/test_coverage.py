"""Gaps of runs, bounded, and what of a status who may see."""

from __future__ import annotations

from typing import Any

import pytest

from capd.daemon.coverage import GAPS_PER_RUN_MAX, LOOKING_SECONDS, LOOKING_SECONDS_MAX, Coverage, Gap
from capd.daemon.disclosure import disclosed


def test_each_file_of_a_run_is_told_once_and_only_so_many() -> None:
    """A gap is told once for each run and file; above the limit one more is told for all others; what is over is forgotten."""
    coverage = Coverage()
    gap = Gap(uid=7, text="x")
    assert [True, False, True] == [coverage.add(run, (1, 1), gap) for run in (1, 1, 2)]
    told = [coverage.add(1, (1, inode), gap) for inode in range(2, 1000)]
    assert (GAPS_PER_RUN_MAX, GAPS_PER_RUN_MAX) == (sum(told), coverage.named(1))
    assert GAPS_PER_RUN_MAX + 2 == len(coverage.gaps())
    assert f"{1000 - 1 - GAPS_PER_RUN_MAX} mappings of further files" in coverage.gaps()[GAPS_PER_RUN_MAX].text
    coverage.keep({2})
    assert [gap] == coverage.gaps()


def test_an_owner_has_only_so_much_time() -> None:
    """Whose files took too long in the last minute waits; another owner does not, nor he when a minute has passed."""
    coverage = Coverage()
    for second in range(4):
        assert not coverage.exhausted("a", second)
        coverage.looked("a", second, LOOKING_SECONDS_MAX / 3)
    assert (True, False) == (coverage.exhausted("a", 5), coverage.exhausted("b", 5))
    assert not coverage.exhausted("a", LOOKING_SECONDS + 1)
    for number in range(5000):
        coverage.looked(f"owner {number}", number, 0.1)
    assert len(coverage._looks) <= 1000


STATUS: dict[str, Any] = {
    "health": 1,
    "runs": [{"name": "mine", "uid": 7}, {"name": "theirs", "uid": 8}, {"name": "unit", "uid": None}],
    "attachments": [{"path": "/usr/lib", "uid": None}, {"path": "/home/8", "uid": 8}],
    "attach_failures": [{"text": "a", "uid": 7}, {"text": "b", "uid": 0}],
    "unselected": [{"cgroup": "/x", "reason": "y"}],
    "storage": {"state": "ok", "problems": ["/x cannot be stopped"]},
    "enforcement": {"mode": "enforce", "escaped": ["/x: 17"]},
}


@pytest.mark.parametrize(
    ("uid", "runs", "paths", "failures", "withheld"),
    [
        (0, ["mine", "theirs", "unit"], ["/usr/lib", "/home/8"], ["a", "b"], (0, 0, 0, 0, 0, 0)),
        (7, ["mine"], ["/usr/lib"], ["a"], (2, 1, 1, 1, 1, 1)),
        (9, [], ["/usr/lib"], [], (3, 1, 2, 1, 1, 1)),
    ],
)
def test_who_sees_what(uid: int, runs: list[str], paths: list[str], failures: list[str], withheld: tuple[int, ...]) -> None:
    """Root sees all; others see what is theirs or installed, and how much else there is."""
    shown: Any = disclosed(STATUS, uid)
    assert (runs, paths) == ([run["name"] for run in shown["runs"]], [item["path"] for item in shown["attachments"]])
    assert (failures, 1) == (shown["attach_failures"], shown["health"])
    assert withheld == tuple(shown["withheld"].values())
    assert {uid == 0} == {bool(shown["unselected"]), bool(shown["storage"]["problems"]), "escaped" in shown["enforcement"]}
    assert "enforce" == shown["enforcement"]["mode"]
