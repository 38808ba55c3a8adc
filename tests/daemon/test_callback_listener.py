"""The listener of links and the client of webhooks over real sockets: TLS, unix sockets, limits, whatever the other end does.

What lives here: one loop with both ends of HTTP, and curl. What must not: replies (tests/enforcer/test_callbacks_site.py).
"""

from __future__ import annotations

import asyncio
import json
import os
import socket
import ssl
import subprocess
from collections.abc import Awaitable, Callable
from contextlib import closing, suppress
from http import HTTPStatus
from pathlib import Path
from uuid import uuid4

import pytest

from capd.daemon import callback_listener, webhook_client
from capd.daemon.callback_listener import BODY_BYTES_MAX, CONNECTIONS_MAX, Listener
from capd.daemon.callback_peers import Peers
from capd.daemon.callbacks_role import defect
from capd.daemon.cgroups import RunCgroup, find_root
from capd.daemon.runs import Registry, Run, user_principal
from capd.enforcer.callbacks.site import Asked, Reply
from tests.e2e.certificates import make
from tests.requirements import require_command, require_root

SECONDS = 120
AGENT, PROXY, ENFORCER = 61_001, 61_002, 61_003


def serving(place: Path, *, tls: bool = False, unix: bool = False) -> tuple[socket.socket, ssl.SSLContext | None]:
    """Give a socket that listens, and its TLS."""
    context = None
    if tls:
        certificates = make(place)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificates.certificate, certificates.key)
    listening = socket.socket(socket.AF_UNIX if unix else socket.AF_INET)
    listening.bind(str(place / "socket") if unix else ("127.0.0.1", 0))
    listening.listen()
    return listening, context


async def echo(asked: Asked) -> Reply:
    """Tell what came."""
    return Reply(status=HTTPStatus.OK, body=f"{asked.method} {asked.target} {len(asked.body)} {asked.fields.get('x-twice')}")


def scene(
    listening: socket.socket,
    tls: ssl.SSLContext | None,
    story: Callable[[Listener], Awaitable[None]],
    *,
    answer: Callable[[Asked], Awaitable[Reply]] = echo,
    refusal: Callable[[socket.socket], str] = lambda _: "",
) -> Listener:
    """Serve while a story goes on; give the listener."""
    listener = Listener(listening, tls, answer, refusal)

    async def run() -> None:
        async with asyncio.timeout(SECONDS), asyncio.TaskGroup() as tasks:
            serve = tasks.create_task(listener.serve(), name="listener")
            await story(listener)
            serve.cancel()

    asyncio.run(run())
    return listener


async def curl(*words: str) -> str:
    """Ask, and give body and status."""
    process = await asyncio.create_subprocess_exec(
        "curl", "-sS", "--max-time", "10", "-w", " %{http_code}", *words, stdout=asyncio.subprocess.PIPE
    )
    output, _ = await process.communicate()
    return output.decode()


@pytest.mark.parametrize("unix", [False, True], ids=["loopback", "unix"])
@pytest.mark.parametrize("tls", [False, True], ids=["clear", "tls"])
def test_a_request_is_answered(tmp_path: Path, tls: bool, unix: bool) -> None:
    """A request is taken whole, in clear and by TLS, on loopback and by a unix socket; a field has both its values."""
    require_command("curl", "openssl")
    listening, context = serving(tmp_path, tls=tls, unix=unix)
    port = 1 if unix else listening.getsockname()[1]
    where = ("--unix-socket", str(tmp_path / "socket")) if unix else ()
    trust = ("--cacert", str(tmp_path / "ca.pem")) if tls else ()
    url = f"http{'s' if tls else ''}://localhost:{port}/a?b"
    local = ("--resolve", f"localhost:{port}:127.0.0.1")

    async def story(_: Listener) -> None:
        assert "GET /a?b 0 None 200" == await curl(url, *where, *trust, *local)
        assert "POST /a?b 3 x, y 200" == await curl(
            url, *where, *trust, *local, "-d", "abc", "-H", "X-Twice: x", "-H", "X-Twice: y"
        )
        (tmp_path / "big").write_bytes(b"x" * BODY_BYTES_MAX)
        big = ("--data-binary", f"@{tmp_path / 'big'}", "-H", "Expect: 100-continue")
        assert f"POST /a?b {BODY_BYTES_MAX} None 200" == await curl(url, *where, *trust, *local, *big)
        head = await curl(url, *where, *trust, *local, "-I")
        assert ("content-length: 16" in head.lower(), head[-4:]) == (True, " 200"), head
        chunked = ("-H", "Transfer-Encoding: chunked", "-d", "abc")
        assert "POST /a?b 3 None 200" == await curl(url, *where, *trust, *local, *chunked)

    assert 5 == scene(listening, context, story).counts["answered"]


