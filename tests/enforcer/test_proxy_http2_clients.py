"""HTTP/2 with the clients and servers that agents have: curl, httpx, node, h2load, gRPC; each through the proxy's own shell.

What lives here: what clients see, and what was decided. What must not: single frames (test_proxy_http2.py).
"""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.certificates import Certificates, make
from tests.enforcer.proxied import ADDRESS, Proxied, proxied
from tests.requirements import require, require_command

HERE = Path(__file__).parent
LARGE_BYTES = 16 << 20
SECONDS = 60
HTTPX = """
import json, socket, sys, httpx
url, trust, address = sys.argv[1:]
found = socket.getaddrinfo
socket.getaddrinfo = lambda host, *more, **named: found(address if host == "api.test" else host, *more, **named)
with httpx.Client(http2=True, http1=not url.endswith("only"), verify=trust, timeout=30) as client:
    answers = [client.get(url + "/a"), client.post(url + "/echo", content=b"x" * 500_000), client.get(url + "/denied")]
print(json.dumps([[answer.http_version, answer.status_code, len(answer.content)] for answer in answers]))
"""
HTTP1 = """
import ssl, sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def do_GET(self):
        body = b"" if self.command == "GET" else self.read()
        self.send_response(200)
        self.send_header("content-length", str(len(body) or 2))
        self.end_headers()
        self.wfile.write(body or b"ok")
    do_POST = do_GET
    def read(self):
        if "content-length" in self.headers:
            return self.rfile.read(int(self.headers["content-length"]))
        parts = []
        while size := int(self.rfile.readline(), 16):
            parts.append(self.rfile.read(size)); self.rfile.readline()
        self.rfile.readline()
        return b"".join(parts)
    def log_message(self, *_): pass
server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain(sys.argv[1], sys.argv[2])
server.socket = context.wrap_socket(server.socket, server_side=True)
print("ready", server.server_address[1], flush=True)
server.serve_forever()
"""


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    """Make the targets' certificates."""
    require_command("openssl")
    return make(tmp_path_factory.mktemp("tls"))


@contextlib.contextmanager
def server(*words: str | Path) -> Iterator[int]:
    """Run a target that says its port."""
    with subprocess.Popen([*map(str, words)], stdout=subprocess.PIPE, text=True) as running:
        try:
            assert running.stdout is not None
            yield int(running.stdout.readline().split()[1])
        finally:
            running.kill()


@dataclass
class Place:
    """The proxy before a target, and how clients are run."""

    proxy: Proxied
    url: str

    def run(self, *words: str | Path) -> str:
        """Run a client to its end; give what it printed."""
        done = subprocess.run([*map(str, words)], capture_output=True, text=True, timeout=SECONDS, check=False)
        assert 0 == done.returncode, done
        return done.stdout

    def curl(self, path: str, *words: str) -> str:
        """Run curl."""
        where = f"api.test:{self.proxy.port}:{ADDRESS}"
        own = ("curl", "-sS", "--resolve", where, "--cacert", str(self.proxy.trust), "--max-time", "30")
        return self.run(*own, *words, self.url + path)


@pytest.fixture(params=["https", "http"])
def node(request: pytest.FixtureRequest, tmp_path: Path, certificates: Certificates) -> Iterator[Place]:
    """Run node's server behind the proxy, with TLS and in clear."""
    require_command("node")
    shown = (certificates.certificate, certificates.key) if request.param == "https" else ("-", "-")
    with server("node", HERE / "http2_target.mjs", *shown, "0") as port, proxied(tmp_path, port, certificates) as proxy:
        yield Place(proxy, f"{request.param}://api.test:{port}")
        assert [] == proxy.mistakes
        assert 0 == proxy.counters.defects


@pytest.fixture
def old(tmp_path: Path, certificates: Certificates) -> Iterator[Place]:
    """Run a server that speaks HTTP/1.1 only behind the proxy."""
    words = (sys.executable, "-c", HTTP1, certificates.certificate, certificates.key)
    with server(*words) as port, proxied(tmp_path, port, certificates) as proxy:
        yield Place(proxy, f"https://api.test:{port}")
        assert ([], 0) == (proxy.mistakes, proxy.counters.defects)


def test_curl(node: Place) -> None:
    """Curl speaks HTTP/2 through the proxy: bodies both ways, denials with their rule, many at once over one connection."""
    how = "--http2" if node.url.startswith("https") else "--http2-prior-knowledge"
    seen = json.loads(node.curl("/a?b=1", how))
    assert ("/a?b=1", f"api.test:{node.proxy.port}") == (seen["path"], seen["authority"])
    assert "2 200 16777216" == node.curl(
        "/large", how, "-o", "/dev/null", "-w", "%{http_version} %{http_code} %{size_download}"
    )
    denied = node.curl("/denied", how, "-i")
    assert "HTTP/2 403" in denied
    assert "x-capd-rule: by-path" in denied
    upload = node.curl("/denied", how, "-X", "POST", "--data-binary", "@/proc/self/exe", "-w", "%{http_code}")
    assert upload.endswith("403")
    many = [word for number in range(20) for word in (node.url + f"/n/{number}", "-o", "/dev/null")]
    if node.url.startswith("https"):  # in clear this curl cannot, not even without a proxy
        codes = node.curl("/a", how, "-o", "/dev/null", "-Z", "-w", "%{http_code}\\n", *many)
        assert ["200"] * 21 == codes.split()
    assert {("http2", "GET"), ("http2", "POST")} == set(node.proxy.decisions("protocol", "method"))


