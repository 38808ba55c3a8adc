"""What a power cut leaves of a directory: everything that was synced, and of the rest whatever the disk had come to.

What lives here: a model of a file system that keeps no promise but fsync's. What must not: processes, formats.

A file's content is durable when the file was synced; a name is durable when its folder was. What was not synced is kept, lost,
cut in the middle, or there as zeros. Changes of names are lost from the end only: all together, as a file system with one log
loses them, or folder by folder.
"""

from __future__ import annotations

import random
import shutil
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path

from tests.soak.crashes.seam import Change


@dataclass(slots=True)
class _File:
    """A file: what is durable, and what was done since."""

    durable: bytes = b""
    since: list[Change] = field(default_factory=list)

    def survives(self, chance: random.Random) -> bytes:
        """Give what is left of it."""
        content = bytearray(self.durable)
        fate = chance.choice(["lost", "kept", "cut", "holes"])
        kept = {"lost": 0, "kept": len(self.since), "cut": chance.randint(0, len(self.since))}.get(fate, len(self.since))
        for number, change in enumerate(self.since[:kept]):
            if change.operation == "t":
                _resize(content, change.offset)
                continue
            data = change.data
            if fate == "cut" and number == kept - 1:
                data = data[: chance.randint(0, len(data))]
            elif fate == "holes" and chance.random() < 0.5:  # its size was written, its content was not
                data = bytes(len(data))
            _put(content, change.offset, data)
        return bytes(content)

    def sync(self) -> None:
        """Make everything durable."""
        content = bytearray(self.durable)
        for change in self.since:
            if change.operation == "t":
                _resize(content, change.offset)
            else:
                _put(content, change.offset, change.data)
        self.durable, self.since = bytes(content), []


class Disk:
    """Follows what is done to a directory, from when all in it was durable."""

    def __init__(self, directory: Path) -> None:
        """Look at what is there."""
        self._directory = directory
        self._files: dict[int, _File] = {}
        self._names: dict[Path, int] = {}
        self._folders = {path for path in directory.rglob("*") if path.is_dir()}
        self._since: list[Change] = []
        self._durable: set[int] = set()
        self._current: dict[int, int] = {}
        """The file that has an inode's number now: numbers are used again."""
        for path in directory.rglob("*"):
            if path.is_file():
                self._names[path] = self._new(path.stat().st_ino)
                self._files[self._names[path]].durable = path.read_bytes()

    def _new(self, inode: int) -> int:
        self._current[inode] = number = len(self._files)
        self._files[number] = _File()
        return number

    def follow(self, changes: Iterable[Change]) -> None:
        """Take note of what was done."""
        for change in changes:
            if not change.path.is_relative_to(self._directory):
                continue
            match change.operation:
                case "c":
                    self._since.append(replace(change, inode=self._new(change.inode)))
                case "w" | "t":
                    self._files[self._current[change.inode]].since.append(change)
                case "s":
                    self._sync(change)
                case "m" | "u":
                    self._since.append(change)
                case _:
                    self._since.append(replace(change, inode=self._current[change.inode]))

    def _sync(self, change: Change) -> None:
        if change.inode in self._current:
            self._files[self._current[change.inode]].sync()
        else:
            self._durable |= {
                number for number, done in enumerate(self._since) if change.path in {done.path.parent, done.target.parent}
            }

    def cut(self, chance: random.Random) -> None:
        """Leave in the directory what a power cut now would have left."""
        names = dict(self._names)
        folders = set(self._folders)
        for number in self._kept(chance):
            _apply(self._since[number], names, folders)
        contents = {path: self._files[inode].survives(chance) for path, inode in names.items() if path.parent in folders}
        contents |= {
            path: self._files[inode].survives(chance) for path, inode in names.items() if path.parent == self._directory
        }
        for entry in self._directory.iterdir():
            shutil.rmtree(entry) if entry.is_dir() else entry.unlink()
        for folder in sorted(folders):
            folder.mkdir(parents=True, exist_ok=True)
        for path, content in contents.items():
            path.write_bytes(content)
        self.__init__(self._directory)  # type: ignore[misc] # after a cut what is there is durable

    def _kept(self, chance: random.Random) -> list[int]:
        """Choose the changes of names that survive."""
        if chance.random() < 0.5:
            end = chance.randint(max(self._durable, default=-1) + 1, len(self._since))
            return list(range(end))
        ends: dict[Path, int] = {}
        kept = []
        for number, change in enumerate(self._since):
            folder = change.path.parent
            if folder not in ends:
                mine = [at for at, done in enumerate(self._since) if done.path.parent == folder]
                synced = max((at for at in mine if at in self._durable), default=-1)
                ends[folder] = chance.choice([synced, *(at for at in mine if at > synced)])
            if number <= ends[folder]:
                kept.append(number)
        return kept


def _apply(change: Change, names: dict[Path, int], folders: set[Path]) -> None:
    match change.operation:
        case "c" | "l":
            names[change.target if change.operation == "l" and change.target != Path() else change.path] = change.inode
        case "r":
            names.pop(change.path, None)
            names[change.target] = change.inode
        case "u":
            names.pop(change.path, None)
        case "m":
            folders.add(change.path)


def _resize(content: bytearray, size: int) -> None:
    del content[size:]
    content += bytes(size - len(content))


def _put(content: bytearray, offset: int, data: bytes) -> None:
    content += bytes(max(0, offset - len(content)))
    content[offset : offset + len(data)] = data
