"""A target that speaks HTTP/1.1 only: one stream after the other becomes a request of its own.

What lives here: one exchange at a time, written and read as HTTP/1.1. What must not: judging, which stream comes next.

The decoder hears what is sent as well, since what an answer's body is hangs on the request.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

from capd.decoders.http1 import Http1Decoder
from capd.decoders.message import NEED_DATA, Direction, Message, ProtocolError
from capd.enforcer.proxy.http1 import fields as header
from capd.enforcer.proxy.http1.request import Incoming, request_head
from capd.enforcer.proxy.http2.answer import make_head
from capd.enforcer.proxy.http2.fields import FieldsError
from capd.enforcer.proxy.http2.limits import TARGET_STREAM_BYTES
from capd.enforcer.proxy.http2.request import Fields
from capd.enforcer.proxy.http2.target import Answered, Complete, Content, Lost, Target, Told
from capd.enforcer.proxy.layer import Surroundings


class Http1Target(Target):
    """One connection."""

    def __init__(self, around: Surroundings) -> None:
        self._around = around
        self._decoder = Http1Decoder()
        self._stream = 0
        """Whose exchange it is; 0: nobody's."""
        self._incoming: Incoming | None = None
        self._keeps = True
        self._sent = self._answered = self._complete = False
        self._lost = False
        self._out = bytearray()
        self._waiting = 0
        """Of the answer, what did not go on yet."""

    @property
    def takes(self) -> bool:
        """Whether there is room for more of an answer: there are no windows here, only the connection."""
        return self._waiting < TARGET_STREAM_BYTES

    @property
    def spent(self) -> bool:
        """Whether it takes no streams any more, and has none."""
        return not self._stream and (self._lost or not self._keeps)

    def accepts(self) -> bool:
        """Say whether another stream can be forwarded now."""
        return not self._stream and self._keeps and not self._lost

    def open(self, stream: int, incoming: Incoming, *, trailers: bool, expects: bool, ends: bool) -> None:  # noqa: ARG002 - HTTP/1.1 asks for no trailers
        """Forward a head; of a body that was announced and turned out to be empty, its end too."""
        self._stream, self._incoming = stream, incoming
        self._sent, self._answered, self._complete = ends, False, False
        head = request_head(incoming, self._around, upgrade=False, expects=expects)
        if ends and incoming.chunked:
            head += header.last_chunk(())
        if self._say(head):
            return
        self._lost, self._stream, self._out = True, 0, bytearray()
        raise FieldsError("the request is longer than one of HTTP/1.1 may be")

    def room(self, stream: int) -> int:
        """Say how many bytes of a body can be forwarded now."""
        return TARGET_STREAM_BYTES if stream == self._stream and not self._sent else 0

    def body(self, stream: int, data: bytes, *, ends: bool) -> None:
        """Forward a part of a body."""
        if stream != self._stream or self._incoming is None:
            return
        chunked = self._incoming.chunked
        said = header.chunk(data) if chunked else data
        if ends:
            self._sent = True
            said += header.last_chunk(()) if chunked else b""
        self._say(said)
        if ends and self._complete:
            self._finish()

    def give_up(self, stream: int, code: int) -> None:  # noqa: ARG002 - HTTP/1.1 has no codes
        """The stream is of no interest any more: neither is the connection, which is in the middle of it."""
        if stream == self._stream:
            self._lost, self._stream = True, 0

    def forget(self, stream: int) -> None:
        """The stream is over on both sides."""
        if stream == self._stream:
            self.give_up(stream, 0)

    def took(self, stream: int, credit: int) -> None:  # noqa: ARG002 - there is one
        """A part of an answer went on; it may be one of the target before this."""
        self._waiting = max(0, self._waiting - credit)

    @property
    def held(self) -> int:
        """Bytes that wait for more of their message."""
        return self._decoder.held + len(self._out)

    def take(self) -> bytes:
        """Give the bytes for the target."""
        out, self._out = bytes(self._out), bytearray()
        return out

    def end(self, *, clean: bool) -> list[Told]:
        """Take its end; a body may go until there, but not until a cut."""
        told = self._decode(Direction.RESPONSE, b"") if clean and self._stream and not self._complete else []
        self._lost = True
        return [*told, Lost(reason="the target closed the connection")]

    def receive(self, data: bytes) -> list[Told]:
        """Take bytes of the target."""
        if self._lost:
            return []
        if not self._stream or self._complete:
            self._lost = True
            return [Lost(reason="the target answers what it was not asked")]
        return self._decode(Direction.RESPONSE, data)

    def _say(self, data: bytes) -> bool:
        """Send something that our own decoder can read; False: it cannot, and nothing is sent any more."""
        if self._lost:
            return False
        if data:
            self._out += data
            self._decode(Direction.REQUEST, data)
        return not self._lost

    def _decode(self, direction: Direction, data: bytes) -> list[Told]:
        told: list[Told] = []
        self._decoder.receive(direction, data)
        while True:
            try:
                message = self._decoder.next_event()
                if message is NEED_DATA:
                    return told
                if isinstance(message, Message) and message.direction is Direction.RESPONSE:
                    told += self._hear(message)
            except (ProtocolError, FieldsError, header.NominationError) as error:
                self._lost = True
                reason = error.reason if isinstance(error, ProtocolError) else str(error)
                return [*told, Lost(reason=f"the target's answer is not HTTP: {reason}")]

    def _hear(self, message: Message) -> list[Told]:
        if self._lost or self._complete or not self._stream:
            raise FieldsError("it answers what it was not asked")
        if message.incomplete is not None:
            raise FieldsError("it ends in the middle")
        if message.type == "response":
            return self._head(message)
        if message.type == "body":
            self._waiting += len(message.content)
            return [Content(stream=self._stream, data=message.content, credit=len(message.content))]
        return self._end(message) if message.type == "end" else []

    def _head(self, message: Message) -> list[Told]:
        said, incoming = message.fields, self._incoming
        assert incoming is not None
        fields = [(name, value) for name, value in cast("Sequence[tuple[str, str]]", said["headers"])]
        named = header.by_name(fields)
        nominated = header.members(named, "connection")
        kept = header.end_to_end(fields, nominated, header.HOP_BY_HOP)
        length = named.get("content-length", ())
        head = make_head(
            cast("int", said["status"]),
            kept,
            int(length[0].partition(",")[0]) if length and said["framing"] in ("length", "none") else None,
            head_only=incoming.request.method == "HEAD",
        )
        ends = not head.interim and said["framing"] == "none"
        if not head.interim:
            self._answered = True
            self._keeps = (
                "close" not in nominated and said["version"] == "1.1" and said["framing"] in ("none", "length", "chunked")
            )
        return [Answered(stream=self._stream, head=head, ends=ends)]

    def _end(self, message: Message) -> list[Told]:
        if not self._answered:
            return []
        stream, self._complete = self._stream, True
        sent: Fields = [(name.lower(), value) for name, value in cast("header.Fields", message.fields.get("trailers") or [])]
        if self._sent:
            self._finish()
        return [Complete(stream=stream, trailers=header.trailers(sent))]

    def _finish(self) -> None:
        self._stream, self._incoming = 0, None
