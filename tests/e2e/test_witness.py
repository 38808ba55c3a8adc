"""Two witnesses on a host of its own: a real `capd up` that enforces, agents, a target; decisions in the recording, and alarms.

What lives here: what the recording says of connections that went through the enforcer, or seem not to have.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from base64 import b64encode
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from capd.daemon import cgroups
from capd.daemon.enforcement_names import names_of
from tests.daemon.conftest import ENVIRONMENT, Daemon, capd, open_directory, wait_until
from tests.e2e.certificates import make
from tests.on_disk import content
from tests.requirements import require, require_command, require_probes, require_root

pytestmark = pytest.mark.kernel
SERVER = Path(__file__).parents[1] / "enforcer" / "target_server.py"
STREAMS, STREAMS_PORT = SERVER.with_name("http2_target.mjs"), 8443
POLICY = """\
rules:
  - {id: open-only, match: {protocols: [http], hosts: [api.test], paths: [/open]}, then: allow}
  - {id: said-back, match: {protocols: [http], hosts: [api.test], paths: [/put-in, /back]}, then: allow}
  - id: key
    match: {protocols: [http], hosts: [api.test], ports: [443], paths: [/put-in, /back]}
    then: inject
    inject: {credential: key, form: bearer}
  - {id: hide, match: {protocols: [http], hosts: [api.test], paths: [/back]}, then: mask, mask: {keys: [pin]}}
  - {id: no-secrets, match: {protocols: [http], hosts: [api.test], paths: [/secret]}, then: deny}
  - {id: rows, match: {protocols: postgresql, hosts: api.test, users: agent, effects: [select, session, define]}, then: allow}
  - {id: other-rows, match: {protocols: mysql, hosts: 127.0.0.1, databases: shop, effects: [select, session]}, then: allow}
  - {id: keys, match: {protocols: redis, hosts: 127.0.0.1, effects: [select, update, session]}, then: allow}
scopes:
  - {id: silent, match: {labels: {silent: "yes"}}, recording: "off"}
  - {id: sizes, match: {hosts: api.test, runs: sizes}, recording: metadata}
