"""Ways round the rules for Redis that need no Redis: a real server is told commands in what is none, where a rule lets that go.

What lives here: what is said, and that nothing was done. What must not: single commands (test_redis_live.py).
"""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
import redis

from capd.enforcer.policy.action import Run
from capd.enforcer.policy.policy import Policy
from capd.enforcer.proxy.judge import Agent, judge
from capd.enforcer.proxy.question import Question, Verdict
from tests.daemon.conftest import READY_SECONDS
from tests.enforcer.policies import policy
from tests.enforcer.postgresql_model import startup
from tests.enforcer.proxied import ADDRESS, proxied
from tests.servers.redis import RedisServer, redis_server

AGENT = Agent(run=Run(name="r"), principal=None)
SILENT_SECONDS = 0.4
"""Longer than a silence after which it is asked whether what is not decoded may pass (opening.SILENCE_SECONDS)."""
ANY = "- {id: any, match: {hosts: 127.0.0.1}, then: allow}"
DENIES = "- {{id: no-writes, match: {{protocols: redis, {}effects: [update, insert, delete, drop, administer]}}, then: deny}}"
POLICIES: dict[str, Callable[[int], str]] = {
    "of the host": lambda _: f"{ANY}\n{DENIES.format('hosts: 127.0.0.1, ')}",
    "of the port": lambda port: f"{ANY}\n{DENIES.format(f'hosts: 127.0.0.1, ports: {port}, ')}",
    "of every host": lambda _: f"{ANY}\n{DENIES.format('')}",
    "of the port, and tcp is allowed there": lambda port: (
        f"{ANY}\n{DENIES.format(f'ports: {port}, ')}\n- {{id: tcp, match: {{protocols: tcp, ports: {port}}}, then: allow}}"
    ),
}
SET = b"*3\r\n$3\r\nSET\r\n$1\r\na\r\n$1\r\nb\r\n"
SAID = {
    "a line": [b"SET a b\r\n"],
    "a line, after silence": [b"", b"SET a b\r\n"],
    "junk, then a line": [b"x\r\nSET a b\r\n"],
    "junk, then arrays": [b"x\r\n" + SET],
    "blanks, then arrays": [b"  \r\n" + SET],
    "bytes of nothing": [b"\xff\xfe\r\n" + SET],
}
OF_A_PORT = {
    "HTTP": [b"SET /a HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"],
    "PostgreSQL": [startup(b"\0\3\0\0user\0a\0database\0\r\nSET a b\r\n\0\0")],
}


@dataclass
class Place:
    """A server, and the proxy before it, which judges by a policy."""

    server: RedisServer
    port: int
    policy: Policy

    @contextmanager
    def direct(self) -> Iterator[redis.Redis]:
        """Give a client that nothing is between."""
        with redis.Redis(host="127.0.0.1", port=self.server.port, decode_responses=True) as client:
            yield client

    def says(self, said: list[bytes], expected: bytes = b"") -> bytes:
        """Say something, each part after some silence; give what comes back: what is expected, or until an end or silence."""
        heard = b""
        with socket.create_connection((ADDRESS, self.port), READY_SECONDS) as client, suppress(OSError):
            for one in said:
                client.sendall(one)
                if not one:
                    time.sleep(SILENT_SECONDS)
            client.settimeout(READY_SECONDS if expected else 2 * SILENT_SECONDS)
            while (not expected or heard != expected) and (data := client.recv(65_536)):
                heard += data
        return heard


@pytest.fixture(scope="module")
def place() -> Iterator[Place]:
    """Make one for all tests here."""
    with TemporaryDirectory(prefix="capd-around-redis-") as name, redis_server() as server:
        made = Place(server, 0, policy())

        def decide(question: Question) -> Verdict:
            return judge(made.policy, AGENT, question, proven=True)

        with proxied(Path(name), server.port, None, decide) as proxy:
            made.port = proxy.port
            yield made


CASES = [(rules, said) for rules in POLICIES for said in (*SAID, *(OF_A_PORT if "port" in rules else ()))]
"""Of a host alone nobody says which of its ports is Redis's: other protocols go there."""


@pytest.mark.parametrize(("rules", "said"), CASES, ids=lambda one: one)
def test_nothing_is_done_that_a_rule_denies(place: Place, rules: str, said: str) -> None:
    """What a rule for Redis denies is not done by lines, or by another protocol, that a rule for all protocols lets go."""
    place.policy = policy(f"rules:\n{POLICIES[rules](place.server.port)}")
    with place.direct() as direct:
        direct.flushall()
        place.says({**SAID, **OF_A_PORT}[said])
        assert 0 == direct.dbsize()


@pytest.mark.parametrize("rules", POLICIES)
def test_what_is_redis_goes_on(place: Place, rules: str) -> None:
    """Arrays, which every client says, are judged as commands."""
    place.policy = policy(f"rules:\n{POLICIES[rules](place.server.port)}")
    with redis.Redis(host=ADDRESS, port=place.port, decode_responses=True) as agent:
        assert agent.get("a") is None
        with pytest.raises(redis.exceptions.NoPermissionError):
            agent.set("a", "b")


def test_what_a_rule_opens_goes_on(place: Place) -> None:
    """What is not decoded goes where a rule for `tcp` names the port, and none for Redis does: nobody else can know."""
    tcp = f"- {{id: tcp, match: {{protocols: tcp, ports: {place.server.port}}}, then: allow}}"
    place.policy = policy(f"rules:\n{POLICIES['of the host'](0)}\n{tcp}")
    assert place.says([b"PING\r\n"], pong := b"+PONG\r\n") == pong
