"""Refusing new connections of some cgroups: small BPF programs at connect and sendmsg, and nowhere else.

What lives here: the programs, of a dozen instructions each and made without a compiler; attaching and taking off.
What must not: when, and whose (the daemon's decision).

The links live as long as this process does: when it dies, however it dies, the kernel takes the programs off.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from capd.probes import bpf_call
from capd.probes.bpf_call import Map, Program
from capd.probes.compiled import MapShape
from capd.probes.instructions import Assembly

POINTS: Final = {
    "refuse_connect4": bpf_call.ATTACH_INET4_CONNECT,
    "refuse_connect6": bpf_call.ATTACH_INET6_CONNECT,
    "refuse_send4": bpf_call.ATTACH_UDP4_SENDMSG,
    "refuse_send6": bpf_call.ATTACH_UDP6_SENDMSG,
}
"""Program and where it stands. What is refused fails with EPERM; what is connected goes on."""
_COUNT: Final = struct.Struct("<Q")
_KEY: Final = bytes(4)
COUNTER: Final = MapShape(bpf_call.MAP_TYPE_ARRAY, len(_KEY), _COUNT.size, 1, 0)


def refusing(counter: int) -> bytes:
    """Give the instructions of a program that counts in the first entry of an array map, and says no.

    Args:
        counter: descriptor of the map.
    """
    code = Assembly()
    code.count(counter, 0)
    code.give(0)
    return code.encode()


@dataclass
class _Loaded:
    counter: int
    programs: dict[int, int] = field(default_factory=dict)

    def close(self) -> None:
        for descriptor in (self.counter, *self.programs.values()):
            os.close(descriptor)


class Refusal:
    """Refuses new connections of what lives in some cgroups. Costs nothing while it refuses nobody."""

    def __init__(self) -> None:
        self._loaded: _Loaded | None = None
        self._links: dict[int, list[int]] = {}
        self._before = 0

    def __len__(self) -> int:
        return len(self._links)

    @property
    def refused(self) -> int:
        """How many calls were refused so far."""
        if self._loaded is None:
            return self._before
        value = Map(self._loaded.counter, len(_KEY), _COUNT.size).get(_KEY)
        return self._before + (int(_COUNT.unpack(value)[0]) if value else 0)

    def hold(self, cgroups: Mapping[int, Path]) -> list[str]:
        """Refuse new connections of these cgroups and those below them, and of no others.

        Args:
            cgroups: by the kernel's number, with their directories.

        Returns:
            For each that could not be reached, why; it is tried again with the next call.
        """
        for gone in self._links.keys() - cgroups.keys():
            self._take_off(gone)
        problems = []
        for number in cgroups.keys() - self._links.keys():
            try:
                self._links[number] = self._put_on(cgroups[number], self._load())
            except FileNotFoundError:
                continue  # it ended
            except OSError as error:
                problems.append(f"connections of {cgroups[number]} cannot be refused: {error.strerror or error}")
        return problems

    def release(self) -> None:
        """Refuse nothing any more, and leave nothing in the kernel."""
        for number in list(self._links):
            self._take_off(number)
        if self._loaded is not None:
            self._before = self.refused
            self._loaded.close()
            self._loaded = None

    def _load(self) -> _Loaded:
        if self._loaded is None:
            loaded = _Loaded(bpf_call.create_map(COUNTER))
            try:
                for name, point in POINTS.items():
                    program = Program(name, refusing(loaded.counter), bpf_call.PROG_TYPE_CGROUP_SOCK_ADDR, point)
                    loaded.programs[point] = bpf_call.load(program)
            except OSError:
                loaded.close()
                raise
            self._loaded = loaded
        return self._loaded

    @staticmethod
    def _put_on(directory: Path, loaded: _Loaded) -> list[int]:
        descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        links: list[int] = []
        try:
            for point, program in loaded.programs.items():
                links.append(bpf_call.attach_cgroup(program, descriptor, point))
        except OSError:
            for link in links:
                os.close(link)
            raise
        finally:
            os.close(descriptor)
        return links

    def _take_off(self, number: int) -> None:
        for link in self._links.pop(number):
            os.close(link)