"""
SETTINGS = """\
policy_dir = "{directory}/policy"
[selection]
slices = []
[enforcement]
mode = "enforce"
proxy_port = 15902
resolver_port = 15954
workers = 1
ca_file = "{directory}/tls/ca.pem"
[credentials.key]
file = "{directory}/key"
hosts = ["api.test"]
ports = [443]
[[recording.scope]]
level = "full"
run = "put-in"
"""
SECRET = "a-key/that+no=agent-has"
HIDDEN = "7391-hidden-8462"
DISAGREEMENTS = ("undecided", "unseen", "differing", "requests", "unknown", "incomparable", "unpaired")
ZERO = (*DISAGREEMENTS, "missing", "malformed", "orphans")
Json = dict[str, Any]


class Place:
    """A running capd on a host of its own.

    Attributes:
        namespace: of the host's network.
        capd: the instance.
    """

    def __init__(self, namespace: str, instance: Daemon) -> None:
        self.namespace, self.capd = namespace, instance

    def verb(self, *words: str | Path, seconds: float = 60) -> str:
        """Run a verb; give what it printed, in whatever bytes."""
        name, *rest = map(str, words)
        before, after = (rest[: rest.index("--")], rest[rest.index("--") :]) if "--" in rest else (rest, [])
        command = ["nsenter", f"--net=/run/netns/{self.namespace}", *capd(name, *before, "--config", self.capd.config, *after)]
        done = subprocess.run(command, env=ENVIRONMENT, capture_output=True, check=False, timeout=seconds)
        assert done.returncode in {0, 1}, done.stderr.decode()
        return done.stdout.decode("utf-8", "surrogateescape")

    def agent(self, name: str, *paths: str, port: int = 443, label: str = "silent=no") -> list[str]:
        """Let an agent, of a run with a label, ask for paths of one host, over one connection; give the statuses."""
        urls = [f"https://api.test:{port}{path}" for path in paths]
        how = ("--http1.1",) if port == 443 else ("-Z", "--http2")
        answers = [word for _path in paths for word in ("-o", "/dev/null")]
        found = ("--resolve", f"api.test:{port}:127.0.0.1", "-w", "%{http_code}\n", *how)
        words = ("curl", "-sS", "--max-time", "20", *found, *answers, *urls)
        return self.verb("run", "--name", name, "--label", label, "--", *words).split()

    def sessions(self, name: str) -> list[Json]:
        """Give the TCP sessions of a run by its name."""
        found = json.loads(self.verb("sessions", "--json"))
        return [one for one in found if one["run_name"] == name and one["transport"] == "tcp"]

    def records(self, session: str) -> list[Json]:
        """Give the records of a session."""
        return [json.loads(line) for line in self.verb("replay", session, "--format", "json").splitlines()]

    def witness(self) -> Json:
        """Give what the recorder says of the two witnesses."""
        found = json.loads((self.capd.directory / "run/recorder/recorder.status.json").read_bytes())["witness"]
        assert isinstance(found, dict)
        return found


@pytest.fixture(scope="module")
def place() -> Iterator[Place]:
    """Give one for all tests here; afterwards nothing of it stands."""
    require_root()
    require_probes()
    require_command("ip", "nft", "nsenter", "curl", "openssl", "node")
    require(Path("/sys/fs/bpf").is_mount(), "needs a bpffs at /sys/fs/bpf")
    namespace = f"capd-witness-{os.getpid()}"
    subprocess.run(["ip", "netns", "add", namespace], check=True)
    subprocess.run(["ip", "-n", namespace, "link", "set", "lo", "up"], check=True)
    within = ("nsenter", f"--net=/run/netns/{namespace}")
    try:
        with open_directory() as directory:
            for name in ("tls", "policy"):
                (directory / name).mkdir()
            tls = make(directory / "tls")
            (directory / "policy" / "policy.yaml").write_text(POLICY, encoding="ascii")
            words = [*within, sys.executable, "-P", str(SERVER), str(tls.certificate), str(tls.key)]
            (directory / "key").touch(mode=0o600)
            (directory / "key").write_text(SECRET, encoding="ascii")
            streams = [*within, "node", str(STREAMS), str(tls.certificate), str(tls.key), str(STREAMS_PORT)]
            made = Daemon(directory, SETTINGS.format(directory=directory), verb="up", through=within)
            with (
                subprocess.Popen(words, stdout=subprocess.PIPE) as server,
                subprocess.Popen(streams, stdout=subprocess.PIPE) as other,
            ):
                try:
                    assert server.stdout is not None
                    assert other.stdout is not None
                    assert b"ready\n" == server.stdout.readline()
                    assert other.stdout.readline().startswith(b"ready")
                    made.start()
                    wait_until((directory / "run/enforcer/worker-0.status.json").exists, "the enforcer serves")
                    wait_until((directory / "run/recorder/recorder.status.json").exists, "the recorder tells of itself")
                    yield Place(namespace, made)
                finally:
                    server.kill()
                    other.kill()
                    take_down(made, within)
    finally:
        subprocess.run(["ip", "netns", "del", namespace], check=False)


def take_down(made: Daemon, within: tuple[str, ...]) -> None:
    """End an instance that enforces, and what stands without it."""
    if made.process is not None and made.process.poll() is None:
        made.stop()
    subprocess.run([*within, *capd("enforcement", "off", "--config", made.config)], env=ENVIRONMENT, check=False)
    names = names_of(made.directory / "run", systemd=cgroups.has_systemd())
    for path in (f"{names.parent}/capd-canary", names.parent, names.enforcer):
        where = cgroups.find_root() / path.lstrip("/")
        if where.is_dir():
            where.rmdir()


def test_decisions_are_in_the_recording_beside_their_messages(place: Place) -> None:
    """Two requests of one TLS connection, one allowed and one denied: both verdicts stand behind their requests; no alarm."""
    assert ["200", "403"] == place.agent("two", "/open", "/secret")
    wait_until(lambda: [one for one in place.sessions("two") if one["state"] == "closed"], "the session is closed")
    (session,) = place.sessions("two")
    counts = {name: session["decision"][name] for name in ("allowed", "denied", "held")}
    assert ({"allowed": 1, "denied": 1, "held": 0}, True) == (counts, bool(session["decision"]["policy"]))
    told = [record for record in place.records(session["session"]) if record["kind"] in {"message", "verdict"}]
    kinds = [(one["kind"], one["body"].get("outcome") or one["body"].get("type"), one["body"]["exchange"]) for one in told]
    requests = [place for place, one in enumerate(kinds) if one[1] == "request"]
    decided = [place for place, one in enumerate(kinds) if one[0] == "verdict" and one[2] is not None]
    assert [("verdict", "allow", 0), ("verdict", "deny", 1)] == [kinds[place] for place in decided], kinds
    # Of a request that was whole at once its end may be between the two.
    assert all(asked < answered <= asked + 2 for asked, answered in zip(requests, decided, strict=True)), kinds
    denied = next(one["body"] for one in told if one["body"].get("outcome") == "deny")
    assert ("no-secrets", "denied_by_policy", "GET", session["decision"]["policy"]) == (
        denied["rule"],
        denied["reason"],
        denied["method"],
        denied["policy"],
    )
    screen = place.verb("replay", session["session"])
    assert "DENIED GET to api.test (request 2): rule no-secrets, denied_by_policy, policy" in screen
    assert "DENIED GET to api.test" in place.verb("show", session["session"])
    wait_until(lambda: place.witness()["verdicts"], "the recorder says what it has read")
    wait_until(lambda: not place.witness()["flows"], "both have ended and were compared")
    found = place.witness()
    assert (dict.fromkeys(ZERO, 0), 3) == ({name: found[name] for name in ZERO}, found["verdicts"])
    (session,) = place.sessions("two")
    assert "complete" == session["completeness"]["verdict"], session["completeness"]
    assert "witness-alarm" not in place.verb("status", "--json")


def test_decisions_about_streams_are_beside_their_streams(place: Place) -> None:
    """Requests of one connection of HTTP/2, side by side: each verdict names its stream, and both witnesses say the same."""
    paths = ["/open", "/secret", *["/open"] * 6]
    assert ["200"] * 7 + ["403"] == sorted(place.agent("streams", *paths, port=STREAMS_PORT))
    wait_until(lambda: [one for one in place.sessions("streams") if one["state"] == "closed"], "the session is closed")
    (session,) = place.sessions("streams")
    assert (7, 1) == (session["decision"]["allowed"], session["decision"]["denied"])
    told = [record["body"] for record in place.records(session["session"]) if record["kind"] in {"message", "verdict"}]
    asked = {one["exchange"]: str(one["summary"]).split()[1] for one in told if one.get("type") == "request"}
    decided = {one["exchange"]: one["outcome"] for one in told if one.get("about") == "http"}
    assert {stream: "deny" if path == "/secret" else "allow" for stream, path in asked.items()} == decided
    (denied,) = [stream for stream, outcome in decided.items() if outcome == "deny"]
    assert f"DENIED GET to api.test (stream {denied}): rule no-secrets" in place.verb("replay", session["session"])
    wait_until(lambda: not place.witness()["flows"], "both have ended and were compared")
    found = place.witness()
    assert dict.fromkeys(ZERO, 0) == {name: found[name] for name in ZERO}
    (session,) = place.sessions("streams")
    assert "complete" == session["completeness"]["verdict"], session["completeness"]


KINDS = """\
ask="curl -sS -m 9 -o /dev/null -w %{http_code}, --resolve api.test:443:127.0.0.1"
$ask http://127.0.0.1/open
$ask -X POST --data-binary @/proc/self/exe https://api.test/secret
$ask https://api.test/large
$ask http://127.0.0.1:9/ 2>/dev/null || echo refused
curl -sS -m 2 telnet://127.0.0.1:2525 </dev/null 2>/dev/null | wc -c
bad='GET /open HTTP/1.1\\r\\nHost: 127.0.0.1\\r\\n\\r\\nGET /a%%2fb HTTP/1.1\\r\\nHost: 127.0.0.1\\r\\n\\r\\n'
printf "$bad$bad" | curl -sS -m 3 telnet://127.0.0.1:80 | grep -c ^HTTP
timeout -s KILL 0.3 $ask https://api.test/open --limit-rate 1; true
"""


def test_nothing_that_the_enforcer_knows_of_is_an_alarm(place: Place) -> None:
    """Clear text, uploads that are refused, closed ports, servers that speak first and agents that are killed: no alarm."""
    before = place.witness()
    said = place.verb("run", "--name", "kinds", "--", "sh", "-c", KINDS)
    assert said.startswith("403,403,403,"), said
    wait_until(lambda: place.witness()["entries"] > before["entries"], "the log is read")
    wait_until(lambda: not place.witness()["flows"] and not place.witness()["connections"], "all were compared")
    assert dict.fromkeys(ZERO, 0) == {name: place.witness()[name] for name in ZERO}
    reasons = [reason for one in place.sessions("kinds") for reason in one["completeness"]["reasons"]]
    assert [] == [reason for reason in reasons if "differ" in reason or "undecided" in reason]


SCOPES = {"silent": ("silent=yes", 0), "sizes": ("silent=no", 2)}


@pytest.mark.parametrize("name", SCOPES)
def test_what_the_policy_leaves_out_is_not_stored(place: Place, name: str) -> None:
    """A run whose label, or whose target's name, a scope gives less to: nothing of what was said, but what was decided."""
    label, told = SCOPES[name]
    assert ["200", "403"] == place.agent(name, "/open", "/secret", label=label)
    wait_until(lambda: [one for one in place.sessions(name) if one["state"] == "closed"], "it is closed")
    (session,) = place.sessions(name)
    records = place.records(session["session"])
    messages = [one["body"] for one in records if one["kind"] == "message" and one["body"]["type"] == "request"]
    assert [("GET", {"method", "version", "framing", "length"})] * told == [
        (one["summary"], set(one["fields"])) for one in messages
    ]
    assert [] == [one for one in records if one["kind"] == "data" and any(one["body"]["payload"].values())]
    assert told or not [one for one in records if one["kind"] in {"data", "message"}]
    verdicts = [one["body"] for one in records if one["kind"] == "verdict" and one["body"]["about"] == "http"]
    assert ["allow", "deny"] == [one["outcome"] for one in verdicts]
    assert ([bool(told)] * 2, 0) == (["method" in one for one in verdicts], sum("target_sha256" in one for one in verdicts))
    assert any("recording level" in one for one in session["completeness"]["policy"])
    assert "complete" == session["completeness"]["verdict"], session["completeness"]
    wait_until(lambda: not place.witness()["flows"], "both have ended and were compared")
    assert 0 == place.witness()["requests"]


