"""`capd up`: one process tree, whose parts may die, and of which nothing is left."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from capd.daemon import status
from capd.daemon.configuration import parse
from capd.recording.evidence.host_report import Trust
from capd.recording.evidence.hosts import verify_shelf
from capd.recording.evidence.shelf import DirectoryShelf
from tests.daemon.conftest import ENVIRONMENT, Daemon, call, open_directory, wait_until
from tests.requirements import require_probes
from tests.servers.lossy import lossy

pytestmark = pytest.mark.kernel


@pytest.fixture(scope="module")
def up() -> Iterator[Daemon]:
    """Give a running `capd up`; the last test ends it."""
    require_probes()
    with open_directory() as directory:
        made = Daemon(directory, verb="up")
        made.start()
        yield made
        if made.process is not None and made.process.poll() is None:
            made.stop()


def gathered(up: Daemon, settings: str = "") -> dict[str, Any]:
    """Give what `capd status --json` prints."""
    values = {"state_dir": str(up.directory / "state"), "runtime_dir": str(up.directory / "run"), **tomllib.loads(settings)}
    found, _judged = status.gather(parse(values, "test"))
    return found


def wait_for_shipper(up: Daemon, words: str) -> dict[str, Any]:
    """Wait until the shipper says that it fails in these words; give what it says."""
    found: dict[str, Any] = {}

    def said() -> bool:
        found.update(json.loads((up.directory / "run/shipper/shipper.status.json").read_bytes()))
        return words in str(found["last_error"])

    wait_until((up.directory / "run/shipper/shipper.status.json").exists, "the shipper reports")
    wait_until(said, f"the shipper says {words}")
    return found


def pid(up: Daemon, role: str) -> int:
    """Give the pid of a role, 0 while it has none."""
    return int(gathered(up)["roles"][role]["pid"] or 0)


def status_field(process: int, field: str) -> str:
    """Read a field of /proc/PID/status."""
    lines = Path(f"/proc/{process}/status").read_text().splitlines()
    return next(line.split(":", 1)[1].strip() for line in lines if line.startswith(f"{field}:"))


def test_gets_healthy_and_says_what_it_uses(up: Daemon) -> None:
    """It becomes healthy, and has said the tier, the recorder's user, the directories and how to record."""
    wait_until(lambda: call("status", "--config", up.config).returncode == 0, "healthy")
    said = up.said()
    for words in ("capd is ready", "tier  ", "recorder     user ", f"{up.directory}/state", "capd run --config"):
        assert words in said
    assert "Traceback" not in said


def test_recorder_has_no_rights_and_daemon_two_threads(up: Daemon) -> None:
    """The recorder is not root, has no capability and a syscall filter; both are children of the one process, in its group."""
    wait_until(lambda: pid(up, "recorder"), "the recorder runs")
    recorder, daemon = pid(up, "recorder"), pid(up, "daemon")
    assert up.process is not None
    assert "0" != status_field(recorder, "Uid").split()[0]
    assert ("0" * 16, "1", "2") == tuple(status_field(recorder, field) for field in ("CapBnd", "NoNewPrivs", "Seccomp"))
    assert [str(up.process.pid)] * 2 == [status_field(role, "PPid") for role in (recorder, daemon)]
    assert {up.process.pid} == {os.getpgid(role) for role in (recorder, daemon)}


def test_second_one_is_refused_and_first_goes_on(up: Daemon) -> None:
    """A second capd on the same directories ends with status 7 and one message; the first one answers as before."""
    before = pid(up, "daemon")
    done = call("up", "--config", up.config)
    assert (7, 1) == (done.returncode, done.stderr.count("another capd is running"))
    assert before == pid(up, "daemon")


@pytest.mark.parametrize("role", ["recorder", "daemon"])
def test_killed_role_is_restarted(up: Daemon, role: str) -> None:
    """A role that is killed is started again, and the whole gets ready again by itself."""
    wait_until(lambda: pid(up, role), "it runs")
    before = pid(up, role)
    os.kill(before, signal.SIGKILL)
    wait_until(lambda: pid(up, role) not in {0, before}, "it runs again")
    assert f"the {role} was ended by SIGKILL, restarting it" in up.said()
    assert 0 == up.run("/bin/true").returncode


def test_ctrl_c_ends_all_in_order(up: Daemon) -> None:
    """SIGINT to the whole group, as a terminal sends it, ends the tree with status 0, the journal with a stop note."""
    wait_until(lambda: pid(up, "recorder") and pid(up, "daemon"), "both run")
    roles = [pid(up, "recorder"), pid(up, "daemon")]
    assert up.process is not None
    os.killpg(up.process.pid, signal.SIGINT)
    assert 0 == up.process.wait(180)
    assert [] == [role for role in roles if Path(f"/proc/{role}").exists()]
    assert "stop" == up.notes()[-1]["note"]
    assert not up.socket.exists()
    assert "Traceback" not in up.said()


