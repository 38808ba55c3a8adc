"""Clients of Redis in use, unmodified, as agents behind the enforcer, under a policy, before a real server.

What lives here: what each client sees, and what the decision log tells. What must not: the proxy's inside.
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from tests.enforcer.yard import ADDRESSES, Yard, yard
from tests.requirements import require_command, require_root
from tests.servers.redis import PASSWORD

PORT, TLS_PORT = 6379, 6380
SECONDS = 60
START_SECONDS_MAX = 180.0
POLICY = f"""\
rules:
  - id: cache
    match: {{protocols: redis, hosts: [api.test, "{ADDRESSES[0]}", "{ADDRESSES[1]}"], ports: [{PORT}, {TLS_PORT}]}}
    then: allow
  - {{id: no-secrets, match: {{protocols: redis, resources: "secret:*"}}, then: deny, reason: agents read no secrets}}
  - {{id: no-admin, match: {{protocols: redis, effects: [administer, drop]}}, then: deny, reason: not for agents}}
  - {{id: rails, match: {{protocols: redis}}, then: limit, limit: {{bytes: 200000, export_rows: 10, run_bytes: 100000000}}}}
"""
PROGRAM = """
import redis, sys
tls = {"ssl": True, "ssl_ca_certs": sys.argv[3]} if len(sys.argv) > 3 else {}

def agent(protocol):
    more = {"protocol": protocol, "decode_responses": True, **tls}
    return redis.Redis(host="api.test", port=int(sys.argv[1]), password=sys.argv[2], **more)

def told(what):
    try:
        return what()
    except redis.RedisError as error:
        return type(error).__name__ + " " + str(error).split(" (")[0]

for protocol in (2, 3):
    with agent(protocol) as c:
        c.set("k", "v")
        found = c.pipeline(transaction=False).get("k").get("secret:a").get("k").execute(raise_on_error=False)
        print(found[0], type(found[1]).__name__, found[2])
        print(told(lambda: c.get("secret:a")))
        print(told(lambda: c.mget("k", "secret:a")))
        print(told(lambda: c.flushall()))
        print(told(lambda: c.config_get("*")))
        print(told(lambda: c.eval("return redis.call('GET', 'secret:a')", 0))[:21])
        print(told(lambda: c.execute_command("JSON.GET", "k"))[:21])
        c.set("big", "x" * 150_000)
        print(len(c.get("big")), told(lambda: c.mget("big", "big")))
        print(told(lambda: c.pipeline(transaction=True).set("t", "1").set("secret:t", "1").execute())[:21])
        print(c.exists("t"))
