"""HTTP/1.1 lines and the rules for the length of a body: pure functions over bytes (RFC 9112, RFC 9110).

What lives here: what a start line, a field line and a chunk line may look like, and which framing follows. What must not:
state.

Decisions, all on the strict side because two readers that differ about where a message ends are how requests are smuggled:

- Lines end with CRLF. A bare LF (which RFC 9112 2.2 lets a recipient accept) and a bare CR are errors.
- One SP between the parts of a start line. Only versions 1.0 and 1.1. A status line may lack the SP before an empty reason.
- A target may hold bytes above 0x7F, because clients send them and they change no framing.
- White space before the colon, folded lines (obs-fold), an empty name, control characters: errors, in both directions.
- Content-Length: digits only; repeated or listed values must be identical (RFC 9110 8.6).
- Transfer-Encoding: exactly one field line with exactly `chunked`; not together with Content-Length; not with HTTP/1.0.
- More than one Host is an error. A missing one is decoded: nothing is ambiguous about it.
- Chunk sizes: hexadecimal digits, at most 16. White space after the size is accepted in responses only (servers send it).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Final

HEAD_BYTES_MAX: Final = 65_536
"""Start line and fields together; servers in use stop between 8 and 64 KiB. Also the limit for a trailer section."""
FIELDS_MAX: Final = 1_000
"""Field lines in one head; 64 KiB could hold 16,000 of them, no honest peer sends that."""
CHUNK_LINE_BYTES_MAX: Final = 4_096
"""A chunk's size with its extensions; nobody uses extensions but attackers (CVE-2023-39326 and its like)."""
CHUNK_EXTENSION_BYTES_MAX: Final = 16_384
"""Extensions of one message together: overhead that hides in many small chunks."""
LENGTH_DIGITS_MAX: Final = 18
"""Keeps every length within 63 bits."""

_TOKEN: Final = rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+"
_REQUEST_LINE: Final = re.compile(rb"(" + _TOKEN + rb") ([\x21-\x7e\x80-\xff]+) HTTP/(1\.[01])")
_STATUS_LINE: Final = re.compile(rb"HTTP/(1\.[01]) ([1-9][0-9]{2})(?: ([\t\x20-\x7e\x80-\xff]*))?")
_FIELD_LINE: Final = re.compile(rb"(" + _TOKEN + rb"):([\t\x20-\x7e\x80-\xff]*)")
_FIELD_BLOCK: Final = rb"((?:" + _TOKEN + rb":[\t\x20-\x7e\x80-\xff]*+\r\n)*+\r\n)"
_FIELD_LINES: Final = re.compile(_FIELD_BLOCK)
_REQUEST_HEAD: Final = re.compile(_REQUEST_LINE.pattern + rb"\r\n" + _FIELD_BLOCK)
_RESPONSE_HEAD: Final = re.compile(_STATUS_LINE.pattern + rb"\r\n" + _FIELD_BLOCK)
_CRLF: Final = b"\r\n"
_NAMED: Final = frozenset({"connection", "content-length", "host", "transfer-encoding", "upgrade"})
_FIELD_NAME_SPACE: Final = re.compile(_TOKEN + rb"[ \t]+:")
_CONTROL: Final = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]")
_CHUNK_LINE: Final = re.compile(rb"([0-9A-Fa-f]+)([ \t]*;[\t\x20-\x7e\x80-\xff]*)?")
_CHUNK_SIZE_DIGITS_MAX: Final = 16


class LineError(Exception):
    """A line breaks the grammar. Never leaves this package: the caller adds the place and raises ProtocolError.

    Attributes:
        index: which byte of the line.
        reason: what is wrong.
    """

    def __init__(self, index: int, reason: str) -> None:
        super().__init__(reason)
        self.index = index
        self.reason = reason


class Framing(Enum):
    """How the end of a body is found (RFC 9112 6.3).

    Attributes:
        word: for it; `value` is slow to ask for.
    """

    word: str

    NONE = "none"
    LENGTH = "length"
    CHUNKED = "chunked"
    CLOSE = "close"
    TUNNEL = "tunnel"

    def __init__(self, word: str) -> None:
        self.word = word


@dataclass(slots=True)
class RequestLine:
    """Method, target and version as sent; bytes above 0x7F as Latin-1. Nobody changes it; freezing is slow."""

    method: str
    target: str
    version: str


