"""The shell: sockets and asyncio around the core. The one file in which asyncio performs commands.

What lives here: accepting, dialling, bytes to and from transports, timers, limits. What must not: protocols, deciding.

A connection is let in when the kernel says where it wanted to go and whose it is, and its run has room; else it is reset. Each
question is judged and written down before the answer reaches the core: all of one turn of the event loop in one write, and if
that fails, every one of them is denied.
"""

from __future__ import annotations

import asyncio
import contextlib
import resource
import socket
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Final

from capd.enforcer.proxy.commands import Close
from capd.enforcer.proxy.decision_form import filled_decision
from capd.enforcer.proxy.door import Door
from capd.enforcer.proxy.entry import (
    Entry,
    closed_entry,
    decision_entry,
    opened_entry,
    turned_away_entry,
)
from capd.enforcer.proxy.question import Destination, Question, Verdict
from capd.enforcer.proxy.room import Room, connections_for
from capd.enforcer.proxy.session import Session
from capd.enforcer.proxy.socket_options import is_over, keep_alive, keep_urgent, reset
from capd.enforcer.proxy.turns import TURN_SECONDS, Turns
from capd.enforcer.proxy.world import Counters, Place, World, leads_out

BACKLOG: Final = 1_024
ROUNDS_PER_TURN: Final = 32
"""Of decisions that follow each other: statements of a pipeline are sent in one piece then. More would leave others to wait."""
SWEEP_SECONDS: Final = 5.0
EVERY_SECONDS: Final = 1.0


