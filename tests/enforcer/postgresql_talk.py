"""A client before the proxy's core and the model of a server behind it.

What lives here: carrying bytes between them, in pieces of any size. What must not: what is expected.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace

from capd.enforcer.proxy.connection import Connection
from capd.enforcer.proxy.events import Data, Side
from capd.enforcer.proxy.question import Destination, Kind, Question, Verdict
from tests.enforcer.postgresql_model import Server, messages, startup
from tests.enforcer.rehearsal import Rehearsal

HERE = Destination(address="192.0.2.1", port=5432)


def by_text(question: Question) -> Verdict:
    """Allow sessions, and statements in whose content there is no `denied`."""
    statement = question.statement
    allowed = question.kind is Kind.SESSION or (statement is not None and b"denied" not in statement.content)
    reason = "" if allowed else "denied_by_policy"
    return Verdict(number=question.number, allowed=allowed, reason=reason, rule="by-text", policy="1", message="not this")


@dataclass
class Talk:
    """A conversation.

    Attributes:
        judge: answers questions at once; None: they wait.
        step: size of the pieces in which bytes come; 0: as they are said.
        cut: after so many bytes the server says nothing more, and hears nothing; None: never.
        core: what is talked through; None: a connection as it is opened.
    """

    judge: Callable[[Question], Verdict] | None = by_text
    step: int = 0
    cut: int | None = None
    core: Callable[[], Connection] | None = None
    server: Server = field(default_factory=Server)
    _taken: int = 0
    _shown: int = 0

    def __post_init__(self) -> None:
        self.run = Rehearsal(judge=self.judge, destination=HERE, core=self.core)

    def begin(self, packet: bytes | None = None) -> Talk:
        """Sign in."""
        self.says(startup() if packet is None else packet)
        self.new()
        return self

    def says(self, *said: bytes) -> Talk:
        """Have the client say something."""
        for piece in said:
            self.run.says(piece, step=self.step)
            self.go()
        return self

    def decide(self, verdict: Callable[[Question], Verdict] = by_text) -> Talk:
        """Answer the question that waits."""
        self.run.decide(verdict)
        return self.go()

    def go(self) -> Talk:
        """Carry what the server is sent, and what it answers."""
        while new := self.run.upstream[self._taken :]:
            self._taken += len(new)
            said = self.server.hears(bytes(new))
            if self.cut is not None:
                said, self.cut = said[: self.cut], max(self.cut - len(said), 0)
            for at in range(0, len(said), self.step or len(said) or 1):
                if self.run.closed is None:
                    self.run.tell(Data(Side.UPSTREAM, said[at : at + (self.step or len(said))]))
        return self

    def new(self) -> bytes:
        """Give what the client was sent since this was asked last."""
        found = self.run.client[self._shown :]
        self._shown += len(found)
        return bytes(found)

    def told(self) -> list[tuple[str, bytes]]:
        """Give the messages that the client was sent since this was asked last."""
        return messages(self.new())

    @property
    def statements(self) -> list[str | None]:
        """Give the text of every statement that was asked about."""
        return [one.statement.text for one in self.run.questions if one.statement is not None]


def held(question: Question) -> Verdict:
    """Allow it, whatever it is."""
    return replace(by_text(question), allowed=True, reason="")
