"""What an operator's pattern needs: for the prefilter, and at the end of what has arrived.

What lives here: reading that off the pattern. What must not: which patterns are allowed (patterns.py), looking.

The prefilter is another engine, with another syntax (`[a&&b]` is an intersection there), which is shown bytes without those
beyond ASCII (linear_matcher.py). So it is never given the pattern itself.
"""

from __future__ import annotations

import re
import re._constants as codes  # type: ignore[import-not-found]  # as in patterns.py
import re._parser as parser  # type: ignore[import-not-found]
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from typing import Final, cast

from capd.enforcer.masking.patterns import LENGTH_MAX

_Tree = Iterable[tuple[object, object]]
_ALL: Final = frozenset(range(256))
_ASCII: Final = 0x80
_CLASSES: Final = {
    codes.CATEGORY_DIGIT: rb"\d",
    codes.CATEGORY_NOT_DIGIT: rb"\D",
    codes.CATEGORY_SPACE: rb"\s",
    codes.CATEGORY_NOT_SPACE: rb"\S",
    codes.CATEGORY_WORD: rb"\w",
    codes.CATEGORY_NOT_WORD: rb"\W",
}


@dataclass(frozen=True, slots=True)
class Needs:
    """What a part of a pattern needs.

    Attributes:
        trigger: a pattern of the prefilter that is in all that the part matches, once bytes beyond ASCII are gone.
        first: the bytes with which it can begin.
        alphabet: the bytes that it can have.
        nothing: whether it can match nothing at all.
    """

    trigger: str
    first: frozenset[int]
    alphabet: frozenset[int]
    nothing: bool


_NOTHING: Final = Needs("", frozenset(), frozenset(), nothing=True)


@lru_cache(maxsize=256)
def needs(pattern: str) -> Needs:
    """Give what a pattern needs, which was found to be allowed."""
    return _of(parser.parse(pattern.encode(), 0))


def unfinished(needed: Needs, tail: bytes) -> int:
    """Give where in the last bytes something begins that could become a match if more came; else their length."""
    reach = tail[-LENGTH_MAX:]
    run = reach[len(reach.rstrip(bytes(needed.alphabet))) :]
    return len(tail) - len(run.lstrip(bytes(_ALL - needed.first)))


def _of(tree: _Tree) -> Needs:
    found = _NOTHING
    for code, value in tree:
        one = _of_one(code, value)
        found = Needs(
            trigger=found.trigger + one.trigger,
            first=found.first | one.first if found.nothing else found.first,
            alphabet=found.alphabet | one.alphabet,
            nothing=found.nothing and one.nothing,
        )
    return found


def _of_one(code: object, value: object) -> Needs:
    if code is codes.AT:
        return _NOTHING  # what is beside it is another byte when those beyond ASCII are gone
    if code is codes.SUBPATTERN:
        return _of(cast("tuple[int | None, int, int, _Tree]", value)[3])
    if code is codes.BRANCH:
        branches = [_of(branch) for branch in cast("tuple[None, list[_Tree]]", value)[1]]
        return Needs(
            trigger=f"(?:{'|'.join(branch.trigger for branch in branches)})",
            first=frozenset().union(*(branch.first for branch in branches)),
            alphabet=frozenset().union(*(branch.alphabet for branch in branches)),
            nothing=any(branch.nothing for branch in branches),
        )
    if code in (codes.MAX_REPEAT, codes.MIN_REPEAT):
        least, most, inside = cast("tuple[int, int, _Tree]", value)
        once = _of(inside)
        trigger = f"(?:{once.trigger}){{{least},{most}}}" if once.trigger else ""
        return Needs(trigger, once.first, once.alphabet, nothing=once.nothing or least == 0)
    found = _bytes(code, value)
    known = "".join(f"\\x{byte:02x}" for byte in sorted(found) if byte < _ASCII)
    optional = "?" if max(found, default=0) >= _ASCII else ""
    return Needs(f"[{known}]{optional}" if known else "", found, found, nothing=False)


def _bytes(code: object, value: object) -> frozenset[int]:
    """Give the bytes that a part of one byte matches."""
    if code is codes.LITERAL:
        return frozenset({cast("int", value)})
    if code is codes.NOT_LITERAL:
        return _ALL - {cast("int", value)}
    if code is codes.RANGE:
        low, high = cast("tuple[int, int]", value)
        return frozenset(range(low, high + 1))
    if code is codes.CATEGORY:
        inside = re.compile(_CLASSES[value])
        return frozenset(byte for byte in _ALL if inside.match(bytes([byte])))
    if code is codes.ANY:
        return _ALL - set(b"\n")
    parts = cast("list[tuple[object, object]]", value)
    found: frozenset[int] = frozenset().union(*(_bytes(*part) for part in parts if part[0] is not codes.NEGATE))
    return _ALL - found if parts[0][0] is codes.NEGATE else found
