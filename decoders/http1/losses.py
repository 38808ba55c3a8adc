"""What gaps and ends do to a direction of an HTTP/1 connection.

What lives here: which state survives which loss. What must not: the grammar.

A gap of known length inside a body whose length is known leaves the framing intact: the body goes on behind it and its
`end` says what is missing. Any other gap costs the message it hits, and what follows is skipped up to the next plausible
head.
"""

from __future__ import annotations

from typing import Final

from capd.decoders.http1.side import HttpSide, State, plural
from capd.decoders.message import Gap, JsonValue

_CHUNKED: Final = frozenset({State.CHUNK_SIZE, State.CHUNK, State.CHUNK_END, State.TRAILERS})
_BODY: Final = _CHUNKED | {State.LENGTH}


class LossySide(HttpSide):
    """The part of the state machine that deals with what is missing."""

    def lose(self, gap: Gap) -> bool:
        """Take a gap."""
        if gap.length == 0:
            return True
        if self.state is State.HELD:
            self.stop_waiting()
            return False
        reason = gap.words
        if self._trial or self.state is State.RESYNC:
            self._report_skipped()
            self._begin_resync(gap, reason)
        elif self.state in (State.TUNNEL, State.CLOSE):
            self._pass(gap, reason)
        elif self.state in _BODY:
            self._lose_body(gap, reason)
        else:
            if self.state is State.FIELDS or self.stream.waiting:
                self._cut_head(reason)
            self._begin_resync(gap, reason)
        return True

    def finish(self) -> bool:
        """Take the end of the direction."""
        if self.state is State.HELD:
            self.stop_waiting()
            return False
        if self._trial or self.state is State.RESYNC:
            self._report_skipped()
        elif self.state is State.CLOSE:
            self.out.append(self._end())
        elif self.state in _BODY:
            self._finish_body()
        elif self.state is State.FIELDS:
            self._cut_head("the direction ended inside the head")
        elif self.state is State.START and self.stream.waiting:
            self._finish_start()
        return True

    def restart(self, reason: str) -> None:
        """Look for the next plausible head from the first byte that waits."""
        self.state = State.RESYNC
        self._skip_from = self._search_from = self.stream.position
        self._skip_reason = f"no message boundary known after {reason}"
        self.stream.cursor = self.stream.start
        self._scan = 0
        self.ready = True

    def _begin_resync(self, gap: Gap, reason: str) -> None:
        self.stream.pass_over(gap.length or 0)
        self.restart(reason)

    def _pass(self, gap: Gap, reason: str) -> None:
        """Go on behind the gap in the same state."""
        self._losses.append(reason)
        if self.stream.waiting:
            # The size line of a chunk whose content starts with the gap.
            self.out.append(self._content(0))
        self.stream.pass_over(gap.length or 0)

    def _lose_body(self, gap: Gap, reason: str) -> None:
        if self.state in (State.LENGTH, State.CHUNK) and gap.length is not None and gap.length <= self._remaining:
            self._remaining -= gap.length
            self._pass(gap, reason)
            return
        self.stream.cursor = len(self.stream.data)
        self.out.append(self._end(reason))
        self._begin_resync(gap, reason)

    def _finish_body(self) -> None:
        self.stream.cursor = len(self.stream.data)
        if self.state is State.LENGTH:
            self.out.append(self._end(f"the direction ended {plural(self._remaining, 'byte')} before the end of the body"))
        else:
            self.out.append(self._end("the direction ended inside the chunked body"))

    def _finish_start(self) -> None:
        stream = self.stream
        if stream.data[stream.start :] in (b"\r", b"\r\n"):
            self.out.append(self.skipped(stream.position, stream.end, "empty line"))
            stream.drop()
        else:
            self._cut_head("the direction ended inside the head")

    def _cut_head(self, reason: str) -> None:
        """Report what was read of a head."""
        stream = self.stream
        self.cut()
        fields: dict[str, JsonValue] = {}
        summary = ""
        if self._head_known:
            summary = self.head_summary()
            fields = {**self.head_fields(), "headers": self._fields}
        self._head_known = False
        self._fields = []
        self._scan = 0
        self.state = State.START
        self.out.append(self._message(self.word, len(stream.data), summary=summary, fields=fields, incomplete=reason))

    def _report_skipped(self) -> None:
        stream = self.stream
        if stream.end > self._skip_from:
            self.out.append(self.skipped(self._skip_from, stream.end, self._skip_reason))
        stream.drop()
        self._head_known = self._trial = False
        self._scan = 0
        self._skip_from = stream.position
