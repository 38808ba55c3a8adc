"""The control socket: permissions, limits, and clients that misbehave."""

from __future__ import annotations

import json
import os
import selectors
import socket
import struct
import subprocess
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from capd.daemon import control, control_client
from capd.daemon.control import ControlServer, Peer, Verb
from capd.daemon.control_client import RefusedError
from capd.daemon.errors import DaemonUnreachableError, NotRecordingError
from tests.daemon.conftest import ENVIRONMENT, PYTHON, READY_SECONDS, wait_until
from tests.requirements import require_root


class Serving:
    """A control server in a thread of its own, with a verb for each case."""

    def __init__(self, directory: Path) -> None:
        self.path = directory / "control.sock"
        self.seen: list[Peer] = []
        self._selector = selectors.DefaultSelector()
        verbs = {
            "echo": Verb(act=self._echo),
            "large": Verb(act=lambda _peer, _request: {"filling": "x" * 8_000_000}),
            "secret": Verb(act=lambda _peer, _request: {"secret": 1}, root_only=True),
            "refuse": Verb(act=self._refuse),
            "break": Verb(act=lambda _peer, _request: {"never": 1 // 0}),
            "quiet": Verb(act=self._echo, through_pipe=True),
        }
        self._server = ControlServer(self.path, verbs, self._selector)
        self._ended = False
        self.busy = threading.Lock()
        self._thread = threading.Thread(target=self._loop)
        self._thread.start()

    def _echo(self, peer: Peer, request: Mapping[str, object]) -> dict[str, object]:
        self.seen.append(peer)
        return {"pid": peer.pid, "uid": peer.uid, "alive": peer.alive(), **request}

    def _refuse(self, _peer: Peer, _request: Mapping[str, object]) -> dict[str, object]:
        raise NotRecordingError("not now")

    def _loop(self) -> None:
        while not self._ended:
            for key, _events in self._selector.select(0.02):
                with self.busy:
                    key.data()

    def connections(self) -> int:
        """Count the open ones."""
        return len(self._server._connections)

    def close(self) -> None:
        """End it."""
        self._ended = True
        self._thread.join()
        self._server.close()
        self._selector.close()


@pytest.fixture
def serving(instance_dir: Path) -> Iterator[Serving]:
    """Give a server."""
    server = Serving(instance_dir)
    yield server
    server.close()


def exchange(path: Path, *chunks: bytes) -> bytes:
    """Send bytes as they are and read until the server hangs up."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(180)
        connection.connect(str(path))
        for chunk in chunks:
            connection.sendall(chunk)
        return b"".join(iter(lambda: connection.recv(65536), b""))


def test_client_is_known_by_the_kernels_word(serving: Serving) -> None:
    """The server knows who asks from the kernel, whatever the request says."""
    answer = control_client.ask(serving.path, "echo", word="hello")
    assert {"ok": True, "pid": os.getpid(), "uid": os.geteuid(), "alive": True, "word": "hello"} == answer


def test_answer_through_a_pipe_comes_after_the_socket_is_closed(serving: Serving) -> None:
    """The verb of a quiet client does not begin before its connection is closed; then the answer is in the pipe."""
    reading, writing = os.pipe()
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(str(serving.path))
        socket.send_fds(connection, [b'{"verb": "quiet"}\n'], [writing])
        os.close(writing)
        assert control_client.ask(serving.path, "echo")["ok"]
        time.sleep(0.1)
        assert 1 == len(serving.seen)
    assert b'{"ok": true' in os.read(reading, 4096)
    os.close(reading)
    assert os.getpid() == control_client.ask_quietly(serving.path, "quiet", word="x")["pid"]
    with pytest.raises(RefusedError, match="wants a pipe"):
        control_client.ask(serving.path, "quiet")


def test_errors_keep_message_hint_and_status(serving: Serving) -> None:
    """What the daemon raises reaches the client as it is; a defect of the daemon is told and does not end it."""
    with pytest.raises(RefusedError) as caught:
        control_client.ask(serving.path, "refuse")
    error = caught.value
    assert ("not now", NotRecordingError.hint, 5) == (str(error), error.hint, error.exit_status)
    with pytest.raises(RefusedError, match="the daemon failed: ZeroDivisionError"):
        control_client.ask(serving.path, "break")
    assert control_client.ask(serving.path, "echo")["ok"]


def test_nobody_listens(tmp_path: Path) -> None:
    """Without a daemon the error names the socket and has exit status 8; so it has with a dead one's socket."""
    path = tmp_path / "control.sock"
    with pytest.raises(DaemonUnreachableError, match=str(path)) as caught:
        control_client.ask(path, "echo")
    assert 8 == caught.value.exit_status
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    with pytest.raises(DaemonUnreachableError, match="Connection refused"):
        control_client.ask_quietly(path, "echo")


ASK = """
import sys
from contextlib import suppress
from pathlib import Path
from capd.daemon import control_client
for verb in ("echo", "secret"):
    try: print(control_client.ask(Path(sys.argv[1]), verb)["uid"])
    except Exception as error: print(error.exit_status, error)
"""


def test_other_users_may_ask_only_what_is_for_all(serving: Serving, instance_dir: Path) -> None:
    """A process of another user is let in and known as that user, and refused with status 3 where root is wanted."""
    require_root()
    assert {"ok": True, "secret": 1} == control_client.ask(serving.path, "secret")
    command = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", PYTHON, "-P", "-c", ASK, str(serving.path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=ENVIRONMENT)
    assert ("", "65534\n3 only root may ask this\n") == (done.stderr, done.stdout)


@pytest.mark.parametrize(
    ("request_", "words"),
    [
        (b"\n", "not JSON"),
        (b"[]\n", "a request is a JSON object"),
        (b'{"verb": "nothing"}\n', "knows break, echo"),
        (b'{"verb": {"a": 1}}\n', "knows break, echo"),
        (b"[" * 100_000 + b"\n", "not JSON"),
        (b"\xff\xfe\n", "not JSON"),
        (b"x" * (control.REQUEST_BYTES_MAX + 10), "at most"),
    ],
)
def test_malformed_request_is_refused(serving: Serving, request_: bytes, words: str) -> None:
    """Whatever is no request gets a refusal with status 2."""
    answer = json.loads(exchange(serving.path, request_))
    assert (False, 2) == (answer["ok"], answer["error"]["exit_status"])
    assert words in answer["error"]["message"]


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.binary(max_size=300))
def test_no_bytes_break_the_server(serving: Serving, content: bytes) -> None:
    """After any bytes and an end of line the server has answered or hung up, and serves the next client."""
    exchange(serving.path, content.replace(b"\n", b"") + b"\n")
    assert control_client.ask(serving.path, "echo")["ok"]


def slow_and_mute(serving: Serving) -> list[socket.socket]:
    """Connect clients that take no answer, say half a line, or nothing."""
    clients = [socket.socket(socket.AF_UNIX) for _ in range(9)]
    for number, client in enumerate(clients):
        client.settimeout(READY_SECONDS)
        client.connect(str(serving.path))
        client.sendall([b'{"verb": "large"}\n', b'{"verb": "ec', b""][number % 3])
    return clients


def test_slow_and_mute_clients_do_not_hold_up_others(serving: Serving, monkeypatch: pytest.MonkeyPatch) -> None:
    """While clients say nothing, half a line, or take no answer, others are served."""
    monkeypatch.setattr(control, "REQUEST_SECONDS_MAX", READY_SECONDS)
    clients = slow_and_mute(serving)
    wait_until(lambda: serving.connections() == len(clients), "all are let in")
    for _ in range(3):
        assert control_client.ask(serving.path, "echo")["ok"]
    assert serving.connections() >= len(clients)
    for client in clients:
        client.close()
    wait_until(lambda: not serving.connections(), "who left is let go")


def test_slow_and_mute_clients_are_dropped_in_time(serving: Serving, monkeypatch: pytest.MonkeyPatch) -> None:
    """Clients that say nothing, half a line, or take no answer are hung up on."""
    monkeypatch.setattr(control, "REQUEST_SECONDS_MAX", 0.5)
    clients = slow_and_mute(serving)
    assert b"" == clients[-1].recv(1)  # it was let in behind all others
    wait_until(lambda: not serving.connections(), "all are dropped")
    for client in clients:
        assert len(b"".join(iter(lambda: client.recv(1 << 20), b""))) < 8_000_000  # noqa: B023 - called at once
        client.close()


def test_large_answer_arrives_whole(serving: Serving) -> None:
    """An answer far beyond a socket's buffer arrives whole."""
    assert 8_000_000 == len(str(control_client.ask(serving.path, "large")["filling"]))


FLOOD = """
import socket, sys, time
held = []
for number in range(int(sys.argv[2])):
    client = socket.socket(socket.AF_UNIX)
    client.connect(sys.argv[1])
    held.append(client)
    client.setblocking(False)

def refused(client):
    try: return client.recv(1) == b""
    except BlockingIOError: return False

until = time.monotonic() + 180
while sum(map(refused, held)) < int(sys.argv[3]) and time.monotonic() < until:
    time.sleep(0.05)
time.sleep(0.2)  # it would be more by then
print(sum(map(refused, held)), flush=True)
sys.stdin.read()
"""


def test_one_user_cannot_take_all_connections(serving: Serving, instance_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of one user's many connections only so many are kept, and others are served."""
    require_root()
    monkeypatch.setattr(control, "REQUEST_SECONDS_MAX", 60)
    numbers = [str(control.CONNECTIONS_PER_USER_MAX + 20), "20"]
    command = ["setpriv", "--reuid=65534", "--clear-groups", PYTHON, "-P", "-c", FLOOD, str(serving.path), *numbers]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as flooder:
        assert flooder.stdout is not None
        assert "20\n" == flooder.stdout.readline()
        assert control_client.ask(serving.path, "echo")["ok"]
        flooder.communicate("")


def open_descriptors() -> int:
    """Count this process's open descriptors."""
    return len(list(Path("/proc/self/fd").iterdir()))


@pytest.mark.parametrize("kind", ["file", "socket", "reading end", "two"])
def test_only_a_pipe_is_taken_for_the_answer(serving: Serving, tmp_path: Path, kind: str) -> None:
    """A client cannot make the daemon write into anything but a pipe: other descriptors are closed unused."""
    file = (tmp_path / "file").open("wb")
    ours, theirs = socket.socketpair()
    reading, writing = os.pipe()
    passed = {"file": [file.fileno()], "socket": [theirs.fileno()], "reading end": [reading], "two": [file.fileno(), writing]}
    before = open_descriptors()
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(180)
        connection.connect(str(serving.path))
        socket.send_fds(connection, [b'{"verb": "quiet"}\n'], passed[kind])
        answer = json.loads(b"".join(iter(lambda: connection.recv(65536), b"")))
    assert "wants a pipe" in answer["error"]["message"]
    file.close()
    assert b"" == (tmp_path / "file").read_bytes()
    wait_until(lambda: before - 1 == open_descriptors(), "what was passed is closed again")
    for descriptor in (reading, writing):
        os.close(descriptor)
    ours.close()
    theirs.close()


def test_full_pipe_does_not_block(serving: Serving) -> None:
    """A client whose pipe is full and never read loses its answer; the server goes on."""
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    with suppress(BlockingIOError):
        while True:
            os.write(writing, bytes(4096))
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(str(serving.path))
        socket.send_fds(connection, [b'{"verb": "quiet"}\n'], [writing])
    assert control_client.ask(serving.path, "echo")["ok"]
    os.close(reading)
    os.close(writing)


LINGER_SECONDS = 8


def lingering() -> tuple[socket.socket, socket.socket]:
    """Give a TCP socket whose last close blocks, because its peer, which is given too, does not take what was sent."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        ours = socket.create_connection(listener.getsockname())
        theirs, _address = listener.accept()
    ours.setblocking(False)
    with suppress(BlockingIOError):
        while True:
            ours.send(bytes(65536))
    ours.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, LINGER_SECONDS))
    return ours, theirs


@pytest.mark.parametrize("passed", ["alone", "beside another", "unread"])
def test_descriptor_that_blocks_in_close_holds_up_nobody(serving: Serving, passed: str) -> None:
    """Whoever passes a descriptor whose close takes its time, read or not, waits for it alone."""
    held = [lingering() for _ in range(2 if passed == "beside another" else 1)]
    with serving.busy, socket.socket(socket.AF_UNIX) as connection:
        connection.connect(str(serving.path))
        if passed == "unread":
            connection.sendall(b"x" * (control.REQUEST_BYTES_MAX + 10))
        socket.send_fds(connection, [b"{"], [ours.fileno() for ours, _theirs in held])
        for ours, _theirs in held:
            ours.close()
    started = time.monotonic()
    while time.monotonic() - started < 0.5:
        assert control_client.ask(serving.path, "echo")["ok"]
    assert time.monotonic() - started < LINGER_SECONDS / 2
    for _ours, theirs in held:
        theirs.close()


def test_dead_client_is_seen_to_be_dead(serving: Serving) -> None:
    """A process that asked and ended is known to be gone, so that its number is not taken for another's."""
    script = "from capd.daemon import control_client as c; import sys, pathlib; c.ask(pathlib.Path(sys.argv[1]), 'echo')"
    with subprocess.Popen([PYTHON, "-P", "-c", script, str(serving.path)], env=ENVIRONMENT) as client:
        client.wait(180)
    (peer,) = serving.seen
    assert client.pid == peer.pid
    assert not Peer(pid=peer.pid, uid=0, pidfd=-1).alive()


def test_socket_of_a_dead_daemon_is_replaced(tmp_path: Path) -> None:
    """What a killed daemon left behind does not stop the next one from listening, and ending removes it."""
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(tmp_path / "control.sock"))
    server = Serving(tmp_path)
    assert control_client.ask(server.path, "echo")["ok"]
    server.close()
    assert not server.path.exists()
