"""Whose a redirected connection or datagram is, with real sockets of agents and of others."""

from __future__ import annotations

import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from capd.enforcer.forcing.ruleset import Ruleset
from capd.enforcer.forcing.socket_owner import SocketOwners
from capd.enforcer.proxy import flow
from tests.forcing.yard import TARGET_PORT, Yard, inside

V4 = socket.AF_INET


@pytest.fixture
def owners(ground: Yard) -> Iterator[SocketOwners]:
    """Give who asks on the yard's host."""
    made = inside(ground.host, SocketOwners)
    yield made
    made.close()


@pytest.fixture
def connections(ground: Yard) -> Iterator[flow.SocketOwners]:
    """Give who asks about connections there."""
    made = inside(ground.host, flow.SocketOwners)
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


def test_a_redirected_connection_has_the_agents_cgroup(ground: Yard, rules: Ruleset, connections: flow.SocketOwners) -> None:
    """By its two ends, its own and the one it wanted, a connection of either family is known as its run's."""
    for host in ("10.77.0.2", "fd77::2"):
        made = f"made = socket.create_connection(('{host}', 5432))"
        with holding(ground, made) as end:
            found = connections.find(end, (host, 5432))
            assert found is not None
            assert (number(ground, "run"), 0) == (found.cgroup, found.uid)
            assert None is connections.find(end, (host, 5433))
        assert None is connections.find(end, (host, 1))


def test_a_dual_socket_is_known_by_its_ipv4_ends(ground: Yard, rules: Ruleset, connections: flow.SocketOwners) -> None:
    """A socket of IPv6 that speaks IPv4 is found, though the kernel tells its ends in IPv6's clothes."""
    made = "made = socket.create_connection(('::ffff:10.77.0.2', 5432))"
    with holding(ground, made) as end:
        found = connections.find((end[0].removeprefix("::ffff:"), end[1]), ("10.77.0.2", 5432))
    assert found is not None
    assert number(ground, "run") == found.cgroup


@pytest.mark.parametrize("host", ["", "10.77.0.1"])
def test_who_listens_is_not_who_connects(ground: Yard, connections: flow.SocketOwners, host: str) -> None:
    """A connection whose port NAT changed to one that another run listens on is nobody's; the kernel names the listener."""
    with holding(ground, f"made = socket.create_server(('{host}', 0))") as end:
        assert None is connections.find(("10.77.0.1", end[1]), ("10.77.0.2", 5432))


def test_others_are_told_apart(ground: Yard, connections: flow.SocketOwners) -> None:
    """A connection from outside of runs has the cgroup of its maker, so that it is taken for nobody's."""
    made = f"made = socket.create_connection(('127.0.0.1', {TARGET_PORT}))"
    with holding(ground, made, "outside") as end:
        found = connections.find(end, ("127.0.0.1", TARGET_PORT))
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
