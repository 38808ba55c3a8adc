"""A host of its own to force traffic on: network namespaces, a sink that sees every packet, listeners, agents.

What lives here: making and unmaking all that. What must not: expectations.

    "host" 10.77.0.1, fd77::1  ── veth ──  "sink" 10.77.0.2, fd77::2 (the way to everywhere)

The proxy's and the resolver's places are taken by real servers that say which destination the agent wanted.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import socket
import struct
import subprocess
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from capd.enforcer.forcing.plan import CgroupAt, Facts
from tests.probes.watching import cgroup_root

PYTHON = "/usr/bin/python3"
PROXY_PORT, RESOLVER_PORT = 15901, 15953
TARGET_PORT = 15990
"""Of a server on this host that is not capd's, on all addresses."""
ENFORCER_USER = 64_901
AGENT_USER = 64_902
TABLE = "capd_yard"
ATTEMPT_SECONDS_MAX = 120
PATIENCE_SECONDS, SHORT_SECONDS = 5.0, 0.25
"""For an answer; and where silence is what is expected."""
CLONE_NEWNET = 0x40000000
ETH_P_ALL = 3
ALL_ETHERNET = socket.htons(ETH_P_ALL)
NEIGHBOUR_TYPES = range(130, 144)
"""ICMPv6 that hosts say of themselves: listeners, routers, neighbours."""
LIBC = ctypes.CDLL(None, use_errno=True)
Made = TypeVar("Made")

LISTENER = """
import os, socket, struct, sys, selectors
proxy, resolver, target, user = map(int, sys.argv[1:])
selector = selectors.DefaultSelector()
def listen(family, kind, host, port):
    server = socket.socket(family, kind)
    server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    server.bind((host, port))
    if kind == socket.SOCK_STREAM: server.listen(64)
    selector.register(server, selectors.EVENT_READ, port)
def wanted(peer):
    if peer.family == socket.AF_INET:
        raw = peer.getsockopt(socket.SOL_IP, 80, 16)
        return socket.inet_ntop(socket.AF_INET, raw[4:8]), struct.unpack_from(">H", raw, 2)[0]
    raw = peer.getsockopt(socket.IPPROTO_IPV6, 80, 28)
    return socket.inet_ntop(socket.AF_INET6, raw[8:24]), struct.unpack_from(">H", raw, 2)[0]
for family, host in ((socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")):
    for port in (proxy, resolver): listen(family, socket.SOCK_STREAM, host, port)
    listen(family, socket.SOCK_DGRAM, host, resolver)
listen(socket.AF_INET6, socket.SOCK_STREAM, "::", target)
os.setgid(user); os.setuid(user)
print("ready", flush=True)
while True:
    for key, _ in selector.select():
        server = key.fileobj
        if server.type == socket.SOCK_DGRAM:
            data, peer = server.recvfrom(2000)
            server.sendto(b"resolver", peer)
            continue
        peer, _ = server.accept()
        if key.data == target:
            peer.sendall(b"target"); peer.close()
            continue
        try: host, port = wanted(peer)
        except OSError: host, port = "nothing", 0
        word = "proxy" if key.data == proxy else "resolver"
        answer = f"{word} {host} {port}"
        # What another program of this host listens on is reached through the proxy, as an allowed target would be.
        if port == 15999:
            with socket.create_connection((host, port), 1) as target: answer = "through " + target.recv(100).decode()
        peer.sendall(answer.encode()); peer.close()
"""

PRELUDE = """
import errno, os, socket, struct, sys, threading, time, ctypes
PATIENCE = 0.25
def tcp(host, port, family=socket.AF_INET, seconds=None, mark=0, made=None):
    with made or socket.socket(family) as client:
        client.settimeout(seconds or PATIENCE)
        if mark: client.setsockopt(socket.SOL_SOCKET, 36, mark)
        client.connect((host, port))
        client.sendall(b"tcp")
        return client.recv(100).decode()
def device(kind=socket.SOCK_STREAM, family=socket.AF_INET):
    made = socket.socket(family, kind); made.setsockopt(socket.SOL_SOCKET, 25, b"veth0"); return made
def udp(host, port, family=socket.AF_INET, mark=0, connected=False, made=None):
    with made or socket.socket(family, socket.SOCK_DGRAM) as client:
        client.settimeout(PATIENCE)
        if mark: client.setsockopt(socket.SOL_SOCKET, 36, mark)
        if connected:
            client.connect((host, port)); client.send(b"datagram")
        else: client.sendto(b"datagram", (host, port))
        return client.recv(100).decode()
def raw(host, protocol, data=b"x" * 32, family=socket.AF_INET, kind=socket.SOCK_RAW):
    with socket.socket(family, kind, protocol) as client:
        client.sendto(data, (host, 0)); return "sent"
def namespace(path):
    assert ctypes.CDLL(None).setns(os.open(path, os.O_RDONLY), 0x40000000) == 0
def join(cgroup): open(cgroup + "/cgroup.procs", "w").write(str(os.getpid()))
def attempt(body):
    try: return body()
    except TimeoutError: return "timeout"
    except OSError as error: return errno.errorcode.get(error.errno, str(error))
"""


