"""What fails, fails clearly: one line that says what is wrong and what to do, and a documented exit status.

What lives here: machines and files that are not as they should be. What must not: loss of data; that is in test_loss.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.e2e.instance import CAPD, CLIENTS, PYTHON, Instance, running
from tests.e2e.truth import Server
from tests.requirements import require_command, require_probes, require_root

pytestmark = pytest.mark.e2e

NOT_PERMITTED, LACKING, UNUSABLE_STATE, CORRUPT, ALREADY_RUNNING, UNREACHABLE = 3, 4, 5, 6, 7, 8
NEGATIVE, USAGE, DOWN = 1, 2, 2
START_SECONDS = 60


def up(directory: Path, *, prepare: str = "", settings: str = "", user: str | None = None) -> subprocess.CompletedProcess[str]:
    """Start `capd up` in a mount namespace of its own, after shell commands that break something there."""
    require_command("unshare", "timeout")
    config = directory / "capd.toml"
    config.write_text(f'state_dir = "{directory}/state"\nruntime_dir = "{directory}/run"\n{settings}', encoding="utf-8")
    inside = f"{prepare}\nexec timeout {START_SECONDS} '{CAPD}' up --config '{config}'"
    command = ["unshare", "--mount", "--propagation", "private", "/bin/sh", "-ec", inside]
    if user is not None:
        command = ["setpriv", f"--reuid={user}", "--clear-groups", str(CAPD), "up", "--config", str(config)]
    return subprocess.run(
        command, capture_output=True, text=True, check=False, timeout=2 * START_SECONDS, stdin=subprocess.DEVNULL
    )


def assert_says(done: subprocess.CompletedProcess[str], status: int, *words: str) -> None:
    """Hold a failed command against its status and the words that its reader needs."""
    assert status == done.returncode, done.stderr + done.stdout
    assert "Traceback" not in done.stderr
    for word in words:
        assert word in done.stderr


def test_not_root(directory: Path) -> None:
    """An ordinary user is told that probes need root."""
    require_root()
    assert_says(up(directory, user="65534"), NOT_PERMITTED, "root")


def test_no_btf(directory: Path) -> None:
    """A kernel without BTF is told apart, by the path that is missing."""
    require_probes()
    assert_says(up(directory, prepare="mount -t tmpfs none /sys/kernel/btf"), LACKING, "/sys/kernel/btf/vmlinux")


def test_no_cgroup2(directory: Path) -> None:
    """Without any cgroup2 hierarchy capd says what to mount."""
    require_probes()
    unmount = "grep -o ' /[^ ]* cgroup2 ' /proc/mounts | while read -r path _; do umount \"$path\"; done"
    assert_says(up(directory, prepare=unmount), LACKING, "cgroup2")


def test_another_capd(capd: Instance) -> None:
    """A second capd on the same directories is refused, and the first goes on."""
    done = subprocess.run([CAPD, "up", "--config", capd.config], capture_output=True, text=True, check=False, timeout=60)
    assert_says(done, ALREADY_RUNNING, "running")
    assert capd.alive()


def test_state_directory_not_writable(directory: Path) -> None:
    """A read-only state directory is named."""
    require_probes()
    (directory / "state").mkdir()
    read_only = f"mount -t tmpfs -o ro none {directory}/state"
    assert_says(up(directory, prepare=read_only), UNUSABLE_STATE, f"{directory}/state")


def test_state_directory_full(directory: Path) -> None:
    """A state directory without room is named."""
    require_probes()
    (directory / "state").mkdir()
    full = f"mount -t tmpfs -o size=64k none {directory}/state\ncat /dev/zero >{directory}/state/fill 2>/dev/null || true"
    assert_says(up(directory, prepare=full), UNUSABLE_STATE, f"{directory}/state")


def test_unknown_key(directory: Path) -> None:
    """A misspelt key of the configuration is named, with its file."""
    require_root()
    assert_says(up(directory, settings="stat_dir = 1\n"), USAGE, "stat_dir", "capd.toml")


def test_daemon_down(directory: Path) -> None:
    """`capd run` without a daemon says how to start one; `capd status` says down."""
    config = directory / "capd.toml"
    config.write_text(f'state_dir = "{directory}/state"\nruntime_dir = "{directory}/run"\n', encoding="utf-8")
    for arguments, status in (
        (["run", "--config", str(config), "--", "true"], UNREACHABLE),
        (["status", "--config", str(config)], 2),
    ):
        done = subprocess.run([CAPD, *arguments], capture_output=True, text=True, check=False, timeout=30)
        assert status == done.returncode
        assert "capd up" in done.stderr + done.stdout


def test_mounts_brought_by_capd(directory: Path, echo: Server) -> None:
    """Where bpffs and tracefs are not mounted capd mounts them, says so, and records."""
    require_probes()
    gone = "for path in /sys/fs/bpf /sys/kernel/tracing /sys/kernel/debug; do umount -l $path 2>/dev/null || true; done"
    with running(directory, before=gone) as capd:
        capd.run("mounts", PYTHON, "-I", CLIENTS / "descriptors.py", "dup", str(echo.port), "hello")
        capd.assert_recorded("mounts", echo.ledger.take(1))
        assert "/sys/kernel/tracing" in capd.said()


def test_corrupt_segment(capd: Instance, echo: Server, directory: Path) -> None:
    """One flipped byte of a sealed segment is found by `verify`, by file, and stops a replay instead of misleading it."""
    capd.wait_sealed()  # what was said before is not in the same segment, where a byte of it may be the one
    capd.run("corrupt", PYTHON, "-I", CLIENTS / "descriptors.py", "dup", str(echo.port), "to be altered")
    (session,) = capd.assert_recorded("corrupt", echo.ledger.take(1))
    capd.wait_sealed()
    copy = directory / "state"
    shutil.copytree(capd.state, copy)
    target = max((copy / "segments").glob("*.seg"))
    content = bytearray(target.read_bytes())
    content[len(content) // 3] ^= 1
    target.write_bytes(content)
    done = subprocess.run([CAPD, "verify", str(copy)], capture_output=True, text=True, check=False, timeout=60)
    assert NEGATIVE == done.returncode
    assert target.name in done.stdout + done.stderr
    replay = [CAPD, "replay", session["session"], "--state-dir", str(copy), "--format", "raw", "--direction", "request"]
    done = subprocess.run(replay, capture_output=True, text=True, check=False, timeout=60, env={**os.environ})
    assert_says(done, CORRUPT, target.name)
