"""gRPC's messages in the body of a stream: a flag, a length, so many bytes (PROTOCOL-HTTP2.md, "Length-Prefixed-Message").

What lives here: where each begins and ends. What must not: protobuf; without a schema its bytes say little for certain.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, cast

PREFIX_BYTES: Final = 5


@dataclass(slots=True)
class GrpcMessages:
    """The messages of one direction of a call.

    Attributes:
        number: of the message that is on its way, from 0.
        compressed: its flag.
        length: of it, without the prefix; None while the prefix is not whole.
        left: bytes of it that are to come; of its prefix while that is not whole.
        damaged: whether bytes of it were lost.
    """

    number: int = 0
    compressed: bool = False
    length: int | None = None
    left: int = PREFIX_BYTES
    damaged: bool = False
    _prefix: bytes = b""

    @property
    def between(self) -> bool:
        """Whether no message is on its way."""
        return self.length is None and not self._prefix

    def take(self, content: bytes) -> bool:
        """Take bytes of the body, `left` of them at most. True: a message is whole, and `next` must be called."""
        if self.length is None:
            self._prefix += content
            self.left = PREFIX_BYTES - len(self._prefix)
            if self.left:
                return False
            self.compressed = bool(self._prefix[0])
            self.left = self.length = int.from_bytes(self._prefix[1:], "big")
        else:
            self.left -= len(content)
        return not self.left

    def next(self) -> None:
        """Go on to the next message."""
        self.number += 1
        self.length, self.left, self._prefix, self.damaged = None, PREFIX_BYTES, b"", False

    def lose(self, length: int) -> bool:
        """Bytes are missing. False: nobody can say where the next message begins."""
        if self.length is None or length >= self.left:
            return False
        self.left -= length
        self.damaged = True
        return True

    def save(self) -> list[object]:
        """Give its state as plain values."""
        return [self.number, self.compressed, self.length, self.left, self.damaged, self._prefix]

    @classmethod
    def restored(cls, saved: Sequence[object]) -> GrpcMessages:
        """Give messages as they were saved."""
        return cls(*cast("tuple[int, bool, int | None, int, bool, bytes]", tuple(saved)))
