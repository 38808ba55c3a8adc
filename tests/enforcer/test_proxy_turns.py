"""How the time of a worker is shared: slices, runs, and what a flood leaves to others.

What lives here: slices and turns in values, and one flood over real sockets. What must not: budgets (test_proxy_room.py).
"""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import cast

import pytest
import uvloop
from hypothesis import given
from hypothesis import strategies as st

from capd.enforcer.policy.action import Run
from capd.enforcer.proxy.commands import Arm, Close, Command, Read, Send
from capd.enforcer.proxy.events import Data, Ended, Event, Expired, Side, Timer
from capd.enforcer.proxy.flow import Owner
from capd.enforcer.proxy.judge import Agent
from capd.enforcer.proxy.kept import FIRST_BYTES, LEAST_BYTES, MOST_BYTES, PLAIN_BYTES_MAX, SLICE_SECONDS, Kept
from capd.enforcer.proxy.socket_options import reset_transport
from capd.enforcer.proxy.turns import LITTLE_SECONDS, RUN_SECONDS, TURN_SECONDS, Turns, Working
from tests.daemon.conftest import READY_SECONDS
from tests.enforcer.test_proxy_shell import REQUEST, scene

STALL_SECONDS_MAX = 0.4
"""Of processor time; a single read of the same bytes took 1.5 s, and one turn of the loop several."""


@given(st.lists(st.tuples(st.binary(max_size=3 * FIRST_BYTES), st.floats(0, 1), st.booleans()), max_size=20))
def test_slices_are_all_that_was_put(steps: list[tuple[bytes, float, bool]]) -> None:
    """Whatever slices take, they are the bytes that were put, in order, and none is larger than the largest."""
    kept, put, taken = Kept(), b"", b""
    for data, seconds, all_of_it in steps:
        kept.put(data)
        put += data
        while kept and (all_of_it or len(kept) > LEAST_BYTES):
            one = kept.take()
            assert 0 < len(one) <= MOST_BYTES
            taken += one
            kept.took(len(one), seconds)
    assert len(put) - len(taken) == len(kept)
    while kept:
        taken += kept.take()
    assert put == taken