@dataclass(slots=True)
class StatusLine:
    """Version, status and reason as sent. As above."""

    version: str
    status: int
    reason: str


Fields = list[list[str]]
"""Name and value of each, as sent."""
Named = Mapping[str, Sequence[str]]


class Block:
    """The field lines of a head, read. Nobody changes them: a peer repeats itself, and equal lines share one block.

    Attributes:
        raw: the lines with the empty one behind them; b"" of those that were read one by one.
        fields: name and value of each, as sent.
        named: the values of each field that says something about framing or host, in order, by its name in lower case.
    """

    __slots__ = ("_framing", "fields", "named", "raw")

    def __init__(self, fields: Fields, raw: bytes = b"") -> None:
        self.fields, self.raw = fields, raw
        self.named: dict[str, list[str]] = {}
        self._framing: tuple[str, Framing | None, int] | None = None
        for name, value in fields:
            lower = name.lower()
            if lower in _NAMED:
                self.named.setdefault(lower, []).append(value)

    def framing(self, version: str) -> tuple[Framing | None, int]:
        """What they say of the body's length, as `body_length` has it. Raises LineError."""
        if self._framing is None or self._framing[0] != version:
            self._framing = (version, *body_length(version, self.named))
        return self._framing[1:]


def _refuse(line: bytes, otherwise: str) -> LineError:
    """Name the first control character if there is one: that is what a reader looks for first."""
    found = _CONTROL.search(line)
    if found is None:
        return LineError(0, otherwise)
    byte = line[found.start()]
    name = {0x0D: "bare CR", 0x00: "NUL"}.get(byte, f"control character 0x{byte:02x}")
    return LineError(found.start(), name)


def request_line(line: bytes) -> RequestLine:
    """Read `method SP target SP version` (RFC 9112 3)."""
    found = _REQUEST_LINE.fullmatch(line)
    if found is None:
        raise _refuse(line, "not a request line")
    return _request_line(*found.groups())


def _request_line(method: bytes, target: bytes, version: bytes) -> RequestLine:
    return RequestLine(method.decode("latin-1"), target.decode("latin-1"), version.decode("latin-1"))


def status_line(line: bytes) -> StatusLine:
    """Read `version SP status SP [reason]` (RFC 9112 4)."""
    found = _STATUS_LINE.fullmatch(line)
    if found is None:
        raise _refuse(line, "not a status line")
    return _status_line(*found.groups())


def _status_line(version: bytes, status: bytes, reason: bytes | None) -> StatusLine:
    return StatusLine(version.decode("latin-1"), int(status), (reason or b"").decode("latin-1"))


def request_head(
    data: bytes | bytearray, begin: int, limit: int, before: Block | None = None
) -> tuple[RequestLine, Block, int] | None:
    """Read a whole head at once, as `request_line` and `field_lines` would.

    Args:
        data: holds it.
        begin: where it begins.
        limit: index that it must end before.
        before: field lines that are likely the same; then that is what is given.

    Returns:
        The line, the fields, and the index behind the empty line; None when something is wrong, or missing before `limit`.
    """
    same = None if before is None else _same_block(data, begin, limit, before)
    if same is not None:
        found = _REQUEST_LINE.fullmatch(data, begin, same[0])
        return None if found is None else (_request_line(*found.groups()), *same[1:])
    found = _REQUEST_HEAD.match(data, begin, limit)
    if found is None:
        return None
    *line, raw = found.groups()
    fields = _fields(raw)
    return None if fields is None else (_request_line(*line), Block(fields, raw), found.end())


def response_head(
    data: bytes | bytearray, begin: int, limit: int, before: Block | None = None
) -> tuple[StatusLine, Block, int] | None:
    """Read a whole head at once, as `status_line` and `field_lines` would; see `request_head`."""
    same = None if before is None else _same_block(data, begin, limit, before)
    if same is not None:
        found = _STATUS_LINE.fullmatch(data, begin, same[0])
        return None if found is None else (_status_line(*found.groups()), *same[1:])
    found = _RESPONSE_HEAD.match(data, begin, limit)
    if found is None:
        return None
    *line, raw = found.groups()
    fields = _fields(raw)
    return None if fields is None else (_status_line(*line), Block(fields, raw), found.end())


