"""Who is recorded: a run with all its descendants, and nobody else.

What lives here: selection seen from outside. What must not: how selection works.
"""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tests.daemon.conftest import wait_until
from tests.e2e.certificates import Certificates
from tests.e2e.instance import CLIENTS, PYTHON, Instance
from tests.e2e.truth import Echo, Server, UnixServer, serving

pytestmark = pytest.mark.e2e


def test_who_is_not_an_agent_leaves_nothing(
    capd: Instance, trusted: Certificates, mirror: Server, echo: Server, directory: Path
) -> None:
    """A process outside of every run leaves no session and none of its bytes, over TLS or plain, not even in the journal."""
    before = {session["session"] for session in capd.sessions()}
    secret = "not-an-agent-3fbd1c"
    body = directory / "body"
    body.write_text(secret * 50, encoding="ascii")
    subprocess.run([PYTHON, "-I", CLIENTS / "blocking.py", trusted.authority, str(mirror.port), f"/{secret}", body], check=True)
    subprocess.run([PYTHON, "-I", CLIENTS / "descriptors.py", "dup", str(echo.port), secret, secret], check=True)
    mirror.ledger.take(1)
    echo.ledger.take(1)
    # An agent that comes after them: when it is recorded, they would have been.
    capd.run("after-the-stranger", PYTHON, "-I", CLIENTS / "descriptors.py", "dup", str(echo.port), "I am the agent")
    ours = capd.assert_recorded("after-the-stranger", echo.ledger.take(1))
    assert before | {ours[0]["session"]} == {session["session"] for session in capd.sessions()}
    assert [] == capd.containing(secret.encode())
    assert [] != capd.containing(b"I am the agent")


def test_grandchild_after_double_fork(capd: Instance, trusted: Certificates, mirror: Server, directory: Path) -> None:
    """A grandchild that left its session, its terminal and its parents is still recorded, after `capd run` has ended."""
    done = directory / "done"
    command: list[str | Path] = [
        "curl",
        "-sSf",
        "--cacert",
        trusted.authority,
        "-o",
        "/dev/null",
        f"https://127.0.0.1:{mirror.port}/daemon/5000",
    ]
    capd.run("daemon", PYTHON, "-I", CLIENTS / "detached.py", done, "/bin/sh", "-c", 'sleep 1; exec "$@"', "sh", *command)
    wait_until(done.exists, "the grandchild is done")
    capd.assert_recorded("daemon", mirror.ledger.take(1), protocol="http1", state="closed")


@pytest.mark.parametrize("way", ["dup", "inherit", "pass"])
def test_descriptor_travels(capd: Instance, echo: Server, way: str) -> None:
    """A connection used through a duplicate, by an heir or by a process that was passed it, stays one session."""
    name = f"descriptor-{way}"
    capd.run(name, PYTHON, "-I", CLIENTS / "descriptors.py", way, str(echo.port), "one", "two", "three", "four")
    (session,) = capd.assert_recorded(name, echo.ledger.take(1), state="closed")
    assert b"onetwothreefour" == capd.raw(session, "request")


def test_unix_stream(capd: Instance, directory: Path) -> None:
    """A unix stream socket is a session, byte for byte, and its path is shown."""
    path = str(directory / "peer")
    with serving(UnixServer(Echo, path)) as server:
        capd.run("unix", PYTHON, "-I", CLIENTS / "sockets.py", "unix", path, "hello", "and", "goodbye")
        (session,) = capd.assert_recorded("unix", server.ledger.take(1), transport="unix", state="closed")
    assert path in (session["target"]["host"], session["target"]["name"])


def test_ipv6_and_vectors(capd: Instance, six: Server) -> None:
    """Writev and readv over IPv6 are recorded in the order of their parts, with the peer's address."""
    texts = ["first part ", "second", " and third"]
    capd.run("six", PYTHON, "-I", CLIENTS / "sockets.py", "tcp6", str(six.port), *texts)
    (session,) = capd.assert_recorded("six", six.ledger.take(1), state="closed")
    assert "".join(texts).encode() == capd.raw(session, "request")
    assert ("::1", six.port) == (session["target"]["host"], session["target"]["port"])


def test_datagrams_name_their_peer(capd: Instance, datagrams: int) -> None:
    """Each UDP datagram is kept whole, with the peer it went to, also from one unconnected socket."""
    texts = ["alpha", "beta", "gamma", "delta"]
    capd.run("udp", PYTHON, "-I", CLIENTS / "sockets.py", "udp", str(datagrams), *texts)
    sessions = capd.settled("udp", 1)
    assert b"alphabetagammadelta" == capd.raw(sessions[0], "request")
    assert b"alphabetagammadelta" == capd.raw(sessions[0], "response")
    peers = [record["body"]["peer"] for record in capd.records(sessions[0]) if record["kind"] == "data"]
    assert {"127.0.0.1", "::1"} == {peer["host"].removeprefix("::ffff:") for peer in peers}
