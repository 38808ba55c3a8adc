"""The whole daemon with `enforcement.mode = "enforce"`, on a host of its own: runs are forced, whatever happens to capd."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from typing import Any

import pytest

from capd.daemon.enforcement_names import names_of
from capd.enforcer.forcing.ruleset import Ruleset
from capd.enforcer.forcing.table import Table
from tests.daemon.conftest import ENVIRONMENT, Daemon, capd, open_directory, wait_until
from tests.forcing.yard import ENFORCER_USER, PATIENCE_SECONDS, PRELUDE, PROXY_PORT, PYTHON, RESOLVER_PORT, Yard, inside
from tests.requirements import require_probes

pytestmark = pytest.mark.kernel
SETTINGS = """
[selection]
slices = []
[enforcement]
mode = "enforce"
user = "{user}"
cgroup = "{cgroup}"
proxy_port = {proxy}
resolver_port = {resolver}
"""


@pytest.fixture(scope="module")
def daemon(ground: Yard) -> Iterator[Daemon]:
    """Give a running daemon on the yard's host; afterwards nothing of it stands."""
    require_probes()
    cgroup = f"/{ground.cgroups['enforcer'].relative_to(ground.root)}"
    settings = SETTINGS.format(user=ENFORCER_USER, cgroup=cgroup, proxy=PROXY_PORT, resolver=RESOLVER_PORT)
    with open_directory() as directory:
        made = Daemon(directory, settings, through=("nsenter", f"--net={ground.host}"))
        made.start()
        ground.seen()
        yield made
        if made.process is not None and made.process.poll() is None:
            made.stop()
        verb(ground, made, "enforcement", "off")
        parent = ground.root / made_parent(made)
        (parent / "capd-canary").rmdir()
        parent.rmdir()


def made_parent(daemon: Daemon) -> str:
    """Name the parent of its runs."""
    return names_of(daemon.directory / "run", systemd=False).parent.lstrip("/")


def verb(ground: Yard, daemon: Daemon, *words: str, **settings: Any) -> subprocess.CompletedProcess[str]:  # noqa: ANN401 - subprocess's
    """Run a verb on the yard's host."""
    name, *rest = words
    before, after = (rest[: rest.index("--")], rest[rest.index("--") :]) if "--" in rest else (rest, [])
    command = ["nsenter", f"--net={ground.host}", *capd(name, *before, "--config", daemon.config, *after)]
    arguments = {"env": ENVIRONMENT, "stdin": subprocess.DEVNULL, **settings}
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60, **arguments)


def agent(body: str) -> list[str]:
    """Give the command of an agent that prints what comes of a try."""
    function = "def eval_body():\n" + "\n".join(f"    {line}" for line in body.splitlines())
    prelude = f"{PRELUDE}\nPATIENCE = {PATIENCE_SECONDS}"
    return [PYTHON, "-I", "-S", "-c", f"{prelude}\n{function}\nprint(attempt(eval_body), flush=True)"]


def test_a_run_is_forced_and_the_status_says_so(ground: Yard, daemon: Daemon) -> None:
    """A run reaches the listener and nothing else; `capd status` shows mode, canary and what was refused."""
    done = verb(ground, daemon, "run", "--", *agent('return tcp("10.77.0.2", 80)'))
    assert ("proxy 10.77.0.2 80", "") == (done.stdout.strip(), done.stderr)
    assert "EPERM" == verb(ground, daemon, "run", "--", *agent('return udp("10.77.0.2", 443)')).stdout.strip()
    assert [] == ground.seen()
    wait_until(lambda: daemon.status()["enforcement"]["canary"]["result"] == "forced", "the canary has tried")
    found = json.loads(verb(ground, daemon, "status", "--json").stdout)
    assert ("enforce", None, True) == (
        found["enforcement"]["mode"],
        found["enforcement"]["problem"],
        found["enforcement"]["table"]["owned"],
    )
    screen = verb(ground, daemon, "status").stdout
    assert "enforcement enforce: forced, tried" in screen
    refused = re.search(r"refused +tcp (\d+), send (\d+)\n", screen)
    assert refused is not None, screen
    canaries, sent = map(int, refused.groups())  # each canary tries one of both
    assert canaries + 1 == sent


def test_a_run_brings_no_connection_along(ground: Yard, daemon: Daemon) -> None:
    """A command that holds a network socket from outside is not started, and the message says which descriptor."""
    with socket.socket() as brought:
        done = verb(ground, daemon, "run", "--", "true", pass_fds=[brought.fileno()])
        assert (3, True) == (done.returncode, f"descriptors {brought.fileno()} are network sockets" in done.stderr)
    local, peer = socket.socketpair()
    with local, peer:
        assert 0 == verb(ground, daemon, "run", "--", "true", pass_fds=[local.fileno()]).returncode


