"""Real clients of Redis through the proxy's shell, before a real server.

What lives here: what clients see, and what never reaches the server. What must not: redirects, the policy.
"""

from __future__ import annotations

import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from io import BufferedReader
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from capd.enforcer.credentials.secret import Secret
from capd.enforcer.obligations.obligation import Obligations
from capd.enforcer.obligations.sign_in import SignIn
from capd.enforcer.policy.limit import Limit
from capd.enforcer.proxy.question import Kind, Question, Verdict
from tests.e2e.certificates import make
from tests.enforcer.proxied import ADDRESS, Proxied, proxied
from tests.servers.redis import PASSWORD, RedisServer, redis_server

SECONDS = 120
ACL = "user agent on >agents-own ~* &* +@all"


@dataclass
class Verdicts:
    """What questions are answered with: allowed are sessions but of `nobody` and in database 9, commands without `denied`."""

    sign_in: SignIn | None = None
    limits: Limit | None = None
    questions: list[Question] = field(default_factory=list)

    def __call__(self, question: Question) -> Verdict:
        """Answer."""
        self.questions.append(question)
        statement, login = question.statement, question.login
        allowed = question.kind in {Kind.SESSION, Kind.STATEMENT} and login is not None
        if statement is not None:
            allowed = b"denied" not in statement.content
        elif login is not None and (login.user == "nobody" or login.database == "9"):
            allowed = False
        reason = "" if allowed else "denied_by_policy"
        verdict = Verdict(number=question.number, allowed=allowed, reason=reason, rule="r", policy="1", message="not this")
        if question.kind is Kind.SESSION:
            return replace(verdict, sign_in=self.sign_in)
        return verdict if self.limits is None else replace(verdict, obligations=Obligations(limits=(("rail", self.limits),)))


@dataclass(frozen=True)
class Place:
    """A server, and the proxy before it."""

    server: RedisServer
    proxy: Proxied
    verdicts: Verdicts

    def client(self, **more: Any) -> redis.Redis:  # noqa: ANN401 - redis-py's own words
        """Give a client through the proxy."""
        words: dict[str, Any] = {
            "retry": Retry(NoBackoff(), 0),
            "password": PASSWORD,
            "decode_responses": True,
            "socket_timeout": SECONDS,
            "protocol": 2,
        }
        return redis.Redis(**{"host": ADDRESS, "port": self.proxy.port, **words, **more})

    def direct(self) -> redis.Redis:
        """Give a client that nothing is between."""
        return redis.Redis(host="127.0.0.1", port=self.server.port, password=PASSWORD, decode_responses=True)


@pytest.fixture(scope="module")
def shared() -> Iterator[Place]:
    """Make one for all tests here."""
    with TemporaryDirectory(prefix="capd-proxy-redis-") as name:
        directory = Path(name)
        (directory / "tls").mkdir()
        certificates, verdicts = make(directory / "tls"), Verdicts()
        with (
            redis_server("--requirepass", PASSWORD, "--" + ACL.split(" ", 1)[0], *ACL.split(" ")[1:]) as server,
            proxied(directory, server.port, certificates, verdicts) as proxy,
        ):
            yield Place(server, proxy, verdicts)


@pytest.fixture
def place(shared: Place) -> Iterator[Place]:
    """Give it with nobody signed in for and nothing kept; no mistake of ours was made."""
    shared.verdicts.sign_in = shared.verdicts.limits = None
    shared.verdicts.questions.clear()
    with shared.direct() as direct:
        direct.flushall()
    yield shared
    assert [] == shared.proxy.mistakes
    assert 0 == shared.proxy.counters.defects


@pytest.mark.parametrize("protocol", [2, 3])
def test_redis_py(place: Place, protocol: int) -> None:
    """What agents do every day works as without the proxy, in both versions of the protocol."""
    with place.client(protocol=protocol) as agent:
        assert agent.set("k", "é\r\nx")
        assert "é\r\nx" == agent.get("k")
        agent.hset("h", mapping={"a": "1", "b": "2"})
        assert {"a": "1", "b": "2"} == agent.hgetall("h")
        assert [1, 2, "2"] == agent.pipeline(transaction=False).incr("n").incr("n").get("n").execute()
        assert [3, 1] == agent.pipeline(transaction=True).incr("n").zadd("z", {"m": 1.5}).execute()
        assert [1, "v"] == agent.eval("return {1, ARGV[1]}", 1, "k", "v")
        assert agent.blpop(["missing"], timeout=0.05) is None
        agent.set("big", "x" * 3_000_000)
        assert 3_000_000 == len(agent.get("big"))
        with pytest.raises(redis.ResponseError, match="WRONGTYPE"):
            agent.lpush("k", "x")


