"""What one process left of its probes, and when another takes it over: real maps of the kernel stand for all of it."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any

import pytest

from capd.probes import bpf_call, standing
from capd.probes.attachments import Attachment
from capd.probes.budget import Claim
from capd.probes.capture import CaptureSettings
from capd.probes.compiled import MapShape
from capd.probes.errors import MapLayoutError
from capd.probes.loader import Loaded
from capd.probes.programs import Tier
from capd.probes.standing import Left, Standing, take
from tests.requirements import require_probes

pytestmark = pytest.mark.kernel

KEY = "the same"
Change = Callable[["Kept"], None]


class Kept:
    """A store in this process's memory."""

    def __init__(self) -> None:
        self.description: dict[str, Any] | None = None
        self.descriptors: dict[str, list[int]] = {}

    def keep(self, name: str, descriptors: Sequence[int]) -> None:
        """Keep copies."""
        self.descriptors.setdefault(name, []).extend(map(os.dup, descriptors))

    def let_go(self, name: str) -> None:
        """Close them."""
        for descriptor in self.descriptors.pop(name):
            os.close(descriptor)

    def describe(self, description: Mapping[str, object] | None) -> None:
        """Remember it."""
        self.description = None if description is None else dict(description)

    def left(self) -> Left:
        """Give what the next process finds."""
        return Left(description=self.description, descriptors=self.descriptors)


@pytest.fixture
def makes() -> Iterator[Callable[[], int]]:
    """Give what makes something in the kernel; it is closed at the end, if it is open then."""
    require_probes()
    made: list[int] = []

    def make() -> int:
        made.append(bpf_call.create_map(MapShape(bpf_call.MAP_TYPE_ARRAY, 4, 8, 1, 0)))
        return made[-1]

    yield make
    for descriptor in made:
        with suppress(OSError):
            os.close(descriptor)


def library(make: Callable[[], int], inode: int) -> Attachment:
    """Give a library with two links."""
    return Attachment(
        device=1,
        inode=inode,
        path=f"/lib/libssl-{inode}\udcff.so",
        library="openssl",
        functions=("SSL_read", "SSL_write"),
        late=inode > 1,
        claim=Claim(2**63 + 1, "user agent") if inode > 1 else None,
        mapped_as=(1 << 20, inode),
        since_ns=17,
        links=(make(), make()),
    )


@pytest.fixture
def kept(makes: Callable[[], int]) -> Iterator[tuple[Kept, Loaded, list[int], list[Attachment]]]:
    """Give a store that keeps a set of everything, and what is in it."""
    loaded = Loaded(
        tier=Tier.CLASSIC,
        features={"a": True},
        programs={"on_fork": makes(), "on_exec": makes()},
        maps={"lineage": makes()},
        control=makes(),
        data=makes(),
        cached=False,
    )
    links, libraries = [makes(), makes(), makes()], [library(makes, 1), library(makes, 2)]
    store = Kept()
    Standing(store, KEY).begin(loaded, links, libraries, (1 << 20, 1 << 21))
    yield store, loaded, links, libraries
    for name in list(store.descriptors):
        store.let_go(name)


def same(one: int, other: int) -> bool:
    """Tell whether two descriptors are of one thing."""
    return standing.identity_of(one) == standing.identity_of(other)


Set = tuple[Kept, Loaded, list[int], list[Attachment]]


def test_what_is_whole_is_taken_over(kept: Set) -> None:
    """Every program, map, ring, link and library comes back as what it was, whatever its path is made of."""
    store, loaded, links, libraries = kept
    taken = take(store.left(), KEY)
    assert taken is not None
    assert (loaded.tier, loaded.features) == (taken.loaded.tier, taken.loaded.features)
    for name, program in loaded.programs.items():
        assert same(program, taken.loaded.programs[name])
    assert same(loaded.maps["lineage"], taken.loaded.maps["lineage"])
    assert same(loaded.control, taken.loaded.control)
    assert same(loaded.data, taken.loaded.data)
    assert {*map(standing.identity_of, links)} == {*map(standing.identity_of, taken.links)}
    assert [replace(each, links=()) for each in libraries] == [replace(each, links=()) for each in taken.attachments]
    for before, after in zip(libraries, taken.attachments, strict=True):
        assert [*map(standing.identity_of, before.links)] == [*map(standing.identity_of, after.links)]


