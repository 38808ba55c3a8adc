"""What is deleted by the time of a host is not deleted by a clock that jumped."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from capd.daemon import shipper as shipper_role
from capd.daemon.configuration import Configuration
from capd.daemon.shipper import Shipper
from capd.daemon.steady_clock import JUMPED, SteadyClock
from capd.recording.bucket import Bucket
from tests.daemon.recorded_segments import HOST

MINUTE, HOUR, YEAR = 60 * 10**9, 3_600 * 10**9, 365 * 24 * 3_600 * 10**9
BEGIN = 1_800_000_000 * 10**9
CASES: dict[str, list[tuple[int, int, bool]]] = {
    "it goes on": [(0, 0, True), (HOUR, HOUR, True), (30 * HOUR, 30 * HOUR, True)],
    "it drifts, and is set right": [(0, 0, True), (HOUR + MINUTE, HOUR, True), (2 * HOUR - MINUTE, 2 * HOUR, True)],
    "it goes back": [(0, 0, True), (-YEAR, MINUTE, True), (-YEAR + HOUR, HOUR, True)],
    "it jumps": [(0, 0, True), (YEAR, MINUTE, False), (YEAR + 23 * HOUR, 23 * HOUR, False)],
    "it jumps and stays so for a day": [(0, 0, True), (YEAR, MINUTE, False), (YEAR + 25 * HOUR, 25 * HOUR, True)],
    "it jumps and is set right": [(0, 0, True), (YEAR, MINUTE, False), (HOUR, HOUR, True), (2 * HOUR, 2 * HOUR, True)],
    "it jumps twice": [(0, 0, True), (YEAR, MINUTE, False), (2 * YEAR, 20 * HOUR, False), (2 * YEAR + HOUR, 25 * HOUR, False)],
    "it jumps twice, and half of it is set right": [(0, 0, True), (2 * YEAR, MINUTE, False), (YEAR, HOUR, False)],
}


@pytest.mark.parametrize("name", CASES)
def test_when_a_clock_is_believed(name: str) -> None:
    """One that jumped ahead is not until it is set right or has been steady for a day; what goes back makes nothing over."""
    clock = SteadyClock()
    told = [clock.steady(BEGIN + wall, boot) for wall, boot, _ in CASES[name]]
    assert [expected for _, _, expected in CASES[name]] == told


def test_nothing_is_let_go_by_a_clock_that_jumped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The shipper makes no pass of expiry then, and its status says why."""
    settings = Configuration(state_dir=tmp_path / "state", runtime_dir=tmp_path / "run")
    (tmp_path / "bucket").mkdir()
    shipper = Shipper(settings, Bucket.open(str(tmp_path / "bucket")), host=HOST, confinement="none")
    passes: list[int] = []
    monkeypatch.setattr(shipper._expiry, "turn", passes.append)
    monkeypatch.setattr(shipper_role, "EXPIRY_SECONDS", 0)
    shipper._expire()
    assert (1, None) == (len(passes), shipper._expiry_error)
    now_ns = time.time_ns() + YEAR
    monkeypatch.setattr(time, "time_ns", lambda: now_ns)
    shipper._expire()
    assert (1, JUMPED) == (len(passes), shipper._expiry_error)
