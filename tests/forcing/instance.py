"""A real `capd up` that enforces on the yard's host, agents inside of its runs, and a sink that keeps every byte.

What lives here: starting and ending them. What must not: attacks, expectations.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import select
import socket
import subprocess
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from capd.daemon.enforcement_names import names_of
from capd.enforcer.decision_log import read_entries
from tests.daemon.conftest import ENVIRONMENT, READY_SECONDS, Daemon, capd, open_directory, wait_until
from tests.forcing.yard import AGENT_USER, ENFORCER_USER, PRELUDE, PYTHON, Yard, inside

PROXY_PORT, RESOLVER_PORT = 15911, 15963
SINK_PORTS = (80, 443, 853, 2525, 5432)
DOES_SECONDS_MAX = 90
ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
POLICY = """\
rules:
  - {id: sink, match: {protocols: [http], hosts: ["10.77.0.2"], methods: [GET, POST], paths: ["/open/**"]}, then: allow}
  - {id: named, match: {protocols: [http], hosts: [open.test, rebound.test], methods: [GET]}, then: allow}
"""
HOSTS = "10.77.0.2 open.test\n127.0.0.1 rebound.test\n"
RESOLV_CONF = "nameserver 10.77.0.2\noptions timeout:1 attempts:1\n"
MOUNTS = 'mount --bind "$1" /etc/hosts; mount --bind "$2" /etc/resolv.conf; shift 2; {prepare} exec "$@"'
SETTINGS = """
policy_dir = "{directory}/policy"
[selection]
slices = []
cgroups = {cgroups}
[enforcement]
mode = "enforce"
user = "{user}"
cgroup = "{cgroup}"
proxy_port = {proxy}
resolver_port = {resolver}
workers = 1
"""
AGENT = """
import json, ssl
def say(data, host="10.77.0.2", port=80, family=socket.AF_INET, seconds=20, made=None, tls=None):
    with made or socket.socket(family) as client:
        client.settimeout(seconds)
        client.connect((host, port))
        if tls is not None:
            context = ssl._create_unverified_context()
            client = context.wrap_socket(client, server_hostname=tls or None)
        client.sendall(data)
        whole = b""
        try:
            while part := client.recv(65536): whole += part
        except (TimeoutError, ConnectionResetError): pass
        return whole.decode("latin-1") or "cut"
def get(path, host="10.77.0.2", method="GET", more=""):
    return f"{method} {path} HTTP/1.1\\r\\nHost: {host}\\r\\nConnection: close\\r\\n{more}\\r\\n".encode()
def forked(function):
    read, write = os.pipe()
    if os.fork() == 0:
        try:
            os.close(read); os.setsid()
            os.write(write, str(attempt(function)).encode())
        except BaseException as error: os.write(write, type(error).__name__.encode())
        finally: os._exit(0)
    os.close(write)
    with os.fdopen(read) as told: return told.read()
print("ready", flush=True)
for line in sys.stdin:
    scope = {}
    def run():
        exec("def body():\\n" + "\\n".join("    " + one for one in json.loads(line).splitlines()), globals(), scope)
        return scope["body"]()
    try: print(json.dumps(str(attempt(run))), flush=True)
    except Exception as error: print(json.dumps(type(error).__name__), flush=True)
"""


@dataclass
class Agent:
    """A process of a run that does what it is told."""

    process: subprocess.Popen[str]

    def does(self, body: str) -> str:
        """Let it run statements, of which the last returns; give what came of it: a result, or an error's name."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        text = body if "return" in body else f"return {body}"
        self.process.stdin.write(json.dumps(text) + "\n")
        self.process.stdin.flush()
        assert select.select([self.process.stdout], [], [], DOES_SECONDS_MAX)[0], body
        return str(json.loads(self.process.stdout.readline()))


@dataclass
class Sink:
    """Servers behind the host, which keep what they were sent."""

    received: dict[int, bytearray] = field(default_factory=lambda: {port: bytearray() for port in SINK_PORTS})

    def take(self) -> bytes:
        """Give what came since the last call, of all ports."""
        whole = b"".join(bytes(data) for data in self.received.values())
        for data in self.received.values():
            data.clear()
        return whole

    def take_with(self, words: bytes) -> bytes:
        """Wait for words, and give what came since the last call."""
        wait_until(lambda: any(words in data for data in self.received.values()), f"{words!r} arrives")
        return self.take()

    def serve(self, listener: socket.socket) -> None:
        """Take connections and answer each of their requests."""
        port = listener.getsockname()[1]
        while True:
            try:
                client, _ = listener.accept()
            except OSError:
                return
            threading.Thread(target=self._talk, args=(client, port), daemon=True).start()

    def _talk(self, client: socket.socket, port: int) -> None:
        with client, contextlib.suppress(OSError):
            while data := client.recv(65_536):
                self.received[port] += data
                if b"\r\n\r\n" in data and not data.startswith(b"POST"):
                    client.sendall(ANSWER)