def test_what_is_denied_never_arrives(place: Place) -> None:
    """A denied command is answered with NOPERM in its place in a pipeline, and the server never hears of it."""
    with place.client() as agent, place.direct() as direct:
        with pytest.raises(redis.exceptions.NoPermissionError, match="not this"):
            agent.set("denied", "1")
        results = agent.pipeline(transaction=False).set("a", "1").set("denied", "1").get("a").execute(raise_on_error=False)
        assert [True, "1"] == [results[0], results[2]]
        assert isinstance(results[1], redis.exceptions.NoPermissionError)
        assert ["a"] == direct.keys()
        assert 0 == direct.info("errorstats").get("errorstat_NOPERM", {"count": 0})["count"]


def test_a_transaction_with_something_denied_is_aborted(place: Place) -> None:
    """Nothing of it is done, as Redis does with a transaction in which something was wrong; the next one is a new one."""
    with place.client(single_connection_client=True) as agent, place.direct() as direct:
        with pytest.raises(redis.exceptions.NoPermissionError):
            agent.pipeline(transaction=True).set("a", "1").set("denied", "1").set("b", "1").execute()
        assert [] == direct.keys()
        assert [True] == agent.pipeline(transaction=True).set("a", "2").execute()
        assert "2" == agent.get("a")


@pytest.mark.parametrize("protocol", [2, 3])
def test_channels(place: Place, protocol: int) -> None:
    """Subscriptions, messages, and a command that is denied meanwhile."""
    with place.client(protocol=protocol) as agent, place.direct() as direct:
        subscription = agent.pubsub()
        subscription.subscribe("news")
        subscription.psubscribe("p*")
        assert ["subscribe", "psubscribe"] == [_kind(subscription) for _ in range(2)]
        direct.publish("news", "x" * 100_000)
        direct.publish("px", "y")
        assert ["message", "pmessage"] == [_kind(subscription) for _ in range(2)]
        subscription.subscribe("denied")
        with pytest.raises(redis.exceptions.NoPermissionError):
            _kind(subscription)
        direct.publish("news", "z")
        assert "message" == _kind(subscription)
        assert {("news", 1), ("denied", 0)} == {(name, int(count)) for name, count in direct.pubsub_numsub("news", "denied")}
        subscription.close()


def _kind(subscription: redis.client.PubSub) -> str:
    message = subscription.get_message(timeout=SECONDS)
    assert message is not None
    return str(message["type"])


def test_a_credential_of_a_rule(place: Place) -> None:
    """The agent has no password, or a wrong one; the server sees the credential's user, and the agent's password never."""
    place.verdicts.sign_in = SignIn(credential="c", user="agent", secret=Secret("agents-own"))
    for protocol, password in ((2, None), (3, None), (2, "whatever"), (3, "whatever")):
        with place.client(protocol=protocol, password=password) as agent:
            assert "agent" == agent.acl_whoami()
            assert agent.set("k", "v")


def test_a_placeholder(place: Place) -> None:
    """Where the credential has a placeholder, who does not say it is told what Redis tells."""
    place.verdicts.sign_in = SignIn(credential="c", user="agent", secret=Secret("agents-own"), placeholder="placeholder")
    for protocol in (2, 3):
        with place.client(protocol=protocol, password="placeholder") as agent:
            assert "agent" == agent.acl_whoami()
        with pytest.raises(redis.AuthenticationError), place.client(protocol=protocol, password="other") as agent:
            agent.ping()
    with pytest.raises(redis.AuthenticationError), place.client(password=None) as agent:
        agent.get("k")


def test_a_wrong_credential_ends_the_session(place: Place) -> None:
    """A secret that the server does not take is told, and never the secret."""
    place.verdicts.sign_in = SignIn(credential="c", user="agent", secret=Secret("wrong-secret"))
    with socket.create_connection((ADDRESS, place.proxy.port), timeout=SECONDS) as raw:
        raw.sendall(b"*1\r\n$4\r\nPING\r\n")
        told = b"".join(iter(lambda: raw.recv(4096), b""))
    assert told.startswith(b"-ERR capd: sign_in_failed")
    assert b"wrong-secret" not in told


