"""Make any text or bytes safe to show: what could steer a screen, or hide from the reader, is shown as an escape in letters.

What lives here: the one function through which everything recorded passes on its way to a person. What must not: widths,
colours, layout, output.
"""

from __future__ import annotations

import re
import unicodedata
from typing import Final

TAB_COLUMNS: Final = 8
# Nobody writes more marks on one letter; hundreds of them paint over the lines above.
COMBINING_MARKS_MAX: Final = 4
# `str.isprintable` refuses these three spaces, which French and Japanese text is full of and which steer nothing.
HARMLESS_SPACES: Final = frozenset("\u00a0\u202f\u3000")
# Printable by category, yet drawn as nothing (Unicode Default_Ignorable_Code_Point, and blank letters): text hides in them.
# U+FE0F stays: it follows half of all emoji.
INVISIBLE: Final = re.compile(
    "[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u2800\u3164\ufe00-\ufe0e\uffa0\U0001d173-\U0001d17a\U000e0000-\U000e0fff]"
)
BYTE_MAX: Final = 0xFF
BMP_MAX: Final = 0xFFFF


def from_bytes(data: bytes) -> str:
    r"""Give the bytes as text; what is no UTF-8 stands as `\xff`."""
    return data.decode("utf-8", "backslashreplace")


def visible(text: str) -> str:
    r"""Give the text on one line with nothing in it but what can be seen.

    Controls (C0, DEL, C1, so also ESC and newline), bidirectional overrides, zero-width and other invisible characters,
    surrogates and unassigned or private code points become `\x1b`, `\u202e`, `\U000e0041`; newline, return and tab become
    `\n`, `\r`, `\t`.
    """
    if text.isascii():
        if text.isprintable():
            return text
    elif text.isprintable() and INVISIBLE.search(text) is None and not _has_long_stack(text):
        return text
    return _spell(text)


def visible_lines(text: str) -> list[str]:
    """Give the text as lines (ended by newline or return-newline), each made visible, with tabs expanded."""
    return [visible(line.expandtabs(TAB_COLUMNS)) for line in text.replace("\r\n", "\n").split("\n")]


def _has_long_stack(text: str) -> bool:
    marks = 0
    for character in text:
        marks = marks + 1 if _is_mark(character) else 0
        if marks > COMBINING_MARKS_MAX:
            return True
    return False


def _is_mark(character: str) -> bool:
    return character > "\u02ff" and unicodedata.category(character) in {"Mn", "Me"}


def _spell(text: str) -> str:
    spelled: list[str] = []
    marks = 0
    for character in text:
        marks = marks + 1 if _is_mark(character) else 0
        seen = (character.isprintable() or character in HARMLESS_SPACES) and INVISIBLE.match(character) is None
        spelled.append(character if seen and marks <= COMBINING_MARKS_MAX else _escape(character))
    return "".join(spelled)


def _escape(character: str) -> str:
    short = {"\n": "\\n", "\r": "\\r", "\t": "\\t"}.get(character)
    if short is not None:
        return short
    number = ord(character)
    if number <= BYTE_MAX:
        return f"\\x{number:02x}"
    return f"\\u{number:04x}" if number <= BMP_MAX else f"\\U{number:08x}"
