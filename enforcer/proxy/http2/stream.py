"""One stream of an agent, and what of it is on its way.

What lives here: its state, and the two queues. What must not: judging, sending.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field, replace
from enum import Enum, auto

from capd.enforcer.obligations.obligation import CannotCarryOutError
from capd.enforcer.proxy.http1.request import Incoming
from capd.enforcer.proxy.http2.fields import Counted
from capd.enforcer.proxy.http2.request import Fields
from capd.enforcer.proxy.obliged import Obliged
from capd.enforcer.proxy.question import Verdict
from capd.enforcer.proxy.rewriting import UNCHANGED, Rewriting


class Stage(Enum):
    """Where a stream is."""

    JUDGED = auto()
    """A verdict is waited for."""
    COLLECTING = auto()
    """So is the body, which the verdict needs."""
    WAITING = auto()
    """Allowed; the target is not there yet, or takes no more streams."""
    OPEN = auto()
    ANSWERED = auto()
    """By capd itself; nothing of it goes to the target any more."""


class Queue:
    """Parts of a body that wait, each with what its sender may send more once it went on."""

    __slots__ = ("_parts", "count")

    def __init__(self) -> None:
        self._parts: deque[tuple[bytes, int]] = deque()
        self.count = 0

    def __bool__(self) -> bool:
        return bool(self._parts)

    def put(self, data: bytes, credit: int) -> None:
        """Add a part; of nothing, with no credit, nothing."""
        if data or credit:
            self._parts.append((data, credit))
            self.count += len(data)

    def take(self, most: int) -> tuple[bytes, int]:
        """Give the next bytes, and the credit of a part that is over with them."""
        data, credit = self._parts.popleft()
        if len(data) > most:
            self._parts.appendleft((data[most:], credit))
            data, credit = data[:most], 0
        self.count -= len(data)
        return data, credit

    @property
    def content(self) -> bytes:
        """Give all that waits."""
        return b"".join(data for data, _ in self._parts)

    def forgive(self) -> int:
        """Give all credit at once: what waits is kept anyway."""
        credit = sum(credit for _, credit in self._parts)
        self._parts = deque((data, 0) for data, _ in self._parts if data)
        return credit

    def clear(self) -> int:
        """Forget all that waits, and give its credit."""
        credit = sum(credit for _, credit in self._parts)
        self._parts.clear()
        self.count = 0
        return credit


@dataclass(slots=True, kw_only=True, eq=False)
class Stream:
    """One.

    Attributes:
        id: the agent's number.
        incoming: its request; None: it was refused unread.
        trailers: whether the client takes trailers.
        grpc: it is a call of gRPC.
        counted: the request's body, against what was said of it.
        number: of its decision.
        expects: the client waits for 100.
        body: of the request, what waits.
        said_all: the client said all of it. sent_all: all of it was sent on, or nobody wants the rest.
        looked: the question about it had its body.
        collected: bytes that are held because a verdict needs them.
        unwanted: bytes of the request that came when nobody wanted them any more.
        answer: of the answer's body, what waits.
        rewriting: what becomes of request and answer. obliged: the same, where a verdict has obligations.
        headed: a final head was sent to the client. complete: the answer is known to its end. finished: it was sent so far.
    """

    id: int
    incoming: Incoming | None
    trailers: bool = False
    grpc: bool = False
    counted: Counted = field(default_factory=lambda: Counted(None))
    stage: Stage = Stage.JUDGED
    number: int = 0
    verdict: Verdict | None = None
    rewriting: Rewriting = UNCHANGED
    obliged: Obliged | None = None
    expects: bool = False
    body: Queue = field(default_factory=Queue)
    said_all: bool = False
    sent_all: bool = False
    looked: bool = False
    collected: int = 0
    unwanted: int = 0
    answer: Queue = field(default_factory=Queue)
    answer_trailers: Fields = field(default_factory=list)
    headed: bool = False
    complete: bool = False
    finished: bool = False

    def oblige(self, verdict: Verdict) -> Verdict:
        """Have the obligations of a verdict carried out; give a denial in its place if they were not made ready."""
        if not (verdict.allowed and verdict.obligations):
            return verdict
        try:
            self.rewriting = self.obliged = Obliged(verdict)
        except CannotCarryOutError as error:
            return replace(verdict, allowed=False, reason="cannot_be_carried_out", message=str(error))
        return verdict
