"""What measurements of the stages of a worker share: the least of many short rounds, and a worker without sockets.

What lives here: timing, and the pieces of a worker that are the same for every protocol. What must not: what is said
(request_stages.py, statement_stages.py), whole targets (middles.py).
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final, cast

import uvloop
from bench.middles import RUN, TARGET

from capd.enforcer.policy.action import Principal, Run
from capd.enforcer.proxy.connection import Connection
from capd.enforcer.proxy.decision_form import filled_decision
from capd.enforcer.proxy.end import End
from capd.enforcer.proxy.entry import decision_entry
from capd.enforcer.proxy.events import Side
from capd.enforcer.proxy.judge import Agent
from capd.enforcer.proxy.question import Destination, Question, Verdict
from capd.enforcer.proxy.session import Session
from capd.enforcer.proxy.shell import Shell
from capd.enforcer.proxy.world import World

SESSIONS: Final = 16
"""Connections side by side: what is written at the end of a turn of the event loop is then of several."""
AGENT: Final = Agent(run=Run(name="bench", id=RUN), principal=Principal(name="bench"))
FLOW: Final = "01234567-89ab-7def-8123-456789abcdef"


@dataclass(frozen=True, kw_only=True)
class Turn:
    """What is said once on each of several connections.

    Attributes:
        asks: by the agent, one for each.
        decided: how many questions are answered then.
        answers: by the target, one for each.
    """

    asks: Sequence[bytes]
    decided: int
    answers: Sequence[bytes]


Prepared = tuple[Sequence[Connection], Sequence[Turn]]
"""Connections that are in use, and what is said on them in a round."""


def verdict(world: World, question: Question) -> Verdict:
    """Judge at once."""
    found = world.judge(AGENT, question)
    assert isinstance(found, Verdict), "the name is known"
    return found


def least(rounds: int, begin: Callable[[], Callable[[], object]]) -> float:
    """Give µs of processor time of the least round: `begin` prepares one and gives what is timed."""
    found = []
    for _ in range(rounds):
        ready = begin()
        began = time.thread_time()
        ready()
        found.append(time.thread_time() - began)
    return min(found) * 1e6


def logging(world: World, question: Question, entries: int) -> Callable[[], object]:
    """The log alone, as the shell writes it: a turn has the entries of several connections."""
    found, log = verdict(world, question), world.log

    def exchange() -> None:
        for place in range(entries):
            at_ns = time.time_ns()
            filled = filled_decision(FLOW, question, found, at_ns)
            if filled is None:
                log.append(decision_entry(FLOW, question, found, at_ns))
            else:
                log.append_filled(*filled)
            if place % SESSIONS == 0:
                log.flush()

    return exchange


def conversing(world: World, port: int, rounds: int, prepare: Callable[[], Prepared]) -> float:
    """A whole worker but for sockets: sessions, questions, judge and log, in its event loop; µs of the least round."""
    return cast("float", uvloop.run(_conversing(world, port, rounds, prepare)))


async def _conversing(world: World, port: int, rounds: int, prepare: Callable[[], Prepared]) -> float:
    found = []
    async with asyncio.TaskGroup() as tasks:
        for _ in range(rounds):
            connections, turns = prepare()
            known = iter(connections)
            shell = Shell(replace(world, connection=lambda *_, known=known: next(known)), tasks)
            ends = [_ends(shell, port) for _ in connections]
            began, wanted = time.thread_time(), 0
            for turn in turns:
                for (client, _), data in zip(ends, turn.asks, strict=True):
                    client.session.received(client.side, data)
                wanted += turn.decided
                # A busy machine may leave a turn half done; each is one of the event loop, which is what is measured.
                while shell.counters.allowed < wanted:  # noqa: ASYNC110 - as said
                    await asyncio.sleep(0)
                for (_, target), data in zip(ends, turn.answers, strict=True):
                    target.session.received(target.side, data)
            found.append(time.thread_time() - began)
            assert shell.counters.allowed == wanted
            shell.close()
            await asyncio.sleep(0)
    return min(found) * 1e6


def _ends(shell: Shell, port: int) -> tuple[End, End]:
    session = Session(shell, AGENT, Destination(address=TARGET, port=port))
    shell.room.enter(session)
    ends = End(session, Side.CLIENT), End(session, Side.UPSTREAM)
    for end in reversed(ends):
        session.connected(end, _Taker())
    return ends


class _Taker(asyncio.Transport):
    """A transport whose peer takes everything."""

    def __init__(self) -> None:
        super().__init__()
        self.taken = 0

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Take."""
        self.taken += len(data)

    def get_write_buffer_size(self) -> int:
        """Nothing waits."""
        return 0

    def is_closing(self) -> bool:
        """Say that it is open."""
        return False

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        """Nothing waits."""

    def pause_reading(self) -> None:
        """Everything is said already."""

    def resume_reading(self) -> None:
        """As above."""


def cpu_seconds(pid: int) -> float:
    """Give the processor time of a process with one thread that counts, to the nanosecond."""
    return int(Path(f"/proc/{pid}/schedstat").read_text(encoding="ascii").split()[0]) / 1e9
