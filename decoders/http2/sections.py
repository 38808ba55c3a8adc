"""What the frames of a direction say: heads, trailers, ends, what concerns the connection.

What lives here: messages from whole frames. What must not: where frames begin and end (side.py).
"""

from __future__ import annotations

from typing import Final

from capd.decoders.http2 import frames
from capd.decoders.http2.frames import Frame, Type
from capd.decoders.http2.grpc import GrpcMessages
from capd.decoders.http2.head import Section, section
from capd.decoders.http2.header_block import Pairs
from capd.decoders.http2.side import FrameSide
from capd.decoders.http2.streams import Half
from capd.decoders.message import Direction, JsonValue, Message

_STREAM_BITS: Final = 0x7FFF_FFFF
_MAYBE_LOST: Final = "bytes were lost that may have been of this stream"


class TellingSide(FrameSide):
    """The part of the state machine that gives messages."""

    def fields_message(self, opened: Frame, promised: int, fields: Pairs | None) -> Message:
        """Tell a header block."""
        ended = opened.type == Type.HEADERS and bool(opened.flags & frames.END_STREAM)
        if fields is None:
            return self.undecoded(opened, f"header block not decoded: {self._headers.lost}")
        told = section(fields)
        if opened.type == Type.PUSH_PROMISE:
            return self._promise(opened.stream, promised, told)
        number = opened.stream
        half = self._streams.of(number).halves[self.direction]
        if self.direction is Direction.REQUEST and ":method" in told.values and not half.head:
            return self._head("request", number, told, ended=ended)
        if self.direction is Direction.RESPONSE and ":status" in told.values and not half.head:
            return self._head("response", number, told, ended=ended)
        if ended and half.begun and not any(name.startswith(":") for name in told.values):
            return self._trailers(number, half, told)
        malformed = told.malformed or "neither a head nor trailers"
        message = self.message(
            "headers", self.stream.cursor, stream=number, fields={"headers": told.headers, "malformed": malformed}
        )
        self._end_if(number, half, ended=ended)
        return message

    def undecoded(self, opened: Frame, reason: str) -> Message:
        """Tell that there was a header block."""
        number = opened.stream
        half = self._streams.of(number).halves[self.direction]
        if not half.begun:
            half.begun, half.gaps = True, self._gaps
        message = self.message("headers", self.stream.cursor, stream=number, incomplete=reason)
        self._end_if(number, half, ended=opened.type == Type.HEADERS and bool(opened.flags & frames.END_STREAM))
        return message

    def _end_if(self, number: int, half: Half, *, ended: bool) -> None:
        if ended:
            self.out.append(self.end_message(number, half))

    def _head(self, kind: str, number: int, told: Section, *, ended: bool) -> Message:
        one = self._streams.of(number)
        half = one.halves[self.direction]
        framing: dict[str, JsonValue] = {"framing": "none" if ended else "frames", "length": told.length}
        if kind == "request":
            fields = told.request()
            one.path = str(fields["target"])
            summary = f"{fields['method']} {fields['target']} HTTP/2"
        else:
            fields = {**told.response(), **told.grpc_status()}
            framing["framing"] = "none" if ended or told.interim else "frames"
            summary = _status_words(told)
        if not told.interim or kind == "request":
            half.begun = half.head = True
            half.gaps, half.length = self._gaps, told.length
            half.grpc = GrpcMessages() if told.grpc else None
        message = self.message(kind, self.stream.cursor, stream=number, summary=summary, fields={**fields, **framing})
        self._end_if(number, half, ended=ended)
        return message

    def _promise(self, number: int, promised: int, told: Section) -> Message:
        half = self._streams.of(promised).halves[Direction.REQUEST]
        half.begun = half.head = half.ended = True
        fields: dict[str, JsonValue] = {"promised": promised, **told.request()}
        summary = f"PUSH_PROMISE {fields['method']} {fields['target']} HTTP/2"
        return self.message("PUSH_PROMISE", self.stream.cursor, stream=number, summary=summary, fields=fields)

    def _trailers(self, number: int, half: Half, told: Section) -> Message:
        grpc = told.grpc_status()
        extra = {**grpc, **({} if told.malformed is None else {"malformed": told.malformed})}
        summary = f"grpc-status {grpc['grpc_status']}" if grpc else ""
        return self._end(number, half, summary=summary, fields={"trailers": told.headers, **extra})

    def end_message(self, number: int, half: Half, incomplete: str | None = None) -> Message:
        """Tell the end of a half."""
        return self._end(number, half, incomplete, fields={"trailers": []})

    def _end(
        self,
        number: int,
        half: Half,
        incomplete: str | None = None,
        *,
        summary: str = "",
        fields: dict[str, JsonValue],
    ) -> Message:
        notes = [*half.losses, *([_MAYBE_LOST] if self._gaps > half.gaps else []), *([incomplete] if incomplete else [])]
        if not notes:
            notes = _faults(half)
        half.begun = half.ended = True
        self._streams.forget_if_over(number)
        told: dict[str, JsonValue] = {"body_bytes": half.body_bytes, **fields}
        end, words = self.stream.cursor, "; ".join(notes) or None
        return self.message("end", end, stream=number, summary=summary, fields=told, incomplete=words)

    def control_message(self, frame: Frame, payload: bytes, end: int) -> Message:
        """Tell any frame that is no part of a request or an answer."""
        words, fields = frame.name, _control_fields(frame, payload)
        if frame.type == Type.RST_STREAM:
            return self._reset(frame.stream, end, fields)
        if frame.type == Type.GOAWAY:
            words = f"GOAWAY {fields['error']}"
        elif fields.get("ack"):
            words = f"{frame.name} ACK"
        elif frame.kind is None:
            words = f"frame of the unknown type 0x{frame.type:x}"
        return self.message(frame.name, end, stream=frame.stream, summary=words, fields=fields)

    def _reset(self, number: int, end: int, fields: dict[str, JsonValue]) -> Message:
        """A stream is over in both directions; what was on its way in the other one is told when it comes."""
        words = f"RST_STREAM {fields['error']}"
        half = self._streams.of(number).halves[self.direction]
        cut = None
        if half.begun and not half.ended:
            self.stream.cursor = self.stream.start
            cut = self.end_message(number, half, f"reset: {fields['error']}")
        self._streams.forget(number)
        message = self.message("RST_STREAM", end, stream=number, summary=words, fields=fields)
        if cut is None:
            return message
        self.out.append(message)
        return cut


