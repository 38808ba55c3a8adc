"""What a server says, in step with what it was asked.

What lives here: cutting its bytes, which answer belongs to which question, what of it the client gets. What must not: judging,
what the client says.

Rows and data of COPY pass without being held, unless something is made of them. A message that answers nothing that was asked
ends the session: from there on nobody could say what is allowed by what.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from typing import ClassVar, Final, Protocol

from capd.decoders.postgresql.wire import CONTROL_BYTES_MAX, HEADER, HEADER_BYTES, MESSAGE_BYTES_LIMIT
from capd.enforcer.proxy.postgresql.due import Asked, Due
from capd.enforcer.proxy.postgresql.frames import UnreadableError
from capd.enforcer.proxy.postgresql.masked import between

ROW: Final = ord("D")
COPY_DATA: Final = ord("d")
_STREAMED: Final = frozenset({ROW, COPY_DATA})
REWRITTEN_BYTES_MAX: Final = 64 << 20
"""Of one row that something is made of: it is held for that."""
WAITING_BYTES_MAX: Final = 65_536
"""Of capd's own messages that wait for the end of a row."""
TOLD_BYTES_MAX: Final = 64 << 20
"""Of rows of all answers to one question of capd's own: names of functions and relations, of thousands a few MiB."""
ROW_BYTES_AT_LEAST: Final = 256
"""What a row takes here beside its values."""
IN_COPY: Final = "there are messages between a COPY and the end of its data"
_OUT_OF_STEP: Final = "the server answers what it was not asked"


class Watcher(Protocol):
    """Hears of what answers mean."""

    def executed(self, due: Due) -> None:
        """An Execute is done."""

    def failed(self, due: Due) -> None:
        """It failed."""

    def group_failed(self) -> None:
        """An error came, and the server passes over everything to the next Sync, which it was not sent yet."""

    def ready(self, due: Due, status: bytes) -> None:
        """A Query, a group up to its Sync, or a query of capd's is done."""

    def copy_in(self) -> None:
        """The server wants data."""

    def reported(self, name: str, value: str) -> None:
        """A parameter has a value."""


