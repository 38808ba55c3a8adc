"""The segments on this host, as the shipper sees them: what has to go, what may be let go.

What lives here: finding sealed segments, the choice of local copies to remove, and what the shipper remembers of both. What
must not: the bucket; what is in a segment behind its header.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final
from uuid import UUID

from capd.recording.bucket.layout import SegmentKey
from capd.recording.durable import open_regular, read_regular, replace_content
from capd.recording.segment.layout import (
    SEALED_SUFFIX,
    FileHeader,
    MalformedSegmentError,
    NewerSegmentError,
    sealed_path,
    sequence_of,
)

HEADER_BYTES_MAX: Final = 1 << 16
"""Of a segment's beginning: its header, and what wraps its key for all who may read it."""
MEMORY_BYTES_MAX: Final = 1 << 22


@dataclass(frozen=True, slots=True, kw_only=True)
class Sealed:
    """A sealed segment on this host.

    Attributes:
        sequence: its number.
        path: the file.
        size: its length.
        created_ns: when it was begun: nothing in it is much older.
        key: what it is called in the bucket.
    """

    sequence: int
    path: Path
    size: int
    created_ns: int
    key: str


class UnshippableError(Exception):
    """A file has a segment's name and is none, or of a later version: it stays where it is, and is told."""


def sequences(directory: Path) -> list[int]:
    """Give the numbers of the sealed segments, in order.

    Raises:
        OSError: the directory cannot be read.
    """
    found = (sequence_of(Path(name)) for name in os.listdir(directory) if name.endswith(SEALED_SUFFIX))  # noqa: PTH208 - names only
    return sorted(sequence for sequence in found if sequence is not None)


def look_at(directory: Path, sequence: int) -> Sealed:
    """Give what is needed to ship a segment.

    Raises:
        UnshippableError: it is no segment.
        OSError: it cannot be read.
    """
    path = sealed_path(directory, sequence)
    with os.fdopen(open_regular(path), "rb") as file:
        size = os.fstat(file.fileno()).st_size
        beginning = file.read(HEADER_BYTES_MAX)
    try:
        header = FileHeader.parse(beginning)
    except (MalformedSegmentError, NewerSegmentError) as error:
        raise UnshippableError(f"{path.name}: {error}") from error
    if header.sequence != sequence:
        raise UnshippableError(f"{path.name}: its header says segment {header.sequence}")
    key = SegmentKey.of(header.host, sequence, header.created_ns)
    return Sealed(sequence=sequence, path=path, size=size, created_ns=header.created_ns, key=str(key))


@dataclass(frozen=True, slots=True, kw_only=True)
class Copy:
    """A local copy that the bucket has too.

    Attributes:
        sequence: its number.
        size: its length.
        sealed_ns: when it was sealed.
    """

    sequence: int
    size: int
    sealed_ns: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """How long local copies stay.

    Attributes:
        age_ns_max: how old they get; None: any age.
        bytes_max: how much they take together; None: any amount.
        free_bytes_min: they go while less is free.
    """

    age_ns_max: int | None
    bytes_max: int | None
    free_bytes_min: int


def to_release(
    copies: Sequence[Copy],
    limits: Limits,
    *,
    shipped: Callable[[int], bool],
    now_ns: int,
    free_bytes: int,
    hot_ns: Callable[[int], int | None] = lambda _sequence: None,
    needed: int | None = None,
) -> Iterator[Copy]:
    """Choose the copies to remove: the oldest first, without a hole, and none that the bucket may not have.

    The newest stays whatever the limits say: its number and hash are what the recorder goes on from.

    Args:
        copies: all sealed segments of this host, by number.
        limits: how long they stay.
        shipped: whether the bucket was found to hold a segment.
        now_ns: wall time.
        free_bytes: on the file system.
        hot_ns: how old the copy of a segment gets by its retention class; None: as the limits say.
        needed: number from which on the recorder may read them again; None: none.
    """
    total = sum(copy.size for copy in copies)
    for copy in copies[:-1]:
        hot = hot_ns(copy.sequence)
        age_ns_max = limits.age_ns_max if hot is None else hot
        old = age_ns_max is not None and now_ns - copy.sealed_ns > age_ns_max
        many = limits.bytes_max is not None and total > limits.bytes_max
        if not (old or many or free_bytes < limits.free_bytes_min) or not shipped(copy.sequence):
            return
        if needed is not None and copy.sequence >= needed:
            return
        yield copy
        total -= copy.size
        free_bytes += copy.size


@dataclass(slots=True)
class Memory:
    """What was found to be in the bucket: a cache, which the list of the bucket and its checksums can make again.

    Attributes:
        path: where it is kept.
        bucket, host: what it is about; with others it says nothing.
        through: every segment up to this number is in the bucket, or no longer on this host.
        above: numbers of later ones that are in the bucket.
        head: number of the newest head that was brought.
        released: how many local copies were removed.
        released_bytes: and their length.
    """

    path: Path
    bucket: str
    host: UUID
    through: int = 0
    above: set[int] = field(default_factory=set)
    head: int = 0
    released: int = 0
    released_bytes: int = 0

    def load(self) -> None:
        """Remember, if what was written is about the same bucket and host; a file that is damaged is as good as none."""
        try:
            found = json.loads(read_regular(self.path, MEMORY_BYTES_MAX))
            if (found["bucket"], found["host"]) == (self.bucket, str(self.host)):
                self.through, self.above = int(found["through"]), {int(number) for number in found["above"]}
                self.head = int(found["head"])
                self.released, self.released_bytes = int(found["released"]), int(found["released_bytes"])
        except (OSError, ValueError, KeyError, TypeError, RecursionError):
            return

    def save(self) -> None:
        """Write it down; it need not survive a power cut.

        Raises:
            OSError: it cannot be written.
        """
        content = {
            "bucket": self.bucket,
            "host": str(self.host),
            "through": self.through,
            "above": sorted(self.above),
            "head": self.head,
            "released": self.released,
            "released_bytes": self.released_bytes,
        }
        replace_content(self.path, json.dumps(content).encode(), sync=False)

    def has(self, sequence: int) -> bool:
        """Tell whether a segment is known to be in the bucket."""
        return sequence <= self.through or sequence in self.above

    def overtook(self, sequence: int) -> bool:
        """Tell whether a later segment is known to be in the bucket: one that is not there is more than late."""
        return sequence < max(self.through, *self.above, 0)

    @property
    def settled(self) -> int:
        """How many segments are in the bucket, or no longer on this host: it changes with every one that comes."""
        return self.through + len(self.above)

    def confirmed(self, sequence: int) -> None:
        """Count a segment that is in the bucket."""
        self.above.add(sequence)

    def settle(self, local: Sequence[int]) -> list[int]:
        """Shorten the memory by what is on this host; give the segments that still have to go, in order."""
        if local and local[-1] < self.through:  # the newest always stays: these are numbers that are used for the second time
            self.through, self.above = 0, set()
        waiting = [sequence for sequence in local if not self.has(sequence)]
        self.advance(waiting[0] - 1 if waiting else max((self.through, *local[-1:], *self.above)))
        return waiting

    def advance(self, through: int) -> None:
        """Count everything up to a number as being in the bucket or gone."""
        self.through = max(self.through, through)
        self.above = {sequence for sequence in self.above if sequence > self.through}

    def doubt(self, sequence: int) -> None:
        """Forget that a segment, and those after it, are in the bucket: it was looked for and not found."""
        self.through = min(self.through, sequence - 1)
        self.above = set()
