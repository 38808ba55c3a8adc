"""Values searched for in many megabytes: files, where a part of six bytes may be there by chance.

What lives here: finding whole values, and long parts of them. What must not: which files (tests/e2e/searched.py).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

WORD_BYTES = 8
PART_BYTES_MIN = 12
"""Of a value, or all of it where it has fewer: as text, a part of six bytes of a number is in any file with times."""
KINDS_MIN = 3
"""Of bytes in a word: zeros are everywhere."""


class Sought:
    """All that is searched for."""

    def __init__(self, shapes: Iterable[tuple[str, bytes]]) -> None:
        """Take names and forms of values; those of less than a word are passed over."""
        self._words: dict[int, list[tuple[str, bytes, int]]] = {}
        for name, shape in shapes:
            for at in range(len(shape) - WORD_BYTES + 1):
                word = shape[at : at + WORD_BYTES]
                if len(set(word)) >= KINDS_MIN:
                    self._words.setdefault(_number(word), []).append((name, shape, at))
        self._all = frozenset(self._words)

    def found_in(self, data: bytes) -> set[str]:
        """Give the names of values that are in some bytes, wherever in them they begin."""
        found: set[str] = set()
        for start in range(WORD_BYTES):
            whole = data[start : start + (len(data) - start) // WORD_BYTES * WORD_BYTES]
            words = memoryview(whole).cast("Q")
            if not self._all.isdisjoint(words):
                found.update(self._certain(data, start, words))
        return found

    def _certain(self, data: bytes, start: int, words: Iterable[int]) -> Iterator[str]:
        """Give those of which enough stands around words that were found."""
        for index, word in enumerate(words):
            for name, shape, at in self._words.get(word, ()):
                place = start + index * WORD_BYTES
                if _alike(data, place, shape, at) >= min(PART_BYTES_MIN, len(shape)):
                    yield name


def _number(word: bytes) -> int:
    return memoryview(word).cast("Q")[0]


def _alike(data: bytes, place: int, shape: bytes, at: int) -> int:
    """Count the bytes around a place that are those of a shape around another."""
    first, last = 0, WORD_BYTES
    while at - first and place - first and data[place - first - 1] == shape[at - first - 1]:
        first += 1
    while at + last < len(shape) and place + last < len(data) and data[place + last] == shape[at + last]:
        last += 1
    return first + last
