"""A target that speaks HTTP/2: each stream of the agent is one of its own.

What lives here: the agent's numbers and ours, heads, bodies and trailers of answers. What must not: judging.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

from h2.events import (
    DataReceived,
    InformationalResponseReceived,
    ResponseReceived,
    StreamEnded,
    StreamReset,
    TrailersReceived,
)

from capd.enforcer.proxy.http1.request import Incoming
from capd.enforcer.proxy.http2.answer import read_head, read_trailers
from capd.enforcer.proxy.http2.errors import Code
from capd.enforcer.proxy.http2.fields import Counted, FieldsError
from capd.enforcer.proxy.http2.limits import TARGET_CONNECTION_BYTES, TARGET_STREAM_BYTES
from capd.enforcer.proxy.http2.peer import Broken, Farewell, Heard, Peer
from capd.enforcer.proxy.http2.request import Fields, request_fields
from capd.enforcer.proxy.http2.target import Answered, Complete, Content, GivenUp, Leaving, Lost, Target, Told
from capd.enforcer.proxy.layer import Surroundings


class _Exchange:
    """One stream of ours."""

    __slots__ = ("counted", "head_only", "stream", "trailers")

    def __init__(self, stream: int, *, head_only: bool) -> None:
        self.stream, self.head_only = stream, head_only
        self.counted = Counted(None)
        self.trailers: Fields = []


class Http2Target(Target):
    """One connection."""

    def __init__(self, around: Surroundings) -> None:
        self._around = around
        self._peer = Peer(serves=False, stream_bytes=TARGET_STREAM_BYTES, connection_bytes=TARGET_CONNECTION_BYTES)
        self._exchanges: dict[int, _Exchange] = {}
        """By our number."""
        self._numbers: dict[int, int] = {}
        """Ours by the agent's."""
        self._leaving = False

    def accepts(self) -> bool:
        """Say whether another stream can be forwarded now."""
        return not self._leaving and self._peer.may_open()

    def open(self, stream: int, incoming: Incoming, *, trailers: bool, expects: bool, ends: bool) -> None:
        """Forward a head."""
        number = self._peer.open()
        fields = request_fields(incoming, self._around, trailers=trailers, expects=expects)
        self._exchanges[number] = _Exchange(stream, head_only=incoming.request.method == "HEAD")
        self._numbers[stream] = number
        self._peer.head(number, fields, ends=ends)

    def room(self, stream: int) -> int:
        """Say how many bytes of a body can be forwarded now."""
        number = self._numbers.get(stream)
        return 0 if number is None else self._peer.room(number)

    def body(self, stream: int, data: bytes, *, ends: bool) -> None:
        """Forward a part of a body."""
        number = self._numbers.get(stream)
        if number is not None:
            self._peer.body(number, data, ends=ends)

    def give_up(self, stream: int, code: int) -> None:
        """The stream is of no interest any more."""
        number = self._numbers.pop(stream, None)
        if number is not None:
            del self._exchanges[number]
            self._peer.reset(number, code)

    def forget(self, stream: int) -> None:
        """The stream is over on both sides."""
        number = self._numbers.pop(stream, None)
        if number is not None:
            del self._exchanges[number]
            self._peer.forget(number)

    def took(self, stream: int, credit: int) -> None:
        """A part of an answer went on."""
        self._peer.took_in_all(credit)
        number = self._numbers.get(stream)
        if number is not None:
            self._peer.took(number, credit)

    def take(self) -> bytes:
        """Give the bytes for the target."""
        return self._peer.take()

    def calm(self) -> None:
        """Forget what was counted of floods."""
        self._peer.calm()

    @property
    def held(self) -> int:
        """Bytes that wait for the rest of their frame."""
        return self._peer.held

    @property
    def spent(self) -> bool:
        """Whether it leaves, and has said all."""
        return self._leaving and not self._exchanges

    @property
    def counting(self) -> bool:
        """Whether `calm` has anything to forget."""
        return self._peer.counting

    def end(self, *, clean: bool) -> list[Told]:  # noqa: ARG002 - HTTP/2 says itself where a body ends
        """Take its end."""
        return [Lost(reason="the target closed the connection")]

    def receive(self, data: bytes) -> list[Told]:
        """Take bytes of the target."""
        return [told for heard in self._peer.receive(data) for told in self._hear(heard)]

    def _hear(self, heard: Heard) -> Iterable[Told]:
        match heard:
            case Farewell():
                return self._farewell(heard)
            case Broken():
                return [Lost(reason=f"the target breaks HTTP/2: {heard.reason}")]
            case DataReceived() if heard.stream_id not in self._exchanges:
                self._peer.took_in_all(heard.flow_controlled_length)
                return []
        act = _ACTS.get(type(heard))
        exchange = self._exchanges.get(getattr(heard, "stream_id", 0))
        if act is None or exchange is None:
            return []
        try:
            return act(self, exchange, heard)
        except FieldsError as error:
            self.give_up(exchange.stream, Code.PROTOCOL_ERROR)
            return [GivenUp(stream=exchange.stream, code=Code.PROTOCOL_ERROR, reason=str(error))]

    def _farewell(self, heard: Farewell) -> list[Told]:
        """Tell what the target never looked at (RFC 9113 6.8)."""
        self._leaving = True
        unseen = tuple(exchange.stream for number, exchange in self._exchanges.items() if number > heard.last)
        for stream in unseen:
            del self._exchanges[self._numbers.pop(stream)]
        return [Leaving(unseen=unseen)]

    def _head(self, exchange: _Exchange, heard: ResponseReceived | InformationalResponseReceived) -> list[Told]:
        head = read_head(heard.headers, head_only=exchange.head_only)
        ends = not head.interim and getattr(heard, "stream_ended", None) is not None
        if not head.interim:
            exchange.counted = Counted(head.length)
        if ends:
            exchange.counted.end()
        return [Answered(stream=exchange.stream, head=head, ends=ends)]

    def _data(self, exchange: _Exchange, heard: DataReceived) -> list[Told]:
        padding = heard.flow_controlled_length - len(heard.data)
        if padding:
            self.took(exchange.stream, padding)
        try:
            exchange.counted.take(len(heard.data))
        except FieldsError:
            self._peer.took_in_all(len(heard.data))
            raise
        return [Content(stream=exchange.stream, data=heard.data, credit=len(heard.data))]

    def _trailers(self, exchange: _Exchange, heard: TrailersReceived) -> list[Told]:
        exchange.trailers = read_trailers(heard.headers)
        return []

    def _ended(self, exchange: _Exchange, _heard: StreamEnded) -> list[Told]:
        exchange.counted.end()
        return [Complete(stream=exchange.stream, trailers=exchange.trailers)]

    def _reset(self, exchange: _Exchange, heard: StreamReset) -> list[Told]:
        del self._exchanges[self._numbers.pop(exchange.stream)]
        return [GivenUp(stream=exchange.stream, code=int(heard.error_code))]


_ACTS: Final[Mapping[type, Callable[[Http2Target, _Exchange, Any], list[Told]]]] = {
    ResponseReceived: Http2Target._head,  # noqa: SLF001 - a table of this class's own methods
    InformationalResponseReceived: Http2Target._head,  # noqa: SLF001 - as above
    DataReceived: Http2Target._data,  # noqa: SLF001 - as above
    TrailersReceived: Http2Target._trailers,  # noqa: SLF001 - as above
    StreamEnded: Http2Target._ended,  # noqa: SLF001 - as above
    StreamReset: Http2Target._reset,  # noqa: SLF001 - as above
}
