"""Which answer belongs to which request.

What lives here: the queue of requests without an answer. What must not: bytes.

Answers come in the order of the requests (RFC 9112 9.3.2). After lost bytes of the response direction it is unknown how many
answers were lost; then the next one is taken for the answer to the latest request, which is right whenever the client does not
pipeline. An answer without any request waiting has exchange None.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import Final

UNANSWERED_MAX: Final = 16_384
"""Pipelined requests without an answer; honest clients stop below a hundred."""


@dataclass(slots=True, kw_only=True)
class Asked:
    """What must be known of a request to read its answer. Nobody changes it; a frozen class takes three times as long to build.

    Attributes:
        number: its exchange.
        head: it was HEAD, so the answer has no body.
        connect: it was CONNECT, so success turns the connection into a tunnel.
        upgrade: it had an Upgrade field, so 101 is a possible answer.
    """

    number: int
    head: bool = False
    connect: bool = False
    upgrade: bool = False


class Exchanges:
    """Numbers requests and finds the one that an answer belongs to."""

    def __init__(self) -> None:
        self._count = 0
        self._unanswered: deque[Asked] = deque()

    @property
    def full(self) -> bool:
        """Whether one more request would be more than is kept."""
        return len(self._unanswered) >= UNANSWERED_MAX

    def ask(self, *, head: bool, connect: bool, upgrade: bool) -> Asked:
        """Number a request and wait for its answer."""
        asked = Asked(number=self._count, head=head, connect=connect, upgrade=upgrade)
        self._count += 1
        if len(self._unanswered) < UNANSWERED_MAX:
            self._unanswered.append(asked)
        return asked

    def waits_for(self, asked: Asked) -> bool:
        """Whether the final answer to a request is still to come."""
        return bool(self._unanswered) and self._unanswered[0].number <= asked.number

    def current(self) -> Asked | None:
        """The request that the next answer belongs to."""
        return self._unanswered[0] if self._unanswered else None

    def answered(self) -> None:
        """The final answer to the current request has come."""
        if self._unanswered:
            self._unanswered.popleft()

    def answers_lost(self) -> None:
        """Keep only the latest request."""
        while len(self._unanswered) > 1:
            self._unanswered.popleft()
