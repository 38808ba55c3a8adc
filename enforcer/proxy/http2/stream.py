"""One stream of an agent, and what of it is on its way.

What lives here: its state, and the two queues. What must not: judging, sending.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field, replace
from enum import Enum, auto
from typing import Final

from capd.enforcer.obligations.obligation import CannotCarryOutError
from capd.enforcer.proxy.http1.request import Incoming
from capd.enforcer.proxy.http1.waiting import FIELD_BYTES
from capd.enforcer.proxy.http2.fields import Counted
from capd.enforcer.proxy.http2.limits import TRIES_MAX
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


JOINED_BYTES: Final = 4_096
"""Parts smaller than that are kept as one: each costs as much as some tens of bytes, and a peer may send them one by one."""


class _Part:
    """Of a body."""

    __slots__ = ("credit", "data")

    def __init__(self, data: bytes, credit: int) -> None:
        self.data, self.credit = bytearray(data), credit


class Queue:
    """Parts of a body that wait, each with what its sender may send more once it went on."""

    __slots__ = ("_parts", "count")

    def __init__(self) -> None:
        self._parts: deque[_Part] = deque()
        self.count = 0

    def __bool__(self) -> bool:
        return bool(self._parts)

    def put(self, data: bytes, credit: int) -> None:
        """Add a part; of nothing, with no credit, nothing."""
        if not (data or credit):
            return
        self.count += len(data)
        if self._parts and len(self._parts[-1].data) + len(data) <= JOINED_BYTES:
            self._parts[-1].data += data
            self._parts[-1].credit += credit
        else:
            self._parts.append(_Part(data, credit))

    def take(self, most: int) -> tuple[bytes, int]:
        """Give the next bytes, and the credit of a part that is over with them."""
        part = self._parts[0]
        if len(part.data) > most:
            data = bytes(part.data[:most])
            del part.data[:most]
            self.count -= most
            return data, 0
        self._parts.popleft()
        self.count -= len(part.data)
        return bytes(part.data), part.credit

    @property
    def content(self) -> bytes:
        """Give all that waits."""
        return b"".join(part.data for part in self._parts)

    def forgive(self) -> int:
        """Give all credit at once: what waits is kept anyway."""
        credit = sum(part.credit for part in self._parts)
        for part in self._parts:
            part.credit = 0
        self._parts = deque(part for part in self._parts if part.data)
        return credit

    def clear(self) -> int:
        """Forget all that waits, and give its credit."""
        credit = sum(part.credit for part in self._parts)
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
        approved: the body of what a person approved, kept for where a target did not look at it. tries: how often it was sent.
        head_bytes: what its head takes to keep.
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
    approved: bytes = b""
    tries: int = 0
    headed: bool = False
    complete: bool = False
    finished: bool = False
    head_bytes: int = field(init=False)

    def __post_init__(self) -> None:
        fields = () if self.incoming is None else self.incoming.request.fields
        self.head_bytes = sum([FIELD_BYTES + len(name) + len(value) for name, value in fields])

    @property
    def _is_approved(self) -> bool:
        return self.verdict is not None and bool(self.verdict.approval)

    def sends(self) -> None:
        """It is sent to a target. What a person approved is kept: nobody is asked about it a second time."""
        self.stage = Stage.OPEN
        self.tries += 1
        if self._is_approved and self.tries == 1:
            self.approved = self.body.content

    def comes_again(self) -> bool:
        """Wait for another target, if a person approved it and nothing of an answer came; say whether it does."""
        if not self._is_approved or self.headed or self.tries >= TRIES_MAX or not self.said_all:
            return False
        self.body.clear()
        self.body.put(self.approved, 0)
        self.stage, self.sent_all = Stage.WAITING, False
        return True

    def oblige(self, verdict: Verdict) -> Verdict:
        """Have the obligations of a verdict carried out; give a denial in its place if they were not made ready."""
        if not (verdict.allowed and verdict.obligations):
            return verdict
        try:
            self.rewriting = self.obliged = Obliged(verdict)
        except CannotCarryOutError as error:
            return replace(verdict, allowed=False, reason="cannot_be_carried_out", message=str(error))
        return verdict