def test_a_process_that_left_is_told(ground: Yard, daemon: Daemon) -> None:
    """A run's process that took itself out of its cgroup is named by the status, which is degraded."""
    leave = f'join("{ground.root}")\nprint("left", flush=True)\nsys.stdin.read()\nreturn "over"'
    command = ["nsenter", f"--net={ground.host}", *capd("run", "--config", daemon.config, "--", *agent(leave))]
    with subprocess.Popen(command, env=ENVIRONMENT, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert b"left\n" == process.stdout.readline()
        wait_until(lambda: daemon.status()["enforcement"]["escaped"], "it is named")
        assert f"process {process.pid} of run " in daemon.status()["enforcement"]["escaped"][0]
        process.communicate()


def test_the_rules_stand_when_the_daemon_is_killed(ground: Yard, daemon: Daemon) -> None:
    """A live run stays forced while capd is dead; with the table flushed then, it reaches nothing; a new daemon mends that."""
    tries = 'def one():\n    try: return tcp("10.77.0.2", 80)\n    except OSError: return "refused"\n'
    loop = f"{tries}for line in sys.stdin: print(one(), flush=True)\nreturn 'over'"
    command = ["nsenter", f"--net={ground.host}", *capd("run", "--config", daemon.config, "--", *agent(loop))]
    with subprocess.Popen(command, env=ENVIRONMENT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:

        def ask() -> str:
            assert process.stdin is not None
            assert process.stdout is not None
            process.stdin.write("go\n")
            process.stdin.flush()
            return process.stdout.readline().strip()

        assert "proxy 10.77.0.2 80" == ask()
        daemon.stop(signal.SIGKILL)
        assert "proxy 10.77.0.2 80" == ask()
        subprocess.run(["nsenter", f"--net={ground.host}", "nft", "flush", "ruleset"], check=True)
        assert "refused" == ask()
        assert [] == ground.seen()
        daemon.start()
        assert "proxy 10.77.0.2 80" == ask()
        process.communicate()


MANAGED = """
import os, socket, sys
path = sys.argv[1]
os.environ["NOTIFY_SOCKET"] = path + "/notify"
with socket.socket(socket.AF_UNIX) as manager:
    manager.connect(path + "/kept")
    _, kept, _, _ = socket.recv_fds(manager, 1, 1)
if kept:
    os.dup2(kept[0], 3)
    os.environ.update(LISTEN_FDS="1", LISTEN_PID=str(os.getpid()), LISTEN_FDNAMES="capd-table")
os.execvp(sys.argv[2], sys.argv[2:])
"""
"""As a service manager starts a unit with what it keeps for it."""


@contextmanager
def forgotten(place: socket.socket) -> Iterator[None]:
    """Read, as a service manager does, what daemons have to say, of which nothing is kept: else they wait with it."""
    over = threading.Event()
    place.settimeout(0.2)

    def read() -> None:
        while not over.is_set():
            with suppress(TimeoutError):
                for one in socket.recv_fds(place, 4096, 8)[1]:
                    os.close(one)

    reading = threading.Thread(target=read)
    reading.start()
    try:
        yield
    finally:
        over.set()
        reading.join()


def test_nobody_takes_the_table_between_two_daemons(ground: Yard, daemon: Daemon) -> None:
    """A service manager that keeps the owning socket makes it outlive a killed daemon: a flush then changes nothing."""
    daemon.stop()
    before, kept = daemon.through, list[int]()
    with ExitStack() as stack:
        places = [stack.enter_context(socket.socket(socket.AF_UNIX, kind)) for kind in (socket.SOCK_DGRAM, socket.SOCK_STREAM)]
        for place, name in zip(places, ("notify", "kept"), strict=True):
            place.bind(str(daemon.directory / name))
        places[1].listen()
        daemon.through = (*before, PYTHON, "-I", "-S", "-c", MANAGED, str(daemon.directory))

        def start() -> None:
            with ThreadPoolExecutor(1) as threads:
                started = threads.submit(daemon.start)
                starting, _ = places[1].accept()
                with starting:
                    socket.send_fds(starting, [b"x"], kept)
                started.result()

        try:
            start()
            data = b""
            places[0].settimeout(20)
            while b"FDNAME=capd-table" not in data:
                data, kept, _flags, _address = socket.recv_fds(places[0], 4096, 1)
            stack.enter_context(forgotten(places[0]))
            daemon.stop(signal.SIGKILL)
            subprocess.run(["nsenter", f"--net={ground.host}", "nft", "flush", "ruleset"], check=True)
            reader = inside(ground.host, Ruleset)
            stack.callback(reader.close)
            assert reader.flags(daemon_table(daemon)) is not None
            start()
            wait_until(lambda: daemon.status()["enforcement"]["canary"]["result"] == "forced", "it is taken over")
            found = daemon.status()["enforcement"]
            assert (None, True, 0) == (found["problem"], found["table"]["owned"], found["repaired"]["times"])
        finally:
            daemon.through = before
            for one in kept:
                os.close(one)


def test_only_the_command_takes_it_away(ground: Yard, daemon: Daemon) -> None:
    """`capd enforcement off` refuses while the daemon runs, what stands outlives a stop, and then it is removed and said."""
    done = verb(ground, daemon, "enforcement", "off")
    assert (7, True) == (done.returncode, "would put back at once" in done.stderr)
    daemon.stop()
    done = verb(ground, daemon, "enforcement", "off", "--json")
    assert 2 == len(json.loads(done.stdout)["removed"])
    assert "nothing stood that forces traffic\n" == verb(ground, daemon, "enforcement", "off").stdout


def test_without_rules_no_run_is_let_in(ground: Yard, daemon: Daemon) -> None:
    """When the table cannot be put there the daemon records, is degraded, and refuses runs with the reason."""
    table = daemon_table(daemon)
    other = inside(ground.host, Ruleset)
    other.apply(Table(name=table, counters=(), sets=(), chains=()))
    try:
        daemon.start()
        done = verb(ground, daemon, "run", "--", "true")
        assert (True, True) == (done.returncode != 0, "cannot be forced through the enforcer" in done.stderr)
        assert 1 == verb(ground, daemon, "status").returncode
        other.close()
        wait_until(lambda: daemon.status()["enforcement"]["problem"] is None, "it is put there")
        assert 0 == verb(ground, daemon, "run", "--", "true").returncode
    finally:
        other.close()


def daemon_table(daemon: Daemon) -> str:
    """Name its table."""
    return names_of(daemon.directory / "run", systemd=False).table
