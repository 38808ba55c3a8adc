"""The enforcer as it is installed: real clients of a run, redirected by the kernel, real targets, the real role.

What lives here: what clients see and what targets get. What must not: the proxy's inside.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, cast

import pytest

from capd.daemon.trust_environment import variables
from tests.daemon.conftest import wait_until
from tests.enforcer.target_server import EVENTS, LARGE_BYTES, MANY
from tests.enforcer.yard import AGENT, Yard, yard
from tests.requirements import require, require_command, require_root

POLICY = """\
rules:
  - {id: api, match: {protocols: [http], hosts: [api.test, localhost], methods: [GET, POST, PUT, HEAD]}, then: allow}
  - {id: banner, match: {protocols: [tcp], ports: [2525]}, then: allow}
  - {id: given, match: {protocols: [http], hosts: [bound.test, unasked.test], methods: [GET]}, then: allow}
  - {id: unread, match: {protocols: [tcp], hosts: [api.test], ports: [8080]}, then: allow}
  - {id: socket, match: {protocols: [websocket], hosts: [api.test], ports: [8080]}, then: allow}
"""
BLOB_BYTES = 3 << 20
ASKED = ("curl", "-sS", "-i", "--max-time", "60")


@pytest.fixture(scope="module")
def place() -> Iterator[Yard]:
    """Make one for all tests here, where agents can read: pytest's own directories are closed to them."""
    require_root()
    require_command("nft", "nsenter", "setpriv", "curl", "openssl")
    with TemporaryDirectory(prefix="capd-yard-") as name:
        directory = Path(name)
        with yard(directory, POLICY) as made:
            (directory / "blob").write_bytes(os.urandom(BLOB_BYTES))
            yield made


def curl(place: Yard, *words: str | Path, **more: object) -> bytes:
    """Run curl as an agent that trusts our authority; give what it printed."""
    done = place.agent("curl", "-sS", "--max-time", "15", "--cacert", place.trust / "bundle.pem", *words, **more)  # type: ignore[arg-type]
    assert 0 == done.returncode, done.stderr
    return done.stdout


def workers(place: Yard) -> list[dict[str, Any]]:
    """Give what each worker says of itself."""
    return cast("list[dict[str, Any]]", place.status()["workers"])


def python(place: Yard, script: str, **more: object) -> str:
    """Run a script as an agent with the system's Python, which is none of ours."""
    variables = {"SSL_CERT_FILE": str(place.trust / "bundle.pem"), "CA": str(place.trust / "authority.pem")}
    done = place.agent("/usr/bin/python3", "-c", script, variables=variables, **more)  # type: ignore[arg-type]
    assert 0 == done.returncode, done.stderr
    return done.stdout.decode()


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_curl(place: Yard, scheme: str) -> None:
    """Requests come across in clear and in TLS: small, large, uploaded with and without a length, with an expectation."""
    blob = place.directory / "blob"
    digest = sha256(blob.read_bytes()).hexdigest()
    base = f"{scheme}://api.test"
    told = json.loads(curl(place, f"{base}/a/../b?c=d"))
    assert ("GET", "/b?c=d", "api.test") == (told["method"], told["path"], told["headers"]["host"])
    assert LARGE_BYTES == len(curl(place, f"{base}/large"))
    for words in (
        ("-T", blob),
        ("-T", blob, "-H", "Transfer-Encoding: chunked"),
        ("--data-binary", f"@{blob}", "-H", "Expect: 100-continue"),
    ):
        told = json.loads(curl(place, *words, f"{base}/up"))
        assert (BLOB_BYTES, digest) == (told["bytes"], told["sha256"])
    assert b"HTTP/1.1 200 OK" == curl(place, "-I", f"{base}/").split(b"\r\n")[0]
    assert b"alt-svc" not in curl(place, "-i", f"{base}/").lower()


def test_denials(place: Yard) -> None:
    """What no rule allows is a 403 that a program can read, and the target hears nothing of it."""
    for words in (("-X", "DELETE", "https://api.test/"), ("http://other.test/",), ("https://other.test/",)):
        head, _, body = curl(place, "-i", *words).partition(b"\r\n\r\n")
        assert b"403" == head.split(b"\r\n")[0].split()[1]
        assert b"x-capd-rule: default" in head
        assert "allowed_by_no_rule" == json.loads(body)["reason"]
    assert b"421" in curl(place, "-i", "-H", "Host: other.test", "https://api.test/").split(b"\r\n")[0]


