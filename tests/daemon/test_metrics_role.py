"""The role that watches health, within a whole `capd up` whose bucket is dead and comes to life; and what it may read."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from capd.daemon.metrics import FIGURES
from capd.recording.errors import CapdError
from tests.daemon.conftest import ENVIRONMENT, Daemon, call, open_directory, wait_until
from tests.requirements import require_probes

pytestmark = pytest.mark.kernel

NAME = 'zq"} 1\ncapd_lost_bytes_total 7\n\x1b[2J'
"""Of a run, whose owner would like to have a metric."""
DEATHS_MAX = 5
"""A daemon may be back within the two seconds between two looks."""


@pytest.fixture(scope="module")
def up() -> Iterator[Daemon]:
    """Give a running `capd up` with metrics on a unix socket and a bucket that refuses everything."""
    require_probes()
    with open_directory() as directory:
        (directory / "bucket").mkdir(mode=0)
        made = Daemon(
            directory,
            f'bucket_url = "{directory}/bucket"\n[catalogue]\nenabled = false\n'
            f'[metrics]\nlisten = "unix:{directory}/run/metrics.sock"\n[alerts]\nbegin_seconds = 0\nend_seconds = 0\n'
            "[shipper]\nlate_seconds = 1\nretry_seconds_max = 1\n",
            verb="up",
        )
        made.start()
        try:
            yield made
        finally:
            if made.process is not None and made.process.poll() is None:
                made.stop()


class UnixConnection(http.client.HTTPConnection):
    """HTTP over a unix socket."""

    def __init__(self, path: Path) -> None:
        super().__init__("localhost", timeout=180)
        self._path = path

    def connect(self) -> None:
        """Connect to the path."""
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.connect(str(self._path))


def scraped(up: Daemon) -> dict[tuple[str, tuple[str, ...]], float]:
    """Ask for metrics as Prometheus does."""
    connection = UnixConnection(up.directory / "run/metrics.sock")
    connection.request("GET", "/metrics")
    response = connection.getresponse()
    text = response.read().decode("utf-8")
    assert (200, "text/plain; version=0.0.4; charset=utf-8") == (response.status, response.getheader("Content-Type"))
    assert "zq" not in text
    found = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            found[sample.name, tuple(value for _, value in sorted(sample.labels.items()))] = sample.value
    assert set() == {name for name, _ in found} - {figure.name for figure in FIGURES}
    return found


def report(up: Daemon, role: str) -> dict[str, object]:
    """Read what a role says of itself."""
    found: dict[str, object] = json.loads((up.directory / f"run/{role}/{role}.status.json").read_bytes())
    return found


def lines(up: Daemon, alert: str) -> list[str]:
    """Give what was told of an alert: whether it begins or ends."""
    return re.findall(rf"^capd: alert {alert} (begins|ends)", up.said(), re.MULTILINE)


def test_dead_bucket_is_told_once_and_its_end_once(up: Daemon) -> None:
    """What waits is in the metrics, an alert is told once and is a file while it lasts, also over a restart of the role."""
    directory = up.directory
    for role in ("recorder", "shipper", "metrics"):
        wait_until((directory / f"run/{role}/{role}.status.json").exists, f"the {role} reports")
    assert 0 == up.run("true", name=NAME).returncode
    os.kill(int(str(report(up, "recorder")["pid"])), signal.SIGUSR1)
    wait_until(lambda: scraped(up).get(("capd_shipper_backlog_bytes", ()), 0) > 0, "something waits")
    wait_until((directory / "run/alerts/shipper-late.json").exists, "an alert")
    found = scraped(up)
    assert (1, 1, 1) == (
        found["capd_alert_active", ("shipper-late", "warning")],
        found["capd_shipper_failing", ()],
        found["capd_role_up", ("shipper",)],
    )
    assert found["capd_shipper_oldest_unshipped_seconds", ()] > 1

    before = int(str(report(up, "metrics")["pid"]))
    os.kill(before, signal.SIGKILL)
    wait_until(lambda: report(up, "metrics")["pid"] != before, "the role runs again")
    wait_until(lambda: report(up, "metrics")["alerts"], "it knows what was told")
    assert ["begins"] == lines(up, "shipper-late")

    (directory / "bucket").chmod(0o777)
    wait_until(lambda: not (directory / "run/alerts/shipper-late.json").exists(), "the alert ends")
    assert ["begins", "ends"] == lines(up, "shipper-late")
    found = scraped(up)
    assert (0, 0) == (found["capd_shipper_backlog_segments", ()], found["capd_shipper_oldest_unshipped_seconds", ()])
    assert found["capd_shipper_shipped_segments_total", ()] > 0


def test_role_has_no_rights(up: Daemon) -> None:
    """It is not root, has no capability, and a filter of system calls; its socket is everybody's."""
    process = Path(f"/proc/{report(up, 'metrics')['pid']}/status").read_text(encoding="utf-8")
    found = dict(line.split(":\t", 1) for line in process.splitlines() if ":\t" in line)
    assert ("0" * 16, "0" * 16, "1", "2") == tuple(found[key] for key in ("CapEff", "CapBnd", "NoNewPrivs", "Seccomp"))
    assert "0" not in found["Uid"].split()
    assert 0o666 == (up.directory / "run/metrics.sock").stat().st_mode & 0o777


