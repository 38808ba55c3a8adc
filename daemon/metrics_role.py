"""The role that watches health: it tells what begins and ends, and serves metrics where it is told to.

What lives here: its process: confinement, signals, the loop, its status. What must not: gathering and judging (status.py,
health.py), when something is told (alerting.py), how (alert_log.py, alert_files.py, metrics_endpoint.py).

It asks the daemon as any user may, and reads the reports of the other roles, so it is told no more than how many there are of
what is others'. It runs as the recorder's user and gives up: root, exec, all sockets but unix ones (the one that listens is
made before), and, with Landlock, reading and writing anywhere but in the corners of the roles in `runtime_dir`: it can read
neither recordings nor the keys that sign them and the journal.
"""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from importlib import import_module
from typing import TYPE_CHECKING, Final

from capd.daemon import alert_files, metrics_address, recorder_user, status
from capd.daemon.alert_kinds import Alert
from capd.daemon.alert_log import AlertLog
from capd.daemon.alerting import Alerts, Change, Patience, follow
from capd.daemon.confinement import LOCAL_ONLY, confine
from capd.daemon.errors import SandboxError
from capd.daemon.health import Health
from capd.daemon.heartbeat import Heartbeat
from capd.daemon.landlock import KEEP_FILES, READ, restrict
from capd.daemon.lock import InstanceLock
from capd.daemon.metrics import exposition
from capd.daemon.metrics_endpoint import Endpoint
from capd.daemon.version import VERSION
from capd.recording.durable import replace_content

if TYPE_CHECKING:  # its library is to stay out of a role (settled.py)
    from capd.daemon.configuration import Configuration

CHECK_SECONDS: Final = 2.0
"""Between two judgements: what lasts less is in no figure either."""
FRESH_SECONDS: Final = 1.0
"""A document this old is served again: who asks without end must not make the daemon answer without end."""
PAGE_SECONDS_MAX: Final = 5.0
"""A scraper waits ten; the daemon may take longer when it hangs."""
NEEDED: Final = ("prometheus_client.exposition", "prometheus_client.metrics_core")

Json = dict[str, object]