def test_other_clients(place: Yard) -> None:
    """Wget with GnuTLS, node with OpenSSL of its own, and Java where they are installed get what they ask for."""
    require_command("wget", "node")
    wget = place.agent("wget", "-q", "-O", "-", f"--ca-certificate={place.trust / 'bundle.pem'}", "https://api.test/wget")
    assert "/wget" == json.loads(wget.stdout)["path"], wget.stderr
    script = "fetch('https://api.test/node').then(r => r.text()).then(console.log)"
    node = place.agent("node", "-e", script, variables={"NODE_EXTRA_CA_CERTS": str(place.trust / "authority.pem")})
    assert "/node" == json.loads(node.stdout)["path"], node.stderr


def test_strict_python_and_keep_alive(place: Yard) -> None:
    """Python with the strict checks of 3.13 is content, and its connection is used again."""
    script = """
import http.client, os, ssl
context = ssl.create_default_context(cafile=os.environ["CA"])
context.verify_flags |= ssl.VERIFY_X509_STRICT
connection = http.client.HTTPSConnection("api.test", context=context)
for number in range(3):
    connection.request("GET", f"/{number}")
    connection.getresponse().read()
    print(connection.sock.getsockname()[1])
"""
    assert 1 == len(set(python(place, script).split()))


def test_events_are_streamed(place: Yard) -> None:
    """Each event of a stream comes when it was sent, not when the stream ends: the next is sent once it was heard of."""
    script = """
import http.client, ssl
context = ssl.create_default_context()
def get(path):
    connection = http.client.HTTPSConnection("api.test", context=context)
    connection.request("GET", path)
    return connection.getresponse()
answer = get("/events")
while line := answer.readline():
    if line.startswith(b"data"):
        get("/heard").read()
        print(line.split()[1].decode())
"""
    assert [str(number) for number in range(EVENTS)] == python(place, script).split()


def test_a_server_that_speaks_first(place: Yard) -> None:
    """A protocol that is not decoded passes where a rule says so: the server speaks first, the client ends first."""
    script = """
import socket
connection = socket.create_connection(("127.0.0.1", 2525))
print(connection.recv(100))
connection.sendall(b"x" * 300000)
connection.shutdown(socket.SHUT_WR)
data = b""
while part := connection.recv(65536):
    data += part
print(len(data), data[-5:])
"""
    assert "b'220 target ready\\r\\n'\n300005 b'bye\\r\\n'\n" == python(place, script)
    refused = place.agent(
        "/usr/bin/python3",
        "-c",
        script.replace("2525", "8080").replace("connection.recv(100)", "connection.send(b'\\xff\\xfe\\xfd')"),
    )
    assert b"ConnectionResetError" in refused.stderr or b"Transport endpoint is not connected" in refused.stderr


def test_upgrades(place: Yard) -> None:
    """A WebSocket passes where a rule lets it, message by message, and is denied elsewhere."""
    script = """
import socket
connection = socket.create_connection(("api.test", %d))
connection.sendall(b"GET /upgrade HTTP/1.1\\r\\nHost: api.test:%d\\r\\nConnection: Upgrade\\r\\nUpgrade: websocket\\r\\n"
    b"Sec-WebSocket-Version: 13\\r\\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\\r\\n\\r\\n")
status = connection.recv(1000).split(b"\\r\\n")[0]
print(status)
if b"101" in status:
    connection.sendall(bytes([0x81, 0x85, 0, 0, 0, 0]) + b"shout")
    print(connection.recv(1000))
    connection.sendall(b"no frame that a client may send")
    print(connection.recv(1000)[:4])
"""
    expected = "b'HTTP/1.1 101 Switching Protocols'\nb'\\x81\\x05SHOUT'\nb'\\x88\\x02\\x03\\xea'\n"
    assert expected == python(place, script % (8080, 8080))
    assert python(place, script % (80, 80)).startswith("b'HTTP/1.1 403 Forbidden")


