"""What the client says: commands.

What lives here: the client's direction: commands as messages, and what remains possible when bytes are missing. What must not:
reading them (commands.py), counting answers (answers.py).
"""

from __future__ import annotations

import re
from typing import Final

from capd.decoders.conversation import Side
from capd.decoders.message import Direction, Gap, JsonValue, Message, ProtocolError, Skipped
from capd.decoders.redis import values
from capd.decoders.redis.answers import Answers
from capd.decoders.redis.commands import Command, CommandReader
from capd.decoders.redis.secret_arguments import secrets_of
from capd.decoders.redis.turns import Turns
from capd.decoders.redis.wire import CRLF, BrokenError

CANDIDATE_BYTES_MAX: Final = 8_192
"""Longest command at which the search for a boundary stops."""
CANDIDATE_ARGUMENTS_MAX: Final = 64
_CANDIDATE: Final = re.compile(rb"\*[1-9][0-9]{0,5}\r\n\$[1-9][0-9]?\r\n[A-Za-z]")
_CANDIDATE_BYTES: Final = 16
"""Longest beginning that the expression above may need more bytes for."""
_HEAD: Final = re.compile(rb"\$(0|[1-9][0-9]{0,3})\r\n")
_COUNT: Final = re.compile(rb"\*([0-9]+)\r\n")


class Request(Side):
    """The client's direction."""

    def __init__(self, answers: Answers, turns: Turns) -> None:
        super().__init__(Direction.REQUEST)
        self._answers = answers
        self._turns = turns
        self._reader = CommandReader(self.stream)
        self._lost: tuple[int, str] | None = None
        """Where what is passed over begins, and why; None: commands are read."""
        self._final = False
        turns.request = self

    # Events

    def advance(self) -> Message | Skipped | None:
        """Give the next command or None."""
        if self._lost is not None:
            passed = self._pass_lost(*self._lost)
            if passed is not None:
                return passed
            if self._lost is not None:
                self.ready = False
                return None
        try:
            command = self._reader.read()
        except BrokenError as error:
            raise self.error(error.offset, error.reason) from None
        if command is None:
            self.ready = False
            return None
        return self._message(command)

    def _message(self, command: Command) -> Message:
        if not command.arguments:
            return Message(direction=self.direction, start=command.start, end=command.end, type="nothing")
        exchange = self._answers.ask(command.arguments)
        given = _given(command)
        name = command.arguments[0]
        fields: dict[str, JsonValue] = {"command": name.decode("utf-8", "backslashreplace").upper(), "arguments": given[1:]}
        if command.inline:
            fields["inline"] = True
        if command.omitted:
            fields["omitted"] = command.omitted
        return Message(
            direction=self.direction,
            start=command.start,
            end=command.end,
            type="command",
            summary=" ".join(map(values.word, given)),
            exchange=exchange,
            fields=fields,
            incomplete=command.incomplete,
        )

    # What is missing

    def take(self, item: bytes | Gap) -> bool:
        """Take an arrival, and note whose turn it is."""
        self._turns.request_speaks(item)
        return super().take(item)

    def lose(self, gap: Gap) -> bool:
        """Take a gap: inside an argument whose length is known the framing survives, otherwise it is searched for."""
        if gap.length == 0:
            return True
        reason = gap.words
        if self._lost is None and self._reader.lose(gap.length, reason):
            return True
        self._give_up(f"cut off: {reason}", reason)
        self.stream.pass_over(gap.length or 0)
        self._lost = (self.stream.position, f"no command known to begin after {reason}")
        self._answers.lose()
        return True

    def _give_up(self, skipped: str, reason: str) -> None:
        """Report everything that waits."""
        stream = self.stream
        if self._lost is not None:
            if stream.waiting:
                self.out.append(self.skipped(stream.position, stream.end, self._lost[1]))
            stream.drop()
            self._lost = (stream.position, self._lost[1])
            return
        command = self._reader.cut(reason)
        if command is not None:
            self.out.append(self._message(command) if command.arguments else self._cut_off(command, skipped))
        elif stream.waiting:
            self.out.append(self.skipped(stream.position, stream.end, skipped))
            stream.drop()

    def _cut_off(self, command: Command, why: str) -> Skipped:
        return self.skipped(command.start, command.end, why)

    def begins_here(self) -> None:
        """What the client says next begins a command: it takes its turn."""
        self._lost = None

    @property
    def at_rest(self) -> bool:
        """Whether nothing of a command is there whose end is not."""
        return not (self._reader.inside or self.stream.waiting)

    def finish(self) -> bool:
        """Take the end of the direction."""
        if self._lost is not None and not self._final:
            self._final = True
            return False
        self._give_up("cut off: the direction ended inside a command", "the direction ended inside it")
        return True

    def fail(self, error: ProtocolError) -> None:
        """Stop decoding; what is there of a command is skipped with the rest."""
        begin = self._reader.start if self._reader.inside else self.stream.position
        self.broken = f"after a protocol error: {error.reason}"
        self.ready = False
        if self.stream.end > begin:
            self.out.append(self.skipped(begin, self.stream.end, self.broken))
        self.stream.drop()
        self._answers.lose()
        self._answers.turns = False

    def _pass_lost(self, begin: int, why: str) -> Skipped | None:
        """Pass over bytes up to where a command begins.

        Where it is not known that the client takes turns, which show where that is, it is searched for.
        """
        stream = self.stream
        turns = self._answers.turns
        found, at = (False, len(stream.data)) if turns else candidate(stream.data, stream.start, final=self._final)
        stream.report(at)
        self._lost = None if found else (stream.position, why)
        return self.skipped(begin, stream.position, why) if stream.position > begin else None


def _given(command: Command) -> list[JsonValue]:
    """The words as they may be shown."""
    secret = secrets_of(command.arguments)
    given: list[JsonValue] = []
    for index, argument in enumerate(command.arguments):
        length = command.lengths.get(index)
        if index in secret:
            given.append(values.hidden(argument) if length is None else {"hidden": length})
        else:
            given.append(values.string(argument) if length is None else values.begins(argument, length))
    return given


def candidate(data: bytes | bytearray, begin: int, *, final: bool) -> tuple[bool, int]:
    """Find the first place at `begin` or later where a command begins.

    A place counts when a short command with a name of letters is there, adds up exactly, and another command begins behind
    it. Values hold one command rarely, and two in a row hardly ever.

    Returns:
        Whether one was found, and where; if not, from where to search when there are more bytes.
    """
    while True:
        found = _CANDIDATE.search(data, begin)
        if found is None:
            return False, max(begin, len(data) - _CANDIDATE_BYTES)
        verdict = _verdict(data, found.start(), final=final)
        if verdict is not False:
            return verdict is True, found.start()
        begin = found.start() + 1


def _verdict(data: bytes | bytearray, start: int, *, final: bool) -> bool | None:
    """True: a command. False: none. None: more bytes are needed to tell."""
    head = _COUNT.match(data, start)
    if head is None or int(head[1]) > CANDIDATE_ARGUMENTS_MAX:
        return False
    at = head.end()
    for _ in range(int(head[1])):
        length = _HEAD.match(data, at)
        if length is None:
            return None if not final and len(data) - at < _CANDIDATE_BYTES else False
        at = length.end() + int(length[1])
        if at - start > CANDIDATE_BYTES_MAX:
            return False
        if at + len(CRLF) > len(data):
            return False if final else None
        if data[at : at + len(CRLF)] != CRLF:
            return False
        at += len(CRLF)
    if _CANDIDATE.match(data, at):
        return True
    return None if not final and len(data) - at < _CANDIDATE_BYTES else final and at == len(data)
