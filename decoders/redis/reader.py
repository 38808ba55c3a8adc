"""Reading one answer after the other from a stream, however it is cut.

What lives here: RESP2 and RESP3 values, nested, with bounds. What must not: which command an answer is of.

Every token is looked at once, and bytes behind the last whole token stay in the stream. Of an answer that is too large
strings and values are passed over by length, so nothing in it can make it held.

A value is None, a bool, an int, a float, or a string (values.py); a list for an array; {"set": [..]}, {"map": [[key,
value]..]}, {"error": text}, {"number": digits or "inf", "-inf", "nan"}, {"text": string, "format": "txt"}; with attributes
{"value": value, "attributes": [[key, value]..]}. What is not given is counted in {"omitted": values}.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field
from typing import Final

from capd.decoders.message import JsonValue
from capd.decoders.redis import values
from capd.decoders.redis.wire import (
    ANSWER_BYTES_MAX,
    COUNT_LIMIT,
    CRLF,
    DEPTH_GIVEN,
    DEPTH_MAX,
    HEAD_BYTES_MAX,
    LINE_BYTES_MAX,
    PREFIX_BYTES,
    STRING_BYTES_LIMIT,
    VALUES_MAX,
    BrokenError,
    length_of,
    number_of,
    shown,
)
from capd.decoders.stream import Stream

_STRINGS: Final = frozenset(b"$!=")
_GROUPS: Final = {ord("*"): 1, ord("~"): 1, ord(">"): 1, ord("%"): 2, ord("|"): 2}
"""Type byte to how many values stand for each that is announced."""
_LONG_LINES: Final = frozenset(b"+-(")
_SHORT_LINES: Final = frozenset(b":_,#")
_ATTRIBUTES: Final = ord("|")
_DOUBLE: Final = re.compile(rb"[+-]?[0-9]+(?:\.[0-9]*)?(?:[eE][+-]?[0-9]+)?|-?inf|-?nan")
_BIG: Final = re.compile(rb"[+-]?[0-9]+")
_VERBATIM_HEAD: Final = 4
_NULL: Final = b"-1"


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """One answer.

    Attributes:
        kind: type byte of its outermost value, as a character.
        value: as far as it is given.
        start, end: offsets in the direction.
        incomplete: why not all of it is given, or None.
    """

    kind: str
    value: JsonValue
    start: int
    end: int
    incomplete: str | None = None


@dataclass(slots=True)
class _Group:
    """A value of values: what it is, how many are to come, those that are given, None when none of it is."""

    code: int
    left: int
    items: list[JsonValue] | None
    omitted: int = 0
    attributes: JsonValue = None
    """Of the value that comes next."""


@dataclass(slots=True)
class _String:
    """A string that is too long to be held: bytes to come, what is given of it."""

    code: int
    length: int
    left: int
    prefix: bytes
    holed: bool = False
    """Bytes of it were lost; what follows does not go on where the prefix ends."""


@dataclass(slots=True)
class Reader:
    """Reads answers from a stream.

    Attributes:
        stream: where from.
        bytes_max: of the strings of one answer that are given.
        start: offset of the first byte of the answer that is being read.
        values: how many values of the latest answer came, those that hold none themselves.
    """

    stream: Stream
    bytes_max: int = ANSWER_BYTES_MAX
    start: int = 0
    values: int = 0
    _room: int = 0
    _count: int = 0
    _begun: bool = False
    _kind: str = ""
    _stack: list[_Group] = field(default_factory=list)
    _string: _String | None = None
    _long: tuple[int, int, int] | None = None
    """Type, length and index of the payload of the string that is waited for."""
    _attributes: JsonValue = None
    """Of the answer itself."""
    _reasons: list[str] = field(default_factory=list)
    _answer: tuple[JsonValue] | None = None

    @property
    def kind(self) -> str:
        """Type byte of the answer that is being read, as a character; "" where none has begun."""
        return self._kind

    @property
    def inside(self) -> bool:
        """Whether an answer has begun whose end is not reached, as far as `read` looked."""
        return self._begun

    def read(self) -> Answer | None:
        """Give the next answer; None: more bytes are needed.

        Raises:
            BrokenError: the bytes are no RESP.
        """
        while self._answer is None:
            if self._string is not None:
                if not self._pass_string(self._string):
                    return None
            elif not self._token():
                return None
        (value,) = self._answer
        if self._attributes is not None:
            value = {"value": value, "attributes": self._attributes}
        answer = Answer(
            kind=self._kind,
            value=value,
            start=self.start,
            end=self.stream.position,
            incomplete="; ".join(self._reasons) or None,
        )
        self._begin()
        return answer

    def cut(self, reason: str) -> Answer | None:
        """Give what is there of the answer that is being read, up to the stream's end, and forget it; None: there is none."""
        if not self._begun:
            return None
        if self._long is not None:
            self._let_go()
        stream, string = self.stream, self._string
        stream.drop()
        given = values.begins(string.prefix, string.length) if string is not None else None
        value: JsonValue = None
        if self._stack:
            value = self._unwound(given)
        elif given is not None:
            value = given
        why = "; ".join(dict.fromkeys([*self._reasons, reason]))
        answer = Answer(kind=self._kind, value=value, start=self.start, end=stream.position, incomplete=why)
        self._begin()
        return answer

    def lose(self, length: int | None, reason: str) -> bool:
        """Take a gap. True: it is inside a string, and the answer goes on behind it."""
        if self._long is not None:
            self._let_go()
        string = self._string
        if string is None or length is None or length > string.left:
            return False
        self.stream.pass_over(length)
        string.left -= length
        string.holed = string.holed or length > 0
        self._note(reason)
        return True

    def _begin(self) -> None:
        self._begun, self._kind = False, ""
        self._answer, self._attributes = None, None
        self._string = self._long = None
        self._stack.clear()
        self._reasons.clear()

    def _unwound(self, given: JsonValue) -> JsonValue:
        """Close everything that is open."""
        value, there = given, given is not None
        while self._stack:
            group = self._stack.pop()
            if group.items is not None and there:
                group.items.append(value)
            group.omitted += group.left - there
            value, there = self._group_value(group), True
        return value

    def _note(self, reason: str) -> None:
        if reason not in self._reasons:
            self._reasons.append(reason)

    # Tokens

    def _token(self) -> bool:
        """Read one line, or a line and its string. False: it is not whole."""
        if self._long is not None:
            return self._await_string(*self._long)
        stream = self.stream
        data, begin = stream.data, stream.start
        if begin >= len(data):
            return False
        code = data[begin]
        limit = LINE_BYTES_MAX if code in _LONG_LINES else HEAD_BYTES_MAX
        if code not in _LONG_LINES and code not in _STRINGS and code not in _GROUPS and code not in _SHORT_LINES:
            raise BrokenError(stream.position, f"no RESP value begins with {shown(bytes([code]))}")
        end = data.find(CRLF, max(begin + 1, stream.cursor), begin + limit + 2)
        if end < 0:
            if len(data) - begin > limit + 1:
                raise BrokenError(stream.position, f"a line of more than {limit} bytes")
            stream.cursor = max(begin, len(data) - 1)
            return False
        if not self._stack:
            self._kind = chr(code)
        if not self._begun:
            self.start, self._begun, self.values = stream.position, True, 0
            self._room, self._count = self.bytes_max, 0
        line = bytes(data[begin + 1 : end])
        if code in _STRINGS:
            return self._string_head(code, line, end + len(CRLF))
        offset = stream.position
        stream.report(end + len(CRLF))
        if code in _GROUPS:
            self._open(code, line, offset)
        elif code in _LONG_LINES:
            self._long_line(code, line, offset)
        else:
            self._give(_short(code, line, offset))
        return True

    def _long_line(self, code: int, line: bytes, offset: int) -> None:
        if code == ord("("):
            if _BIG.fullmatch(line) is None:
                raise BrokenError(offset, "not a big number")
            self._give({"number": line.decode("ascii")} if len(line) <= self._room else {"omitted": 1})
            self._room -= min(len(line), self._room)
            return
        given = self._text(line, len(line))
        self._give({"error": given} if code == ord("-") else given)

    def _text(self, raw: bytes, length: int) -> JsonValue:
        """Give a string, as much of it as there is room for."""
        room = self._room
        if len(raw) == length <= room:
            self._room = room - length
            return values.string(raw)
        kept = raw[: min(PREFIX_BYTES, room)]
        self._room = room - len(kept)
        self._note("not all of it is given")
        return values.begins(kept, length)

    # Strings

    def _string_head(self, code: int, line: bytes, payload: int) -> bool:
        stream = self.stream
        if line == _NULL and code == ord("$"):
            stream.report(payload)
            self._give(None)
            return True
        length = length_of(line, STRING_BYTES_LIMIT)
        if length is None:
            raise BrokenError(stream.position, f"not a length: {shown(line)}")
        self._long = (code, length, payload - stream.start)
        return self._await_string(code, length, payload - stream.start)

    def _await_string(self, code: int, length: int, head: int) -> bool:
        """Take the string behind a head, whole if there is room for it."""
        stream = self.stream
        if length > self._room or not self._wanted:
            self._let_go()
            return True
        begin = stream.start + head
        end = begin + length
        data = stream.data
        if end + len(CRLF) > len(data):
            return False
        if data[end : end + len(CRLF)] != CRLF:
            raise BrokenError(stream.base + end, "a string is longer than its length")
        raw = stream.take(begin, end)
        self._long = None
        stream.report(end + len(CRLF))
        self._give(self._string_value(code, raw, length))
        return True

    @property
    def _wanted(self) -> bool:
        """Whether values are still given at this place."""
        return self._count < VALUES_MAX and (not self._stack or self._stack[-1].items is not None)

    def _let_go(self) -> None:
        """Go on with the string that is waited for without holding it."""
        assert self._long is not None, "there is one"
        code, length, head = self._long
        self._long = None
        stream = self.stream
        begin = stream.start + head
        end = min(begin + length, len(stream.data))
        room = min(PREFIX_BYTES, self._room) if self._wanted else 0
        prefix = stream.take(begin, min(end, begin + room))
        stream.report(end)
        self._string = _String(code, length, length - (end - begin), prefix)

    def _pass_string(self, string: _String) -> bool:
        stream = self.stream
        size = min(stream.waiting, string.left)
        room = min(PREFIX_BYTES, self._room) - len(string.prefix) if self._wanted else 0
        if room > 0 and size and not string.holed:
            string.prefix += stream.take(stream.start, stream.start + min(size, room))
        stream.report(stream.start + size)
        string.left -= size
        if string.left or stream.waiting < len(CRLF):
            return False
        begin = stream.start
        if stream.data[begin : begin + len(CRLF)] != CRLF:
            raise BrokenError(stream.position, "a string is longer than its length")
        stream.report(begin + len(CRLF))
        self._string = None
        self._give(self._string_value(string.code, string.prefix, string.length))
        return True

    def _string_value(self, code: int, raw: bytes, length: int) -> JsonValue:
        if code == ord("$"):
            return self._text(raw, length)
        if code == ord("!"):
            return {"error": self._text(raw, length)}
        if length < _VERBATIM_HEAD or (len(raw) >= _VERBATIM_HEAD and raw[3:4] != b":"):
            raise BrokenError(self.stream.position, "a verbatim string without its format")
        text = self._text(raw[_VERBATIM_HEAD:], length - _VERBATIM_HEAD)
        return {"text": text, "format": raw[:3].decode("latin-1")}

    # Values of values

    def _open(self, code: int, line: bytes, offset: int) -> None:
        if line == _NULL and code == ord("*"):
            self._give(None)
            return
        count = length_of(line, COUNT_LIMIT)
        if count is None:
            raise BrokenError(offset, f"not a count: {shown(line)}")
        if len(self._stack) >= DEPTH_MAX:
            raise BrokenError(offset, f"values nest deeper than {DEPTH_MAX}")
        wanted = self._wanted and len(self._stack) < DEPTH_GIVEN
        self._stack.append(_Group(code, count * _GROUPS[code], [] if wanted else None))
        if not count:
            self._close()

    def _close(self) -> None:
        """The innermost group is whole."""
        group = self._stack.pop()
        if group.code != _ATTRIBUTES:
            self._give(self._group_value(group))
            return
        items = group.items if group.items is not None else []
        pairs: JsonValue = [list(pair) for pair in zip(items[::2], items[1::2], strict=False)]
        if self._stack:
            self._stack[-1].attributes = pairs
        else:
            self._attributes = pairs

    def _group_value(self, group: _Group) -> JsonValue:
        if group.items is None:
            return {"omitted": 1}
        items = group.items
        if group.code in (ord("%"), _ATTRIBUTES):
            pairs: list[JsonValue] = [list(pair) for pair in zip(items[::2], items[1::2], strict=False)]
            return {"map": pairs}
        if group.omitted:
            items.append({"omitted": group.omitted})
        return {"set": items} if group.code == ord("~") else items

    def _give(self, value: JsonValue) -> None:
        """A value is whole: put it where it belongs, and close what it ends, which may be everything."""
        self.values += 1
        while self._stack:
            group = self._stack[-1]
            if group.attributes is not None:
                value, group.attributes = {"value": value, "attributes": group.attributes}, None
            if group.items is not None and self._count < VALUES_MAX:
                group.items.append(value)
                self._count += 1
            else:
                group.omitted += 1
                self._note("not all of it is given")
            group.left -= 1
            if group.left:
                return
            if group.code == _ATTRIBUTES:
                self._close()
                return
            self._stack.pop()
            value = self._group_value(group)
        self._answer = (value,)


def _short(code: int, line: bytes, offset: int) -> JsonValue:
    if code == ord(":"):
        number = number_of(line)
        if number is None:
            raise BrokenError(offset, f"not a number: {shown(line)}")
        return number
    if code == ord("_") and not line:
        return None
    if code == ord("#") and line in (b"t", b"f"):
        return line == b"t"
    if code == ord(",") and _DOUBLE.fullmatch(line):
        return _double(line)
    raise BrokenError(offset, f"not a value: {shown(bytes([code]) + line)}")


def _double(line: bytes) -> JsonValue:
    text = line.decode("ascii")
    number = float(text)
    return number if math.isfinite(number) else {"number": text}