def test_who_is_of_no_run_reaches_nothing(place: Yard) -> None:
    """A redirected process outside of every run is reset."""
    done = place.agent("curl", "-sS", "--max-time", "60", "http://api.test/", inside=False)
    assert done.returncode in (7, 56), done  # reset while connecting, or after
    wait_until(lambda: "of no run" in workers(place)[0]["turned_away"], "it is counted")


def test_the_key_is_the_enforcers_alone(place: Yard) -> None:
    """An agent reads what it must trust, and neither the key that signs it nor the decisions."""
    state = place.state
    assert 0 == place.agent("cat", state / "trust" / "authority.pem").returncode
    for path in (state / "enforcer" / "authority.key", state / "enforcer" / "decisions"):
        assert b"Permission denied" in place.agent("ls", "-l", path).stderr
    key = state / "enforcer" / "authority.key"
    assert (0o400, False) == (key.stat().st_mode & 0o777, key.stat().st_uid in (0, AGENT))


def test_the_role_is_confined(place: Yard) -> None:
    """The workers have a user of their own, no capability, and a filter; the role says what it gave up."""
    lines = Path(f"/proc/{workers(place)[0]['pid']}/status").read_text(encoding="ascii").splitlines()
    said = dict(line.split(":\t", 1) for line in lines if ":\t" in line)
    assert ("0" * 16, "1", "2") == (said["CapEff"], said["NoNewPrivs"], said["Seccomp"])
    assert "0" not in said["Uid"].split()
    assert "files" in str(place.status()["confinement"])


def test_every_decision_is_in_the_log(place: Yard) -> None:
    """What an agent did is in the decision log: its connection, the decision with rule and policy, its end."""
    target = sha256(b"/logged").digest()

    def entries() -> list[dict[str, object]]:
        all_ = place.entries()
        sessions = [entry["session"] for entry in all_ if entry.get("target_sha256") == target]
        return [entry for entry in all_ if entry.get("session") in sessions]

    curl(place, "http://api.test/logged")
    wait_until(lambda: any(entry["kind"] == "close" for entry in entries()), "the end is in the log")
    assert ["open", "decision", "close"] == [entry["kind"] for entry in entries()]
    opened, decision, _ = entries()
    assert (str(place.run.id), AGENT) == (opened["run"], opened["uid"])
    assert (True, "api", "api.test", "GET") == tuple(decision[key] for key in ("allowed", "rule", "host", "method"))
    assert b"/logged" not in b"".join(path.read_bytes() for path in place.state.rglob("*.log"))


def test_a_changed_policy_is_taken_up(place: Yard) -> None:
    """A policy that changes on disk is in force within seconds; one that is wrong changes nothing and is told of."""
    place.policy.write_text(
        POLICY + "  - {id: shut, match: {protocols: [http], paths: [/shut]}, then: deny}\n", encoding="utf-8"
    )
    # What is under way when it comes into force is cut.
    wait_until(lambda: b"x-capd-rule: shut" in place.agent(*ASKED, "http://api.test/shut").stdout, "the policy is in force")
    place.policy.write_text("rules: nonsense", encoding="utf-8")
    wait_until(lambda: workers(place)[0]["policy_problem"] is not None, "the problem is told")
    assert b"x-capd-rule: shut" in curl(place, "-i", "http://api.test/shut")
    place.policy.write_text(POLICY, encoding="utf-8")
    wait_until(lambda: b"200 OK" in curl(place, "-i", "http://api.test/shut"), "the policy before it is in force")


def test_a_killed_worker_leaves_nothing_open(place: Yard) -> None:
    """When a worker is killed its connections are reset, new ones wait for the next, and nothing passes unjudged meanwhile."""
    os.kill(workers(place)[0]["pid"], signal.SIGKILL)
    done = place.agent("curl", "-sS", "--max-time", "10", "-X", "DELETE", "http://api.test/")
    assert done.returncode in (56, 28) or b"allowed_by_no_rule" in done.stdout
    wait_until(
        lambda: b"200 OK" in place.agent(*ASKED, "http://api.test/").stdout,
        "it is allowed again",
    )
    assert 1 == place.status()["restarts"]