def test_node(node: Place) -> None:
    """One connection of node: large bodies each way beside thirty requests, trailers, a denied upload, a stream given up."""
    told = json.loads(node.run("node", HERE / "http2_client.mjs", node.url, node.proxy.trust, ADDRESS))
    assert (200, LARGE_BYTES) == (told["large"]["status"], told["large"]["bytes"])
    assert (200, 3 << 20) == (told["echo"]["status"], told["echo"]["bytes"])
    assert {"x-sum": "7"} == told["trailers"]["trailers"]
    assert (403, "by-path", 0) == (told["denied"]["status"], told["denied"]["rule"], told["denied"]["code"])
    assert ([200] * 30, []) == (told["many"], told["problems"])
    assert 1 == told["cancelled"], "the target was told that nobody listens any more"


@pytest.mark.parametrize("node", ["https"], indirect=True)
def test_httpx(node: Place) -> None:
    """What httpx asks over HTTP/2 crosses, is answered, and is denied."""
    require(find_spec("httpx"), "needs httpx; `make env-test` brings it")
    told = json.loads(node.run(sys.executable, "-P", "-c", HTTPX, node.url, node.proxy.trust, ADDRESS))
    assert [["HTTP/2", 200], ["HTTP/2", 200], ["HTTP/2", 403]] == [one[:2] for one in told]
    assert 500_000 == told[1][2]


def test_h2load(node: Place) -> None:
    """A thousand requests over two connections with twenty streams each: all are answered, each has its decision."""
    require_command("h2load")
    words = ("h2load", "-n", "1000", "-c", "2", "-m", "20", f"--connect-to={ADDRESS}:{node.proxy.port}")
    told = node.run(*words, *(["-p", "h2c"] if node.url.startswith("http:") else []), node.url + "/x")
    assert "1000 succeeded, 0 failed, 0 errored" in told
    assert 1000 == len(node.proxy.decisions("number"))


def test_targets_without_http2(old: Place) -> None:
    """Curl and httpx get their answers, also to the request that found it out; from then on they are given HTTP/1.1."""
    shown = ("-o", "/dev/null", "-w", "%{http_version} %{http_code}\n")
    many = [word for number in range(8) for word in (old.url + f"/n/{number}", "-o", "/dev/null")]
    codes = old.curl("/a", "--http2", *shown, "-Z", *many).split("\n")[:-1]
    assert {"200"} == {code.split()[1] for code in codes}
    assert 9 == len(codes)
    assert "1.1 200\n" == old.curl("/b", "--http2", *shown)
    told = json.loads(old.run(sys.executable, "-P", "-c", HTTPX, old.url, old.proxy.trust, ADDRESS))
    assert [["HTTP/1.1", 200], ["HTTP/1.1", 200], ["HTTP/1.1", 403]] == [one[:2] for one in told]


def test_clients_with_nothing_but_http2(old: Place) -> None:
    """h2load, which offers HTTP/2 alone, is translated: an upload crosses, and answers come back one after the other."""
    require_command("h2load")
    words = ("h2load", "-n", "1", "-c", "1", f"--connect-to={ADDRESS}:{old.proxy.port}", "-d", str(HERE / "proxied.py"))
    assert "1 succeeded, 0 failed, 0 errored" in old.run(*words, old.url + "/up")


@pytest.mark.parametrize("secure", [True, False])
def test_grpc(secure: bool, tmp_path: Path, certificates: Certificates) -> None:
    """GRPC's own client and server: calls of all kinds, statuses and trailers, large messages, denial as PERMISSION_DENIED."""
    require(find_spec("grpc"), "needs grpcio; `make env-test` brings it")
    shown = (certificates.certificate, certificates.key) if secure else ("-", "-")
    script = HERE / "grpc_calls.py"
    with (
        server(sys.executable, "-P", script, "serve", *shown, "0") as port,
        proxied(tmp_path, port, certificates) as proxy,
    ):
        place = Place(proxy, "")
        told: dict[str, Any] = json.loads(
            place.run(sys.executable, "-P", script, "call", f"{ADDRESS}:{port}", proxy.trust if secure else "-")
        )
        assert [4, "WORD", {"x-sum": "7"}] == told["upper"]
        assert (3 << 20, 3 << 20) == (told["large"][0], told["sent"][0])
        assert ["NOT_FOUND", "no such thing: 5 % of \u00e4", None] == told["fail"]
        assert ("PERMISSION_DENIED", "by-path") == (told["denied"][0], told["denied"][2])
        assert "denied_by_policy" in told["denied"][1]
        assert ([f"heard {number}" for number in range(5)], True) == (told["heard"], told["many"])
        assert ([], 0) == (proxy.mistakes, proxy.counters.defects)
        assert {"http2"} == {protocol for (protocol,) in proxy.decisions("protocol")}
