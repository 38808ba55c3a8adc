"""Room that runs out under real agents: what is refused, stopped or not recorded, and that everything recovers by itself."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from capd.daemon.cgroups import Hierarchy
from capd.recording.record import Kind
from capd.recording.segment import SegmentReader
from tests.daemon.conftest import ENVIRONMENT, Daemon, call, capd, wait_until
from tests.requirements import require_root

pytestmark = pytest.mark.kernel
Make = Callable[..., Daemon]
MIB = 1 << 20
SETTINGS = f"""
[journal]
free_bytes_min = {8 * MIB}
[capture]
data_ring_bytes = {MIB}
control_ring_bytes = {MIB}
[storage]
low_bytes = {32 * MIB}
low_inodes = 0
critical_bytes = {20 * MIB}
critical_inodes = 0
reserve_bytes = {4 * MIB}
action = "{{}}"
[recording]
level = "full"
"""
AGENT = """
import socket, sys
def connect(): return socket.create_connection(("127.0.0.1", int(sys.argv[1])), timeout=20)
def say(connection, text):
    connection.sendall(text.encode())
    return connection.recv(100, socket.MSG_WAITALL if False else 0).decode()
first = connect()
print(say(first, "hello"), flush=True)
for line in sys.stdin:
    word, text = line.split()
    try:
        if word == "open": print(say(first, text), flush=True)
        else:
            with connect() as another: print(say(another, text), flush=True)
    except OSError as error: print(error.strerror, flush=True)
"""


class Agent:
    """A real process, run by capd, that talks to an echo server when it is told to."""

    def __init__(self, daemon: Daemon, port: int, name: str = "agent") -> None:
        command = capd("run", "--config", daemon.config, "--name", name, "--", "/usr/bin/python3", "-c", AGENT, str(port))
        pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True, "env": ENVIRONMENT}
        self.process = subprocess.Popen(command, **pipes)
        assert self.answer() == "hello"

    def answer(self) -> str:
        """Read a line of it."""
        assert self.process.stdout is not None
        return str(self.process.stdout.readline()).strip()

    def tell(self, word: str, text: str) -> None:
        """Have it say something: over its `open` connection or a `new` one."""
        assert self.process.stdin is not None
        self.process.stdin.write(f"{word} {text}\n")
        self.process.stdin.flush()

    def says(self, word: str, text: str) -> str:
        """Have it say something, and give what came back."""
        self.tell(word, text)
        return self.answer()

    def end(self) -> None:
        """Let it end by itself."""
        self.process.communicate("", timeout=180)


@pytest.fixture
def port() -> Iterator[int]:
    """Give the port of an echo server."""

    def serve(connection: socket.socket) -> None:
        with connection, suppress(OSError):
            while data := connection.recv(65536):
                connection.sendall(data)

    def accept() -> None:
        with suppress(OSError):
            while True:
                threading.Thread(target=serve, args=(listener.accept()[0],), daemon=True).start()

    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=accept, daemon=True).start()
        yield listener.getsockname()[1]
        listener.shutdown(socket.SHUT_RDWR)


@pytest.fixture
def small(instance_dir: Path) -> Iterator[Path]:
    """Give a state directory on a file system of 64 MiB."""
    require_root()
    state = instance_dir / "state"
    state.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64m", "none", state], check=True)
    yield state
    subprocess.run(["umount", "-l", state], check=True)


def fill(state: Path, leave: int) -> None:
    """Fill the file system, from as full as it is and in one go, until so many bytes are free; with 0, give all back."""
    if not leave:
        (state / "fill").unlink()
        return
    with (state / "fill").open("ab") as file:
        free = os.statvfs(state)
        os.posix_fallocate(file.fileno(), 0, file.tell() + free.f_bavail * free.f_bsize - leave)


def filled(state: Path) -> bool:
    """Take all that is free at once, and so nothing of a reserve that is given up meanwhile; False: others wrote."""
    free = os.statvfs(state)
    with (state / "fill").open("wb") as file, suppress(OSError):
        os.posix_fallocate(file.fileno(), 0, free.f_bavail * free.f_bsize)
        return True
    return False


def wait_for(daemon: Daemon, state: str) -> dict[str, Any]:
    """Wait for a state; give what the status says of storage."""
    wait_until(lambda: daemon.status()["storage"]["state"] == state, f"storage is {state}")
    found: dict[str, Any] = daemon.status()["storage"]
    return found


def sessions(daemon: Daemon, count: int) -> list[dict[str, Any]]:
    """Give the closed TCP sessions when there are so many."""
    found: list[dict[str, Any]] = []

    def enough() -> bool:
        listed = json.loads(call("sessions", "--json", "--config", daemon.config).stdout)
        found[:] = [one for one in listed if one["transport"] == "tcp" and one["state"] == "closed"]
        return len(found) >= count

    wait_until(enough, f"{count} sessions")
    return found


def said(daemon: Daemon, session: dict[str, Any]) -> bytes:
    """Give what the agent said in a session, as far as it was recorded."""
    words = ["replay", session["session"], "--format", "raw", "--direction", "request", "--config", str(daemon.config)]
    return subprocess.run(capd(*words), capture_output=True, check=False, env=ENVIRONMENT, timeout=60).stdout


def changes(state: Path) -> list[tuple[str, bool]]:
    """Give the states that the sealed segments tell, and whether was recorded in each."""
    found: list[tuple[str, bool]] = []
    for path in sorted((state / "segments").glob("*.seg")):
        with SegmentReader(path) as reader:
            markers = [record.body for record in reader.records() if record.kind is Kind.MARKER]
        found += [(str(body["state"]), bool(body["recording"])) for body in markers if body["name"] == "capture_storage"]
    return found


def test_new_connections_are_refused_until_there_is_room(daemons: Make, small: Path, port: int) -> None:
    """Filling up refuses an agent's new connections and no one else's, closes what is open, and is over with room again."""
    daemon = daemons(SETTINGS.format("refuse"), "up")
    daemon.start()
    assert 4 * MIB == wait_for(daemon, "ok")["reserve_bytes"]
    agent = Agent(daemon, port)
    fill(small, 14 * MIB)
    wait_for(daemon, "critical")
    wait_until(lambda: daemon.status()["storage"]["held"] == 1, "held")
    assert ("Operation not permitted", "recorded") == (agent.says("new", "x"), agent.says("open", "recorded"))
    socket.create_connection(("127.0.0.1", port)).close()
    told = call("status", "--config", daemon.config)
    assert (1, True) == (told.returncode, "new connections of agents are refused" in told.stdout)
    assert daemon.status()["storage"]["refused"] >= 1
    refused = daemon.run("true")
    assert (5, True) == (refused.returncode, "storage is critical: 1" in refused.stderr), refused.stderr
    fill(small, 5 * MIB)
    assert 0 == wait_for(daemon, "out")["reserve_bytes"]
    assert not (small / "reserve").exists()
    wait_until(lambda: not list((small / "segments").glob("*.open")), "what is open is sealed")
    assert "unseen" == agent.says("open", "unseen")
    fill(small, 0)
    assert 4 * MIB == wait_for(daemon, "ok")["reserve_bytes"]
    wait_until(lambda: daemon.status()["storage"]["held"] == 0, "let go")
    assert ("again", "last") == (agent.says("new", "again"), agent.says("open", "last"))
    agent.end()
    assert 0 == daemon.run("true").returncode
    first, second = sorted(sessions(daemon, 2), key=lambda one: str(one["started"]))
    assert "complete" == second["completeness"]["verdict"]
    assert "not recorded: storage out" in first["completeness"]["reasons"]
    assert said(daemon, first).startswith(b"hellorecorded")
    assert 0 == daemon.stop()
    assert [("critical", True), ("out", False), ("ok", True)] == changes(small)
    checked = call("verify", "--config", daemon.config)
    assert 0 == checked.returncode, checked.stdout


CONNECTS = """
import socket, sys
try:
    with socket.create_connection(("127.0.0.1", int(sys.argv[1])), timeout=20): print("connected")
