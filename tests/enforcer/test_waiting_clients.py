"""What clients of HTTP/1.1 are told while a person is asked: real ones, each through the proxy's own shell.

What lives here: who is sent `102 Processing`, and that each goes on as if it had not been. What must not: the desk.
"""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from importlib.util import find_spec
from itertools import islice
from pathlib import Path

import pytest

from capd.enforcer.approvals.hold import Answer, Outcome
from capd.enforcer.proxy.commands import Ask, Command, Send
from capd.enforcer.proxy.connection import Connection, Means, open_connection
from capd.enforcer.proxy.events import Event, Held, Side, Timer
from capd.enforcer.proxy.held import verdict_of
from capd.enforcer.proxy.interim import OFTEN_MAX, OFTEN_SECONDS, PACE_SECONDS, Interim, pace
from capd.enforcer.proxy.judge import BODY_BYTES_MAX, Agent
from capd.enforcer.proxy.layer import Opened
from capd.enforcer.proxy.question import Question, Verdict
from tests.enforcer.asking import hold
from tests.enforcer.proxied import ADDRESS, TARGET, Proxied, by_path, proxied
from tests.enforcer.rehearsal import HERE, NoTls, Rehearsal, allow
from tests.requirements import require, require_command

HELD_SECONDS = 7.0
"""Longer than httpx, by default, waits for a sign of life."""
SECONDS = 60
PROCESSING = b"HTTP/1.1 102 Processing\r\nx-capd-approval: k3m9q\r\n\r\n"
CURL = b"User-Agent: curl/7.88.1\r\n"
FEW, MANY = [0.0, 5.0, 10.0, 15.0], [0.0, *[OFTEN_SECONDS] * OFTEN_MAX]
PYTHON_FETCH = "import sys, %s; answer = %s; assert answer.status_code == 200, answer"
AIOHTTP = """
import aiohttp, asyncio, sys
async def main():
    async with aiohttp.ClientSession() as session, session.post(sys.argv[1], data=b"x") as answer: assert answer.status == 200
asyncio.run(main())
"""
NODE_HTTP = """
require('http').get(process.argv[1], answer => process.exit(answer.statusCode === 200 ? 0 : 1))
"""
NODE_FETCH = "fetch(process.argv[1]).then(answer => process.exit(answer.status === 200 ? 0 : 1))"
JAVA = """
import java.net.URI;
import java.net.http.*;
public class Waits {
    public static void main(String[] words) throws Exception {
        var request = HttpRequest.newBuilder(URI.create(words[0])).build();
        var answer = HttpClient.newHttpClient().send(request, HttpResponse.BodyHandlers.ofString());
        if (answer.statusCode() != 200) throw new Exception("status " + answer.statusCode());
    }
}
"""
OLD_JAVA = """
import java.net.*;
public class Old {
    public static void main(String[] words) throws Exception {
        int status = ((HttpURLConnection) new URI(words[0]).toURL().openConnection()).getResponseCode();
        if (status != 200) throw new Exception("status " + status);
    }
}
"""
EVENTS = """
import sys, httpx
with httpx.Client() as client, client.stream("GET", sys.argv[1], headers={"Accept": "text/event-stream"}) as answer:
    assert answer.status_code == 200 and answer.read()
"""
WEBSOCKET = """
import sys
from websockets.sync.client import connect
from websockets.exceptions import InvalidStatus
try: connect(sys.argv[1].replace("http:", "ws:"), open_timeout=60, user_agent_header="curl/7.88.1")
except InvalidStatus as no: assert no.response.status_code == 200, no
"""