def _same_block(data: bytes | bytearray, begin: int, limit: int, before: Block) -> tuple[int, Block, int] | None:
    """Say whether a head has the field lines of the one before: where its first line ends, these, and the head's end.

    No line of a block is empty but its last, so bytes that begin with a block's have no other field lines than it has.
    """
    line_end = data.find(_CRLF, begin, limit)
    begin_of_fields = line_end + len(_CRLF)
    end = begin_of_fields + len(before.raw)
    same = line_end >= 0 and end <= limit and data.startswith(before.raw, begin_of_fields)
    return (line_end, before, end) if same else None


def field_line(line: bytes) -> list[str]:
    """Read `name: value` (RFC 9112 5)."""
    found = _FIELD_LINE.fullmatch(line)
    if found is None:
        if line[:1] in (b" ", b"\t"):
            raise LineError(0, "folded field line (obs-fold)")
        if _FIELD_NAME_SPACE.match(line):
            raise LineError(0, "white space between field name and colon")
        raise _refuse(line, "not a field line")
    name, value = found.groups()
    return [name.decode("latin-1"), value.strip(b" \t").decode("latin-1")]


def field_lines(data: bytes | bytearray, begin: int, limit: int) -> tuple[Fields, int] | None:
    """Read all field lines of a head at once, with the empty line behind them, as `field_line` would one by one.

    Returns:
        The fields and the index behind the empty line; None when something is wrong, or missing before `limit`.
    """
    found = _FIELD_LINES.match(data, begin, limit)
    if found is None:
        return None
    fields = _fields(found[1])
    return None if fields is None else (fields, found.end())


def _fields(block: bytes) -> Fields | None:
    """Read whole and correct field lines with the empty one behind them; None when they are too many."""
    lines = block.decode("latin-1").split("\r\n")
    del lines[-2:]
    if len(lines) > FIELDS_MAX:
        return None
    fields = []
    for line in lines:
        name, _, value = line.partition(":")
        fields.append([name, value.strip(" \t")])
    return fields


def chunk_line(line: bytes, *, lenient: bool) -> tuple[int, int]:
    """Read a chunk's size and the number of bytes its extensions take (RFC 9112 7.1)."""
    found = _CHUNK_LINE.fullmatch(line.rstrip(b" \t") if lenient else line)
    if found is None:
        raise _refuse(line, "not a chunk size")
    digits, extension = found.groups()
    if len(digits) > _CHUNK_SIZE_DIGITS_MAX:
        raise LineError(0, f"chunk size of more than {_CHUNK_SIZE_DIGITS_MAX} digits")
    return int(digits, 16), len(extension or b"")


def tokens(values: Sequence[str]) -> list[str]:
    """The members of a list field such as Connection or Upgrade, in lower case."""
    members = (member.strip(" \t").lower() for value in values for member in value.split(","))
    return [member for member in members if member]


def host_of(named: Named) -> str | None:
    """The Host field, or None.

    Raises:
        LineError: there is more than one, so that two readers could choose differently.
    """
    hosts = named.get("host", ())
    if len(hosts) > 1:
        raise LineError(0, "more than one Host field")
    return hosts[0] if hosts else None


def body_length(version: str, named: Named) -> tuple[Framing | None, int]:
    """What Content-Length and Transfer-Encoding say together (RFC 9112 6.1 to 6.3).

    Returns:
        CHUNKED, or LENGTH with the length, or None when neither field is there.

    Raises:
        LineError: they contradict each other or themselves.
    """
    codings = named.get("transfer-encoding", ())
    lengths = named.get("content-length", ())
    if codings:
        if lengths:
            raise LineError(0, "both Transfer-Encoding and Content-Length")
        if version == "1.0":
            raise LineError(0, "Transfer-Encoding in HTTP/1.0")
        if len(codings) > 1:
            raise LineError(0, "more than one Transfer-Encoding field")
        if codings[0].lower() != "chunked":
            raise LineError(0, "Transfer-Encoding other than chunked")
        return Framing.CHUNKED, 0
    if lengths:
        return Framing.LENGTH, _content_length(lengths)
    return None, 0


def _content_length(values: Sequence[str]) -> int:
    text = values[0]
    if len(values) > 1 or "," in text:
        members = {member.strip(" \t") for value in values for member in value.split(",")}
        if len(members) > 1:
            raise LineError(0, "conflicting Content-Length values")
        text = members.pop()
    if not (text.isascii() and text.isdigit()) or len(text) > LENGTH_DIGITS_MAX:
        raise LineError(0, "Content-Length is not a number")
    return int(text)
