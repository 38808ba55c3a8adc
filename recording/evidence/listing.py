"""What lies on a shelf, host by host, although more is put there and some of it goes while that is found out.

What lives here: lists that agree with themselves, and whether something went. What must not: what is in the files.

A list takes time, of a large bucket minutes, and shows some of what comes meanwhile and not the rest. So two are made; heads
are those of the first: what a head names was there before it, and is in the second.
"""

from __future__ import annotations

import errno
from collections.abc import Collection, Iterable, Iterator
from itertools import groupby
from pathlib import Path
from uuid import UUID

from capd.recording.bucket.errors import ObjectMissingError
from capd.recording.errors import CapdError, StateDirectoryError
from capd.recording.evidence.shelf import Item, Shelf, host_of, is_sealed, name_of
from capd.recording.heads import number_of as head_number
from capd.recording.segment.layout import sequence_of


def by_host(shelf: Shelf) -> dict[UUID | None, list[Item]]:
    """Give all that was there at one moment, and of what came after that what follows it without a hole.

    Raises:
        CapdError: it cannot be read.
    """
    heads: set[str] = set()
    newest: dict[UUID | None, int] = {}
    for item in shelf.list():
        host, number = host_of(item.key), sealed_number(item)
        if number is not None:
            newest[host] = max(number, newest.get(host, 0))
        elif head_number(name_of(item.key)) is not None:
            heads.add(item.key)
    groups: dict[UUID | None, list[Item]] = {}
    for item in shelf.list():
        if head_number(name_of(item.key)) is None or item.key in heads:
            groups.setdefault(host_of(item.key), []).append(item)
    return {host: list(_without_later(items, newest.get(host, 0))) for host, items in groups.items()}


def sealed_number(item: Item) -> int | None:
    """Give the number of a sealed segment by its name; None of anything else."""
    name = name_of(item.key)
    return sequence_of(Path(name)) if is_sealed(name) else None


def went(error: CapdError) -> bool:
    """Tell whether an error says that something is not there any more."""
    return isinstance(error, ObjectMissingError) or (isinstance(error, StateDirectoryError) and error.errno == errno.ENOENT)


def in_a_row(numbers: Iterable[int]) -> Iterator[tuple[int, int]]:
    """Give first and last of the numbers that follow each other."""
    for _, pairs in groupby(enumerate(numbers), lambda pair: pair[1] - pair[0]):
        together = [number for _, number in pairs]
        yield together[0], together[-1]


def _without_later(items: Collection[Item], newest: int) -> Iterable[Item]:
    """Leave out the segments before which one is missing that may have come when its place in the list had been passed."""
    late = sorted({number for item in items if (number := sealed_number(item)) is not None and number > newest})
    first, last = next(in_a_row(late), (0, 0))
    through = last if not newest or first == newest + 1 else newest
    return (item for item in items if (sealed_number(item) or 0) <= through)