def _status_words(told: Section) -> str:
    grpc = told.values.get("grpc-status")
    return str(told.status) if grpc is None else f"{told.status} grpc-status {grpc}"


def _faults(half: Half) -> list[str]:
    """Say what does not fit in a half of which nothing is missing."""
    faults = []
    if half.length is not None and half.body_bytes and half.body_bytes != half.length:
        faults.append(f"a body of {half.body_bytes} bytes, content-length said {half.length}")
    if half.grpc is not None and not half.grpc.between:
        faults.append("ended inside a message of gRPC")
    return faults


def _control_fields(frame: Frame, payload: bytes) -> dict[str, JsonValue]:
    kind = frame.kind
    if kind is Type.SETTINGS:
        return {"ack": bool(frame.flags & frames.ACK), "settings": frames.settings(payload)}
    if kind is Type.PING:
        return {"ack": bool(frame.flags & frames.ACK)}
    if kind is Type.WINDOW_UPDATE:
        return {"increment": int.from_bytes(payload, "big") & _STREAM_BITS}
    if kind is Type.RST_STREAM:
        code = int.from_bytes(payload, "big")
        return {"code": code, "error": frames.error_name(code)}
    if kind is Type.GOAWAY:
        code = int.from_bytes(payload[4:8], "big")
        last = int.from_bytes(payload[:4], "big") & _STREAM_BITS
        return {"last_stream": last, "code": code, "error": frames.error_name(code), "debug": str(payload[8:], "latin-1")}
    return {} if kind is not None else {"frame": frame.type}
