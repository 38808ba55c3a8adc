"""What happens around capd while agents talk: a full disk, a clock that jumps, rules and cgroups taken away, stalls.

What lives here: one instance, in which each of these is made to happen for real, and what agents and the sink see of it.
"""

from __future__ import annotations

import json
import shutil
import struct
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from capd.daemon import control_client
from capd.daemon.errors import DaemonUnreachableError
from tests.daemon.conftest import ENVIRONMENT, READY_SECONDS, capd, in_time, wait_until
from tests.forcing.instance import POLICY, Instance, agent, instance
from tests.forcing.test_bypass_table import REFUSED, clear, heard
from tests.forcing.yard import AGENT_USER, PYTHON, Yard
from tests.requirements import require_command, require_probes

pytestmark = pytest.mark.kernel
"""For what is no recovery: a busy machine may take its time."""
CHOSEN = "chosen"
HELD = "  - {id: held, match: {protocols: [http], hosts: [10.77.0.2], methods: [POST], paths: [/held/**]}, then: approve}\n"
SHIM = Path(__file__).with_name("clock_shim.c")
PREPARE = """
mkdir -p {directory}/state/enforcer/decisions; mount -t tmpfs -o size=1m none {directory}/state/enforcer/decisions;
export LD_PRELOAD=%(library)s CLOCK_OFFSET=%(offset)s;
"""


@pytest.fixture(scope="module")
def clock(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[int], None]]:
    """Give what sets how far the wall clock of capd is off, in seconds."""
    require_command("cc")
    with TemporaryDirectory(prefix="capd-clock-") as name:
        directory = Path(name)
        directory.chmod(0o755)
        subprocess.run(["cc", "-shared", "-fPIC", "-O1", "-o", directory / "clock.so", SHIM], check=True)
        offset = directory / "offset"
        offset.write_bytes(bytes(8))

        def jump(seconds: int) -> None:
            with offset.open("r+b") as file:
                file.write(struct.pack("=q", seconds))

        jump.directory = directory  # type: ignore[attr-defined] # for whoever starts capd
        yield jump


@pytest.fixture(scope="module")
def place(ground: Yard, clock: Callable[[int], None]) -> Iterator[Instance]:
    """Start what all tests share."""
    require_probes()
    require_command("nft", "nsenter", "setpriv")
    chosen = f"/{ground.tag}/{CHOSEN}"
    directory: Path = clock.directory  # type: ignore[attr-defined] # as above
    prepare = PREPARE % {"library": directory / "clock.so", "offset": directory / "offset"}
    with instance(ground, policy=POLICY + HELD, cgroups=[chosen], prepare=prepare.replace("\n", " ")) as made:
        yield made
    path = ground.root / chosen.lstrip("/")
    if path.is_dir():
        path.rmdir()


def recovered(what: str, holds: Callable[[], object]) -> None:
    """Wait until something is well again; print how long it took, and see that it was not long."""
    began = time.monotonic()
    while not holds():
        assert time.monotonic() - began < READY_SECONDS, what
    took = time.monotonic() - began
    print(f"{what}: recovered in {took:.2f} s")  # noqa: T201 - the figure is wanted
    assert in_time(took), what


def on_disk_of(place: Instance, *words: str) -> subprocess.CompletedProcess[bytes]:
    """Run a command in capd's mount namespace, below capd's root, which is another than the namespace's in a chroot."""
    assert place.daemon.process is not None
    enter = ["nsenter", "--mount", "--root", "--target", str(place.daemon.process.pid)]
    return subprocess.run([*enter, *words], check=False, capture_output=True)


def test_a_full_disk_denies_and_says_so(place: Instance) -> None:
    """When a decision cannot be written nothing goes out, and the agent reads why; with room again it is allowed at once."""
    fill = place.daemon.directory / "state" / "enforcer" / "decisions" / "fill"
    done = on_disk_of(place, "sh", "-c", f"head -c 4194304 /dev/zero >{fill}")
    assert b"No space left on device" in done.stderr
    try:
        place.until('say(get("/open/full"))', "decision_log_unwritable")  # once the last page is full
        clear(place)
        found = place.user.does('say(get("/open/full"))')
        assert ("HTTP/1.1 403", True) == (found[:12], "could not be written down" in found)
        assert [] == heard(place)
        path = place.daemon.directory / "run" / "enforcer" / "worker-0.status.json"
        wait_until(lambda: json.loads(path.read_bytes())["unlogged"], "it is counted")
    finally:
        on_disk_of(place, "rm", str(fill))
    recovered("full disk", lambda: "200 OK" in place.user.does('say(get("/open/room"))'))


@pytest.mark.parametrize("seconds", [86_400, -7_200, 0])
def test_a_clock_that_jumps_changes_no_decision(place: Instance, clock: Callable[[int], None], seconds: int) -> None:
    """A step of the wall clock, either way and back, ends no connection, allows nothing more and nothing less."""
    begin = "POST /open/a HTTP/1.1\r\nHost: 10.77.0.2\r\nContent-Length: 9\r\n\r\nx"
    place.user.does(
        f"global kept\nkept = socket.create_connection(('10.77.0.2', 80), 20)\nkept.sendall({begin!r}.encode())\nreturn 1"
    )
    wait_until(lambda: b"POST /open/a" in place.sink.take(), "it is under way")
    clock(seconds)
    recovered(f"clock {seconds:+d} s", lambda: "200 OK" in place.user.does('say(get("/open/clock"))'))
    clear(place)
    assert "HTTP/1.1 403" in place.user.does('say(get("/shut"))')
    assert place.user.does('udp("10.77.0.2", 443)') in REFUSED
    assert [] == heard(place)
    place.user.does("kept.sendall(b'12345678')\nreturn 1")
    wait_until(lambda: b"12345678" in place.sink.take(), "what was allowed goes on")
    place.user.does("kept.close()")


