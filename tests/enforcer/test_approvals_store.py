"""The store of approvals: killed at any byte, damaged, on a disk that takes nothing.

What lives here: the desk over files that fail it. What must not: what the desk decides.
"""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from capd.enforcer.approvals import limits, store
from capd.enforcer.approvals.desk import Desk
from capd.enforcer.approvals.entry import apply_entry
from capd.enforcer.approvals.errors import (
    ApprovalsUnwritableError,
)
from capd.enforcer.approvals.request import Request
from capd.enforcer.approvals.store import MAGIC, Store, frame, read_frames
from capd.enforcer.policy.rule import ApprovalScope
from tests.enforcer.asking import ANN, BEN, Client, Scene, hold
from tests.enforcer.asking import bound as bound_

KEYS = ["kind", "id", "at", "by", "reason", "asked"]
ONCE = ApprovalScope.ONCE


@pytest.fixture
def scene(tmp_path: Path) -> Scene:
    """Give an empty directory."""
    return Scene(tmp_path)


def history(scene: Scene) -> tuple[bytes, list[int]]:
    """Give a store's content in which something was asked, approved and used, and where each entry ends."""
    desk = scene.desk()
    client = Client(desk, hold(quorum=2))
    desk.approve(client.last.id, ANN, ONCE)
    desk.approve(client.last.id, BEN, ONCE)
    assert "approved" == client.last.outcome.value
    content = (scene.directory / store.FILE).read_bytes()
    ends = [len(MAGIC)]
    for entry in read_frames(content)[0]:
        ends.append(ends[-1] + len(frame(entry)))
    return content, ends


def outcome_after(scene: Scene, content: bytes) -> str:
    """Say what becomes of the same action after a start with such a store."""
    (scene.directory / store.FILE).write_bytes(content)
    return Client(scene.desk(), hold(quorum=2)).last.outcome.value


def test_killed_while_writing(scene: Scene) -> None:
    """Wherever the store ends, in an entry or between two, what was used is never good again, what is unsure is asked again."""
    content, ends = history(scene)
    assert 6 == len(ends), "asked, two yeses, approved, used"
    approved = ends[4]
    near = {end + off for end in ends for off in (-1, 0, 1, 4, 8)} | set(range(0, len(content), 37))
    for end in sorted(end for end in near if 0 <= end <= len(content)):
        expected = "approved" if end in (ends[3], approved) else "waiting"
        assert expected == outcome_after(scene, content[:end]), (end, ends)


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(data=st.data())
def test_any_damage_gives_nothing_away(scene: Scene, data: st.DataObject) -> None:
    """A changed byte anywhere never lets an action go, is noticed, and the desk goes on."""
    path = scene.directory / store.FILE
    if not path.exists():
        history(scene)
        (scene.directory / "original").write_bytes(path.read_bytes())
    content = bytearray((scene.directory / "original").read_bytes())
    at = data.draw(st.integers(0, len(content) - 1))
    content[at] ^= data.draw(st.integers(1, 255))
    path.write_bytes(content)
    desk = scene.desk()
    assert desk.damage is not None
    assert content == (scene.directory / f"{store.FILE}.damaged").read_bytes()
    assert "waiting" == Client(desk, hold(quorum=2)).last.outcome.value


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.dictionaries(st.sampled_from(["kind", "id", "at", "by", "reason", "asked"]), st.none() | st.text()), max_size=3)
)
def test_entries_that_are_none(entries: list[dict[str, object]]) -> None:
    """Whatever stands in an entry, it is understood or refused."""
    requests: dict[str, Request] = {}
    for entry in entries:
        with pytest.raises((ValueError, KeyError, TypeError)):
            apply_entry(requests, entry)


@pytest.fixture
def full(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Let the nth call that reaches the disk from now on, and all after it, fail."""
    left = [1 << 30]

    def counted(real: object) -> object:
        def call(*args: object, **more: object) -> object:
            left[0] -= 1
            if left[0] < 0:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            return real(*args, **more)  # type: ignore[operator] # any function

        return call

    for where, name in ((os, "fdatasync"), (store, "write_whole"), (store, "replace_content")):
        monkeypatch.setattr(where, name, counted(getattr(where, name)))
    return left


@pytest.mark.parametrize("fails_after", range(3))
def test_a_disk_that_takes_nothing(scene: Scene, full: list[int], fails_after: int) -> None:
    """What cannot be written does not happen: nobody waits for nothing, nothing goes; when there is room all goes on."""
    desk = scene.desk()
    waits = Client(desk, hold())
    full[0] = fails_after
    lost = Client(desk, hold(path="/2"))
    assert ["unavailable"] == lost.outcomes
    full[0] = min(fails_after, 1)
    with pytest.raises(ApprovalsUnwritableError):
        desk.approve(waits.last.id, ANN, ONCE)
    assert ["waiting"] == waits.outcomes
    assert desk.problem
    full[0] = 1 << 30
    desk.approve(waits.last.id, ANN, ONCE)
    assert ["waiting", "approved"] == waits.outcomes
    assert ["waiting"] == Client(scene.desk(), hold()).outcomes


def test_a_use_that_cannot_be_written_does_not_happen(scene: Scene, full: list[int]) -> None:
    """The byte that would leave waits for its use to be on disk."""
    desk = scene.desk()
    client = Client(desk, hold())
    desk.lose(client.waiter)
    desk.approve("req0000000", ANN, ONCE)
    full[0] = 0
    assert ["unavailable"] == Client(desk, hold()).outcomes
    full[0] = 1 << 30
    assert ["approved"] == Client(desk, hold()).outcomes
    assert ["waiting"] == Client(desk, hold()).outcomes


def test_the_store_is_written_anew(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    """A store that grew large is written anew, and has what it had."""
    monkeypatch.setattr(limits, "STORE_BYTES_MAX", 4_000)
    desk = scene.desk()
    monkeypatch.setattr(limits, "ENDED_MAX", 3)
    for number in range(20):
        client = Client(desk, hold(path=f"/{number}"))
        desk.deny(client.last.id, ANN, "no")
    assert (scene.directory / store.FILE).stat().st_size < 8_000
    assert desk.requests() == scene.desk().requests()


def test_another_key_asks_all_again(scene: Scene) -> None:
    """A key that is gone or cut is made anew, and what was approved with the former is good for nothing."""
    desk = scene.desk()
    client = Client(desk, hold())
    desk.lose(client.waiter)
    desk.approve(client.answers[0].id, ANN, ONCE)
    (scene.directory / store.KEY).unlink()
    desk = Desk(Store(scene.directory), scene.clock, lambda: "another000", b"n" * 32)
    assert ["waiting"] == Client(desk, hold()).outcomes
    assert bound_().fields != ()
