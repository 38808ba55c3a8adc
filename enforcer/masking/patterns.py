r"""Patterns that an operator writes: what of regular expressions is allowed, so that none can take long.

What lives here: the check. What must not: our own patterns, which do not need it.

Allowed are literals, character classes, groups, alternatives, `\b`, and repetition with an upper limit. A pattern with so
many ways to match the same bytes that trying them all takes long is refused: the number of ways is computed before it is
ever used.
"""

from __future__ import annotations

import re
import re._constants as codes  # type: ignore[import-not-found]  # the parser that `re` itself uses; there is no public one
import re._parser as parser  # type: ignore[import-not-found]  # as above
from collections.abc import Iterable
from typing import Final, cast

REPEAT_MAX: Final = 256
LENGTH_MAX: Final = 320
"""Bytes that one match may have; openings wait for as many at the end of what has arrived."""
WAYS_MAX: Final = 4_096
"""Ways in which a pattern may try to match at one place."""
_BYTES_FLAGS: Final = 0
EXPONENT_MAX: Final = 12
"""More repetitions of what can match in two ways are far too many already."""
_Tree = Iterable[tuple[object, object]]
_ONE_BYTE: Final = frozenset({codes.LITERAL, codes.NOT_LITERAL, codes.IN, codes.ANY, codes.CATEGORY, codes.RANGE})


class UnsafePatternError(ValueError):
    """The pattern is wrong, or might take long."""


def check(pattern: str) -> None:
    """Check a pattern.

    Raises:
        UnsafePatternError: it is not allowed; the message says why.
    """
    if not pattern.isascii():
        raise UnsafePatternError("only ASCII may stand in a pattern; write other bytes as \\x..")
    try:
        tree = parser.parse(pattern.encode(), 0)
        compiled = re.compile(pattern.encode())
        if tree.state.flags & ~_BYTES_FLAGS:
            raise UnsafePatternError("flags are not allowed")
    except (re.error, OverflowError, RecursionError) as error:
        raise UnsafePatternError(f"not a regular expression: {error}") from error
    if compiled.match(b""):
        raise UnsafePatternError("it matches nothing at all, which is everywhere")
    if compiled.groupindex:
        raise UnsafePatternError("named groups are not allowed")
    if tree.getwidth()[1] > LENGTH_MAX:
        raise UnsafePatternError(f"it can match more than {LENGTH_MAX} bytes; give each repetition an upper limit, {{8,64}}")
    if _ways(tree) > WAYS_MAX:
        raise UnsafePatternError("it can match the same bytes in too many ways; use fewer or shorter repetitions")


def _ways(tree: _Tree) -> int:
    ways = 1
    for code, value in tree:
        ways *= _ways_of(code, value)
        if ways > WAYS_MAX:
            return ways
    return ways


def _ways_of(code: object, value: object) -> int:
    if code in _ONE_BYTE:
        return 1
    if code is codes.AT:
        if value not in (codes.AT_BOUNDARY, codes.AT_NON_BOUNDARY):
            raise UnsafePatternError("^, $, \\A and \\Z have no meaning in a stream")
        return 1
    if code is codes.SUBPATTERN:
        _, added, removed, inside = cast("tuple[int | None, int, int, _Tree]", value)
        if added or removed:
            raise UnsafePatternError("flags are not allowed")
        return _ways(inside)
    if code is codes.BRANCH:
        return sum(_ways(branch) for branch in cast("tuple[None, list[_Tree]]", value)[1])
    if code in (codes.MAX_REPEAT, codes.MIN_REPEAT):
        least, most, inside = cast("tuple[int, int, _Tree]", value)
        if most > REPEAT_MAX:
            raise UnsafePatternError(f"a repetition needs an upper limit of at most {REPEAT_MAX}")
        once = _ways(inside)
        return (most - least + 1) * (once if once == 1 else once ** min(most, EXPONENT_MAX))
    raise UnsafePatternError(f"{str(code).lower().replace('_', ' ')} is not allowed")