except OSError as error: print(error.strerror)
"""


def enter(cgroup: Path, *words: str) -> subprocess.Popen[str]:
    """Start a process in a cgroup, as a service manager would."""
    command = ["/bin/sh", "-c", f'echo $$ >{cgroup}/cgroup.procs; exec "$@"', "sh", *words]
    return subprocess.Popen(command, env=ENVIRONMENT, stdout=subprocess.PIPE, text=True)


def test_what_starts_in_a_selected_slice_without_room_is_refused_too(daemons: Make, small: Path, port: int) -> None:
    """What cannot become a run because nothing can be written connects to nothing; with room it is a run, and connects."""
    parent = Hierarchy().root / "capd-test-full"
    parent.mkdir()
    (parent / "late.service").mkdir()
    daemon = daemons(f'{SETTINGS.format("refuse")}[selection]\nslices = ["/capd-test-full"]\n', "up")
    daemon.start()
    wait_for(daemon, "ok")
    fill(small, 5 * MIB)
    wait_for(daemon, "out")
    stays = enter(parent / "late.service", "/bin/sleep", "600")
    try:
        wait_until(lambda: daemon.status()["unselected"], "told")
        wait_until(lambda: daemon.status()["storage"]["held"] == 1, "held", 20)
        words = ("/usr/bin/python3", "-c", CONNECTS, str(port))
        assert "Operation not permitted\n" == enter(parent / "late.service", *words).communicate()[0]
        fill(small, 0)
        wait_until(lambda: [run["name"] for run in daemon.status()["runs"]] == ["late.service"], "a run after all")
        assert "connected\n" == enter(parent / "late.service", *words).communicate()[0]
    finally:
        stays.kill()
        stays.communicate()
        assert 0 == daemon.stop()
        wait_until(lambda: "populated 0" in (parent / "cgroup.events").read_text(), "they have ended")
        (parent / "late.service").rmdir()
        parent.rmdir()


STREAM = """
import socket, sys, os, time
until = time.monotonic() + 150
while time.monotonic() < until and not os.path.exists(sys.argv[2]):
    with socket.create_connection(("127.0.0.1", int(sys.argv[1]))) as connection:
        for _ in range(20):
            connection.sendall(os.urandom(4096)); connection.recv(8192); time.sleep(0.002)
