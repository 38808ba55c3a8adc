"""The daemon's part of forcing: put in place, followed, repaired, tried by a canary; on a host of its own."""

from __future__ import annotations

import errno
import select
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from capd.daemon import enforcement_standing
from capd.daemon.cgroups import Hierarchy
from capd.daemon.configuration import Configuration, SelectionSection
from capd.daemon.enforcement import CHECK_SECONDS, Enforcement
from capd.daemon.enforcement_names import EnforcementNames, names_of
from capd.daemon.enforcement_section import EnforcementSection
from capd.daemon.errors import ConfigurationError
from capd.enforcer.forcing.ruleset import Ruleset
from capd.enforcer.forcing.table import Table
from capd.probes import bpf_call
from tests.forcing.yard import AGENT_USER, ENFORCER_USER, PROXY_PORT, RESOLVER_PORT, SHORT_SECONDS, Yard, inside

Make = Callable[..., Enforcement]


class Clock:
    """Time that only a test moves on."""

    def __init__(self) -> None:
        self.now = 0.0

    def look(self, enforcement: Enforcement, ground: Yard) -> None:
        """Let the next canary try, and wait for what it says."""
        self.now += CHECK_SECONDS
        before = enforcement.describe()["canary"]
        inside(ground.host, lambda: enforcement.attend(self.now, list))
        while enforcement.describe()["canary"] == before:
            time.sleep(0.01)
            enforcement.attend(self.now, list)


@pytest.fixture
def clock() -> Clock:
    """Give a clock at zero."""
    return Clock()


@pytest.fixture
def names(ground: Yard) -> EnforcementNames:
    """Give names of this yard's instance."""
    made = names_of(Path(f"/run/{ground.tag}"), systemd=False)
    above = f"/{ground.tag}"
    return EnforcementNames(table=made.table, parent=f"{above}/parent", enforcer=f"{above}/enforcer", pins=made.pins)


@pytest.fixture
def make(ground: Yard, names: EnforcementNames) -> Iterator[Make]:
    """Give a maker of enforcements; afterwards nothing of them stands."""
    made: list[Enforcement] = []

    def start(
        mode: str = "enforce",
        users: tuple[str, ...] = (),
        proxy_port: int = PROXY_PORT,
        enforcer: str | None = None,
        pins: Path = names.pins,
    ) -> Enforcement:
        ports = {"proxy_port": proxy_port, "resolver_port": RESOLVER_PORT}
        section = EnforcementSection.model_validate({"mode": mode, "user": str(ENFORCER_USER), "users": users, **ports})
        selection = SelectionSection(slices=(f"/{ground.tag}/slice",))
        hierarchy = Hierarchy(ground.root, systemd=False, parent=names.parent)
        own = replace(names, enforcer=enforcer or names.enforcer, pins=pins)
        made.append(Enforcement(section, selection, hierarchy, own, said.append))
        inside(ground.host, lambda: made[-1].follow({}))
        ground.cgroups["parent"] = hierarchy.directory(names.parent)
        ground.cgroups["slice"] = ground.cgroups["parent"].with_name("slice")
        return made[-1]

    said: list[str] = []
    yield start
    for enforcement in made:
        enforcement.close()
    inside(ground.host, lambda: enforcement_standing.remove(names))


def tries(ground: Yard, cgroup: str) -> tuple[str, str]:
    """Give what comes of a connection and of a datagram."""
    return (
        ground.attempt('tcp("10.77.0.2", 80)', cgroup),
        ground.attempt('udp("10.77.0.2", 443)', cgroup, patience=SHORT_SECONDS),
    )


def canary_of(enforcement: Enforcement) -> dict[str, Any]:
    """Give what the last canary found."""
    found = enforcement.describe()["canary"]
    assert isinstance(found, dict)
    return found


FORCED = ("proxy 10.77.0.2 80", "EPERM")


def test_parents_are_forced_before_any_run(ground: Yard, make: Make, clock: Clock) -> None:
    """What begins below the parent or a configured slice is forced from its first packet, and a canary proves it."""
    enforcement = make()
    assert (None, None) == (enforcement.problem, enforcement.closed())
    assert [FORCED, FORCED] == [tries(ground, "parent"), tries(ground, "slice")]
    clock.look(enforcement, ground)
    found = canary_of(enforcement)
    assert {"time_ns": found["time_ns"], "result": "forced", "open": [], "closed": [], "unknown": None} == found
    assert [f"/{ground.tag}/parent", f"/{ground.tag}/slice"] == enforcement.describe()["selected"]


def test_a_run_elsewhere_is_forced_too(ground: Yard, make: Make) -> None:
    """A run that lives below no selected parent, such as one from before, is selected by its own cgroup while it lives."""
    enforcement = make()
    outside = ground.cgroups["outside"]
    enforcement.follow({outside.stat().st_ino: f"/{outside.relative_to(ground.root)}"})
    assert FORCED == tries(ground, "outside")
    enforcement.follow({})
    assert "ECONNREFUSED" == tries(ground, "outside")[0]


