"""`capd status` is asked again and again, by persons and by their tools: it costs little, and reads no model."""

from __future__ import annotations

import json
import resource
import selectors
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from capd.daemon.alert_log import AlertLog
from capd.daemon.configuration import AlertsSection, Configuration
from capd.daemon.control import ControlServer, Verb
from capd.daemon.metrics_role import Watch
from tests.cli.test_status_screen import usual
from tests.daemon.conftest import ENVIRONMENT, PYTHON, call, capd

TIMES_BARE_MAX = 10.0
"""Processor time of `capd status`, in those of an interpreter that does nothing: 7.6 on a quiet machine (108 ms), 3 on a busy
one; with the model read it would be 13."""
ROUNDS = 5
"""The least of so many counts: others use this machine."""


def answer(directory: Path, begin_seconds: float = 1, *, changed: bool = False) -> dict[str, Any]:
    """Give what a daemon says.

    Args:
        directory: of its instance.
        begin_seconds: its `alerts.begin_seconds`.
        changed: whether its configuration has changed on disk.
    """
    found = {key: value for key, value in usual().items() if key not in {"health", "reasons", "roles", "disk"}}
    found["losses"]["changed_ns"] = None
    found["journal"]["stopped"] = None
    found["configuration"]["changed_on_disk"] = changed
    alerts = {"enabled": True, "begin_seconds": begin_seconds, "end_seconds": 1}
    settings = {"state_dir": str(directory / "state"), "bucket": True, "late_seconds": 5, "listen": None, "alerts": alerts}
    return {**found, "settings": settings}


@contextmanager
def answering(directory: Path, begin_seconds: float = 1, *, changed: bool = False) -> Iterator[Path]:
    """Answer as a daemon does; give a configuration that leads here."""
    (directory / "run").mkdir()
    config = directory / "capd.toml"
    config.write_text(f'state_dir = "/elsewhere"\nruntime_dir = "{directory}/run"\nwrong = 1\n', encoding="utf-8")
    selector, ended = selectors.DefaultSelector(), threading.Event()
    verbs = {"status": Verb(act=lambda _peer, _request: answer(directory, begin_seconds, changed=changed))}
    server = ControlServer(directory / "run" / "control.sock", verbs, selector)

    def serve() -> None:
        while not ended.is_set():
            for key, _events in selector.select(0.1):
                key.data()
            server.attend()

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield config
    finally:
        ended.set()
        thread.join()
        server.close()
        selector.close()


def seconds(command: list[str]) -> float:
    """Give the processor time of a command."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(command, env=ENVIRONMENT, stdin=subprocess.DEVNULL, capture_output=True, check=False)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def test_the_daemon_is_asked_and_no_model_read(tmp_path: Path) -> None:
    """What the daemon has in force counts, not what a file says by now, and pydantic is not imported."""
    with answering(tmp_path) as config:
        found = json.loads(call("status", "--config", config, "--json").stdout)
        assert (str(tmp_path / "state"), {"shipper", "enforcer"}) == (
            found["disk"]["state_dir"],
            {"shipper", "enforcer"} & set(found["roles"]),
        )
        script = (
            f"import sys; from capd.cli import status; status.command(['--config', {str(config)!r}], standalone_mode=False);"
            "sys.exit(sorted({'pydantic', 'cryptography', 'sqlite_utils', 'obstore'} & set(sys.modules)) or 0)"
        )
        done = subprocess.run([PYTHON, "-P", "-c", script], env=ENVIRONMENT, capture_output=True, text=True, check=False)
        assert 0 == done.returncode, done.stderr


def test_it_takes_some_times_what_an_interpreter_takes(tmp_path: Path) -> None:
    """Asking costs a few times what an interpreter costs that does nothing."""
    with answering(tmp_path) as config:
        rounds = [
            (seconds([sys.executable, "-P", "-c", "pass"]), seconds(capd("status", "--config", config))) for _ in range(ROUNDS)
        ]
    bare, asked = (min(column) for column in zip(*rounds, strict=True))
    assert asked <= TIMES_BARE_MAX * bare, rounds


@pytest.mark.parametrize(("begin_seconds", "told"), [(0, True), (3600, False)])
def test_alerts_go_by_what_the_daemon_has_in_force(tmp_path: Path, begin_seconds: float, told: bool) -> None:
    """The role that watches health cannot read the configuration anew: it goes by what the daemon took over."""
    settings = Configuration(
        state_dir=tmp_path / "state",
        runtime_dir=tmp_path / "run",
        alerts=AlertsSection(begin_seconds=3600 - begin_seconds),
    )
    with answering(tmp_path, begin_seconds):
        settings.alerts_dir.mkdir(parents=True)
        watch = Watch(settings, AlertLog(None))
        watch.check()
        watch.check()
    assert told == (settings.alerts_dir / "recorder-down.json").exists()
