"""Which answer belongs to which request, and what the rows of an answer look like.

What lives here: the numbering of exchanges and the queue of answers that are due ("Message Flow"). What must not: bytes.

An exchange is one statement: `Query`; `FunctionCall`; or Parse, Bind, Describe, Execute of one statement, with the Sync
behind it. A Parse, a second Bind, or anything after a Sync begins the next one. Everything up to the first ReadyForQuery is
exchange 0.

ReadyForQuery is where client and server agree again: it settles everything up to the next request that it can answer, whatever
was lost or misunderstood before it.
"""

from __future__ import annotations

from collections import deque
from enum import Enum, auto
from itertools import islice
from typing import Final, NamedTuple

from capd.decoders.postgresql.catalogue import Catalogue, Columns, Portal, Statement

DUE_MAX: Final = 16_384
"""Answers that may be due at once; a client that pipelines deeper gets answers without an exchange number."""
LOOK_AHEAD: Final = 8
"""How many due answers may be passed over to find the one that came, after bytes were lost."""


class Due(Enum):
    """What kind of answer is due. STARTUP, QUERY, CALL and SYNC end with ReadyForQuery."""

    STARTUP = auto()
    QUERY = auto()
    CALL = auto()
    SYNC = auto()
    PARSE = auto()
    BIND = auto()
    DESCRIBE = auto()
    EXECUTE = auto()
    CLOSE = auto()


READY: Final = frozenset({Due.STARTUP, Due.QUERY, Due.CALL, Due.SYNC})


class Expected(NamedTuple):
    """One answer that is due: for which exchange, about what."""

    due: Due
    exchange: int
    target: Statement | Portal | None = None


class Answers:
    """The queue and the counters."""

    def __init__(self) -> None:
        self.catalogue = Catalogue()
        self.encoding = "utf-8"
        self.password_kind: str | None = None
        self.encryption: deque[tuple[str, int]] = deque()
        self._queue: deque[Expected] = deque()
        self._exchange = -1
        self._open = False
        self._bound = False
        self._discarding = False
        self._copying = False
        self._overflowed = False
        self._uncertain = False
        self._columns: Columns | None = None
        self._formats = b""

    # The client asks.

    def begin(self, *, alone: bool = False) -> int:
        """A new exchange; `alone` when nothing can join it."""
        self._exchange += 1
        self._open = not alone
        self._bound = False
        return self._exchange

    def join(self) -> int:
        """The exchange that the client is in; a new one if it is in none."""
        return self._exchange if self._open else self.begin()

    def bind(self) -> int:
        """The exchange of a Bind: one more of the same statement is one more exchange."""
        exchange = self.begin() if self._bound else self.join()
        self._bound = True
        return exchange

    def latest(self) -> int | None:
        """The exchange that began last; what belongs to a statement in progress belongs there."""
        return self._exchange if self._exchange >= 0 else None

    def end_group(self) -> None:
        """What the client says next belongs to another exchange."""
        self._open = False

    def expect(self, due: Due, exchange: int, target: Statement | Portal | None = None) -> None:
        """An answer is due."""
        if self._discarding and due is not Due.SYNC:
            return
        if due is Due.SYNC and self._copying:
            # "The backend ignores Flush and Sync messages received in copy-in mode."
            return
        self._discarding = False
        if self._overflowed:
            return
        if len(self._queue) >= DUE_MAX:
            self._queue.clear()
            self._overflowed = True
            return
        self._queue.append(Expected(due, exchange, target))

    def copy_done(self) -> None:
        """The client ends its COPY."""
        self._copying = False

    # The server answers.

    def answering(self) -> int | None:
        """The exchange that the server is answering."""
        return self._queue[0].exchange if self._queue else None

    def settle(self, due: Due) -> Expected | None:
        """An answer of a kind came; gives what it answers."""
        queue = self._queue
        if queue and queue[0].due is due:
            return queue.popleft()
        if self._uncertain:
            for index, expected in enumerate(islice(queue, LOOK_AHEAD)):
                if expected.due is due:
                    for _ in range(index):
                        queue.popleft()
                    return queue.popleft()
                if expected.due in READY:
                    break
        return None

    def described(self, columns: Columns, formats: bytes) -> int | None:
        """RowDescription came; gives its exchange."""
        expected = self.settle(Due.DESCRIBE)
        if expected is None:
            self._columns, self._formats = columns, formats
            return self.answering()
        statement = expected.target
        if isinstance(statement, Portal):
            statement.formats = formats
            statement = statement.statement
        if statement is not None:
            statement.columns = columns
            self.catalogue.weigh(statement)
        return expected.exchange

    def row_shape(self) -> tuple[int | None, Columns | None, bytes]:
        """Exchange, columns and format codes of the rows that come now."""
        if self._queue:
            expected = self._queue[0]
            target = expected.target
            if isinstance(target, Portal):
                return expected.exchange, target.statement.columns, target.formats
            return expected.exchange, self._columns, self._formats
        return None, self._columns, self._formats

    def completed(self) -> int | None:
        """CommandComplete, EmptyQueryResponse or PortalSuspended came."""
        self._columns, self._formats = None, b""
        exchange = self.answering()
        expected = self.settle(Due.EXECUTE)
        return exchange if expected is None else expected.exchange

    def copy_in(self) -> int | None:
        """The server waits for the client's COPY data; what the client synced already does not count."""
        queue = self._queue
        if queue and queue[0].due is Due.EXECUTE:
            self._copying = True
            while len(queue) > 1 and queue[1].due is Due.SYNC:
                del queue[1]
        return self.answering()

    def failed(self) -> int | None:
        """ErrorResponse came: what is not up to a Sync is not answered any more."""
        queue = self._queue
        self._columns, self._formats = None, b""
        self._copying = False
        if not queue:
            return None
        exchange = queue[0].exchange
        if queue[0].due not in READY:
            while queue and queue[0].due not in READY:
                queue.popleft()
            self._discarding = not queue
        return exchange

    def ready(self) -> int | None:
        """ReadyForQuery came."""
        queue = self._queue
        exchange = None
        self._columns, self._formats = None, b""
        self._uncertain = self._overflowed = False
        while queue:
            expected = queue.popleft()
            exchange = expected.exchange
            if expected.due in READY:
                break
        return exchange

    # Bytes were lost.

    def answers_lost(self) -> None:
        """Keep only what the latest request still waits for; right whenever the client does not pipeline."""
        self._uncertain = True
        self._columns, self._formats = None, b""
        kept: deque[Expected] = deque()
        for expected in reversed(self._queue):
            if expected.due in READY and kept:
                break
            kept.appendleft(expected)
        self._queue = kept

    def requests_lost(self) -> None:
        """Nobody knows what the client asked meanwhile."""
        self._uncertain = True
        self._discarding = self._copying = False
        self.end_group()
