"""Being told when a directory or a file of the kernel's changes: inotify(7).

What lives here: the three calls and the events. What must not: what is watched, and why.
"""

from __future__ import annotations

import ctypes
import os
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Final

IN_MODIFY: Final = 0x2
IN_CREATE: Final = 0x100
IN_Q_OVERFLOW: Final = 0x4000
IN_IGNORED: Final = 0x8000
IN_ONLYDIR: Final = 0x01000000
_EVENT: Final = struct.Struct("=iIII")
_READ_BYTES: Final = 64 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """Something happened.

    Attributes:
        path: what was watched; None when the kernel's queue ran over and anything may have happened.
        name: entry of the watched directory, "" when the watched thing itself is meant.
    """

    path: Path | None
    name: str


class Watch:
    """Watches paths. Not thread-safe."""

    def __init__(self) -> None:
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._descriptor = self._libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
        if self._descriptor < 0:
            raise OSError(ctypes.get_errno(), "inotify_init1")
        self._paths: dict[int, Path] = {}

    def fileno(self) -> int:
        """Give what to wait on."""
        return int(self._descriptor)

    def close(self) -> None:
        """Stop watching."""
        os.close(self._descriptor)

    def add(self, path: Path, mask: int) -> bool:
        """Watch a path; False if it is not there (any more), or may not be watched."""
        number = self._libc.inotify_add_watch(self._descriptor, os.fsencode(path), ctypes.c_uint32(mask))
        if number < 0:
            return False
        self._paths[number] = path
        return True

    def remove(self, path: Path) -> None:
        """Stop watching a path; nothing happens if it is not watched."""
        for number in [number for number, watched in self._paths.items() if watched == path]:
            self._libc.inotify_rm_watch(self._descriptor, number)
            del self._paths[number]

    def read(self) -> list[Change]:
        """Give what happened since the last call."""
        try:
            content = os.read(self._descriptor, _READ_BYTES)
        except BlockingIOError:
            return []
        changes, offset = [], 0
        while offset < len(content):
            number, mask, _cookie, length = _EVENT.unpack_from(content, offset)
            start = offset + _EVENT.size
            name = os.fsdecode(content[start : start + length].rstrip(b"\0"))
            offset = start + length
            if mask & IN_IGNORED:
                self._paths.pop(number, None)
            elif mask & IN_Q_OVERFLOW:
                changes.append(Change(path=None, name=""))
            elif number in self._paths:
                changes.append(Change(path=self._paths[number], name=name))
        return changes
