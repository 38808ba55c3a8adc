"""Where a text is not TOML, and what it says all the same.

What lives here: the line of the first fault, and reading what stands around faults. What must not: files; what the keys mean.

Source: toml.io/en/v1.0.0.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator, Sequence
from typing import Final

PLACE: Final = re.compile(r" \(at (?:line (?P<line>\d+), column (?P<column>\d+)|end of document)\)$")
"""How tomllib ends what it says; its errors have no such attributes before Python 3.14."""
SALVAGED_CHARACTERS_MAX: Final = 1 << 16
"""Ten times what a configuration of many rules has; a longer text is not read again and again."""
FAULTS_MAX: Final = 32
"""Lines that are left out at most: a file with more is not one that somebody mistyped."""


def fault(error: tomllib.TOMLDecodeError, text: str) -> tuple[int, str]:
    """Give the line, from 1, and what is wrong there.

    Args:
        error: tomllib's.
        text: that it could not read.
    """
    words, found = str(error), PLACE.search(str(error))
    if found is None:
        return 1, words
    if found["line"] is None:
        return text.rstrip().count("\n") + 1, f"{words[: found.start()]}, at the end of the file"
    return int(found["line"]), f"{words[: found.start()]}, at column {found['column']}"


def salvaged(text: str) -> dict[str, object]:
    """Give what a text says once the lines with faults are left out; nothing, where that does not make it TOML.

    With a table's name goes all of the table: its keys would be taken for those of the one before.
    """
    lines = text.split("\n")
    for _ in range(FAULTS_MAX + 1):
        joined = "\n".join(lines)
        try:
            return tomllib.loads(joined)
        except tomllib.TOMLDecodeError as error:
            line, _words = fault(error, joined)
        except RecursionError:
            break
        if len(text) > SALVAGED_CHARACTERS_MAX:
            break
        for number in list(_statement(lines, line - 1)):
            lines[number] = ""
    return {}


def _statement(lines: Sequence[str], first: int) -> Iterator[int]:
    """Give the numbers, from 0, of the lines that are left out because of one: itself, and below a table's name its keys."""
    yield first
    if lines[first].lstrip().startswith("["):
        for number in range(first + 1, len(lines)):
            if lines[number].lstrip().startswith("["):
                return
            yield number
