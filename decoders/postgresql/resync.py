"""Where a message could start in bytes after a gap.

What lives here: the search for a plausible message boundary. What must not: state.

A place counts as a boundary when the message there is short, its inside adds up exactly, and either a header of a possible
message follows or the direction ends there. The second header is what tells `...Z` followed by a five-byte value, inside a
row, from a ReadyForQuery. Messages without an inside (BindComplete, Sync...) are never believed first: a digit before a
four-byte value looks just like them. Limits on length and columns keep the work for one place constant, so the whole is
linear.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Final

from capd.decoders.message import Direction
from capd.decoders.postgresql.wire import HEADER, HEADER_BYTES, LENGTH_BYTES, Fields, MalformedError

CANDIDATE_BYTES_MAX: Final = 8_192
"""Longest message at which the search stops; a longer one is passed over and the next short one found."""
CANDIDATE_VALUES_MAX: Final = 256
"""Most columns or parameters of a message at which the search stops."""
NEXT_BYTES_MAX: Final = 0x3FFF_FFFF
_ZERO_LENGTH: Final = b"\0\0"

_PRINTABLE: Final = re.compile(rb"[\t\n\r\x20-\x7e\x80-\xff]*")
_TAG: Final = re.compile(rb"[A-Z][A-Z ]*[0-9 ]*")

_ALONE_REQUEST: Final = frozenset(b"HScX")
_ALONE_RESPONSE: Final = frozenset(b"123Icns")
_NEXT_REQUEST: Final = frozenset(b"BCDEFHPQSXcdfp")
_NEXT_RESPONSE: Final = frozenset(b"123ACDEGHIKNRSTVWZcdnstv")


def candidate(direction: Direction, data: bytes | bytearray, begin: int, *, final: bool) -> tuple[bool, int]:
    """Find the first boundary at `begin` or later.

    Args:
        direction: whose bytes.
        data: the bytes.
        begin: index of the first byte that may begin a message.
        final: no more bytes will come.

    Returns:
        Whether one was found, and its index; if not, the index from which to search when there are more bytes.
    """
    pattern, checks = _SEARCH[direction]
    while True:
        found = pattern.search(data, begin)
        if found is None:
            return False, max(begin, len(data) - HEADER_BYTES + 1)
        start = found.start()
        verdict = _verdict(data, start, checks, _NEXT[direction], final=final)
        if verdict is not False:
            return verdict is True, start
        begin = start + 1


def _verdict(
    data: bytes | bytearray, start: int, checks: Mapping[int, Callable[[Fields], None]], follow: frozenset[int], *, final: bool
) -> bool | None:
    """True: a boundary. False: none. None: more bytes are needed to tell."""
    code, length = HEADER.unpack_from(data, start)
    end = start + 1 + length
    if length < LENGTH_BYTES or length > CANDIDATE_BYTES_MAX:
        return False
    if end > len(data):
        return False if final else None
    fields = Fields(bytes(data[start + HEADER_BYTES : end]), "latin-1")
    try:
        checks[code](fields)
        fields.end()
    except MalformedError:
        return False
    if end + HEADER_BYTES > len(data):
        return end == len(data) if final else None
    code, length = HEADER.unpack_from(data, end)
    return code in follow and _possible(code, length, follow)


def _possible(code: int, length: int, follow: frozenset[int]) -> bool:
    alone = _ALONE_REQUEST if follow is _NEXT_REQUEST else _ALONE_RESPONSE
    if code in alone:
        return length == LENGTH_BYTES
    return LENGTH_BYTES < length <= NEXT_BYTES_MAX


def _printable(fields: Fields, *, least: int = 0) -> None:
    raw = fields.raw_string()
    if len(raw) < least or not _PRINTABLE.fullmatch(raw):
        raise MalformedError("not text")


def _few(count: int) -> int:
    if count > CANDIDATE_VALUES_MAX:
        raise MalformedError("too many values")
    return count


def _values(fields: Fields) -> None:
    for _ in range(_few(fields.int16())):
        length = fields.int32()
        if length != -1:
            fields.raw(length)


def _row(fields: Fields) -> None:
    if len(fields.body) <= len(_ZERO_LENGTH):
        raise MalformedError("a row without columns is too short to believe")
    _values(fields)


def _columns(fields: Fields) -> None:
    count = _few(fields.int16())
    if not count:
        raise MalformedError("no columns")
    for _ in range(count):
        _printable(fields)
        fields.raw(18)


def _tag(fields: Fields) -> None:
    if not _TAG.fullmatch(fields.raw_string()):
        raise MalformedError("not a command tag")


def _notice(fields: Fields) -> None:
    if fields.body[:1] != b"S" or fields.body[-2:] != b"\0\0":
        raise MalformedError("not an error or notice")
    fields.rest()


def _ready(fields: Fields) -> None:
    if fields.raw(1) not in (b"I", b"T", b"E"):
        raise MalformedError("not a transaction status")


def _setting(fields: Fields) -> None:
    _printable(fields, least=1)
    _printable(fields)


def _query(fields: Fields) -> None:
    _printable(fields, least=1)


def _parse(fields: Fields) -> None:
    _printable(fields)
    _printable(fields, least=1)
    fields.raw(4 * fields.int16())


def _bind(fields: Fields) -> None:
    _printable(fields)
    _printable(fields)
    fields.formats()
    _values(fields)
    fields.formats()


def _execute(fields: Fields) -> None:
    _printable(fields)
    fields.int32()


def _named(fields: Fields) -> None:
    if fields.raw(1) not in (b"S", b"P"):
        raise MalformedError("neither statement nor portal")
    _printable(fields)


_REQUEST: Final[Mapping[int, Callable[[Fields], None]]] = {
    ord("Q"): _query,
    ord("P"): _parse,
    ord("B"): _bind,
    ord("E"): _execute,
    ord("D"): _named,
    ord("C"): _named,
}
_RESPONSE: Final[Mapping[int, Callable[[Fields], None]]] = {
    ord("D"): _row,
    ord("T"): _columns,
    ord("C"): _tag,
    ord("E"): _notice,
    ord("N"): _notice,
    ord("Z"): _ready,
    ord("S"): _setting,
}
_SEARCH: Final = {
    Direction.REQUEST: (re.compile(rb"[QPBEDC]\0\0[\0-\x20].", re.DOTALL), _REQUEST),
    Direction.RESPONSE: (re.compile(rb"[DTCENZS]\0\0[\0-\x20].", re.DOTALL), _RESPONSE),
}
_NEXT: Final = {Direction.REQUEST: _NEXT_REQUEST, Direction.RESPONSE: _NEXT_RESPONSE}
