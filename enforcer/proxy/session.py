"""One connection in asyncio: its core, its two transports, its timers.

What lives here: bytes to and from transports, dialling, timers; performing the core's commands. What must not: who is let in,
what is written down (shell.py), deciding.

What is read is looked at in slices, when it is the connection's turn (turns.py): until all of it was, nothing more is read, and
what came behind it is told behind it. Nor is anything read while the connection's run has no room for more (room.py).
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import time
from collections.abc import Callable
from functools import partial
from time import perf_counter
from typing import TYPE_CHECKING, Final

from capd.enforcer.proxy.commands import (
    Arm,
    Ask,
    Close,
    Command,
    Dial,
    Exceed,
    Finish,
    Over,
    Read,
    Refused,
    Report,
    Send,
    Unsent,
    Withdraw,
)
from capd.enforcer.proxy.end import End
from capd.enforcer.proxy.entry import Entry, Heard, exceeded_entry, refused_entry, report_entry, unsent_entry
from capd.enforcer.proxy.events import (
    Blocked,
    Data,
    Decided,
    DialFailed,
    Dialled,
    Ended,
    Event,
    Expired,
    Held,
    Revoked,
    Side,
    Started,
    Timer,
)
from capd.enforcer.proxy.judge import Agent
from capd.enforcer.proxy.kept import Kept
from capd.enforcer.proxy.layer import Opened
from capd.enforcer.proxy.question import Destination, Question, Verdict
from capd.enforcer.proxy.questions import Questions
from capd.enforcer.proxy.socket_options import reset_transport
from capd.enforcer.proxy.transcript import Transcript

if TYPE_CHECKING:  # it makes sessions
    from capd.enforcer.proxy.shell import Shell

QUEUED_BYTES_MAX: Final = 65_536
"""To one side, before the other one is left to wait; what comes of a slice (16 KiB, of a body 256 KiB) is on top."""
DIAL_SECONDS: Final = 10.0
IDLE_SECONDS: Final = 7_200.0
"""Nothing went either way: longer than any server keeps a connection, and databases' pools do."""
HALF_CLOSED_SECONDS: Final = 300.0
"""The same once one side has ended: what is still to come is on its way."""
CLOSE_SECONDS: Final = 30.0
"""Until what waits has been taken by a peer that nothing else is said to."""
WEIGH_BYTES: Final = 4_096
"""Read since a connection was weighed last: requests one by one, which keep nothing, cost nothing."""


