"""The shell: sockets and asyncio around the core. The one file in which asyncio performs commands.

What lives here: accepting, dialling, bytes to and from transports, timers, limits. What must not: protocols, deciding.

A connection is let in when the kernel says where it wanted to go and whose it is, and its run has room; else it is reset. Each
question is judged and written down before the answer reaches the core: all of one turn of the event loop in one write, and if
that fails, every one of them is denied.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import socket
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Final

from capd.enforcer.proxy.commands import Arm, Ask, Close, Command, Dial, Finish, Over, Read, Refused, Report, Send, Withdraw
from capd.enforcer.proxy.end import End
from capd.enforcer.proxy.entry import (
    Entry,
    Heard,
    closed_entry,
    decision_entry,
    opened_entry,
    refused_entry,
    report_entry,
    turned_away_entry,
)
from capd.enforcer.proxy.events import Decided, DialFailed, Dialled, Ended, Event, Expired, Revoked, Side, Started, Timer
from capd.enforcer.proxy.judge import Agent
from capd.enforcer.proxy.question import Destination, Kind, Question, Verdict
from capd.enforcer.proxy.questions import Questions
from capd.enforcer.proxy.socket_options import keep_alive, reset, reset_transport
from capd.enforcer.proxy.world import Counters, Place, World, leads_out

CONNECTIONS_MAX: Final = 4_096
"""Of one process: each has two descriptors and, at worst, the bytes below on either side."""
CONNECTIONS_PER_RUN_MAX: Final = 512
"""Of one process: one run cannot take all of them; what agents do in earnest stays below a hundred."""
QUEUED_BYTES_MAX: Final = 65_536
"""To one side, before the other one is left to wait; what is read at once comes on top (256 KiB)."""
BACKLOG: Final = 1_024
ACCEPTS_PER_TURN: Final = 64
"""So that a flood of connections leaves turns to those that are there."""
DIAL_SECONDS: Final = 10.0
IDLE_SECONDS: Final = 7_200.0
"""Nothing went either way: longer than any server keeps a connection, and databases' pools do."""
HALF_CLOSED_SECONDS: Final = 300.0
"""The same once one side has ended: what is still to come is on its way."""
CLOSE_SECONDS: Final = 30.0
"""Until what waits has been taken by a peer that nothing else is said to."""
SWEEP_SECONDS: Final = 5.0
EVERY_SECONDS: Final = 1.0


