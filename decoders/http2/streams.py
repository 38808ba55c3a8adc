"""Streams of a connection: what both directions have said on each, as far as later frames need it.

What lives here: the table and its bound, a half's counts. What must not: frames, messages.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final, cast

from capd.decoders.http2.grpc import GrpcMessages

STREAMS_MAX: Final = 4_096
"""Streams that are remembered; servers allow some hundred at a time. Of older ones later frames are told by number only."""
LOSSES_TOLD_MAX: Final = 8
"""Gaps of one body that are told one by one."""


@dataclass(slots=True)
class Half:
    """One direction of a stream.

    Attributes:
        begun: whether anything of it was seen.
        head: whether the head that counts was seen: not an interim one.
        ended: whether its end was seen.
        body_bytes: of its body, as seen.
        length: of its body, as the head says.
        gaps: gaps of the direction in which anything may have been lost, when it began.
        losses: what is known to be missing of its body.
        grpc: the messages in its body.
    """

    begun: bool = False
    head: bool = False
    ended: bool = False
    body_bytes: int = 0
    length: int | None = None
    gaps: int = 0
    losses: list[str] = field(default_factory=list)
    grpc: GrpcMessages | None = None

    def lose(self, words: str, length: int) -> None:
        """Note that so many bytes of its body are missing."""
        if len(self.losses) < LOSSES_TOLD_MAX:
            self.losses.append(words if len(self.losses) < LOSSES_TOLD_MAX - 1 else "more bytes lost")
        if self.grpc is not None and not self.grpc.lose(length):
            self.grpc = None
        self.body_bytes += length

    def save(self) -> list[object]:
        """Give its state as plain values."""
        grpc = None if self.grpc is None else self.grpc.save()
        return [self.begun, self.head, self.ended, self.body_bytes, self.length, self.gaps, list(self.losses), grpc]

    @classmethod
    def restored(cls, saved: Sequence[object]) -> Half:
        """Give a half as it was saved."""
        *plain, losses, grpc = saved
        known = None if grpc is None else GrpcMessages.restored(cast("Sequence[object]", grpc))
        return cls(*cast("tuple[bool, bool, bool, int, int | None, int]", tuple(plain)), list(cast("list[str]", losses)), known)


@dataclass(slots=True)
class OpenStream:
    """A stream that is not over in both directions."""

    halves: tuple[Half, Half] = field(default_factory=lambda: (Half(), Half()))
    path: str = ""


class Streams:
    """The streams of a connection by number, oldest first."""

    def __init__(self) -> None:
        self._open: OrderedDict[int, OpenStream] = OrderedDict()
        self.highest = 0
        """The highest number seen."""

    def of(self, number: int) -> OpenStream:
        """Give a stream, a new one if it is not known."""
        found = self._open.get(number)
        if found is None:
            found = self._open[number] = OpenStream()
            self.highest = max(self.highest, number)
            if len(self._open) > STREAMS_MAX:
                self._open.popitem(last=False)
        return found

    def halves(self, direction: int) -> list[tuple[int, Half]]:
        """Give the halves of a direction that are not over."""
        found = [(number, stream.halves[direction]) for number, stream in self._open.items()]
        return [(number, half) for number, half in found if half.begun and not half.ended]

    def forget(self, number: int) -> None:
        """A stream is over."""
        self._open.pop(number, None)

    def forget_if_over(self, number: int) -> None:
        """The same, if both directions ended."""
        found = self._open.get(number)
        if found is not None and all(half.ended for half in found.halves):
            del self._open[number]

    def save(self) -> list[object]:
        """Give their state as plain values."""
        streams = [[number, *(half.save() for half in one.halves), one.path] for number, one in self._open.items()]
        return [self.highest, streams]

    def restore(self, saved: Sequence[object]) -> None:
        """Take the state of some that were saved."""
        self.highest, streams = cast("tuple[int, Sequence[Sequence[object]]]", tuple(saved))
        for number, request, response, path in streams:
            first, second = (Half.restored(cast("Sequence[object]", half)) for half in (request, response))
            self._open[cast("int", number)] = OpenStream((first, second), str(path))
