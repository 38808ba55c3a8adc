"""Which files may hold a TLS library: installed ones, and those that a process has mapped.

What lives here: walking library folders and /proc/PID/maps. What must not: judging a file (sites), attaching (attachments).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

LOADER_CONFIGURATION: Final = Path("/etc/ld.so.conf.d")
DEFAULT_FOLDERS: Final = (
    *(Path("/lib/x86_64-linux-gnu"), Path("/usr/lib/x86_64-linux-gnu"), Path("/lib64"), Path("/usr/lib64")),
    *(Path("/lib"), Path("/usr/lib"), Path("/usr/local/lib"), Path("/usr/local/lib64")),
)
LIBRARY_NAME: Final = re.compile(r"lib(ssl|crypto|gnutls)[-.\w]*\.so[.\d]*")
MAPS_LINE: Final = re.compile(r"^[0-9a-f]+-[0-9a-f]+ ..(x).\S* \S+ ([0-9a-f]+):([0-9a-f]+) (\d+) +(.+)$")
MAPS_BYTES_MAX: Final = 8 << 20
"""A browser has 2 MB of them."""


@dataclass(frozen=True, slots=True)
class MappedFile:
    """A file that a process has mapped for execution.

    Attributes:
        device: in the kernel's form, major << 20 | minor.
        inode: its number.
        path: as the process sees it; ` (deleted)` at the end when it has no name any more.
    """

    device: int
    inode: int
    path: str


def installed(folders: tuple[Path, ...] = DEFAULT_FOLDERS, configuration: Path = LOADER_CONFIGURATION) -> Iterator[Path]:
    """Give the files in the dynamic loader's folders whose names say TLS; each file once."""
    seen: set[tuple[int, int]] = set()
    for folder in (*folders, *_configured(configuration)):
        try:
            names = sorted(path for path in folder.iterdir() if LIBRARY_NAME.fullmatch(path.name))
        except OSError:
            continue
        for path in names:
            try:
                status = path.stat()
            except OSError:
                continue
            if (status.st_dev, status.st_ino) not in seen:
                seen.add((status.st_dev, status.st_ino))
                yield path.resolve()


def _configured(configuration: Path) -> Iterator[Path]:
    try:
        files = sorted(configuration.glob("*.conf"))
    except OSError:
        return
    for file in files:
        for line in file.read_text(errors="replace").splitlines():
            if line.startswith("/"):
                yield Path(line.strip())


def mapped(pid: int, proc: Path = Path("/proc")) -> list[MappedFile]:
    """Give the files that a process has mapped for execution; empty when it is gone or may not be looked at."""
    try:
        with (proc / str(pid) / "maps").open("rb") as file:
            text = file.read(MAPS_BYTES_MAX).decode(errors="replace")
    except OSError:
        return []
    found: dict[tuple[int, int], MappedFile] = {}
    for line in text.splitlines():
        match = MAPS_LINE.match(line)
        if match and int(match[4]):
            device = int(match[2], 16) << 20 | int(match[3], 16)
            found.setdefault((device, int(match[4])), MappedFile(device, int(match[4]), match[5]))
    return list(found.values())


def reachable(pid: int, file: MappedFile, proc: Path = Path("/proc")) -> Path | None:
    """Give a path by which this process can open a file that another one has mapped: through its root, or as its executable."""
    through_root = Path(f"{proc}/{pid}/root{file.path}")
    if through_root.exists():
        return through_root
    executable = proc / str(pid) / "exe"
    try:
        if executable.stat().st_ino == file.inode:
            return executable
    except OSError:
        return None
    return None
