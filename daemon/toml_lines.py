"""On which line of a TOML file each key is.

What lives here: looking a document through that is known to be TOML. What must not: reading its values; that is tomllib's,
which does not tell lines.

Source: toml.io/en/v1.0.0.
"""

from __future__ import annotations

import re
import tomllib
from bisect import bisect_right
from collections.abc import Iterator
from typing import Final

Path = tuple[str | int, ...]
"""Names of tables and keys, and numbers of elements of arrays, from 0."""

BARE: Final = re.compile(r"[A-Za-z0-9_-]+")
BLANK: Final = re.compile(r"[ \t]*")
BETWEEN: Final = re.compile(r"(?:[ \t\r\n]|#[^\n]*)*")
"""What may be between two elements of an array, and between two lines of a document."""
QUOTED: Final = re.compile(
    r'"""(?:[^"\\]|\\.|"(?!""))*"{3,5}'
    r"|'''(?:[^']|'(?!''))*'{3,5}"
    r'|"(?:[^"\\\n]|\\.)*"'
    r"|'[^'\n]*'",
    re.DOTALL,
)
PLAIN: Final = re.compile(r"[^,\]}#\n]*")
"""Numbers, dates, true and false."""


def lines_of(text: str) -> dict[Path, int]:
    """Give the line, from 1, where each table, key and element of an array is said first.

    Args:
        text: of a document that tomllib reads.
    """
    return _Document(text).lines


class _Document:
    """Looks a document through, once, from its beginning to its end."""

    def __init__(self, text: str) -> None:
        self.lines: dict[Path, int] = {}
        self._text, self._at = text, 0
        self._starts = [0, *(found.end() for found in re.finditer("\n", text))]
        self._elements: dict[Path, int] = {}
        table: Path = ()
        while self._next(BETWEEN) < len(text):
            if text[self._at] == "[":
                table = self._header()
            else:
                self._assignment(table)

    def _next(self, skipped: re.Pattern[str]) -> int:
        found = skipped.match(self._text, self._at)
        assert found is not None  # it matches nothing as well
        self._at = found.end()
        return self._at

    def _header(self) -> Path:
        line, array = self._line(), self._text.startswith("[[", self._at)
        self._at += 2 if array else 1
        names = list(self._key())
        self._at += 2 if array else 1
        *above, last = names
        path: Path = ()
        for name in above:
            path = self._newest((*path, name))
            self.lines.setdefault(path, line)
        path = (*path, last)
        if array:
            self.lines.setdefault(path, line)
            self._elements[path] = self._elements.get(path, 0) + 1
        path = self._newest(path)
        self.lines.setdefault(path, line)
        return path

    def _newest(self, path: Path) -> Path:
        """Give the newest element of an array of tables; of all else, itself."""
        count = self._elements.get(path)
        return path if count is None else (*path, count - 1)

    def _assignment(self, table: Path) -> None:
        line, path = self._line(), table
        for name in self._key():
            path = (*path, name)
            self.lines.setdefault(path, line)
        self._at += 1  # the sign of equality
        self._next(BLANK)
        self._value(path)

    def _key(self) -> Iterator[str]:
        """Give the parts of a key; what comes after it is next."""
        while True:
            self._next(BLANK)
            begins = self._at
            if self._text[begins] in "\"'":
                self._next(QUOTED)
                yield str(tomllib.loads(f"key = {self._text[begins : self._at]}")["key"])
            else:
                self._next(BARE)
                yield self._text[begins : self._at]
            self._next(BLANK)
            if not self._text.startswith(".", self._at):
                return
            self._at += 1

    def _value(self, path: Path) -> None:
        match self._text[self._at]:
            case "[":
                self._array(path)
            case "{":
                self._inline_table(path)
            case '"' | "'":
                self._next(QUOTED)
            case _:
                self._next(PLAIN)

    def _array(self, path: Path) -> None:
        self._at += 1
        element = 0
        while self._text[self._next(BETWEEN)] != "]":
            if self._text[self._at] == ",":
                self._at += 1
                continue
            self.lines[*path, element] = self._line()
            self._value((*path, element))
            element += 1
        self._at += 1

    def _inline_table(self, path: Path) -> None:
        self._at += 1
        while self._text[self._next(BETWEEN)] != "}":
            if self._text[self._at] == ",":
                self._at += 1
                continue
            self._assignment(path)
        self._at += 1

    def _line(self) -> int:
        return bisect_right(self._starts, self._at)
