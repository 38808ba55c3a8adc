"""The storage states: a pure machine, tried at every edge and with any sequence of sizes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from capd.daemon.storage import Room, State, Threshold, Thresholds, described, following, usable_bytes
from capd.daemon.storage_keeping import StorageKeeper, read_state

THRESHOLDS = Thresholds(
    low=Threshold(bytes=1000, inodes=100),
    critical=Threshold(bytes=500, inodes=50),
    out=Threshold(bytes=200, inodes=10),
    reserve_bytes=64,
)

SMALL = replace(THRESHOLDS, reserve_bytes=0)
"""Any file system has more."""


def room(free: int, inodes: int | None = 1000, held: int = 64) -> Room:
    """Give what there is."""
    return Room(free_bytes=free, free_inodes=inodes, reserve_held=held)


@pytest.mark.parametrize(
    ("before", "now", "after"),
    [
        (State.OK, room(1000), State.OK),
        (State.OK, room(999), State.LOW),
        (State.OK, room(499), State.CRITICAL),
        (State.OK, room(0), State.OUT),
        (State.LOW, room(1099), State.LOW),
        (State.LOW, room(1100), State.OK),
        (State.CRITICAL, room(549), State.CRITICAL),
        (State.CRITICAL, room(550), State.LOW),
        (State.CRITICAL, room(1099), State.LOW),
        (State.CRITICAL, room(1100), State.OK),
        (State.OUT, room(219), State.OUT),
        (State.OUT, room(220), State.CRITICAL),
        (State.OUT, room(10_000), State.OK),
        (State.OK, room(10_000, inodes=99), State.LOW),
        (State.OK, room(10_000, inodes=49), State.CRITICAL),
        (State.OK, room(10_000, inodes=9), State.OUT),
        (State.LOW, room(10_000, inodes=109), State.LOW),
        (State.LOW, room(10_000, inodes=110), State.OK),
        (State.OK, room(10_000, inodes=None), State.OK),
    ],
)
def test_each_edge(before: State, now: Room, after: State) -> None:
    """A state gets worse at its threshold and better a tenth above it, by bytes or by inodes, over several states at once."""
    assert after is following(before, now, THRESHOLDS)


def test_giving_up_the_reserve_makes_nothing_better() -> None:
    """What was the reserve's is no room: a released reserve has to be put back before the state can improve."""
    assert State.OUT is following(State.OUT, room(180), THRESHOLDS)
    assert State.OUT is following(State.OUT, room(180 + 64, held=0), THRESHOLDS)
    assert 180 == usable_bytes(room(180 + 64, held=0), THRESHOLDS)
    assert State.CRITICAL is following(State.OUT, room(220 + 64, held=0), THRESHOLDS)


def test_thresholds_in_a_wrong_order_still_order_the_states() -> None:
    """Where out is configured above low, the better states begin there too."""
    odd = Thresholds(
        low=Threshold(bytes=10, inodes=0), critical=Threshold(bytes=5, inodes=0), out=THRESHOLDS.out, reserve_bytes=0
    )
    assert {200} == {odd.of(state).bytes for state in (State.LOW, State.CRITICAL, State.OUT)}
    assert State.OUT is following(State.OK, room(199), odd)


def test_a_disk_that_refuses_although_there_is_room_counts_as_out_for_a_while(tmp_path: Path) -> None:
    """One refused write is tried again; three on end, as by a quota, are out for half a minute; then it is tried again."""
    keeper = StorageKeeper(tmp_path, tmp_path / "reserve", tmp_path / "state", replace(SMALL, reserve_bytes=4096))
    assert (None, 4096) == (keeper.look(now=0, wall_ns=1, refused=False), (tmp_path / "reserve").stat().st_size)
    for now, refused, state in ((1, True, State.OK), (2, False, State.OK), (3, True, State.OK), (4, True, State.OK)):
        keeper.look(now=now, wall_ns=1, refused=refused)
        assert state is keeper.state
    change = keeper.look(now=5, wall_ns=7, refused=True)
    assert change is not None
    assert (State.OK, State.OUT, 7) == (change.before, change.after, keeper.since_ns)
    assert (State.OUT, False) == (read_state(tmp_path / "state"), (tmp_path / "reserve").exists())
    assert keeper.look(now=34, wall_ns=8, refused=False) is None
    change = keeper.look(now=36, wall_ns=9, refused=False)
    assert change is not None
    assert (State.OK, True) == (change.after, (tmp_path / "reserve").exists())


