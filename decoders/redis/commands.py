"""Reading one command after the other from a stream, however it is cut.

What lives here: arrays of strings and inline commands, as a server takes them (networking.c, processMultibulkBuffer and
processInlineBuffer), with bounds. What must not: what a command means.

An empty line and an array of nothing are no commands; Redis passes over them and does not answer.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from capd.decoders.redis.inline import split
from capd.decoders.redis.wire import (
    COMMAND_BYTES_MAX,
    COUNT_LIMIT,
    CRLF,
    HEAD_BYTES_MAX,
    INLINE_BYTES_MAX,
    PREFIX_BYTES,
    STRING_BYTES_LIMIT,
    VALUES_MAX,
    BrokenError,
    length_of,
    shown,
)
from capd.decoders.stream import Stream

_ARRAY: Final = ord("*")
_STRING: Final = ord("$")


@dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    """One command.

    Attributes:
        arguments: its words, the name first, as far as they are held. None if it is nothing that a server answers.
        lengths: of those that are not held whole: index to length.
        omitted: how many arguments are not given at all.
        inline: whether it is a line.
        start, end: offsets in the direction.
        incomplete: why not all of it is given, or None.
    """

    arguments: Sequence[bytes]
    lengths: dict[int, int]
    omitted: int
    inline: bool
    start: int
    end: int
    incomplete: str | None = None


@dataclass(slots=True)
class CommandReader:
    """Reads commands from a stream.

    Attributes:
        stream: where from.
        bytes_max: of the arguments of one command that are held.
        start: offset of the first byte of the command that is being read.
    """

    stream: Stream
    bytes_max: int = COMMAND_BYTES_MAX
    start: int = 0
    _left: int = 0
    _room: int = 0
    _arguments: list[bytes] = field(default_factory=list)
    _lengths: dict[int, int] = field(default_factory=dict)
    _omitted: int = 0
    _long: tuple[int, int] | None = None
    """Length and place of the string that is waited for; the place counts from the stream's start."""
    _passing: int | None = None
    """Bytes to come of a string that is not held."""
    _wanted: int = 0
    """How many of them are still given."""
    _reasons: list[str] = field(default_factory=list)

    @property
    def inside(self) -> bool:
        """Whether the head of a command was read whose end is not reached."""
        return self._left > 0

    def read(self) -> Command | None:
        """Give the next command; None: more bytes are needed.

        Raises:
            BrokenError: the bytes are no command.
        """
        stream = self.stream
        while True:
            if not self._left:
                begin = stream.start
                if begin >= len(stream.data):
                    return None
                if stream.data[begin] != _ARRAY:
                    return self._line()
                if not self._head():
                    return None
                if not self._left:
                    return self._done()
            while self._left:
                if not (self._string() if self._passing is None else self._pass()):
                    return None
            return self._done()

    def cut(self, reason: str) -> Command | None:
        """Give what is there of the command that is being read, and forget it and what waits; None: there is none."""
        if not self._left:
            return None
        if self._long is not None:
            self._let_go()
        self.stream.drop()
        self._reasons.append(reason)
        self._omitted += self._left - (self._passing is not None)
        return self._done()

    def lose(self, length: int | None, reason: str) -> bool:
        """Take a gap. True: it is inside a string, and the command goes on behind it."""
        if self._long is not None:
            self._let_go()
        if self._passing is None or length is None or length > self._passing:
            return False
        self.stream.pass_over(length)
        self._passing -= length
        if length:
            self._wanted = 0
        self._note(reason)
        return True

    def _note(self, reason: str) -> None:
        if reason not in self._reasons:
            self._reasons.append(reason)

    def _done(self) -> Command:
        command = Command(
            arguments=self._arguments,
            lengths=self._lengths,
            omitted=self._omitted,
            inline=False,
            start=self.start,
            end=self.stream.position,
            incomplete="; ".join(self._reasons) or None,
        )
        self._arguments, self._lengths, self._reasons = [], {}, []
        self._omitted = self._left = 0
        self._long = self._passing = None
        return command

    def _read_line(self, what: str) -> bytes | None:
        """Read a short line behind its type byte; the stream stays before it."""
        stream = self.stream
        data, begin = stream.data, stream.start
        end = data.find(CRLF, max(begin + 1, stream.cursor), begin + HEAD_BYTES_MAX + 2)
        if end < 0:
            if len(data) - begin > HEAD_BYTES_MAX + 1:
                raise BrokenError(stream.position, f"{what} of more than {HEAD_BYTES_MAX} bytes")
            stream.cursor = max(begin, len(data) - 1)
            return None
        return bytes(data[begin + 1 : end])

    def _head(self) -> bool:
        line = self._read_line("a count of arguments")
        if line is None:
            return False
        stream = self.stream
        count = length_of(line, COUNT_LIMIT)
        if count is None and (length_of(line[1:], COUNT_LIMIT) is None or line[:1] != b"-"):
            raise BrokenError(stream.position, f"not a count of arguments: {shown(line)}")
        self.start = stream.position
        stream.report(stream.start + 1 + len(line) + len(CRLF))
        self._left, self._room = count or 0, self.bytes_max
        return True

    def _string(self) -> bool:
        """Read one argument. False: it is not whole."""
        stream = self.stream
        if self._long is None:
            begin = stream.start
            if begin >= len(stream.data):
                return False
            if stream.data[begin] != _STRING:
                found = shown(bytes(stream.data[begin : begin + 1]))
                raise BrokenError(stream.position, f"an argument begins with {found}, not with '$'")
            line = self._read_line("a length of an argument")
            if line is None:
                return False
            length = length_of(line, STRING_BYTES_LIMIT)
            if length is None:
                raise BrokenError(stream.position, f"not a length: {shown(line)}")
            self._long = (length, 1 + len(line) + len(CRLF))
        length, head = self._long
        if length > self._room or len(self._arguments) >= VALUES_MAX:
            self._let_go()
            return True
        begin = stream.start + head
        end = begin + length
        data = stream.data
        if end + len(CRLF) > len(data):
            return False
        if data[end : end + len(CRLF)] != CRLF:
            raise BrokenError(stream.base + end, "an argument is longer than its length")
        self._arguments.append(stream.take(begin, end))
        self._room -= length
        self._long = None
        stream.report(end + len(CRLF))
        self._left -= 1
        return True

    def _let_go(self) -> None:
        """Go on with the argument that is waited for without holding it."""
        assert self._long is not None, "there is one"
        length, head = self._long
        self._long = None
        stream = self.stream
        stream.report(stream.start + head)
        self._passing = length
        if len(self._arguments) < VALUES_MAX:
            self._lengths[len(self._arguments)] = length
            self._arguments.append(b"")
            self._wanted = min(PREFIX_BYTES, self._room)
            self._room -= min(self._room, PREFIX_BYTES)
        else:
            self._wanted = 0
            self._omitted += 1
        self._take_prefix()

    def _take_prefix(self) -> None:
        stream = self.stream
        assert self._passing is not None, "a string is passed by"
        size = min(stream.waiting, self._passing)
        kept = min(size, self._wanted)
        if kept:
            self._arguments[-1] += stream.take(stream.start, stream.start + kept)
            self._wanted -= kept
        stream.report(stream.start + size)
        self._passing -= size

    def _pass(self) -> bool:
        self._take_prefix()
        stream = self.stream
        if self._passing or stream.waiting < len(CRLF):
            return False
        begin = stream.start
        if stream.data[begin : begin + len(CRLF)] != CRLF:
            raise BrokenError(stream.position, "an argument is longer than its length")
        self._note("not all of it is given")
        stream.report(begin + len(CRLF))
        self._passing = None
        self._left -= 1
        return True

    def _line(self) -> Command | None:
        stream = self.stream
        data, begin = stream.data, stream.start
        end = data.find(b"\n", max(begin, stream.cursor), begin + INLINE_BYTES_MAX)
        if end < 0:
            if len(data) - begin >= INLINE_BYTES_MAX:
                raise BrokenError(stream.position, f"an inline command of more than {INLINE_BYTES_MAX} bytes")
            stream.cursor = len(data)
            return None
        line = bytes(data[begin:end])
        if b"\0" in line:
            raise BrokenError(stream.position, "a zero byte in an inline command")
        words = split(line.removesuffix(b"\r"))
        if words is None:
            raise BrokenError(stream.position, "unbalanced quotes in an inline command")
        start = stream.position
        stream.report(end + 1)
        return Command(arguments=words, lengths={}, omitted=0, inline=True, start=start, end=stream.position)