"""


def test_a_disk_without_a_byte_left_damages_nothing(daemons: Make, small: Path, port: int, instance_dir: Path) -> None:
    """When another fills the disk to its last byte under a busy agent, what is open is closed from the reserve, and whole."""
    daemon = daemons(SETTINGS.format("continue"), "up")
    daemon.start()
    wait_for(daemon, "ok")
    done = instance_dir / "done"
    command = capd("run", "--config", daemon.config, "--", "/usr/bin/python3", "-c", STREAM, str(port), str(done))
    with subprocess.Popen(command, env=ENVIRONMENT) as agent:
        wait_until(lambda: sessions(daemon, 3), "it talks")
        wait_until(lambda: filled(small), "the disk is full")
        wait_for(daemon, "out")
        wait_until(lambda: not list((small / "segments").glob("*.open")), "what is open is sealed")
        before = len(sessions(daemon, 3))
        fill(small, 0)
        wait_until(lambda: len(sessions(daemon, 3)) > before + 1, "it is recorded again")
        done.touch()
        agent.wait(180)
    assert 0 == daemon.stop()
    checked = call("verify", "--config", daemon.config)
    assert (0, True) == (checked.returncode, ("out", False) in changes(small)), checked.stdout


def test_agents_that_go_on_say_that_they_were_not_recorded(daemons: Make, small: Path, port: int) -> None:
    """With `continue` nobody is held back, nothing that is said at critical is on the disk, and every session tells."""
    daemon = daemons(SETTINGS.format("continue"), "up")
    daemon.start()
    wait_for(daemon, "ok")
    agent = Agent(daemon, port)
    fill(small, 14 * MIB)
    wait_for(daemon, "critical")
    assert ("unwritten", "unwritten") == (agent.says("new", "unwritten"), agent.says("open", "unwritten"))
    assert 0 == daemon.run("true").returncode
    wait_until(lambda: daemon.status()["drained"]["discarded_bytes"], "discarded")
    fill(small, 0)
    wait_for(daemon, "ok")
    assert ("later", "later") == (agent.says("open", "later"), agent.says("new", "later"))
    agent.end()
    first, unseen, last = sorted(sessions(daemon, 3), key=lambda one: str(one["started"]))
    for session in (first, unseen):
        assert "partial" == session["completeness"]["verdict"]
        assert "not recorded: storage critical" in session["completeness"]["reasons"]
        assert any(reason.startswith("not recorded: 9 bytes") for reason in session["completeness"]["reasons"])
    assert ("complete", b"hellolater", b"") == (last["completeness"]["verdict"], said(daemon, first), said(daemon, unseen))
    assert 0 == daemon.stop()
    assert [("critical", False), ("ok", True)] == changes(small)


def test_stopped_agents_stay_stopped_without_a_daemon_and_go_on_with_room(daemons: Make, small: Path, port: int) -> None:
    """With `stop` an agent does nothing from critical on, not even when the daemon is killed, until a daemon finds room."""
    daemon = daemons(SETTINGS.format("stop"))
    daemon.start()
    agent = Agent(daemon, port)
    (run,) = daemon.status()["runs"]
    events = Hierarchy().directory(run["cgroup"]) / "cgroup.events"
    fill(small, 14 * MIB)
    wait_for(daemon, "critical")
    wait_until(lambda: "frozen 1" in events.read_text(), "stopped")
    agent.tell("new", "later")
    daemon.stop(signal.SIGKILL)
    assert "frozen 1" in events.read_text()
    daemon.start()
    assert ("critical", 1) == (wait_for(daemon, "critical")["state"], daemon.status()["storage"]["held"])
    assert 0 == daemon.stop()
    assert "1 runs stay stopped because storage is critical" in daemon.said()
    fill(small, 0)
    daemon.start()
    wait_until(lambda: "frozen 0" in events.read_text(), "goes on")
    assert "later" == agent.answer()
    agent.end()


def test_files_that_cannot_be_made_count_too(daemons: Make, instance_dir: Path) -> None:
    """On a file system with room and without inodes storage is low, and the status names them."""
    require_root()
    state = instance_dir / "state"
    state.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64m,nr_inodes=200", "none", state], check=True)
    try:
        daemon = daemons(SETTINGS.format("refuse").replace("low_inodes = 0", "low_inodes = 150"))
        daemon.start()
        wait_for(daemon, "ok")
        for number in range(60):
            (state / str(number)).touch()
        assert "files can still be made, low is below 150" in wait_for(daemon, "low")["described"]
        assert 0 == daemon.stop()
    finally:
        subprocess.run(["umount", "-l", state], check=True)