def test_slices_follow_what_they_cost() -> None:
    """Quick slices grow to the largest, a slow one shrinks by as much as it was too slow, and not below the least."""
    kept = Kept()
    kept.put(bytes(1 << 20))
    sizes = []
    for seconds in [0.0] * 6 + [SLICE_SECONDS * 8, 10.0]:
        sizes.append(len(kept.take()))
        kept.took(sizes[-1], seconds)
    sizes.append(len(kept.take()))
    grown = [min(FIRST_BYTES << step, MOST_BYTES) for step in range(7)]
    assert [*grown, MOST_BYTES // 8, LEAST_BYTES] == sizes


@dataclass(eq=False)
class Busy:
    """A connection with so many slices, each of which takes two milliseconds of a clock."""

    run: str | None
    clock: list[float]
    slices: int = 1 << 30
    done: list[float] = field(default_factory=list)

    def work(self, clock: Callable[[], float]) -> bool:
        """Look at one."""
        assert clock() == self.clock[0]
        self.clock[0] += SLICE_SECONDS
        self.done.append(self.clock[0])
        self.slices -= 1
        return self.slices > 0


class Loop:
    """Keeps what is to be called in the next turn."""

    def __init__(self) -> None:
        self.next: list[Callable[[], None]] = []

    def call_soon(self, call: Callable[[], None]) -> None:
        """Keep it."""
        self.next.append(call)

    def turn(self) -> None:
        """Call all."""
        now, self.next = self.next, []
        for call in now:
            call()


def _turns() -> tuple[Turns, Loop, list[float]]:
    clock, loop = [0.0], Loop()
    return Turns(cast("asyncio.AbstractEventLoop", loop), lambda: clock[0]), loop, clock


def test_what_comes_alone_is_looked_at_as_it_is() -> None:
    """Until a run's time of a turn is used, and as long as none of its connections waits; a new turn gives new time."""
    turns, loop, clock = _turns()
    assert turns.at_once("a")
    turns.use("a", RUN_SECONDS / 2)
    assert turns.at_once("a")
    turns.use("a", RUN_SECONDS / 2)
    assert (False, True) == (turns.at_once("a"), turns.at_once("b"))
    loop.turn()
    assert turns.at_once("a")
    turns.come(Busy("a", clock, 1_000))
    loop.turn()
    assert (False, True) == (turns.at_once("a"), turns.at_once("b"))


def test_little_is_forgotten_later() -> None:
    """What runs used of several turns counts as of one until it is more than little; so it is never more than a run's time."""
    turns, loop, _ = _turns()
    for run in ("a", "b", "c"):
        turns.use(run, LITTLE_SECONDS / 4)
    assert [] == loop.next
    turns.use("d", RUN_SECONDS - LITTLE_SECONDS / 4)
    turns.use("a", RUN_SECONDS - LITTLE_SECONDS / 4)
    assert (False, True, 1) == (turns.at_once("a"), turns.at_once("b"), len(loop.next))
    loop.turn()
    assert turns.at_once("a")
    turns.use("a", LITTLE_SECONDS / 2)
    assert [] == loop.next


def test_bytes_pass_as_a_slice_of_their_own() -> None:
    """Bytes pass when nothing is kept before them and they are no more than a slice, or than what is plain."""
    kept, most = Kept(), FIRST_BYTES
    for size, plain, passes in (
        (most, 0, True),
        (most + 1, 0, False),
        (most * 9, most * 9, True),
        (most * 9, most * 9 - 1, False),
    ):
        assert kept.passes(bytes(size), partial(int, plain)) is passes
    kept.put(bytes(most + 1))
    assert not kept.passes(b"x", partial(int, 1))
    kept.take()
    assert not kept.passes(b"x", partial(int, 1))
    kept.take()
    assert kept.passes(b"x", partial(int, 0))


def test_what_is_plain_is_one_slice() -> None:
    """So many bytes as are plain are one slice, up to the most; behind them slices are as they were, however quick it went."""
    kept = Kept()
    kept.put(bytes(PLAIN_BYTES_MAX * 3))
    sizes = []
    for plain in (PLAIN_BYTES_MAX - 5, 0, 10, PLAIN_BYTES_MAX * 9):
        sizes.append(len(kept.take(plain)))
        kept.took(sizes[-1], SLICE_SECONDS if plain < FIRST_BYTES else 0.0)
    assert [PLAIN_BYTES_MAX - 5, FIRST_BYTES, FIRST_BYTES, PLAIN_BYTES_MAX] == sizes


def test_a_run_has_one_share_of_a_turn() -> None:
    """However many connections of a run come in a turn, they get the run's time together; another run gets its own."""
    turns, _, clock = _turns()
    crowd = [Busy("crowd", clock) for _ in range(500)]
    for one in crowd:
        turns.come(one)
    assert clock[0] <= RUN_SECONDS + SLICE_SECONDS
    other = Busy("other", clock, slices=1)
    turns.come(other)
    assert 1 == len(other.done)


def test_runs_go_one_after_the_other() -> None:
    """A turn is bounded, each run gets as many slices as another, and so does each connection of a run."""
    turns, loop, clock = _turns()
    busy = [Busy("crowd", clock) for _ in range(50)] + [Busy("one", clock) for _ in range(1)]
    for one in busy:
        turns.come(one)
    slices: Counter[str | None] = Counter()
    for _ in range(200):
        began, before = clock[0], [len(one.done) for one in busy]
        loop.turn()
        assert clock[0] - began <= TURN_SECONDS + SLICE_SECONDS
        for one, had in zip(busy, before, strict=True):
            slices[one.run] += len(one.done) - had
    assert abs(slices["crowd"] - slices["one"]) <= 1
    counts = [len(one.done) for one in busy if one.run == "crowd"][1:]
    assert max(counts) - min(counts) <= 1


def test_who_leaves_is_not_looked_at() -> None:
    """A connection that is over has no turn any more, and its run's others go on."""
    turns, loop, clock = _turns()
    gone, stays = Busy("r", clock), Busy("r", clock, slices=20)
    for one in (gone, stays):
        turns.come(one)
    turns.leave(gone)
    had = len(gone.done)
    while loop.next:
        loop.turn()
    assert (had, 20) == (len(gone.done), len(stays.done))
    assert cast("Working", stays) not in turns._queued


TINY = {
    "chunks": (b"POST /x HTTP/1.1\r\nHost: 127.0.0.1:%d\r\nTransfer-Encoding: chunked\r\n\r\n", b"1\r\nx\r\n"),
    "requests": (b"", b"GET /x HTTP/1.1\r\nHost: 127.0.0.1:%d\r\n\r\n"),
    "frames": (
        (
            b"GET /x HTTP/1.1\r\nHost: 127.0.0.1:%d\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        ),
        b"\x82\x81\1\2\3\4y",
    ),
}
SWITCH = (
    b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n"
)


@pytest.mark.usefixtures("few_objects")
@pytest.mark.parametrize("kind", TINY)
def test_tiny_pieces_stall_nobody(kind: str) -> None:
    """While one run sends the tiniest pieces without end, the loop has its turns, and another run gets its answers."""

    async def story() -> None:
        owners = iter(range(1 << 20))

        def answers(data: bytes) -> bytes:
            if b"Upgrade" in data:
                return SWITCH
            return b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok" * data.count(b"GET ")

        async with scene(
            answers=answers,
            owner=lambda *_: Owner(uid=1, cookie=next(owners), cgroup=3),
            agent=lambda owner: Agent(run=Run(id="flood" if owner.cookie == 0 else "other"), principal=None),
        ) as made:
            begin, piece = (part % made.target_port if b"%d" in part else part for part in TINY[kind])
            begun, stopped = threading.Event(), threading.Event()
            flood = threading.Thread(target=_flood, args=(made.port, begin, piece, begun, stopped), daemon=True)
            flood.start()
            try:
                await asyncio.to_thread(begun.wait, READY_SECONDS)
                longest = await _watch(made.ask, 12)
            finally:
                stopped.set()
                await asyncio.to_thread(flood.join, READY_SECONDS)
            assert longest < STALL_SECONDS_MAX

    uvloop.run(story())


def _flood(port: int, begin: bytes, piece: bytes, begun: threading.Event, stopped: threading.Event) -> None:
    with socket.create_connection(("127.0.0.1", port)) as connection:
        connection.sendall(begin)
        if b"Upgrade" in begin:
            assert connection.recv(4096)
        connection.settimeout(0.05)
        begun.set()
        block = memoryview(piece * ((1 << 20) // len(piece)))
        left = block
        while not stopped.is_set():
            try:
                left = left[connection.send(left) :] or block
            except TimeoutError:
                try:
                    connection.recv(1 << 20)
                except TimeoutError:
                    continue
            except OSError:
                return


async def _watch(ask: Callable[[], object], times: int) -> float:
    """Ask so often; give the longest processor time between two turns of the loop meanwhile."""
    longest, last, running = 0.0, time.thread_time(), True
    loop = asyncio.get_running_loop()

    def beat() -> None:
        nonlocal longest, last
        now = time.thread_time()
        longest, last = max(longest, now - last), now
        if running:
            loop.call_later(0.001, beat)

    beat()
    for _ in range(times):
        said = await asyncio.wait_for(cast("asyncio.Future[bytes]", ask()), READY_SECONDS)
        assert said.endswith(b"ok")
        await asyncio.sleep(0.02)
    running = False
    return longest


def test_requests_are_seldom_cut_in_two() -> None:
    """An ordinary request is looked at in one go."""
    assert len(REQUEST) * 8 < FIRST_BYTES


class Core:
    """A core that stops reading its client after the first bytes, and goes on a moment later, in the middle of what it says."""

    def __init__(self) -> None:
        self.closed = False
        self.took: list[int] = []
        self.ends: list[tuple[int, bool]] = []
        """How often bytes had come before each end of the client, and whether it was clean."""

    def waiting_bytes(self) -> int:
        """Nothing waits."""
        return 0

    def plain_bytes(self, _side: Side) -> int:
        """Nothing is plain."""
        return 0

    def handle(self, event: Event) -> list[Command]:
        """Say something."""
        if isinstance(event, Ended):
            self.ends.append((len(self.took), event.clean))
            return [Close(abort=True)]
        if isinstance(event, Data):
            self.took.append(len(event.data))
            return [Read(Side.CLIENT, False), Arm(Timer.TURN, 0.01)] if len(self.took) == 1 else [Send(Side.CLIENT, b"second")]
        return [Read(Side.CLIENT, True), Send(Side.CLIENT, b"first")] if isinstance(event, Expired) else []


def test_nothing_is_looked_at_in_the_middle_of_an_answer() -> None:
    """What is kept waits until the core has said all that it had to say when it wanted more."""
    core = Core()

    async def story() -> None:
        async with scene(connection=lambda _to, _opened: core) as made:
            reader, writer = await made.connect()
            writer.write(bytes(2 * FIRST_BYTES))
            assert b"firstsecond" == await asyncio.wait_for(reader.readexactly(11), READY_SECONDS)
            writer.close()

    uvloop.run(story())
    assert [FIRST_BYTES] * 2 == core.took[:2]


@pytest.mark.parametrize("clean", [True, False])
def test_an_end_is_told_behind_what_came_before_it(clean: bool) -> None:
    """A client that says that this was all is heard out first; one that is gone is known to be, whatever is kept of it."""
    core = Core()

    async def story() -> None:
        async with scene(connection=lambda _to, _opened: core) as made:
            _, writer = await made.connect()
            writer.write(bytes(2 * FIRST_BYTES))
            await writer.drain()
            async with asyncio.timeout(READY_SECONDS):
                while not core.took:  # noqa: ASYNC110 - a list is no event
                    await asyncio.sleep(0)
                if clean:
                    writer.write_eof()
                else:
                    reset_transport(cast("asyncio.Transport", writer.transport))
                while not core.ends:  # noqa: ASYNC110 - as above
                    await asyncio.sleep(0.001)

    uvloop.run(story())
    assert core.ends[0][1] is clean
    assert not clean or core.ends == [(2, True)]
