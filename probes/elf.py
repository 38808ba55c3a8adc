"""Reads what the attach planner needs of an ELF file: symbols, segments, relocations, bytes at an address.

What lives here: the format (System V ABI, ELF-64, x86-64 supplement), bounded. What must not: which functions matter. Files
come from agents: every offset is checked, nothing is read beyond the named limits, and nothing is mapped: who cuts a file short
that is mapped here would end the daemon by SIGBUS.
"""

from __future__ import annotations

import errno
import os
import struct
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

MAGIC: Final = b"\x7fELF\x02\x01"
MACHINE_X86_64: Final = 62
HEADER_BYTES: Final = 64
POINTER_BYTES: Final = 8
SECTIONS_MAX: Final = 4096
"""Linkers give some dozens; debug builds some hundreds."""
SYMBOLS_MAX: Final = 2_000_000
"""Chromium with its full symbol table has 1.2 million."""
RELOCATIONS_MAX: Final = 4_000_000
STRINGS_BYTES_MAX: Final = 256 << 20
"""Names of symbols that are looked through; Chromium's take half of it."""
PLACES_MAX: Final = 65_536
"""Places in a string table where a wanted name may begin; linkers write each name once, but others may end with it."""
SHT_SYMTAB, SHT_RELA, SHT_DYNSYM = 2, 4, 11
PT_LOAD: Final = 1
STT_FUNC, STT_GNU_IFUNC = 2, 10
R_X86_64_RELATIVE: Final = 8

_SECTION: Final = struct.Struct("<IIQQQQIIQQ")
_SEGMENT: Final = struct.Struct("<IIQQQQQQ")
_SYMBOL: Final = struct.Struct("<IBBHQQ")
_RELOCATION: Final = struct.Struct("<QQq")


SYMBOLS_AT_ONCE: Final = 1 << 16
SECONDS_MAX: Final = 3.0
"""For one file. Chromium with its full symbol table takes one; whoever asks the daemon for something waits as long."""
FIND_BYTES: Final = 1 << 20
"""Read at once while something is looked for."""


class MalformedElfError(Exception):
    """The file is not an x86-64 ELF file, or lies about its own layout."""


class TooLargeElfError(MalformedElfError):
    """Looking through the file takes longer than it may: it is huge, or was made to be."""


@dataclass(frozen=True, slots=True)
class Symbol:
    """A function: its virtual address and its size in bytes (0 when unknown)."""

    address: int
    size: int


@dataclass(frozen=True, slots=True)
class Section:
    """A section: type, virtual address, place in the file, and the section whose strings it uses."""

    name: int
    type: int
    address: int
    offset: int
    size: int
    link: int


class Content(Protocol):
    """A file's bytes, as far as they are asked for; `bytes` is one."""

    def __len__(self) -> int:
        """Give the size of all."""

    def __getitem__(self, part: slice, /) -> bytes:
        """Give a part; less, or nothing, where there is no more."""

    def find(self, wanted: bytes, start: int, end: int, /) -> int:
        """Give where something stands between two offsets, -1 if nowhere."""


class FileContent:
    """An open file's bytes, read when they are asked for; it may change or shrink meanwhile."""

    def __init__(self, descriptor: int, *, seconds: float = SECONDS_MAX, clock: Callable[[], float] = time.monotonic) -> None:
        """Take the file and its descriptor.

        Args:
            descriptor: of the file, which is closed with this object.
            seconds: how long it may take to look through it.
            clock: tells seconds.
        """
        self._descriptor = descriptor
        self._size = os.fstat(descriptor).st_size
        self._clock = clock
        self._deadline = clock() + seconds

    def __del__(self) -> None:
        """Close the file."""
        os.close(self._descriptor)

    def __len__(self) -> int:
        """Give the size that the file had when it was opened."""
        return self._size

    def __getitem__(self, part: slice, /) -> bytes:
        """Give a part; less, or nothing, where the file has no more.

        Raises:
            TooLargeElfError: its time is up.
        """
        if self._clock() > self._deadline:
            raise TooLargeElfError(f"it cannot be looked through in {SECONDS_MAX:.0f} s")
        start, end, _step = part.indices(self._size)
        return os.pread(self._descriptor, end - start, start) if start < end else b""

    def find(self, wanted: bytes, start: int, end: int, /) -> int:
        """Give where something stands between two offsets, -1 if nowhere."""
        end = min(end, self._size)
        while start + len(wanted) <= end:
            start = max(start, self._data_from(start) - len(wanted) + 1)
            held = self[start : min(start + FIND_BYTES + len(wanted) - 1, end)]
            place = held.find(wanted)
            if place >= 0:
                return start + place
            if not held:
                break
            start += FIND_BYTES
        return -1

    def _data_from(self, start: int) -> int:
        """Give where there is data again: a hole of any size costs one call."""
        try:
            return os.lseek(self._descriptor, start, os.SEEK_DATA)
        except OSError as error:
            return self._size if error.errno == errno.ENXIO else start


