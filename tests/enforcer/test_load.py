"""Workers that accept from the same listeners share connections evenly, and none waits for a worker that does not come."""

from __future__ import annotations

import asyncio
import socket
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from capd.enforcer.proxy.door import Door
from capd.enforcer.proxy.load import Load, OwnLoad

POOL = 16


@pytest.mark.parametrize(
    ("own", "others", "gives_way"),
    [
        (0, [0], False),
        (1, [1], False),
        (1, [0], True),
        (0, [1], False),
        (7, [9, 6], True),
        (8, [7], False),
        (16, [14], False),
        (16, [13], True),
        (1_000, [900], False),
        (1_000, [800], True),
        (5, [], False),
    ],
)
def test_the_next_connection_is_left_to_whoever_has_less(own: int, others: list[int], gives_way: bool) -> None:
    """A worker gives way to another one that has fewer, by more than an eighth."""
    load = Load(1 + len(others))
    for number, count in enumerate(others, start=1):
        load.of(number).tell(count)
    mine = load.of(0)
    mine.tell(own)
    assert gives_way is mine.gives_way()


def test_a_worker_that_is_started_anew_has_none() -> None:
    """What the one before it had is forgotten."""
    load = Load(2)
    load.of(1).tell(7)
    mine = load.of(0)
    mine.tell(3)
    assert not mine.gives_way()
    load.of(1)
    assert mine.gives_way()


def test_nothing_is_left_to_a_worker_that_never_began() -> None:
    """There may be places that no worker has: the enforcer has other processes too."""
    mine = Load(5).of(0)
    mine.tell(3)
    assert not mine.gives_way()


class Worker:
    """Accepts, and counts what it has."""

    def __init__(self, load: OwnLoad) -> None:
        self.load, self.taken = load, 0

    def came(self, connection: socket.socket, _peer: tuple[str, int]) -> None:
        """Keep nothing but the count."""
        connection.close()
        self.taken += 1
        self.load.tell(self.taken)

    def open(self, listener: socket.socket) -> Door:
        """Accept in this loop."""
        return Door(asyncio.get_running_loop(), listener, self.came, Counter(), self.load.gives_way)


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    """Give one that listens on loopback."""
    with socket.create_server(("127.0.0.1", 0), backlog=POOL) as made:
        yield made


def test_a_pool_is_shared_evenly(listener: socket.socket) -> None:
    """Of sixteen connections that come at once, of which a worker would take all in one turn, each of two gets about eight."""

    async def share() -> list[int]:
        load = Load(2)
        with socket.socket(fileno=listener.dup().detach()) as second, ExitStack() as stack:
            for _ in range(POOL):
                stack.enter_context(socket.create_connection(listener.getsockname()))
            workers = [Worker(load.of(number)) for number in range(2)]
            doors = [worker.open(one) for worker, one in zip(workers, (listener, second), strict=True)]
            while sum(worker.taken for worker in workers) < POOL:  # noqa: ASYNC110 - doors know nothing of events
                await asyncio.sleep(0.001)
            for door in doors:
                door.shut()
        return [worker.taken for worker in workers]

    first, second = asyncio.run(asyncio.wait_for(share(), 60))
    assert POOL == first + second
    assert abs(first - second) <= 2  # each may have taken one more while the other came


def test_nobody_waits_for_a_worker_that_does_not_come(listener: socket.socket) -> None:
    """Connections that another worker should take are taken all the same when it is hung or gone."""

    async def serve() -> int:
        load = Load(2)
        load.of(1)
        mine = Worker(load.of(0))
        with ExitStack() as stack:
            for _ in range(POOL):
                stack.enter_context(socket.create_connection(listener.getsockname()))
            door = mine.open(listener)
            while mine.taken < POOL:  # noqa: ASYNC110 - as above
                await asyncio.sleep(0.001)
            door.shut()
        return mine.taken

    assert POOL == asyncio.run(asyncio.wait_for(serve(), 60))