def test_other_thresholds_count_from_the_next_look_on(tmp_path: Path) -> None:
    """After a reload the new thresholds decide, and the reserve has its new size."""
    keeper = StorageKeeper(tmp_path, tmp_path / "reserve", tmp_path / "state", replace(SMALL, reserve_bytes=8192))
    keeper.look(now=0, wall_ns=1, refused=False)
    for size in (4096, 12_288):
        keeper.follow(replace(SMALL, reserve_bytes=size))
        keeper.look(now=1, wall_ns=1, refused=False)
        assert size == (tmp_path / "reserve").stat().st_size
    keeper.follow(replace(SMALL, critical=Threshold(bytes=1 << 60, inodes=0)))
    change = keeper.look(now=2, wall_ns=2, refused=False)
    assert change is not None
    assert (State.OK, State.CRITICAL) == (change.before, change.after)


def test_it_is_said_when_the_disk_will_be_full(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """After five minutes the rate at which the disk fills says when only what is reserved is left; the reserve is no trend."""
    left = [10_000]
    keeper = StorageKeeper(tmp_path, tmp_path / "reserve", tmp_path / "state", replace(SMALL, reserve_bytes=0))
    monkeypatch.setattr(keeper, "_measure", lambda: Room(free_bytes=left[0], free_inodes=10**6, reserve_held=0))
    told = []
    for now in range(0, 601, 10):
        left[0] = 10_000 - now
        keeper.look(now=now, wall_ns=1, refused=False)
        told.append(keeper.facts()["seconds_until_full"])
    assert [None] * 30 == told[:30]
    assert left[0] - SMALL.out.bytes == told[-1]
    monkeypatch.setattr(keeper, "_measure", lambda: Room(free_bytes=9_400, free_inodes=10**6, reserve_held=600))
    keeper.look(now=605, wall_ns=1, refused=False)
    assert keeper.facts()["seconds_until_full"] is None


def test_a_bad_state_is_told_again_after_a_restart(tmp_path: Path) -> None:
    """A daemon that finds the state that an earlier one left tells it once, so that the record of the new start has it."""
    greedy = replace(SMALL, critical=Threshold(bytes=1 << 60, inodes=0))
    for before in (State.OK, State.CRITICAL):
        keeper = StorageKeeper(tmp_path, tmp_path / "reserve", tmp_path / "state", greedy)
        change = keeper.look(now=0, wall_ns=1, refused=False)
        assert change is not None
        assert (before, State.CRITICAL) == (change.before, change.after)
        assert keeper.look(now=1, wall_ns=1, refused=False) is None


def test_a_file_system_that_cannot_be_asked_is_told(tmp_path: Path) -> None:
    """When asking fails the state stays, and nothing is written until it can be asked again."""
    place = tmp_path / "place"
    place.mkdir()
    keeper = StorageKeeper(place, tmp_path / "reserve", tmp_path / "state", SMALL)
    place.rmdir()
    assert keeper.look(now=0, wall_ns=1, refused=False) is None
    assert f"cannot ask for free space in {place}" in str(keeper.shortage())
    place.mkdir()
    keeper.look(now=1, wall_ns=1, refused=False)
    assert keeper.shortage() is None


@given(st.lists(st.integers(min_value=0, max_value=2000)))
def test_any_sequence_is_told_rightly(sizes: list[int]) -> None:
    """After any sequence the state is never better than the thresholds say, and worse by at most the tenth."""
    state = State.OK
    for free in sizes:
        state = following(state, room(free), THRESHOLDS)
        assert state >= following(State.OK, room(free), THRESHOLDS)
        assert state <= following(State.OK, room(free * 10 // 11 - 1), THRESHOLDS)
        assert state is following(state, room(free), THRESHOLDS)


def test_the_phrase_names_what_is_short() -> None:
    """Bytes or inodes are named, with the threshold of the state."""
    large = Thresholds(
        low=Threshold(bytes=8 << 20, inodes=100), critical=THRESHOLDS.critical, out=THRESHOLDS.out, reserve_bytes=0
    )
    assert "7 MiB free, low is below 8 MiB" == described(State.LOW, room(7 << 20), large)
    assert "99 files can still be made, low is below 100" == described(State.LOW, room(9 << 20, inodes=99), large)
