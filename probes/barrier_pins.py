"""The second layer in the kernel: its programs on cgroups, by links that have names in bpffs and so outlive capd.

What lives here: loading, attaching, pinning, looking whether all still stands, taking away. What must not: what the programs
decide (barrier.py), which cgroups (the daemon's decision).

Below the directory of the instance: `counters`, the map, and for each cgroup a directory by its number with a link for each
program. A link is replaced by renaming the new one over it, so that at no moment neither holds.
"""

from __future__ import annotations

import contextlib
import os
import struct
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

from capd.probes import bpf_call
from capd.probes.barrier import COUNTED, COUNTERS, Listener, programs
from capd.probes.bpf_call import Map, Program

COUNTERS_NAME: Final = "counters"
NEW_SUFFIX: Final = "_new"
"""bpffs takes no dots in names."""
HOLDING: Final = "egress"
"""Without this program on a cgroup, what the others refuse gets out by other ways."""
_KEY: Final = struct.Struct("<I")
_COUNT: Final = struct.Struct("<Q")


class Barrier:
    """The programs of one instance. One thread calls it."""

    def __init__(self, directory: Path) -> None:
        """Use a directory below a bpffs, made when it is needed."""
        self._directory = directory
        self._loaded: dict[str, tuple[Program, int]] = {}
        self._links: dict[Path, int] = {}
        """Held open, so that who removes the names takes no program off while this process lives."""

    def close(self) -> None:
        """Let go of what this process holds; what is pinned stays."""
        for link in self._links.values():
            os.close(link)
        self._links.clear()
        self._unload()

    def _unload(self) -> None:
        for _program, descriptor in self._loaded.values():
            os.close(descriptor)
        self._loaded.clear()

    def load(self, listener: Listener, *, metadata: bool) -> None:
        """Load the programs, for `hold`.

        Args:
            listener: what is let through.
            metadata: whether cloud metadata is refused.

        Raises:
            OSError: the kernel refused one, or there is no bpffs.
        """
        self._unload()
        self._directory.mkdir(mode=0o700, exist_ok=True)
        counters = self._counters()
        try:
            for program in programs(listener, counters, metadata=metadata):
                self._loaded[program.name] = (program, bpf_call.load(program))
        finally:
            os.close(counters)

    def hold(self, cgroups: Mapping[int, Path]) -> None:
        """Put the loaded programs on these cgroups, in place of those that stand there, and take them off all others.

        Args:
            cgroups: directories by the kernel's number.

        Raises:
            OSError: the kernel refused; what stood before still does.
        """
        for number, directory in cgroups.items():
            self._put_on(number, directory)
        for number in self.held() - cgroups.keys():
            _remove(self._directory / str(number))
        for path in [path for path in self._links if path.parent.name not in {str(number) for number in cgroups}]:
            os.close(self._links.pop(path))

    def held(self) -> set[int]:
        """Give the numbers of the cgroups for which there are pins."""
        with contextlib.suppress(FileNotFoundError):
            return {int(entry.name) for entry in self._directory.iterdir() if entry.name.isdigit()}
        return set()

    def missing(self, cgroups: Mapping[int, Path]) -> list[str]:
        """Say what does not stand of what `hold` put there: one sentence for each."""
        return [problem for number, directory in cgroups.items() for problem in self._missing(number, directory)]

    def counts(self) -> dict[str, int]:
        """Give how often something was refused, by kind, since the first start; empty when nothing stands."""
        try:
            descriptor = bpf_call.pinned(self._directory / COUNTERS_NAME)
        except OSError:
            return {}
        try:
            found = Map(descriptor, _KEY.size, _COUNT.size)
            values = (found.get(_KEY.pack(place)) for place in range(len(COUNTED)))
            return {name: int(_COUNT.unpack(value)[0]) for name, value in zip(COUNTED, values, strict=True) if value}
        finally:
            os.close(descriptor)

    def remove(self) -> bool:
        """Take everything away. Gives whether there was anything."""
        self.close()
        if not self._directory.exists():
            return False
        _remove(self._directory)
        return True

    def _counters(self) -> int:
        path = self._directory / COUNTERS_NAME
        with contextlib.suppress(OSError):
            descriptor = bpf_call.pinned(path)
            if bpf_call.shape_of(descriptor) == COUNTERS:
                return descriptor
            os.close(descriptor)
        path.unlink(missing_ok=True)
        descriptor = bpf_call.create_map(COUNTERS)
        bpf_call.pin(descriptor, path)
        return descriptor

    def _put_on(self, number: int, directory: Path) -> None:
        place = self._directory / str(number)
        place.mkdir(mode=0o700, exist_ok=True)
        cgroup = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            for program, descriptor in self._loaded.values():
                self._replace(place / program.name, bpf_call.attach_cgroup(descriptor, cgroup, program.attach_type))
        finally:
            os.close(cgroup)
        for entry in place.iterdir():
            if entry.name not in self._loaded:
                entry.unlink()

    def _replace(self, path: Path, link: int) -> None:
        """Hold a link under a name, and only then let go of the one that had it."""
        new = path.with_name(path.name + NEW_SUFFIX)
        try:
            new.unlink(missing_ok=True)
            bpf_call.pin(link, new)
            new.rename(path)
        except OSError:
            os.close(link)
            raise
        before = self._links.pop(path, None)
        self._links[path] = link
        if before is not None:
            os.close(before)

    def _missing(self, number: int, directory: Path) -> Iterator[str]:
        for name, (program, _descriptor) in self._loaded.items():
            try:
                descriptor = bpf_call.pinned(self._directory / str(number) / name)
            except OSError:
                yield f"the program {name} of {directory} is gone"
                continue
            try:
                found = bpf_call.cgroup_link(descriptor)
            finally:
                os.close(descriptor)
            if (found.cgroup, found.attach_type) != (number, program.attach_type):
                yield f"the program {name} does not stand on {directory} any more"


def stands(directory: Path) -> bool:
    """Say whether the program that holds, `egress`, stands on any cgroup by a pin below the directory of an instance."""
    with contextlib.suppress(OSError):
        return any(_holds(place) for place in directory.iterdir() if place.name.isdigit())
    return False


def _holds(place: Path) -> bool:
    try:
        descriptor = bpf_call.pinned(place / HOLDING)
    except OSError:
        return False
    try:
        return bpf_call.cgroup_link(descriptor).cgroup == int(place.name)
    except OSError:
        return False
    finally:
        os.close(descriptor)


def _remove(directory: Path) -> None:
    for below, directories, files in os.walk(directory, topdown=False):
        for name in files:
            (Path(below) / name).unlink()
        for name in directories:
            (Path(below) / name).rmdir()
    directory.rmdir()
