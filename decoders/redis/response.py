"""What the server says: answers, and what nobody asked for.

What lives here: the server's direction as messages. What must not: reading them (reader.py), counting (answers.py).
"""

from __future__ import annotations

from typing import Final

from capd.decoders.conversation import Side
from capd.decoders.message import Direction, Gap, JsonValue, Message, ProtocolError, Skipped
from capd.decoders.redis import values
from capd.decoders.redis.answers import Answers
from capd.decoders.redis.reader import Answer, Reader
from capd.decoders.redis.turns import Turns
from capd.decoders.redis.wire import BrokenError

REPLICATION: Final = "a copy of the server's data (SYNC, PSYNC), which is not decoded"
_KINDS: Final = {
    "+": "simple string",
    "-": "error",
    ":": "integer",
    "$": "string",
    "*": "array",
    "_": "null",
    ",": "double",
    "#": "boolean",
    "!": "error",
    "=": "verbatim string",
    "(": "big number",
    "%": "map",
    "~": "set",
    ">": "push",
    "|": "attributes",
}
"""RESP's words for the type bytes."""


class Response(Side):
    """The server's direction."""

    def __init__(self, answers: Answers, turns: Turns) -> None:
        super().__init__(Direction.RESPONSE)
        self._answers = answers
        self._turns = turns
        self._reader = Reader(self.stream)
        self._lost: tuple[int, str] | None = None
        turns.response = self

    def advance(self) -> Message | Skipped | None:
        """Give the next answer or None."""
        answers = self._answers
        if self._lost is not None:
            return self._pass_lost(*self._lost)
        if (answers.replicating or answers.synchronises) and not self._reader.inside and self._replicates():
            return None
        try:
            answer = self._reader.read()
        except BrokenError as error:
            raise self.error(error.offset, error.reason) from None
        if answer is None:
            self.ready = False
            return None
        return self._message(answer)

    def _pass_lost(self, begin: int, why: str) -> Skipped | None:
        stream = self.stream
        stream.drop()
        self.ready = False
        self._lost = (stream.position, why)
        return self.skipped(begin, stream.position, why) if stream.position > begin else None

    def _replicates(self) -> bool:
        """Whether what follows is no answer any more. PSYNC is answered with a line, SYNC with the copy itself."""
        stream = self.stream
        if not stream.waiting:
            self.ready = False
            return True
        if not self._answers.replicating and stream.data[stream.start] in b"+-":
            return False
        self.broken = REPLICATION
        self.ready = False
        self.out.append(self.skipped(stream.position, stream.end, REPLICATION))
        stream.drop()
        return True

    def _message(self, answer: Answer) -> Message:
        place = self._answers.place(answer.kind, answer.value)
        fields: dict[str, JsonValue] = {"kind": _KINDS[answer.kind]}
        if place.type == "error":
            fields.update(_error(answer.value))
        else:
            fields["value"] = answer.value
        if place.secret:
            fields["secret"] = True
        if place.commands:
            fields["commands"] = list(place.commands)
        return Message(
            direction=self.direction,
            start=answer.start,
            end=answer.end,
            type=place.type,
            summary=values.line(answer.value),
            exchange=place.exchange,
            fields=fields,
            incomplete=answer.incomplete,
        )

    # What is missing

    def take(self, item: bytes | Gap) -> bool:
        """Take an arrival, and note whose turn it is."""
        self._turns.response_speaks(item)
        return super().take(item)

    def lose(self, gap: Gap) -> bool:
        """Take a gap: inside a string whose length is known the framing survives."""
        if gap.length == 0:
            return True
        reason = gap.words
        if self._lost is None and self._reader.lose(gap.length, reason):
            return True
        self._give_up(f"cut off: {reason}", reason)
        self.stream.pass_over(gap.length or 0)
        self._lost = (self.stream.position, f"no answer known to begin after {reason}")
        self._answers.lose()
        return True

    def _give_up(self, skipped: str, reason: str) -> None:
        stream = self.stream
        answer = self._reader.cut(reason)
        if answer is not None:
            self.out.append(self._message(answer))
        elif stream.waiting:
            self.out.append(self.skipped(stream.position, stream.end, skipped))
            stream.drop()

    def begins_here(self) -> None:
        """What the server says next answers what the client says now."""
        self._lost = None

    @property
    def at_rest(self) -> bool:
        """Whether nothing of an answer is there whose end is not."""
        return not (self._reader.inside or self.stream.waiting)

    def finish(self) -> bool:
        """Take the end of the direction."""
        self._give_up("cut off: the direction ended inside an answer", "the direction ended inside it")
        return True

    def fail(self, error: ProtocolError) -> None:
        """Stop decoding; what is there of an answer is skipped with the rest."""
        begin = self._reader.start if self._reader.inside else self.stream.position
        self.broken = f"after a protocol error: {error.reason}"
        self.ready = False
        if self.stream.end > begin:
            self.out.append(self.skipped(begin, self.stream.end, self.broken))
        self.stream.drop()


def _error(value: JsonValue) -> dict[str, JsonValue]:
    """The first word of an error is its code."""
    text = value.get("error") if isinstance(value, dict) else value
    if not isinstance(text, str):
        return {"message": text}
    code, _, message = text.partition(" ")
    return {"code": code, "message": message}