def test_once_prints_the_same_metrics(up: Daemon) -> None:
    """`capd metrics --once` prints what the socket gives."""
    done = call("metrics", "--once", "--config", up.config)
    assert (0, "") == (done.returncode, done.stderr)
    printed = {family.name for family in text_string_to_metric_families(done.stdout)}
    connection = UnixConnection(up.directory / "run/metrics.sock")
    connection.request("GET", "/metrics")
    assert printed == {family.name for family in text_string_to_metric_families(connection.getresponse().read().decode())}


def answers_as_another(up: Daemon, before: int) -> bool:
    """Say whether a daemon answers that is not the one of before."""
    with contextlib.suppress(CapdError):
        return before != int(up.status()["pid"])
    return False


def test_dead_daemon_is_told_and_a_stopped_capd_is_not(up: Daemon) -> None:
    """When the daemon dies that is told, unless it is back before anybody looks; when all of capd is stopped nothing is."""
    for _try in range(DEATHS_MAX):
        before = int(up.status()["pid"])
        os.kill(before, signal.SIGKILL)
        wait_until(partial(answers_as_another, up, before), "it is back")
        if lines(up, "daemon-down"):
            break
    wait_until(lambda: lines(up, "daemon-down")[:2] == ["begins", "ends"], "its end and its return are told")
    assert 1 == scraped(up)["capd_role_up", ("daemon",)]
    said = up.said().count("alert")
    assert 0 == up.stop()
    assert said == up.said().count("alert")
    assert "Traceback" not in up.said()


TRIES = """
import json, os, sys
from capd.daemon import metrics_role, settled, state_directory
from capd.daemon.confinement import confine
from capd.daemon.recorder_user import RecorderUser
settings = settled.load(sys.argv[1])
state_directory.prepare(settings, RecorderUser(uid=61184, gid=61184, name="x", reason="y"))
def make(path):
    path.write_bytes(b"x")
    os.chown(path, 61184, 61184)
for path in (settings.segments_dir / "1.seg", settings.index_file, settings.keys_dir / "host.key", settings.journal_dir / "1",
             settings.runtime_dir / "journal.key", settings.recorder_status_file, settings.shipper_status_file):
    make(path)
confine(61184, 61184)
assert metrics_role._restrict_files(settings) == "files"
found = {}
def attempt(name, action):
    try:
        action()
        found[name] = "allowed"
    except OSError as error:
        found[name] = os.strerror(error.errno)
attempt("segment", (settings.segments_dir / "1.seg").read_bytes)
attempt("segments", lambda: list(settings.segments_dir.iterdir()))
attempt("remove segment", (settings.segments_dir / "1.seg").unlink)
attempt("index", settings.index_file.read_bytes)
attempt("host key", (settings.keys_dir / "host.key").read_bytes)
attempt("journal", (settings.journal_dir / "1").read_bytes)
attempt("journal key", (settings.runtime_dir / "journal.key").read_bytes)
attempt("passwd", lambda: open("/etc/passwd"))
attempt("write recorder's report", lambda: settings.recorder_status_file.write_bytes(b"y"))
attempt("recorder's report", settings.recorder_status_file.read_bytes)
attempt("shipper's report", settings.shipper_status_file.read_bytes)
attempt("own report", lambda: settings.metrics_status_file.write_bytes(b"y"))
attempt("alert", lambda: (settings.alerts_dir / "x.json").write_bytes(b"y"))
attempt("remove alert", (settings.alerts_dir / "x.json").unlink)
attempt("free space", lambda: os.statvfs(settings.state_dir))
attempt("whether a process lives", lambda: os.stat("/proc/1"))
print(json.dumps(found))
"""

OPEN = {
    *("recorder's report", "shipper's report", "own report", "alert", "remove alert", "free space"),
    "whether a process lives",
}


@pytest.mark.usefixtures("root")
def test_it_reaches_reports_and_alerts_and_nothing_that_was_recorded(instance_dir: Path) -> None:
    """Of files that belong to its own user it can read no segment, index, journal or key, and write nothing of other roles."""
    config = instance_dir / "capd.toml"
    config.write_text(f'state_dir = "{instance_dir}/state"\nruntime_dir = "{instance_dir}/run"\n', encoding="utf-8")
    command = [sys.executable, "-P", "-c", TRIES, str(config)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60, env=ENVIRONMENT)
    assert (0, "") == (done.returncode, done.stderr)
    found = json.loads(done.stdout)
    assert OPEN == {name for name, answer in found.items() if answer == "allowed"}
    assert {"Permission denied"} == {answer for name, answer in found.items() if name not in OPEN}
