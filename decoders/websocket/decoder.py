"""WebSocket: the decoder, and what its messages carry.

What lives here: both directions of a connection, and their state as plain values. What must not: frames, packing.

Why not `wsproto`: it is one end of a connection, tells no offset of a frame, checks what an end must check, and cannot be told
of a gap.

Messages, `type` and `fields`; `content` is the payload, unscrambled and unpacked. All have `masked` (bool: scrambled, as what a
client says is) and `pieces` [[offset in the stream, length]..]: where the payload is as it was sent.

- `text`, `binary`: `packed` (bool), `part` (int, from 0), `final` (bool): a message that is too long to be held, or has a
  control frame in its middle, is told in parts. Summary: type and size. Its `incomplete` says what is missing, or why it was
  not unpacked.
- `ping`, `pong`. `close`: `code`, `reason`.

Behind a gap that does not end inside a frame's payload nothing can be decoded: of a frame's head too few bits must be right.
Behind one in a packed message no packed message can be, if it was agreed that messages share a window.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

from capd.decoders.conversation import Conversation
from capd.decoders.message import Direction
from capd.decoders.websocket.packing import Agreed, Unpacker
from capd.decoders.websocket.side import WebsocketSide


class WebsocketDecoder(Conversation):
    """Decodes one WebSocket connection, from behind its handshake on. Use `receive` and `next_event`."""

    def __init__(self, extensions: str = "") -> None:
        """Begin; `extensions` is what the answer to the handshake says in Sec-WebSocket-Extensions."""
        agreed = Agreed.read(extensions)
        request, response = (
            WebsocketSide(direction, Unpacker(forgets=agreed.forgets[direction]), packs=agreed.packs) for direction in Direction
        )
        self._websocket_sides = (request, response)
        super().__init__(request, response)

    def save(self) -> list[object]:
        """Give its state as plain values, when `next_event` had nothing more to give. It holds what was said."""
        return [side.save() for side in self._websocket_sides]

    def restore(self, saved: Sequence[object]) -> None:
        """Take the state of one that was saved."""
        for side, state in zip(self._websocket_sides, cast("Sequence[Sequence[object]]", saved), strict=True):
            side.restore(state)