PUT_IN = """\
ask="curl -sS -m 9 --resolve api.test:443:127.0.0.1 -H Authorization:\\ Bearer\\ of-the-agent"
$ask https://api.test/put-in
$ask -d '{"pin": "HIDDEN", "open": "seen-by-all"}' https://api.test/back
""".replace("HIDDEN", HIDDEN)


def test_what_agents_do_not_see_is_not_recorded(place: Place) -> None:
    """At the level full a recording has what the agent said and got, not the credential that was put in or what came back."""
    said = place.verb("run", "--name", "put-in", "--", "sh", "-c", PUT_IN)
    assert (
        sha256(f"Bearer {SECRET}".encode()).hexdigest() == json.loads(said.partition("}{")[0] + "}")["hashes"]["authorization"]
    )
    wait_until(lambda: [one["state"] for one in place.sessions("put-in")] == ["closed"] * 2, "both are closed")
    every = json.loads(place.verb("sessions", "--json"))
    assert all(one["run_name"] for one in every), "nothing of the enforcer itself is recorded"
    shown = "".join(place.verb("replay", one["session"], "--format", "json") for one in every)
    for words in ("of-the-agent", "seen-by-all", HIDDEN):
        assert words in shown
    told = [record["body"] for record in map(json.loads, shown.splitlines()) if record["kind"] == "verdict"]
    assert {"masks": ["hide"], "credentials": [["key", "key"]]} in [one.get("obligations") for one in told]
    for form in (SECRET, *(one for at in range(3) for one in [b64encode(b"x" * at + SECRET.encode()).decode()[4:-4]])):
        assert form not in shown
        kept = [path for path in place.capd.directory.rglob("*") if path.is_file() and path.name != "key"]
        assert [] == [path for path in kept if form.encode() in content(path)]