def test_flushed_rules(place: Instance) -> None:
    """Another root's `nft flush ruleset` lets nothing out, and agents are served within two seconds of it."""
    clear(place)
    subprocess.run(["nsenter", f"--net={place.ground.host}", "nft", "flush", "ruleset"], check=True)
    assert "HTTP/1.1 403" in place.user.does('say(get("/shut"))')
    assert place.user.does('udp("10.77.0.2", 443)') in REFUSED
    assert [] == heard(place)
    recovered("flushed rules", lambda: "200 OK" in place.user.does('say(get("/open/flushed"))'))


ENTERED = """
import socket, sys
sys.stdin.readline()
for line in sys.stdin:
    try:
        with socket.create_connection(("10.77.0.2", 80), 1) as client:
            client.sendall(b"GET /shut HTTP/1.1\\r\\nHost: 10.77.0.2\\r\\n\\r\\n")
            print(client.recv(100).split(b"\\r")[0].decode(), flush=True)
    except OSError as error: print(type(error).__name__, flush=True)
"""


def test_a_cgroup_that_was_removed_and_made_anew(place: Instance) -> None:
    """A selected cgroup with another number is judged within two seconds, each time that it is made."""
    path = place.ground.root / place.ground.tag / CHOSEN
    for _ in range(3):
        path.mkdir()
        words = ["nsenter", f"--net={place.ground.host}", PYTHON, "-I", "-S", "-c", ENTERED]
        with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
            (path / "cgroup.procs").write_text(str(process.pid), encoding="ascii")

            def asked(process: subprocess.Popen[str] = process, word: str = "go\n") -> str:
                assert process.stdin is not None
                assert process.stdout is not None
                process.stdin.write(word)
                process.stdin.flush()
                return process.stdout.readline()

            assert process.stdin is not None
            process.stdin.write("begin\n")
            recovered("cgroup made anew", lambda asked=asked: "403 Forbidden" in asked())  # type: ignore[misc] # its default
            process.kill()
        wait_until(lambda: not place_populated(path), "nobody lives there")
        path.rmdir()


def place_populated(path: Path) -> bool:
    """Say whether somebody lives in a cgroup."""
    return "populated 1" in (path / "cgroup.events").read_text(encoding="ascii")


def test_a_target_that_stalls_while_a_person_is_asked(place: Instance) -> None:
    """What is held is not begun; once approved it goes out once, and a target that never answers keeps nobody else waiting."""
    clear(place)
    post = "POST /held/pay HTTP/1.1\r\nHost: 10.77.0.2\r\nContent-Length: 2\r\n\r\nab"
    with agent(place.daemon, AGENT_USER, place.ground.host) as client:
        client.does(
            f"global kept\nkept = socket.create_connection(('10.77.0.2', 80), 20)\nkept.sendall({post!r}.encode())\nreturn 1"
        )
        path = place.daemon.directory / "run" / "enforcer" / "approvals.sock"
        identities: list[str] = []

        def waits() -> bool:
            try:
                shown = control_client.ask(path, "approvals")["approvals"]
            except DaemonUnreachableError:
                return False
            assert isinstance(shown, list)
            identities[:] = [one["id"] for one in shown if one["url"].endswith("/held/pay") and one["state"] == "pending"]
            return len(identities) == 1

        wait_until(waits, "a person is asked")
        assert [] == heard(place)
        assert "200 OK" in place.user.does('say(get("/open/meanwhile"))')
        clear(place)
        words = [*capd("approve", identities[0], "--config", place.daemon.config)]
        done = subprocess.run(words, env=ENVIRONMENT, capture_output=True, text=True, check=False)
        assert 0 == done.returncode, done.stderr
        wait_until(lambda: place.sink.received[80].count(b"POST /held/pay") == 1, "it goes out")
        assert "200 OK" in place.user.does('say(get("/open/stalled"))')
        assert "timeout" == client.does("kept.settimeout(0.5)\nreturn kept.recv(1)")
        client.does("kept.close()")
        assert 1 == bytes(place.sink.received[80]).count(b"POST /held/pay")


def test_every_request_at_the_sink_was_decided(place: Instance) -> None:
    """After all of that the decision log can be read to its end, and the clock really was another."""
    state = place.daemon.directory / "state" / "enforcer"
    with TemporaryDirectory() as name:
        done = on_disk_of(place, "tar", "-C", str(state), "-cf", "-", "decisions")
        subprocess.run(["tar", "-xf", "-", "-C", name], input=done.stdout, check=True)
        shutil.copytree(Path(name) / "decisions", state / "decisions", dirs_exist_ok=True)
    entries = place.entries()
    times = [entry["at_ns"] for entry in entries]
    assert max(times) - min(times) > 86_400 * 10**9
    assert {entry["session"] for entry in entries if entry["kind"] == "decision"} <= {
        entry["session"] for entry in entries if entry["kind"] == "open"
    }
