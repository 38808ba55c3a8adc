"""Whose a redirected connection is, with real sockets of agents and of others."""

from __future__ import annotations

import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from capd.enforcer.forcing.cgroup_paths import WALK_SECONDS_MIN, CgroupPaths
from capd.enforcer.forcing.ruleset import Ruleset
from capd.enforcer.forcing.socket_owner import SocketOwners
from tests.forcing.yard import TARGET_PORT, Yard, inside

V4, V6 = socket.AF_INET, socket.AF_INET6


@pytest.fixture
def owners(ground: Yard) -> Iterator[SocketOwners]:
    """Give who asks on the yard's host."""
    made = inside(ground.host, SocketOwners)
    yield made
    made.close()


@contextmanager
def holding(ground: Yard, made: str, cgroup: str = "run") -> Iterator[tuple[str, int]]:
    """Let an agent make a socket and hold it; give its own end."""
    body = f"{made}\nprint('ready', flush=True)\nprint(*made.getsockname()[:2], flush=True)\ntime.sleep(60)"
    process: subprocess.Popen[str] = ground.begin(body, cgroup)
    try:
        assert process.stdout is not None
        host, port = process.stdout.readline().split()
        yield host, int(port)
    finally:
        process.kill()
        process.communicate()


def number(ground: Yard, name: str) -> int:
    """Give a cgroup's number."""
    return ground.cgroups[name].stat().st_ino


def test_a_redirected_connection_has_the_agents_cgroup(ground: Yard, rules: Ruleset, owners: SocketOwners) -> None:
    """By its two ends, its own and the one it wanted, a connection of either family is known as its run's."""
    for family, host in ((V4, "10.77.0.2"), (V6, "fd77::2")):
        made = f"made = socket.create_connection(('{host}', 5432))"
        with holding(ground, made) as end:
            found = owners.of_connection(family, end, (host, 5432))
            assert found is not None
            assert (number(ground, "run"), 0) == (found.cgroup, found.user)
            assert None is owners.of_connection(family, end, (host, 5433))
        assert None is owners.of_connection(family, end, (host, 1))


def test_others_are_told_apart(ground: Yard, owners: SocketOwners) -> None:
    """A connection from outside of runs has the cgroup of its maker, so that it is taken for nobody's."""
    made = f"made = socket.create_connection(('127.0.0.1', {TARGET_PORT}))"
    with holding(ground, made, "outside") as end:
        found = owners.of_connection(V4, end, ("127.0.0.1", TARGET_PORT))
        assert found is not None
        assert number(ground, "outside") == found.cgroup


@pytest.mark.parametrize("connected", [True, False])
def test_a_datagrams_socket_is_found_by_its_own_end(ground: Yard, owners: SocketOwners, connected: bool) -> None:
    """A UDP socket is known whether it is connected or not; one that shares its port with another run's is nobody's."""
    reuse = (
        "made = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)\nmade.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)\n"
    )
    made = f"{reuse}made.connect(('10.77.0.2', 53))" if connected else f"{reuse}made.bind(('', 0))"
    with holding(ground, made) as end:
        found = owners.of_datagram(V4, ("10.77.0.1", end[1]))
        assert found is not None
        assert number(ground, "run") == found.cgroup
        with holding(ground, f"{reuse}made.bind(('', {end[1]}))", "outside"):
            assert None is owners.of_datagram(V4, ("10.77.0.1", end[1]))
    assert None is owners.of_datagram(V4, ("10.77.0.1", end[1]))


def test_a_cgroups_number_gives_its_path(ground: Yard) -> None:
    """Paths below the parents are found, also of cgroups made later, and a number that nobody has costs one walk in a while."""
    now = [0.0]
    parent = f"/{ground.cgroups['agents'].relative_to(ground.root)}"
    paths = CgroupPaths(ground.root, [parent], lambda: now[0])
    assert f"{parent}/run" == paths.path_of(number(ground, "run"))
    assert None is paths.path_of(number(ground, "outside"))
    below = ground.cgroups["run"] / "below"
    below.mkdir()
    try:
        made = below.stat().st_ino
        assert None is paths.path_of(made)
        now[0] += WALK_SECONDS_MIN
        assert f"{parent}/run/below" == paths.path_of(made)
    finally:
        below.rmdir()