def test_runtimes_trust_us_by_the_environment_of_a_run(place: Yard) -> None:
    """With the variables that `capd run` sets, clients need no option of their own; what they had for Java stays."""
    require_command("node")
    environment = variables(place.trust, {"JAVA_TOOL_OPTIONS": "-Xmx1g"})
    assert environment["JAVA_TOOL_OPTIONS"].startswith("-Xmx1g -Djavax.net.ssl.trustStore=")
    for words in (
        ("curl", "-sS", "https://api.test/"),
        ("/usr/bin/python3", "-c", "import urllib.request; print(urllib.request.urlopen('https://api.test/').read().decode())"),
        ("node", "-e", "fetch('https://api.test/').then(r => r.text()).then(console.log)"),
        ("openssl", "s_client", "-connect", "api.test:443", "-servername", "api.test", "-verify_return_error"),
    ):
        done = place.agent(*words, variables=environment)
        assert 0 == done.returncode, (words, done.stderr)


def test_names_are_resolved_for_runs_alone(place: Yard) -> None:
    """What a run asks its name server reaches the resolver, which asks the host's; who is of no run gets no answer."""
    script = "import socket; print(socket.getaddrinfo('name.example.com', 1, socket.AF_INET)[0][4][0])"
    assert "192.0.2.7\n" == python(place, script)
    assert 0 != place.agent("/usr/bin/python3", "-c", script, inside=False).returncode
    wait_until(lambda: place.status()["resolver"]["queries"].get("no_run"), "it is counted")  # type: ignore[index] # an object
    assert 1 <= place.status()["resolver"]["queries"]["resolved"]  # type: ignore[index] # as above


def test_names_are_resolved_over_tcp_too(place: Yard) -> None:
    """What does not fit into a datagram is cut, the libc of a run asks again over TCP and gets all; it may ask so at once."""
    script = "import socket; print(len({entry[4][0] for entry in socket.getaddrinfo('%s', 1, socket.AF_INET)}))"
    assert f"{MANY}\n" == python(place, script % "many.example.com")
    words = ("/usr/bin/python3", "-c", script % "name.example.com")
    assert b"1\n" == place.agent(*words, variables={"RES_OPTIONS": "use-vc"}).stdout
    assert 0 != place.agent(*words, inside=False, variables={"RES_OPTIONS": "use-vc"}).returncode


def test_a_name_that_the_resolver_gave_is_believed(place: Yard) -> None:
    """The proxy takes the resolver's word for where a name leads, and asks nobody; another name of that address is not it."""
    assert "/seen" == json.loads(curl(place, "http://bound.test/seen"))["path"]
    asked = json.loads(curl(place, "http://api.test/seen"))["seen"]
    assert (1, None) == (asked["bound 1"], asked.get("unasked 1"))
    address = place.agent("curl", "-sS", "-i", "-H", "Host: unasked.test", "http://198.51.100.7/")
    assert b"403" in address.stdout.split(b"\r\n")[0]


def test_the_doctor_tries_runtimes(place: Yard) -> None:
    """`capd doctor tls` looks at the files and has every runtime of the host fetch a page with our certificate."""
    command = [
        sys.executable,
        "-P",
        "-m",
        "capd.cli.main",
        "doctor",
        "tls",
        "--json",
        "--config",
        str(place.directory / "capd.toml"),
    ]
    done = subprocess.run([*place.within, *command], capture_output=True, check=False, timeout=60)
    found = {finding["subject"]: finding for finding in json.loads(done.stdout)}
    assert {"good"} == {found[name]["mark"] for name in ("authority", "bundle", "key", "curl", "python3", "node", "wget")}, (
        done.stdout
    )
    assert all(finding["next_step"] for finding in found.values() if finding["mark"] == "bad")


def test_java(place: Yard) -> None:
    """A Java program that is told of our store by the environment verifies what it is shown."""
    require(shutil.which("keytool"), "needs Java")
    words = ("keytool", "-list", "-keystore", place.trust / "truststore.p12", "-storepass", "changeit")
    done = place.agent(*words)
    assert b"trustedCertEntry" in done.stdout, done
    assert done.stdout.count(b"trustedCertEntry") > 20