class Shell:
    """All connections of one process. Made and used in its event loop."""

    def __init__(self, world: World, tasks: asyncio.TaskGroup) -> None:
        self.world, self.tasks = world, tasks
        self.loop = asyncio.get_running_loop()
        self.counters = Counters()
        self.sessions: set[Session] = set()
        self._of_run: Counter[str | None] = Counter()
        self._decided: list[tuple[Session, Question, Verdict]] = []
        self._flushing = False
        self._listening: list[socket.socket] = []
        self._own: set[tuple[str, int]] = set()

    def listen(self, listener: socket.socket) -> None:
        """Accept from a socket that is bound and listens."""
        listener.setblocking(False)
        self._listening.append(listener)
        self._own.add(listener.getsockname()[:2])
        self.loop.add_reader(listener.fileno(), self.accept, listener)

    def close(self) -> None:
        """Stop accepting, and cut what is open."""
        for listener in self._listening:
            self.loop.remove_reader(listener.fileno())
        for session in list(self.sessions):
            session.perform([Close(abort=True)])

    def sweep(self) -> None:
        """Cut what has been idle too long; called every SWEEP_SECONDS."""
        now = self.loop.time()
        for session in list(self.sessions):
            session.sweep(now)

    def reconsider(self) -> None:
        """The policy has changed: ask again about what was allowed last on each connection; its body may still be under way."""
        for session in list(self.sessions):
            session.questions.reconsider()

    # -- accepting -------------------------------------------------------------------------------------------------------------

    def accept(self, listener: socket.socket, place: Place | None = None) -> None:
        """Take what waits at a listener, of our network namespace or of another."""
        for _ in range(ACCEPTS_PER_TURN):
            try:
                connection, peer = listener.accept()
            except (BlockingIOError, ConnectionAbortedError):
                return
            except OSError as error:  # no descriptors: those that are open will free some
                if error.errno == errno.EINVAL:  # root of that namespace shut it
                    self.loop.remove_reader(listener.fileno())
                self.counters.turned_away[f"accept: {error.strerror}"] += 1
                return
            reason = self._admit(connection, peer[:2], place)
            if reason is not None:
                self.counters.turned_away[reason] += 1
                to = self.world.destination(connection)
                self.record(turned_away_entry(reason, client=peer[:2], to=to, at_ns=time.time_ns()))
                reset(connection)

    def _admit(self, connection: socket.socket, peer: tuple[str, int], place: Place | None) -> str | None:
        """Let a connection in; else give the reason why not."""
        wanted = self.world.destination(connection)
        if wanted is None or wanted in self._own:
            return "not redirected"
        if place is not None and not leads_out(wanted[0]):
            return "loopback of another network namespace"
        if len(self.sessions) >= CONNECTIONS_MAX:
            return "too many connections"
        try:
            owner = (place or self.world).owner(peer, wanted)
        except OSError:
            return "owner not told"
        agent = None if owner is None else self.world.agent(owner)
        if owner is None or agent is None:
            return "of no run"
        if self._of_run[agent.run.id] >= CONNECTIONS_PER_RUN_MAX:
            return "too many connections of one run"
        connection.setblocking(False)
        keep_alive(connection)
        session = Session(self, replace(agent, uid=owner.uid), Destination(address=wanted[0], port=wanted[1]))
        if not self.record(opened_entry(session.id, agent, owner, client=peer, to=session.destination, at_ns=time.time_ns())):
            return "decision log full"
        self._of_run[agent.run.id] += 1
        self.sessions.add(session)
        self.counters.accepted += 1
        self.tasks.create_task(session.begin(connection), name=f"accept {session.id}")
        return None

    def forget(self, session: Session) -> None:
        """Take a session that ended from the books."""
        if session in self.sessions:
            self.sessions.discard(session)
            self._of_run[session.agent.run.id] -= 1
            if not self._of_run[session.agent.run.id]:
                del self._of_run[session.agent.run.id]
            self.record(closed_entry(session.id, session.sent, session.heard, time.time_ns()))

    # -- writing down ----------------------------------------------------------------------------------------------------------

    def record(self, entry: Entry) -> bool:
        """Queue an entry of the log, to be written at the end of this turn; False: there is no room."""
        if self.world.log.full:
            self.counters.unlogged += 1
            self.world.log.leave_out()
            return False
        self.world.log.append(entry)
        if not self._flushing:
            self._flushing = True
            self.loop.call_soon(self._flush)
        return True

    def decided(self, session: Session, question: Question, verdict: Verdict) -> None:
        """Write a decision down with all others of this turn, then tell it."""
        if not self.record(decision_entry(session.id, question, verdict, time.time_ns())):
            verdict = _unlogged(verdict)
        self._decided.append((session, question, verdict))

    def _flush(self) -> None:
        self._flushing = False
        decided, self._decided = self._decided, []
        try:
            self.world.log.flush()
        except OSError:
            self.counters.unlogged += len(decided)
            decided = [(session, question, _unlogged(verdict)) for session, question, verdict in decided]
        for session, question, verdict in decided:
            if verdict.allowed:
                self.counters.allowed += 1
            elif not verdict.body_bytes and question.kind is not Kind.PASSTHROUGH:
                self.counters.denied += 1
            session.answered(question, verdict)


