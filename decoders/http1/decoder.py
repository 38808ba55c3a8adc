"""HTTP/1.0 and HTTP/1.1: the decoder, and what its messages carry.

What lives here: requests, responses and how they depend on each other. What must not: line grammar (grammar.py), gaps
(losses.py).

Why our own parser and not `httptools` (llhttp): its callbacks give neither the offset of a message nor of a body part, so
that there are no byte spans; its errors carry no offset; it cannot be told of a gap nor be set down in the middle of a
stream; and it has lenient spots that differ by version. `h11` refuses to be fed an answer whose request it did not see.

Messages, `type` and `fields`:

- `request`: `method`, `target`, `version` ("1.1"), `headers` [[name, value]..] as sent (Latin-1), `host` (str or None),
  `framing` ("none", "length", "chunked"), `length` (int or None). Summary: the request line.
- `response`: `version`, `status` (int), `reason`, `headers`, `framing` (also "close", "tunnel"), `length`, `interim` (bool:
  a 1xx that is followed by the real answer). Summary: status and reason.
- `body`: `content` is the next part of the body, chunk framing removed, content codings left as they are. No fields. As many
  as arrive; their spans include the chunk framing before the content.
- `end`: end of a message: `body_bytes` (int, as seen), `trailers` [[name, value]..]. Every request and every response has
  one, but neither an interim response nor one that opens a tunnel. Its `incomplete` says what is missing of the body.
- `tunnel`: `content` is what runs after CONNECT or 101, `protocol` is "CONNECT" or the Upgrade field of the answer.

A request or response that is cut off has `incomplete` and only those fields that were seen.

A connection that says `Connection: close` and goes on anyway is decoded on: the recorder shows what was said.
"""

from __future__ import annotations

from typing import Final

from capd.decoders.conversation import Conversation
from capd.decoders.http1.exchanges import Asked, Exchanges
from capd.decoders.http1.grammar import (
    Block,
    Framing,
    LineError,
    RequestLine,
    StatusLine,
    host_of,
    request_head,
    request_line,
    response_head,
    status_line,
    tokens,
)
from capd.decoders.http1.losses import LossySide
from capd.decoders.http1.side import State
from capd.decoders.message import Direction, JsonValue

_SWITCHING: Final = 101
_INTERIM: Final = range(100, 200)
_SUCCESS: Final = range(200, 300)
_NO_CONTENT: Final = frozenset({204, 304})


class RequestSide(LossySide):
    """The client's direction."""

    def __init__(self, exchanges: Exchanges) -> None:
        super().__init__(Direction.REQUEST)
        self._exchanges = exchanges
        self._line_read = RequestLine("", "", "")
        self._asked: Asked | None = None
        self._switch_to: str | None = None

    def read_start_line(self, line: bytes) -> None:
        """Parse the request line."""
        self._line_read = request_line(line)

    def read_head(self, begin: int, limit: int) -> tuple[Block, int] | None:
        """Parse a whole head."""
        found = request_head(self.stream.data, begin, limit, self._before)
        if found is None:
            return None
        self._line_read, block, end = found
        return block, end

    def head_fields(self) -> dict[str, JsonValue]:
        """Method, target, version."""
        line = self._line_read
        return {"method": line.method, "target": line.target, "version": line.version}

    def head_summary(self) -> str:
        """The request line."""
        line = self._line_read
        return f"{line.method} {line.target} HTTP/{line.version}"

    def head_done(self, block: Block) -> tuple[Framing, int, JsonValue]:
        """Number the request; a request without length fields has no body (RFC 9112 6.3 rule 7)."""
        method = self._line_read.method
        named = block.named
        framing, length = block.framing(self._line_read.version)
        host = host_of(named)
        if self._exchanges.full:
            raise LineError(0, "too many requests without an answer")
        upgrade = "upgrade" in named and "upgrade" in tokens(named.get("connection", ()))
        self._asked = self._exchanges.ask(head=method == "HEAD", connect=method == "CONNECT", upgrade=upgrade)
        self.exchange = self._asked.number
        return framing or Framing.NONE, length, host

    def described(self, block: Block, framing: Framing, length: int | None, more: JsonValue) -> dict[str, JsonValue]:
        """Give method, target, version, headers, framing, length, host."""
        line = self._line_read
        return {
            "method": line.method,
            "target": line.target,
            "version": line.version,
            "headers": block.fields,
            "framing": framing.word,
            "length": length,
            "host": more,
        }

    def cut(self) -> None:
        """The server saw the whole request and will answer it."""
        method = self._line_read.method if self._head_known else ""
        self.exchange = self._exchanges.ask(head=method == "HEAD", connect=method == "CONNECT", upgrade=False).number

    def after_message(self) -> State:
        """What follows CONNECT or an upgrade can be told only when the answer is there."""
        asked = self._asked
        if self._switch_to is not None:
            self._tunnel = self._switch_to
            return State.TUNNEL
        if asked is not None and (asked.connect or asked.upgrade) and self._exchanges.waits_for(asked):
            return State.HELD
        return State.START

    def stop_waiting(self) -> None:
        """After CONNECT it is most likely a tunnel, after an upgrade most likely one more request."""
        if self._asked is not None and self._asked.connect:
            self.tunnel("CONNECT")
        else:
            self.state = State.START

    def answered(self) -> None:
        """The answer is there and refuses to switch."""
        if self.state is State.HELD:
            self.state = State.START
            self.ready = True

    def switched(self, protocol: str) -> None:
        """The answer is there and switches."""
        if self.over:
            return
        if self.state in (State.HELD, State.START, State.FIELDS, State.RESYNC):
            self._leave_head()
            self.tunnel(protocol)
        else:
            self._switch_to = protocol

    def answers_unknown(self) -> None:
        """Answers can no longer be seen: look for a next request among what waits."""
        if self.state is State.HELD and self._asked is not None and not self.over:
            if self._asked.connect:
                self.tunnel("CONNECT")
            else:
                self.restart("the answer to an upgrade was not seen")

    def _leave_head(self) -> None:
        """Bytes that were taken for the begin of a request are the tunnel's."""
        if self._trial or self.state is State.RESYNC:
            self._report_skipped()
        self._head_known = False
        self._fields = []
        self._scan = 0