# -- who is told ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("agent", "lone", "told", "expected"),
    [
        ("curl/7.88.1", True, Interim.KNOWN, FEW),
        ("curl/8.5.0", True, Interim.NEVER, []),
        ("curl/7.88.1", False, Interim.KNOWN, []),
        ("git/2.39.5 (Apple Git-154)", True, Interim.KNOWN, FEW),
        ("git/2.47.0.windows.1", True, Interim.KNOWN, FEW),
        ("Wget/1.21.3", False, Interim.KNOWN, FEW),
        ("Wget/1.14 (linux-gnu)", False, Interim.KNOWN, []),
        ("Wget/2.1.0", False, Interim.KNOWN, []),
        ("python-httpx/0.28.1", False, Interim.KNOWN, MANY),
        ("Python/3.11 aiohttp/3.8.3", True, Interim.KNOWN, FEW),
        ("Java-http-client/17.0.15", False, Interim.KNOWN, FEW),
        ("Java-http-client/17.0.9", False, Interim.KNOWN, []),
        ("Java-http-client/18.0.2", False, Interim.KNOWN, []),
        ("Java-http-client/21", False, Interim.KNOWN, FEW),
        ("Java/17.0.15", False, Interim.KNOWN, []),
        ("python-requests/2.28.1", False, Interim.KNOWN, []),
        ("Python-urllib/3.11", False, Interim.KNOWN, []),
        ('pip/23.0.1 {"installer":{"name":"curl/7.88"}}', False, Interim.KNOWN, []),
        ("node", False, Interim.KNOWN, []),
        ("Go-http-client/1.1", True, Interim.KNOWN, []),
        ("Go-http-client/1.1", True, Interim.ALL, FEW),
        ("Mozilla/5.0 (X11) curl/7.88.1", True, Interim.KNOWN, []),
        ("libcurl/7.88.1", True, Interim.KNOWN, []),
        ("curl/", True, Interim.KNOWN, []),
        ("curl/" + "9" * 5_000, True, Interim.KNOWN, []),
        ("", True, Interim.KNOWN, []),
    ],
)
def test_who_is_told(agent: str, lone: bool, told: Interim, expected: list[float]) -> None:
    """Told are those that were seen to bear it, in the versions that do; four times, or often, if they give up early."""
    assert expected == list(pace(told, [agent], lone=lone))


def test_a_name_must_be_one() -> None:
    """Without a name, or with two, a client is not known; who wants all told has it told as well."""
    for agents in ([], ["curl/7.88.1", "curl/7.88.1"]):
        assert [] == list(pace(Interim.KNOWN, agents, lone=True))
        assert FEW == list(pace(Interim.ALL, agents, lone=True))


# -- one connection ------------------------------------------------------------------------------------------------------------


def rehearsed(told: Interim = Interim.KNOWN) -> Rehearsal:
    """Give a connection whose questions wait."""
    means = Means(contexts=NoTls(), normalise=str, interim=told)
    return Rehearsal(judge=None, core=lambda: open_connection(HERE, Opened(session="s"), means))


def asking(fields: bytes = CURL, first: bytes = b"GET /pay HTTP/1.1\r\n") -> bytes:
    """Give a request."""
    return first + b"Host: 192.0.2.1\r\n" + fields + b"\r\n"


def held(run: Rehearsal, approval: str = "k3m9q") -> Rehearsal:
    """Have a person asked about what was asked last."""
    run.tell(Held(run.questions[-1].number, approval))
    return run


