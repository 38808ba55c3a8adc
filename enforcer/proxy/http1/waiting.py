"""Messages of a client that goes on while its request is judged.

What lives here: the queue, and how much is enough. What must not: whose turn it is (layer.py).
"""

from __future__ import annotations

from collections import deque
from typing import Final

from capd.decoders.message import Message

WAITING_BYTES_MAX: Final = 262_144
"""Of a client that goes on while its request is judged; then it is left to wait."""
MESSAGE_BYTES: Final = 256
"""What a waiting message counts beside its own bytes."""
FIELD_BYTES: Final = 128
"""What each field of a head counts beside them: one of four bytes takes as much as that to keep."""


class Waiting:
    """Of one connection.

    Attributes:
        bytes: that wait.
        messages: the same as messages; to be looked at only.
    """

    def __init__(self) -> None:
        self.messages: deque[Message] = deque()
        self.bytes = 0

    def add(self, message: Message) -> None:
        """Take the next."""
        self.messages.append(message)
        self.bytes += _weight(message)

    def next(self) -> Message:
        """Give the first."""
        message = self.messages.popleft()
        self.bytes -= _weight(message)
        return message

    def clear(self) -> None:
        """Forget all."""
        self.messages.clear()
        self.bytes = 0


def _weight(message: Message) -> int:
    fields = message.fields.get("headers") if message.type == "request" else None
    count = len(fields) if isinstance(fields, list) else 0
    return MESSAGE_BYTES + message.end - message.start + FIELD_BYTES * count