SEEN = """\
ask="curl -sS -m 9 -o /dev/null --resolve api.test:443:127.0.0.1 -H @-"
printf 'X-Found: %s' "$(cat {key})" | $ask https://api.test/open
printf 'X-Found: %s' "$(base64 -w 0 {key})" | $ask https://api.test/open
ls "/nowhere/$(cat {key})" 2>/dev/null
true
"""


def test_an_agent_that_has_the_credential_is_an_alarm(place: Place) -> None:
    """What it says of it over HTTP, as it is and encoded, and to a program, is told with run and session, and hidden."""
    status = place.capd.directory / "run/recorder/recorder.status.json"
    before = json.loads(status.read_bytes())["secrets"]["unsearched_bytes"]  # of when no enforcer was there yet
    place.verb("run", "--name", "seen", "--", "sh", "-c", SEEN.format(key=place.capd.directory / "key"))
    wait_until(lambda: [one["state"] for one in place.sessions("seen")] == ["closed"] * 2, "both are closed")
    sessions = {one["session"]: one["run"] for one in place.sessions("seen")}

    def told() -> dict[str, str]:
        latest = json.loads(status.read_bytes())["secrets"]["latest"]
        return {one["session"]: one["run"] for one in latest if one["session"] in sessions}

    wait_until(lambda: sessions == told(), "the recorder tells of it")
    found = json.loads(status.read_bytes())["secrets"]
    assert ({"key"}, before, None) == (set(found["seen"]), found["unsearched_bytes"], found["problem"])
    wait_until(lambda: "secret-seen" in place.verb("status", "--json"), "the health is told")
    shown = "".join(place.verb("replay", one, "--format", "json") for one in sessions)
    assert 2 == shown.count('"name": "secret"') + shown.count('"name":"secret"')
    encoded = b64encode(SECRET.encode()).decode()
    for form in (SECRET, encoded[:-4], encoded[4:-4]):
        assert form not in shown
        kept = [path for path in place.capd.directory.rglob("*") if path.is_file() and path.name != "key"]
        assert [] == [path for path in kept if form.encode() in content(path)]


