"""Messages of a client that goes on while its request is judged.

What lives here: the queue, and when it has enough. What must not: whose turn it is (layer.py).
"""

from __future__ import annotations

from collections import deque
from typing import Final

from capd.decoders.message import Message

WAITING_BYTES_MAX: Final = 262_144
"""Of a client that goes on while its request is judged; then it is left to wait."""
MESSAGE_BYTES: Final = 256
"""What a waiting message counts beside its content."""


class Waiting:
    """Of one connection."""

    def __init__(self) -> None:
        self._messages: deque[Message] = deque()
        self._bytes = 0

    def __bool__(self) -> bool:
        return bool(self._messages)

    @property
    def full(self) -> bool:
        """Whether the client is to wait."""
        return self._bytes >= WAITING_BYTES_MAX

    def add(self, message: Message) -> None:
        """Take the next."""
        self._messages.append(message)
        self._bytes += MESSAGE_BYTES + len(message.content)

    def next(self) -> Message:
        """Give the first."""
        message = self._messages.popleft()
        self._bytes -= MESSAGE_BYTES + len(message.content)
        return message

    def clear(self) -> None:
        """Forget all."""
        self._messages.clear()
        self._bytes = 0
