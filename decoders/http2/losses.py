"""What gaps and ends do to a direction of an HTTP/2 connection.

What lives here: which state survives which loss. What must not: what frames mean.

A gap of known length inside a DATA frame costs only those bytes. One inside another frame costs that frame; if it carried a
part of a header block, the table of the compression is not known any more, and no block of the direction can be decoded until
one empties the table. Any other gap costs both: what follows is skipped up to the next plausible frame.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

from capd.decoders.http2 import frames
from capd.decoders.http2.frames import HEADER_BYTES, Frame, Type
from capd.decoders.http2.sections import TellingSide
from capd.decoders.http2.side import State
from capd.decoders.message import Gap


class LossySide(TellingSide):
    """The part of the state machine that deals with what is missing."""

    def lose(self, gap: Gap) -> bool:
        """Take a gap."""
        length = gap.length
        if length == 0:
            return True
        reason = gap.words
        if length is not None and length <= self._room:
            self._lose_within(length, reason)
            return True
        if self.state is State.RESYNC:
            self._report_skipped()
        else:
            if self.state is State.DATA and self._left:
                self._half.lose(reason, self._left)
            self._cut(reason)
        self._gaps += 1
        self.stream.pass_over(length or 0)
        self.restart(reason)
        return True

    def finish(self) -> bool:
        """Take the end of the direction."""
        if self.state is State.RESYNC:
            self._report_skipped()
        else:
            self._cut("the direction ended inside the frame")
        for number, half in self._streams.halves(self.direction):
            self.out.append(self.end_message(number, half, "the direction ended before the end of the stream"))
        return True

    @property
    def _room(self) -> int:
        """How many of the next bytes belong to the frame that is on its way."""
        if self.state is State.DATA:
            return self._left + self._padding
        if self.state is State.PASS:
            return self._left
        whole = HEADER_BYTES + self._frame.length - (len(self.stream.data) - self.stream.cursor)
        return whole if self.state is State.WHOLE else -1

    def _lose_within(self, length: int, reason: str) -> None:
        """Go on behind a gap that ends within the frame."""
        stream = self.stream
        if self.state is State.DATA:
            if stream.waiting:
                self.out.append(self.framing())
            content = min(length, self._left)
            self._left -= content
            self._padding -= length - content
            if content:
                self._half.lose(reason, content)
        elif self.state is State.PASS:
            self._left -= length
        else:
            rest, frame = self._room - length, self._frame
            opened = self._opened if self._block is not None else frame
            self._cut(reason)
            if frame.kind in frames.BLOCKS:
                self._block_lost, self._opened = not frame.flags & frames.END_HEADERS, opened
            elif frame.type == Type.RST_STREAM:
                self._streams.forget(frame.stream)
            self.pass_over(rest, f"the rest of a frame of which {reason}")
        stream.pass_over(length)

    def _cut(self, reason: str) -> None:
        """Report what waits of a frame, or of a header block, that will not become whole."""
        stream, end = self.stream, len(self.stream.data)
        if self._block is not None or (self.state is State.WHOLE and self._frame.kind in frames.BLOCKS):
            opened = self._frame if self._block is None else self._opened
            self._headers.lose(reason)
            self._block = None
            stream.cursor, before = end, len(self.out)
            self.out.insert(before, self.undecoded(opened, reason))
        elif not stream.waiting:
            return
        elif self.state is State.PREFACE:
            self.out.append(self.message("preface", end, incomplete=reason))
        elif self.state in (State.DATA, State.PAD_LENGTH):
            stream.cursor = end
            self.out.append(self.framing())
        elif self.state is State.WHOLE:
            self.out.append(self.message(self._frame.name, end, stream=self._frame.stream, incomplete=reason))
        else:
            self.out.append(self.skipped(stream.position, stream.end, reason))
            stream.report(end)

    def _report_skipped(self) -> None:
        stream = self.stream
        if stream.end > self._skip_from:
            self.out.append(self.skipped(self._skip_from, stream.end, self._skip_reason))
        stream.drop()

    # -- over the end of whoever decodes

    def save(self) -> list[object]:
        """Give its state as plain values."""
        stream = self.stream
        block = None if self._block is None else bytes(self._block)
        return [
            [stream.position, stream.take(stream.start, len(stream.data)), stream.cursor - stream.start],
            [self.state.value, self._first, self._left, self._padding, self._promised, self._block_lost, self._gaps],
            [self._doubt, self._skip_from, self._skip_reason, self._then.value, self.broken, self.ended],
            [list(self._frame), list(self._opened), block, self._headers.save()],
        ]

    def restore(self, saved: Sequence[object]) -> None:
        """Take the state of one that was saved; the streams come first."""
        waiting, counts, words, parts = cast("Sequence[Sequence[object]]", saved)
        position, data, cursor = cast("tuple[int, bytes, int]", tuple(waiting))
        self.stream.pass_over(position)
        self.stream.data, self.stream.cursor = data, cursor
        state, self._first, self._left, self._padding, self._promised, self._block_lost, self._gaps = cast(
            "tuple[int, bool, int, int, int, bool, int]", tuple(counts)
        )
        self.state = State(state)
        self._doubt, self._skip_from, self._skip_reason, then, self.broken, self.ended = cast(
            "tuple[int, int, str, int, str | None, bool]", tuple(words)
        )
        self._then = State(then)
        frame, opened, block, headers = cast(
            "tuple[Sequence[int], Sequence[int], bytes | None, Sequence[object]]", tuple(parts)
        )
        self._frame, self._opened = Frame(*frame), Frame(*opened)
        self._block = None if block is None else bytearray(block)
        self._headers.restore(headers)
        if State.DATA in (self.state, self._then):
            self._half = self._streams.of(self._frame.stream).halves[self.direction]