@dataclass
class Instance:
    """What rows share."""

    ground: Yard
    daemon: Daemon
    sink: Sink
    user: Agent
    root: Agent

    def entries(self) -> list[dict[str, Any]]:
        """Give what the decision log has."""
        files = sorted((self.daemon.directory / "state" / "enforcer" / "decisions").glob("*.log"))
        return [entry for path in files for entry in read_entries(path)]

    def undecided(self, received: bytes) -> list[bytes]:
        """Give the requests that the sink got and no entry allows."""
        allowed = {entry["target_sha256"] for entry in self.entries() if entry["kind"] == "decision" and entry["allowed"]}
        heads = [line for line in received.split(b"\r\n") if line.endswith(b" HTTP/1.1")]
        return [line for line in heads if hashlib.sha256(line.split(b" ")[1]).digest() not in allowed]

    def until(self, body: str, expected: str) -> None:
        """Let the agent try until it gets what is expected; seldom trying would take longer than what some measure."""
        deadline = time.monotonic() + READY_SECONDS
        while expected not in (found := self.user.does(body)):
            assert time.monotonic() < deadline, found
            time.sleep(0.1)


@contextlib.contextmanager
def instance(ground: Yard, *, policy: str = POLICY, cgroups: Sequence[str] = (), prepare: str = "") -> Iterator[Instance]:
    """Start one with a sink and two agents, one of them root; take it down again.

    Args:
        ground: its host.
        policy: in force.
        cgroups: selected beside its own.
        prepare: shell commands, each with a semicolon, before it starts, in its mount namespace; `{directory}` is its own.
    """
    cgroup = f"/{ground.cgroups['enforcer'].parent.relative_to(ground.root)}/proxy"
    sink = Sink()
    with contextlib.ExitStack() as stack:
        directory = stack.enter_context(open_directory())
        (directory / "policy").mkdir()
        (directory / "policy" / "policy.yaml").write_text(policy, encoding="utf-8")
        for port in SINK_PORTS:
            listener = inside(ground.sink, partial(socket.create_server, ("10.77.0.2", port)))
            thread = threading.Thread(target=sink.serve, args=(listener,), daemon=True)
            thread.start()
            stack.callback(_end, listener, thread)
        ports = {"proxy": PROXY_PORT, "resolver": RESOLVER_PORT}
        settings = SETTINGS.format(
            directory=directory, user=ENFORCER_USER, cgroup=cgroup, cgroups=json.dumps(list(cgroups)), **ports
        )
        daemon = Daemon(
            directory, settings, verb="up", through=("nsenter", f"--net={ground.host}", *_named(directory, prepare))
        )
        stack.callback(_remove, ground, daemon)
        daemon.start()
        made = [stack.enter_context(agent(daemon, user, ground.host)) for user in (AGENT_USER, 0)]
        running = Instance(ground, daemon, sink, *made)
        running.until('say(get("/open/first"))', "200 OK")
        yield running


def _end(listener: socket.socket, thread: threading.Thread) -> None:
    """End a server. `close` alone does not: the call that waits for a client keeps the socket listening, whoever is next."""
    listener.shutdown(socket.SHUT_RDWR)
    thread.join()
    listener.close()


def _named(directory: Path, prepare: str) -> list[str]:
    """Give what begins a command that finds names of the yard's own."""
    files = {"hosts": HOSTS, "resolv.conf": RESOLV_CONF}
    for name, text in files.items():
        (directory / name).write_text(text, encoding="ascii")
    mounts = MOUNTS.replace("{prepare}", prepare.replace("{directory}", str(directory)))
    return ["unshare", "-m", "sh", "-c", mounts, "sh", *(str(directory / name) for name in files)]


@contextlib.contextmanager
def agent(daemon: Daemon, user: int, namespace: Path) -> Iterator[Agent]:
    """Start an agent in a run of its own."""
    who = ["setpriv", f"--reuid={user}", f"--regid={user}", "--clear-groups"] if user else []
    command = [PYTHON, "-I", "-S", "-c", PRELUDE + AGENT]
    words = ["nsenter", f"--net={namespace}", *who, *capd("run", "--config", daemon.config, "--", *command)]
    process = subprocess.Popen(words, env=ENVIRONMENT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        yield Agent(process)
    finally:
        process.kill()
        process.communicate()


def _remove(ground: Yard, daemon: Daemon) -> None:
    if daemon.process is not None and daemon.process.poll() is None:
        daemon.stop()
    off = ["nsenter", f"--net={ground.host}", *capd("enforcement", "off", "--config", daemon.config)]
    subprocess.run(off, env=ENVIRONMENT, check=False, capture_output=True, timeout=60)
    parent = ground.root / names_of(daemon.directory / "run", systemd=False).parent.lstrip("/")
    for path in (*parent.glob("*/*"), *parent.glob("*"), parent):
        if path.is_dir():
            with contextlib.suppress(OSError):
                path.rmdir()