class Answers:
    """Of one session, from the first ReadyForQuery on.

    Attributes:
        due: what is to be answered.
        reports: whether errors, notices and notifications between statements may repeat what is hidden.
        cursors: whether they may be those of a cursor whose query is about hidden columns.
    """

    def __init__(self, watcher: Watcher) -> None:
        self.due: deque[Due] = deque()
        self.reports = self.cursors = False
        self._watcher = watcher
        self._rest: bytes | bytearray = b""
        self._streaming = 0
        self._waiting = bytearray()
        self._out: list[bytes] = []

    @property
    def waiting_bytes(self) -> int:
        """How many bytes wait for the rest of a message, or for its end."""
        return len(self._rest) + len(self._waiting)

    @property
    def midway(self) -> bool:
        """Whether a message has begun that is not over, or something waits for its end."""
        return bool(self._rest or self._streaming or self._waiting)

    def inject(self, data: bytes) -> bytes:
        """Give what of a message of capd's own can go to the client now: between two of the server's."""
        if not self._streaming:
            return data
        if len(self._waiting) + len(data) <= WAITING_BYTES_MAX:
            self._waiting += data
        return b""

    def receive(self, data: bytes) -> bytes:
        """Take bytes of the server and give what goes to the client.

        Raises:
            UnreadableError: they cannot be followed.
            CannotCarryOutError: what is to be made of them cannot be.
        """
        self._out = []
        if self._streaming:
            data = self._stream(data)
        if self._rest:
            data = self._whole(data)
        if data:
            self._cut(data)
        out = self._out
        return out[0] if len(out) == 1 else b"".join(out)

    def _stream(self, data: bytes) -> bytes:
        """Pass on what belongs to a row that has begun."""
        step = self._streaming
        if len(data) < step:
            self._streaming -= len(data)
            self._out.append(data)
            return b""
        self._streaming = 0
        self._out.append(data[:step])
        if self._waiting:
            self._out.append(bytes(self._waiting))
            self._waiting.clear()
        return data[step:]

    def _whole(self, data: bytes) -> bytes:
        """Give what waits with what came; what is not a whole message yet goes on waiting, at the cost of one copy."""
        if not isinstance(self._rest, bytearray):
            self._rest = bytearray(self._rest)
        self._rest += data
        if len(self._rest) >= HEADER_BYTES:
            code, length = HEADER.unpack_from(self._rest)
            if len(self._rest) <= length and not (code in _STREAMED and self._plain):
                self._check(code, length)
                return b""
        rest, self._rest = bytes(self._rest), b""
        return rest

    @property
    def _plain(self) -> bool:
        """Whether rows pass as they are."""
        head = self.due[0] if self.due else None
        return head is None or (head.rewriting is None and head.asked is not Asked.OWN)

    def _cut(self, data: bytes) -> None:
        start = at = 0
        end = len(data)
        plain, due, steps = self._plain, self.due, self._steps
        while end - at >= HEADER_BYTES:
            code, length = HEADER.unpack_from(data, at)
            until = at + length + 1
            if plain:
                if code in _STREAMED:
                    if not HEADER_BYTES <= until - at <= MESSAGE_BYTES_LIMIT:
                        raise UnreadableError("the server's row has an impossible length")
                    if until > end:
                        self._streaming, at = until - end, end
                        break
                    at = until
                    continue
                if until <= end and due and steps.get(code) is due[0].asked:
                    due.popleft()  # most answers only say that the next one is due
                    at = until
                    plain = self._plain
                    continue
            if until > end:
                self._check(code, length)
                break
            given = self._take(code, data, at, until)
            if given is not None:
                if start < at:
                    self._out.append(data[start:at])
                if given:
                    self._out.append(given)
                start = until
            at = until
            plain = self._plain
        if start < at:
            self._out.append(data if start == 0 and at == end else data[start:at])
        self._rest = data[at:]

    def _check(self, code: int, length: int) -> None:
        if code not in self._takes and code not in _STREAMED:
            raise UnreadableError(f"{code:#x} begins no message that a server may say now")
        if not HEADER_BYTES - 1 <= length <= (REWRITTEN_BYTES_MAX if code in _STREAMED else CONTROL_BYTES_MAX):
            raise UnreadableError(f"a message {chr(code)} of {length} bytes cannot be followed")

    def _take(self, code: int, data: bytes, at: int, until: int) -> bytes | None:
        """Take a message; give what goes on in its place, or None: it goes on as it is."""
        head = self.due[0] if self.due else None
        if head is not None and head.asked is Asked.OWN and code in _OF_QUERIES and not (head.portal and code == ERROR):
            return self._own(head, code, data[at + HEADER_BYTES : until])
        take = self._takes.get(code)
        if take is None and code not in _STREAMED:
            raise UnreadableError(f"{code:#x} begins no message that a server may say now")
        rewriting = None if head is None else head.rewriting
        given = None if take is None else take(self, head, data[at + HEADER_BYTES : until])
        if given is not None:
            return given
        if rewriting is not None and code in _REWRITTEN:
            given = rewriting.message(code, data[at:until])
            if rewriting.hides:
                return given
        if self.reports and code in _BETWEEN:
            return between(code, data[at:until], details_only=not self.cursors)
        return given

    # -- one for each kind of message; `None`: it goes on --------------------------------------------------------------------

    def _expect(self, head: Due | None, *asked: Asked) -> Due:
        if head is None or head.asked not in asked:
            raise UnreadableError(_OUT_OF_STEP)
        return head

    def _parsed(self, head: Due | None, _body: bytes) -> None:
        self._expect(head, Asked.PARSE)
        self.due.popleft()

    def _bound(self, head: Due | None, _body: bytes) -> None:
        self._expect(head, Asked.BIND)
        self.due.popleft()

    def _closed(self, head: Due | None, _body: bytes) -> None:
        self._expect(head, Asked.CLOSE)
        self.due.popleft()

    def _described(self, head: Due | None, _body: bytes) -> None:
        head = self._expect(head, Asked.DESCRIBE, Asked.QUERY)
        if head.asked is Asked.DESCRIBE:
            self.due.popleft()

    def _parameters(self, head: Due | None, _body: bytes) -> None:
        self._expect(head, Asked.DESCRIBE)

    def _completed(self, head: Due | None, _body: bytes) -> None:
        head = self._expect(head, Asked.QUERY, Asked.EXECUTE)
        if head.asked is Asked.QUERY:
            head.completed += 1
            return
        self.due.popleft()
        self._watcher.executed(head)

    def _suspended(self, head: Due | None, _body: bytes) -> None:
        head = self._expect(head, Asked.EXECUTE)
        self.due.popleft()
        self._watcher.executed(head)

    def _copies(self, head: Due | None, _body: bytes) -> None:
        read = self._expect(head, Asked.QUERY, Asked.EXECUTE).read
        if read is None or not read.may_copy:
            raise UnreadableError("the server begins a COPY that was not foreseen")

    def _copies_in(self, head: Due | None, body: bytes) -> None:
        self._copies(head, body)
        while len(self.due) > 1 and self.due[1].asked is Asked.SYNC:
            del self.due[1]  # a Sync that the server reads while it copies means nothing to it (CopyGetData)
        if len(self.due) > 1:
            raise UnreadableError(IN_COPY)
        self._watcher.copy_in()

    def _failed(self, head: Due | None, _body: bytes) -> bytes | None:
        if head is None:
            return None  # the server ends the session
        head.failed = True
        given = head.instead
        self._watcher.failed(head)
        if head.asked not in (Asked.QUERY, Asked.SYNC):
            self._skip()
        return given

    def _skip(self) -> None:
        """The server passes over everything to the next Sync: nothing of that was done."""
        undone: list[Due] = []
        while self.due and self.due[0].asked is not Asked.SYNC:
            undone.append(self.due.popleft())
        for one in reversed(undone):
            undo = (one.lost if one.failed else None) or one.undo
            if undo is not None:
                undo()
        if self.due:
            self.due[0].failed = True
        else:
            self._watcher.group_failed()

    def _ready(self, head: Due | None, body: bytes) -> None:
        head = self._expect(head, Asked.QUERY, Asked.SYNC)
        self.due.popleft()
        self._watcher.ready(head, body)

    def _reported(self, _head: Due | None, body: bytes) -> None:
        name, _, rest = body.partition(b"\0")
        self._watcher.reported(name.decode("latin-1"), rest[:-1].decode("latin-1"))

    def _passes(self, _head: Due | None, _body: bytes) -> None:
        """It goes on."""

    _takes: ClassVar[Mapping[int, Callable[[Answers, Due | None, bytes], bytes | None]]] = {
        ord("1"): _parsed,
        ord("2"): _bound,
        ord("3"): _closed,
        ord("A"): _passes,
        ord("C"): _completed,
        ord("E"): _failed,
        ord("G"): _copies_in,
        ord("H"): _copies,
        ord("I"): _completed,
        ord("N"): _passes,
        ord("S"): _reported,
        ord("T"): _described,
        ord("Z"): _ready,
        ord("c"): _passes,
        ord("n"): _described,
        ord("s"): _suspended,
        ord("t"): _parameters,
    }

    _steps: ClassVar[Mapping[int, Asked]] = {
        ord("1"): Asked.PARSE,
        ord("2"): Asked.BIND,
        ord("3"): Asked.CLOSE,
        ord("T"): Asked.DESCRIBE,
        ord("n"): Asked.DESCRIBE,
    }

    def _own(self, head: Due, code: int, body: bytes) -> bytes:
        """Take an answer to a query of capd's; the client gets nothing of it."""
        if code == ord("T"):
            head.described = body
            head.rows.append([])
        elif code == ROW:
            if not head.rows:
                raise UnreadableError(_OUT_OF_STEP)
            head.rows[-1].append(row(body))
        elif code == ERROR:
            head.failed, head.error = True, body
        elif code == ord("Z"):
            self.due.popleft()
            self._watcher.ready(head, body)
        if head.portal and code in _DESCRIBES:
            self.due.popleft()
        return b""


def row(body: bytes) -> tuple[bytes | None, ...]:
    """Give the values of a DataRow.

    Raises:
        UnreadableError: it is none.
    """
    values: list[bytes | None] = []
    at = 2
    try:
        for _ in range(int.from_bytes(body[:2], "big")):
            length = int.from_bytes(body[at : at + 4], "big", signed=True)
            at += 4
            values.append(None if length < 0 else body[at : at + length])
            at += max(length, 0)
    except IndexError as error:
        raise UnreadableError("a row cannot be read") from error
    if at != len(body):
        raise UnreadableError("a row cannot be read")
    return tuple(values)


ERROR: Final = ord("E")
_OF_QUERIES: Final = frozenset(b"TDCEIZ123tn")
_DESCRIBES: Final = frozenset(b"Tn")
_REWRITTEN: Final = frozenset(b"TDdEHcN")
_BETWEEN: Final = frozenset(b"ENA")
