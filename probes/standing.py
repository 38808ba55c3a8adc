"""Programs that stand between two processes: kept for the next one, described, and taken over only as what they were.

What lives here: the description, and the check that descriptors are what it names. What must not: who keeps descriptors and
description meanwhile (a `Store`), loading, attaching.

All or nothing. What a description does not name, and what is named and did not come, makes the whole set unusable: half of the
programs would lose silently what the others tell. So the description is taken away before anything changes and put back when
the change is whole; a process that is killed in between leaves a set that nobody takes over.
"""

from __future__ import annotations

import os
import re
import secrets
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Protocol

from capd.probes import compiled, loader
from capd.probes.attachments import Attachment
from capd.probes.budget import Claim
from capd.probes.loader import Loaded
from capd.probes.programs import Tier

if TYPE_CHECKING:
    from capd.probes.capture import CaptureSettings

FORM: Final = 1
"""Of the description."""
PREFIX: Final = "capd-probes-"
"""Of the names that descriptors are kept by: the prefix, the set, and for a library its number."""
SET_BYTES: Final = 4
"""Of randomness in a set's name: sets of two starts must not be mixed up."""
DESCRIPTORS_MAX: Final = 1000
"""Of one set; the service manager is told to keep some more (FileDescriptorStoreMax). With more it is not kept at all."""
DECIDING: Final = (
    *("programs.py", "sites.py", "instructions.py", "elf.py", "attachments.py", "layouts.py", "loader.py", "kernel.py"),
    *("btf.py", "bpf_call.py", "capture.py", "counters.py", "ring.py", "standing.py"),
)
"""Beside the C text: what decides which programs are where, and how what they keep is read."""

READING: Final = ("layouts.py", "counters.py", "bpf/events.h", "bpf/maps.h")
"""What decides how records, losses and counters are read, whatever programs make them."""

_IDENTITY: Final = re.compile(r"^(link|map|prog)_id:\s*(\d+)$", re.MULTILINE)


