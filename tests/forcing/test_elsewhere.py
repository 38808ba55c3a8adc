"""Runs in network namespaces of their own, with a whole `capd up`: forced, judged and resolved there; nothing is left behind.

"host" ── veth ── "sink" ── veth ── "container" 10.78.0.2, whose way to everywhere is the sink
"""

from __future__ import annotations

import contextlib
import json
import signal
import subprocess
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from capd.daemon.enforcement_names import names_of
from capd.daemon.errors import DaemonUnreachableError
from capd.daemon.namespace_keeping import DESCRIPTORS_EACH, NAMESPACES_PER_RUN_MAX
from capd.enforcer.forcing.ruleset import Ruleset
from tests.daemon.conftest import capd, wait_until
from tests.forcing.instance import PROXY_PORT, RESOLVER_PORT, Agent, Instance, agent, instance
from tests.forcing.test_bypass_table import ASK, ASK_STREAM, DENIED, REFUSED
from tests.forcing.yard import AGENT_USER, TARGET_PORT, Yard, inside, sh
from tests.requirements import require_command, require_probes

pytestmark = pytest.mark.kernel
ADDRESS = bytes([10, 78, 0, 2])
LISTENS, BOUND = "0A", "07"
"""States in /proc/net: of a listener, of a socket of UDP."""


@pytest.fixture(scope="module")
def container(ground: Yard) -> Iterator[Path]:
    """Make the third namespace."""
    name, sink = f"{ground.tag}-c", ground.sink.name
    sh(
        f"ip netns add {name}; ip -n {name} link set lo up",
        f"ip link add c0 netns {name} type veth peer name c0 netns {sink}",
        f"ip -n {name} addr add 10.78.0.2/24 dev c0; ip -n {sink} addr add 10.78.0.1/24 dev c0",
        f"ip -n {name} link set c0 up; ip -n {sink} link set c0 up",
        f"ip -n {name} route add default via 10.78.0.1",
    )
    yield Path("/run/netns") / name
    subprocess.run(["ip", "netns", "del", name], check=False, capture_output=True)


@pytest.fixture(scope="module")
def place(ground: Yard) -> Iterator[Instance]:
    """Start what all tests share."""
    require_probes()
    require_command("nft", "nsenter", "setpriv")
    with instance(ground) as made:
        yield made


@pytest.fixture
def inmate(place: Instance, container: Path) -> Iterator[Agent]:
    """Start an agent that lives in the container."""
    with agent(place.daemon, AGENT_USER, container) as made:
        yield made


def known(place: Instance) -> list[dict[str, Any]]:
    """Give what the status says of other namespaces."""
    found: list[dict[str, Any]] = place.daemon.status()["enforcement"]["namespaces"]["known"]
    return found


def left(place: Instance) -> list[bytes]:
    """Give the packets that the container itself sent out since the last call."""
    return [packet for packet in place.ground.seen() if packet[12:14] == b"\x08\0" and packet[26:30] == ADDRESS]


def served(place: Instance) -> None:
    """Wait until the enforcer has been handed the container's sockets."""
    directory = place.daemon.directory / "run" / "enforcer"

    def told() -> bool:
        names = ("worker-0", "resolver")
        return all(json.loads((directory / f"{name}.status.json").read_bytes())["namespaces"] for name in names)

    wait_until(told, "sockets are handed over")


def test_the_first_connection_of_a_container_is_judged(place: Instance, inmate: Agent) -> None:
    """Whenever it is made, it is held until the listeners are there, then allowed or denied, and the sink hears the host."""
    place.ground.seen()
    place.sink.take()
    assert "200 OK" in inmate.does('say(get("/open/inside"))')
    assert b"GET /open/inside" in place.sink.take()
    assert "HTTP/1.1 403" in inmate.does('say(get("/shut"))')
    assert b"" == place.sink.take()
    assert [] == left(place)
    opened = [entry for entry in place.entries() if entry["kind"] == "open" and entry["client"][0] == "10.78.0.2"]
    assert 2 == len({entry["session"] for entry in opened})


def test_names_are_asked_for_in_a_container(place: Instance, inmate: Agent) -> None:
    """A query there, by datagram or connection, comes to the resolver, and a name as a message is not sent on."""
    served(place)
    place.ground.seen()
    assert ["3", "3"] == [inmate.does(ASK), inmate.does(ASK_STREAM)]
    assert [] == [packet for packet in place.ground.seen() if b"evil" in packet]


ROWS = {
    "QUIC": ('udp("10.77.0.2", 443)', REFUSED),
    "ICMP": ('raw("10.77.0.2", 1)', REFUSED),
    "TCP that is no HTTP": ('tcp("10.77.0.2", 2525)', REFUSED),
    "the proxy's port": (f'tcp("127.0.0.1", {PROXY_PORT})', REFUSED),
    "the resolver's port": (f'udp("127.0.0.1", {RESOLVER_PORT})', REFUSED),
    "the host's loopback": (f'tcp("127.0.0.1", {TARGET_PORT})', REFUSED),
    "loopback by its other address": (f'tcp("0.0.0.0", {TARGET_PORT})', REFUSED),
    "metadata": ('say(get("/open/a"), "169.254.169.254")', REFUSED),
    "a name as a Host": ('say(get("/x", "c2VjcmV0.evil.test"))', DENIED),
}


