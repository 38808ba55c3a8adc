"""The decision log's files, read on from where they were left; the recorder may read them, and nothing else.

What lives here: which file, from where, how much at a time, what is damaged. What must not: what entries mean.

A writer's files are read in the order of their numbers, each to its end; a later one there is proof that the one before is
whole. What cannot be read is put aside and counted, and the next file goes on. Nothing here knows how much of it is stored:
positions go into the recorder's memory together with the state that they led to.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from capd.enforcer.decision_log import FILE_BYTES_MAX, MAGIC, DamagedFrameError, frames
from capd.recording.durable import open_regular, replace_content

READ_BYTES_MAX: Final = 1 << 20
"""At a time of one file: some thousand entries, and more than the largest."""
FILES_MAX: Final = 4_096
"""Looked at; more than a machine's processors have by themselves. Further ones wait, and that is counted."""
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


@dataclass(slots=True, kw_only=True)
class Places:
    """Everything that has to be remembered of the files.

    Attributes:
        files: by name.
        counts: of damage.
    """

    files: dict[str, Place] = field(default_factory=dict)
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
            del self.places.files[gone]
            self._sizes.pop(gone, None)

    def done(self) -> list[str]:
        """Give the files that hold nothing more: those whose writer has begun another."""
        names = sorted(self.places.files)
        newest = {writer_of(name): name for name in names}
        return [
            name
            for name in names
            if newest[writer_of(name)] != name
            and (
                self.places.files[name].damaged or self.places.files[name].offset >= self._sizes.get(name, FILE_BYTES_MAX << 1)
            )
        ]

    def _names(self) -> list[str]:
        try:
            found = sorted(entry.name for entry in os.scandir(self._directory) if writer_of(entry.name) is not None)
        except OSError:  # not there before the first enforcer
            return []
        return found[:FILES_MAX]

    def _read(self, name: str, now_ns: int, *, last: bool) -> Iterator[tuple[str, bytes]]:
        path = self._directory / name
        place = self.places.files.get(name)
        try:
            with os.fdopen(open_regular(path), "rb") as file:
                found = os.fstat(file.fileno())
                if place is None or place.inode != found.st_ino or found.st_size < place.offset:
                    place = self.places.files[name] = Place(inode=found.st_ino, offset=0)
                self._sizes[name] = found.st_size
                if place.damaged or found.st_size <= place.offset:
                    return
                file.seek(place.offset)
                data = file.read(READ_BYTES_MAX)
                self.behind = self.behind or len(data) == READ_BYTES_MAX
        except OSError:
            self.places.counts.unreadable += 1
            return
        yield from self._entries(name, place, data, now_ns, whole=not last and place.offset + len(data) >= found.st_size)

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


def writer_of(name: str) -> str | None:
    """Give the writer of a file; None: it is no file of the log."""
    stem, dot, suffix = name.rpartition(".")
    writer, dash, number = stem.rpartition("-")
    ours = bool(dot and dash and writer) and suffix == "log" and number.isascii() and number.isdigit()
    return writer if ours and writer.isascii() and writer.isalnum() else None