def test_told_until_it_is_decided() -> None:
    """It is told at once, then after each pause; the fourth is the last, and the answer follows as ever."""
    run = held(rehearsed().says(asking()))
    for count, seconds in enumerate([*PACE_SECONDS[1:], None], start=1):
        assert (PROCESSING * count, seconds) == (run.client, run.armed.get(Timer.STILL))
        if seconds is not None:
            run.silent(Timer.STILL)
    run.decide(allow).answers(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
    assert run.client[len(PROCESSING) * 4 :].startswith(b"HTTP/1.1 200 OK")
    assert run.upstream.startswith(b"GET /pay")


def test_a_pause_of_the_one_before_says_nothing() -> None:
    """The timer of a request that was decided is not the next one's, whether that is held or not."""
    run = held(rehearsed().says(asking()))
    run.decide(allow).answers(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").says(asking())
    before = run.client
    run.silent(Timer.STILL)
    assert before == run.client
    held(run, "other")
    assert run.client.endswith(b"\r\nx-capd-approval: other\r\n\r\n")


def test_a_pause_of_the_one_before_ends_where_nothing_is_said() -> None:
    """A request that is held while the pause of an earlier one runs is told nothing where its client is to be told nothing."""
    run = held(rehearsed().says(asking()))
    run.decide(allow).answers(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").says(asking(first=b"GET /pay HTTP/1.0\r\n"))
    before = held(run, "other").client
    assert before == run.silent(Timer.STILL).client


def test_another_id_is_told_in_its_turn() -> None:
    """A request that is asked about anew, after a change of the policy, is told of by its new id, and not more often."""
    run = held(held(rehearsed().says(asking())), "n3w1d")
    assert PROCESSING == run.client
    assert run.silent(Timer.STILL).client.endswith(b"x-capd-approval: n3w1d\r\n\r\n")


@pytest.mark.parametrize(
    ("said", "told"),
    [
        (asking(first=b"GET /pay HTTP/1.0\r\n"), Interim.ALL),
        (asking(CURL + b"Connection: close\r\n"), Interim.KNOWN),
        (asking(b""), Interim.KNOWN),
        (asking(), Interim.NEVER),
        (
            asking(
                CURL + b"Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
                b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
            ),
            Interim.ALL,
        ),
    ],
)
def test_nothing_is_said(said: bytes, told: Interim) -> None:
    """HTTP/1.0, the opening of a WebSocket, a client that is not known, and whoever is not to be told wait as ever."""
    run = held(rehearsed(told).says(said))
    assert 1 == len(run.questions)
    assert (b"", None) == (run.client, run.armed.get(Timer.STILL))


# -- real clients --------------------------------------------------------------------------------------------------------------


@dataclass
class Told:
    """What each path's client was sent of interim answers."""

    by_path: Counter[str] = field(default_factory=Counter)

    def watch(self, connection: Connection) -> Connection:
        """Give a connection as it is looked at."""
        return _Watched(connection, self.by_path)


class _Watched(Connection):
    def __init__(self, inner: Connection, told: Counter[str]) -> None:
        self._inner, self._told, self._path = inner, told, ""
        self.closed = False
        self.plain_bytes, self.waiting_bytes = inner.plain_bytes, inner.waiting_bytes  # type: ignore[method-assign]

    def handle(self, event: Event) -> list[Command]:
        commands = self._inner.handle(event)
        for command in commands:
            if isinstance(command, Ask) and command.question.request is not None:
                self._path = command.question.request.path
            if isinstance(command, Send) and command.side is Side.CLIENT:
                self._told[self._path] += command.data.count(b"HTTP/1.1 102 ")
        self.closed = self._inner.closed
        return commands


class _Files(SimpleHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers.get("content-length", 0)))
        self.do_GET()

    def log_message(self, *_: object) -> None:
        """Say nothing."""


class _Server(ThreadingHTTPServer):
    def handle_error(self, *_: object) -> None:
        """A client that leaves is no error."""


async def person(_agent: Agent, _question: Question, asked: Verdict, waits: Callable[[str], None]) -> Verdict:
    """Approve after a while."""
    waits("k3m9q")
    await asyncio.sleep(HELD_SECONDS)
    return verdict_of(asked, Answer(outcome=Outcome.APPROVED, id="k3m9q", by="ann"))


def asked_about(question: Question) -> Verdict:
    """Hold what is below /held, but what git and pip fetch after their first request."""
    verdict, path = by_path(question), "" if question.request is None else question.request.path
    if not path.startswith("/held/") or path.endswith((".whl", "/HEAD")) or "/objects/" in path:
        return verdict
    held = Verdict(number=question.number, allowed=False, reason="approval_needed", upgrade=True, held=hold())
    return held if question.body is not None else replace(held, held=None, body_bytes=BODY_BYTES_MAX)


@contextmanager
def files(directory: Path) -> Iterator[int]:
    """Serve what clients fetch, each its own path; give the port."""
    content = directory / "content" / "held"
    for name in CLIENTS:
        (content / name).mkdir(parents=True)
        (content / name / "index.html").write_text('<a href="acme-1-py3-none-any.whl">acme-1-py3-none-any.whl</a>')
    git = ("git", "-c", "user.name=a", "-c", "user.email=a@api.test", "-C", content / "git")
    for words in (("init", "-q", "--bare"), ("update-server-info",)):
        subprocess.run([*git, *words], check=True, capture_output=True)
    with zipfile.ZipFile(content / "pip" / "acme-1-py3-none-any.whl", "w") as wheel:
        wheel.writestr("acme-1.dist-info/METADATA", "Metadata-Version: 2.1\nName: acme\nVersion: 1\n")
        wheel.writestr("acme-1.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        wheel.writestr("acme-1.dist-info/RECORD", "")
    (directory / "Waits.java").write_text(JAVA, encoding="ascii")
    (directory / "Old.java").write_text(OLD_JAVA, encoding="ascii")
    with _Server((ADDRESS, 0), partial(_Files, directory=str(directory / "content"))) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield server.server_address[1]
        finally:
            server.shutdown()
            thread.join()


def python(script: str) -> tuple[str, ...]:
    """Give the command of a client in Python."""
    return (sys.executable, "-P", "-c", script)


CLIENTS: dict[str, tuple[tuple[str, ...], int]] = {
    "curl": (("curl", "-sSvf"), 2),
    "curl-upload": (("curl", "-sSvf", "-H", "Expect: 100-continue", "-d", "x=1"), 2),
    "wget": (("wget", "-S", "-O", "/dev/null"), 2),
    "git": (("git", "ls-remote"), 2),
    "httpx": (python(PYTHON_FETCH % ("httpx", "httpx.get(sys.argv[1])")), 4),
    "events": (python(EVENTS), 4),
    "aiohttp": (python(AIOHTTP), 2),
    "java": (("java", "Waits.java"), 2),
    "old-java": (("java", "Old.java"), 0),
    "requests": (python(PYTHON_FETCH % ("requests", "requests.get(sys.argv[1])")), 0),
    "requests-as-curl": (
        python(PYTHON_FETCH % ("requests", "requests.get(sys.argv[1], headers={'User-Agent': 'curl/7.88.1'})")),
        0,
    ),
    "urllib": (
        python("import sys, urllib.request; assert urllib.request.urlopen(sys.argv[1]).status == 200"),
        0,
    ),
    "pip": ((sys.executable, "-m", "pip", "download", "-q", "--no-deps", "--no-index", "--no-cache-dir", "acme"), 0),
    "node-http": (("node", "-e", NODE_HTTP), 0),
    "node-fetch": (("node", "-e", NODE_FETCH), 0),
    "curl-old": (("curl", "-sSf", "--http1.0"), 0),
    "websocket": (python(WEBSOCKET), 0),
}
"""The command, and how many interim answers it is sent while it waits."""


def run(directory: Path, proxy: Proxied, name: str) -> str:
    """Run a client to its end; give what it said."""
    url = f"http://localhost:{proxy.port}/held/{name}/"
    how = ("--trusted-host", "localhost", "--find-links") if name == "pip" else ()
    words = (*CLIENTS[name][0], *how, url.rstrip("/") if name == "git" else url)
    done = subprocess.run(words, capture_output=True, text=True, timeout=SECONDS, check=False, cwd=directory)
    assert 0 == done.returncode, (name, done)
    return done.stdout + done.stderr


def test_clients_wait(tmp_path: Path) -> None:
    """Clients that bear it are told; all others are not; each waits longer than it would by itself, and gets its answer."""
    require_command("curl", "wget", "git", "java", "node")
    require(all(map(find_spec, ("httpx", "aiohttp", "requests", "websockets", "pip"))), "httpx, aiohttp, requests, websockets")
    told = Told()
    with (
        files(tmp_path) as port,
        proxied(tmp_path, port, None, asked_about, here=TARGET, there=ADDRESS, hold=person, watched=told.watch) as proxy,
    ):
        with ThreadPoolExecutor(len(CLIENTS)) as clients:
            said = dict(zip(CLIENTS, clients.map(partial(run, tmp_path, proxy), CLIENTS), strict=True))
        assert ([], 0) == (proxy.mistakes, proxy.counters.defects)
    seen = Counter(dict.fromkeys(CLIENTS, 0))
    for path, times in told.by_path.items():
        seen[path.split("/")[2]] += times
    assert {name: times for name, (_, times) in CLIENTS.items()} == dict(seen)
    assert 2 == said["curl"].count("< HTTP/1.1 102 Processing")
    assert "< x-capd-approval: k3m9q" in said["curl"]
    assert ["< HTTP/1.1 100 Continue", "< HTTP/1.1 102 Processing"] == list(
        islice((line for line in said["curl-upload"].splitlines() if line.startswith("< HTTP")), 2)
    )
