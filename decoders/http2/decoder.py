"""HTTP/2: the decoder, and what its messages carry.

What lives here: both directions of a connection, and their state as plain values. What must not: frames (side.py), what they
say (sections.py), gaps (losses.py).

Why not the state machine of the `h2` library: it is one end of a connection, not an observer of both; it tells no offset of a
frame or an error; it cannot be told of a gap nor be set down in the middle of a stream.

`exchange` is the number of the stream. Messages, `type` and `fields`; those of a stream have `stream`:

- `preface`: what a client says first.
- `request`: `method`, `target` (path; of a CONNECT the authority), `version` ("2"), `scheme`, `host` (authority, else the Host
  field), `protocol` (RFC 8441), `headers` [[name, value]..] as sent, pseudo-header fields too (Latin-1), `framing` ("none" or
  "frames"), `length` (int or None). `malformed`, if it breaks RFC 9113 section 8, says why. Summary: `GET /x HTTP/2`.
- `response`: `version`, `status` (int), `reason` (""), `interim` (bool), `headers`, `framing`, `length`; in gRPC perhaps
  `grpc_status`, `grpc_message`. Summary: the status.
- `body`: `content` is the next part of the body; its span includes the frame's head before it, and padding behind it.
- `end`: end of one direction of a stream: `body_bytes`, `trailers`; in gRPC `grpc_status`, `grpc_message`. Its `incomplete`
  says what is missing of the body.
- `grpc`: a message of gRPC is whole: `path`, `number` (from 0), `length`, `compressed`. Its bytes are in the `body` before it.
- `headers`: a header block that is neither head nor trailers, or cannot be decoded.
- `PUSH_PROMISE`: `promised` (stream) and the fields of a request. `RST_STREAM`: `code`, `error`.
- `SETTINGS`: `ack`, `settings` {name: value}. `PING`: `ack`. `GOAWAY`: `last_stream`, `code`, `error`, `debug`.
  `WINDOW_UPDATE`: `increment`. `PRIORITY`. `extension`: `frame` (its type), of types that RFC 9113 does not know.

A peer that uses a larger header table or larger frames than it was allowed to is decoded: both are exact all the same, and the
other peer's SETTINGS may not have been seen.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

from capd.decoders.conversation import Conversation
from capd.decoders.http2.losses import LossySide
from capd.decoders.http2.streams import Streams
from capd.decoders.message import Direction


class Http2Decoder(Conversation):
    """Decodes one HTTP/2 connection. Use `receive` and `next_event`."""

    def __init__(self) -> None:
        self._streams = Streams()
        self._http2_sides = (LossySide(Direction.REQUEST, self._streams), LossySide(Direction.RESPONSE, self._streams))
        super().__init__(*self._http2_sides)

    def save(self) -> list[object]:
        """Give its state as plain values, when `next_event` had nothing more to give. It holds what was said."""
        return [self._streams.save(), *(side.save() for side in self._http2_sides)]

    def restore(self, saved: Sequence[object]) -> None:
        """Take the state of one that was saved."""
        streams, *sides = cast("Sequence[Sequence[object]]", saved)
        self._streams.restore(streams)
        for side, state in zip(self._http2_sides, sides, strict=True):
            side.restore(state)
