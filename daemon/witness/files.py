"""The decision log's files, read on from where they were left; the recorder may read them, and nothing else.

What lives here: which file, from where, how much at a time, what is damaged. What must not: what entries mean.

A writer's files are read in the order of their numbers, each to its end; a later one there is proof that the one before is
whole. What cannot be read is put aside and counted, and the next file goes on. So are files that are gone before they were
read: their numbers are missing. Nothing here knows how much of it is stored: positions go into the recorder's memory together
with the state that they led to.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import groupby, islice
from pathlib import Path
from typing import Final

from capd.enforcer.decision_log import FILE_BYTES_MAX, MAGIC, DamagedFrameError, frames
from capd.recording.durable import open_regular, replace_content

READ_BYTES_MAX: Final = 1 << 20
"""At a time of one file: some thousand entries, and more than the largest."""
FILES_MAX: Final = 1_024
"""Of one writer, looked at, the oldest first; the others wait until those are read and gone."""
WRITERS_MAX: Final = 4_096
"""More than a machine has processors."""
DONE_MAX: Final = 2_048
"""Files that are told of at a time: the writer reads a list of limited size, and gets the next ones afterwards."""
QUARANTINED_BYTES_MAX: Final = 16 << 20
"""Of damage that is kept, in all: it is evidence, and whoever damages a log must not fill the disk."""


@dataclass(slots=True, kw_only=True)
class Place:
    """How far a file was read.

    Attributes:
        inode: of the file, for another one may come to have its name.
        offset: bytes.
        damaged: nothing more of it can be read.
    """

    inode: int
    offset: int
    damaged: bool = False


@dataclass(slots=True, kw_only=True)
class Counts:
    """What went wrong with files, since the state directory is there."""

    damages: int = 0
    damaged_bytes: int = 0
    quarantined_bytes: int = 0
    unreadable: int = 0
    damaged_ns: int | None = None
    missing_files: int = 0
    missing_ns: int | None = None


@dataclass(slots=True, kw_only=True)
class Places:
    """Everything that has to be remembered of the files.

    Attributes:
        files: by name.
        numbers: of the newest file that was looked into, by writer.
        counts: of damage.
    """

    files: dict[str, Place] = field(default_factory=dict)
    numbers: dict[str, int] = field(default_factory=dict)
    counts: Counts = field(default_factory=Counts)


class DecisionFiles:
    """Reads all writers' files."""

    def __init__(self, directory: Path, quarantine: Path, places: Places | None = None) -> None:
        """Take the places of an earlier recorder, or begin at the beginning."""
        self._directory, self._quarantine = directory, quarantine
        self.places = places or Places()
        self._sizes: dict[str, int] = {}
        self.behind = False
        """Some file has more than was read at the last look."""
        self._lost: list[str] = []

    def lost(self) -> list[str]:
        """Give the writers of whose entries some cannot be read any more, found since the last call."""
        lost, self._lost = self._lost, []
        return lost

    def read(self, now_ns: int) -> Iterator[tuple[str, bytes]]:
        """Give what was added: a key for each entry that no other has, and its bytes; at most READ_BYTES_MAX of each file.

        The place of a file moves as its entries are taken.
        """
        self.behind = False
        names = self._names()
        newest = {writer_of(name): name for name in names}
        for name in names:
            yield from self._read(name, now_ns, last=newest[writer_of(name)] == name)
        for gone in self.places.files.keys() - set(names):
            if not (self._directory / gone).exists():
                del self.places.files[gone]
                self._sizes.pop(gone, None)

    def done(self) -> list[str]:
        """Give the files that hold nothing more, the oldest first: those whose writer has begun another."""
        names = sorted(self.places.files)
        newest = {writer_of(name): name for name in names}
        found = [
            name
            for name in names
            if newest[writer_of(name)] != name
            and (
                self.places.files[name].damaged or self.places.files[name].offset >= self._sizes.get(name, FILE_BYTES_MAX << 1)
            )
        ]
        return found[:DONE_MAX]

    def _names(self) -> list[str]:
        try:
            found = sorted(entry.name for entry in os.scandir(self._directory) if writer_of(entry.name) is not None)
        except OSError:  # not there before the first enforcer
            return []
        by_writer = [list(islice(names, FILES_MAX)) for _, names in groupby(found, writer_of)]
        return [name for names in by_writer[:WRITERS_MAX] for name in names]

    def _read(self, name: str, now_ns: int, *, last: bool) -> Iterator[tuple[str, bytes]]:
        path = self._directory / name
        place = self.places.files.get(name)
        try:
            with os.fdopen(open_regular(path), "rb") as file:
                found = os.fstat(file.fileno())
                if place is None or place.inode != found.st_ino:
                    self._follow(name, now_ns, replaced=place is not None)
                    place = self.places.files[name] = Place(inode=found.st_ino, offset=0)
                self._sizes[name] = found.st_size
                if found.st_size < place.offset and not place.damaged:
                    self._damaged(name, place, b"", now_ns)
                if place.damaged or found.st_size <= place.offset:
                    return
                file.seek(place.offset)
                data = file.read(READ_BYTES_MAX)
                self.behind = self.behind or len(data) == READ_BYTES_MAX
        except OSError:
            self.places.counts.unreadable += 1
            return
        yield from self._entries(name, place, data, now_ns, whole=not last and place.offset + len(data) >= found.st_size)

    def _follow(self, name: str, now_ns: int, *, replaced: bool) -> None:
        """Begin a file. Where it is not the one after the last one of its writer, others are gone unread."""
        writer, number = writer_of(name) or "", _number(name)
        before = self.places.numbers.get(writer, 0)
        self.places.numbers[writer] = number
        if number != before + 1 or replaced:
            self.places.counts.missing_files += max(number - before - 1, 1)
            self.places.counts.missing_ns = now_ns
            self._lost.append(writer)

    def _entries(self, name: str, place: Place, data: bytes, now_ns: int, *, whole: bool) -> Iterator[tuple[str, bytes]]:
        start, at = place.offset, 0
        if start == 0:
            if len(data) < len(MAGIC) and not whole:
                return
            if not data.startswith(MAGIC):
                self._damaged(name, place, data, now_ns)
                return
            at = place.offset = len(MAGIC)
        try:
            for end, body in frames(data, at):
                place.offset = start + end
                at = end
                yield f"{name}:{place.offset}", body
        except DamagedFrameError:
            self._damaged(name, place, data[at:], now_ns)
            return
        if whole and at < len(data):
            self._damaged(name, place, data[at:], now_ns)

    def _damaged(self, name: str, place: Place, data: bytes, now_ns: int) -> None:
        """Put aside what cannot be read. Entries may follow it that nobody can find: lengths alone lead to them."""
        counts = self.places.counts
        counts.damages += 1
        self._lost.append(writer_of(name) or "")
        counts.damaged_ns = now_ns
        counts.damaged_bytes += len(data)
        place.damaged = True
        room = QUARANTINED_BYTES_MAX - counts.quarantined_bytes
        if room > 0:
            kept = data[: min(room, FILE_BYTES_MAX)]
            counts.quarantined_bytes += len(kept)
            try:
                replace_content(self._quarantine / f"{name}.{place.offset}.damaged", kept, mode=0o640)
            except OSError:
                counts.unreadable += 1


def _number(name: str) -> int:
    return int(name.rpartition(".")[0].rpartition("-")[2])


def writer_of(name: str) -> str | None:
    """Give the writer of a file; None: it is no file of the log."""
    stem, dot, suffix = name.rpartition(".")
    writer, dash, number = stem.rpartition("-")
    ours = bool(dot and dash and writer) and suffix == "log" and number.isascii() and number.isdigit()
    return writer if ours and writer.isascii() and writer.isalnum() else None