class ResponseSide(LossySide):
    """The server's direction."""

    def __init__(self, exchanges: Exchanges, request: RequestSide) -> None:
        super().__init__(Direction.RESPONSE)
        self._exchanges = exchanges
        self._request = request
        self._line_read = StatusLine("", 0, "")

    def read_start_line(self, line: bytes) -> None:
        """Parse the status line."""
        self._line_read = status_line(line)

    def read_head(self, begin: int, limit: int) -> tuple[Block, int] | None:
        """Parse a whole head."""
        found = response_head(self.stream.data, begin, limit, self._before)
        if found is None:
            return None
        self._line_read, block, end = found
        return block, end

    def head_fields(self) -> dict[str, JsonValue]:
        """Version, status, reason."""
        line = self._line_read
        return {"version": line.version, "status": line.status, "reason": line.reason}

    def head_summary(self) -> str:
        """Status and reason."""
        return f"{self._line_read.status} {self._line_read.reason}".rstrip()

    def head_done(self, block: Block) -> tuple[Framing, int, JsonValue]:
        """Find the request and the framing (RFC 9112 6.3)."""
        line = self._line_read
        framing, length = block.framing(line.version)
        if self._trial:
            self._exchanges.answers_lost()
        asked = self._exchanges.current()
        self.interim = line.status in _INTERIM and line.status != _SWITCHING
        if line.status == _SWITCHING and asked is not None and not asked.upgrade:
            raise LineError(0, "101 to a request that asked for no upgrade")
        self.exchange = None if asked is None else asked.number
        if line.status == _SWITCHING:
            self._switch(", ".join(block.named.get("upgrade", ())))
            return Framing.TUNNEL, 0, False
        if asked is not None and asked.connect and line.status in _SUCCESS:
            self._switch("CONNECT")
            return Framing.TUNNEL, 0, False
        if not self.interim:
            self._answered(asked)
        if self.interim or line.status in _NO_CONTENT or (asked is not None and asked.head):
            return Framing.NONE, 0, self.interim
        return framing or Framing.CLOSE, length, False

    def described(self, block: Block, framing: Framing, length: int | None, more: JsonValue) -> dict[str, JsonValue]:
        """Give version, status, reason, headers, framing, length, interim."""
        line = self._line_read
        return {
            "version": line.version,
            "status": line.status,
            "reason": line.reason,
            "headers": block.fields,
            "framing": framing.word,
            "length": length,
            "interim": more,
        }

    def cut(self) -> None:
        """The rest of this answer will not be seen."""
        asked = self._exchanges.current()
        self.exchange = None if asked is None else asked.number
        self._exchanges.answered()

    def after_message(self) -> State:
        """The next answer."""
        return State.START

    def stop_waiting(self) -> None:
        """Answers are never held."""

    def broke(self) -> None:
        """Nobody can say any more what held bytes of the client are."""
        self._request.answers_unknown()

    def restart(self, reason: str) -> None:
        """As above, after a gap."""
        super().restart(reason)
        self._request.answers_unknown()

    def _answered(self, asked: Asked | None) -> None:
        self._exchanges.answered()
        if asked is not None and (asked.connect or asked.upgrade):
            self._request.answered()

    def _switch(self, protocol: str) -> None:
        self._exchanges.answered()
        self._tunnel = protocol
        self._request.switched(protocol)


class Http1Decoder(Conversation):
    """Decodes one HTTP/1 connection. Use `receive` and `next_event`."""

    def __init__(self) -> None:
        exchanges = Exchanges()
        request = RequestSide(exchanges)
        self._of_http1 = (request, ResponseSide(exchanges, request))
        super().__init__(*self._of_http1)

    def content_bytes(self, direction: Direction) -> int:
        """Say how many of the next bytes of a direction are content of one body, as far as that was said; 0 if any waits."""
        return self._of_http1[direction].content_bytes
