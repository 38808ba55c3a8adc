"""The shipper's process: confined, killed at any moment, two at once, and with a network that loses, cuts, slows and hangs."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from capd.recording.bucket import Bucket
from capd.recording.bucket.signed import SignedRequests
from tests.daemon.conftest import ENVIRONMENT, capd, in_time, open_directory, wait_until
from tests.daemon.recorded_segments import HOST, seal
from tests.requirements import require_root
from tests.servers.ceph import Ceph
from tests.servers.lossy import Lossy, lossy

QUICK = "[shipper]\nretry_seconds_max = 1\n[bucket]\ntimeout_seconds = 2\n"
BUSY = b"HTTP/1.1 503 Slow Down\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
SMOKE_ROUNDS = 6


class Host:
    """A host's directories with segments in them, and shippers of them."""

    def __init__(self, directory: Path, environment: dict[str, str]) -> None:
        self.directory = directory
        self.segments = directory / "state" / "segments"
        self.environment = {**ENVIRONMENT, **environment}
        self.processes: list[subprocess.Popen[bytes]] = []
        (directory / "state").mkdir()
        (directory / "state" / "host").write_text(f"{HOST}\n", encoding="ascii")
        self.segments.mkdir()

    def start(self, url: str, settings: str = QUICK, *, name: str = "") -> subprocess.Popen[bytes]:
        """Start a shipper; one with a name of its own has its own directories but for the segments."""
        state, run = self.directory / f"state{name}", self.directory / f"run{name}"
        if name and not state.exists():
            state.mkdir()
            (state / "host").write_text(f"{HOST}\n", encoding="ascii")
            (state / "segments").symlink_to(self.segments)
        config = self.directory / f"capd{name}.toml"
        top = f'state_dir = "{state}"\nruntime_dir = "{run}"\nbucket_url = "{url}"\n'
        config.write_text(top + settings, encoding="utf-8")
        with (self.directory / "log").open("ab") as log:
            command = capd("shipper", "--config", config)
            process = subprocess.Popen(command, env=self.environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        self.processes.append(process)
        return process

    def seal(self, **settings: int) -> list[Path]:
        """Seal segments as the recorder does: they belong to who owns their directory."""
        made = seal(self.segments, **settings)  # type: ignore[arg-type] # of numbers
        owner = self.segments.stat()
        for path in made:
            os.chown(path, owner.st_uid, owner.st_gid)
        return made

    def status(self, name: str = "") -> dict[str, Any]:
        """Give what a shipper says; empty before it says anything."""
        try:
            found: dict[str, Any] = json.loads((self.directory / f"run{name}/shipper/shipper.status.json").read_bytes())
        except FileNotFoundError:
            return {}
        return found

    def wait(
        self, condition: Callable[[dict[str, Any]], object], what: str, *, name: str = "", seconds: float = 180
    ) -> dict[str, Any]:
        """Wait until what the shipper says meets a condition."""
        end = time.monotonic() + seconds
        while not condition(status := self.status(name)):
            assert time.monotonic() < end, f"not {what} in {seconds} s: {json.dumps(status)}; {self.said()}"
            time.sleep(0.05)
        return status

    def end(self) -> None:
        """Kill what still runs."""
        for process in self.processes:
            if process.poll() is None:
                process.kill()
            process.wait()

    def said(self) -> str:
        """Give what the processes printed."""
        return (self.directory / "log").read_text(encoding="utf-8")

    def contents(self) -> dict[str, bytes]:
        """Give what the bucket must hold at the end."""
        day = time.strftime("%Y-%m-%d", time.gmtime())
        return {f"host={HOST}/date={day}/{path.name}": path.read_bytes() for path in self.segments.glob("*.seg")}


@pytest.fixture
def environment(ceph: Ceph, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """Give the S3 server's environment, also to this process."""
    for name, value in ceph.environment.items():
        monkeypatch.setenv(name, value)
    ceph.authority.parent.chmod(0o755)
    return ceph.environment


@pytest.fixture
def host(request: pytest.FixtureRequest) -> Iterator[Host]:
    """Give a host; its shippers are ended with the test."""
    require_root()
    environment: dict[str, str] = request.getfixturevalue("environment") if "ceph" in request.fixturenames else {}
    with open_directory() as directory:
        made = Host(directory, dict(environment))
        if environment:  # where pytest keeps its files, other users may not pass
            authority = directory / "ca.pem"
            authority.write_bytes(Path(environment["AWS_CA_BUNDLE"]).read_bytes())
            made.environment["AWS_CA_BUNDLE"] = str(authority)
        yield made
        made.end()


@pytest.fixture
def way(ceph: Ceph, host: Host) -> Iterator[Lossy]:
    """Give a lossy way to the S3 server, which the host's shippers take."""
    with lossy(ceph.port) as made:
        host.environment["AWS_ENDPOINT_URL"] = f"https://127.0.0.1:{made.port}"
        yield made


def shipped(url: str) -> dict[str, bytes]:
    """Give the segments in a bucket."""
    bucket = Bucket.open(url)
    return {entry.key: bucket.read(entry.key) for entry in bucket.list("host=")}


def failing(status: dict[str, Any], *words: str) -> bool:
    """Tell whether a shipper says that it fails, in one of these words."""
    return bool(status) and status["last_error"] is not None and any(word in status["last_error"]["message"] for word in words)


def waiting(status: dict[str, Any], segments: int) -> bool:
    """Tell whether so many segments wait."""
    return bool(status["backlog"]["segments"] == segments)


def everything(status: dict[str, Any]) -> bool:
    """Tell whether a shipper has nothing left to do."""
    return bool(status) and status["backlog"]["segments"] == 0 and status["last_error"] is None and status["through"] > 0


def wait_for_all(host: Host, name: str) -> dict[str, Any]:
    """Wait until a shipper has nothing left to do: as long as it takes, while it goes on."""
    status = host.status(name)
    while not everything(status):
        through = status["through"]
        status = host.wait(lambda now: everything(now) or now["through"] > through, "gone on", name=name, seconds=60)  # noqa: B023 - called in this round
    return status


def test_is_confined_and_ends_at_once(host: Host, ceph: Ceph) -> None:
    """It has no root, no capability, a syscall filter, and cannot write to the recording; SIGTERM ends it within seconds."""
    host.seal(count=3)
    process = host.start(ceph.url(lock=True))
    status = host.wait(everything, "shipped")
    assert ", system calls, files" in status["confinement"]
    assert {"enabled": True, "mode": None, "days": None, "unknown": None} == status["object_lock"]
    lines = Path(f"/proc/{process.pid}/status").read_text(encoding="ascii").splitlines()
    facts = dict(line.split(":\t", 1) for line in lines if ":\t" in line)
    assert ("0" * 16, "0" * 16, "1", "2") == tuple(facts[name] for name in ("CapEff", "CapBnd", "NoNewPrivs", "Seccomp"))
    assert "0" not in facts["Uid"].split("\t")
    started = time.monotonic()
    process.terminate()
    assert 0 == process.wait(180)
    assert in_time(time.monotonic() - started, 8)
    assert "stopped" == host.status()["state"]


def test_a_second_one_on_the_same_directories_is_refused(host: Host, tmp_path: Path) -> None:
    """It says who holds them, with status 7; without a bucket_url it says that, with status 2."""
    tmp_path = host.directory / "bucket"
    tmp_path.mkdir(mode=0o777)
    tmp_path.chmod(0o777)
    host.seal()
    host.start(str(tmp_path))
    host.wait(everything, "shipped")
    assert 7 == host.start(str(tmp_path)).wait(180)
    config = host.directory / "none.toml"
    config.write_text(f'state_dir = "{host.directory}/state"\n', encoding="utf-8")
    assert (
        2
        == subprocess.run(
            capd("shipper", "--config", config), check=False, env=host.environment, capture_output=True
        ).returncode
    )


def test_the_first_that_is_told_is_what_waits(host: Host, ceph: Ceph, way: Lossy) -> None:
    """Before the bucket has answered the backlog is what is on the disk, and not the none that nobody looked for."""
    host.seal(count=3)
    way.become(swallow=True)
    host.start(ceph.url(lock=True))
    assert 3 == host.wait(bool, "said")["backlog"]["segments"]


def test_dead_buckets_are_told_and_forgiven(host: Host, ceph: Ceph, way: Lossy) -> None:
    """A bucket that resets, hangs or is no bucket costs nothing but time: each is told, and what waited arrives."""
    made = host.seal(count=2)
    url = ceph.url(lock=True)
    way.become(refuse=True)
    host.start(url)
    for number, (behaviour, words) in enumerate(
        [
            ({"refuse": True}, ("no connection", "reset", "connection broke", "Connection")),
            ({"swallow": True}, ("no answer in time",)),
            ({"answer": BUSY}, ("TLS", "corrupt", "does not speak")),
        ]
    ):
        way.become(**behaviour)  # type: ignore[arg-type] # a table of behaviours
        status = host.wait(lambda status: failing(status, *words) and waiting(status, 2 + number), f"told {words}")  # noqa: B023 - called now
        assert ("retrying", True) == (status["state"], status["oldest_unshipped_seconds"] > 0)
        host.seal(first=3 + number)
    way.become()
    host.wait(everything, "shipped")
    assert host.contents() == shipped(url)
    assert all(path.exists() for path in made)


def test_busy_servers_are_told(host: Host, ceph: Ceph) -> None:
    """A server that answers 503 is told as busy, and is asked again."""
    host.seal()
    with lossy(ceph.plain_port) as way:
        host.environment |= {"AWS_ENDPOINT_URL": f"http://127.0.0.1:{way.port}", "AWS_ALLOW_HTTP": "true"}
        way.become(answer=BUSY)
        host.start(ceph.url())
        host.wait(lambda status: failing(status, "503"), "told busy")
        way.become()
        host.wait(everything, "shipped")


def test_a_slow_way_is_used(host: Host, ceph: Ceph, way: Lossy) -> None:
    """Segments that take longer than a request may take at first arrive all the same: each time-out doubles the patience."""
    host.seal(size=80_000)
    url = ceph.url()
    way.become(bytes_per_second=30_000)
    host.start(url)
    status = host.wait(everything, "shipped")
    assert status["errors"] >= 1, "it was too slow at least once"
    assert host.contents() == shipped(url)


def look_again(host: Host, url: str, running: subprocess.Popen[bytes], settings: str) -> None:
    """Have one shipper look at everything once more: a request of a dead one may have been carried out after the last look."""
    running.send_signal(signal.SIGKILL)
    running.wait()
    (host.directory / "state2" / "shipper" / "shipped.json").unlink()
    again = host.start(url, settings, name="2")
    host.wait(lambda status: status.get("pid") == again.pid, "it lives", name="2")
    wait_for_all(host, "2")


def shake(host: Host, ceph: Ceph, way: Lossy, *, seed: int, rounds: int) -> None:
    """Ship with two shippers at once that are killed at random moments, over a way that is shaken; then check everything."""
    chance = random.Random(seed)
    url = ceph.url(lock=chance.random() < 0.5)
    sequence = 1
    settings = QUICK + "[local]\nfree_bytes_min = 0\n"
    names = ["", "2"]
    running = {name: host.start(url, settings, name=name) for name in names}
    for _ in range(rounds):
        count = chance.randrange(1, 6)
        host.seal(first=sequence, count=count, size=chance.choice([500, 20_000, 60_000]), seed=seed)
        sequence += count
        way.shake(chance)
        time.sleep(chance.uniform(0.2, 1.5))
        name = chance.choice(names)
        running[name].send_signal(signal.SIGKILL)
        running[name].wait()
        if chance.random() < 0.3:
            (host.directory / f"state{name}" / "shipper" / "shipped.json").unlink(missing_ok=True)
        running[name] = host.start(url, settings, name=name)
    way.become()
    for name in names:
        wait_until(lambda: host.status(name).get("pid") == running[name].pid, "it lives")  # noqa: B023 - called in this round
        status = wait_for_all(host, name)
        assert ([], [], sequence - 1) == (status["conflicts"], status["unshippable"], status["through"])
    assert host.contents() == shipped(url), f"seed {seed}"
    look_again(host, url, running["2"], settings)
    requests = ceph.requests(url.split("/")[2])
    prefix = url.split("/", 3)[3]
    assert sequence - 1 == count_versions(requests, f"{prefix}/"), f"seed {seed}: something is there twice"


def count_versions(requests: SignedRequests, prefix: str) -> int:
    """Count the versions of all objects whose key starts with the prefix, over all pages of the answer."""
    count, page = 0, dict[str, str]()
    while True:
        body = requests.request("GET", None, {"versions": "", "prefix": prefix, **page}).body.decode()
        count += body.count("<Version>")
        if "<IsTruncated>true" not in body:
            return count
        page = {
            marker: body.partition(f"<{field}>")[2].partition("<")[0]
            for marker, field in (("key-marker", "NextKeyMarker"), ("version-id-marker", "NextVersionIdMarker"))
        }


@pytest.mark.slow
def test_two_shippers_are_killed_while_the_network_fails(host: Host, ceph: Ceph, way: Lossy) -> None:
    """Whoever dies when, and whatever the network does: each segment is in the bucket once, whole, and nothing else is."""
    seed = int(os.environ.get("CAPD_SEED", random.SystemRandom().randrange(1 << 30)))
    rounds = int(os.environ.get("CAPD_SHIPPER_ROUNDS", SMOKE_ROUNDS))
    print(f"CAPD_SEED={seed} CAPD_SHIPPER_ROUNDS={rounds}")  # noqa: T201 - shown when it fails, to try again
    shake(host, ceph, way, seed=seed, rounds=rounds)
