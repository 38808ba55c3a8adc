"""The seam between a program and its disk, from Python: seam.c built, set for one process, and its trace read.

What lives here: faults and what was traced. What must not: what a power cut leaves (power.py), cases.
"""

from __future__ import annotations

import ctypes
import os
import struct
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from enum import IntEnum
from functools import cache
from pathlib import Path
from typing import Final

SOURCE: Final = Path(__file__).with_name("seam.c")
VARIABLE: Final = "CAPD_SEAM"
"""Names the library in the environment of a process that was started with it."""
_LINE: Final = struct.Struct("<cQQQIII")


class Action(IntEnum):
    """What happens at the chosen call."""

    NOTHING = 0
    KILL_BEFORE = 1
    KILL_AFTER = 2
    TORN = 3
    """A write is done in part, then the process is killed; anything else is done, and it is killed."""
    NO_SPACE = 4
    IO_ERROR = 5


DEADLY: Final = frozenset({Action.KILL_BEFORE, Action.KILL_AFTER, Action.TORN})


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """What happens to one process.

    Attributes:
        action: what.
        call: at which of its calls that change files, counted from 1.
        calls: how many calls in a row fail.
    """

    action: Action = Action.NOTHING
    call: int = 0
    calls: int = 1

    def __str__(self) -> str:
        if self.action is Action.NOTHING:
            return "nothing"
        words = f"{self.action.name.lower()} at call {self.call}"
        return words if self.action in DEADLY else f"{words} and {self.calls - 1} more"


NONE: Final = Fault()


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """One change of a file or a folder, in the order in which they were made.

    Attributes:
        operation: c(reated), w(ritten), t(runcated), s(ynced), r(enamed), u(nlinked), m(ade a folder), l(inked).
        inode: of the file or folder.
        offset: of what was written; the new size of what was truncated.
        path, target: names.
        data: what was written.
    """

    operation: str
    inode: int
    offset: int
    path: Path
    target: Path
    data: bytes


def build(directory: Path) -> Path:
    """Compile the library."""
    library = directory / "seam.so"
    subprocess.run(["gcc", "-O2", "-Wall", "-Werror", "-shared", "-fPIC", "-o", library, SOURCE, "-ldl"], check=True)
    return library


def environment(library: Path) -> dict[str, str]:
    """Give what a process needs in its environment to have the seam."""
    return {"LD_PRELOAD": str(library), VARIABLE: str(library)}


@cache
def _library() -> ctypes.CDLL:
    return ctypes.CDLL(os.environ[VARIABLE])


def arm(directory: Path, fault: Fault, trace: int = -1) -> None:
    """In a process that was just forked: from now on changes below a directory count, and are written to a descriptor."""
    seam = _library().seam_arm
    seam.argtypes = [ctypes.c_char_p, ctypes.c_long, ctypes.c_int, ctypes.c_long, ctypes.c_int]
    seam(os.fsencode(directory), fault.call, int(fault.action), fault.calls, trace)


def count() -> int:
    """Give how many calls there were."""
    seam = _library().seam_count
    seam.restype = ctypes.c_long
    return int(seam())


def changes(trace: bytes) -> Iterator[Change]:
    """Read a trace."""
    at = 0
    while at < len(trace):
        operation, inode, first, _, one, two, size = _LINE.unpack_from(trace, at)
        at += _LINE.size
        names = trace[at : at + one], trace[at + one : at + one + two]
        at += one + two
        path, target = (Path(os.fsdecode(name)) for name in names)
        yield Change(
            operation=operation.decode(), inode=inode, offset=first, path=path, target=target, data=trace[at : at + size]
        )
        at += size