def test_a_parent_made_anew_is_followed(ground: Yard, make: Make) -> None:
    """When somebody removed a parent it is made again and selected by its new number, before anything can run there."""
    enforcement = make()
    for name in ("slice", "parent/capd-canary", "parent"):
        (ground.cgroups["parent"].parent / name).rmdir()
    enforcement.follow({})
    assert None is enforcement.problem
    assert [FORCED, FORCED] == [tries(ground, "parent"), tries(ground, "slice")]


def test_what_others_take_away_is_put_back(ground: Yard, make: Make, clock: Clock, names: EnforcementNames) -> None:
    """A program that somebody removed from bpffs holds on, is put back there with the next look, and that is told."""
    enforcement = make()
    clock.look(enforcement, ground)
    shutil.rmtree(names.pins)
    assert "EPERM" == ground.attempt("socket.socket(socket.AF_INET, socket.SOCK_RAW, 1)", "parent")
    clock.look(enforcement, ground)
    repaired = enforcement.describe()["repaired"]
    assert isinstance(repaired, dict)
    assert (1, True) == (repaired["times"], " is gone" in repaired["what"])
    assert None is enforcement.problem
    assert FORCED == tries(ground, "parent")


def test_a_table_that_somebody_took_away_is_put_back_at_once(ground: Yard, make: Make, names: EnforcementNames) -> None:
    """The kernel tells of the change, so nobody waits for the next look; other programs' changes are none of ours."""
    enforcement = make()
    assert enforcement._ruleset is not None
    assert enforcement.watch is not None
    enforcement.look_again()  # at our own changes
    other = inside(ground.host, Ruleset)
    other.apply(Table(name="capd_other", counters=(), sets=(), chains=()))
    assert select.select([enforcement.watch], [], [], 5)[0]
    enforcement.look_again()
    other.remove("capd_other")
    other.close()
    repaired = enforcement.describe()["repaired"]
    assert isinstance(repaired, dict)
    assert 0 == repaired["times"]
    enforcement._ruleset.remove(names.table)
    assert "timeout" == ground.attempt('tcp("10.77.0.2", 80)', "parent", patience=SHORT_SECONDS)
    assert select.select([enforcement.watch], [], [], 5)[0]
    enforcement.look_again()
    assert FORCED == tries(ground, "parent")
    assert {"times": 1, "what": f"the table {names.table}: it is gone"}.items() <= enforcement.describe()["repaired"].items()  # type: ignore[attr-defined] # an object


def test_a_dead_listener_is_told_and_keeps_nobody_out(ground: Yard, make: Make, clock: Clock) -> None:
    """Where nobody listens agents reach nothing, which is closed and not open: it is told, and runs are let in."""
    enforcement = make(proxy_port=1)
    clock.look(enforcement, ground)
    canary = canary_of(enforcement)
    assert ("closed", ["IPv4: the enforcer does not listen", "IPv6: the enforcer does not listen"]) == (
        canary["result"],
        canary["closed"],
    )
    assert None is enforcement.closed()
    assert ("ECONNREFUSED", "EPERM") == tries(ground, "parent")


def test_a_way_around_is_found_by_the_canary(ground: Yard, make: Make, clock: Clock, names: EnforcementNames) -> None:
    """When neither layer holds any more and nothing else tells so, the canary does, and no run is let in."""
    enforcement = make()
    clock.look(enforcement, ground)
    enforcement._barrier.remove()
    assert enforcement._ruleset is not None
    enforcement._ruleset.remove(names.table)
    enforcement._table = None  # else the comparison would put it back first
    clock.look(enforcement, ground)
    assert ["a datagram is not refused: done"] == [way for way in canary_of(enforcement)["open"] if "datagram" in way]
    assert str(enforcement.closed()).startswith("agents' traffic gets around the enforcer: ")


def test_observing_redirects_and_refuses_nothing(ground: Yard, make: Make, clock: Clock) -> None:
    """In mode `observe` TCP reaches the enforcer, datagrams go where they were going, and no run is kept out."""
    enforcement = make(mode="observe")
    assert ("proxy 10.77.0.2 80", "timeout") == tries(ground, "parent")
    assert [] != ground.seen()
    clock.look(enforcement, ground)
    assert "forced" == canary_of(enforcement)["result"]
    counted = enforcement.describe()["refused"]
    assert isinstance(counted, dict)
    assert 1 <= counted["table"]["udp"]


def test_what_cannot_be_put_there_keeps_runs_out(ground: Yard, make: Make, names: EnforcementNames) -> None:
    """While another process owns the table no run is let in; when it is gone the next try succeeds."""
    first = make()
    second = make()
    assert "Operation not permitted" in str(second.closed())
    assert None is first.closed()
    first.close()
    second.follow({})
    assert None is second.closed()


