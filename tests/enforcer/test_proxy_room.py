"""What one worker keeps: budgets of runs and of all, in values and with a real flood.

What lives here: counting, stopping, cutting. What must not: turns (test_proxy_turns.py).
"""

from __future__ import annotations

import asyncio
import resource
from contextlib import suppress
from dataclasses import dataclass, replace

import pytest
import uvloop
from hypothesis import given
from hypothesis import strategies as st

from capd.enforcer.policy.action import Run
from capd.enforcer.proxy import room as rooms
from capd.enforcer.proxy.flow import Owner
from capd.enforcer.proxy.judge import Agent
from capd.enforcer.proxy.question import Question, Verdict
from capd.enforcer.proxy.room import CONNECTIONS_MAX, RUN_BYTES_MAX, SMALL_BYTES, STUCK_SECONDS, WORKER_BYTES_MAX, Room
from tests.daemon.conftest import READY_SECONDS
from tests.enforcer.rehearsal import allow
from tests.enforcer.test_proxy_shell import Scene, scene

MIB = 1 << 20


@dataclass(eq=False)
class One:
    """A connection of a run."""

    run: str | None
    heeded: int = 0

    def heed(self) -> None:
        """Count that it was told to look."""
        self.heeded += 1


def _filled(room: Room[One], run: str, count: int, each: int) -> list[One]:
    ones = [One(run) for _ in range(count)]
    for one in ones:
        room.enter(one)
        room.weigh(one, each, 0.0)
    return ones


def test_a_run_over_its_budget_stops() -> None:
    """Above the budget connections that keep much are not read and no new one comes; below three quarters all goes on."""
    room: Room[One] = Room()
    ones = _filled(room, "r", 65, MIB)
    small = _filled(room, "r", 1, SMALL_BYTES)[0]
    other = _filled(room, "other", 1, MIB)[0]
    assert [False, True, True] == [room.may_read(ones[0]), room.may_read(small), room.may_read(other)]
    assert [False, False, True] == [room.plenty(ones[0]), room.plenty(small), room.plenty(other)]
    assert ("too many bytes of one run wait", None) == (room.refusal("r"), room.refusal("other"))
    assert 1 == room.over
    assert all(one.heeded for one in ones)
    for one in ones[:10]:
        room.weigh(one, 0, 1.0)
    assert not room.may_read(ones[20])
    for one in ones[10:20]:
        room.weigh(one, 0, 1.0)
    assert room.may_read(ones[20])
    assert (0, None) == (room.over, room.refusal("r"))


def test_what_is_stuck_is_cut() -> None:
    """A run that stays above its budget has its largest connection named after a while, and again until it is below."""
    room: Room[One] = Room()
    ones = _filled(room, "r", 66, MIB)
    room.weigh(ones[7], 2 * MIB, 0.0)
    assert [] == room.review(STUCK_SECONDS - 0.1)
    assert [ones[7]] == room.review(STUCK_SECONDS)
    for _ in range(20):
        if not room.over:
            break
        room.leave(room.review(STUCK_SECONDS)[0], STUCK_SECONDS)
    assert not room.over
    assert [] == room.review(100.0)


def test_a_worker_over_its_budget_stops_those_with_most() -> None:
    """When all runs together are above the worker's budget, those above an equal share stop, and no others."""
    room: Room[One] = Room()
    large = [_filled(room, f"large {number}", 60, MIB)[0] for number in range(4)]
    little = [_filled(room, f"little {number}", 1, MIB)[0] for number in range(20)]
    assert room.bytes > WORKER_BYTES_MAX
    assert [] == room.review(0.0)
    assert not any(map(room.may_read, large))
    assert all(map(room.may_read, little))


@given(st.lists(st.tuples(st.integers(0, 5), st.sampled_from(["enter", "leave", "weigh"]), st.integers(0, 80 * MIB))))
def test_counts_are_what_there_is(steps: list[tuple[int, str, int]]) -> None:
    """Whatever comes and goes, what is counted is the sum of what is there."""
    room: Room[One] = Room()
    there: dict[One, int] = {}
    for number, step, weight in steps:
        if step == "enter":
            one = One(f"r{number % 3}")
            room.enter(one)
            there[one] = 0
        elif there:
            one = list(there)[number % len(there)]
            if step == "leave":
                room.leave(one, 0.0)
                del there[one]
            else:
                room.weigh(one, weight, 0.0)
                there[one] = weight
        assert sum(there.values()) == room.bytes
        runs = {one.run for one in there}
        sums = {run: sum(weight for one, weight in there.items() if one.run == run) for run in runs}
        room.review(0.0)
        assert all(room.refusal(run) for run, count in sums.items() if count > RUN_BYTES_MAX)


@pytest.mark.parametrize(
    ("descriptors", "connections"),
    [(resource.RLIM_INFINITY, CONNECTIONS_MAX), (1 << 20, CONNECTIONS_MAX), (1_024, 256), (512, 1), (0, 1)],
)
def test_connections_hang_on_descriptors(descriptors: int, connections: int) -> None:
    """A process that may open little takes fewer connections, so that log and status have what they need."""
    assert connections == rooms.connections_for(descriptors)


BODY = 900 * 1024
HEAD = b"POST /x HTTP/1.1\r\nHost: 127.0.0.1:%d\r\nContent-Length: %d\r\n\r\n"


def _judge(_agent: Agent, question: Question) -> Verdict:
    """Want to see bodies of the flood."""
    found = allow(question)
    if question.request is not None and question.request.method == "POST" and question.body is None:
        return replace(found, allowed=False, body_bytes=MIB)
    return found


def test_a_flood_stays_in_its_budget(monkeypatch: pytest.MonkeyPatch) -> None:
    """A run whose connections all keep a body that never ends is held to its budget, then cut; another run is served."""
    monkeypatch.setattr(rooms, "RUN_BYTES_MAX", 4 * MIB)
    monkeypatch.setattr(rooms, "STUCK_SECONDS", 0.5)
    owners = iter(range(1 << 20))

    async def story() -> None:
        async with (
            scene(
                judge=_judge,
                owner=lambda *_: Owner(uid=1, cookie=next(owners), cgroup=3),
                agent=lambda owner: Agent(run=Run(id="flood" if owner.cookie < FLOOD else "other"), principal=None),
            ) as made,
            asyncio.TaskGroup() as tasks,
        ):
            flood = [tasks.create_task(_pour(made), name="flood") for _ in range(FLOOD)]
            async with asyncio.timeout(READY_SECONDS):
                while not made.shell.room.over:  # noqa: ASYNC110 - counters are no events
                    await asyncio.sleep(0.01)
                kept = []
                for _ in range(20):
                    await asyncio.sleep(0.01)
                    kept.append(made.shell.room.bytes)
                assert max(kept) <= 4 * MIB + FLOOD * (SMALL_BYTES + 65_536)
                assert (await made.ask()).endswith(b"ok")
                while not made.shell.counters.cut_for_room or made.shell.room.over:
                    made.shell.make_room()
                    await asyncio.sleep(0.05)
            assert made.shell.counters.cut_for_room < FLOOD
            for one in flood:
                one.cancel()

    uvloop.run(story())


FLOOD = 60


async def _pour(made: Scene) -> None:
    """Send nearly all of a body, and wait."""
    with suppress(ConnectionError):
        reader, writer = await made.connect()
        try:
            writer.write(HEAD % (made.target_port, BODY + 1) + bytes(BODY))
            await writer.drain()
            await reader.read(1)
        finally:
            writer.transport.abort()