"""
EXPECTED = """\
v NoPermissionError v
NoPermissionError capd: agents read no secrets
NoPermissionError capd: agents read no secrets
NoPermissionError capd: not for agents
NoPermissionError capd: not for agents
NoPermissionError cap
NoPermissionError cap
150000 ResponseError capd: more than bytes 200000 of rule rails
NoPermissionError Com
0
"""


@dataclass(frozen=True, kw_only=True)
class Place:
    """A yard with a server, and its log of all commands that reached it."""

    yard: Yard
    monitor: Path

    def run(self, *words: str | Path) -> subprocess.CompletedProcess[str]:
        """Run a client as an agent of the run."""
        done = self.yard.agent(*words, seconds=SECONDS)
        return subprocess.CompletedProcess(done.args, done.returncode, done.stdout.decode(), done.stderr.decode())

    def direct(self, *words: str) -> str:
        """Run redis-cli with nothing between."""
        command = [*self.yard.within, "redis-cli", "-h", ADDRESSES[0], "--no-auth-warning", "-a", PASSWORD, *words]
        return subprocess.run(command, capture_output=True, text=True, timeout=SECONDS, check=False).stdout


@pytest.fixture(scope="module")
def place() -> Iterator[Place]:
    """Make one for all tests here."""
    require_root()
    require_command("nft", "nsenter", "setpriv", "redis-cli", "redis-benchmark", "redis-check-rdb")
    with TemporaryDirectory(prefix="capd-redis-") as name, yard(Path(name), POLICY) as made:
        tls = made.certificates
        files = ["--tls-cert-file", tls.certificate, "--tls-key-file", tls.key, "--tls-ca-cert-file", tls.authority]
        words = ["--bind", *ADDRESSES, "--port", PORT, "--tls-port", TLS_PORT, "--tls-auth-clients", "no", *files]
        kept = ["--requirepass", PASSWORD, "--save", "", "--dir", name, "--logfile", f"{name}/redis.log"]
        script = 'exec -a redis-server /usr/bin/redis-check-rdb "$@"'
        server = subprocess.Popen([*made.within, "bash", "-c", script, "bash", *map(str, (*words, *kept))])
        monitor = Path(name) / "monitor"
        watching: subprocess.Popen[bytes] | None = None
        found = Place(yard=made, monitor=monitor)
        try:
            end = time.monotonic() + START_SECONDS_MAX
            while "PONG" not in found.direct("PING"):
                assert time.monotonic() < end, "redis-server did not start"
            with monitor.open("wb") as file:
                command = [*made.within, "redis-cli", "-h", ADDRESSES[0], "--no-auth-warning", "-a", PASSWORD, "MONITOR"]
                watching = subprocess.Popen(command, stdout=file)
            while b"OK" not in monitor.read_bytes():
                assert time.monotonic() < end, "nobody watches"
            yield found
        finally:
            for process in (watching, server):
                if process is not None:
                    process.terminate()
                    process.wait(SECONDS)


@pytest.mark.parametrize("tls", [False, True])
def test_redis_py(place: Place, tls: bool) -> None:
    """In clear and in TLS, RESP2 and RESP3: what it may, what it may not, limits, transactions; and what reaches the server."""
    trust = [str(place.yard.trust / "authority.pem")] if tls else []
    done = place.run(sys.executable, "-P", "-c", PROGRAM, str(TLS_PORT if tls else PORT), PASSWORD, *trust)
    assert 0 == done.returncode, done.stderr
    assert EXPECTED * 2 == done.stdout
    heard = place.monitor.read_text(encoding="utf-8", errors="replace")
    assert "secret:" not in heard
    assert '"FLUSHALL"' not in heard
    deadline = time.monotonic() + SECONDS
    while not {"bytes", "export_rows"} <= {entry["limit"] for entry in place.yard.entries() if entry["kind"] == "exceeded"}:
        assert time.monotonic() < deadline, "no alarm in the decision log, which is written behind what the client reads"
        time.sleep(0.05)


def test_redis_cli(place: Place) -> None:
    """What it prints is what it prints without the enforcer, but for what is denied."""
    words = ("redis-cli", "-h", "api.test", "--no-auth-warning", "-a", PASSWORD)
    for command in (("SET", "c", "a b"), ("GET", "c"), ("RPUSH", "h", "f"), ("LRANGE", "none", "0", "-1"), ("TYPE", "h")):
        printed = place.run(*words, *command).stdout
        assert place.direct(*command) == printed or command[0] == "RPUSH"
    assert "NOPERM capd: agents read no secrets" in place.run(*words, "GET", "secret:x").stdout
    assert "NOPERM capd: not for agents" in place.run(*words, "SHUTDOWN").stdout


def test_redis_benchmark(place: Place) -> None:
    """Sixteen connections with pipelines end as they should, and every command has its decision."""
    options = ["-h", "api.test", "-a", PASSWORD, "-n", "2000", "-P", "16", "-c", "16", "-q", "-t", "set,get,lrange_100"]
    done = place.run("redis-benchmark", *options)
    assert 0 == done.returncode, done.stderr
    assert "GET:" in done.stdout


def test_its_defects(place: Place) -> None:
    """After all of this the enforcer has made no mistake that it knows of."""
    workers = place.yard.status()["workers"]
    assert isinstance(workers, list)
    assert [0] == [worker["defects"] for worker in workers]
