"""Where a message could start in bytes after a gap.

What lives here: the search for a plausible start line. What must not: the decision whether to believe it (the side parses
the whole head and goes on searching when it is not one).

Each search goes on where the last one stopped and looks back only as far as that, so the whole costs time linear in the bytes.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from capd.decoders.message import Direction

TARGET_BYTES_MAX: Final = 8_192
"""Longest request line looked for; longer ones are passed over."""
_METHODS: Final = re.compile(
    rb"(?:GET|HEAD|POST|PUT|DELETE|CONNECT|OPTIONS|TRACE|PATCH|PROPFIND|PROPPATCH|MKCOL|COPY|MOVE|LOCK|UNLOCK|REPORT|SEARCH)\Z"
)
_METHOD_BYTES_MAX: Final = 9
_TARGET: Final = re.compile(rb"[\x21-\x7e\x80-\xff]+")
_VERSION: Final = b" HTTP/1."
_VERSION_BYTES: Final = len(b" HTTP/1.1\r\n")
_STATUS: Final = re.compile(rb"HTTP/1\.[01] [1-9][0-9][0-9][ \r]")
_STATUS_BYTES: Final = len(b"HTTP/1.1 200 ")


@dataclass(frozen=True, slots=True, kw_only=True)
class Search:
    """What a search found.

    Attributes:
        found: index where a message may start, or None.
        resume: index from which to search again when there are more bytes.
        keep: index of the first byte that may still belong to a message.
    """

    found: int | None
    resume: int
    keep: int


def search(direction: Direction, data: bytes | bytearray, begin: int, resume: int) -> Search:
    """Look for a start line that starts at `begin` or later; nothing ends before `resume`."""
    if direction is Direction.REQUEST:
        return _request(data, begin, resume)
    return _response(data, max(begin, resume))


def _request(data: bytes | bytearray, begin: int, resume: int) -> Search:
    while True:
        version = data.find(_VERSION, resume)
        if version < 0 or len(data) - version < _VERSION_BYTES:
            resume = version if version >= 0 else max(resume, len(data) - len(_VERSION) + 1)
            return Search(found=None, resume=resume, keep=max(begin, resume - TARGET_BYTES_MAX - _METHOD_BYTES_MAX - 1))
        found = _request_start(data, begin, version)
        if found is not None:
            return Search(found=found, resume=resume, keep=found)
        begin = resume = version + len(_VERSION)


def _request_start(data: bytes | bytearray, begin: int, version: int) -> int | None:
    if data[version + 8] not in b"01" or data[version + 9 : version + 11] != b"\r\n":
        return None
    space = data.rfind(b" ", max(begin, version - TARGET_BYTES_MAX), version)
    if space < 0 or not _TARGET.fullmatch(data, space + 1, version):
        return None
    low = max(begin, space - _METHOD_BYTES_MAX)
    method = _METHODS.search(data, low, space)
    return None if method is None else method.start()


def _response(data: bytes | bytearray, begin: int) -> Search:
    found = _STATUS.search(data, begin)
    if found is not None:
        return Search(found=found.start(), resume=found.start(), keep=found.start())
    resume = max(begin, len(data) - _STATUS_BYTES + 1)
    return Search(found=None, resume=resume, keep=resume)