class Elf:
    """One ELF file.

    Args:
        data: its bytes.

    Raises:
        MalformedElfError: it is none.
    """

    def __init__(self, data: Content) -> None:
        head = data[:HEADER_BYTES]
        if len(head) < HEADER_BYTES or head[:6] != MAGIC or struct.unpack_from("<H", head, 18)[0] != MACHINE_X86_64:
            raise MalformedElfError("not an x86-64 ELF file")
        self._data = data
        try:
            (segments_at, sections_at) = struct.unpack_from("<QQ", head, 32)
            (segment_bytes, segments, section_bytes, sections, names) = struct.unpack_from("<HHHHH", head, 54)
            self._segments = [
                _SEGMENT.unpack(data[place : place + _SEGMENT.size])
                for place in (segments_at + index * segment_bytes for index in range(min(segments, SECTIONS_MAX)))
            ]
            self._sections = [
                self._section(sections_at + index * section_bytes) for index in range(min(sections, SECTIONS_MAX))
            ]
            self._names = self._sections[names] if names < len(self._sections) else None
        except struct.error as error:
            raise MalformedElfError(f"headers point outside the file: {error}") from error

    def _section(self, offset: int) -> Section:
        name, kind, _, address, place, size, link, *_ = _SECTION.unpack(self._data[offset : offset + _SECTION.size])
        place = min(place, len(self._data))
        return Section(name, kind, address, place, min(size, len(self._data) - place), link)

    def section(self, name: str) -> Section | None:
        """Give a section by name, or None."""
        if self._names is None:
            return None
        wanted = name.encode() + b"\0"
        for section in self._sections:
            start = self._names.offset + section.name
            if self._data[start : start + len(wanted)] == wanted:
                return section
        return None

    def functions(self, wanted: frozenset[str]) -> dict[str, Symbol]:
        """Find defined functions by name, in the dynamic symbols first and then in the full table."""
        found: dict[str, Symbol] = {}
        names = {name.encode(): name for name in wanted}
        for kind in (SHT_DYNSYM, SHT_SYMTAB):
            # A file has one table of each kind (System V ABI, chapter 4, sh_type); more would only be there to keep us busy.
            table = next((section for section in self._sections if section.type == kind), None)
            if table is not None and table.link < len(self._sections):
                self._search(table, self._sections[table.link], names, found)
        return found

    def _search(self, table: Section, strings: Section, names: dict[bytes, str], found: dict[str, Symbol]) -> None:
        data, base = self._data, strings.offset
        places = self._name_places(strings, names)
        size_max = min(table.size, SYMBOLS_MAX * _SYMBOL.size, len(data) - table.offset) // _SYMBOL.size * _SYMBOL.size
        longest = max(map(len, names), default=0) + 1
        for start in range(table.offset, table.offset + size_max, SYMBOLS_AT_ONCE * _SYMBOL.size) if places else ():
            entries = data[start : min(start + SYMBOLS_AT_ONCE * _SYMBOL.size, table.offset + size_max)]
            entries = entries[: len(entries) // _SYMBOL.size * _SYMBOL.size]
            for name, info, _, section, address, size in _SYMBOL.iter_unpack(entries):
                if name in places and section and info & 15 in (STT_FUNC, STT_GNU_IFUNC):
                    text = names.get(data[base + name : base + name + longest].partition(b"\0")[0])
                    if text is not None:
                        found.setdefault(text, Symbol(address, size))

    def _name_places(self, strings: Section, names: dict[bytes, str]) -> set[int]:
        """Give the offsets in a string table where a wanted name stands, also as the end of a longer one."""
        places: set[int] = set()
        end = strings.offset + min(strings.size, STRINGS_BYTES_MAX)
        for name in names:
            at = self._data.find(name + b"\0", strings.offset, end)
            while at >= 0 and len(places) < PLACES_MAX:
                places.add(at - strings.offset)
                at = self._data.find(name + b"\0", at + 1, end)
        return places

    def file_offset(self, address: int) -> int | None:
        """Give where an address of the loaded image stands in the file, or None."""
        for kind, _, offset, start, _, size, *_ in self._segments:
            if kind == PT_LOAD and start <= address < start + size:
                return int(offset + address - start)
        return None

    def read(self, address: int, size: int) -> bytes:
        """Give up to `size` bytes of the image at an address; fewer, or none, where the file has none."""
        offset = self.file_offset(address)
        return b"" if offset is None else self._data[offset : offset + size]

    def relative(self, address: int) -> int | None:
        """Give the address that the loader puts at an address, relative to the image: a relocation, or the file's bytes."""
        for section in self._sections:
            if section.type != SHT_RELA:
                continue
            size = min(section.size, RELOCATIONS_MAX * _RELOCATION.size) // _RELOCATION.size * _RELOCATION.size
            place = self._data.find(struct.pack("<QQ", address, R_X86_64_RELATIVE), section.offset, section.offset + size)
            if place >= 0 and (place - section.offset) % _RELOCATION.size == 0:
                held = self._data[place : place + _RELOCATION.size]
                return int(_RELOCATION.unpack(held)[2]) if len(held) == _RELOCATION.size else None
        held = self.read(address, POINTER_BYTES)
        return int.from_bytes(held, "little") or None if len(held) == POINTER_BYTES else None


def load(path: Path) -> Elf:
    """Open a file and read its headers.

    Raises:
        MalformedElfError: it is no ELF file, or too large.
        OSError: it cannot be opened.
    """
    return Elf(FileContent(os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)))