class Watch:
    """What the threads of the role share: the last status, and what became of its alerts."""

    def __init__(self, configuration: Configuration, log: AlertLog) -> None:
        """Take up what an earlier process told."""
        self._configuration, self._log = configuration, log
        alerts = configuration.alerts
        self._patience = Patience(begin_seconds=alerts.begin_seconds, end_seconds=alerts.end_seconds)
        self._enabled = alerts.enabled
        self._alerts = Alerts(active=alert_files.load(configuration.alerts_dir))
        self._gathering = threading.Lock()
        self._found: tuple[Json, Health] | None = None
        self._found_at = 0.0
        self.endpoint: Endpoint | None = None
        self.confinement = ""
        self.untold = 0
        self.error: str | None = None

    def check(self) -> None:
        """Judge, and tell what begins and ends."""
        with self._gathering:
            document, health = self._gather()
        self._follow_settings(document.get("settings"))
        if self._enabled:
            self._alerts, changes = follow(self._alerts, health, self._patience, now=time.monotonic(), wall=time.time())
            for change in changes:
                self._tell(change)
        else:
            self._forget()

    def _follow_settings(self, settings: object) -> None:
        """Go by what the daemon has in force: it reads the configuration anew, which this role cannot."""
        match settings:
            case {
                "alerts": {
                    "enabled": bool(enabled),
                    "begin_seconds": int() | float() as begin,
                    "end_seconds": int() | float() as end,
                }
            }:
                self._enabled = enabled
                self._patience = Patience(begin_seconds=begin, end_seconds=end)

    def page(self) -> bytes | None:
        """Give the metrics, not older than `FRESH_SECONDS`; None: the daemon takes too long."""
        if not self._gathering.acquire(timeout=PAGE_SECONDS_MAX):
            return None
        try:
            fresh = self._found is not None and time.monotonic() - self._found_at < FRESH_SECONDS
            document, _health = self._found if fresh and self._found is not None else self._gather()
        finally:
            self._gathering.release()
        return exposition(document)

    def write_status(self, state: str) -> None:
        """Say how this role is."""
        listen, endpoint = self._configuration.metrics.listen, self.endpoint
        report: Mapping[str, object] = {
            "state": state,
            "pid": os.getpid(),
            "version": VERSION,
            "time": time.time(),
            "listen": listen,
            "served": 0 if endpoint is None else endpoint.served,
            "refused": 0 if endpoint is None else endpoint.refused,
            "not_taken": {} if endpoint is None else dict(endpoint.not_taken),
            "alerts": sorted(self._alerts.active),
            "untold": self.untold,
            "last_error": self.error,
            "confinement": self.confinement,
        }
        with suppress(OSError):  # its age then says that it is not written
            content = json.dumps(report, indent=1).encode()
            replace_content(self._configuration.metrics_status_file, content, mode=0o644, sync=False)

    def _gather(self) -> tuple[Json, Health]:
        self._found = status.gather(self._configuration)
        self._found_at = time.monotonic()
        return self._found

    def _tell(self, change: Change) -> None:
        """Log first: a process that dies in between logs twice, and never not at all."""
        try:
            self._log.write(change)
        except OSError as error:
            self._missed(f"cannot log: {error.strerror}")
        if not change.begins:
            self._remove(change.active.reason.alert)
            return
        directory = self._configuration.alerts_dir
        try:
            alert_files.write(directory, change.active)
        except OSError as error:
            self._missed(f"cannot write in {directory}: {error.strerror}")

    def _forget(self) -> None:
        """Nobody wants to be told any more: leave no file behind that looks as if something lasted."""
        for alert in self._alerts.active:
            self._remove(alert)
        self._alerts = Alerts()

    def _remove(self, alert: Alert) -> None:
        try:
            alert_files.remove(self._configuration.alerts_dir, alert)
        except OSError as error:
            self._missed(f"cannot write in {self._configuration.alerts_dir}: {error.strerror}")

    def _missed(self, error: str) -> None:
        self.untold += 1
        self.error = error


def run_metrics(configuration: Configuration) -> None:
    """Be the role until SIGTERM or SIGINT. The directories must have been prepared.

    Raises:
        CapdError: it cannot start.
    """
    user = recorder_user.choose(configuration.recorder.user, configuration.segments_dir)
    listen = configuration.metrics.listen
    listener = None if listen is None else metrics_address.listen(metrics_address.parse(listen))
    if listener is not None:
        for name in NEEDED:  # without rights its files may be out of reach, such as below /root
            import_module(name)
    confine(user.uid, user.gid, families=LOCAL_ONLY, who="metrics role")
    confinement = f"user {user.name}, system calls, {_restrict_files(configuration)}"
    os.umask(0o022)
    lock = InstanceLock(configuration.metrics_runtime_dir / "lock").acquire()
    stopped = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda _number, _frame: stopped.set())
    watch = Watch(configuration, AlertLog(os.environ.get("JOURNAL_STREAM")))
    watch.confinement = confinement
    watch.write_status("running")  # before it looks at itself
    if listener is not None:
        watch.endpoint = Endpoint(listener, watch.page)
        watch.endpoint.start()
    heart = Heartbeat(os.environ, os.getpid())
    heart.ready("watching" if listen is None else f"watching, listening at {listen}")
    while not stopped.is_set():
        heart.beat()
        watch.check()
        watch.write_status("running")
        stopped.wait(CHECK_SECONDS)
    if watch.endpoint is not None:
        watch.endpoint.stop()
    watch.write_status("stopped")
    lock.release()


def _restrict_files(configuration: Configuration) -> str:
    """Give up all files but the roles' reports; say what was given up."""
    places = {
        configuration.recorder_runtime_dir: READ,
        configuration.shipper_runtime_dir: READ,
        configuration.metrics_runtime_dir: READ | KEEP_FILES,
        configuration.alerts_dir: READ | KEEP_FILES,
    }
    try:
        restrict(places, reading=True)
    except SandboxError as error:
        return f"not files ({error})"
    return "files"
