"""A place that is masked, and the filler that stands in it.

What lives here: the fact that a place is, filling, joining neighbours. What must not: why a place is masked.

The filler has the length of what it hides, so that every position in a stream stays true. It tells nothing of the value but
its length: no hash, no first or last digits, because what is masked is often short enough to be guessed.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, NamedTuple

FILLER: Final = b"*"
FILLER_TEXT: Final = "*"


class Place(NamedTuple):
    """A place that is masked.

    Attributes:
        start, end: offsets in whatever the place is in: a stream, a value.
        kind: what was there: `credential`, `cookie`, `secret`, `identifier`, `json`, `column`, or why nobody can say:
            `compressed`, `undecided`.
        rule: which rule hides it, in words: `header authorization`, `column ssn`.
    """

    start: int
    end: int
    kind: str
    rule: str

    def moved(self, by: int) -> Place:
        """Give the same place counted from elsewhere."""
        return Place(self.start + by, self.end + by, self.kind, self.rule)


def joined(places: Iterable[Place]) -> list[Place]:
    """Give the places in order, without overlaps; neighbours of one rule become one. The earlier of two that overlap stays."""
    result: list[Place] = []
    for place in sorted(places):
        if place.start >= place.end:
            continue
        last = result[-1] if result else None
        if last is None or place.start > last.end:
            result.append(place)
        elif place[2:] == last[2:]:
            result[-1] = last._replace(end=max(last.end, place.end))
        elif place.start == last.end:
            result.append(place)
        elif place.end > last.end:
            result.append(place._replace(start=last.end))
    return result


def filled(data: bytes, places: Iterable[Place], base: int = 0) -> bytes:
    """Give the bytes with the filler in every place.

    Args:
        data: the bytes.
        places: where; what is outside of the bytes is left out.
        base: offset of the first byte, in the places' own counting.
    """
    result = bytearray(data)
    for place in places:
        start, end = max(place.start - base, 0), min(place.end - base, len(data))
        if start < end:
            result[start:end] = FILLER * (end - start)
    return bytes(result)