def test_a_bucket_that_never_answers_does_not_touch_capture(monkeypatch: pytest.MonkeyPatch) -> None:
    """With a bucket that accepts and hangs, runs are recorded, the recorder keeps up, and status says what waits and why."""
    require_probes()
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setitem(ENVIRONMENT, name, "agent")
    with open_directory() as directory, lossy(1) as way:
        way.become(swallow=True)
        url = f'bucket_url = "s3://nowhere"\n[bucket]\nendpoint = "https://127.0.0.1:{way.port}"\ntimeout_seconds = 3\n'
        made = Daemon(directory, url, verb="up")
        made.start()
        try:
            assert 0 == made.run("sh", "-c", "exit 0").returncode
            shipper = wait_for_shipper(made, "no answer in time")
            assert shipper["state"] == "retrying"
            assert 0 == made.run("sh", "-c", "exit 0", name="second").returncode
            wait_until(lambda: len(list((directory / "state/segments").glob("*.seg"))) > 0, "segments are sealed")
            wait_until(lambda: gathered(made, url)["roles"]["shipper"]["backlog"]["segments"] > 0, "they wait")
            wait_until(lambda: gathered(made, url)["roles"]["recorder"]["lag_bytes"] == 0, "the recorder keeps up")
            said = call("status", "--config", made.config).stdout
            for words in ("bucket      s3://nowhere", "to ship ", "failing: s3://nowhere"):
                assert words in said
            assert "AWS_SECRET" not in Path(f"/proc/{pid(made, 'recorder')}/environ").read_text(encoding="utf-8")
        finally:
            assert 0 == made.stop()


def test_a_whole_tree_ships_and_lets_go_what_is_over() -> None:
    """Into a directory it ships keys, segments and heads; a class of no days lets them go; `verify` finds nothing wrong."""
    require_probes()
    with open_directory() as directory:
        bucket = directory / "bucket"
        bucket.mkdir()
        bucket.chmod(0o777)
        rule = '[[retention]]\nname = "all"\nhot_days = 0\narchive_days = 0\n'
        made = Daemon(directory, f'bucket_url = "{bucket}"\n[catalogue]\nenabled = false\n{rule}', verb="up")
        made.start()
        try:
            assert 0 == made.run("sh", "-c", "exit 0").returncode
            report = directory / "run/shipper/shipper.status.json"
            wait_until(lambda: list(bucket.glob("host=*/date=*/*.seg")), "segments are shipped")
            wait_until(lambda: list(bucket.glob("host=*/date=*/*.head")), "heads are shipped")
            before = json.loads(report.read_bytes())
            os.kill(before["pid"], signal.SIGKILL)
            wait_until(lambda: json.loads(report.read_bytes())["pid"] != before["pid"], "another shipper")
            wait_until(
                lambda: list(bucket.glob("host=*/deletions/*.deletion")), f"a deletion; {report.read_text()}; {made.said()}"
            )
            wait_until(lambda: json.loads(report.read_bytes())["retention"]["segments"], "it lets go")
            assert None is json.loads(report.read_bytes())["retention"]["error"]
        finally:
            assert 0 == made.stop()
        (host,) = verify_shelf(DirectoryShelf(bucket), Trust(), workers=2)
        assert (set(), []) == (host.faults, host.missing)
        assert host.expired
        assert host.root is not None


def test_killed_tree_leaves_nothing(daemons: Callable[..., Daemon]) -> None:
    """After kill -9 of the supervising process alone its roles end by themselves, in good order."""
    up = daemons(verb="up")
    up.start()
    wait_until(lambda: pid(up, "recorder"), "the recorder runs")
    roles = [pid(up, "recorder"), pid(up, "daemon")]
    up.stop(signal.SIGKILL)
    wait_until(lambda: not [role for role in roles if Path(f"/proc/{role}").exists()], "all are gone")
    assert "stop" == up.notes()[-1]["note"]


def test_failure_to_start_is_the_daemons(daemons: Callable[..., Daemon], instance_dir: Path) -> None:
    """When the daemon cannot start, its message stands there once and its status is that of `capd up`."""
    config = instance_dir / "full.toml"
    text = f'state_dir = "{instance_dir}/state"\nruntime_dir = "{instance_dir}/run"\n[journal]\nfree_bytes_min = {1 << 60}\n'
    config.write_text(text)
    done = call("up", "--config", config)
    assert (5, 1) == (done.returncode, done.stderr.count("free_bytes_min wants"))
    assert not subprocess.run(["pgrep", "-f", str(config)], capture_output=True, check=False).stdout
