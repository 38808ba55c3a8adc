"""Looks for credentials in what agents say and hear.

What lives here: finding some values in bytes, in all their forms (obligations/needle.py). What must not: sockets, whose bytes
they are. Whoever holds this holds the values.

One pass of a finite automaton over the beginnings of all forms says whether any can be there; what may be is looked at closely.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Final, NamedTuple

from capd.enforcer.masking.linear_matcher import linear_matcher
from capd.enforcer.obligations.needle import Alternatives, Needle, needles

HEAD_STEPS: Final = 12
"""Characters by which the automaton knows a form. The longest value has thousands, and an automaton of all would be large."""
BEGUN_STEPS: Final = 6
"""What is cut off behind fewer characters of a value is not taken for its beginning: other texts end so too."""
ESCAPE_BYTES_MAX: Final = 7
"""Of what may stand for one character (obligations/needle.py): `&#0126;`."""
KEPT_BYTES_MAX: Final = 16_384
"""Of a stream that are looked at again with what follows them; of forms that are longer, those over a cut are not found."""


class Hit(NamedTuple):
    """A value that was found.

    Attributes:
        start, end: where in the piece.
        name: of the credential.
    """

    start: int
    end: int
    name: str


class Search:
    """Looks for some values.

    Attributes:
        kept_bytes: how many last bytes of a piece have to be looked at again with those that follow.
    """

    def __init__(self, values: Sequence[tuple[str, str]]) -> None:
        """Take names and values: ASCII that can be printed."""
        self._needles: list[tuple[str, Needle]] = [(name, one) for name, value in values for one in needles(value)]
        self._may_hold = linear_matcher(self._patterns(HEAD_STEPS))
        self._may_begin = linear_matcher(self._patterns(BEGUN_STEPS))
        longest = max((needle.bytes_max for _, needle in self._needles), default=1)
        self.kept_bytes = min(longest - 1, KEPT_BYTES_MAX)

    def __repr__(self) -> str:
        return f"Search({len(self._needles)} forms)"

    def find(self, data: bytes) -> list[Hit]:
        """Give where values are, in any form; several forms may find the same place."""
        return list(self._found(data)) if self._may_hold(data) else []

    def begun(self, data: bytes) -> int:
        """Give where the first value begins that the data may end inside of; without any the data's length."""
        tail = data[max(0, len(data) - self.kept_bytes) :]
        if not self._may_begin(tail):
            return len(data)
        at = min((needle.first_begun(tail) for _, needle in self._needles), default=len(tail))
        return len(data) if len(tail) - at < BEGUN_STEPS else len(data) - len(tail) + at

    def _found(self, data: bytes) -> Iterator[Hit]:
        for name, needle in self._needles:
            at = 0
            while (place := needle.find(data, at)) is not None:
                yield Hit(*place, name)
                at = place[1]

    def _patterns(self, steps: int) -> list[str]:
        return sorted({"".join(_any_of(step) for step in needle.steps[:steps]) for _, needle in self._needles})


def _any_of(step: Alternatives) -> str:
    texts = [re.escape(one.decode("ascii")) for one in step]
    return texts[0] if len(texts) == 1 else f"(?:{'|'.join(texts)})"