class Store(Protocol):
    """Keeps a set beyond the death of this process."""

    def keep(self, name: str, descriptors: Sequence[int]) -> None:
        """Keep descriptors under a name, which may be used once."""

    def let_go(self, name: str) -> None:
        """Keep those of a name no longer."""

    def describe(self, description: Mapping[str, object] | None) -> None:
        """Put the description where the next process finds it, whole; None: take it away."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Left:
    """What an earlier process left.

    Attributes:
        description: as it was given to the store; None: none, or it cannot be read.
        descriptors: what came, by name.
    """

    description: Mapping[str, Any] | None
    descriptors: Mapping[str, Sequence[int]]

    def close(self, store: Store | None) -> None:
        """Let all of it go: what is held by nobody else is detached and unloaded."""
        for name, descriptors in self.descriptors.items():
            if store is not None:
                store.let_go(name)
            for descriptor in descriptors:
                os.close(descriptor)


@dataclass(frozen=True, slots=True, kw_only=True)
class Taken:
    """A set that was taken over.

    Attributes:
        loaded: programs, maps and rings.
        links: where the programs are attached, but for libraries.
        attachments: libraries with probes.
        description: of the set.
    """

    loaded: Loaded
    links: list[int]
    attachments: list[Attachment]
    description: Mapping[str, Any]


def key_of(settings: CaptureSettings) -> str:
    """Give a hash of all that must be the same for a set to be taken over.

    Whatever of it differs, records, maps or places may mean something else.
    """
    here = Path(__file__).parent
    texts = [(here / name).read_text(encoding="utf-8") for name in DECIDING]
    wanted = settings.tier, settings.control_ring_bytes, settings.data_ring_bytes, str(settings.cgroup_root)
    return compiled.key([str(FORM), loader.source(), *texts, *map(str, wanted), *os.uname()])


def reading_key() -> str:
    """Give a hash of all that must be the same for the rings of other programs to be read to their end."""
    here = Path(__file__).parent
    return compiled.key([str(FORM), *((here / name).read_text(encoding="utf-8") for name in READING)])


def identity_of(descriptor: int) -> str:
    """Say what a descriptor is: kind and number of a program, map or link; `perf` of a perf event, which has no number.

    Raises:
        ValueError: it is something else.
    """
    if "perf_event" in str(Path(f"/proc/self/fd/{descriptor}").readlink()):
        return "perf"
    found = dict(_IDENTITY.findall(Path(f"/proc/self/fdinfo/{descriptor}").read_text(encoding="ascii")))
    for kind in ("link", "map", "prog"):  # a link tells its program, too
        if kind in found:
            return f"{kind} {found[kind]}"
    raise ValueError(f"descriptor {descriptor} is nothing of the kernel's that capd made")


class Standing:
    """Keeps one set described while it changes.

    Args:
        store: keeps it.
        key: as `key_of` gives it.
    """

    def __init__(self, store: Store, key: str) -> None:
        self._store = store
        self._key = key
        self._name = f"{PREFIX}{secrets.token_hex(SET_BYTES)}"
        self._core: dict[str, object] | None = None
        self._core_count = 0
        self._libraries: dict[tuple[int, int], dict[str, object]] = {}
        self._unkept: dict[tuple[int, int], Sequence[int]] = {}
        """Links of libraries that the store has not got yet, or for which there was no room."""
        self._numbers = 0

    def begin(
        self, loaded: Loaded, links: Sequence[int], attachments: Iterable[Attachment], ring_bytes: tuple[int, int]
    ) -> None:
        """Keep what is all in place now, then describe it.

        Args:
            loaded: programs, maps and rings.
            links: where the programs are attached, but for libraries.
            attachments: libraries with probes.
            ring_bytes: sizes of the control and of the data ring.
        """
        core = [*loaded.programs.values(), *loaded.maps.values(), loaded.control, loaded.data, *links]
        self._store.keep(self._name, core)
        self._core_count = len(core)
        self._core = {
            "form": FORM,
            "key": self._key,
            "reading": reading_key(),
            "ring_bytes": list(ring_bytes),
            "name": self._name,
            "tier": loaded.tier.value,
            "features": loaded.features,
            "programs": {name: identity_of(number) for name, number in loaded.programs.items()},
            "maps": {name: identity_of(number) for name, number in loaded.maps.items()},
            "control": identity_of(loaded.control),
            "data": identity_of(loaded.data),
            "links": [identity_of(number) for number in links],
        }
        for attachment in attachments:
            self._add(attachment)
        self.changed()

    def go_on(self, taken: Taken) -> None:
        """Go on with a set that was taken over."""
        self._core = {name: value for name, value in taken.description.items() if name != "libraries"}
        self._name = taken.description["name"]
        self._core_count = sum(
            map(len, (taken.loaded.programs, taken.loaded.maps, taken.links, (taken.loaded.control, taken.loaded.data)))
        )
        for library in taken.description["libraries"]:
            self._libraries[library["device"], library["inode"]] = dict(library)
            self._numbers = max(self._numbers, library["number"])
        self.changed()

    def changing(self) -> None:
        """Something is about to be attached or detached: until that is over nobody may take over."""
        self._store.describe(None)

    def attached(self, attachment: Attachment) -> None:
        """Keep a library's links, once the change is over. Before `begin` nothing is kept."""
        if self._core is not None:
            self._add(attachment)

    def released(self, attachment: Attachment) -> None:
        """Keep a library's links no longer."""
        key = attachment.device, attachment.inode
        library = self._libraries.pop(key, None)
        if library is not None and self._unkept.pop(key, None) is None:
            self._store.let_go(f"{self._name}-{library['number']}")

    def changed(self) -> None:
        """The change is over: keep and describe what there is now, if that is not too much to be kept."""
        if self._core is None or self.descriptors > DESCRIPTORS_MAX:
            return
        for key, links in self._unkept.items():
            self._store.keep(f"{self._name}-{self._libraries[key]['number']}", links)
        self._unkept.clear()
        self._store.describe({**self._core, "libraries": list(self._libraries.values())})

    @property
    def descriptors(self) -> int:
        """Give how many are to be kept."""
        libraries = (library["links"] for library in self._libraries.values())
        return self._core_count + sum(len(links) for links in libraries if isinstance(links, list))

    def _add(self, attachment: Attachment) -> None:
        self._numbers += 1
        key = attachment.device, attachment.inode
        self._unkept[key] = attachment.links
        self._libraries[key] = {
            "number": self._numbers,
            "device": attachment.device,
            "inode": attachment.inode,
            "path": attachment.path,
            "library": attachment.library,
            "functions": list(attachment.functions),
            "late": attachment.late,
            "claim": None if attachment.claim is None else [attachment.claim.run, attachment.claim.owner],
            "mapped_as": list(attachment.mapped_as),
            "since_ns": attachment.since_ns,
            "links": [identity_of(number) for number in attachment.links],
        }