class Session:
    """One connection: its core, its two transports, its timers.

    Attributes:
        run: whose it is.
    """

    def __init__(self, shell: Shell, agent: Agent, destination: Destination) -> None:
        self.shell, self.agent, self.destination = shell, agent, destination
        self.id, self.run = shell.world.session(), agent.run.id
        self.sent = dict.fromkeys(Side, 0)
        self.heard = Heard()
        self.transcript = Transcript(shell.world.said_key)
        opened = Opened(session=self.id, run=agent.run.id or "", wake=self._wake, transcript=self.transcript)
        self._core = shell.world.connection(destination, opened)
        self._plain = (partial(self._core.plain_bytes, Side.CLIENT), partial(self._core.plain_bytes, Side.UPSTREAM))
        self._kept = (Kept(), Kept())
        self._late: tuple[list[Ended], list[Ended]] = ([], [])
        """What came behind bytes that are kept."""
        self._next = Side.CLIENT
        self._fresh = 0
        """Bytes that came since it was weighed."""
        self._transports: dict[Side, asyncio.Transport] = {}
        self._ends: dict[Side, End] = {}
        self._timers: dict[Timer, asyncio.TimerHandle] = {}
        self._dialling: asyncio.Task[None] | None = None
        self.questions = Questions(shell.world, shell.tasks, self)
        self._reading = dict.fromkeys(Side, True)
        """Whether the core takes more of a side."""
        self._paused = dict.fromkeys(Side, False)
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

    # -- bytes -----------------------------------------------------------------------------------------------------------------

    def received(self, side: Side, data: bytes) -> None:
        """Take what was read from a side; it is looked at when it is its turn."""
        kept, turns = self._kept[side], self.shell.turns
        self._fresh += len(data)
        if side is Side.CLIENT:
            self.transcript.read(data)
        if self._reading[side] and turns.at_once(self.run) and kept.passes(data, self._plain[side]):
            began = perf_counter()
            self.feed(Data(side, data))
            took = perf_counter() - began
            kept.took(len(data), took)
            turns.use(self.run, took)
        else:
            kept.put(data)
            turns.come(self)
        if self._fresh >= WEIGH_BYTES:
            self.weigh()
        elif kept.size:
            self._heed(side)

    def goes_on(self, side: Side) -> int:
        """Say how many bytes of a side would go on at once in one piece: so many can be read."""
        shell = self.shell
        at_once = self._reading[side] and not self._kept[side].size and shell.turns.at_once(self.run)
        return self._core.plain_bytes(side) if at_once and shell.room.plenty(self) else 0

    def work(self, clock: Callable[[], float]) -> bool:
        """Look at one slice of what was read; say whether another can be looked at now."""
        if self._over:
            return False
        side = self._next if self._can(self._next) else self._next.other
        if not self._can(side):
            return False
        self._next = side.other
        kept = self._kept[side]
        data = kept.take(self._core.plain_bytes(side))
        began = clock()
        self.feed(Data(side, data))
        kept.took(len(data), clock() - began)
        if not kept.size:
            self._caught_up(side)
        return self._can(Side.CLIENT) or self._can(Side.UPSTREAM)

    def _can(self, side: Side) -> bool:
        return self._reading[side] and self._kept[side].size > 0

    def _caught_up(self, side: Side) -> None:
        """All that was read was looked at: tell what came behind it, or read on."""
        late = self._late[side][:]
        self._late[side].clear()
        for event in late:
            self.feed(event)
        self._heed(side)

    def weigh(self) -> None:
        """Tell how many bytes it keeps."""
        if self._over:
            return
        self._fresh = 0
        waiting = sum(transport.get_write_buffer_size() for transport in self._transports.values())
        weight = waiting + sum(kept.size for kept in self._kept) + self._core.waiting_bytes()
        self.shell.room.weigh(self, weight, self.shell.loop.time())
        self.heed()

    def heed(self) -> None:
        """Read from where something may be read, and from nowhere else."""
        for side in self._transports:
            self._heed(side)

    def _heed(self, side: Side) -> None:
        transport = self._transports.get(side)
        if self._over or transport is None or transport.is_closing():
            return
        pause = not self._reading[side] or self._kept[side].size > 0 or not self.shell.room.may_read(self)
        if pause is not self._paused[side]:
            self._paused[side] = pause
            (transport.pause_reading if pause else transport.resume_reading)()

    def blocked(self, side: Side, *, blocked: bool) -> None:
        """Enough waits to be sent to a side, or no longer."""
        self.feed(Blocked(side, blocked))
        self.weigh()

    # -- events ----------------------------------------------------------------------------------------------------------------

    def _wake(self, event: Event) -> None:
        """Tell the core something, in a turn of its own."""
        self.shell.loop.call_soon(self.feed, event)

    def feed(self, event: Event) -> None:
        """Tell the core and do what follows. A defect of ours cuts this connection, and no other."""
        if self._over:
            return
        self._last = self.shell.loop.time()
        if self.questions.held and isinstance(event, Ended) and event.side is Side.CLIENT:
            self.left()
            return
        try:
            commands = self._core.handle(event)
            if commands:
                self.perform(commands)
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
        self._paused[end.side] = False
        self._heed(end.side)
        if end.side is Side.CLIENT:
            self.feed(Started())

    def current(self, end: End) -> bool:
        """Say whether events of an end still count: a target that was dialled anew has another one."""
        return not self._over and self._ends.get(end.side) is end

    def gone(self, end: End, error: Exception | None) -> None:
        """A transport is closed."""
        if self.current(end):
            del self._transports[end.side], self._ends[end.side]
            if end.side is Side.CLIENT:  # it waits for nothing any more
                self._kept[end.side].clear()
            self.ended(end.side, clean=error is None and end.ended)

    def ended(self, side: Side, *, clean: bool) -> None:
        """A side ended, behind what was read before that."""
        if self._kept[side].size:
            self._late[side].append(Ended(side, clean))
        else:
            self.feed(Ended(side, clean))

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
        elif verdict.allowed and not verdict.body_bytes:
            self._note(Unsent(question.number))

    def waits(self, question: Question, approval: str) -> None:
        """Tell the core that a person is asked: its protocol may have a way of telling the client."""
        self.feed(Held(question.number, approval))

    def left(self) -> None:
        """The client ended its side while a person was asked: nobody is there to be told, or to let anything go for."""
        self.questions.leave()
        self._end(abort=True)

    def crowded(self) -> None:
        """Its run keeps too much for too long, and this connection most of that."""
        self.refused(Refused(0, "too many bytes of its run wait, most of them here", ""))
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

    def _note(self, command: Refused | Report | Exceed | Unsent) -> None:
        if isinstance(command, Refused):
            self.refused(command)
        elif isinstance(command, Unsent):
            self.write(unsent_entry(self.id, command.number, time.time_ns()))
        elif isinstance(command, Exceed):
            self.shell.counters.reached(command.exceeded.limit, self.shell.loop.time())
            self.write(exceeded_entry(self.id, command, time.time_ns()))
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
            if isinstance(command, Send):  # most are one of these three
                self._send(command)
            elif isinstance(command, Ask):
                self.questions.ask(command.question)
            elif isinstance(command, Over):
                self.questions.over(command.number)
            else:
                self._do(command)

    def _do(self, command: Command) -> None:
        match command:
            case Withdraw():
                self.questions.withdraw(command.number)
            case Read():
                self._read(command)
            case Arm():
                self._arm(command)
            case Dial():
                self._dial()
            case Finish():
                self._finish(command.side)
            case Refused() | Report() | Exceed() | Unsent():
                self._note(command)
            case Close():
                self._end(abort=command.abort)

    def _send(self, command: Send) -> None:
        side, data = command.side, command.data
        transport = self._transports.get(side)
        if transport is not None and not transport.is_closing():
            transport.write(data)
            self.sent[side] += len(data)
            if side is Side.CLIENT:
                self.transcript.written(data)
            self.shell.counters.bytes[side] += len(data)

    def _read(self, command: Read) -> None:
        self._reading[command.side] = command.reading
        if command.reading and self._kept[command.side].size:
            self.shell.turns.later(self)
        self._heed(command.side)

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
        self._kept[Side.UPSTREAM].clear()
        self._late[Side.UPSTREAM].clear()
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
        for kept in self._kept:
            kept.clear()
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