def test_databases_and_users_are_followed(place: Place) -> None:
    """Commands are judged as of the user and in the database in which the server will run them."""
    said = [
        *[
            ("SET k zero", "OK"),
            ("SELECT 3", "OK"),
            ("GET k", None),
            ("SELECT 9", "NOPERM"),
            ("SELECT 99", "ERR"),
            ("SET k three", "OK"),
        ],
        *[("AUTH nobody x", "NOPERM"), ("AUTH agent wrong", "WRONGPASS"), ("GET k", "three"), ("AUTH agent agents-own", "OK")],
        *[("GET k", "three"), ("RESET", "RESET"), (f"AUTH {PASSWORD}", "OK"), ("GET k", "zero")],
    ]
    with socket.create_connection((ADDRESS, place.proxy.port), timeout=SECONDS) as raw, raw.makefile("rb") as reader:
        raw.sendall(
            f"*2\r\n$4\r\nAUTH\r\n${len(PASSWORD)}\r\n{PASSWORD}\r\n".encode()
            + "".join(f"{line}\r\n" for line, _ in said).encode()
        )
        answers = [_answer(reader) for _ in range(len(said) + 1)]
    assert [("OK" if expected is None else expected) for _, expected in said] == [
        "OK" if expected is None and found is None else found for found, (_, expected) in zip(answers[1:], said, strict=True)
    ]
    logins = [
        (one.login.user, one.login.database, one.statement.operation)
        for one in place.verdicts.questions
        if one.login is not None and one.statement is not None and not one.statement.operation.startswith("CLIENT")
    ]
    assert [
        *[("default", "0", "SET"), ("default", "3", "GET"), ("default", "3", "SET"), ("default", "3", "GET")],
        *[("agent", "3", "GET"), ("default", "0", "GET")],
    ] == logins


def _answer(reader: BufferedReader) -> str | None:
    """Read a short answer: a string, or the code of an error."""
    line = reader.readline().decode().strip()
    if line.startswith("$"):
        return None if line == "$-1" else reader.readline().decode().strip()
    return line[1:].split(" ")[0]


@pytest.mark.parametrize(
    "words",
    [
        ("CLIENT", "REPLY", "OFF"),
        ("PSYNC", "?", "-1"),
        ("SYNC",),
        ("REPLCONF", "listening-port", "1"),
        ("CLIENT", "REPLY", "SKIP"),
    ],
)
def test_what_cannot_be_followed_is_refused(place: Place, words: tuple[str, ...]) -> None:
    """It is told so, and the session goes on."""
    with place.client(single_connection_client=True) as agent:
        agent.ping()
        with pytest.raises(redis.exceptions.NoPermissionError):
            agent.execute_command(*words)
        assert agent.ping()


def cli(place: Place, *words: str, script: str = "") -> str:
    """Run redis-cli through the proxy; gives what it prints."""
    command = ["redis-cli", "-h", ADDRESS, "-p", str(place.proxy.port), "--no-auth-warning", "-a", PASSWORD, *words]
    done = subprocess.run(command, input=script, capture_output=True, text=True, timeout=SECONDS, check=False)
    return done.stdout


def test_redis_cli(place: Place) -> None:
    """What redis-cli prints is what it prints without the proxy, but for what is denied."""
    script = "SET k 'a b'\nGET k\nMULTI\nINCR n\nEXEC\nLRANGE missing 0 -1\nBAD\nSELECT 2\nGET k\nCOMMAND COUNT\n"
    printed = cli(place, script=script)
    with place.direct() as direct:
        direct.flushall()
    command = ["redis-cli", *place.server.options, "--no-auth-warning", "-a", PASSWORD]
    assert subprocess.run(command, input=script, capture_output=True, text=True, check=True).stdout == printed
    assert "NOPERM capd: not this" in cli(place, "GET", "denied")
    assert "key1" in cli(place, "-3", "HSET", "h", "key1", "v") + cli(place, "-3", "HGETALL", "h")


def test_redis_cli_reads_a_file(place: Place) -> None:
    """`redis-cli --pipe` sends thousands of commands at once, and counts their answers."""
    script = "".join(f"SET key{number} {number}\r\n" for number in range(20_000))
    printed = cli(place, "--pipe", script=script)
    assert "errors: 0, replies: 20000" in printed


