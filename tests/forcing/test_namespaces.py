"""Runs in network namespaces of their own, as containers are: forced there by listeners that were opened inside."""

from __future__ import annotations

import socket
import struct
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from capd.enforcer.forcing.namespaces import Opened, namespaces_of, open_namespace, own_namespace
from capd.enforcer.forcing.plan import plan
from capd.enforcer.forcing.ruleset import ForcingError
from capd.probes.barrier_pins import Barrier
from tests.forcing.yard import PROXY_PORT, RESOLVER_PORT, SHORT_SECONDS, TABLE, Yard, sh

PORTS = {"proxy_port": PROXY_PORT, "resolver_port": RESOLVER_PORT}


@pytest.fixture
def opened(ground: Yard, barrier: Barrier) -> Iterator[Opened]:
    """Give the sink's namespace, opened: its other end is the yard's host, and no rule of that one is seen there."""
    made = open_namespace(ground.sink, plan(ground.facts()), **PORTS)
    yield made
    made.ruleset.remove(TABLE)
    made.close()


def test_a_run_elsewhere_reaches_the_listeners_that_were_opened_there(ground: Yard, opened: Opened) -> None:
    """A connection there comes, with its destination, to a socket of ours; a datagram is refused."""
    for family, host, number in ((socket.AF_INET, "10.77.0.1", 0), (socket.AF_INET6, "fd77::1", 1)):
        connect = f"client = socket.create_connection(('{host}', 5432), 60)\nprint('ready', flush=True)"
        body = f"{connect}\nreturn client.recv(9).decode()"
        process = ground.begin(f'namespace("{ground.sink}")\n{body}')
        peer, _address = opened.proxy[number].accept()
        with peer:
            level, size, start = (socket.SOL_IP, 16, 4) if family == socket.AF_INET else (socket.IPPROTO_IPV6, 28, 8)
            raw = peer.getsockopt(level, 80, size)
            width = 4 if family == socket.AF_INET else 16
            wanted = socket.inet_ntop(family, raw[start : start + width]), struct.unpack_from(">H", raw, 2)[0]
            assert (host, 5432) == wanted
            peer.sendall(b"proxied")
        assert "proxied\n" == process.communicate()[0]
    assert "EPERM" == ground.attempt(f'namespace("{ground.sink}")\nreturn udp("10.77.0.1", 443)')


def test_loopback_may_come_up_later(ground: Yard, barrier: Barrier) -> None:
    """A namespace that is opened before its loopback has addresses is forced by both families when it has."""
    name = f"{ground.tag}-d"
    sh(f"ip netns add {name}")
    try:
        made = open_namespace(Path("/run/netns") / name, plan(ground.facts()), **PORTS)
        try:
            sh(f"ip -n {name} link set lo up")
            for host, listener in zip(("127.0.0.1", "::1"), made.proxy, strict=True):
                connect = f"client = socket.create_connection(('{host}', 5432), 60)\nprint('ready', flush=True)"
                process = ground.begin(f'namespace("/run/netns/{name}")\n{connect}\nreturn client.recv(9).decode()')
                peer, _address = listener.accept()
                with peer:
                    peer.sendall(b"proxied")
                assert "proxied\n" == process.communicate()[0]
        finally:
            made.close()
    finally:
        subprocess.run(["ip", "netns", "del", name], check=False, capture_output=True)


def test_datagrams_of_names_come_to_the_resolvers_socket(ground: Yard, opened: Opened) -> None:
    """A query in another namespace reaches the socket that was bound there, and its answer comes back from whom was asked."""
    ask = f'namespace("{ground.sink}")\nprint("ready", flush=True)\nreturn udp("10.77.0.1", 53)'
    process: subprocess.Popen[str] = ground.begin(ask)
    bound = next(one for one in opened.resolver if one.type == socket.SOCK_DGRAM)
    query, peer = bound.recvfrom(100)
    bound.sendto(b"resolved", peer)
    assert (b"datagram", "resolved\n") == (query, process.communicate()[0])


