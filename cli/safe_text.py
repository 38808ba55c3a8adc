"""Text on a terminal: made visible, its width, and cutting.

What lives here: widths and cutting. What must not: colours, layout, output; making text visible (recording/visible_text.py).
"""

from __future__ import annotations

import unicodedata
from typing import Final

from capd.recording.visible_text import COMBINING_MARKS_MAX, TAB_COLUMNS, from_bytes, visible, visible_lines

__all__ = ["COMBINING_MARKS_MAX", "CUT_MARK", "TAB_COLUMNS", "cut", "from_bytes", "visible", "visible_lines", "width"]

CUT_MARK: Final = "…"


def width(text: str) -> int:
    """Give how many terminal columns the visible text takes: two for East Asian wide characters, none for combining marks."""
    if text.isascii():
        return len(text)
    return sum(_columns(character) for character in text)


def cut(text: str, columns: int) -> str:
    """Give the visible text, or as much of it as fits into so many columns with a mark at its end that says it was cut."""
    if len(text) <= columns * (COMBINING_MARKS_MAX + 1) and width(text) <= columns:
        return text
    kept: list[str] = []
    left = columns - 1
    for character in text:
        left -= _columns(character)
        if left < 0:
            break
        kept.append(character)
    return "".join(kept) + CUT_MARK


def _columns(character: str) -> int:
    if unicodedata.combining(character) or character == "\ufe0f":
        return 0
    return 2 if unicodedata.east_asian_width(character) in "WF" else 1