async def say(listening: socket.socket, *said: bytes, end: bool = False) -> bytes:
    """Say something, and give what is answered until the end."""
    reader, writer = await asyncio.open_connection(*listening.getsockname())
    for part in said:
        writer.write(part)
        with suppress(ConnectionError):
            await writer.drain()
    if end:
        writer.write_eof()
    answer = b""
    with suppress(ConnectionError):
        answer = await reader.read()
    writer.close()
    return answer


@pytest.mark.parametrize(
    ("said", "status", "count"),
    [
        ((b"x" * 20_000,), b"431", "malformed"),
        ((b"GET / HTTP/1.1\r\nHost: a\r\nX: " + b"y" * 40_000,), b"431", "malformed"),
        ((b"nonsense\r\n\r\n",), b"400", "malformed"),
        ((b"GET / HTTP/1.1\r\n\r\n",), b"400", "malformed"),
        ((b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",), b"400", "malformed"),
        ((b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",), b"400", "malformed"),
        ((b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 999999\r\n\r\n", b"x" * 999_999), b"413", "large"),
        ((b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",), b"400", "malformed"),
    ],
    ids=range(8),
)
def test_what_is_no_request(tmp_path: Path, said: tuple[bytes, ...], status: bytes, count: str) -> None:
    """What is no request, or too large, is told so and counted; it reaches nobody."""
    listening, _ = serving(tmp_path)

    async def never(_: Asked) -> Reply:
        raise AssertionError

    async def story(listener: Listener) -> None:
        answer = await say(listening, *said, end=True)
        assert (status in answer[:20]) or (not answer and count == "large"), answer
        while not listener.counts[count]:  # noqa: ASYNC110 - it is counted by another task
            await asyncio.sleep(0.01)

    scene(listening, None, story, answer=never)


@pytest.mark.parametrize("said", [b"", b"GET / HTTP/1.1\r\n", b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\nx"])
def test_who_is_slow_is_hung_up_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, said: bytes) -> None:
    """Who does not say all in time is hung up on."""
    monkeypatch.setattr(callback_listener, "REQUEST_SECONDS_MAX", 0.2)
    listening, _ = serving(tmp_path)

    async def story(_: Listener) -> None:
        assert b"" == await say(listening, said)

    assert 1 == scene(listening, None, story).counts["slow"]


def test_who_leaves_costs_nothing(tmp_path: Path) -> None:
    """Who leaves in the middle is counted, and the next is served."""
    listening, _ = serving(tmp_path)

    async def story(listener: Listener) -> None:
        assert b"" == await say(listening, b"", end=True)
        await say(listening, b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\nx", end=True)
        assert b"200 OK" in await say(listening, b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        assert 1 == listener.counts["answered"]

    scene(listening, None, story)


def test_a_defect_costs_one_connection(tmp_path: Path) -> None:
    """When answering fails by a mistake of ours the client is hung up on, it is counted, and the next is served."""
    listening, _ = serving(tmp_path)

    async def broken(asked: Asked) -> Reply:
        if asked.target == "/broken":
            raise KeyError
        return await echo(asked)

    async def story(_: Listener) -> None:
        assert b"" == await say(listening, b"GET /broken HTTP/1.1\r\nHost: a\r\n\r\n")
        assert b"200 OK" in await say(listening, b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")

    assert 1 == scene(listening, None, story, answer=broken).counts["defect"]


def test_so_many_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Above the limit of connections clients are hung up on; the pace of requests is held by 429."""
    monkeypatch.setattr(callback_listener, "PER_SECOND", 0.0)
    listening, _ = serving(tmp_path)
    request = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"

    async def story(listener: Listener) -> None:
        waiting = [await asyncio.open_connection(*listening.getsockname()) for _ in range(CONNECTIONS_MAX)]
        while listener._open < CONNECTIONS_MAX:  # noqa: ASYNC110 - it takes them by and by
            await asyncio.sleep(0.01)
        assert b"" == await say(listening, request)
        assert 1 == listener.counts["crowded"]
        for _, writer in waiting:
            writer.close()
        while listener._open:  # noqa: ASYNC110 - as above
            await asyncio.sleep(0.01)
        for _ in range(callback_listener.BURST):
            assert b"200 OK" in await say(listening, request)
        assert b"429" in await say(listening, request)

    assert 1 == scene(listening, None, story).counts["pace"]


# -- who connects --------------------------------------------------------------------------------------------------------------

ASK = """
import socket, sys
peer = socket.socket(socket.AF_UNIX if sys.argv[1][0] == "/" else socket.AF_INET)
peer.connect(sys.argv[1] if sys.argv[1][0] == "/" else ("127.0.0.1", int(sys.argv[1])))
peer.sendall(b"x")
peer.recv(1)
"""


@pytest.mark.parametrize("unix", [False, True], ids=["loopback", "unix"])
@pytest.mark.parametrize(
    ("inside", "uid", "words"),
    [
        (True, 0, "part of a run"),
        (False, 0, ""),
        (False, AGENT, f"agents run as user {AGENT}"),
        (False, PROXY, ""),
        (False, ENFORCER, "comes through the enforcer"),
    ],
)
def test_whose_a_connection_is(instance_dir: Path, unix: bool, inside: bool, uid: int, words: str) -> None:
    """Processes of runs, the enforcer, and users as whom agents run are turned away; a reverse proxy is not."""
    require_root()
    cgroup = find_root() / f"capd-peers-{os.getpid()}"
    cgroup.mkdir()
    (instance_dir / "runs").mkdir()
    where = RunCgroup(path=f"/{cgroup.name}", id=cgroup.stat().st_ino, unit=None)
    Registry(instance_dir / "runs").add(
        Run(id=uuid4(), name="peers", principal=user_principal(AGENT), cgroup=where, started_ns=1)
    )
    listening, _ = serving(instance_dir, unix=unix)
    listening.settimeout(SECONDS)
    if unix:
        (instance_dir / "socket").chmod(0o666)

    def enter() -> None:
        if inside:
            (cgroup / "cgroup.procs").write_text("0", encoding="ascii")
        os.setresgid(uid, uid, uid)
        os.setresuid(uid, uid, uid)

    to = str(instance_dir / "socket") if unix else str(listening.getsockname()[1])
    try:
        with subprocess.Popen(["/usr/bin/python3", "-c", ASK, to], preexec_fn=enter, cwd="/") as client:  # noqa: PLW1509 - as in yard.py
            accepted, _address = listening.accept()
            assert b"x" == accepted.recv(1)
            with closing(Peers(instance_dir / "runs", find_root(), ENFORCER)) as peers:
                refusal = peers.refusal(accepted)
            accepted.close()
            client.wait(SECONDS)
        assert (words in refusal, bool(words)) == (True, bool(refusal)), refusal
    finally:
        listening.close()
        cgroup.rmdir()


def test_who_is_not_known_is_turned_away(tmp_path: Path) -> None:
    """A connection of whose socket the kernel does not tell is turned away."""
    (tmp_path / "runs").mkdir()
    listening, _ = serving(tmp_path)
    listening.settimeout(SECONDS)
    client = socket.create_connection(listening.getsockname())
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")
    accepted, _address = listening.accept()
    client.close()
    with closing(Peers(tmp_path / "runs", find_root(), ENFORCER)) as peers:
        assert "not known whose" in peers.refusal(accepted)
    accepted.close()
    listening.close()


# -- webhooks ------------------------------------------------------------------------------------------------------------------

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"


def status(number: int, more: bytes = b"") -> bytes:
    """Give an answer."""
    return b"HTTP/1.1 %d X\r\n%sContent-Length: 0\r\n\r\n" % (number, more)


@pytest.mark.parametrize(
    ("answers", "error", "final", "pause"),
    [
        ((OK,), "", False, None),
        ((status(204),), "", False, None),
        ((b"HTTP/1.1 103 Early\r\n\r\n", OK), "", False, None),
        ((b"HTTP/1.0 200 OK\r\n\r\n",), "", False, None),
        ((status(301, b"Location: https://evil.test/\r\n"),), "it answered 301", True, None),
        ((status(400),), "it answered 400", True, None),
        ((status(404),), "it answered 404", True, None),
        ((status(408),), "it answered 408", False, None),
        ((status(429, b"Retry-After: 7\r\n"),), "it answered 429", False, 7.0),
        ((status(503, b"Retry-After: Wed, 21 Oct 2026 07:28:00 GMT\r\n"),), "it answered 503", False, None),
        ((status(503, b"Retry-After: 99999999999999999999\r\n"),), "it answered 503", False, None),
        ((b"",), "hung up", False, None),
        ((b"HTTP/1.1 200 OK\r\n",), "hung up", False, None),
        ((b"nonsense\r\n\r\n",), "RemoteProtocolError", False, None),
        ((b"HTTP/1.1 200 OK\r\n" + b"X: " + b"y" * 200_000,), "RemoteProtocolError", False, None),
    ],
    ids=range(15),
)
def test_what_came_of_a_message(answers: tuple[bytes, ...], error: str, final: bool, pause: float | None) -> None:
    """A message is taken by any 2xx; what is of no use to repeat is final; whatever is answered, there is an outcome."""
    heard = bytearray()

    async def receive(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heard.extend(await reader.readuntil(b"\r\n\r\n"))
        heard.extend(await reader.readexactly(2))
        with suppress(ConnectionError):
            for answer in answers:
                writer.write(answer)
                await writer.drain()
        writer.close()

    async def story() -> webhook_client.Outcome:
        async with await asyncio.start_server(receive, "127.0.0.1", 0) as server:
            port = server.sockets[0].getsockname()[1]
            url = f"http://127.0.0.1:{port}/hook?a=b"
            return await webhook_client.post(url, ssl.create_default_context(), [("X-A", "b")], b"{}", seconds=SECONDS)

    outcome = asyncio.run(story())
    assert (error in outcome.error, bool(error)) == (True, bool(outcome.error)), outcome
    assert (final, pause) == (outcome.final, outcome.pause_seconds)
    assert heard.startswith(b"POST /hook?a=b HTTP/1.1\r\n")
    assert heard.endswith(b"\r\n\r\n{}")


def test_nobody_answers() -> None:
    """A receiver that is not there, or says nothing, fails in time, and may be tried again."""

    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError):
            await reader.read()
        writer.close()

    async def story() -> None:
        async with await asyncio.start_server(silent, "127.0.0.1", 0) as server:
            port = server.sockets[0].getsockname()[1]
            url = f"http://127.0.0.1:{port}/"
            outcome = await webhook_client.post(url, ssl.create_default_context(), [], b"", seconds=0.2)
            assert webhook_client.Outcome(error="no answer within 0.2 s") == outcome
        outcome = await webhook_client.post(url, ssl.create_default_context(), [], b"", seconds=SECONDS)
        assert ("ConnectionRefusedError" in outcome.error, False) == (True, outcome.final)

    asyncio.run(story())


def test_a_defect_tells_nothing_of_its_message() -> None:
    """What everybody may read of a message that could not be made has neither its links nor what it is about."""
    message = {"links": {"approve": "https://approve.test/link/abc"}, "body": "\ud800"}
    with pytest.raises(UnicodeEncodeError) as caught:
        json.dumps(message, ensure_ascii=False).encode()
    assert "link/abc" in repr(caught.value)
    assert "a defect of capd: UnicodeEncodeError" == defect(caught.value)
