"""A connection without sockets: the core of the proxy with a judge and a target made of values.

What lives here: doing commands by keeping them. What must not: what is expected.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NoReturn

from capd.enforcer.policy.host_name import normal_host
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
from capd.enforcer.proxy.connection import Connection, Means, open_connection
from capd.enforcer.proxy.events import Data, Decided, DialFailed, Dialled, Ended, Event, Expired, Side, Started, Timer
from capd.enforcer.proxy.layer import Opened
from capd.enforcer.proxy.question import Destination, Question, Verdict
from capd.enforcer.proxy.secured import Contexts

HERE = Destination(address="192.0.2.1", port=80)


class NoTls:
    """For connections in clear."""

    def leaf(self, name: str, application_protocol: str | None) -> NoReturn:
        """Never."""
        raise AssertionError(name, application_protocol)

    def upstream(self, application_protocols: object, name: str | None) -> NoReturn:
        """Never."""
        raise AssertionError(name, application_protocols)

    def speaks_http2(self, name: str, destination: Destination) -> NoReturn:
        """Never."""
        raise AssertionError(name, destination)

    def learn(self, name: str, destination: Destination, *, http2: bool) -> NoReturn:
        """Never."""
        raise AssertionError(name, destination, http2)


def allow(question: Question) -> Verdict:
    """Allow everything but passing TLS through."""
    return Verdict(number=question.number, allowed=question.kind.value != "tls", rule="all", policy="1", upgrade=True)


def deny(question: Question) -> Verdict:
    """Deny everything."""
    return Verdict(number=question.number, allowed=False, reason="denied_by_policy", rule="none", policy="1", message="no")


@dataclass
class Rehearsal:
    """One connection.

    Attributes:
        judge: answers questions at once; None: they wait in `asked`.
        reachable: whether dialling succeeds; None: it waits.
        core: what is rehearsed; None: a connection as it is opened.
        chosen: what targets choose in TLS.
        sent: what each side was sent.
        decisions: for each piece of bytes for the target, the decision that it belongs to.
    """

    judge: Callable[[Question], Verdict] | None = allow
    reachable: bool | None = True
    destination: Destination = HERE
    contexts: Contexts = field(default_factory=NoTls)
    core: Callable[[], Connection] | None = None
    chosen: str | None = None
    sent: dict[Side, bytearray] = field(default_factory=lambda: {side: bytearray() for side in Side})
    decisions: list[int] = field(default_factory=list)
    questions: list[Question] = field(default_factory=list)
    asked: deque[Question] = field(default_factory=deque)
    refused: list[Refused] = field(default_factory=list)
    reports: list[Report] = field(default_factory=list)
    exceeded: list[Exceed] = field(default_factory=list)
    finished: set[Side] = field(default_factory=set)
    reading: dict[Side, bool] = field(default_factory=lambda: dict.fromkeys(Side, True))
    armed: dict[Timer, float] = field(default_factory=dict)
    dials: list[int] = field(default_factory=list)
    withdrawn: list[int] = field(default_factory=list)
    over: list[int] = field(default_factory=list)
    unsent: list[int] = field(default_factory=list)
    closed: Close | None = None

    def __post_init__(self) -> None:
        made = None if self.core is None else self.core()
        self._core: Connection = made or open_connection(
            self.destination, Opened(session="s"), Means(contexts=self.contexts, normalise=normal_host)
        )
        self.tell(Started())

    @property
    def client(self) -> bytes:
        """Give what the agent was sent."""
        return bytes(self.sent[Side.CLIENT])

    @property
    def upstream(self) -> bytes:
        """Give what the target was sent."""
        return bytes(self.sent[Side.UPSTREAM])

    def says(self, data: bytes, *, step: int = 0) -> Rehearsal:
        """Have the agent say something, in pieces of `step` bytes."""
        for at in range(0, len(data), step or len(data) or 1):
            self.tell(Data(Side.CLIENT, data[at : at + step] if step else data))
        return self

    def answers(self, data: bytes, *, step: int = 0) -> Rehearsal:
        """Have the target say something."""
        for at in range(0, len(data), step or len(data) or 1):
            self.tell(Data(Side.UPSTREAM, data[at : at + step] if step else data))
        return self

    def ends(self, side: Side, *, clean: bool = True) -> Rehearsal:
        """Have a side end."""
        self.tell(Ended(side, clean))
        return self

    def silent(self, timer: Timer = Timer.SILENCE) -> Rehearsal:
        """Let a timer that was armed run out."""
        del self.armed[timer]
        self.tell(Expired(timer))
        return self

    def decide(self, verdict: Callable[[Question], Verdict]) -> Rehearsal:
        """Answer the question that waits."""
        self.tell(Decided(verdict(self.asked.popleft())))
        return self

    def plain(self, side: Side) -> int:
        """Give how many of a side's next bytes are said to go on in one piece."""
        return self._core.plain_bytes(side)

    def kept(self) -> int:
        """Give how many bytes the core says that it keeps."""
        return self._core.waiting_bytes()

    def tell(self, event: Event) -> None:
        """Give the core an event and do what follows, and what follows from that."""
        events = deque([event])
        while events:
            for command in self._core.handle(events.popleft()):
                assert self.closed is None, command
                if isinstance(command, Arm):
                    self._arm(command)
                else:
                    events += self._done(command)

    def _done(self, command: Command) -> list[Event]:
        """Keep what a command does, and give what it leads to."""
        match command:
            case Send():
                assert command.data
                self.sent[command.side] += command.data
                if command.side is Side.UPSTREAM:
                    self.decisions.append(command.decision)
            case Ask():
                return self._ask(command.question)
            case Dial():
                self.dials.append(command.decision)
                return (
                    [] if self.reachable is None else [Dialled(self.chosen) if self.reachable else DialFailed("nobody there")]
                )
            case Finish():
                self.finished.add(command.side)
            case Refused():
                self.refused.append(command)
            case Report() | Exceed():
                self._note(command)
            case Read():
                self.reading[command.side] = command.reading
            case Close():
                self.closed = command
            case Withdraw():
                self.asked = deque(question for question in self.asked if question.number != command.number)
                self.withdrawn.append(command.number)
            case Over() | Unsent():
                (self.over if isinstance(command, Over) else self.unsent).append(command.number)
        return []

    def _note(self, command: Report | Exceed) -> None:
        if isinstance(command, Report):
            self.reports.append(command)
        else:
            self.exceeded.append(command)

    def _ask(self, question: Question) -> list[Event]:
        self.questions.append(question)
        if self.judge is not None:
            return [Decided(self.judge(question))]
        self.asked.append(question)
        return []

    def _arm(self, command: Arm) -> None:
        if command.seconds is None:
            self.armed.pop(command.timer, None)
        else:
            self.armed[command.timer] = command.seconds