@pytest.mark.parametrize("name", ROWS)
def test_no_packet_gets_out_of_a_container(place: Instance, inmate: Agent, name: str) -> None:
    """What is refused on the host is refused there, and the container itself never sends a packet."""
    served(place)
    place.ground.seen()
    body, ends = ROWS[name]
    found = inmate.does(body)
    assert found.startswith(ends), (name, found)
    assert [] == left(place)


def test_the_status_shows_it_and_a_canary_tried_it(place: Instance, inmate: Agent, container: Path) -> None:
    """The namespace is in the status with its run's cgroup, owned, and tried from inside."""

    def tried() -> bool:
        return [(container.stat().st_ino, "forced")] == [(one["namespace"], one["canary"]) for one in known(place)]

    assert "200 OK" in inmate.does('say(get("/open/inside"))')
    wait_until(tried, "a canary has tried")
    (found,) = known(place)
    assert (None, True, []) == (found["problem"], found["owned"], found["open"])
    told = place.daemon.status()["enforcement"]["namespaces"]
    assert (2, None) == (told["handed_to"], told["problem"])

    def shown() -> bool:
        words = capd("status", "--config", place.daemon.config)
        screen = subprocess.run(words, capture_output=True, text=True, check=False).stdout
        return "namespaces" in screen and "1 open" in screen

    wait_until(shown, "a person is shown it too")


def test_rules_of_a_container_are_not_its_roots(place: Instance, inmate: Agent, container: Path) -> None:
    """Who is root there flushes the rules and nothing changes."""
    served(place)
    subprocess.run(["nsenter", f"--net={container}", "nft", "flush", "ruleset"], check=True)
    place.ground.seen()
    assert "HTTP/1.1 403" in inmate.does('say(get("/shut"))')
    assert inmate.does('udp("10.77.0.2", 443)') in REFUSED
    assert [] == left(place)


def test_a_container_is_served_while_the_daemon_is_away(place: Instance, inmate: Agent) -> None:
    """A killed daemon is a matter of new runs: this one is judged meanwhile, and the next daemon takes the namespace over."""
    served(place)
    daemon = place.daemon.status()["pid"]
    place.ground.seen()
    subprocess.run(["kill", f"-{signal.SIGKILL}", str(daemon)], check=True)
    assert "HTTP/1.1 403" in inmate.does('say(get("/shut"))')

    def taken_over() -> bool:
        with contextlib.suppress(DaemonUnreachableError, KeyError):
            return place.daemon.status()["pid"] != daemon and bool(known(place)) and known(place)[0]["problem"] is None
        return False

    wait_until(taken_over, "the next daemon has it")
    served(place)
    assert "200 OK" in inmate.does('say(get("/open/again"))')
    assert [] == left(place)


def test_nothing_is_left_behind(place: Instance, container: Path) -> None:
    """When no process of a run lives there any more the table and the sockets are gone."""
    with agent(place.daemon, AGENT_USER, container) as made:
        assert "200 OK" in made.does('say(get("/open/inside"))')
    wait_until(lambda: not known(place), "it is let go")
    table = names_of(place.daemon.directory / "run", systemd=False).table
    ruleset = inside(container, Ruleset)
    assert None is ruleset.flags(table)
    ruleset.close()

    def free() -> bool:
        files = [inside(container, partial(Path(f"/proc/thread-self/net/{name}").read_text)) for name in ("tcp", "tcp6", "udp")]
        ends = {line.split()[1][-4:] for text in files for line in text.splitlines() if line.split()[3] in (LISTENS, BOUND)}
        return not ends & {f"{port:04X}" for port in (PROXY_PORT, RESOLVER_PORT)}

    wait_until(free, "no socket is left")


MANY = f"""
global children
children = []
for _ in range({NAMESPACES_PER_RUN_MAX} + 2):
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        done = ctypes.CDLL(None, use_errno=True).unshare(0x40000000)
        os.write(write, b"x"); time.sleep(600); os._exit(done)
    os.read(read, 1); os.close(read); os.close(write)
    children.append(pid)
return len(children)
"""


def test_one_run_does_not_take_all(place: Instance) -> None:
    """Of the namespaces of one run only so many are opened; the status says of the others that they reach nothing, and why."""
    place.root.does(MANY)

    def bounded() -> bool:
        said = [one["problem"] for one in known(place)]
        return (said.count(None), said.count("there is room for no more")) == (NAMESPACES_PER_RUN_MAX, 2)

    wait_until(bounded, "the bound holds")
    directory = Path(f"/proc/{place.daemon.status()['pid']}/fd")
    many = len(list(directory.iterdir()))
    place.root.does("for one in children: os.kill(one, 9); os.waitpid(one, 0)\nreturn 1")
    wait_until(lambda: not known(place), "they are gone")
    fewer = (DESCRIPTORS_EACH - 2) * NAMESPACES_PER_RUN_MAX  # without IPv6 there are not as many
    wait_until(lambda: len(list(directory.iterdir())) <= many - fewer, "what they held is closed")
