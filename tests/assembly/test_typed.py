"""Plain values back into types: what was written is read, and nothing else is taken for it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, NamedTuple
from uuid import UUID

import pytest

from capd.daemon.assembly.typed import read


class Point(NamedTuple):
    """A named tuple."""

    x: int
    y: int = 0


@dataclass(slots=True, kw_only=True)
class Inner:
    """A dataclass in another."""

    points: dict[tuple[int, bool], Point] = field(default_factory=dict)
    seen: set[int] = field(default_factory=set)


@dataclass(slots=True)
class Outer:
    """Everything that an annotation can be."""

    id: UUID
    inner: Inner | str | None
    pairs: list[tuple[int, bytes | None]]
    flags: tuple[bool, ...] = ()


IDENTITY = UUID(int=7)
WHOLE = {
    "id": IDENTITY.bytes,
    "inner": {"points": {(1, True): (2, 3)}, "seen": (4, 5)},
    "pairs": ((1, b"a"), (2, None)),
    "flags": (True, False),
}


def test_every_form_is_read() -> None:
    """Nested values come back in their types, lists as lists although they were given as tuples."""
    expected = Outer(IDENTITY, Inner(points={(1, True): Point(2, 3)}, seen={4, 5}), [(1, b"a"), (2, None)], (True, False))
    assert expected == read(Outer, WHOLE)
    assert Outer(IDENTITY, "gone", []) == read(Outer, {"id": IDENTITY.bytes, "inner": "gone", "pairs": []})


@pytest.mark.parametrize(
    "wrong",
    [
        {"id": b"short"},
        {"id": "text"},
        {"inner": 5},
        {"inner": {"unknown": 1}},
        {"inner": {"points": {(1, True): (2,)}}},
        {"inner": {"points": {(1, 2): (2, 3)}}},
        {"inner": {"seen": 4}},
        {"pairs": ((1, b"a", 2),)},
        {"pairs": ((1, "a"),)},
        {"pairs": {}},
        {"flags": (1,)},
        {"further": None},
    ],
)
def test_anything_else_is_refused(wrong: dict[str, Any]) -> None:
    """A value of another type, of another length, or under another name raises an error of two kinds only."""
    with pytest.raises((TypeError, ValueError)):
        read(Outer, {**WHOLE, **wrong})
    with pytest.raises((TypeError, ValueError)):
        read(Outer, {name: value for name, value in WHOLE.items() if name != "id"})
