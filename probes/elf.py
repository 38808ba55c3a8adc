"""Reads what the attach planner needs of an ELF file: symbols, segments, relocations, bytes at an address.

What lives here: the format (System V ABI, ELF-64, x86-64 supplement), bounded. What must not: which functions matter. Files
come from agents: every offset is checked, and nothing is read beyond the named limits.
"""

from __future__ import annotations

import mmap
import os
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Final

MAGIC: Final = b"\x7fELF\x02\x01"
MACHINE_X86_64: Final = 62
HEADER_BYTES: Final = 64
POINTER_BYTES: Final = 8
SECTIONS_MAX: Final = 4096
"""Linkers give some dozens; debug builds some hundreds."""
SYMBOLS_MAX: Final = 2_000_000
"""Chromium with its full symbol table has 1.2 million."""
RELOCATIONS_MAX: Final = 4_000_000
SHT_SYMTAB, SHT_RELA, SHT_DYNSYM = 2, 4, 11
PT_LOAD: Final = 1
STT_FUNC, STT_GNU_IFUNC = 2, 10
R_X86_64_RELATIVE: Final = 8

_SECTION: Final = struct.Struct("<IIQQQQIIQQ")
_SEGMENT: Final = struct.Struct("<IIQQQQQQ")
_SYMBOL: Final = struct.Struct("<IBBHQQ")
_RELOCATION: Final = struct.Struct("<QQq")


class MalformedElfError(Exception):
    """The file is not an x86-64 ELF file, or lies about its own layout."""


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


class Elf:
    """One ELF file.

    Args:
        data: its bytes.

    Raises:
        MalformedElfError: it is none.
    """

    def __init__(self, data: bytes | mmap.mmap) -> None:
        if len(data) < HEADER_BYTES or data[:6] != MAGIC or struct.unpack_from("<H", data, 18)[0] != MACHINE_X86_64:
            raise MalformedElfError("not an x86-64 ELF file")
        self._data = data
        try:
            (segments_at, sections_at) = struct.unpack_from("<QQ", data, 32)
            (segment_bytes, segments, section_bytes, sections, names) = struct.unpack_from("<HHHHH", data, 54)
            self._segments = [
                _SEGMENT.unpack_from(data, segments_at + index * segment_bytes) for index in range(min(segments, SECTIONS_MAX))
            ]
            self._sections = [
                self._section(sections_at + index * section_bytes) for index in range(min(sections, SECTIONS_MAX))
            ]
            self._names = self._sections[names] if names < len(self._sections) else None
        except struct.error as error:
            raise MalformedElfError(f"headers point outside the file: {error}") from error

    def _section(self, offset: int) -> Section:
        name, kind, _, address, place, size, link, *_ = _SECTION.unpack_from(self._data, offset)
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
            for section in self._sections:
                if section.type == kind and section.link < len(self._sections):
                    self._search(section, self._sections[section.link], names, found)
        return found

    def _search(self, table: Section, strings: Section, names: dict[bytes, str], found: dict[str, Symbol]) -> None:
        data, base = self._data, strings.offset
        places = self._name_places(strings, names)
        size_max = min(table.size, SYMBOLS_MAX * _SYMBOL.size, len(data) - table.offset) // _SYMBOL.size * _SYMBOL.size
        entries = data[table.offset : table.offset + max(size_max, 0)]
        for name, info, _, section, address, size in _SYMBOL.iter_unpack(entries):
            if name in places and section and info & 15 in (STT_FUNC, STT_GNU_IFUNC):
                end = data.find(b"\0", base + name)
                text = names.get(bytes(data[base + name : end]))
                if text is not None:
                    found.setdefault(text, Symbol(address, size))

    def _name_places(self, strings: Section, names: dict[bytes, str]) -> set[int]:
        """Give the offsets in a string table where a wanted name stands, also as the end of a longer one."""
        places: set[int] = set()
        end = strings.offset + strings.size
        for name in names:
            at = self._data.find(name + b"\0", strings.offset, end)
            while at >= 0:
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
        return b"" if offset is None else bytes(self._data[offset : offset + size])

    def relative(self, address: int) -> int | None:
        """Give the address that the loader puts at an address, relative to the image: a relocation, or the file's bytes."""
        for section in self._sections:
            if section.type != SHT_RELA:
                continue
            size = min(section.size, RELOCATIONS_MAX * _RELOCATION.size) // _RELOCATION.size * _RELOCATION.size
            place = self._data.find(struct.pack("<QQ", address, R_X86_64_RELATIVE), section.offset, section.offset + size)
            if place >= 0 and (place - section.offset) % _RELOCATION.size == 0:
                return int(_RELOCATION.unpack_from(self._data, place)[2])
        held = self.read(address, POINTER_BYTES)
        return int.from_bytes(held, "little") or None if len(held) == POINTER_BYTES else None


def load(path: Path) -> Elf:
    """Map a file and read its headers.

    Raises:
        MalformedElfError: it is no ELF file.
        OSError: it cannot be opened.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    try:
        if os.fstat(descriptor).st_size < HEADER_BYTES:
            raise MalformedElfError("too short for an ELF file")
        return Elf(mmap.mmap(descriptor, 0, prot=mmap.PROT_READ))
    finally:
        os.close(descriptor)
