"""A compiled set of programs that knows no descriptor, and the directory that keeps it for the next start.

What lives here: taking descriptors out of instructions and putting others in, the file and its refusal. What must not: the
compiler, loading.

The file is the SHA-256 of what follows, a line break, and JSON. It stands in a directory that only root may enter, under a name
that is a hash of all that went into the compiler, so that a file for another source or kernel is never met.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import stat
import struct
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

LOAD_MAP: Final = 0x18
PSEUDO_MAP_FD: Final = 1
INSTRUCTION: Final = struct.Struct("<BBhi")
FILE_BYTES_MAX: Final = 16 << 20
FILE_SUFFIX: Final = ".probes"
DIGEST_BYTES: Final = 64
"""Of a SHA-256 in hexadecimal digits."""


@dataclass(frozen=True, slots=True)
class MapShape:
    """What the kernel must be told to make a map: a BPF_MAP_TYPE_*, sizes, the most entries, BPF_F_*."""

    kind: int
    key_bytes: int
    value_bytes: int
    entries: int
    flags: int


@dataclass(frozen=True, slots=True)
class Compiled:
    """Programs whose instructions name maps by their place in `names`.

    Attributes:
        programs: instructions by program name.
        names: of all maps that the programs use.
        maps: shapes of those that are made for the programs; the others are there before.
    """

    programs: dict[str, bytes]
    names: list[str]
    maps: dict[str, MapShape]

    def linked(self, program: str, descriptors: Mapping[str, int]) -> bytes:
        """Give a program's instructions with these maps' descriptors."""
        return _replaced(self.programs[program], {index: descriptors[name] for index, name in enumerate(self.names)})


class DamagedError(Exception):
    """What was kept cannot be used."""


def unlinked(programs: Mapping[str, bytes], descriptors: Mapping[str, int], maps: Mapping[str, MapShape]) -> Compiled:
    """Take the descriptors, by map name, out of programs."""
    names = list(descriptors)
    places = {descriptor: index for index, descriptor in enumerate(descriptors.values())}
    return Compiled({name: _replaced(code, places) for name, code in programs.items()}, names, dict(maps))


def _replaced(code: bytes, numbers: Mapping[int, int]) -> bytes:
    """Put other numbers into all instructions that load a map.

    Raises:
        DamagedError: one loads a map that has no number.
    """
    changed = bytearray(code)
    for offset in range(0, len(code) - 7, 8):
        operation, registers, jump, number = INSTRUCTION.unpack_from(code, offset)
        if operation == LOAD_MAP and registers >> 4 == PSEUDO_MAP_FD:
            if number not in numbers:
                raise DamagedError(f"an instruction loads map {number}, which is none of the programs' maps")
            INSTRUCTION.pack_into(changed, offset, operation, registers, jump, numbers[number])
    return bytes(changed)


def key(parts: Iterable[str]) -> str:
    """Give the name of what is compiled from these."""
    digest = hashlib.sha256()
    for part in parts:
        digest.update(f"{len(part)}:{part}".encode())
    return digest.hexdigest()


def encode(compiled: Compiled) -> bytes:
    """Give a file's content."""
    maps = {
        name: [shape.kind, shape.key_bytes, shape.value_bytes, shape.entries, shape.flags]
        for name, shape in compiled.maps.items()
    }
    programs = {name: code.hex() for name, code in compiled.programs.items()}
    body = json.dumps({"programs": programs, "names": compiled.names, "maps": maps}).encode()
    return hashlib.sha256(body).hexdigest().encode() + b"\n" + body


def decode(content: bytes) -> Compiled:
    """Read a file's content.

    Raises:
        DamagedError: it is not what was written.
    """
    digest, body = content[:DIGEST_BYTES], content[DIGEST_BYTES + 1 :]
    if hashlib.sha256(body).hexdigest().encode() != digest:
        raise DamagedError("its checksum is wrong")
    try:
        found = json.loads(body)
        maps = {name: MapShape(*shape) for name, shape in found["maps"].items()}
        return Compiled({name: bytes.fromhex(code) for name, code in found["programs"].items()}, list(found["names"]), maps)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DamagedError(f"it holds something else: {error!r}") from error


def kept(folder: Path, name: str) -> Compiled | None:
    """Give what was kept under a name; None if there is nothing, or nothing that may be trusted: it is compiled again then."""
    try:
        directory = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        file = os.open(name + FILE_SUFFIX, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=directory)
        with open(file, "rb") as stream:  # noqa: PTH123 - a descriptor, not a path
            if not (_private(directory) and _private(stream.fileno())):
                return None
            return decode(stream.read(FILE_BYTES_MAX))
    except (OSError, DamagedError):
        return None
    finally:
        os.close(directory)


def _private(descriptor: int) -> bool:
    """Whether nobody but this user can have written it."""
    found = os.fstat(descriptor)
    regular = stat.S_ISREG(found.st_mode) or stat.S_ISDIR(found.st_mode)
    return regular and found.st_uid == os.geteuid() and not found.st_mode & (stat.S_IWGRP | stat.S_IWOTH)


def keep(folder: Path, name: str, compiled: Compiled, *, files_max: int) -> None:
    """Keep it for the next start, and the newest others; what cannot be kept is compiled again then."""
    with contextlib.suppress(OSError):
        folder.mkdir(mode=0o700, exist_ok=True)
        fresh = folder / f"{name}.{os.getpid()}.new"
        descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        with open(descriptor, "wb") as stream:  # noqa: PTH123 - a descriptor, not a path
            stream.write(encode(compiled))
        fresh.rename(folder / (name + FILE_SUFFIX))
        files = sorted(folder.glob(f"*{FILE_SUFFIX}"), key=lambda path: path.stat().st_mtime, reverse=True)
        for old in files[files_max:]:
            old.unlink()
