"""A role that says it is ready is one that `capd status` finds: who types it behind `systemctl start` is told no untruth."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
from pathlib import Path

import pytest

from tests.daemon.conftest import ENVIRONMENT, call, capd

pytestmark = pytest.mark.usefixtures("root")

READY_SECONDS_MAX = 60


@pytest.mark.parametrize("role", ["recorder", "shipper", "metrics"])
def test_what_is_ready_has_said_how_it_stands(instance_dir: Path, role: str) -> None:
    """At the moment at which a role is ready its status is there, and is its own."""
    config = instance_dir / "capd.toml"
    config.write_text(
        f'state_dir = "{instance_dir}/state"\nruntime_dir = "{instance_dir}/run"\nbucket_url = "file://{instance_dir}/bucket"\n'
    )
    assert 0 == call("setup", "--config", config).returncode
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(instance_dir / "notify"))
        (instance_dir / "notify").chmod(0o777)
        manager.settimeout(READY_SECONDS_MAX)
        environment = {**ENVIRONMENT, "NOTIFY_SOCKET": str(instance_dir / "notify")}
        started = subprocess.Popen(capd(role, "--config", config), env=environment)
        try:
            assert manager.recv(1000).startswith(b"READY=1")
            started.send_signal(signal.SIGSTOP)  # what it says later is too late
            told = json.loads((instance_dir / "run" / role / f"{role}.status.json").read_text())
        finally:
            started.send_signal(signal.SIGCONT)
            started.terminate()
            assert 0 == started.wait(READY_SECONDS_MAX)
    assert (started.pid, "running") == (told["pid"], told["state"])