def test_loopbacks_address_by_another_way_is_no_way_out(ground: Yard, barrier: Barrier) -> None:
    """Who routes 127.0.0.1 out of a namespace sends nothing to it, although it is the listener's address."""
    bend = [
        "ip netns add {0}-b; ip link add bend0 netns {0}-b type veth peer name bend0 netns {1}",
        "ip -n {0}-b link set lo up; ip -n {0}-b addr add 10.78.0.1/24 dev bend0; ip -n {0}-b link set bend0 up",
        "ip -n {1} link set bend0 up; ip netns exec {0}-b sysctl -qw net.ipv4.conf.all.route_localnet=1",
        "ip -n {0}-b route del local 127.0.0.0/8 dev lo table local; ip -n {0}-b route del local 127.0.0.1 dev lo table local",
        "ip -n {0}-b route add 127.0.0.1 via 10.78.0.2 dev bend0 src 10.78.0.1",
        "ip -n {0}-b neigh add 10.78.0.2 lladdr 02:00:00:00:00:01 dev bend0",
    ]
    try:
        sh(*(line.format(ground.tag, ground.sink.name) for line in bend))
        for cgroup, arrives in (("outside", True), ("run", False)):
            ground.seen()
            body = f'namespace("/run/netns/{ground.tag}-b")\nreturn {{}}'
            for attempt in (f'tcp("127.0.0.1", {PROXY_PORT})', f'udp("127.0.0.1", {RESOLVER_PORT}, connected=True)'):
                ground.attempt(body.format(attempt), cgroup, patience=SHORT_SECONDS)
            assert arrives == bool(ground.seen())
    finally:
        subprocess.run(["ip", "netns", "del", f"{ground.tag}-b"], check=False, capture_output=True)


def test_what_is_led_away_behind_both_layers_is_a_limit(ground: Yard, barrier: Barrier) -> None:
    """A packet that was judged goes by loopback, and who may change a namespace's hooks sends it elsewhere from there."""
    bend = [
        "ip netns add {0}-c; ip link add bend1 netns {0}-c type veth peer name bend1 netns {1}",
        "ip -n {0}-c link set lo up; ip -n {0}-c link set bend1 up; ip -n {1} link set bend1 up",
        "ip netns exec {0}-c nft add table netdev t",
        "ip netns exec {0}-c nft 'add chain netdev t e {{ type filter hook egress device lo priority 0; }}'",
        "ip netns exec {0}-c nft 'add rule netdev t e udp dport {2} ip daddr set 10.79.0.2 fwd to bend1'",
    ]
    try:
        sh(*(line.format(ground.tag, ground.sink.name, RESOLVER_PORT) for line in bend))
        ground.attempt(f'namespace("/run/netns/{ground.tag}-c")\nreturn udp("127.0.0.1", {RESOLVER_PORT}, connected=True)')
        assert [b"datagram"] == [packet[-8:] for packet in ground.seen() if packet[-8:] == b"datagram"]
    finally:
        subprocess.run(["ip", "netns", "del", f"{ground.tag}-c"], check=False, capture_output=True)


def test_namespaces_are_found_by_their_processes(ground: Yard) -> None:
    """Of processes in several namespaces each foreign one is named once, our own and those of the dead are not."""
    process = ground.begin("print('ready', flush=True)\ntime.sleep(60)")
    try:
        assert {ground.host.stat().st_ino: process.pid} == namespaces_of([1, process.pid, 2**22 - 1], own_namespace())
    finally:
        process.kill()
        process.communicate()


def test_what_cannot_be_opened_is_told(ground: Yard, opened: Opened) -> None:
    """Where somebody has the port nothing is changed and the reason is told; so it is for a namespace that is gone."""
    with pytest.raises(ForcingError, match=r"cannot force traffic in the network namespace .*: Address already in use"):
        open_namespace(ground.sink, plan(ground.facts()), **PORTS)
    assert None is opened.ruleset.difference(plan(ground.facts()))
    with pytest.raises(ForcingError, match="No such file"):
        open_namespace(Path("/proc/self/ns/none"), plan(ground.facts()), **PORTS)