class Shell:
    """All connections of one process. Made and used in its event loop."""

    def __init__(self, world: World, tasks: asyncio.TaskGroup) -> None:
        self.world, self.tasks = world, tasks
        self.loop = asyncio.get_running_loop()
        self.counters = Counters()
        self.sessions: set[Session] = set()
        self.turns = Turns(self.loop)
        self.room: Room[Session] = Room(connections_for(resource.getrlimit(resource.RLIMIT_NOFILE)[0]))
        self._decided: list[tuple[Session, Question, Verdict]] = []
        self._flushing = False
        self._doors: list[Door] = []
        self._own: set[tuple[str, int]] = set()

    def listen(self, listener: socket.socket) -> None:
        """Accept from a socket that is bound and listens, and from which other workers accept too."""
        self._own.add(listener.getsockname()[:2])
        self.open(listener, gives_way=self.world.load.gives_way)

    def open(self, listener: socket.socket, place: Place | None = None, gives_way: Callable[[], bool] = lambda: False) -> Door:
        """Accept from a listener of our network namespace or of another, until its door is shut."""

        def came(connection: socket.socket, peer: tuple[str, int]) -> None:
            self._came(connection, peer, place)

        keep_urgent(listener)
        door = Door(self.loop, listener, came, self.counters.turned_away, gives_way)
        self._doors.append(door)
        return door

    def shut(self, door: Door) -> None:
        """Take nobody at a door any more."""
        door.shut()
        self._doors.remove(door)

    def close(self) -> None:
        """Stop accepting, and cut what is open."""
        for door in self._doors:
            door.shut()
        for session in list(self.sessions):
            session.perform([Close(abort=True)])

    def sweep(self) -> None:
        """Cut what has been idle too long; called every SWEEP_SECONDS."""
        now = self.loop.time()
        for session in list(self.sessions):
            session.sweep(now)

    def make_room(self) -> None:
        """Cut what keeps runs above their budget for too long; called every second."""
        for session in self.room.kept_by_those_over():
            session.weigh()
        for session in self.room.review(self.loop.time()):
            self.counters.cut_for_room += 1
            session.crowded()

    def reconsider(self) -> None:
        """The policy has changed: ask again about what was allowed last on each connection; its body may still be under way."""
        for session in list(self.sessions):
            session.questions.reconsider()

    # -- accepting -------------------------------------------------------------------------------------------------------------

    def _came(self, connection: socket.socket, peer: tuple[str, int], place: Place | None) -> None:
        reason = self._admit(connection, peer, place)
        if reason is not None:
            self.counters.turned_away[reason] += 1
            to = self.world.destination(connection)
            self.record(turned_away_entry(reason, client=peer, to=to, at_ns=time.time_ns()))
            reset(connection)

    def _admit(self, connection: socket.socket, peer: tuple[str, int], place: Place | None) -> str | None:
        """Let a connection in; else give the reason why not."""
        wanted = self.world.destination(connection)
        if wanted is None or wanted in self._own:
            return "not redirected"
        if place is not None and not leads_out(wanted[0]):
            return "loopback of another network namespace"
        try:
            owner = (place or self.world).owner(peer, wanted)
        except OSError:
            return "owner not told"
        if is_over(connection):  # looked at afterwards: as long as it is not, nobody else can be connected with its ends
            return "left before it was known whose it is"
        agent = None if owner is None else self.world.agent(owner)
        if owner is None or agent is None:
            return "of no run"
        refusal = self.room.refusal(agent.run.id)
        if refusal is not None:
            return refusal
        connection.setblocking(False)
        keep_alive(connection)
        session = Session(self, replace(agent, uid=owner.uid), Destination(address=wanted[0], port=wanted[1]))
        if not self.record(opened_entry(session.id, agent, owner, client=peer, to=session.destination, at_ns=time.time_ns())):
            return "decision log full"
        self.room.enter(session)
        self.sessions.add(session)
        self.world.load.tell(len(self.sessions))
        self.counters.accepted += 1
        self.tasks.create_task(session.begin(connection), name=f"accept {session.id}")
        return None

    def forget(self, session: Session) -> None:
        """Take a session that ended from the books."""
        if session in self.sessions:
            self.sessions.discard(session)
            self.world.load.tell(len(self.sessions))
            self.turns.leave(session)
            self.room.leave(session, self.loop.time())
            self.record(closed_entry(session.id, session.sent, session.heard, time.time_ns(), session.transcript.end()))

    # -- writing down ----------------------------------------------------------------------------------------------------------

    def record(self, entry: Entry) -> bool:
        """Queue an entry of the log, to be written at the end of this turn; False: there is no room."""
        if not self._has_room():
            return False
        self.world.log.append(entry)
        if not self._flushing:
            self._flush_soon()
        return True

    def _has_room(self) -> bool:
        """Say whether one more entry has room; count it, if not."""
        log = self.world.log
        if not log.full:
            return True
        self.counters.unlogged += 1
        log.leave_out()
        return False

    def _flush_soon(self) -> None:
        self._flushing = True
        self.loop.call_soon(self._flush)

    def decided(self, session: Session, question: Question, verdict: Verdict) -> None:
        """Write a decision down with all others of this turn, then tell it."""
        at_ns = time.time_ns()
        filled = filled_decision(session.id, question, verdict, at_ns)
        if filled is None:
            logged = self.record(decision_entry(session.id, question, verdict, at_ns))
        else:
            logged = self._has_room()
            if logged:
                self.world.log.append_filled(*filled)
                if not self._flushing:
                    self._flush_soon()
        self._decided.append((session, question, verdict if logged else _unlogged(verdict)))

    def _flush(self) -> None:
        """Write down what was decided, and tell it; what follows from that at once is done in the same turn."""
        until = time.perf_counter() + TURN_SECONDS
        for _ in range(ROUNDS_PER_TURN):
            self._write_down()
            if not self._decided or time.perf_counter() > until:
                break
        self._flushing = False
        if self._decided:
            self._flushing = True
            self.loop.call_soon(self._flush)

    def _write_down(self) -> None:
        decided, self._decided = self._decided, []
        try:
            self.world.log.flush()
        except OSError:
            self.counters.unlogged += len(decided)
            decided = [(session, question, _unlogged(verdict)) for session, question, verdict in decided]
        for session, question, verdict in decided:
            if verdict.allowed:
                self.counters.allowed += 1
            elif not verdict.body_bytes and not question.tentative:
                self.counters.denied += 1
            session.answered(question, verdict)


def _unlogged(verdict: Verdict) -> Verdict:
    message = "the decision could not be written down, so it was not carried out"
    return Verdict(
        number=verdict.number, allowed=False, reason="decision_log_unwritable", policy=verdict.policy, message=message
    )


async def work(
    world: World, listeners: Sequence[socket.socket], stopping: asyncio.Event, every: Callable[[Shell], None]
) -> None:
    """Serve until told to stop.

    Args:
        world: what is needed of it.
        listeners: bound sockets that listen.
        stopping: set by whoever wants this to end.
        every: called each second with the shell.
    """
    swept = 0.0
    async with asyncio.TaskGroup() as tasks:
        shell = Shell(world, tasks)
        for listener in listeners:
            shell.listen(listener)
        while not stopping.is_set():
            shell.make_room()
            every(shell)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(EVERY_SECONDS):
                    await stopping.wait()
            if shell.loop.time() - swept > SWEEP_SECONDS:
                swept = shell.loop.time()
                shell.sweep()
        shell.close()
        every(shell)
