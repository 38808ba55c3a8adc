"""A piece of a text around what was searched for.

What lives here: choosing and marking it. What must not: finding messages.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

from capd.recording.catalogue.questions import fold

SNIPPET_CHARS: Final = 160
LEAD_CHARS: Final = 40
"""What is shown before the first match."""


def snippet(text: str, words: Sequence[str]) -> tuple[str, list[tuple[int, int]]]:
    """Give a piece of a text on one line, and the places in it of the words that begin with one of the given.

    Args:
        text: all of a message's searchable text.
        words: lower case and without accents, as `fold` gives them.
    """
    folded = fold(text)
    if len(folded) != len(text):
        folded = text.lower()  # a letter that is several without its accent: match what matches as it is
    if len(folded) != len(text):
        return _one_line(text[:SNIPPET_CHARS]), []
    pattern = re.compile("|".join(rf"\b{re.escape(word)}\w*" for word in words)) if words else None
    found = [] if pattern is None else [match.span() for match in pattern.finditer(folded)]
    start = max(0, found[0][0] - LEAD_CHARS) if found else 0
    end = start + SNIPPET_CHARS
    lead, tail = "…" * (start > 0), "…" * (end < len(text))
    shift = len(lead) - start
    return _one_line(lead + text[start:end] + tail), [(at + shift, to + shift) for at, to in found if to <= end]


def _one_line(text: str) -> str:
    return re.sub(r"\s", " ", text)