def take(left: Left, key: str) -> Taken | None:
    """Take over what was left if it is whole and the same; None otherwise, and then nothing of it was touched.

    Args:
        left: description and descriptors.
        key: as `key_of` gives it for what would be loaded otherwise.
    """
    description = left.description
    try:
        if description is None or description["form"] != FORM or description["key"] != key:
            return None
        return _taken(description, left.descriptors)
    except (KeyError, TypeError, ValueError, OSError):
        return None


def take_to_end(left: Left) -> tuple[Taken, tuple[int, int]] | None:
    """Take over what was left only to read it to its end, if it can be read; None otherwise, and then nothing was touched.

    Returns:
        The set, and the sizes of its control and data ring.
    """
    description = left.description
    try:
        if description is None or description["form"] != FORM or description["reading"] != reading_key():
            return None
        taken = _taken(description, left.descriptors)
        control, data = map(int, description["ring_bytes"])
    except (KeyError, TypeError, ValueError, OSError):
        return None
    return None if taken is None else (taken, (control, data))


def _taken(description: Mapping[str, Any], came: Mapping[str, Sequence[int]]) -> Taken | None:
    name = description["name"]
    libraries = {f"{name}-{library['number']}": library for library in description["libraries"]}
    if came.keys() != {name, *libraries}:
        return None
    expected = {name: _core_of(description), **{name: library["links"] for name, library in libraries.items()}}
    for group, identities in expected.items():
        if Counter(identities) != Counter(map(identity_of, came[group])):
            return None
    places = {identity_of(descriptor): descriptor for descriptor in came[name]}
    named = [*description["programs"].values(), *description["maps"].values(), description["control"], description["data"]]
    if len(set(named)) != len(named):
        return None
    return Taken(
        loaded=Loaded(
            tier=Tier(description["tier"]),
            features=dict(description["features"]),
            programs={program: places[place] for program, place in description["programs"].items()},
            maps={each: places[place] for each, place in description["maps"].items()},
            control=places[description["control"]],
            data=places[description["data"]],
            cached=True,
        ),
        links=[descriptor for descriptor in came[name] if identity_of(descriptor) not in set(named)],
        attachments=[_attachment(library, came[group]) for group, library in libraries.items()],
        description=description,
    )


def _core_of(description: Mapping[str, Any]) -> list[str]:
    maps = [*description["maps"].values(), description["control"], description["data"]]
    return [*description["programs"].values(), *maps, *description["links"]]


def _attachment(library: Mapping[str, Any], links: Sequence[int]) -> Attachment:
    device, inode = library["mapped_as"]
    return Attachment(
        device=library["device"],
        inode=library["inode"],
        path=library["path"],
        library=library["library"],
        functions=tuple(library["functions"]),
        late=library["late"],
        claim=None if library["claim"] is None else Claim(*library["claim"]),
        mapped_as=(device, inode),
        since_ns=library["since_ns"],
        links=tuple(links),
    )