class Session:
    """One connection: its core, its two transports, its timers."""

    def __init__(self, shell: Shell, agent: Agent, destination: Destination) -> None:
        self.shell, self.agent, self.destination = shell, agent, destination
        self.id = shell.world.session()
        self.sent = dict.fromkeys(Side, 0)
        self.heard = Heard()
        self._core = shell.world.connection(destination, self.id)
        self._transports: dict[Side, asyncio.Transport] = {}
        self._ends: dict[Side, End] = {}
        self._timers: dict[Timer, asyncio.TimerHandle] = {}
        self._dialling: asyncio.Task[None] | None = None
        self.questions = Questions(shell.world, shell.tasks, self)
        self._reading = dict.fromkeys(Side, True)
        self._half_closed = False
        self._last = shell.loop.time()
        self._over = False

    async def begin(self, connection: socket.socket) -> None:
        """Take the agent's side."""
        try:
            await self.shell.loop.connect_accepted_socket(lambda: End(self, Side.CLIENT), connection)
        except OSError:
            connection.close()
            self._end(abort=True)

    # -- events ----------------------------------------------------------------------------------------------------------------

    def feed(self, event: Event) -> None:
        """Tell the core and do what follows. A defect of ours cuts this connection, and no other."""
        if self._over:
            return
        self._last = self.shell.loop.time()
        if self.questions.held and isinstance(event, Ended) and event.side is Side.CLIENT:
            self.left()
            return
        try:
            self.perform(self._core.handle(event))
        except Exception as error:  # noqa: BLE001 - a mistake of ours must not take other connections with it
            self.shell.counters.defects += 1
            self.shell.loop.call_exception_handler({"message": f"session {self.id} was cut", "exception": error})
            self._end(abort=True)

    def connected(self, end: End, transport: asyncio.Transport) -> None:
        """Take a transport."""
        if self._over:
            transport.abort()
            return
        transport.set_write_buffer_limits(high=QUEUED_BYTES_MAX)
        self._transports[end.side], self._ends[end.side] = transport, end
        if not self._reading[end.side]:
            transport.pause_reading()
        if end.side is Side.CLIENT:
            self.feed(Started())

    def current(self, end: End) -> bool:
        """Say whether events of an end still count: a target that was dialled anew has another one."""
        return not self._over and self._ends.get(end.side) is end

    def gone(self, end: End, error: Exception | None) -> None:
        """A transport is closed."""
        if self.current(end):
            del self._transports[end.side], self._ends[end.side]
            self.feed(Ended(end.side, clean=error is None and end.ended))

    def sweep(self, now: float) -> None:
        """Cut this connection if nothing has happened for too long."""
        if now - self._last > (HALF_CLOSED_SECONDS if self._half_closed else IDLE_SECONDS):
            self._end(abort=True)

    # -- deciding --------------------------------------------------------------------------------------------------------------

    @property
    def listening(self) -> bool:
        """Whether the client is there to be told."""
        client = self._ends.get(Side.CLIENT)
        return client is not None and not client.ended

    def found(self, question: Question, verdict: Verdict) -> None:
        """Take a verdict, to be written down and told."""
        self.shell.decided(self, question, verdict)

    def answered(self, question: Question, verdict: Verdict) -> None:
        """Tell the core of a decision that is written down, unless it was withdrawn meanwhile."""
        if self.questions.answered(question, verdict):
            self.feed(Decided(verdict))

    def left(self) -> None:
        """The client ended its side while a person was asked: nobody is there to be told, or to let anything go for."""
        self.questions.leave()
        self._end(abort=True)

    def revoked(self, question: Question) -> None:
        """End what is not allowed any more: a connection, or one of the exchanges that are side by side in it."""
        if self._over:
            return
        self.refused(Refused(0, "the policy has changed and does not allow it any more", ""))
        if question.exchange is None:
            self._end(abort=True)
        elif question.number in self.questions.standing:
            self.feed(Revoked(question.number))

    def refused(self, command: Refused) -> None:
        """Write down a refusal."""
        self.shell.counters.refused += 1
        self.shell.record(refused_entry(self.id, command, time.time_ns()))

    def _note(self, command: Refused | Report) -> None:
        if isinstance(command, Refused):
            self.refused(command)
        else:
            self.write(report_entry(self.id, command, time.time_ns()))

    def write(self, entry: Entry) -> None:
        """Write down anything else."""
        self.shell.record(entry)

    def failed(self) -> None:
        """Count a mistake of ours."""
        self.shell.counters.defects += 1

    # -- commands --------------------------------------------------------------------------------------------------------------

    def perform(self, commands: list[Command]) -> None:
        """Do what the core wants, in order."""
        for command in commands:
            match command:
                case Send():
                    self._send(command)
                case Ask():
                    self.questions.ask(command.question)
                case Withdraw():
                    self.questions.withdraw(command.number)
                case Over():
                    self.questions.over(command.number)
                case Read():
                    self._read(command)
                case Arm():
                    self._arm(command)
                case Dial():
                    self._dial()
                case Finish():
                    self._finish(command.side)
                case Refused() | Report():
                    self._note(command)
                case Close():
                    self._end(abort=command.abort)

    def _send(self, command: Send) -> None:
        transport = self._transports.get(command.side)
        if transport is not None and not transport.is_closing():
            transport.write(command.data)
            self.sent[command.side] += len(command.data)
            self.shell.counters.bytes[command.side] += len(command.data)

    def _read(self, command: Read) -> None:
        self._reading[command.side] = command.reading
        transport = self._transports.get(command.side)
        if transport is not None and not transport.is_closing():
            (transport.resume_reading if command.reading else transport.pause_reading)()

    def _arm(self, command: Arm) -> None:
        running = self._timers.pop(command.timer, None)
        if running is not None:
            running.cancel()
        if command.seconds is not None:
            event = Expired(command.timer)
            self._timers[command.timer] = self.shell.loop.call_later(command.seconds, self.feed, event)

    def _finish(self, side: Side) -> None:
        transport = self._transports.get(side)
        self._half_closed = True
        if transport is not None and not transport.is_closing():
            with contextlib.suppress(OSError, RuntimeError):  # the peer was faster
                transport.write_eof()

    def _dial(self) -> None:
        if self._dialling is not None:
            self._dialling.cancel()
        former = self._transports.pop(Side.UPSTREAM, None)
        self._ends.pop(Side.UPSTREAM, None)
        if former is not None:
            former.abort()
        self._dialling = self.shell.tasks.create_task(self._connect(), name=f"dial {self.id}")

    async def _connect(self) -> None:
        to = self.destination
        try:
            async with asyncio.timeout(DIAL_SECONDS):
                await self.shell.loop.create_connection(lambda: End(self, Side.UPSTREAM), to.address, to.port)
        except TimeoutError:
            self.feed(DialFailed(f"{to.address} port {to.port} did not answer within {DIAL_SECONDS:.0f} s"))
        except OSError as error:
            self.feed(DialFailed(f"{to.address} port {to.port}: {error.strerror or error}"))
        else:
            self.feed(Dialled())

    def _end(self, *, abort: bool) -> None:
        """Close both sides and forget the session."""
        if self._over:
            return
        self._over = True
        for timer in self._timers.values():
            timer.cancel()
        self.questions.close()
        if self._dialling is not None and self._dialling is not asyncio.current_task(self.shell.loop):
            self._dialling.cancel()
        for transport in self._transports.values():
            if abort:
                reset_transport(transport)
            else:
                transport.close()
                self.shell.loop.call_later(CLOSE_SECONDS, transport.abort)
        self._transports.clear()
        self._ends.clear()
        self.shell.forget(self)


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
            every(shell)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(EVERY_SECONDS):
                    await stopping.wait()
            if shell.loop.time() - swept > SWEEP_SECONDS:
                swept = shell.loop.time()
                shell.sweep()
        shell.close()
        every(shell)
