"""Inline commands: a line of words, as people type them.

What lives here: splitting as Redis does ("Inline commands"; sds.c, sdssplitargs). What must not: framing.
"""

from __future__ import annotations

from typing import Final

_SPACE: Final = b" \t\n\r\v\f\0"
_ESCAPES: Final = {ord("n"): 10, ord("r"): 13, ord("t"): 9, ord("b"): 8, ord("a"): 7}
_HEX: Final = b"0123456789abcdefABCDEF"
_QUOTES: Final = b"\"'"


def split(line: bytes) -> list[bytes] | None:
    """Give the words of a line; None: its quotes do not match, which Redis refuses."""
    words: list[bytes] = []
    at, end = 0, len(line)
    while True:
        while at < end and line[at] in _SPACE:
            at += 1
        if at == end:
            return words
        word = bytearray()
        while at < end and line[at] not in _SPACE:
            if line[at] not in _QUOTES:
                word.append(line[at])
                at += 1
                continue
            closed = _quoted(line, at, word)
            if closed is None:
                return None
            at = closed
            # A closing quote must be followed by space, or nothing.
            if at < end and line[at] not in _SPACE:
                return None
        words.append(bytes(word))


def _quoted(line: bytes, at: int, word: bytearray) -> int | None:
    """Take what is in quotes; gives the index behind the closing one."""
    quote, end = line[at], len(line)
    at += 1
    while at < end:
        byte = line[at]
        if byte == quote:
            return at + 1
        if byte == ord("\\") and quote == ord('"') and at + 1 < end:
            if line[at + 1] == ord("x") and at + 3 < end and line[at + 2] in _HEX and line[at + 3] in _HEX:
                word.append(int(line[at + 2 : at + 4], 16))
                at += 4
            else:
                word.append(_ESCAPES.get(line[at + 1], line[at + 1]))
                at += 2
        elif byte == ord("\\") and quote == ord("'") and line[at + 1 : at + 2] == b"'":
            word.append(quote)
            at += 2
        else:
            word.append(byte)
            at += 1
    return None