def test_changes_go_on_behind_a_takeover(kept: Set, makes: Callable[[], int]) -> None:
    """Who took over adds and releases libraries, and the third process finds what there is then."""
    store, _loaded, _links, libraries = kept
    taken = take(store.left(), KEY)
    assert taken is not None
    following = Standing(store, KEY)
    following.go_on(taken)
    following.changing()
    assert take(store.left(), KEY) is None
    following.attached(library(makes, 3))
    following.released(libraries[0])
    following.changed()
    again = take(store.left(), KEY)
    assert again is not None
    assert [2, 3] == [each.inode for each in again.attachments]


def lose_a_link(store: Kept) -> None:
    """One descriptor of the core did not come."""
    name = min(store.descriptors, key=len)
    os.close(store.descriptors[name].pop())


def lose_a_library(store: Kept) -> None:
    """A whole library did not come."""
    store.let_go(max(store.descriptors, key=len))


def add_one(store: Kept) -> None:
    """Something came that nobody described."""
    name = min(store.descriptors, key=len)
    store.descriptors[name].append(os.dup(store.descriptors[name][0]))


def add_a_group(store: Kept) -> None:
    """A library came that nobody described: it was being attached when its process was killed."""
    name = min(store.descriptors, key=len)
    store.descriptors[f"{name}-9"] = [os.dup(store.descriptors[name][0])]


def exchange_one(store: Kept) -> None:
    """One is another of its kind."""
    name = min(store.descriptors, key=len)
    os.close(store.descriptors[name].pop())
    store.descriptors[name].append(bpf_call.create_map(MapShape(bpf_call.MAP_TYPE_ARRAY, 4, 8, 1, 0)))


def put_a_pipe(store: Kept) -> None:
    """One is nothing of the kernel's that capd made."""
    name = min(store.descriptors, key=len)
    os.close(store.descriptors[name].pop())
    reading, writing = os.pipe()
    os.close(writing)
    store.descriptors[name].append(reading)


def forget(store: Kept) -> None:
    """The description is gone."""
    store.description = None


def garble(store: Kept) -> None:
    """The description lacks something."""
    assert store.description is not None
    del store.description["maps"]


def rename(store: Kept) -> None:
    """It is of another form."""
    assert store.description is not None
    store.description["form"] += 1


CHANGES = (lose_a_link, lose_a_library, add_one, add_a_group, exchange_one, put_a_pipe, forget, garble, rename)


@pytest.mark.parametrize("change", CHANGES)
def test_what_is_not_whole_is_let_go(kept: Set, change: Change) -> None:
    """Where anything is missing, too much, or something else, nothing is taken over, and all of it can be closed."""
    store = kept[0]
    change(store)
    assert take(store.left(), KEY) is None
    store.left().close(None)
    store.descriptors.clear()


def test_another_version_is_let_go(kept: Set) -> None:
    """Programs of another text, tables, ring size, tier or kernel are not gone on with."""
    assert take(kept[0].left(), "another") is None
    settings = CaptureSettings()
    others = (
        replace(settings, tier="classic"),
        replace(settings, data_ring_bytes=1 << 20),
        replace(settings, control_ring_bytes=1 << 20),
    )
    keys = {standing.key_of(each) for each in (settings, *others)}
    assert (4, standing.key_of(settings)) == (len(keys), standing.key_of(CaptureSettings()))


def test_too_many_are_not_kept(kept: Set, makes: Callable[[], int], monkeypatch: pytest.MonkeyPatch) -> None:
    """A set for which there is no room is not described, for a part of it would be no set; with room again it is whole."""
    store = kept[0]
    taken = take(store.left(), KEY)
    assert taken is not None
    following = Standing(store, KEY)
    following.go_on(taken)
    monkeypatch.setattr(standing, "DESCRIPTORS_MAX", following.descriptors + 1)
    following.changing()
    following.attached(library(makes, 3))
    following.changed()
    assert store.description is None
    following.changing()
    following.released(kept[3][0])
    following.changed()
    again = take(store.left(), KEY)
    assert again is not None, "there is room again, also for what there was none for"
    assert [2, 3] == [each.inode for each in again.attachments]


@pytest.mark.parametrize(("key_bytes", "value_bytes"), [(4, 4), (4, 16), (8, 8)])
def test_a_map_is_not_read_into_other_room_than_it_has(makes: Callable[[], int], key_bytes: int, value_bytes: int) -> None:
    """The kernel would write past it, into whatever memory lies behind."""
    made = makes()
    bpf_call.Map(made, 4, 8)
    with pytest.raises(MapLayoutError, match=f"4 and 8 bytes, and is read as {key_bytes} and {value_bytes}"):
        bpf_call.Map(made, key_bytes, value_bytes)