def test_each_layer_is_put_there_without_the_other(ground: Yard, make: Make) -> None:
    """Where the programs have no place the table forces what starts meanwhile; no run is let in, and it is said why."""
    enforcement = make(pins=Path("/proc/capd-has-no-place-here"))
    assert "No such file" in str(enforcement.closed())
    assert FORCED == tries(ground, "parent")


def test_where_the_kernel_takes_neither_layer_runs_are_loose(
    ground: Yard, make: Make, names: EnforcementNames, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A directory for programs that were never loaded keeps nobody from the network, and is not taken for programs."""

    def refuse(*_: object) -> int:
        raise OSError(errno.EINVAL, "the kernel takes none")

    with monkeypatch.context() as patch:
        patch.setattr(bpf_call, "load", refuse)
        patch.setattr(Ruleset, "apply", refuse)
        enforcement = make()
        assert names.pins.is_dir()
        assert ([], True) == (inside(ground.host, lambda: enforcement_standing.standing(names)), enforcement.loose())
    inside(ground.host, lambda: enforcement.follow({}))
    assert (2, False) == (len(inside(ground.host, lambda: enforcement_standing.standing(names))), enforcement.loose())


def test_the_enforcers_cgroup_is_made_and_followed(ground: Yard, make: Make, names: EnforcementNames) -> None:
    """Capd's own cgroup is there before the enforcer is, and one that was made anew is the one that is let pass."""
    place = ground.cgroups["enforcer"].with_name("own")
    made = make(enforcer=f"{names.enforcer.rsplit('/', 1)[0]}/own")
    assert place.is_dir()
    place.rmdir()
    made.follow({})
    ground.cgroups["own"] = place
    assert None is made.problem
    assert made._ruleset is not None
    assert made._table is not None
    assert None is made._ruleset.difference(made._table)
    place.rmdir()


def test_users_are_checked(make: Make) -> None:
    """A user that does not exist is a mistake in the configuration; so are root and the enforcer's own."""
    for users in (("no-such-user",), (str(ENFORCER_USER),), ("root",)):
        with pytest.raises(ConfigurationError):
            make(users=users)
    with pytest.raises(ConfigurationError, match=r"enforcement.user: must not be root"):
        Enforcement(
            EnforcementSection(mode="enforce", user="root"),
            SelectionSection(),
            Hierarchy(systemd=False),
            names_of(Path("/run/x"), systemd=False),
            print,
        )
    assert None is make(users=(str(AGENT_USER),)).problem


def test_users_follow_a_reload(ground: Yard, make: Make) -> None:
    """A user that a reload names is forced in every cgroup, one that it leaves out no more; a mistake changes nothing."""

    def reloaded(*users: str) -> str:
        enforcement.select(users, SelectionSection(slices=(f"/{ground.tag}/slice",)))
        inside(ground.host, lambda: enforcement.follow({}))
        assert None is enforcement.problem
        return ground.attempt('tcp("10.77.0.2", 80)', "outside", user=AGENT_USER)

    enforcement = make()
    assert "ECONNREFUSED" == ground.attempt('tcp("10.77.0.2", 80)', "outside", user=AGENT_USER)
    assert FORCED[0] == reloaded(str(AGENT_USER))
    assert "EPERM" == ground.attempt('udp("10.77.0.2", 443)', "outside", user=AGENT_USER)
    with pytest.raises(ConfigurationError):
        reloaded("no-such-user")
    inside(ground.host, lambda: enforcement.follow({}))
    assert FORCED[0] == ground.attempt('tcp("10.77.0.2", 80)', "outside", user=AGENT_USER)
    assert FORCED == tries(ground, "slice")
    assert "ECONNREFUSED" == reloaded()
    assert FORCED == tries(ground, "slice")


def test_names_follow_from_the_instance() -> None:
    """The installed instance has plain names, another one its own; with systemd the parent is a slice."""
    plain, other = names_of(Path("/run/capd"), systemd=True), names_of(Path("/tmp/x"), systemd=True)
    assert ("capd", "capd-agents.slice") == (plain.table, plain.parent)
    assert other.table != plain.table
    assert other.parent == f"{other.table}.slice"
    assert Configuration().runtime_dir == Path("/run/capd")


def test_nothing_stands_after_removal(ground: Yard, make: Make, names: EnforcementNames) -> None:
    """What a daemon left is named, and removed by one call; a second one finds nothing."""
    make().close()
    assert 2 == len(inside(ground.host, lambda: enforcement_standing.standing(names)))
    assert 2 == len(inside(ground.host, lambda: enforcement_standing.remove(names)))
    assert [] == inside(ground.host, lambda: enforcement_standing.remove(names))
    assert "ECONNREFUSED" == tries(ground, "parent")[0]