def test_redis_benchmark(place: Place) -> None:
    """Deep pipelines over many connections end as they should."""
    options = ["-h", ADDRESS, "-p", str(place.proxy.port), "-a", PASSWORD, "-n", "1000", "-P", "32", "-c", "8", "-q", "--csv"]
    tests = ["-t", "ping,set,get,incr,lpush,lrange_100,mset"]
    done = subprocess.run(
        ["redis-benchmark", *options, *tests], capture_output=True, text=True, timeout=2 * SECONDS, check=True
    )
    assert 8 < len(done.stdout.splitlines())


def test_cluster_clients_are_told(place: Place) -> None:
    """A client that wants a cluster gets the server's own answer, that it is none."""
    with pytest.raises(redis.exceptions.RedisClusterException):
        redis.RedisCluster(host=ADDRESS, port=place.proxy.port, password=PASSWORD, protocol=2).ping()


def test_limits(place: Place) -> None:
    """An answer beyond a limit is an error and the session goes on; a run that had all it may have, or hurries, is denied."""
    with place.direct() as direct:
        direct.rpush("l", *range(100))
        direct.set("long", "x" * 3_000_000)
    with place.client(single_connection_client=True) as agent:
        agent.ping()
        place.verdicts.limits = Limit(rows=50, seconds=20)
        assert 50 == len(agent.lrange("l", 0, 49))
        with pytest.raises(redis.ResponseError, match="more than rows 50 of rule rail"):
            agent.lrange("l", 0, -1)
        place.verdicts.limits = Limit(bytes=1_000_000)
        with pytest.raises(redis.ResponseError, match="more than bytes 1000000 of rule rail"):
            agent.get("long")
        place.verdicts.limits = Limit(run_rows=60)
        assert 50 == len(agent.lrange("l", 0, 49))
        with pytest.raises(redis.ResponseError, match="more than run_rows 60"):
            agent.lrange("l", 0, 49)
        with pytest.raises(redis.exceptions.NoPermissionError, match="more than run_rows 60"):
            agent.get("k")
        place.verdicts.limits = Limit(per_minute=5)  # redis-py says two things about itself first
        found = agent.pipeline(transaction=False).ping().ping().ping().ping().execute(raise_on_error=False)
        assert [True, True, True] == found[:3]
        assert isinstance(found[3], redis.exceptions.NoPermissionError)
        place.verdicts.limits = Limit(bytes=2_000_000)
        with pytest.raises(redis.ConnectionError):
            agent.get("long")
        place.verdicts.limits = None
        assert agent.ping()
    assert {"rows", "bytes", "run_rows"} == {entry["limit"] for entry in place.proxy.log.entries if entry["kind"] == "exceeded"}


def test_a_command_that_takes_too_long(place: Place) -> None:
    """Its connection is cut, and the server does not keep what waited."""
    place.verdicts.limits = Limit(seconds=1)
    with place.client(single_connection_client=True) as agent, pytest.raises(redis.RedisError):
        agent.blpop(["never"], timeout=20)
    with place.direct() as direct:
        end = time.monotonic() + SECONDS
        while direct.info("clients")["blocked_clients"]:
            assert time.monotonic() < end
            time.sleep(0.05)


def test_monitor(place: Place) -> None:
    """Who may monitor is told lines as they come."""
    with place.client() as agent, place.direct() as direct, agent.monitor() as lines:
        speaker = threading.Thread(target=direct.get, args=("seen",))
        speaker.start()
        assert any("seen" in command["command"] for command in lines.listen())
        speaker.join()


def test_tls(tmp_path: Path) -> None:
    """In TLS from the first byte the client sees capd's leaf, and the server must prove its name."""
    (tmp_path / "tls").mkdir()
    certificates, verdicts = make(tmp_path / "tls"), Verdicts()
    files = (certificates.authority, certificates.certificate, certificates.key)
    with (
        redis_server("--requirepass", PASSWORD, tls=files) as server,
        proxied(tmp_path, server.port, certificates, verdicts) as proxy,
    ):
        with redis.Redis(
            host=ADDRESS,
            port=server.port,
            password=PASSWORD,
            ssl=True,
            ssl_ca_certs=str(proxy.trust),
            ssl_check_hostname=False,
            socket_timeout=SECONDS,
            protocol=2,
        ) as agent:
            assert agent.set("k", "v")
            with pytest.raises(redis.exceptions.NoPermissionError):
                agent.set("denied", "v")
        assert [] == proxy.mistakes
        assert 0 == proxy.counters.defects