def inside(namespace: Path, function: Callable[[], Made]) -> Made:
    """Call a function in a network namespace, by a thread that ends there; sockets that it makes belong to it for good."""
    results: list[Made] = []

    def work() -> None:
        descriptor = os.open(namespace, os.O_RDONLY | os.O_CLOEXEC)
        assert LIBC.setns(descriptor, CLONE_NEWNET) == 0
        os.close(descriptor)
        results.append(function())

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    (made,) = results
    return made


@dataclass
class Yard:
    """All that a case needs.

    Attributes:
        host, sink: network namespaces.
        root: of the cgroup2 hierarchy.
        agents: the parent cgroup of runs; `run` is one below it; `enforcer` capd's own; `outside` none of these.
    """

    tag: str
    host: Path
    sink: Path
    root: Path
    packets: socket.socket
    cgroups: dict[str, Path] = field(default_factory=dict)
    server: subprocess.Popen[str] | None = None

    def facts(self, users: tuple[int, ...] = ()) -> Facts:
        """Give the facts of this host, with users that are selected beside the cgroup."""
        return Facts(
            name=TABLE,
            mode="enforce",
            agents=(self.at(self.cgroups["agents"]),),
            users=users,
            enforcer_user=ENFORCER_USER,
            enforcer_cgroup=self.at(self.cgroups["enforcer"]),
            proxy_port=PROXY_PORT,
            resolver_port=RESOLVER_PORT,
        )

    def at(self, cgroup: Path) -> CgroupAt:
        """Give a cgroup's level and number."""
        return CgroupAt(level=len(cgroup.relative_to(self.root).parts), id=cgroup.stat().st_ino)

    def numbered(self, *names: str) -> dict[int, Path]:
        """Give cgroups by the kernel's number."""
        return {self.cgroups[name].stat().st_ino: self.cgroups[name] for name in names}

    def attempt(
        self,
        body: str,
        cgroup: str = "run",
        *,
        user: int = 0,
        namespace: Path | None = None,
        patience: float = PATIENCE_SECONDS,
    ) -> str:
        """Let an agent try something.

        Args:
            body: an expression, or statements of which the last gives a result by `return`.
            cgroup: where it lives.
            user: who it is.
            namespace: where it is started; else on the host.
            patience: how many seconds it waits for an answer.

        Returns:
            What came of it: an answer, the error's name, or `timeout`.
        """
        process = self._start(body, cgroup, user, namespace, patience)
        said, wrong = process.communicate(timeout=ATTEMPT_SECONDS_MAX)
        return said.strip() or wrong.strip()

    def attempt_all(self, attempts: list[str], *, patience: float = PATIENCE_SECONDS) -> list[str]:
        """Let one agent try several things, each an expression, one after the other; give what came of each."""
        body = f"words = {attempts!r}\nreturn '\\n'.join(attempt(lambda: eval(word)) for word in words)"
        return self.attempt(body, patience=patience).splitlines()

    def begin(self, body: str, cgroup: str = "run") -> subprocess.Popen[str]:
        """Let an agent try something that it says "ready" for, and go on meanwhile."""
        process = self._start(body, cgroup, 0, None, PATIENCE_SECONDS)
        assert process.stdout is not None
        said = process.stdout.readline()
        if said != "ready\n":
            process.kill()
            raise AssertionError((said, *process.communicate()))
        return process

    def _start(self, body: str, cgroup: str, user: int, namespace: Path | None, patience: float) -> subprocess.Popen[str]:
        lines = body.strip().splitlines()
        text = lines[0] if len(lines) > 1 or lines[0].startswith("return") else f"return {lines[0]}"
        function = "def eval_body():\n" + "\n".join(f"    {line}" for line in (text, *lines[1:]))
        return subprocess.Popen(
            [PYTHON, "-I", "-S", "-c", f"{PRELUDE}\nPATIENCE = {patience}\n{function}\nprint(attempt(eval_body))"],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            preexec_fn=lambda: self._enter(cgroup, user, namespace),  # noqa: PLW1509 - no thread of the test lives then
        )

    def seen(self) -> list[bytes]:
        """Give the packets that reached the sink since the last call, without its own and what hosts say of themselves."""
        found: list[bytes] = []
        while True:
            try:
                packet, address = self.packets.recvfrom(65_536)
            except BlockingIOError:
                return found
            if address[0] != "lo" and address[2] != socket.PACKET_OUTGOING and _is_traffic(packet):
                found.append(packet)

    def _enter(self, cgroup: str, user: int, namespace: Path | None) -> None:
        descriptor = os.open(namespace or self.host, os.O_RDONLY)
        assert LIBC.setns(descriptor, CLONE_NEWNET) == 0
        (self.cgroups[cgroup] / "cgroup.procs").write_text(str(os.getpid()))
        if user:
            os.setgid(user)
            os.setuid(user)