CHANGING = """\
import ctypes, socket, ssl, threading
body = bytearray(8 << 20)
there, sent = (ctypes.c_char * len(body)).from_buffer(body), threading.Event()
def change():
    letter = 0
    while not sent.is_set():
        letter += 1
        ctypes.memset(there, 65 + letter % 26, len(body))
threading.Thread(target=change).start()
there_is = socket.create_connection(("127.0.0.1", 443))
with ssl.create_default_context().wrap_socket(there_is, server_hostname="api.test") as agent:
    agent.sendall(b"POST /open HTTP/1.1\\r\\nHost: api.test\\r\\nConnection: close\\r\\n")
    agent.sendall(b"Content-Length: %d\\r\\n\\r\\n" % len(body))
    agent.sendall(body)
    sent.set()
    print(agent.recv(12).decode())
    while agent.recv(65536):
        pass
"""


def test_what_is_changed_while_it_is_sent_is_an_alarm(place: Place) -> None:
    """An agent whose other thread writes into a body under way shows probes and enforcer two bodies of one length."""
    compared = place.witness()["digested"]
    assert compared, "contents were compared"
    alarms = place.witness()["differing"]
    assert "HTTP/1.1 200" == place.verb("run", "--name", "changing", "--", "/usr/bin/python3", "-c", CHANGING).strip()
    wait_until(lambda: place.witness()["differing"] > alarms, "it is found")
    wait_until(lambda: place.sessions("changing")[0]["completeness"]["verdict"] == "partial", "it is told")
    reasons = place.sessions("changing")[0]["completeness"]["reasons"]
    assert "bytes differ: what the agent said is not what the enforcer read, though it is as long" in reasons


def test_a_connection_without_decision_is_an_alarm(place: Place) -> None:
    """With the decision log cut off, a connection that moved bytes is an undecided flow: session, status and health say so."""
    (log,) = (place.capd.directory / "state/enforcer/decisions").glob("*.log")
    log.rename(place.capd.directory / "cut")  # the enforcer goes on writing into it, and nobody sees that
    assert ["200"] == place.agent("cut", "/open")
    wait_until(lambda: place.witness()["undecided"], "the alarm is counted")
    wait_until(lambda: place.sessions("cut")[0]["completeness"]["verdict"] == "partial", "the session says so")
    (session,) = place.sessions("cut")
    # A busy machine may have lost payload besides, and says so.
    assert "undecided flow" in [reason.partition(":")[0] for reason in session["completeness"]["reasons"]]
    assert "WITNESS undecided flow" in place.verb("replay", session["session"])
    wait_until(lambda: "witness-alarm" in place.verb("status", "--json"), "the health is told")
    assert 1 == place.witness()["undecided"]


def test_what_was_added_can_be_proven(place: Place) -> None:
    """With verdicts, findings and ends that were told twice the recording is whole, record by record."""
    place.capd.stop()
    done = subprocess.run(
        capd("verify", "--records", "--pins", place.capd.directory / "pins", "--config", place.capd.config),
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert 0 == done.returncode, done.stdout
