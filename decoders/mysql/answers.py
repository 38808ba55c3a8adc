"""What both directions of a connection know together: what was agreed on, and which command is being answered.

What lives here: phases, the numbering of exchanges, the queue of answers that are due. What must not: bytes.

An exchange is one command with its answer; what comes before the first command is exchange 0. A client may send several
commands before it reads: they are answered in their order.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from enum import Enum, auto
from typing import Final

from capd.decoders.message import Direction
from capd.decoders.mysql.statements import Statement, Statements
from capd.decoders.mysql.wire import Capability, Command

DUE_MAX: Final = 16_384
"""Answers that may be due at once; a client that asks for more before it reads is not followed."""


class Phase(Enum):
    """What the client says next."""

    OPENING = auto()
    AUTHENTICATION = auto()
    COMMANDS = auto()
    INFILE = auto()


@dataclass(slots=True, kw_only=True)
class Due:
    """An answer that is due.

    Attributes:
        exchange: of which command.
        command: None: what the connection begins with.
        sequence: of the next packet, whoever sends it; None: not known.
        statement: that is prepared or executed.
    """

    exchange: int
    command: int | None
    sequence: int | None = None
    statement: Statement | None = None


SILENT: Final = frozenset({Command.QUIT, Command.STMT_SEND_LONG_DATA, Command.STMT_CLOSE})
"""Commands without an answer."""


class Answers:
    """The queue and the counters.

    Attributes:
        phase: what the client says next.
        offered, wanted: capabilities of server and client; None: not seen.
        encoding: codec of the client's text.
        results: codec of the server's names and messages.
        switched: whether the server asked for another way to authenticate.
        compressed: what follows is in the compressed protocol.
    """

    def __init__(self) -> None:
        self.phase = Phase.OPENING
        self.offered: int | None = None
        self.wanted: int | None = None
        self.encoding = self.results = "utf-8"
        self.statements = Statements()
        self.switched = False
        self.compressed = False
        self._queue: deque[Due] = deque()
        self._exchange = 0
        self._heard = [False, False]

    @property
    def capabilities(self) -> int:
        """What both can, as far as it was seen."""
        if self.wanted is None:
            return int(Capability.PROTOCOL_41 | Capability.SECURE_CONNECTION | Capability.PLUGIN_AUTH)
        return self.wanted if self.offered is None else self.wanted & self.offered

    @property
    def attributes_may_stand(self) -> bool | None:
        """Whether attributes stand before a statement; None: not known."""
        return None if self.wanted is None else bool(self.capabilities & Capability.QUERY_ATTRIBUTES)

    # Who speaks.

    def spoke(self, direction: Direction) -> None:
        """Bytes of a direction came."""
        self._heard[1 - direction] = True

    def other_spoke(self, direction: Direction) -> bool:
        """Whether the other direction said anything since this was asked: then this one begins something new."""
        heard, self._heard[direction] = self._heard[direction], False
        return heard

    # The client asks.

    def begin(self, command: int | None, sequence: int | None, statement: Statement | None = None) -> int:
        """A command began; gives its exchange."""
        if command is not None:
            self._exchange += 1
        if command not in SILENT:
            self._queue.append(Due(exchange=self._exchange, command=command, sequence=sequence, statement=statement))
        return self._exchange

    @property
    def full(self) -> bool:
        """Whether no more answers may be due."""
        return len(self._queue) >= DUE_MAX

    @property
    def latest(self) -> int:
        """The exchange that began last."""
        return self._exchange

    # The server answers.

    @property
    def due(self) -> Due | None:
        """What is being answered."""
        return self._queue[0] if self._queue else None

    @property
    def newest(self) -> Due | None:
        """What was asked last."""
        return self._queue[-1] if self._queue else None

    def settle(self) -> None:
        """The answer is whole."""
        if self._queue:
            self._queue.popleft()

    def authenticated(self) -> None:
        """The server let the client in."""
        self.phase = Phase.COMMANDS
        self.switched = False
        self.compressed = bool(self.capabilities & (Capability.COMPRESS | Capability.ZSTD))

    # Bytes were lost.

    def answers_lost(self) -> None:
        """What comes now answers the command that was sent last."""
        while len(self._queue) > 1:
            self._queue.popleft()

    def requests_lost(self) -> None:
        """Nobody knows what the client asked meanwhile."""
        self._queue.clear()
        self.phase = Phase.COMMANDS