def _is_traffic(frame: bytes) -> bool:
    kind = struct.unpack_from(">H", frame, 12)[0]
    if kind == 0x86DD:
        hop_by_hop = frame[20] == 0
        return not hop_by_hop and not (frame[20] == socket.IPPROTO_ICMPV6 and frame[54] in NEIGHBOUR_TYPES)
    return bool(kind == 0x0800)


def sh(*lines: str) -> None:
    """Run shell commands, all of which must work."""
    subprocess.run(["sh", "-ec", "\n".join(lines)], check=True, capture_output=True, text=True)


@contextlib.contextmanager
def yard() -> Iterator[Yard]:
    """Make a host and take it down again."""
    tag = f"capd-yard-{os.getpid()}"
    host, sink = f"{tag}-h", f"{tag}-s"
    root = cgroup_root()
    assert root is not None
    top = root / tag
    try:
        sh(
            f"ip netns add {host}; ip netns add {sink}",
            f"ip -n {host} link set lo up; ip -n {sink} link set lo up",
            f"ip link add veth0 netns {host} type veth peer name veth0 netns {sink}",
            f"ip -n {host} addr add 10.77.0.1/24 dev veth0; ip -n {sink} addr add 10.77.0.2/24 dev veth0",
            f"ip -n {host} -6 addr add fd77::1/64 dev veth0 nodad; ip -n {sink} -6 addr add fd77::2/64 dev veth0 nodad",
            f"ip -n {host} link set veth0 up; ip -n {sink} link set veth0 up",
            f"ip -n {host} route add default via 10.77.0.2; ip -n {host} -6 route add default via fd77::2",
        )
        spaces = {name: Path("/run/netns") / name for name in (host, sink)}
        packets = inside(spaces[sink], lambda: socket.socket(socket.AF_PACKET, socket.SOCK_RAW, ALL_ETHERNET))
        packets.setblocking(False)
        made = Yard(tag=tag, host=spaces[host], sink=spaces[sink], root=root, packets=packets)
        for name, path in {"agents": "agents", "run": "agents/run", "enforcer": "enforcer", "outside": "outside"}.items():
            made.cgroups[name] = top / path
            made.cgroups[name].mkdir(parents=True)
        with packets, _listening(made):
            yield made
    finally:
        for name in (host, sink):
            subprocess.run(["ip", "netns", "del", name], check=False, capture_output=True)
        for below, _directories, _files in os.walk(top, topdown=False):
            Path(below).rmdir()


@contextlib.contextmanager
def _listening(made: Yard) -> Iterator[None]:
    arguments = [str(PROXY_PORT), str(RESOLVER_PORT), str(TARGET_PORT), str(ENFORCER_USER)]
    server = subprocess.Popen(
        [PYTHON, "-I", "-S", "-c", LISTENER, *arguments],
        stdout=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: made._enter("enforcer", 0, None),  # noqa: PLW1509 - no thread of the test lives then
    )
    made.server = server
    try:
        assert server.stdout is not None
        assert server.stdout.readline() == "ready\n"
        yield
    finally:
        server.kill()
        server.communicate()
